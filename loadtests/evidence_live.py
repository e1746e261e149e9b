"""How soon a crashing canary is out, with real processes and sockets: what clients see, and how fast weights fall.

    python loadtests/evidence_live.py [--rounds 20] [--rate 500] [--share 5] [--failing 0.5]

Each round is a rollout of its own whose canary fails a part of its requests from its first one on. Counted are the bad
answers of clients, without failover and with it, and the milliseconds from the failure that tipped the scale (its
answer left the canary) to a weight of zero in the shared memory that every worker reads. Exit code 1: a goal is missed.
"""

import argparse
import asyncio
import contextlib
import json
import mmap
import os
import random
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any, ClassVar

from harness.processes import ROOT, Process, end_with_this_process, free_ports, stop_all

sys.path.insert(0, str(ROOT))
from splitproxy.core import live

DATE = b"Date: Mon, 23 Nov 2026 12:00:00 GMT\r\n"
GOOD = b"HTTP/1.1 200 OK\r\n" + DATE + b"Content-Length: 2\r\n\r\nok"
BAD = b"HTTP/1.1 500 Internal Server Error\r\n" + DATE + b"Content-Length: 2\r\n\r\nno"
REQUEST = b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n"
MOST_BAD = {False: 6, True: 0}
"""Failover -> bad answers that clients may get, in the median."""
MOST_MILLISECONDS = 20.0
PATIENCE = 60.0


class Upstream(asyncio.Protocol):
    """Answers every request; of the canary's a part fails, and when is kept."""

    failing = 0.0
    failures: ClassVar[list[float]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        for _ in range(data.count(b"\r\n\r\n")):
            bad = random.random() < self.failing
            self.transport.write(BAD if bad else GOOD)
            if bad:
                self.failures.append(time.monotonic())


class Canary(Upstream):
    """The version on trial."""


class Watch:
    """Sees in the shared memory when the first rollout's canary loses its share."""

    def __init__(self, supervisor: int) -> None:
        folder = Path(f"/proc/{supervisor}/fd")
        found = next(one for one in folder.iterdir() if "splitproxy-stats" in os.readlink(one))
        with found.open("rb") as file:
            memory = mmap.mmap(file.fileno(), live.LIVE_BYTES, prot=mmap.PROT_READ, offset=live.LIVE_OFFSET)
        self.area = live.Area(memoryview(memory).cast("Q"))
        self.fell = 0.0

    def begin(self) -> threading.Thread:
        """Wait beside everything else until the weight has risen and fallen."""
        thread = threading.Thread(target=self._look, daemon=True)
        thread.start()
        return thread

    def _look(self) -> None:
        end, risen = time.monotonic() + PATIENCE, False
        while time.monotonic() < end:
            weight = live.decode(self.area.read(0)).weight
            risen = risen or weight > 0
            if risen and not weight:
                self.fell = time.monotonic()
                return
            time.sleep(0.0003)


class Load:
    """Clients that ask at a steady rate."""

    def __init__(self, port: int, rate: float, connections: int = 20) -> None:
        self.port, self.rate, self.bad = port, rate, 0
        self._due: asyncio.Queue[None] = asyncio.Queue()
        self._tasks = [asyncio.create_task(self._ask()) for _ in range(connections)]
        self._tasks.append(asyncio.create_task(self._pace()))

    async def _pace(self) -> None:
        begun, sent = time.monotonic(), 0
        while True:
            while sent < (time.monotonic() - begun) * self.rate:
                self._due.put_nowait(None)
                sent += 1
            await asyncio.sleep(0.002)

    async def _ask(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        while True:
            await self._due.get()
            writer.write(REQUEST)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
            await reader.readexactly(length)
            self.bad += head[9:10] != b"2"

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def configuration(ports: dict[str, int], share: float, folder: Path, *, failover: bool) -> dict[str, Any]:
    """Return the file of one run."""
    metrics = [{"name": "request-success-rate", "thresholdRange": {"min": 99}}]
    analysis = {"interval": "10s", "threshold": 5, "stepWeights": [share], "metrics": metrics}
    rule = {"backendRefs": [{"name": "v1"}], "split": {"failover": failover}}
    return {
        "listeners": [{"address": f"127.0.0.1:{ports['listener']}"}],
        "admin": {"address": f"127.0.0.1:{ports['admin']}"},
        "state": {"path": str(folder / "state.db")},
        "workers": 2,
        "upstreams": [{"name": name, "endpoints": [f"http://127.0.0.1:{ports[name]}"]} for name in ("v1", "v2")],
        "routes": [{"name": "shop", "rules": [rule]}],
        "rollouts": [{"name": "shop", "route": "shop", "primary": "v1", "canary": "v2", "analysis": analysis}],
    }


def tell(admin: int, path: str, method: str = "GET") -> Any:
    """Ask the admin API."""
    request = urllib.request.Request(f"http://127.0.0.1:{admin}{path}", method=method)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


async def play(options: argparse.Namespace, folder: Path, *, failover: bool) -> list[tuple[int, int, float]]:
    """Return for each rollout the clients' bad answers, the canary's, and the milliseconds to zero."""
    loop = asyncio.get_running_loop()
    given = free_ports()
    ports = {name: next(given) for name in ("listener", "admin", "v1", "v2")}
    servers = [await loop.create_server(Upstream, "127.0.0.1", ports["v1"])]
    servers.append(await loop.create_server(Canary, "127.0.0.1", ports["v2"]))
    file = folder / "splitproxy.yaml"
    file.write_text(json.dumps(configuration(ports, options.share, folder, failover=failover)))
    proxy = Process("splitproxy", [sys.executable, "-m", "splitproxy", "run", "-c", str(file)], folder)
    await asyncio.to_thread(proxy.wait_until_serving, ports["listener"], REQUEST, 20.0)
    found = []
    watch, load = Watch(proxy.pid), Load(ports["listener"], options.rate)
    await asyncio.sleep(1.0)
    for number in range(options.rounds):
        Canary.failing, Canary.failures, load.bad = options.failing, [], 0
        thread = watch.begin()
        await asyncio.to_thread(
            tell, ports["admin"], "/api/v1/rollouts/shop/" + ("retry" if number else "start"), "POST"
        )
        await asyncio.to_thread(thread.join, PATIENCE)
        await asyncio.sleep(0.3)
        rollout = await asyncio.to_thread(tell, ports["admin"], "/api/v1/rollouts/shop?history=50")
        record = next(entry for entry in reversed(rollout["history"]) if entry["kind"] == "evidence")
        decisive = Canary.failures[record["data"]["counts"]["bad_canary"] - 1]
        found.append((load.bad, len(Canary.failures), 1000.0 * (watch.fell - decisive)))
        print(f"\r{number + 1} of {options.rounds}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    await load.close()
    await asyncio.to_thread(proxy.stop)
    for server in servers:
        server.close()
    return found


def spread(values: list[float]) -> str:
    """Return median, 95th percentile and worst."""
    ordered = sorted(values)
    return f"{ordered[len(ordered) // 2]:.3g} (p95 {ordered[int(len(ordered) * 0.95)]:.3g}, worst {ordered[-1]:.3g})"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--rate", type=float, default=500.0)
    parser.add_argument("--share", type=float, default=5.0, help="the canary's, in percent")
    parser.add_argument("--failing", type=float, default=0.5, help="share of the canary's requests that fail")
    options = parser.parse_args()
    end_with_this_process()
    missed = False
    with contextlib.ExitStack() as stack:
        stack.callback(stop_all)
        for failover in (False, True):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            found = asyncio.run(play(options, folder, failover=failover))
            clients, canary, milliseconds = zip(*found, strict=True)
            print(f"failover {'on' if failover else 'off'}, {options.rounds} rollouts:")
            print(f"  bad answers that clients got   {spread(list(clients))}   goal: at most {MOST_BAD[failover]}")
            print(f"  bad answers of the canary      {spread(list(canary))}")
            print(f"  decisive failure to weight 0   {spread(list(milliseconds))} ms   goal: {MOST_MILLISECONDS:g}")
            missed |= sorted(clients)[len(clients) // 2] > MOST_BAD[failover]
            missed |= sorted(milliseconds)[len(milliseconds) // 2] > MOST_MILLISECONDS
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
