"""An open-loop client: requests leave at fixed times whether or not earlier ones were answered.

Each latency counts from the moment the request was due, not from when it could be sent, so a stall of the proxy is
charged to every request that was due meanwhile (a closed-loop client would simply have sent fewer: "coordinated
omission"). When all connections are busy the request waits its turn, and that wait counts too. How late this client
itself sent is reported beside the result: it is the floor below which nothing can be read.

Run as a program: `paced.py FILE PORT RATE SECONDS CONNECTIONS`; prints one line of JSON. SIGTERM ends it early, with
the result so far.
"""

import contextlib
import ctypes
import gc
import json
import os
import re
import select
import signal
import socket
import struct
import sys
import time
from collections import deque
from pathlib import Path

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CLOCK_MONOTONIC = 1
_ABSOLUTE = 1
_PATIENCE = 2.0
"""Seconds after the last request was due in which answers still count; later ones are errors."""


def _load(path: Path) -> list[bytes]:
    data, at, found = path.read_bytes(), 0, []
    while at < len(data):
        line = data.index(b"\n", at)
        end = line + 1 + int(data[at:line])
        found.append(data[line + 1 : end])
        at = end
    return found


def _timer(first: float, interval: float) -> int:
    """Return a timerfd that expires at `first` (monotonic seconds) and every `interval` from then on."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd: int = libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "timerfd_create")
    parts = [*divmod(round(interval * 1e9), 10**9), *divmod(round(first * 1e9), 10**9)]
    if libc.timerfd_settime(fd, _ABSOLUTE, struct.pack("@4l", *parts), None):
        raise OSError(ctypes.get_errno(), "timerfd_settime")
    return fd


class PacedClient:
    """Sends `rate` requests a second for `seconds` over `connections` kept-alive connections, in turn."""

    def __init__(self, requests: list[bytes], port: int, rate: float, seconds: float, connections: int) -> None:
        self._requests = requests
        self._port = port
        self._interval = 1.0 / rate
        self._count = int(rate * seconds)
        self._stopped = False
        self._epoll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._idle: deque[int] = deque()
        self._due: dict[int, float] = {}
        self._parts: dict[int, bytes] = {}
        self._waiting: deque[float] = deque()
        self.latencies: list[float] = []
        self.lateness: list[float] = []
        self.errors = 0
        self.longest_gap = 0.0
        for _ in range(connections):
            self._connect()

    def _connect(self) -> None:
        connection = socket.create_connection(("127.0.0.1", self._port), 5)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setblocking(False)
        self._sockets[connection.fileno()] = connection
        self._epoll.register(connection.fileno(), select.EPOLLIN)
        self._idle.append(connection.fileno())

    def stop(self, *_: object) -> None:
        """Send nothing more; `run` returns when what is under way has been answered."""
        self._stopped = True

    def run(self) -> None:
        """Send everything and wait for the answers."""
        gc.disable()
        first = time.monotonic() + 0.05
        timer = _timer(first, self._interval)
        self._epoll.register(timer, select.EPOLLIN)
        sent, last_answer = 0, first
        end = first + self._count * self._interval + _PATIENCE
        while (sent < self._count or self._due or self._waiting) and time.monotonic() < end:
            if self._stopped:
                self._count = sent
                end = min(end, time.monotonic() + _PATIENCE)
                self._stopped = False
            for fd, _events in self._epoll.poll(1.0):
                if fd == timer:
                    sent = self._send_due(timer, first, sent)
                elif self._receive(fd):
                    now = time.monotonic()
                    self.longest_gap = max(self.longest_gap, now - last_answer)
                    last_answer = now
        os.close(timer)
        self.errors += len(self._due) + len(self._waiting)
        self._epoll.close()
        for connection in self._sockets.values():
            connection.close()

    def _send_due(self, timer: int, first: float, sent: int) -> int:
        expired = struct.unpack("Q", os.read(timer, 8))[0]
        for number in range(sent, min(sent + expired, self._count)):
            self._waiting.append(first + number * self._interval)
        self._send_waiting()
        return min(sent + int(expired), self._count)

    def _send_waiting(self) -> None:
        while self._waiting and self._idle:
            fd, due = self._idle.popleft(), self._waiting.popleft()
            self._due[fd] = due
            self.lateness.append(time.monotonic() - due)
            try:
                self._sockets[fd].send(self._requests[len(self.lateness) % len(self._requests)])
            except OSError:
                self._lost(fd)

    def _receive(self, fd: int) -> bool:
        """Take what came; return whether it completed an answer."""
        try:
            data = self._sockets[fd].recv(262144)
        except OSError:
            data = b""
        if not data or fd not in self._due:
            self._lost(fd)
            return False
        if kept := self._parts.pop(fd, b""):
            data = kept + data
        head_end = data.find(b"\r\n\r\n")
        found = _LENGTH.search(data, 0, head_end + 2) if head_end > 0 else None
        whole = len(data) - head_end - 4 >= int(found[1]) if found else data.endswith(b"0\r\n\r\n")
        if not whole:
            self._parts[fd] = data
            return False
        if data.startswith(b"HTTP/1.1 200"):
            self.latencies.append(time.monotonic() - self._due.pop(fd))
        else:
            self.errors += 1
            del self._due[fd]
        self._idle.append(fd)
        if self._waiting:
            self._send_waiting()
        return True

    def _lost(self, fd: int) -> None:
        """Replace a connection that closed: an error only when it owed an answer."""
        self._epoll.unregister(fd)
        self._sockets.pop(fd).close()
        self._parts.pop(fd, None)
        if self._due.pop(fd, None) is not None:
            self.errors += 1
        elif fd in self._idle:
            self._idle.remove(fd)
        try:
            self._connect()
        except OSError:
            self.errors += 1


def quantile(ordered: list[float], share: float) -> float:
    """Return the value below which `share` of an ordered list lies; 0 of an empty one."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def main() -> None:
    path, port, rate, seconds, connections = sys.argv[1:]
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, -10)  # the clock of the measurement goes before what it measures
    client = PacedClient(_load(Path(path)), int(port), float(rate), float(seconds), int(connections))
    signal.signal(signal.SIGTERM, client.stop)
    started = time.monotonic()
    client.run()
    passed = time.monotonic() - started
    latencies, lateness = sorted(client.latencies), sorted(client.lateness)
    result = {
        "requests": len(latencies),
        "errors": client.errors,
        "seconds": passed,
        "p50": quantile(latencies, 0.5),
        "p99": quantile(latencies, 0.99),
        "p999": quantile(latencies, 0.999),
        "max": latencies[-1] if latencies else 0.0,
        "longestGap": client.longest_gap,
        "lateP50": quantile(lateness, 0.5),
        "lateP99": quantile(lateness, 0.99),
    }
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
