"""What people watch: the signals of both sides of each rollout, second by second, and how their latencies are spread.

Made from what the verdicts are made from, attempts, so that a picture and a verdict cannot disagree. Each point is
about the few seconds up to it: one second of a quiet service says little.
"""

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from splitproxy.control.rollouts.clock import wall
from splitproxy.control.rollouts.measuring import Keys, success_share
from splitproxy.control.signals import KEPT_SECONDS, Signals
from splitproxy.core import stats
from splitproxy.core.stats import Key

if TYPE_CHECKING:
    from splitproxy.control.rollouts.controller import Controller
    from splitproxy.control.state import State

POINT_SECONDS: Final = 5
"""What each point is about."""
SPREAD_SECONDS: Final = 60.0
"""What the distribution of latencies is about."""
_QUANTILES: Final = (0.5, 0.95, 0.99)
_PULSE_SECONDS: Final = 1.0

Point = list[float | None]
"""When, in seconds of the epoch; attempts a second; successes in percent; p50, p95 and p99 in seconds."""
Second = Mapping[int, int]
"""Cell -> what was counted in it."""


class Sliding:
    """What was counted over the last few seconds."""

    def __init__(self) -> None:
        self._seconds: deque[Second] = deque()
        self._outcomes = [0] * len(stats.OUTCOMES)
        self._histogram = [0] * stats.BUCKETS

    def add(self, second: Second) -> None:
        """Take in one more second and forget the oldest."""
        self._seconds.append(second)
        self._count(second, 1)
        if len(self._seconds) > POINT_SECONDS:
            self._count(self._seconds.popleft(), -1)

    def _count(self, second: Second, sign: int) -> None:
        for cell, value in second.items():
            if stats.ATTEMPT_HISTOGRAM <= cell < stats.OUTCOME:
                self._histogram[cell - stats.ATTEMPT_HISTOGRAM] += sign * value
            elif stats.OUTCOME <= cell < stats.REASON:
                self._outcomes[cell - stats.OUTCOME] += sign * value

    def point(self, at: float) -> Point:
        """Return the point `at` that moment."""
        rate = sum(self._outcomes) / len(self._seconds) if self._seconds else 0.0
        share, _ = success_share(self._outcomes)
        return [
            *(round(at, 1), round(rate, 2), None if share is None else round(share, 3)),
            *(stats.quantile(self._histogram, q) for q in _QUANTILES),
        ]


def points(signals: Signals, keys: Iterable[Key], seconds: float) -> list[Point]:
    """Return a point for each of the last `seconds`, oldest first, of what `keys` count together."""
    sliding, found, now = Sliding(), list[Point](), wall().timestamp() - signals.clock()
    kept = signals.seconds(tuple(keys), min(seconds + POINT_SECONDS, KEPT_SECONDS))
    for at, second in kept:
        sliding.add(second)
        found.append(sliding.point(now + at))
    return found[-int(seconds) :] if seconds else []


def spread(signals: Signals, keys: Iterable[Key]) -> list[list[int]]:
    """Return how many attempts fell into which bucket of `stats.BOUNDS` in the last minute, without empty buckets."""
    found: dict[int, int] = {}
    for _, second in signals.seconds(tuple(keys), SPREAD_SECONDS):
        for cell, value in second.items():
            if stats.ATTEMPT_HISTOGRAM <= cell < stats.OUTCOME:
                bucket = cell - stats.ATTEMPT_HISTOGRAM
                found[bucket] = found.get(bucket, 0) + value
    return [[bucket, found[bucket]] for bucket in sorted(found)]


def sides(rollout: Mapping[str, Any], keys: Keys) -> dict[str, tuple[Key, ...]]:
    """Return what is counted of each upstream of a plain rollout, without copies."""
    return {rollout["primary"]: keys.primary, rollout["canary"]: keys.canary}


def trend(signals: Signals, rollout: Mapping[str, Any], keys: Keys, seconds: float) -> dict[str, Any]:
    """Return the trends of a plain rollout's upstreams, and of the copies, over the last `seconds`, for the API."""
    both = sides(rollout, keys)
    return {
        "name": rollout["name"],
        "fields": ["at", "rate", "success", "p50", "p95", "p99"],
        "pointSeconds": POINT_SECONDS,
        "points": {upstream: points(signals, where, seconds) for upstream, where in both.items()},
        "copies": points(signals, keys.mirror, seconds),
        "latency": {
            "seconds": SPREAD_SECONDS,
            "bounds": stats.BOUNDS,
            "counts": {upstream: spread(signals, where) for upstream, where in both.items()},
            "copies": spread(signals, keys.mirror),
        },
    }


def pulse(signals: Signals, controllers: Iterable["Controller"]) -> dict[str, Any]:
    """Return the newest point of every side of every rollout, and of its copies."""
    running = [(one.plan.name, one.rollout, one.facts.keys) for one in controllers]
    return {
        "at": round(wall().timestamp(), 1),
        "rollouts": {
            name: {upstream: _newest(signals, where) for upstream, where in sides(rollout, keys).items()}
            for name, rollout, keys in running
        },
        "copies": {name: _newest(signals, keys.mirror) for name, _, keys in running},
    }


def _newest(signals: Signals, keys: Iterable[Key]) -> Point | None:
    return next(iter(points(signals, keys, 1.0)), None)


async def keep_pulsing(state: "State") -> None:
    """Tell those who want the signals once a second, for ever; nothing is done while nobody does."""
    while True:
        await state.events.wanted.wait()
        began = time.monotonic()
        controllers = list(state.rollouts.controllers.values())
        state.events.publish_signals(await asyncio.to_thread(pulse, state.signals, controllers))
        await asyncio.sleep(max(0.1, _PULSE_SECONDS - (time.monotonic() - began)))
