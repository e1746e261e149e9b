"""What makes the traffic: wrk in a closed loop, the paced client in an open one, and connections that do nothing."""

import contextlib
import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .processes import ROOT

_IP_BIND_ADDRESS_NO_PORT = 24
_PER_ADDRESS = 2500


class LoadError(Exception):
    """A load generator did not do its work; the message says what it said."""


@dataclass(frozen=True)
class Load:
    """What one run of a generator saw. Seconds; `errors` are failed requests, whatever the failure."""

    requests: int
    errors: int
    seconds: float
    p50: float
    p99: float
    p999: float
    longest: float
    longest_gap: float = 0.0
    late_p50: float = 0.0
    late_p99: float = 0.0


def _on(cpus: Iterable[int], command: list[str]) -> list[str]:
    """Return a command that runs on these cores (taskset is part of util-linux, so is everywhere)."""
    chosen = ",".join(map(str, sorted(cpus)))
    return ["taskset", "-c", chosen, *command] if chosen else command


def wrk(program: str, requests: Path, port: int, seconds: int, connections: int, cpus: Iterable[int]) -> Load:
    """Send the requests of a file in turn over `connections`, each sending its next when the answer has come."""
    script = str(ROOT / "loadtests" / "requests.lua")
    url = f"http://127.0.0.1:{port}/"
    options = ["-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", script]
    command = _on(cpus, [program, *options, url, "--", str(requests)])
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=False)
    found = re.search(r"^RESULT (.*)$", done.stdout, re.MULTILINE)
    if done.returncode or not found:
        raise LoadError(f"wrk ended with {done.returncode}: {(done.stdout + done.stderr)[-400:]}")
    said = json.loads(found[1])
    return Load(
        requests=said["requests"],
        errors=sum(said[kind] for kind in ("connect", "read", "write", "status", "timeout")),
        seconds=said["microseconds"] / 1e6,
        p50=said["p50"] / 1e6,
        p99=said["p99"] / 1e6,
        p999=said["p999"] / 1e6,
        longest=said["max"] / 1e6,
    )


class Paced:
    """The paced client in a process of its own; `result` waits for it."""

    def __init__(
        self, requests: Path, port: int, rate: float, seconds: float, connections: int, cpus: Iterable[int]
    ) -> None:
        script = str(Path(__file__).with_name("paced.py"))
        words = [str(requests), str(port), str(rate), str(seconds), str(connections)]
        self._allowance = seconds + 30
        self._child = subprocess.Popen(
            _on(cpus, [sys.executable, script, *words]), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def __enter__(self) -> "Paced":
        return self

    def __exit__(self, *_: object) -> None:
        if self._child.poll() is None:
            self._child.kill()
            self._child.wait()

    def stop(self) -> None:
        """Let it send nothing more; `result` has what it saw until then."""
        self._child.terminate()

    def result(self) -> Load:
        out, error = self._child.communicate(timeout=self._allowance)
        if self._child.returncode:
            raise LoadError(f"the paced client failed: {error[-400:]}")
        said = json.loads(out)
        return Load(
            requests=said["requests"],
            errors=said["errors"],
            seconds=said["seconds"],
            p50=said["p50"],
            p99=said["p99"],
            p999=said["p999"],
            longest=said["max"],
            longest_gap=said["longestGap"],
            late_p50=said["lateP50"],
            late_p99=said["lateP99"],
        )


class IdleConnections:
    """Kept-alive connections that each got one answer and then say nothing."""

    def __init__(self, port: int, count: int, requests: list[bytes]) -> None:
        self._sockets: list[socket.socket] = []
        for number in range(count):
            self._sockets.append(self._open(port, number, requests[number % len(requests)]))

    def _open(self, port: int, number: int, request: bytes) -> socket.socket:
        connection = socket.socket()
        connection.settimeout(10)
        with contextlib.suppress(OSError):  # an old kernel then spends a port per address, which suffices here too
            connection.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
        try:
            connection.bind((f"127.0.{1 + number // _PER_ADDRESS}.1", 0))
            connection.connect(("127.0.0.1", port))
            connection.sendall(request)
            if not connection.recv(65536).startswith(b"HTTP/1.1 200"):
                raise LoadError(f"idle connection {number} got no 200")
        except OSError as error:
            raise LoadError(f"idle connection {number}: {error}") from error
        return connection

    def __enter__(self) -> "IdleConnections":
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._sockets:
            connection.close()

    def still_open(self) -> int:
        """Return how many of them the peer has not closed."""
        alive = 0
        for connection in self._sockets:
            connection.setblocking(False)
            try:
                alive += bool(connection.recv(1))
            except BlockingIOError:
                alive += 1
            except OSError:
                continue
        return alive
