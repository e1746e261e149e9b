"""Many rollouts in one control process: how late ticks come, what a tick costs, how soon a decision is in force.

    python loadtests/rollout_scale.py [--rollouts 200] [--seconds 20]

A real desk with a real state file and real shared memory, every rollout with a check a second; endpoints take
connections and signals are written as a worker does. A tick costs what is printed with everything that it leads to:
reaching the endpoints, measuring, judging, deciding, saving and telling.
"""

import argparse
import asyncio
import json
import mmap
import os
import socket
import statistics
import tempfile
import threading
import time
from pathlib import Path

from splitproxy.control import loader
from splitproxy.control.loading import Candidate, Memfd
from splitproxy.control.rollouts.desk import Desk
from splitproxy.control.signals import Signals
from splitproxy.core import live, stats
from splitproxy.core.live import LIVE_BYTES, LIVE_OFFSET
from splitproxy.core.rollout.events import Tick, Verb


def configuration(folder: Path, count: int, port: int) -> Candidate:
    urls = [f"http://127.0.0.1:{port}"]
    metrics = [
        {"name": "request-success-rate", "thresholdRange": {"min": 99}, "hardRange": {"min": 50}},
        {"name": "request-duration", "thresholdRange": {"max": 500}, "interval": "10s"},
    ]
    tree = {
        "listeners": [{"address": "127.0.0.1:0"}],
        "state": {"path": str(folder / "state.db")},
        "upstreams": [{"name": "v1", "endpoints": urls}, {"name": "v2", "endpoints": urls}],
        "routes": [
            {"name": f"r{n}", "hostnames": [f"r{n}.test"], "rules": [{"backendRefs": [{"name": "v1"}]}]}
            for n in range(count)
        ],
        "rollouts": [
            {
                "name": f"r{n}",
                "route": f"r{n}",
                "primary": "v1",
                "canary": "v2",
                "revision": "1",
                "analysis": {
                    "interval": "1s",
                    "threshold": 3,
                    "minRequests": 10,
                    "metrics": metrics,
                    "steps": [{"setWeight": 10}, *({"setWeight": 10 + n} for n in range(1, 80))],
                },
            }
            for n in range(count)
        ],
    }
    path = folder / "config.yaml"
    path.write_text(json.dumps(tree))
    described = Memfd.create("described")
    os.write(described.fileno(), b"".join(loader.lines(*loader.load(str(path), "1"))))
    return Candidate.described_by(described, 1, Memfd.create("snapshot"))


def accept(server: socket.socket) -> None:
    """Take connections and close them, for ever."""
    while True:
        server.accept()[0].close()


async def traffic(region: stats.Region, count: int) -> None:
    """Give every rollout some hundred good requests a second on each side."""
    blocks = [
        region.block((stats.SERIES, f"r{n}", "0", upstream, role))
        for n in range(count)
        for upstream, role in (("v1", "primary"), ("v2", "canary"))
    ]
    success, duration = stats.OUTCOME + stats.OUTCOMES.index("success"), stats.ATTEMPT_HISTOGRAM + stats.bucket(0.01)
    while True:
        for block in blocks:
            region.cells[block + success] += 20
            region.cells[block + duration] += 20
        await asyncio.sleep(0.2)


async def in_force(desk: Desk, area: live.Area, key: str) -> list[float]:
    """Return the seconds from an operator's word to the new weight in shared memory, for growth and for rollback."""
    slot = area.slot(key, take=False)
    assert slot is not None
    one, found = desk.controllers["r0"], []
    for verb in (Verb("promote", "benchmark"), Verb("abort", "benchmark")):
        before, began = area.read(slot), time.perf_counter()
        acting = asyncio.create_task(one.act(verb))
        while area.read(slot) == before:  # noqa: ASYNC110 - nothing tells of a store in memory
            await asyncio.sleep(0)
        found.append(time.perf_counter() - began)
        await acting
    return found


async def main(count: int, seconds: float) -> None:
    descriptor = os.memfd_create("stats")
    os.ftruncate(descriptor, LIVE_OFFSET + LIVE_BYTES)
    region = stats.Region(memoryview(mmap.mmap(descriptor, stats.REGION_BYTES)).cast("Q"))
    server = socket.create_server(("127.0.0.1", 0), backlog=4096)
    threading.Thread(target=accept, args=(server,), daemon=True).start()
    late: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        candidate = configuration(Path(folder), count, server.getsockname()[1])
        desk = Desk(descriptor, Signals(descriptor, lambda: [0]), lambda _kind, _data: None)
        serving = asyncio.create_task(traffic(region, count))
        await desk.prepare(candidate)
        desk.commit(candidate)
        for controller in desk.controllers.values():
            put = controller.put

            def noted(event, put=put, asking=controller.asking):
                if isinstance(event, Tick):
                    late.append(asking.late)
                put(event)

            controller.put = noted
        desk.begin()
        await asyncio.sleep(3.0)
        late.clear()
        cpu, began = time.process_time(), time.monotonic()
        await asyncio.sleep(seconds)
        cpu, elapsed, ticks = time.process_time() - cpu, time.monotonic() - began, list(late)
        forces = await in_force(desk, desk.area, candidate.releases["rollouts"][0]["liveKey"])
        serving.cancel()
        steps = statistics.mean(controller.state.step for controller in desk.controllers.values())
        await desk.close()
    print(
        f"{count} rollouts, {len(ticks)} ticks in {elapsed:.1f} s (due: {count * elapsed:.0f}); mean step {steps:.1f}"
    )
    print(f"lateness: median {1e3 * statistics.median(ticks):.1f} ms, worst {1e3 * max(ticks):.1f} ms")
    print(
        f"CPU: {100 * cpu / elapsed:.0f} % of a core, {1e3 * cpu / len(ticks):.2f} ms a tick with all that it leads to"
    )
    print(f"decision to weight in force: growth {1e3 * forces[0]:.2f} ms, rollback {1e3 * forces[1]:.2f} ms")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rollouts", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    asyncio.run(main(options.rollouts, options.seconds))
