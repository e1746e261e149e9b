"""Rollouts in their plain form, and which rules belong to them.

A rollout owns every rule of its route whose backendRefs name its primary; a rule that names its canary alone is forced
traffic and belongs to nobody. Where no rule names the primary, as when the file has just adopted a promoted version, it
owns those that name the canary. Of the two, the one that an owned rule does not name is added to it.
"""

from collections.abc import Iterable
from hashlib import blake2b
from typing import Any, Final

from splitproxy.config.analysis import Analysis, CohortMatch, Step
from splitproxy.config.hooks import Call, Webhook
from splitproxy.config.measuring import OWN_METRICS, Metric
from splitproxy.config.rollouts import Rollout
from splitproxy.config.root import Config
from splitproxy.config.routes import Rule

Plain = dict[str, Any]

MIRROR: Final = {"maxBodyBytes": 1 << 20, "maxInFlight": 64, "timeout": 5.0, "allMethods": False}
"""Bounds of the copies that a rollout makes: those of a RequestMirror filter that says nothing about them."""
_EVERYTHING: Final = 100


def owned(rollout: Rollout, rules: Iterable[Rule]) -> list[int]:
    """Return the indexes of those `rules` of its route that belong to `rollout`."""
    named = [{ref.name for ref in rule.backend_refs} for rule in rules]
    found = [index for index, names in enumerate(named) if rollout.primary in names]
    return found or [index for index, names in enumerate(named) if rollout.canary in names]


def names(rule: Rule, upstream: str) -> bool:
    """Say whether the backendRefs of a rule name `upstream`."""
    return any(ref.name == upstream for ref in rule.backend_refs)


def cohorts(analysis: Analysis) -> list[tuple[CohortMatch, ...]]:
    """Return the cohorts in the order in which they are let in."""
    return [analysis.match] if analysis.match else [ring.match for ring in analysis.rings]


def complete_rollouts(tree: Plain, config: Config) -> None:
    """Bring the rollouts of `tree`, the dump of `config`, into their plain form; tell rules their owners."""
    if not config.rollouts:
        return
    endpoints = {upstream.name: sorted(item.url for item in upstream.endpoints) for upstream in config.upstreams}
    places = {route.name: index for index, route in enumerate(config.routes)}
    for plain, spec in zip(tree["rollouts"], config.rollouts, strict=True):
        place = places[spec.route]
        identity = _digest("\n".join(endpoints[spec.canary]))
        plain["identity"] = identity
        plain["liveKey"] = _digest("\0".join((spec.name, spec.primary, spec.canary, spec.revision or identity)))
        _promotion(plain, spec)
        _analysis(plain, spec.analysis or Analysis())
        rules = [tree["routes"][place]["rules"][index] for index in owned(spec, config.routes[place].rules)]
        plain["rules"] = [rule["name"] for rule in rules]
        for rule in rules:
            _own(rule, plain)


def _digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=16).hexdigest()


def _own(rule: Plain, rollout: Plain) -> None:
    rule["rollout"] = {
        "name": rollout["name"],
        "live": rollout["liveKey"],
        "primary": rollout["primary"],
        "canary": rollout["canary"],
        "cohorts": rollout["analysis"]["cohorts"],
        "affinity": rollout["analysis"]["sessionAffinity"],
        "mirror": MIRROR | {"compare": _paired(rollout["analysis"]["compare"])},
        "tunnels": rollout["rollback"]["tunnels"],
    }
    named = {reference["name"] for reference in rule["backendRefs"]}
    absent = [rollout[side] for side in ("primary", "canary") if rollout[side] not in named]
    # They share what the file gives to both, so an added one needs no weight of its own.
    added = [{"name": upstream, "weight": 0, "filters": []} for upstream in absent]
    rule["backendRefs"] = [*rule["backendRefs"], *added]


def _paired(compare: Plain) -> Plain | None:
    """Return how the answers to a rollout's copies are compared; None: they are not."""
    if not compare["enabled"]:
        return None
    return {**compare["mirror"], **{key: compare["tolerate"][key] for key in ("latency", "delay")}}


# --- the parts of a rollout ------------------------------------------------------------------------------------------
def _promotion(plain: Plain, spec: Rollout) -> None:
    promotion, webhook = plain["promotion"], spec.promotion.webhook
    if webhook is not None:
        promotion["webhook"] = _hook(promotion["webhook"], webhook)
    promotion["readiness"] = promotion["readiness"] or {"path": None}


def _hook(plain: Plain, spec: Call) -> Plain:
    kind = spec.type if isinstance(spec, Webhook) else "hand-back"
    rest = {key: value for key, value in plain.items() if key not in {"disableTLS", "type"}}
    return {**rest, "type": kind, "insecureSkipVerify": spec.insecure_skip_verify or spec.disable_tls}


def _analysis(rollout: Plain, spec: Analysis) -> None:
    plain: Plain = rollout["analysis"] or spec.model_dump(by_alias=True, mode="json")
    compiled = [[match.plain for match in cohort if not match.empty] for cohort in cohorts(spec)]
    checks = [spec.iterations] if spec.match else [ring.iterations for ring in spec.rings]
    for key in ("rings", "primaryReadyThreshold", "canaryReadyThreshold"):
        del plain[key]
    plain |= {
        "threshold": spec.threshold or 1,
        "maxWeight": spec.max_weight or _EVERYTHING,
        "mirrorWeight": spec.mirror_weight or _EVERYTHING,
        "match": compiled[0] if spec.match else [],
        "cohorts": compiled,
        "ringIterations": checks,
        **_tolerance(plain, {"minRequests": 1, "noData": "hold", "consecutiveErrorLimit": 4}),
    }
    plain["steps"] = [_step(step, one) for step, one in zip(plain["steps"], spec.steps, strict=True)]
    plain["metrics"] = [_metric(metric, one, plain) for metric, one in zip(plain["metrics"], spec.metrics, strict=True)]
    plain["webhooks"] = [_hook(hook, one) for hook, one in zip(plain["webhooks"], spec.webhooks, strict=True)]
    plain["alerts"] = [
        {"name": alert.name, "severity": alert.severity or "info", "provider": alert.provider_ref.name}
        for alert in spec.alerts
    ]
    affinity = plain["sessionAffinity"]
    if affinity is not None:
        needs_tls = affinity["sameSite"] == "None" or affinity["partitioned"]  # browsers refuse it elsewhere
        affinity |= {
            "maxAge": affinity["maxAge"] or 86400,
            "domain": affinity["domain"] or "",
            "secure": True if needs_tls else affinity["secure"],
        }
    rollout["analysis"] = plain


_TOLERANCE: Final = ("minRequests", "noData", "failureLimit", "consecutiveErrorLimit", "inconclusiveLimit")


def _tolerance(plain: Plain, otherwise: Plain) -> Plain:
    """Return what is tolerated, from `otherwise` where `plain` does not say."""
    return {key: otherwise.get(key) if plain[key] is None else plain[key] for key in _TOLERANCE}


def _step(plain: Plain, spec: Step) -> Plain:
    limits = [
        {"name": one.name, "min": one.threshold_range.min, "max": one.threshold_range.max} for one in spec.metrics
    ]
    pause = None if spec.pause is None else spec.pause.duration or 0
    return {**plain, "pause": pause, "metrics": limits}


def bounds(metric: Metric) -> tuple[float | None, float | None]:
    """Return the least and the greatest good value of a metric."""
    if metric.threshold_range is not None:
        return metric.threshold_range.min, metric.threshold_range.max
    if metric.threshold is None:
        return None, None
    return (metric.threshold, None) if metric.name == OWN_METRICS[0] else (None, metric.threshold)


def _metric(plain: Plain, spec: Metric, analysis: Plain) -> Plain:
    low, high = bounds(spec)
    hard = spec.hard_range
    return {
        "name": spec.name,
        "kind": spec.name if spec.template_ref is None else "template",
        "min": low,
        "max": high,
        "hardMin": None if hard is None else hard.min,
        "hardMax": None if hard is None else hard.max,
        "interval": spec.interval,
        "quantile": 0.99 if spec.quantile is None else spec.quantile,
        **_tolerance(plain, analysis),
        "template": "" if spec.template_ref is None else spec.template_ref.name,
        "variables": dict(spec.template_variables),
    }
