"""What tracing costs a request: microseconds of CPU, beside the same requests without it. Exit code 0: within 3.

    python loadtests/tracing_cost.py [--rounds 40] [--requests 900]

Requests go through a worker's data plane from their bytes to the answer's bytes; only sockets are left out, since they
are the same either way. Kinds take turns, round by round, so that a machine whose speed changes changes them alike;
microseconds are those of the fastest round of each kind, ratios the median of all rounds.
"""

import argparse
import asyncio
import gc
import mmap
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from harness import requests

from splitproxy.config import load
from splitproxy.core import snapshot, stats
from splitproxy.core.snapshot import Snapshot
from splitproxy.proxy.crowd import Crowd
from splitproxy.proxy.downstream import Downstream
from splitproxy.proxy.service import Service
from splitproxy.proxy.upstream import Connection

LIMIT = 3.0
"""Microseconds of CPU per request that is not recorded, at 1 %."""
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 128\r\nDate: today\r\n\r\n" + b"x" * 128
PARENT = b"traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00\r\n\r\n"
FILE = """
listeners: [{address: "127.0.0.1:0"}]
upstreams: [{name: a, endpoints: [http://127.0.0.1:9]}]
routes: [{name: shop, rules: [{backendRefs: [{name: a}]}]}]
"""
TRACING = "tracing: {endpoint: http://127.0.0.1:4318, %s}\n"
KINDS = {
    "not traced": ("", False),
    "traced, never recorded": (TRACING % "sampler: always_off", False),
    "traced, 1 % recorded": (TRACING % "ratio: 0.01", False),
    "traced, the client does not record": (TRACING % "ratio: 0.01", True),
    "traced, every one recorded": (TRACING % "sampler: always_on", False),
}
"""Name -> the block `tracing`, and whether clients send a context of their own, which they do not record."""


class Wire(asyncio.Transport):
    """A transport that takes everything and sends nothing."""

    def write(self, data: bytes) -> None:
        """Take it."""

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Accept any."""

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0


class Bench:
    """A worker without a process, one client and one endpoint."""

    def __init__(self) -> None:
        memory = mmap.mmap(-1, stats.REGION_BYTES)
        self._service = Service(stats.Region(memoryview(memory).cast("Q")), asyncio.get_running_loop())
        self._control, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.setblocking(False)
        self._service.spans.attach(ours.detach())
        self._requests = requests.generate("small")
        self._snapshots: dict[str, Snapshot] = {}
        self._endpoint: Connection | None = None
        self._client: Downstream | None = None

    async def use(self, tracing: str) -> None:
        """Serve with this block `tracing`."""
        if tracing not in self._snapshots:
            self._snapshots[tracing] = compiled(FILE + tracing)
        service = self._service
        service.commit(await service.prepare(self._snapshots[tracing]))
        if self._client is None or self._endpoint is None:
            self._client = Downstream(service, Crowd(0))
            self._client.connection_made(Wire())
            (endpoint,) = service.upstream("a").endpoints.values()
            self._endpoint = Connection(endpoint)
            self._endpoint.connection_made(Wire())
            endpoint.idle.append(self._endpoint)

    def seconds(self, count: int, *, parents: bool) -> float:
        """Return the CPU seconds that each of `count` requests takes."""
        assert self._client is not None
        assert self._endpoint is not None
        heads = [head[:-2] + PARENT if parents else head for head in self._requests]
        ask, answer = self._client.data_received, self._endpoint.data_received
        chosen = [heads[number % len(heads)] for number in range(count)]
        gc.collect()
        gc.disable()
        before = time.process_time_ns()
        for head in chosen:
            ask(head)
            answer(ANSWER)
        after = time.process_time_ns()
        gc.enable()
        self._take_spans()
        return (after - before) / 1e9 / count

    def close(self) -> None:
        """Let go of everything."""
        self._service.spans.close()
        self._control.close()

    def _take_spans(self) -> None:
        """Have everything written and handed over: a full buffer would make spans cheaper."""
        taken = True
        while taken:
            self._service.write_signals()
            try:
                taken = bool(self._control.recv(1 << 20))
            except BlockingIOError:
                taken = False


def compiled(text: str) -> Snapshot:
    """Return the snapshot of a configuration."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "proxy.yaml")
        path.write_text(text)
        return snapshot.build(load(path, {}).plain, 1)


async def measure(rounds: int, count: int) -> dict[str, list[float]]:
    """Return the seconds per request of each kind, round by round."""
    bench = Bench()
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for number in range(rounds + 1):
        for kind, (tracing, parents) in KINDS.items():
            await bench.use(tracing)
            seconds = bench.seconds(count, parents=parents)
            if number:  # the first round warms
                found[kind].append(seconds)
    bench.close()
    return found


def lines(found: dict[str, list[float]]) -> Iterator[str]:
    """Yield the result, line by line."""
    base = found["not traced"]
    for kind, seconds in found.items():
        ratio = statistics.median(one / other for one, other in zip(seconds, base, strict=True))
        yield f"{kind:36} {min(seconds) * 1e6:7.2f} µs a request   {extra(found, kind):+6.2f} µs   x {ratio:.3f}"


def extra(found: dict[str, list[float]], kind: str) -> float:
    """Return the microseconds by which a kind is slower, in the rounds of both that were disturbed least."""
    return (min(found[kind]) - min(found["not traced"])) * 1e6


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40, help="of each kind (default 40)")
    parser.add_argument("--requests", type=int, default=900, help="in a round (default 900)")
    options = parser.parse_args(arguments)
    found = asyncio.run(measure(options.rounds, options.requests))
    print("\n".join(lines(found)))
    cost = extra(found, "traced, never recorded")
    print(f"limit {LIMIT:g} µs per request that is not recorded: {cost:.2f}, {'held' if cost <= LIMIT else 'BROKEN'}")
    return 0 if cost <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
