"""Bets that the canary is slower: on how often its requests are above the primary's quantiles, never on a quantile.

An estimated p99 of a few hundred requests jumps about; how many of them were above a threshold that was set before is
a plain count. As long as a slower request never counts for less, the bet is honest, whatever the latencies are and
wherever the thresholds really lie.
"""

from collections.abc import Sequence
from itertools import pairwise
from operator import mul
from typing import Final, NamedTuple

from splitproxy.core.sequential import Schedule, Wealth, cached_logs, label_logs

THRESHOLDS: Final = (0.5, 0.75, 0.9, 0.95, 0.99, 0.999)
"""The primary's quantiles at which latency is compared."""
SLOWER: Final = (
    (1.1, 1.2, 1.4, 1.7),
    (1.15, 1.3, 1.6, 2.2, 3.0),
    (1.2, 1.4, 1.8, 2.5, 4.0, 7.0),
    (1.3, 1.6, 2.2, 3.5, 6.0, 12.0),
    (1.5, 2.0, 3.0, 5.0, 10.0, 30.0),
    (2.0, 4.0, 10.0, 40.0, 200.0),
)
"""For each threshold, how many times likelier a request is above it on the canary: those that bets are spread over."""

_Logs = tuple[Sequence[Sequence[tuple[float, float, float, float]]], Sequence[Sequence[float]]]
"""Of each threshold each bet's, and each shape's."""
Slow = tuple[int, int, int, int]
"""Of one threshold: the canary's requests above it and below it, the primary's above it and below it."""


class Shape(NamedTuple):
    """A bet on all of the latencies at once: how many times likelier on the canary they are between the thresholds."""

    ratios: tuple[float, ...]
    """From the fastest on, one more than thresholds, never falling."""
    number: int
    """The threshold, counted from 0, that it is about where only one can be looked at."""


SHAPES: Final = (
    Shape((0.881, 1.039, 1.14, 1.229, 1.318, 1.458, 1.64), 0),
    Shape((0.726, 1.056, 1.313, 1.562, 1.841, 2.332, 3.07), 1),
    Shape((0.424, 0.953, 1.566, 2.319, 3.391, 5.829, 11.004), 2),
    Shape((0.97, 0.97, 0.97, 0.97, 1.195, 2.303, 9.97), 4),
    Shape((0.9, 0.9, 0.9, 0.9, 1.65, 5.344, 30.9), 4),
)
"""Everything slower by 0.15, 0.35 and 0.8 standard deviations of a normal distribution; 3 % and 10 % of requests moved
into the slowest twentieth. They see the same slowdown at all thresholds, so that less traffic is enough."""
SHAPED: Final = 0.6
"""The part of the stake that is on shapes."""


def level_logs(slow: float, ratio: float, weight: float) -> tuple[float, float, float, float]:
    """Return what requests do to a bet that the canary's are `ratio` times likelier above a threshold.

    Logarithms, for the canary above and below, the primary above and below; `slow` is about the primary's share
    above it. If it is not, the bet is worse and as honest: only that the second factor is below the first matters.
    """
    above, its_above = label_logs(ratio, 1.0, weight)
    below, its_below = label_logs((1.0 - ratio * slow) / (1.0 - slow), 1.0, weight)
    return above, below, its_above, its_below


class LatencyBet(Wealth):
    """Bets that the canary's requests are likelier above the primary's quantiles: each by itself, and in shapes."""

    __slots__ = ("_bets", "_cached", "_firsts", "_shapes", "_thresholds", "numbers")

    numbers: tuple[int, ...]
    """Each bet's threshold, counted from 0."""

    def __init__(
        self,
        thresholds: Sequence[float] = THRESHOLDS,
        ratios: Sequence[Sequence[float]] = SLOWER,
        shapes: Sequence[Shape] = SHAPES,
        *,
        schedule: Schedule = Schedule(),  # noqa: B008 - immutable
        start_mass: float = 0.5,
    ) -> None:
        self._bets = [(1.0 - quantile, tuple(some)) for quantile, some in zip(thresholds, ratios, strict=True)]
        super().__init__(latency_prior(ratios, shapes), schedule, start_mass)
        self._thresholds = tuple(thresholds)
        self._shapes = tuple(shapes)
        levels = (number for number, some in enumerate(ratios) for _ in some)
        self.numbers = (*levels, *(shape.number for shape in shapes))
        self._cached: dict[float, _Logs] = {}
        self._firsts: dict[float, tuple[tuple[float, float], ...]] = {}

    def add(self, slow: Sequence[Slow], weight: float) -> list[float]:
        """Weigh requests, counted above and below each threshold; return the logarithm of each bet's gain."""
        levels, shapes = cached_logs(self._cached, weight, self._logs_at)
        gains: list[float] = []
        for (above, below, its_above, its_below), logs in zip(slow, levels, strict=True):
            gains += [above * a + below * b + its_above * c + its_below * d for a, b, c, d in logs]
        if shapes:
            counts = [
                slow[0][0] + slow[0][1],
                *[one[0] for one in slow],
                slow[0][2] + slow[0][3],
                *[one[2] for one in slow],
            ]
            gains += [sum(map(mul, counts, each)) for each in shapes]
        self.gain(gains)
        return gains

    def add_first(self, slow: Sequence[tuple[int, int]], weight: float) -> list[float]:
        """Weigh clients that keep their side, each once per threshold when first above: (the canary's, both)."""
        logs = cached_logs(self._firsts, weight, self._first_logs_at)
        gains = [
            canary * mine + (both - canary) * its
            for (canary, both), (mine, its) in zip([slow[number] for number in self.numbers], logs, strict=True)
        ]
        self.gain(gains)
        return gains

    def threshold(self) -> int:
        """Return the number of the threshold whose bet holds the most."""
        return self.numbers[self.leader()]

    def _logs_at(self, weight: float) -> _Logs:
        levels = [[level_logs(slow, ratio, weight) for ratio in some] for slow, some in self._bets]
        return levels, [_steps(shape_logs(shape, weight)) for shape in self._shapes]

    def _first_logs_at(self, weight: float) -> tuple[tuple[float, float], ...]:
        ratios = [ratio for _, some in self._bets for ratio in some] + [
            exceeding(shape, self._thresholds) for shape in self._shapes
        ]
        return tuple(label_logs(ratio, 1.0, weight) for ratio in ratios)


def latency_prior(ratios: Sequence[Sequence[float]], shapes: Sequence[Shape]) -> list[float]:
    """Return each latency bet's part of the stake: thresholds get the same, and of each its ratios; then shapes."""
    levels = 1.0 - SHAPED if shapes else 1.0
    return [
        *[levels / len(ratios) / len(some) for some in ratios for _ in some],
        *[SHAPED / len(shapes) for _ in shapes],
    ]


def shape_logs(shape: Shape, weight: float) -> tuple[list[float], list[float]]:
    """Return what a request between two thresholds does to a bet on a shape: the canary's, and the primary's."""
    logs = [label_logs(ratio, 1.0, weight) for ratio in shape.ratios]
    return [canary for canary, _ in logs], [primary for _, primary in logs]


def exceeding(shape: Shape, thresholds: Sequence[float]) -> float:
    """Return how many times likelier a shape has a request above the threshold that it is about."""
    edges = [*thresholds[shape.number :], 1.0]
    parts = [high - low for low, high in pairwise(edges)]
    total: float = sum(map(mul, parts, shape.ratios[shape.number + 1 :]))
    return total / sum(parts)


def _steps(logs: tuple[Sequence[float], Sequence[float]]) -> list[float]:
    """Return what each request does, and what more with each threshold that it is above; both sides'."""
    return [value for side in logs for value in (side[0], *[high - low for low, high in pairwise(side)])]
