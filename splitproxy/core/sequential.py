"""Evidence that may be watched all the time: bets on which side a bad event falls on.

The proxy draws each request's side with a known probability `w`. If the canary is no worse than the primary, a request
that turned out bad was the canary's with probability `w` at most, whatever the base rate is and however it drifts.
Betting on the canary can then make no money on average: wealth that began at 1 is a non-negative supermartingale, and
the chance that it ever reaches 1/alpha is alpha at most (Ville 1939), however often one looks and whenever one stops.
Roots: Wald 1945; Robbins 1970 (mixtures); Lindon & Malek 2022 (counts); Waudby-Smith & Ramdas 2020 (betting); Shin,
Ramdas & Rinaldo 2023 (starting anew).

Wealth is natural logarithms of e-values throughout. Weights are probabilities, 0 to 1.
"""

from collections.abc import Callable, Mapping, Sequence
from math import exp, inf, log, log1p
from typing import Any, Final, NamedTuple, TypeVar

RATIOS: Final = (1.5, 2.5, 5.0, 12.0, 40.0, 200.0)
"""How many times likelier a bad event may be on the canary, for all that a bet knows: those it is spread over."""
SAFE_RATIOS: Final = (0.25, 0.5, 0.75, 1.0)
"""The same for bets that the canary is *not* much worse."""
_INTERVAL_RATIOS: Final = (1.1, 1.25, *RATIOS)
"""Multiples of each ratio asked about, for bets that the true one is beyond it."""
SHARE_RATIOS: Final = (0.5, 0.8, 0.9, 0.97, 1.03, 1.1, 1.25, 2.0)
"""The same for bets that requests are not shared out as the weight says, either way."""
WORSE_RATES: Final = (2.0, 5.0, 15.0, 50.0)
"""Multiples of a limit, for bets that the rate is above it."""
BETTER_RATES: Final = (0.1, 0.3, 0.6)
"""Multiples of a limit, for bets that the rate is below it."""
PAIRED: Final = 0.5
"""The weight of copies: of a pair of answers that differ, either side may be the bad one."""
HOUR: Final = 3600
"""Ticks, one a second."""

_MOST_RATE: Final = 0.9
_WEIGHTS_KEPT: Final = 512
_LEAP: Final = 600.0
_LEAST, _MOST = 1e-250, 1e280
"""A bet that lost all keeps this, and one that won so much wins no more: neither touches any verdict."""

_Logs = TypeVar("_Logs")


class Schedule(NamedTuple):
    """How much of the late half of a stake each tick's fresh start gets; all ticks together get 1 at most."""

    horizon: int = HOUR
    """Ticks that are planned for; 0: unknown, the k-th doubling of time gets 1/(k(k+1))."""
    reserve: float = 0.0
    """What is kept for ticks beyond the horizon, shared out among its doublings in the same way."""

    def share(self, tick: int) -> float:
        """Return the share of a tick, counted from 1."""
        if 0 < tick <= self.horizon:
            return (1.0 - self.reserve) / self.horizon
        if self.horizon:
            doubling = ((tick - 1) // self.horizon).bit_length()
            return self.reserve / (doubling * (doubling + 1)) / (self.horizon << (doubling - 1))
        doubling = tick.bit_length()
        return 1.0 / (doubling * (doubling + 1)) / (1 << (doubling - 1))


class Wealth:
    """A stake of 1 spread over several bets, half of it from the start, the rest over fresh starts at every tick.

    Money that was bet from the start is long gone when a version turns bad after an hour; what starts anew finds it as
    quickly as ever, and costs a little of everything else.
    """

    __slots__ = ("_held", "_late_mass", "_late_prior", "_prior", "_schedule", "_unspent", "ticks")

    ticks: int
    """Ticks so far."""

    def __init__(self, prior: Sequence[float], schedule: Schedule, start_mass: float) -> None:
        """`prior`: each bet's part of the stake, together 1. `start_mass`: the part that is bet from the start."""
        self._prior = tuple(prior)
        self._schedule = schedule
        self._held = [start_mass * part for part in prior]
        self._late_prior = [(1.0 - start_mass) * part for part in prior]
        self._late_mass = self._unspent = 1.0 - start_mass
        self.ticks = 0

    def tick(self) -> None:
        """Start anew with this tick's share; to be called before the tick's data are seen."""
        self.ticks += 1
        share = self._schedule.share(self.ticks)
        if share and self._unspent > 0.0:
            self._unspent -= share * self._late_mass
            self._held = [held + share * part for held, part in zip(self._held, self._late_prior, strict=True)]

    def gain(self, gains: Sequence[float]) -> None:
        """Multiply each bet by its outcome; `gains` are logarithms, one for each bet."""
        if max(gains) > _LEAP:
            gains = [min(gain, _LEAP) for gain in gains]
        held = [held * exp(gain) + _LEAST for held, gain in zip(self._held, gains, strict=True)]
        self._held = held if max(held) < _MOST else [min(each, _MOST) for each in held]

    @property
    def log_e(self) -> float:
        """The logarithm of the e-value."""
        return log(sum(self._held) + max(self._unspent, 0.0))

    def logs(self) -> list[tuple[float, float]]:
        """Return for each bet the logarithms of its part of the stake and of what it holds."""
        return [(log(part), log(held)) for part, held in zip(self._prior, self._held, strict=True)]

    def leader(self) -> int:
        """Return which bet holds the most wealth."""
        return self._held.index(max(self._held))

    def plain(self) -> dict[str, Any]:
        """Return the state, safe for JSON and exact."""
        return {"ticks": self.ticks, "unspent": self._unspent, "held": [*self._held]}

    def restore(self, plain: Mapping[str, Any]) -> None:
        """Take up a state of `plain()`. Raises ValueError: it is of other bets."""
        if len(plain["held"]) != len(self._prior):
            raise ValueError(f"{len(plain['held'])} bets were saved, {len(self._prior)} are made")
        self.ticks, self._unspent = int(plain["ticks"]), float(plain["unspent"])
        self._held = [*map(float, plain["held"])]


def log_sum(logs: Sequence[float]) -> float:
    """Return the logarithm of the sum of what `logs` are the logarithms of."""
    peak = max(logs)
    return peak + log(sum([exp(log_ - peak) for log_ in logs]))


def label_logs(ratio: float, tolerated: float, weight: float) -> tuple[float, float]:
    """Return what a bad event of the canary and one of the primary does to a bet on `ratio` against `tolerated`.

    Logarithms. With a ratio above the tolerated one the null is "the ratio is `tolerated` at most", with one below
    "at least". Where the side was not drawn, weight 0 or 1, both are 0 for the side that could occur.
    """
    primary = log1p((tolerated - 1.0) * weight) - log1p((ratio - 1.0) * weight) if weight < 1.0 else 0.0
    canary = log(ratio / tolerated) + primary if 0.0 < weight < 1.0 else 0.0
    return canary, primary


def rate_logs(multiple: float, limit: float) -> tuple[float, float]:
    """Return what a bad request and a good one do to a bet on `multiple` times the limit against the limit.

    Logarithms. With a multiple above 1 the null is "the rate is the limit at most", with one below "at least".
    Raises ValueError: the limit is not inside 0 to 1.
    """
    if not 0.0 < limit < 1.0:
        raise ValueError(f"a rate can only be compared with a limit between 0 and 1, not with {limit}")
    rate = min(multiple * limit, max(_MOST_RATE, (1.0 + limit) / 2))
    return log(rate / limit), log1p(-rate) - log1p(-limit)


class LabelBet(Wealth):
    """Bets on which side bad events fall on; each event is (canary or primary, at which weight), nothing else.

    With ratios above `tolerated` it gathers evidence that the canary is worse than that; with ratios below, that it is
    better (non-inferiority); with both and 1 tolerated, that sides are not drawn as the weight says.
    """

    __slots__ = ("_cached", "_ratios", "_tolerated")

    def __init__(
        self,
        ratios: Sequence[float] = RATIOS,
        tolerated: float = 1.0,
        *,
        schedule: Schedule = Schedule(),  # noqa: B008 - immutable
        start_mass: float = 0.5,
    ) -> None:
        super().__init__([1.0 / len(ratios)] * len(ratios), schedule, start_mass)
        self._ratios = tuple(ratios)
        self._tolerated = tolerated
        self._cached: dict[float, tuple[tuple[float, float], ...]] = {}

    def add(self, canary: int, both: int, weight: float) -> list[float]:
        """Weigh `both` bad events, `canary` of them the canary's, at the weight their requests were drawn with.

        Returns the logarithm of each bet's gain.
        """
        logs = cached_logs(self._cached, weight, self._logs_at)
        primary = both - canary
        gains = [canary * mine + primary * its for mine, its in logs]
        self.gain(gains)
        return gains

    def ratio(self) -> float:
        """Return the ratio whose bet holds the most."""
        return self._ratios[self.leader()]

    def _logs_at(self, weight: float) -> tuple[tuple[float, float], ...]:
        return tuple(label_logs(ratio, self._tolerated, weight) for ratio in self._ratios)


class RateBet(Wealth):
    """Bets that a side's rate of bad requests is above a limit, or with multiples below 1 that it is below.

    One side alone, so a failure that both sides share counts in full. The limit may change between calls.
    """

    __slots__ = ("_cached", "_multiples")

    def __init__(
        self,
        multiples: Sequence[float] = WORSE_RATES,
        *,
        schedule: Schedule = Schedule(),  # noqa: B008 - immutable
        start_mass: float = 0.5,
    ) -> None:
        super().__init__([1.0 / len(multiples)] * len(multiples), schedule, start_mass)
        self._multiples = tuple(multiples)
        self._cached: dict[float, tuple[tuple[float, float], ...]] = {}

    def add(self, bad: int, requests: int, limit: float) -> None:
        """Weigh `requests`, `bad` of them bad, against `limit`, a probability. Raises ValueError: it is not one."""
        logs = cached_logs(self._cached, limit, self._logs_at)
        good = requests - bad
        self.gain([bad * worse + good * better for worse, better in logs])

    def _logs_at(self, limit: float) -> tuple[tuple[float, float], ...]:
        return tuple(rate_logs(multiple, limit) for multiple in self._multiples)


def ratio_bounds(events: Mapping[float, tuple[int, int]], alpha: float) -> tuple[float, float | None]:
    """Return an interval for how many times likelier a bad event is on the canary, valid however often one asks.

    `events`: weight -> (the canary's bad events, both sides'). Each end is ever wrong with probability `alpha` at most.
    The upper end is None where nothing bounds it. The ratio is taken to have been the same all the time.
    """
    drawn = {weight: counts for weight, counts in events.items() if 0.0 < weight < 1.0}
    worse = sum(canary for canary, _ in drawn.values())
    against = [1.0 / ratio for ratio in _INTERVAL_RATIOS]
    low = _edge(lambda ratio: _log_against(drawn, ratio, _INTERVAL_RATIOS) >= -log(alpha)) if worse else 0.0
    high = _edge(lambda ratio: _log_against(drawn, ratio, against) < -log(alpha))
    return low, high if high < _WIDEST else None


_WIDEST: Final = 1e6


def _edge(holds: Callable[[float], bool]) -> float:
    """Return the largest ratio for which something holds that holds for small ones and not for large ones."""
    low, high = -log(_WIDEST), log(_WIDEST)
    if not holds(exp(low)):
        return 0.0
    if holds(exp(high)):
        return inf
    for _ in range(32):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(exp(middle)) else (low, middle)
    return exp(low)


def _log_against(events: Mapping[float, tuple[int, int]], ratio: float, factors: Sequence[float]) -> float:
    """Return the evidence from the start against a ratio, of bets on its multiples."""
    logs = []
    for factor in factors:
        total = 0.0
        for weight, (canary, both) in events.items():
            mine, its = label_logs(ratio * factor, ratio, weight)
            total += canary * mine + (both - canary) * its
        logs.append(total)
    return _log_mean(logs, [1.0 / len(factors)] * len(factors))


def _log_mean(logs: Sequence[float], prior: Sequence[float]) -> float:
    peak = max(logs)
    return peak + log(sum([part * exp(log_ - peak) for part, log_ in zip(prior, logs, strict=True)]))


def cached_logs(kept: dict[float, _Logs], weight: float, make: Callable[[float], _Logs]) -> _Logs:
    """Return what belongs to a weight; few are ever in use, so all are forgotten when they have become many."""
    found = kept.get(weight)
    if found is None:
        if len(kept) >= _WEIGHTS_KEPT:
            kept.clear()
        found = kept[weight] = make(weight)
    return found
