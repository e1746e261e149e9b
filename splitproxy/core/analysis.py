"""From measurements to verdicts: pass, fail, inconclusive or error, each with its numbers and its reason."""

from __future__ import annotations

from math import isnan
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from splitproxy.core.rollout.plan import MetricPlan

PASS: Final = "pass"
FAIL: Final = "fail"
INCONCLUSIVE: Final = "inconclusive"
ERROR: Final = "error"

BOTH_FAIL: Final = "both sides fail"
"""How the reason of a verdict begins that is inconclusive because the primary fails as the canary does."""

_UNIT: Final = {"request-success-rate": "%", "request-duration": "ms", "request-rate": "/s"}
"""Unit of each kind of metric that has one."""
SAMPLED: Final = frozenset({"request-success-rate", "request-duration"})
"""Kinds that say more the more requests there are, and that do not depend on a side's share of the traffic.

The others, rates and gauges, are what they are however few requests there were, and grow with the share: neither
`minRequests` nor the comparison with the primary means anything for them.
"""

Bounds = tuple[float | None, float | None]
"""(min, max), either may be missing; both are good values themselves."""


class Measurement(NamedTuple):
    """What was measured of one side over one window."""

    value: float | None
    """In the metric's unit; None: no data."""
    sample: int = 0
    """Requests behind it; 0 where that is unknown."""
    seconds: float = 0.0
    """The window's length."""
    error: str = ""
    """Why it could not be measured at all."""


class Verdict(NamedTuple):
    """What one metric says."""

    metric: str
    outcome: str
    """pass | fail | inconclusive | error."""
    value: float | None
    min: float | None
    max: float | None
    sample: int
    seconds: float
    primary: float | None
    """The primary's value over the same window, where it was measured."""
    unit: str
    """%, ms, /s or nothing."""
    reason: str
    """A sentence: `request-success-rate 91.2 % is below 99 % (canary, 340 requests in 10 s; primary 99.9 %)`."""


def judge(
    metric: MetricPlan,
    canary: Measurement,
    primary: Measurement | None,
    *,
    compare: bool,
    limits: Bounds | None,
    min_requests: int,
    who: str = "canary",
) -> Verdict:
    """Return what a check of `metric` says of the canary, or of `who` else was measured in its place.

    `primary` was measured over the same window; None: it was not. `limits` hold instead of the metric's own. With
    `compare` a failure that the primary shares, measured on `min_requests` or more, is inconclusive.
    """
    bounds = limits or (metric.min, metric.max)
    outcome, reason = _outcome(metric, canary, bounds, min_requests, who)
    if outcome == FAIL and compare and _shares(metric, canary, primary, bounds, min_requests):
        outcome, reason = INCONCLUSIVE, f"{BOTH_FAIL}: {reason}"
    return _verdict(metric, outcome, canary, primary, bounds, reason)


def breach(metric: MetricPlan, canary: Measurement, *, min_requests: int, who: str = "canary") -> Verdict | None:
    """Return the failure when `metric` has hard limits and breaks one, on `min_requests` or more; else None.

    What cannot be measured breaks nothing, and the primary excuses nothing: a hard limit is never a matter of degree.
    """
    bounds = (metric.hard_min, metric.hard_max)
    if canary.error or _value(canary) is None or _too_few(metric, canary, min_requests):
        return None
    broken = _broken(metric, canary, bounds)
    if not broken:
        return None
    return _verdict(metric, FAIL, canary, None, bounds, f"hard limit: {broken} ({_evidence(canary, who)})")


def _outcome(metric: MetricPlan, canary: Measurement, bounds: Bounds, min_requests: int, who: str) -> tuple[str, str]:
    """Return what the canary alone says, and why."""
    evidence = _evidence(canary, who)
    if canary.error:
        return ERROR, f"{metric.name} could not be measured: {canary.error}"
    if _value(canary) is None:
        outcome = {"hold": INCONCLUSIVE, "pass": PASS, "fail": FAIL}[metric.no_data]
        return outcome, f"{metric.name} has no data ({evidence}; noData is {metric.no_data})"
    if _too_few(metric, canary, min_requests):
        return INCONCLUSIVE, f"{metric.name} needs {min_requests} requests ({evidence})"
    broken = _broken(metric, canary, bounds)
    if broken:
        return FAIL, f"{broken} ({evidence})"
    return PASS, f"{metric.name} {_number(canary.value, metric)} is within its limits ({evidence})"


def _shares(
    metric: MetricPlan, canary: Measurement, primary: Measurement | None, bounds: Bounds, min_requests: int
) -> bool:
    """Say whether the primary fails as the canary does."""
    if primary is None or primary.error or metric.kind not in SAMPLED:
        return False
    if _value(canary) is None or _value(primary) is None or primary.sample < min_requests:
        return False
    return bool(_broken(metric, primary, bounds))


def _verdict(
    metric: MetricPlan,
    outcome: str,
    canary: Measurement,
    primary: Measurement | None,
    bounds: Bounds,
    reason: str,
) -> Verdict:
    other = _value(primary) if primary and not primary.error else None
    if other is not None and outcome != ERROR:
        reason = f"{reason[:-1]}; primary {_number(other, metric)})"
    unit = _UNIT.get(metric.kind, "")
    return Verdict(
        metric.name, outcome, _value(canary), *bounds, canary.sample, round(canary.seconds, 3), other, unit, reason
    )


def _value(measurement: Measurement) -> float | None:
    """Return the value, None where there is none or it is not a number."""
    value = measurement.value
    return None if value is None or isnan(value) else value


def _too_few(metric: MetricPlan, canary: Measurement, min_requests: int) -> bool:
    return metric.kind in SAMPLED and canary.sample < min_requests


def _broken(metric: MetricPlan, measurement: Measurement, bounds: Bounds) -> str:
    """Return how the value breaks one of the bounds, nothing when it keeps both."""
    value, (low, high) = _value(measurement), bounds
    if value is None:
        return ""
    if low is not None and value < low:
        return f"{metric.name} {_apart(value, low, metric)} is below {_number(low, metric)}"
    if high is not None and value > high:
        return f"{metric.name} {_apart(value, high, metric)} is above {_number(high, metric)}"
    return ""


def _evidence(canary: Measurement, who: str) -> str:
    """Return what the verdict rests on."""
    requests = f"{canary.sample} request{'' if canary.sample == 1 else 's'}"
    if canary.value is not None and not canary.sample:
        requests = ""  # the sample is not known
    window = f"in {canary.seconds:.3g} s" if canary.seconds < 100 else f"in {canary.seconds:.0f} s"
    return ", ".join((who, f"{requests} {window}".strip()))


def _apart(value: float, limit: float, metric: MetricPlan) -> str:
    """Return `value` with so many digits that it does not read as the limit it breaks."""
    text = _number(value, metric)
    if text == _number(limit, metric):
        unit = _UNIT.get(metric.kind, "")
        return f"{value!r} {unit}".strip()
    return text


def _number(value: float | None, metric: MetricPlan) -> str:
    assert value is not None
    unit = _UNIT.get(metric.kind, "")
    digits = f"{value:.2f}".rstrip("0").rstrip(".") if 0.01 <= abs(value) < 1e9 or not value else f"{value:.4g}"
    return f"{digits} {unit}".strip()
