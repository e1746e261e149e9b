"""What must hold within a rollout, and between it and the rest of the file. Errors only."""

from collections.abc import Iterator, Sequence
from typing import Final

from splitproxy.config.analysis import Analysis, Step
from splitproxy.config.checks import unique
from splitproxy.config.hooks import Webhook
from splitproxy.config.measuring import OWN_METRICS, Metric, MetricTemplate, PrometheusSource
from splitproxy.config.nodes import Findings, Path
from splitproxy.config.ownership import bounds, owned
from splitproxy.config.problems import clipped
from splitproxy.config.rollouts import Rollout
from splitproxy.config.root import Config
from splitproxy.config.routes import Rule
from splitproxy.config.walking import analyses
from splitproxy.core.live import MAX_COHORTS, SLOTS
from splitproxy.core.rollout.gates import WAITING
from splitproxy.core.templates import variables_of


def check_rollouts(config: Config, findings: Findings, *, whole: bool) -> None:
    """Report what is wrong with rollouts; not `whole`, some parts are left out for errors, and nothing is missed."""
    for index, template in enumerate(config.metric_templates):
        _template(("metricTemplates", index), template, findings)
    unique(
        "a rollout of the route", ((("rollouts", i, "route"), r.route) for i, r in enumerate(config.rollouts)), findings
    )
    if len(config.rollouts) > SLOTS:
        findings.add(("rollouts", SLOTS), f"there are {len(config.rollouts)} rollouts, at most {SLOTS} can run")
    places = {route.name: index for index, route in enumerate(config.routes)}
    for index, rollout in enumerate(config.rollouts):
        _rollout(("rollouts", index), rollout, findings)
        if whole:
            place = places[rollout.route]
            _ownership(("rollouts", index), rollout, place, config.routes[place].rules, findings)
    templates = {template.name: template for template in config.metric_templates}
    for path, analysis in analyses(config):
        _weights(path, analysis, findings)
        _copies((*path, "compare", "mirror"), analysis, config.rollouts[int(path[1])], findings)
        _metrics(path, analysis, templates, findings)
        _webhooks(path, analysis.webhooks, findings)
        unique("the alert", (((*path, "alerts", i, "name"), a.name) for i, a in enumerate(analysis.alerts)), findings)


# --- the rollout -----------------------------------------------------------------------------------------------------
def _rollout(path: Path, rollout: Rollout, findings: Findings) -> None:
    if rollout.primary == rollout.canary:
        findings.add((*path, "canary"), f"{clipped(rollout.canary)} is the primary already", "name another upstream")
    if rollout.analysis is None:
        if not rollout.skip_analysis:
            hint = "write how the canary is judged, or skipAnalysis: true"
            findings.add(path, "the key 'analysis' is missing", hint, missing="analysis")
    else:
        _pace((*path, "analysis"), rollout.analysis, rollout.skip_analysis, findings)
    promotion = rollout.promotion
    if promotion.mode == "handBack":
        if promotion.webhook is None:
            hint = "name who updates the primary: webhook: {url: …}"
            findings.add((*path, "promotion"), "handBack needs a webhook", hint, missing="webhook")
        return
    for key, given in (("webhook", promotion.webhook), ("readiness", promotion.readiness)):
        if given is not None:
            message = f"{key} means nothing with mode swap: nobody updates the primary"
            findings.add((*path, "promotion", key), message, "write mode: handBack, or leave it out", key=True)


def _ownership(path: Path, rollout: Rollout, place: int, rules: Sequence[Rule], findings: Findings) -> None:
    """Check the rules of the rollout's route, the one with the index `place`."""
    indexes = owned(rollout, rules)
    if not indexes:
        where = findings.place(("routes", place), path)
        upstreams = f"{clipped(rollout.primary)} or {clipped(rollout.canary)}"
        message = f"no rule of the route {clipped(rollout.route)} at {where} names {upstreams}"
        hint = "a rollout moves the traffic of rules whose backendRefs name its primary"
        findings.add((*path, "primary"), f"{message}, so this rollout moves nothing", hint)
    for index in indexes:
        _cookies(
            (*path, "analysis", "sessionAffinity"), ("routes", place, "rules", index), rollout, rules[index], findings
        )


def _cookies(path: Path, place: Path, rollout: Rollout, rule: Rule, findings: Findings) -> None:
    """Check that a cookie of the affinity is not the one that identifies clients to the split."""
    affinity = rollout.analysis.session_affinity if rollout.analysis is not None else None
    if affinity is None or rule.split.key is None or rule.split.key.cookie is None:
        return
    for key, name in (("cookieName", affinity.cookie_name), ("primaryCookieName", affinity.primary_cookie_name)):
        if name == rule.split.key.cookie:
            where = findings.place((*place, "split", "key", "cookie"), path)
            findings.add((*path, key), f"the cookie {clipped(name)} is the key of the split at {where} already")


def _copies(path: Path, analysis: Analysis, rollout: Rollout, findings: Findings) -> None:
    """Check that what copies are compared with can tell something."""
    mirror = analysis.compare.mirror
    if mirror.bodies == "act" and mirror.noise_twin is None:
        message = "without a noiseTwin nobody can say which differences are the canary's, so they are never acted upon"
        findings.add((*path, "bodies"), message, "name a noiseTwin, or write report")
    for side, name in (("primary", rollout.primary), ("canary", rollout.canary)):
        if mirror.noise_twin == name:
            message = f"{clipped(name)} is the {side}: the noise twin is another upstream with the primary's version"
            findings.add((*path, "noiseTwin"), message)


# --- pace ------------------------------------------------------------------------------------------------------------
_WAYS: Final = "stepWeight, stepWeights, steps, iterations or rings"


def _pace(path: Path, analysis: Analysis, skipped: bool, findings: Findings) -> None:
    """Check that it is said in one way how the canary is let in."""
    given = {"stepWeight": analysis.step_weight, "stepWeights": analysis.step_weights, "steps": analysis.steps}
    weights = [key for key, value in given.items() if value]
    cohorts = [key for key, value in (("match", analysis.match), ("rings", analysis.rings)) if value]
    for key in weights[1:]:
        message = f"{weights[0]} and {key} are two ways to say how the share grows"
        findings.add((*path, key), message, "keep one of them", key=True)
    if len(analysis.rings) > MAX_COHORTS:
        findings.add((*path, "rings"), f"there are {len(analysis.rings)} rings, at most {MAX_COHORTS} are possible")
    if len(cohorts) == 2:
        findings.add((*path, "match"), "match is a ring too", "make it the first of the rings", key=True)
    if analysis.iterations and not analysis.match:
        beside = [*weights, *cohorts]
        if beside:
            message = f"iterations beside {beside[0]} would be two ways to let the canary in"
            hint = "a ring has iterations of its own" if cohorts else "keep one of them, or give a match to try first"
            findings.add((*path, "iterations"), message, hint, key=True)
    if not (weights or analysis.iterations or analysis.rings or skipped):
        hint = "give iterations: how many checks the cohort has to pass" if analysis.match else f"give {_WAYS}"
        findings.add(path, "it is not said how the canary is let in", hint, key=True)


def _weights(path: Path, analysis: Analysis, findings: Findings) -> None:
    _growth([((*path, "stepWeights", i), weight) for i, weight in enumerate(analysis.step_weights)], 0, findings)
    steps = [
        ((*path, "steps", i, "setWeight"), step.set_weight)
        for i, step in enumerate(analysis.steps)
        if step.set_weight is not None
    ]
    _growth(steps, -1, findings)
    if analysis.step_weight and 0 < analysis.max_weight < analysis.step_weight:
        message = f"the first step of {analysis.step_weight} % is already above the maxWeight {analysis.max_weight} %"
        findings.add((*path, "maxWeight"), message)
    for index, step in enumerate(analysis.steps):
        _step((*path, "steps", index), step, analysis, findings)


def _growth(weights: Sequence[tuple[Path, float]], floor: float, findings: Findings) -> None:
    for path, weight in weights:
        if weight <= floor:
            message = f"weights grow from step to step: {weight} is not above {max(floor, 0)}"
            findings.add(path, message, "" if floor > 0 else "the rollout begins at 0 by itself")
        floor = max(floor, weight)


def _step(path: Path, step: Step, analysis: Analysis, findings: Findings) -> None:
    known = [metric.name for metric in analysis.metrics]
    for index, metric in enumerate(step.metrics):
        if metric.name not in known:
            message = f"the analysis has no metric {clipped(metric.name)}"
            findings.add((*path, "metrics", index, "name"), message, findings.nearest(metric.name, known))
    names = (((*path, "metrics", index, "name"), metric.name) for index, metric in enumerate(step.metrics))
    unique("the metric", names, findings)


# --- measurements ----------------------------------------------------------------------------------------------------
def _metrics(path: Path, analysis: Analysis, templates: dict[str, MetricTemplate], findings: Findings) -> None:
    places = [((*path, "metrics", index), metric) for index, metric in enumerate(analysis.metrics)]
    unique("the metric", (((*place, "name"), metric.name) for place, metric in places), findings)
    for place, metric in places:
        _kind(place, metric, findings)
        _limits(place, metric, findings)
        template = templates.get(metric.template_ref.name) if metric.template_ref is not None else None
        if template is not None:
            _variables(place, metric, template, findings)


def _kind(path: Path, metric: Metric, findings: Findings) -> None:
    if metric.template_ref is None:
        if metric.name not in OWN_METRICS:
            near = findings.nearest(metric.name, OWN_METRICS)
            hint = near or "name a metricTemplate in templateRef"
            findings.add((*path, "name"), f"the proxy itself does not measure {clipped(metric.name)}", hint)
        if metric.template_variables:
            message = "templateVariables mean nothing without templateRef"
            findings.add((*path, "templateVariables"), message, key=True)
    if metric.quantile is not None and (metric.name != "request-duration" or metric.template_ref is not None):
        findings.add((*path, "quantile"), "only a request-duration has a quantile", "leave it out", key=True)


def _limits(path: Path, metric: Metric, findings: Findings) -> None:
    low, high = bounds(metric)
    if low is None and high is None and metric.hard_range is None:
        hint = "give a thresholdRange: {min: …} or {max: …}"
        findings.add(path, "nothing this metric says could fail a check", hint, missing="thresholdRange")
    if metric.template_ref is None:
        for place, value in _written_bounds(path, metric):
            _possible(place, metric.name, value, findings)
    hard = metric.hard_range
    if hard is None:
        return
    if hard.min is not None and low is not None and hard.min > low:
        findings.add((*path, "hardRange", "min"), f"{hard.min} is reached before {low}, which fails a check alone")
    if hard.max is not None and high is not None and hard.max < high:
        findings.add((*path, "hardRange", "max"), f"{hard.max} is reached before {high}, which fails a check alone")


def _written_bounds(path: Path, metric: Metric) -> Iterator[tuple[Path, float]]:
    for key, limits in (("thresholdRange", metric.threshold_range), ("hardRange", metric.hard_range)):
        if limits is not None:
            for bound, value in (("min", limits.min), ("max", limits.max)):
                if value is not None:
                    yield (*path, key, bound), value
    if metric.threshold is not None:
        yield (*path, "threshold"), metric.threshold


def _possible(path: Path, name: str, value: float, findings: Findings) -> None:
    if value < 0 or (name == "request-success-rate" and value > 100):
        wanted = "a percentage, from 0 to 100" if name == "request-success-rate" else "never below 0"
        findings.add(path, f"a {name} is {wanted}: {value} is no limit")


def _template(path: Path, template: MetricTemplate, findings: Findings) -> None:
    if isinstance(template.provider, PrometheusSource) and not template.query.strip():
        findings.add(path, "Prometheus is asked nothing", "write the PromQL as query", missing="query")
    try:
        variables_of(template.query)
    except ValueError as error:
        findings.add((*path, "query"), str(error))


def _variables(path: Path, metric: Metric, template: MetricTemplate, findings: Findings) -> None:
    """Check that every variable of the query has a value, and every value a place."""
    try:
        wanted = {name.removeprefix("variables.") for name in variables_of(template.query) if "." in name}
    except ValueError:
        return
    for name in sorted(wanted - metric.template_variables.keys()):
        message = f"the query of {clipped(template.name)} wants the variable {clipped(name)}"
        findings.add((*path, "templateRef"), message, f"give templateVariables: {{{name}: …}}")
    for name in metric.template_variables.keys() - wanted:
        message = f"the query of {clipped(template.name)} has no variable {clipped(name)}"
        findings.add((*path, "templateVariables", name), message, findings.nearest(name, wanted), key=True)


# --- webhooks --------------------------------------------------------------------------------------------------------
def _webhooks(path: Path, webhooks: Sequence[Webhook], findings: Findings) -> None:
    for kind in {webhook.type for webhook in webhooks}:
        names = (((*path, "webhooks", i, "name"), one.name) for i, one in enumerate(webhooks) if one.type == kind)
        unique(f"the {kind} webhook", names, findings)
    for index, webhook in enumerate(webhooks):
        if webhook.url is None and webhook.type not in WAITING:
            message = f"a {webhook.type} webhook needs a url"
            findings.add((*path, "webhooks", index), message, "only a confirm- gate may do without", missing="url")
