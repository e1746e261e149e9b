"""When a step may be taken on evidence: the canary is shown not to be much worse, or to be good enough by itself.

The bets are those of `sequential` turned round (non-inferiority): wealth grows while bad events are *not* the canary's.
A service that hardly fails has no events to bet on, so half of the stake is on the canary's own rate being below a
bound, which grows with every good request. Each gate begins with its stage.
"""

from collections.abc import Mapping, Sequence
from math import ceil, log
from typing import Any, Final, NamedTuple

from splitproxy.core.sequential import BETTER_RATES, SAFE_RATIOS, LabelBet, RateBet, Schedule, Wealth, log_sum
from splitproxy.core.slowness import THRESHOLDS, Slow

MARGINS: Final = ((0.01, 10.0, 0.02), (0.05, 5.0, 0.015), (0.10, 3.0, 0.01), (0.25, 2.0, 0.005), (1.0, 1.5, 0.005))
"""(weight up to, how many times likelier bad events must not be, share of bad requests that is good enough)."""
_ROOM: Final = 1.25
"""A margin is wider than what is tolerated by this factor at least, or a tolerated canary would hardly ever pass."""
_LEAST_SLOW: Final = 2.0
"""The narrowest ratio for slow requests: a p99 that is twice as long makes about five times as many of them."""
TAIL: Final = THRESHOLDS.index(0.99)
"""The threshold at which latency has to be shown not to be worse."""
_NOTHING: Final = 1e-9
_FROM_START: Final = Schedule(0)


class Margins(NamedTuple):
    """What the canary has to be shown to keep: for errors either ratio or share, for slow requests too."""

    ratio: float
    """How many times likelier bad events must not be."""
    share: float
    """The share of bad requests that is good enough."""
    slow_ratio: float
    slow_share: float
    """The same of requests above the primary's p99."""


def stage_margins(weight: float, errors: float) -> Margins:
    """Return a stage's margins; `errors`: the tolerated ratio of bad events."""
    ratio, share = next((ratio, share) for most, ratio, share in MARGINS if weight <= most)
    slower = max(ratio, _LEAST_SLOW)
    return Margins(max(ratio, errors * _ROOM), share, slower, slower * (1.0 - THRESHOLDS[TAIL]))


class Gate(NamedTuple):
    """What stands between a stage and the next."""

    passed: bool
    log_errors: float
    log_latency: float
    """What is known of each signal, as logarithms of e-values."""
    needed: float
    """The logarithm at which each passes."""
    missing: str
    """errors | latency | time, or nothing: what holds it longest."""
    seconds: float | None
    """About how much longer it takes at the present traffic; None: nobody can say, or not as things are."""
    requests: int | None
    """The same in requests of both sides."""


class _Half(NamedTuple):
    """One signal's gate: relative to the primary, or absolute."""

    relative: LabelBet
    absolute: RateBet

    def log_e(self) -> float:
        """Return the evidence: the mean of both, since a canary that should not pass violates both."""
        return log_sum((self.relative.log_e, self.absolute.log_e)) - log(2)

    def seconds(self, needed: float, ticks: int) -> float | None:
        """Return how long it takes until the first bet alone suffices, if all goes on as it did."""
        if self.log_e() >= needed:
            return 0.0
        times = [_time(wealth, needed + log(2), ticks) for wealth in (self.relative, self.absolute)]
        return min((time for time in times if time is not None), default=None)


class StageGate:
    """The evidence that one stage's canary may be given more."""

    __slots__ = ("_errors", "_latency", "_requests", "_share", "_slow_share", "_weight", "ticks")

    ticks: int
    """Seconds of the stage."""

    def __init__(self, weight: float, errors: float) -> None:
        """`weight`: of the stage, 0 to 1; `errors`: the tolerated ratio of bad events."""
        margins = stage_margins(weight, errors)
        self._share, self._slow_share = margins.share, margins.slow_share
        self._errors = _Half(_safe(margins.ratio), _low())
        self._latency = _Half(_safe(margins.slow_ratio), _low())
        self._weight = weight
        self._requests = self.ticks = 0

    def tick(self) -> None:
        """Count a second."""
        self.ticks += 1

    def add(self, requests: tuple[int, int], bad: tuple[int, int], failed: tuple[int, int], weight: float) -> None:
        """Weigh finished requests, bad events and all failed requests, each (the canary's, the primary's)."""
        self._requests += sum(requests)
        if any(bad):
            self._errors.relative.add(bad[0], sum(bad), weight)
        self._errors.absolute.add(failed[0], max(requests[0], failed[0]), self._share)

    def add_slow(self, slow: Sequence[Slow], weight: float) -> None:
        """Weigh requests above and below each threshold."""
        above, below, its_above, _ = slow[TAIL]
        self._latency.relative.add(above, above + its_above, weight)
        self._latency.absolute.add(above, above + below, self._slow_share)

    def add_first_slow(self, slow: Sequence[tuple[int, int]], weight: float) -> None:
        """Weigh clients that were above a threshold for the first time, each (the canary's, both)."""
        canary, both = slow[TAIL]
        self._latency.relative.add(canary, both, weight)

    def standing(self, beta: float, dwell: float) -> Gate:
        """Return whether the stage may be left, and how much longer it takes.

        A canary that violates a signal's relative and absolute margin passes with probability `beta` at most.
        `dwell` is the least time in seconds.
        """
        needed = -log(beta)
        halves = {"errors": self._errors, "latency": self._latency}
        logs = {name: half.log_e() for name, half in halves.items()}
        times = {name: half.seconds(needed, self.ticks) for name, half in halves.items()}
        times["time"] = max(0.0, dwell - self.ticks)
        longest = max(times, key=lambda name: _endless(times[name]))
        seconds = times[longest]
        passed = min(logs.values()) >= needed and self.ticks >= dwell
        return Gate(
            passed, logs["errors"], logs["latency"], needed, "" if passed else longest, seconds, self._count(seconds)
        )

    def _count(self, seconds: float | None) -> int | None:
        if seconds is None or not self.ticks:
            return None
        return ceil(seconds * self._requests / self.ticks)

    def plain(self) -> dict[str, Any]:
        """Return the state, safe for JSON and exact."""
        wealths = {name: wealth.plain() for name, wealth in self._wealths().items()}
        return {"weight": self._weight, "ticks": self.ticks, "requests": self._requests, **wealths}

    def restore(self, plain: Mapping[str, Any]) -> None:
        """Take up a state of `plain()`, of a stage at the same weight."""
        self.ticks, self._requests = int(plain["ticks"]), int(plain["requests"])
        for name, wealth in self._wealths().items():
            wealth.restore(plain[name])

    def _wealths(self) -> dict[str, Wealth]:
        return {
            "errors": self._errors.relative,
            "errorRate": self._errors.absolute,
            "latency": self._latency.relative,
            "slowRate": self._latency.absolute,
        }


def _safe(ratio: float) -> LabelBet:
    return LabelBet(SAFE_RATIOS, ratio, schedule=_FROM_START, start_mass=1.0)


def _low() -> RateBet:
    return RateBet(BETTER_RATES, schedule=_FROM_START, start_mass=1.0)


def _time(wealth: Wealth, needed: float, ticks: int) -> float | None:
    """Return when the first of the bets alone has gathered `needed` if it goes on as it did; None: never."""
    times = [
        max(0.0, (needed - held) * ticks / (held - staked))
        for staked, held in wealth.logs()
        if held > staked + _NOTHING
    ]
    return min(times, default=None) if ticks else None


def _endless(seconds: float | None) -> float:
    return float("inf") if seconds is None else seconds
