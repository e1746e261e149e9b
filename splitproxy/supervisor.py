"""The first process: keeps the listening sockets, starts and restarts control and the workers, hands down signals.

It imports next to nothing and decides next to nothing, so that it is the one part that does not fail. What is to be
bound and how many workers run is control's word (`splitproxy.channel` lists the messages); what already runs goes on
without control.

How a listener is closed without losing a connection. Linux resets whatever waits in the queue of a listening socket
when its last descriptor is closed. So, first, a packet filter on the socket drops new SYNs: the queue can only shrink,
and who comes now is refused (or finds another listener) a second later, at the repetition of the SYN. Second, the
worker is told `release` (or `drain`): it accepts what is queued, and what completes its handshake within a moment, and
closes its descriptor. The supervisor closes its own right after telling, so the worker's is the last.
"""

import heapq
import os
import resource
import selectors
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from splitproxy import listening
from splitproxy.channel import Message, pair
from splitproxy.children import BackOff, Child, start
from splitproxy.core.live import LIVE_BYTES, LIVE_OFFSET
from splitproxy.core.stats import MAX_WORKERS

DRAIN_SECONDS: Final = 25.0
"""How long requests may take to end once asked to; below the 30 s after which Kubernetes kills."""
_CONTROL_EXIT_SECONDS: Final = 3.0
_HOPELESS: Final = 3
"""Deaths of workers in a row, before any was ever ready, after which the start has failed."""


@dataclass(frozen=True)
class Programs:
    """What to start, less the descriptors. Tests put their own here."""

    control: Sequence[str]
    worker: Sequence[str] = ("-m", "splitproxy.proxy.worker")


@dataclass(frozen=True)
class Ready:
    """What runs, once everything does."""

    generation: int
    listeners: dict[str, str]
    admin: str
    workers: int


@dataclass(frozen=True)
class _Serving:
    """What control committed last; a new worker serves this at once, control alive or not."""

    generation: int
    addresses: list[str]
    memfds: tuple[int, int]
    """The snapshot, and a description of it that only control can read."""


@dataclass(order=True)
class _Timer:
    due: float
    action: Callable[[], None] = field(compare=False)


class Supervisor:
    """One `run()` is one life of the program; it returns the exit code."""

    def __init__(self, programs: Programs, say: Callable[[str, str], None], announce: Callable[[Ready], None]) -> None:
        """`say(level, text)` reports an event; `announce` is called once, when all workers serve."""
        self._programs, self._say, self._announce = programs, say, announce
        self._stats = os.memfd_create("splitproxy-stats")
        os.ftruncate(self._stats, LIVE_OFFSET + LIVE_BYTES)  # sparse: only what is used takes memory
        self._selector = selectors.DefaultSelector()
        self._listeners = listening.Listeners()
        self._children: dict[int, Child] = {}
        self._control: Child | None = None
        self._workers: dict[int, Child] = {}
        self._slots: list[int] = []
        self._serving: _Serving | None = None
        self._timers: list[_Timer] = []
        self._back_off = BackOff()
        self._ready = False
        self._stopping = False
        self._exit: int | None = None

    # --- life --------------------------------------------------------------------------------------------------------
    def run(self) -> int:
        """Run until told to stop and return the exit code: 0 stopped, 1 did not start, 130 interrupted twice."""
        self._catch_signals()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != hard:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self._start_control()
        while self._exit is None or self._children:
            self._turn()
        return self._exit

    def _turn(self) -> None:
        wait = max(0.0, self._timers[0].due - time.monotonic()) if self._timers else None
        for key, _ in self._selector.select(wait):
            key.data()
        while self._timers and self._timers[0].due <= time.monotonic():
            heapq.heappop(self._timers).action()

    def _after(self, seconds: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._timers, _Timer(time.monotonic() + seconds, action))

    def _finish(self, code: int, *, at_once: bool = False) -> None:
        """End every process and then the loop: control by closing its channel, what remains by force."""
        self._stopping = True
        if self._exit is None or at_once:
            self._exit = code
        for child in list(self._children.values()):
            child.leaving = True
            if at_once or child.slot is not None:
                self._kill(child)
            else:
                self._hang_up(child)
                self._after(_CONTROL_EXIT_SECONDS, partial(self._kill, child))
        self._listeners.close_all()

    def _drain(self) -> None:
        if self._stopping:
            return
        self._stopping = True
        if self._control:
            self._send(self._control, {"type": "drain"})
        for slot in list(self._workers):
            self._release_worker(slot)
        self._listeners.close_all()
        if self._workers_left():
            self._say("info", f"draining: {self._workers_left()} worker(s) finish their requests")
            self._after(DRAIN_SECONDS, self._lose_patience)
        else:
            self._finish(0)

    def _lose_patience(self) -> None:
        if self._workers_left():
            self._say("warning", f"requests were still running after {DRAIN_SECONDS:g} s and are cut off")
            self._finish(0)

    def _workers_left(self) -> int:
        return sum(child.slot is not None for child in self._children.values())

    # --- signals -----------------------------------------------------------------------------------------------------
    def _catch_signals(self) -> None:
        reader, writer = socket.socketpair()
        reader.setblocking(False)
        writer.setblocking(False)
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)  # the wakeup descriptor carries them
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        self._wakeup = writer
        self._selector.register(reader, selectors.EVENT_READ, lambda: self._signalled(reader.recv(4096)))

    def _signalled(self, numbers: bytes) -> None:
        if signal.SIGCHLD in numbers:
            self._reap()
        for number in numbers:
            match number:
                case signal.SIGHUP if self._control and not self._stopping:
                    self._send(self._control, {"type": "reload"})
                case signal.SIGINT if self._stopping:
                    self._finish(130, at_once=True)
                case signal.SIGTERM | signal.SIGINT:
                    self._drain()
                case signal.SIGUSR1:
                    for worker in list(self._workers.values()):
                        self._send(worker, {"type": "reopen"})
                case _:
                    pass

    # --- children ----------------------------------------------------------------------------------------------------
    def _start(self, slot: int | None, program: Sequence[str], *options: str) -> Child:
        child = start(slot, program, self._stats, options)
        self._children[child.pid] = child
        self._selector.register(child.channel.sock, selectors.EVENT_READ, partial(self._heard, child))
        return child

    def _start_control(self) -> None:
        if self._stopping:
            return
        serving = self._serving
        resume = ("--resume", str(serving.generation)) if serving else ()
        self._control = control = self._start(None, self._programs.control, *resume)
        if not serving:
            return
        self._send(control, {"type": "serving", "generation": serving.generation}, serving.memfds)
        for worker in list(self._workers.values()):
            self._introduce(worker)

    def _start_worker(self, slot: int) -> None:
        serving = self._serving
        if self._stopping or slot not in self._slots or slot in self._workers or serving is None:
            return
        worker = self._workers[slot] = self._start(slot, self._programs.worker, "--slot", str(slot))
        self._send(worker, {"type": "snapshot", "generation": serving.generation}, serving.memfds[:1])
        for address in serving.addresses:
            self._hand_over(worker, address)
        self._introduce(worker)

    def _hand_over(self, worker: Child, address: str) -> None:
        assert worker.slot is not None
        try:
            descriptor = self._listeners.take(address, worker.slot)
        except OSError as error:
            self._say("error", f"{worker.name} goes without a listener on {address}: {listening.in_words(error)}")
        else:
            self._send(worker, {"type": "listener", "address": address}, [descriptor])

    def _introduce(self, worker: Child) -> None:
        """Give control and `worker` the two ends of a new channel."""
        if not self._control:
            return
        here, there = pair()
        self._send(worker, {"type": "control"}, [here.fileno()])
        self._send(self._control, {"type": "worker", "slot": worker.slot, "pid": worker.pid}, [there.fileno()])
        here.close()
        there.close()

    def _send(self, child: Child, message: Message, fds: Sequence[int] = ()) -> None:
        try:
            child.channel.send(message, fds)
        except BlockingIOError:
            self._say("error", f"{child.name} (pid {child.pid}) reads no messages and is killed")
            self._kill(child)
        except OSError:
            pass  # it is dead or hung up; its end is noticed by waitpid

    def _kill(self, child: Child) -> None:
        if child.pid in self._children:  # so it was not reaped, and the pid is still its own
            os.kill(child.pid, signal.SIGKILL)

    def _hang_up(self, child: Child) -> None:
        if child.channel.fileno() >= 0:
            self._selector.unregister(child.channel.sock)
            child.channel.close()

    def _reap(self) -> None:
        """Take leave of every dead child, adopted orphans of PID 1 included."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            child = self._children.pop(pid, None)
            if child:
                self._hang_up(child)
                self._ended(child, os.waitstatus_to_exitcode(status))

    def _ended(self, child: Child, code: int) -> None:
        if child is self._control:
            self._control = None
        elif child.slot is not None and self._workers.get(child.slot) is child:
            del self._workers[child.slot]
        if child.slot is not None and self._control:
            self._send(self._control, {"type": "worker-gone", "slot": child.slot, "pid": child.pid})
        if self._stopping:
            if self._exit is None and not self._workers_left():
                self._finish(0)
        elif not child.leaving:
            self._replace(child, code)

    def _replace(self, child: Child, code: int) -> None:
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        deaths, delay = self._back_off.died(child)
        if not self._ready and (self._serving is None or deaths >= _HOPELESS):
            self._say("error", f"{child.name} {how} before it was ready")
            self._finish(1)
            return
        self._say("error", f"{child.name} (pid {child.pid}) {how}; started again" + (f" in {delay:g} s" * (delay > 0)))
        if child.slot is None:
            self._after(delay, self._start_control)
        else:
            self._after(delay, partial(self._start_worker, child.slot))

    # --- what control says -------------------------------------------------------------------------------------------
    def _heard(self, child: Child) -> None:
        if child.channel.fileno() < 0:
            return  # closed by an earlier event of this turn
        try:
            received = child.channel.receive()
        except BlockingIOError:
            return
        if received is None:
            self._hang_up(child)
            if not child.leaving and not self._stopping:
                self._kill(child)  # usually dead already; if not, nobody can tell it anything any more
            return
        message, fds = received
        if child is self._control:
            self._obey(message, fds)

    def _obey(self, message: Message, fds: list[int]) -> None:
        match message["type"]:
            case "listen":
                self._listen(message)
            case "forget":
                self._listeners.keep(self._serving.addresses if self._serving else ())
            case "committed":
                self._commit(message, (fds[0], fds[1]))
            case "ready":
                self._all_ready(message)
            case "failed":
                self._finish(1)
            case "drain":
                self._drain()
            case unknown:
                raise AssertionError(unknown)

    def _listen(self, message: Message) -> None:
        slots = self._plan(message["workers"])
        failures = self._listeners.bind(message["addresses"], slots)
        answer: Message = {"type": "listening", "id": message["id"]}
        if failures:
            answer["error"] = failures
        else:
            answer["addresses"] = {address: self._listeners.bound(address) for address in message["addresses"]}
        if self._control:
            self._send(self._control, answer)

    def _plan(self, workers: int) -> list[int]:
        """Return the slots that `workers` workers take: the present ones first, never one that is still draining."""
        draining = {child.slot for child in self._children.values() if child.leaving}
        free = (slot for slot in range(MAX_WORKERS) if slot not in draining and slot not in self._slots)
        return [*self._slots, *free][:workers]

    def _commit(self, message: Message, memfds: tuple[int, int]) -> None:
        if self._stopping:
            return
        before, self._slots = self._serving, self._plan(message["workers"])
        self._serving = _Serving(message["generation"], message["addresses"], memfds)
        for slot, worker in list(self._workers.items()):
            if slot in self._slots:
                self._exchange_listeners(worker, before.addresses if before else [])
            else:
                self._release_worker(slot)
        if before:
            for descriptor in before.memfds:
                os.close(descriptor)
        self._listeners.keep(self._serving.addresses, self._slots)
        for slot in self._slots:
            self._start_worker(slot)
        if self._control:
            self._send(self._control, {"type": "settled", "generation": message["generation"]})

    def _exchange_listeners(self, worker: Child, before: list[str]) -> None:
        """Hand over the listeners that are new and have those closed that are not wanted any more."""
        assert worker.slot is not None
        assert self._serving is not None
        for address in self._serving.addresses:
            if address not in before:
                self._hand_over(worker, address)
        for address in before:
            if address not in self._serving.addresses:
                self._listeners.quiesce(address, worker.slot)
                self._send(worker, {"type": "release", "address": address})

    def _release_worker(self, slot: int) -> None:
        """Let a worker finish what it has; nobody takes its slot before it is gone."""
        worker = self._workers.pop(slot)
        worker.leaving = True
        self._listeners.quiesce_slot(slot)
        self._send(worker, {"type": "drain"})
        if self._control:
            self._send(self._control, {"type": "worker-leaving", "slot": slot})

    def _all_ready(self, message: Message) -> None:
        if self._ready or self._serving is None:
            return
        self._ready = True
        bound = {address: self._listeners.bound(address) for address in self._serving.addresses}
        self._announce(Ready(message["generation"], bound, message["admin"], len(self._slots)))
