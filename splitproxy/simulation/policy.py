"""A rollout's policy, as far as a simulation plays it: steps, checks, limits and the comparison."""

from typing import NamedTuple

from splitproxy.core.evidence import Terms
from splitproxy.core.live import EVERYTHING
from splitproxy.core.rollout.plan import Plan


class Step(NamedTuple):
    """One stage; times in seconds."""

    weight: float
    """The canary's probability, 0 to 1."""
    least: float
    """How long it lasts at least, pauses with it."""
    checks: int
    """Passed checks needed to leave it."""
    interval: int
    """Between checks."""
    by_evidence: bool
    """Whether its gate ends it instead."""
    min_requests: int = 1
    """Fewer between checks say nothing."""


class Policy(NamedTuple):
    """What decides about the canary."""

    steps: tuple[Step, ...]
    terms: Terms
    compare: bool = True
    threshold: int = 1
    """Failed checks that roll back."""
    success: float | None = None
    """The least share of good requests that a check passes, 0 to 1."""
    most_ms: float | None = None
    """The largest latency that a check passes."""
    quantile: float = 0.99
    """Which of the requests' latencies that is."""
    left_out: tuple[str, ...] = ()
    """What of the rollout is not played."""


def policy_of(plan: Plan) -> Policy:
    """Return what of a plan can be played: stages that give the canary a share, and its limits for requests."""
    stages = [stage for stage in plan.stages if stage.weight]
    success = next((one for one in plan.metrics if one.kind == "request-success-rate"), None)
    duration = next((one for one in plan.metrics if one.kind == "request-duration"), None)
    least = 1 if success is None else success.min_requests
    steps = tuple(
        Step(
            min(stage.weight / EVERYTHING, 1.0),
            stage.hold + (stage.pause or 0.0),
            stage.checks,
            max(1, round(stage.interval or plan.interval)),
            plan.compare and plan.by_evidence(stage),
            stage.min_requests or least,
        )
        for stage in stages
    )
    return Policy(
        steps,
        plan.terms,
        plan.compare,
        plan.threshold,
        None if success is None or success.min is None else success.min / 100.0,
        None if duration is None else duration.max,
        0.99 if duration is None else duration.quantile,
        _left_out(plan, len(stages)),
    )


def _left_out(plan: Plan, played: int) -> tuple[str, ...]:
    found = []
    if len(plan.stages) > played:
        found.append("stages without a share for the canary")
    if any(stage.pause == 0.0 for stage in plan.stages):
        found.append("pauses until resumed (taken as resumed at once)")
    if any(metric.kind not in {"request-success-rate", "request-duration"} for metric in plan.metrics):
        found.append("metrics other than success rate and duration")
    if any(metric.interval for metric in plan.metrics):
        found.append("windows of metrics (measured since the check before)")
    if any(metric.hard_min is not None or metric.hard_max is not None for metric in plan.metrics):
        found.append("hard limits")
    if plan.hooks:
        found.append("webhooks and gates (taken as open)")
    return tuple(found)
