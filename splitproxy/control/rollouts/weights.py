"""Small sums around the comparison: where the thresholds lie, and its numbers as people are shown them."""

from collections.abc import Iterable, Mapping, Sequence
from math import isfinite, log, log10
from typing import Any, Final

from splitproxy.control.signals import Signals
from splitproxy.core import stats, tallies
from splitproxy.core.evidence import Terms
from splitproxy.core.standing import Standing
from splitproxy.core.stats import Key

_LOOK_BACK: Final = 120.0
"""Seconds of the primary's past by which thresholds are set."""
_LEAST: Final = 200
"""Requests of the primary below which there are no thresholds."""
_APART: Final = 2
"""Buckets by which a threshold must be off before it is moved: moving one begins an epoch."""


def decimal(log_e: float) -> float:
    """Return a natural logarithm as a decimal one."""
    return log_e / log(10)


def thresholds(signals: Signals, primary: Iterable[Key]) -> tuple[int, ...]:
    """Return the buckets of the primary's quantiles; empty: it has answered too few requests lately."""
    first, last = stats.ATTEMPT_HISTOGRAM, stats.ATTEMPT_HISTOGRAM + stats.BUCKETS
    parts = [signals.window(key, _LOOK_BACK).cells[first:last] for key in primary]
    histogram = list(map(sum, zip(*parts, strict=True)))
    total = sum(histogram)
    if total < _LEAST:
        return ()
    found, seen, bucket = [], 0, -1
    for quantile in tallies.QUANTILES:
        while seen < quantile * total:
            bucket += 1
            seen += histogram[bucket]
        found.append(min(bucket, len(stats.BOUNDS) - 1))
    return tuple(found)


def apart(one: Sequence[int], other: Sequence[int]) -> bool:
    """Return whether thresholds differ so much that it is worth an epoch; the rarest quantiles wander by themselves."""
    return not other or any(abs(a - b) >= _APART for a, b in zip(one[:4], other[:4], strict=True))


def numbers(standing: Standing, terms: Terms, examples: Mapping[str, Iterable[Any]]) -> dict[str, Any]:
    """Return where a comparison stands, for JSON: log10 of the e-values, shares and probabilities from 0 to 1."""
    gate = standing.gate
    return {
        "outcome": "fail" if standing.convicted else "hold",
        "sentence": standing.sentence,
        "leading": standing.leading,
        "logE": round(decimal(standing.log_e), 3),
        "needed": round(-log10(terms.alpha), 3),
        "p": standing.p,
        "alpha": terms.alpha,
        "errors": {"logE": round(decimal(standing.errors.log_e), 3), "ratio": standing.errors.at},
        "latency": {"logE": round(decimal(standing.latency.log_e), 3), "quantile": standing.latency.at},
        "ratio": {"from": standing.ratio[0], "to": standing.ratio[1]},
        "counts": standing.counts._asdict(),
        "weights": list(standing.weights),
        "pace": terms.pace,
        "gate": {
            "passed": gate.passed,
            "missing": gate.missing or None,
            "secondsLeft": None if gate.seconds is None or not isfinite(gate.seconds) else round(gate.seconds, 1),
            "requestsLeft": gate.requests,
        },
        "sharesAlarm": standing.shares_alarm,
        "examples": {side: list(some) for side, some in examples.items()},
    }
