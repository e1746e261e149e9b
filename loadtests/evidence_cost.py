"""What the comparison costs: per request in a worker, per tick in control. Exit code 0: within both goals.

    python loadtests/evidence_cost.py [--rounds 20]

CPU time, the best of all rounds: a busy machine disturbs that least. A request pays for the look whether its coin was a
fair one, and for its place in a batch; a tick for all bets of a rollout with errors and latency on both sides.
"""

import argparse
import asyncio
import mmap
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from harness.processes import ROOT

sys.path.insert(0, str(ROOT))
from splitproxy.core import stats, tallies
from splitproxy.core.evidence import Batch, Evidence, Terms
from splitproxy.core.splitting import Backend
from splitproxy.core.tallies import Coin
from splitproxy.proxy.ending import REASON_CELL
from splitproxy.proxy.series import Series
from splitproxy.proxy.tallying import Tallies

WORKER_GOAL, CONTROL_GOAL = 1.0, 100.0
"""Microseconds per request and per tick."""
BATCH = 20
"""Requests in one write: 2,000 a second and worker."""
DONE = [(stats.CODE_INDEX[200], 0.001 + 0.0007 * number, 300, 900, REASON_CELL["random"]) for number in range(BATCH)]


def best(rounds: int, count: int, work: Callable[[], Any]) -> float:
    """Return the microseconds that `work` takes, in the best round of `count` runs."""
    found = []
    for _ in range(rounds):
        begun = time.thread_time()
        for _ in range(count):
            work()
        found.append((time.thread_time() - begun) / count)
    return 1e6 * min(found)


async def worker(rounds: int) -> float:
    """Return the microseconds that a drawn request costs more than one that is not."""
    region = stats.Region(memoryview(mmap.mmap(-1, stats.REGION_BYTES)).cast("Q"))
    octets, pool = region.cells.cast("B"), SimpleNamespace(usable=True)
    place = region.block((stats.SERIES, "shop", "0", "v2", "canary"))
    service: Any = SimpleNamespace(region=region, cells=region.cells, upstream=lambda _: pool, connections=())
    desk = Tallies(service)
    service.tallied = lambda key, book, coin: _tallied(region, octets, place, book, coin, desk)
    sides = tuple(Backend(("shop", "0"), name, role, 1) for name, role in (("v2", "canary"), ("v1", "primary")))
    rule: Any = SimpleNamespace(live=SimpleNamespace(name="shop", pair=lambda *, swapped: sides))
    exchange: Any = SimpleNamespace(issued=b"", started=1.0)
    buckets = tuple(range(40, 100, 10))
    drawn = sides[0].drawn(Coin("shop", 1, 0, tallies.CANARY, False, buckets, 1 / 1.1, 0.005))
    desk.fair(exchange, rule, drawn)
    plain = Series(region.cells, octets, place)

    def write(series: Series) -> Callable[[], None]:
        def once() -> None:
            series.done = list(DONE)
            series.write()

        return once

    looked = best(rounds, 5_000, lambda: desk.fair(exchange, rule, drawn))
    written = best(rounds, 500, write(drawn.series)) - best(rounds, 500, write(plain))
    return looked + written / BATCH


def _tallied(region: stats.Region, octets: memoryview, place: int, book: Any, coin: Coin, desk: Tallies) -> Any:
    from splitproxy.proxy.tallying import Tallied

    return Tallied(region.cells, octets, place, book, coin, desk)


def control(rounds: int) -> float:
    """Return the microseconds of a tick at which everything has moved."""
    evidence = Evidence(Terms())
    evidence.begin_stage(0.05)
    slow = tuple((2 * share, 50 - 2 * share, 38 * share, 950 - 38 * share) for share in (12, 6, 3, 2, 1, 0))

    def tick() -> None:
        evidence.tick()
        evidence.routed(0.05, 50, 950)
        evidence.add(Batch(0.05, 50, 950, 1, 19))
        evidence.add(Batch(0.05, slow=slow))

    return best(rounds, 200, tick)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    request, tick = asyncio.run(worker(options.rounds)), control(options.rounds)
    print(f"a drawn request, in the worker: {request:.2f} µs more than any other (goal {WORKER_GOAL:g})")
    print(f"a tick, in control:             {tick:.0f} µs (goal {CONTROL_GOAL:g})")
    return int(request > WORKER_GOAL or tick > CONTROL_GOAL)


if __name__ == "__main__":
    sys.exit(main())
