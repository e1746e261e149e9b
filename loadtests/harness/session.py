"""One run of the benchmark: the upstreams, the peers that are there, the requests on disk, the progress shown."""

import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from . import requests
from .generators import IdleConnections, Load, LoadError, Paced, wrk
from .peers import PEERS, Peer, Setup, Upstreams, nginx_preamble
from .processes import (
    ROOT,
    PeakMemory,
    Process,
    StartError,
    cpu_seconds,
    exchange,
    find_program,
    free_ports,
    status_of,
)
from .scenarios import Sample

_PROBE = b"GET /who HTTP/1.1\r\nHost: shop.example.com\r\n\r\n"
_SMALL_BODY = (
    '{"id":71034,"name":"rain coat","price":{"amount":"89.00","currency":"EUR"},"stock":12,"tags":["new","outdoor"],'
    '"description":"Light, warm and dry: three layers, taped seams, a hood that stays up in the wind.","rating":4.6,'
    '"links":{"self":"/items/71034","reviews":"/items/71034/reviews","basket":"/basket"}}'
)


@dataclass(frozen=True)
class Running:
    """A peer that serves: `ready_after` is the seconds from its start to its first answer."""

    peer: Peer
    process: Process
    port: int
    admin_port: int
    folder: Path
    ready_after: float
    cpus: frozenset[int]


@dataclass
class Session:
    """What the scenarios share. `planned` is the seconds each scenario still to run is expected to take."""

    peers: dict[str, str]
    rounds: int
    seconds: int
    quick: bool
    folder: Path
    planned: dict[str, float] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)
    missing: dict[str, str] = field(default_factory=dict)
    top_rates: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ports = free_ports()
        self.wrk = find_program("wrk")
        self.cores = sorted(os.sched_getaffinity(0))
        self._count = 0
        self._present = 0.0
        self._began = self.started
        self._requests: dict[str, list[bytes]] = {}
        self.upstreams = Upstreams(next(self.ports), next(self.ports), next(self.ports))
        self._start_upstreams()

    def begin(self, scenario: str) -> None:
        """Note that a scenario starts: what it was expected to take counts down from now."""
        self._present = self.planned.pop(scenario, 0.0)
        self._began = time.monotonic()

    def say(self, text: str) -> None:
        """Show one line of progress with the time it is about to take still."""
        now = time.monotonic()
        left = sum(self.planned.values()) + max(0.0, self._present - (now - self._began))
        print(f"[{now - self.started:4.0f} s, about {left / 60:.1f} min to go] {text}", file=sys.stderr)

    def new_folder(self, name: str) -> Path:
        self._count += 1
        folder = self.folder / f"{self._count:03d}-{name}"
        folder.mkdir(parents=True)
        return folder

    def _start_upstreams(self) -> None:
        folder = self.new_folder("upstream")
        ports = {"primary": self.upstreams.primary, "canary": self.upstreams.canary, "shadow": self.upstreams.mirror}
        if program := find_program("nginx"):
            files = folder / "files"
            files.mkdir()
            (files / "64k").write_bytes(os.urandom(65536))
            (files / "1m").write_bytes(os.urandom(1048576))
            fields = "add_header Cache-Control 'private, max-age=0'; add_header Vary Accept-Encoding; etag off;"
            text = nginx_preamble(2, folder) + f"sendfile on; open_file_cache max=10 inactive=1h; {fields}\n"
            text += "client_body_buffer_size 64k;\n"
            for name, port in ports.items():
                text += (
                    f"server {{ listen 127.0.0.1:{port} backlog=4096;\n"
                    f"location /files/ {{ root {folder}; }}\n"
                    f"location /fresh/ {{ add_header X-Request-Id $request_id; default_type application/json;"
                    f" return 200 '{_SMALL_BODY}'; }}\n"
                    f"location = /who {{ return 200 '{name} $http_x_forwarded_for'; }}\n"
                    f"location / {{ default_type application/json; return 200 '{_SMALL_BODY}'; }} }}\n"
                )
            (folder / "nginx.conf").write_text(text + "}\n")
            command = [program, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr"]
        else:
            script = str(ROOT / "loadtests" / "upstream.py")
            command = [sys.executable, script, *(f"{name}={port}" for name, port in ports.items())]
            self.missing["nginx as the upstream"] = "a Python one stands in, which holds fast peers back"
        process = Process("upstream", command, folder, self.load_cpus(pinned=True))
        for port in ports.values():
            process.wait_until_serving(port, _PROBE, 10)

    def peer_cpus(self, workers: int, pinned: bool) -> frozenset[int]:
        """Return the cores a peer gets: its own ones where that leaves one for the load, else all."""
        return frozenset(self.cores[:workers] if pinned and len(self.cores) > workers else self.cores)

    def load_cpus(self, pinned: bool, workers: int = 1) -> frozenset[int]:
        """Return the cores of the load generator and the upstream."""
        return frozenset(self.cores[workers:] if pinned and len(self.cores) > workers else self.cores)

    def requests(self, kind: str) -> tuple[Path, list[bytes]]:
        """Return the requests of a kind (`routes/1000` is kind and number of routes), as a file and as a list."""
        path = self.folder / f"{kind.replace('/', '-')}.requests"
        if kind not in self._requests:
            name, _, routes = kind.partition("/")
            self._requests[kind] = requests.generate(name, int(routes or 1))
            requests.save(self._requests[kind], path)
        return path, self._requests[kind]

    def start(self, peer: Peer, setup: Setup, pinned: bool = True, probe: bytes | None = None) -> Running:
        """Start a peer and wait until it serves. Raises StartError."""
        port, spare = next(self.ports), next(self.ports)
        folder = self.new_folder(peer.name)
        command = peer.configure(self.peers[peer.name], folder, port, self.upstreams, setup, spare)
        cpus = self.peer_cpus(setup.workers, pinned)
        began = time.monotonic()
        process = Process(peer.name, command, folder, cpus)
        kind = f"routes/{setup.routes}" if setup.routes else "small"
        try:
            process.wait_until_serving(port, probe or self.requests(kind)[1][0], 120 if setup.routes > 1000 else 20)
        except StartError:
            process.stop()
            raise
        return Running(peer, process, port, spare, folder, time.monotonic() - began, cpus)

    @contextmanager
    def serving(self, wanted: Iterable[tuple[str, Setup]], pinned: bool = True) -> Iterator[list[Running | str]]:
        """Run several peers at once; one that does not start is replaced by the reason."""
        found: list[Running | str] = []
        try:
            for name, setup in wanted:
                try:
                    found.append(self.start(PEERS[name], setup, pinned))
                except StartError as error:
                    found.append(str(error))
            yield found
        finally:
            serving = [running.process for running in found if isinstance(running, Running)]
            for process in serving:
                process.ask_to_stop()
            for process in serving:
                process.stop()

    def check(self, running: Running, kind: str) -> None:
        """Show that a peer does its work: right answers, X-Forwarded-For, both upstreams. Raises LoadError."""
        wanted = {"64k": 65536, "1m": 1048576}.get(kind, len(_SMALL_BODY))
        for request in self.requests(kind)[1][:5]:
            response = exchange(running.port, request)
            body = response.partition(b"\r\n\r\n")[2]
            if status_of(response) != 200 or (find_program("nginx") and len(body) < wanted):
                raise LoadError(f"{running.peer.name} answered {status_of(response)} with {len(body)} bytes")
        if kind.startswith("routes"):
            return
        said = [exchange(running.port, _PROBE).partition(b"\r\n\r\n")[2] for _ in range(100)]
        if not all(len(answer.split()) == 2 for answer in said) and find_program("nginx"):
            raise LoadError(f"{running.peer.name} sent no X-Forwarded-For")
        if len({answer.split()[0] for answer in said}) != 2:
            raise LoadError(f"{running.peer.name} used one upstream only in 100 requests: {said[0]!r}")

    def closed_loop(
        self, running: Running, kind: str, seconds: int, connections: int, pinned: bool = True, workers: int = 1
    ) -> Sample:
        """Drive a peer with wrk and return what it cost."""
        if self.wrk is None:
            raise LoadError("wrk is not installed (Debian: apt install wrk)")
        path, _ = self.requests(kind)
        with PeakMemory(running.process.pid) as memory:
            before = cpu_seconds(running.process.pid)
            load = wrk(self.wrk, path, running.port, seconds, connections, self.load_cpus(pinned, workers))
            spent = cpu_seconds(running.process.pid) - before
        return sample(load, spent, memory.peak)

    def open_loop(self, running: Running, kind: str, rate: float, seconds: float, connections: int = 64) -> Sample:
        """Drive a peer at a constant rate and return what it cost and how long its clients waited."""
        path, _ = self.requests(kind)
        with PeakMemory(running.process.pid) as memory:
            before = cpu_seconds(running.process.pid)
            with Paced(path, running.port, rate, seconds, connections, self.load_cpus(pinned=True)) as paced:
                load = paced.result()
            spent = cpu_seconds(running.process.pid) - before
        return sample(load, spent, memory.peak)

    def idle(self, running: Running, count: int) -> IdleConnections:
        return IdleConnections(running.port, count, self.requests("small")[1])


def sample(load: Load, cpu: float, peak_memory: int) -> Sample:
    """Turn what a generator saw and what it cost into one sample."""
    if not load.requests:
        raise LoadError("no request was answered")
    return Sample(
        cpu_per_request=cpu / load.requests,
        rate=load.requests / load.seconds,
        p50=load.p50,
        p99=load.p99,
        p999=load.p999,
        peak_memory=peak_memory,
        busy=cpu / load.seconds,
        errors=load.errors,
        extra={"longest": load.longest, "lateP50": load.late_p50, "lateP99": load.late_p99},
    )


def scratch_folder() -> tempfile.TemporaryDirectory[str]:
    """Return a folder in memory where there is one."""
    memory = Path("/dev/shm")
    return tempfile.TemporaryDirectory(prefix="splitproxy-bench-", dir=memory if os.access(memory, os.W_OK) else None)
