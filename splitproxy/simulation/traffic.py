"""What the traffic of a simulated rollout is like, and what is wrong with the canary."""

from collections.abc import Callable, Sequence
from math import exp, log, log10
from statistics import NormalDist
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from splitproxy.core.slowness import THRESHOLDS

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
Flags = NDArray[np.bool_]

NONE, ERRORS, LATENCY, TAIL = KINDS = ("none", "errors", "latency", "tail")
"""What is wrong: nothing, more errors, everything slower, only the slowest tenth slower."""
MEDIAN_MS: Final = 50.0
SPREAD: Final = 0.5
"""Latency without anything wrong: lognormal, this median and standard deviation of the logarithm; p99 is 160 ms."""
BURST_EVERY: Final = 120.0
"""Seconds between shared bursts, on average."""
BURST_SECONDS: Final = 10
BURST_RATE, BURST_ERRORS = 3.0, 20.0
"""In a burst there are so many times more requests, and so many times more errors, on both sides alike."""

_NORMAL: Final = NormalDist()


class Traffic(NamedTuple):
    """Requests of both sides together; times in seconds, probabilities 0 to 1."""

    rate: float = 1000.0
    """Requests a second."""
    errors: float = 0.001
    """Share that fails without anything wrong."""
    kind: str = NONE
    """One of `KINDS`."""
    size: float = 0.0
    """With `errors` the share that fails on top on the canary; else how many times longer the canary takes."""
    onset: int = 0
    """The second from which the canary is so."""
    drift: float = 1.0
    """By how many times errors grow on both sides from beginning to end."""
    bursts: bool = False
    """Whether both sides have bursts of requests and errors now and then."""
    sticky: bool = False
    """Whether clients keep their side, some of them with many requests and some with many errors."""
    seconds: int = 600
    """How long a rollout is watched at most."""
    recorded: tuple["Second", ...] = ()
    """What rates and errors are taken from instead, one entry a second, again from the beginning when it ends."""


class Second(NamedTuple):
    """One recorded second: requests and failures of both sides."""

    canary: int
    primary: int
    bad_canary: int
    bad_primary: int
    weight: float
    """The canary's probability, 0 to 1."""
    slow: tuple[tuple[int, int, int, int], ...] = ()
    """As in `evidence.Batch`; () where it is not known."""


class Chances(NamedTuple):
    """What holds in one second, for both sides."""

    rate: float
    errors: float
    canary_errors: float


def chances(traffic: Traffic, second: int) -> Chances:
    """Return rates and error probabilities of a second."""
    extra = traffic.size if traffic.kind == ERRORS and second >= traffic.onset else 0.0
    if traffic.recorded:
        one = traffic.recorded[second % len(traffic.recorded)]
        errors = one.bad_primary / one.primary if one.primary else 0.0
        canary = one.bad_canary / one.canary if one.canary else errors
        return Chances(float(one.canary + one.primary), errors, min(1.0, canary + extra))
    errors = min(1.0, traffic.errors * traffic.drift ** (second / traffic.seconds))
    return Chances(traffic.rate, errors, min(1.0, errors + extra))


def shares(traffic: Traffic, tolerated: float, delay: float) -> tuple[Floats, Floats, Floats]:
    """Return the shares of requests between the thresholds of latency: the primary's, a bad canary's, a good one's.

    Each has one share more than there are thresholds. Thresholds are the primary's quantiles. Before it is counted, the
    canary's latency is divided by `tolerated`, or shortened by `delay` seconds where that takes more (`Coin.even`).
    """
    if traffic.recorded:
        canary, primary = _recorded(traffic.recorded)
        return primary, canary, canary
    edges = [_quantile(quantile) for quantile in THRESHOLDS]
    bad, primary = _slowed(traffic), _between([_above(edge, _unchanged) for edge in edges])
    moved = [max(edge * tolerated, edge + 1000.0 * delay) for edge in edges]
    canary, good = (_between([_above(edge, one) for edge in moved]) for one in (bad, _unchanged))
    return primary, canary, good


def _recorded(seconds: Sequence[Second]) -> tuple[Floats, Floats]:
    """Return the canary's and the primary's shares between the thresholds over a whole record."""
    if not seconds[0].slow:
        nothing = np.zeros(len(THRESHOLDS) + 1)
        return nothing, nothing
    total = np.sum([one.slow for one in seconds], axis=0)
    canary, primary = (_between(total[:, side] / max(1, total[0, side] + total[0, side + 1])) for side in (0, 2))
    return canary, primary


def above(traffic: Traffic, limit: float) -> tuple[float, float]:
    """Return the share of requests slower than a limit in milliseconds: a good version's, and the bad canary's."""
    return _above(limit, _unchanged), _above(limit, _slowed(traffic))


def _unchanged(ms: float) -> float:
    return ms


def _slowed(traffic: Traffic) -> Callable[[float], float]:
    if traffic.kind == LATENCY:
        return lambda ms: ms * traffic.size
    if traffic.kind == TAIL:
        return lambda ms: _trailing(ms, traffic.size)
    return _unchanged


def _trailing(ms: float, factor: float) -> float:
    """Return how slow a request is whose tenth is the slowest: beyond p90 exponential, p99 `factor` times."""
    exceeding = 1.0 - _NORMAL.cdf(log(ms / MEDIAN_MS) / SPREAD)
    if exceeding >= 0.1:
        return ms
    start = _quantile(0.9)
    return start + (factor * _quantile(0.99) - start) * log10(0.1 / max(exceeding, 1e-12))


def _quantile(quantile: float) -> float:
    return MEDIAN_MS * exp(SPREAD * _NORMAL.inv_cdf(quantile))


def _above(limit: float, slowed: Callable[[float], float]) -> float:
    """Return the share of requests whose latency, once slowed, is above a limit in milliseconds."""
    low, high = limit * 1e-3, limit * 1e3
    for _ in range(60):
        middle = (low * high) ** 0.5
        low, high = (low, middle) if slowed(middle) > limit else (middle, high)
    return 1.0 - _NORMAL.cdf(log(low / MEDIAN_MS) / SPREAD)


def _between(exceeding: Sequence[float]) -> Floats:
    whole = np.array([1.0, *exceeding, 0.0])
    parts: Floats = whole[:-1] - whole[1:]
    return parts
