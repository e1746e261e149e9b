"""From the plain form of a rollout to its plan, and from a plan to words."""

from typing import Any, Final

from splitproxy.core.evidence import Terms
from splitproxy.core.live import EVERYTHING
from splitproxy.core.pair_evidence import SHARE, PairTerms
from splitproxy.core.rollout.plan import HookPlan, MetricPlan, Plan, Stage, Window

Plain = dict[str, Any]
_PERCENT: Final = EVERYTHING // 100
_SHORTEST: Final = 600.0
_LONGEST: Final = 86_400.0
"""Seconds that a rollout is planned to take, for the comparison: a longer one is still judged, with less zeal."""
_INCREASE: Final = "confirm-traffic-increase"


def compile_plan(plain: Plain) -> Plan:
    """Return the plan of one entry of the plain configuration's `rollouts`."""
    analysis, promotion = plain["analysis"], plain["promotion"]
    strategy = _strategy(analysis)
    stages = _stages(analysis, strategy)
    return Plan(
        name=plain["name"],
        route=plain["route"],
        primary=plain["primary"],
        canary=plain["canary"],
        revision=plain["revision"],
        identity=plain["identity"],
        stages=stages,
        metrics=tuple(_metric(metric) for metric in analysis["metrics"]),
        hooks=_hooks(analysis, promotion),
        strategy=strategy,
        interval=analysis["interval"],
        threshold=max(1, analysis["threshold"]),
        compare=analysis["compare"] if isinstance(analysis["compare"], bool) else analysis["compare"]["enabled"],
        terms=_terms(analysis, stages),
        copies=_copies(analysis, stages),
        promotion_step=units(analysis["stepWeightPromotion"] or 0),
        mode=promotion["mode"],
        bake=promotion["bakeTime"],
        progress_deadline=plain["progressDeadline"],
        skip_analysis=plain["skipAnalysis"],
        dry_run=analysis["dryRun"],
        windows=tuple(
            Window(tuple(window["days"]), window["start"], window["end"], window["zone"])
            for window in plain["allowedWindows"]
        ),
        cohorts=len(analysis["cohorts"]),
    )


def units(percent: float) -> int:
    """Return a percentage in hundredths of a percent."""
    return round(percent * _PERCENT)


def percent(share: int) -> str:
    """Return a share in words: `12.5 %`."""
    return f"{share / _PERCENT:g} %"


def stage_plan(plan: Plan) -> list[Plain]:
    """Return every stage in words and numbers, in order; shares in percent, times in seconds."""
    return [
        {
            "index": index,
            "weight": stage.weight / _PERCENT,
            "cohorts": stage.cohorts,
            "mirror": stage.mirror / _PERCENT,
            "checks": stage.checks,
            "hold": stage.hold,
            "pause": stage.pause,
            "gate": stage.gate or None,
            "interval": stage.interval or plan.interval,
            "minRequests": stage.min_requests or None,
            "text": describe(stage),
        }
        for index, stage in enumerate(plan.stages)
    ]


def describe(stage: Stage) -> str:
    """Return what a stage sends where and what ends it, as one phrase."""
    parts = [f"{percent(stage.weight)} to the canary"]
    if stage.cohorts:
        parts.append(f"with {stage.cohorts} cohort{'s' if stage.cohorts > 1 else ''}")
    if stage.mirror:
        parts.append(f"and {percent(stage.mirror)} copied to it")
    parts.append(f"for {stage.checks} passed check{'s' if stage.checks != 1 else ''}")
    if stage.hold:
        parts.append(f"and at least {stage.hold:g} s")
    if stage.pause is not None:
        parts.append(f"then a pause of {stage.pause:g} s" if stage.pause else "then a pause until resumed")
    return " ".join(parts)


def first_above(plan: Plan, weight: int, cohorts: int) -> int:
    """Return the index of the first stage that sends the canary more than that; len(stages): none does."""
    for index, stage in enumerate(plan.stages):
        if (stage.weight, stage.cohorts) > (weight, cohorts):
            return index
    return len(plan.stages)


def _terms(analysis: Plain, stages: tuple[Stage, ...]) -> Terms:
    """Return what the comparison keeps to; plans saved before it had terms of its own say whether there is one."""
    compare = analysis["compare"]
    sticky = analysis.get("sessionAffinity") is not None
    planned = sum(
        max((stage.interval or analysis["interval"]) * stage.checks, stage.hold) + (stage.pause or 0.0)
        for stage in stages
    )
    horizon = round(min(max(planned, _SHORTEST), _LONGEST))
    if isinstance(compare, bool):
        return Terms(horizon=horizon, sticky=sticky)
    copied = "mirror" in compare and any(stage.mirror for stage in stages)
    return Terms(
        alpha=compare["alpha"] * (1.0 - SHARE if copied else 1.0),
        beta=compare["beta"],
        errors=compare["tolerate"]["errors"],
        latency=compare["tolerate"]["latency"],
        delay=compare["tolerate"]["delay"],
        min_bad_events=compare["minBadEvents"],
        warmup=compare["warmup"],
        pace=compare["pace"],
        min_dwell=compare["minDwell"],
        horizon=horizon,
        sticky=sticky,
    )


def _copies(analysis: Plain, stages: tuple[Stage, ...]) -> PairTerms:
    """Return what the comparison of copies keeps to; what `_terms` leaves of alpha is theirs."""
    compare = analysis["compare"]
    if isinstance(compare, bool) or "mirror" not in compare:
        return PairTerms()
    mirror = compare["mirror"]
    return PairTerms(
        alpha=compare["alpha"] * SHARE,
        errors=compare["tolerate"]["errors"],
        min_bad_events=compare["minBadEvents"],
        warmup=compare["warmup"],
        horizon=_terms(analysis, stages).horizon,
        twin=mirror["noiseTwin"] or "",
        bodies=mirror["bodies"],
        examples=mirror["examples"],
    )


def _strategy(analysis: Plain) -> str:
    if analysis["stepWeight"] or analysis["stepWeights"] or analysis["steps"]:
        return "canary"
    if analysis["cohorts"]:
        return "ab-testing"
    return "blue-green" if analysis["iterations"] else "canary"


def _stages(analysis: Plain, strategy: str) -> tuple[Stage, ...]:
    mirror = (units(analysis["mirrorWeight"] or 0) or EVERYTHING) if analysis["mirror"] else 0
    if strategy == "blue-green":
        tried = Stage(mirror=mirror, checks=analysis["iterations"])
        return tried, Stage(weight=EVERYTHING, gate="confirm-promotion")
    stages = [Stage(mirror=mirror)] if mirror else []
    stages += [Stage(cohorts=count, checks=checks) for count, checks in _rings(analysis, strategy)]
    stages += _weighted(analysis, len(analysis["cohorts"]))
    return _gated(stages) if strategy == "canary" else tuple(stages)


def _rings(analysis: Plain, strategy: str) -> list[tuple[int, int]]:
    """Return (cohorts let in, checks) of every cohort that is tried before the next stage.

    One `match` in front of weights, without `iterations`, has no stage of its own: it is on from the first weight.
    """
    checks = list(analysis["ringIterations"]) or [analysis["iterations"]] * len(analysis["cohorts"])
    if strategy == "ab-testing":
        checks = [own or analysis["iterations"] or 1 for own in checks]
    return [(count, own) for count, own in enumerate(checks, 1) if own]


def _weighted(analysis: Plain, cohorts: int) -> list[Stage]:
    limit = units(analysis["maxWeight"] or 100)
    if analysis["steps"]:
        return _steps(analysis["steps"], cohorts)
    weights = [units(weight) for weight in analysis["stepWeights"]]
    step = units(analysis["stepWeight"] or 0)
    if not weights and step:
        weights = [*range(step, limit, step), limit]
    # Never the same share twice. Flagger too goes by maxWeight with stepWeight alone.
    return [Stage(weight=weight, cohorts=cohorts) for weight in dict.fromkeys(weights)]


def _steps(steps: list[Plain], cohorts: int) -> list[Stage]:
    stages: list[Stage] = []
    weight = mirror = 0
    for step in steps:
        if step["setWeight"] is not None:
            weight, mirror = units(step["setWeight"]), 0
        if step["mirror"] is not None:
            mirror = units(step["mirror"])
        stages.append(
            Stage(
                weight=weight,
                cohorts=cohorts,
                mirror=mirror,
                checks=step["iterations"] or 1,
                hold=step["hold"] or 0.0,
                pause=step["pause"],
                interval=step["interval"] or 0.0,
                min_requests=step["minRequests"] or 0,
                limits=tuple((metric["name"], metric["min"], metric["max"]) for metric in step["metrics"]),
            )
        )
    return stages


def _gated(stages: list[Stage]) -> tuple[Stage, ...]:
    """Return the stages with the gate in front of each that gives the canary more than the one before."""
    gated = []
    before = Stage()
    for stage in stages:
        more = stage.weight > before.weight or stage.cohorts > before.cohorts or stage.mirror > before.mirror
        gated.append(stage._replace(gate=_INCREASE) if more else stage)
        before = stage
    return tuple(gated)


def _metric(plain: Plain) -> MetricPlan:
    return MetricPlan(
        name=plain["name"],
        kind=plain["kind"],
        min=plain["min"],
        max=plain["max"],
        hard_min=plain["hardMin"],
        hard_max=plain["hardMax"],
        interval=plain["interval"] or 0.0,
        quantile=plain["quantile"],
        min_requests=plain["minRequests"],
        no_data=plain["noData"],
        failure_limit=plain["failureLimit"],
        consecutive_error_limit=plain["consecutiveErrorLimit"],
        inconclusive_limit=plain["inconclusiveLimit"],
        template=plain["template"] or "",
        variables=tuple(sorted(plain["variables"].items())),
    )


def _hooks(analysis: Plain, promotion: Plain) -> tuple[HookPlan, ...]:
    hooks = [
        HookPlan(hook["name"], hook["type"], hook["url"] is None, bool(hook["muteAlert"]))
        for hook in analysis["webhooks"]
    ]
    back = promotion["webhook"]
    if back is not None:
        hooks.append(HookPlan(back["name"], "hand-back", False, bool(back["muteAlert"])))
    return tuple(hooks)
