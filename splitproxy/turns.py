"""The supervisor's event loop: waits for descriptors, timers and signals, and calls what belongs to them."""

import heapq
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field


@dataclass(order=True)
class _Timer:
    due: float
    action: Callable[[], None] = field(compare=False)


class Turns:
    """What is waited for. Everything is called from `turn`, one after the other."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[_Timer] = []

    def turn(self) -> None:
        """Wait until something happens and call what belongs to it."""
        wait = max(0.0, self._timers[0].due - time.monotonic()) if self._timers else None
        for key, _ in self._selector.select(wait):
            key.data()
        while self._timers and self._timers[0].due <= time.monotonic():
            heapq.heappop(self._timers).action()

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Call `action` once, in `seconds`."""
        heapq.heappush(self._timers, _Timer(time.monotonic() + seconds, action))

    def every(self, seconds: float, action: Callable[[], None]) -> None:
        """Call `action` in `seconds`, and again and again; what was missed while nothing ran is not made up for."""

        def act() -> None:
            self.after(seconds, act)
            action()

        self.after(seconds, act)

    def watch(self, sock: socket.socket, readable: Callable[[], None]) -> None:
        """Call `readable` whenever there is something to read."""
        self._selector.register(sock, selectors.EVENT_READ, readable)

    def unwatch(self, sock: socket.socket) -> None:
        """Stop, before `sock` is closed."""
        self._selector.unregister(sock)

    def catch(self, numbers: Iterable[signal.Signals], caught: Callable[[bytes], None]) -> None:
        """Have these signals arrive as calls of `caught`, each byte one signal."""
        reader, writer = socket.socketpair()
        reader.setblocking(False)
        writer.setblocking(False)
        for number in numbers:
            signal.signal(number, lambda *_: None)  # the wakeup descriptor carries them
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        self._writer = writer
        self.watch(reader, lambda: caught(reader.recv(4096)))
