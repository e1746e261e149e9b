"""What a rollout is allowed but hardly meant to say: warnings."""

from collections.abc import Iterator

from splitproxy.config.analysis import Analysis
from splitproxy.config.nodes import Findings, Path
from splitproxy.config.ownership import cohorts, names, owned
from splitproxy.config.problems import clipped
from splitproxy.config.rollouts import Rollout
from splitproxy.config.root import Config
from splitproxy.config.routes import Rule
from splitproxy.config.walking import analyses
from splitproxy.core.templates import variables_of


def advise_rollouts(config: Config, findings: Findings) -> None:
    """Report what is allowed but hardly meant."""
    rules = {route.name: (index, route.rules) for index, route in enumerate(config.routes)}
    for index, template in enumerate(config.metric_templates):
        if "namespace" in variables_of(template.query):
            text = f"{{{{ namespace }}}} is empty: {_KUBERNETES}"
            findings.add(("metricTemplates", index, "query"), text, "write the value itself")
    for index, rollout in enumerate(config.rollouts):
        path: Path = ("rollouts", index)
        place, candidates = rules[rollout.route]
        for number in owned(rollout, candidates):
            _ownership(("routes", place, "rules", number), candidates[number], rollout, findings)
        if rollout.analysis is None:
            continue
        for where, message, hint in _without_meaning(rollout.analysis):
            findings.add((*path, "analysis", *where), message, hint, key=True)
        _cohorts((*path, "analysis"), rollout.analysis, findings)
        if not rollout.skip_analysis:
            _nothing_to_judge((*path, "analysis"), rollout.analysis, rollout, candidates, findings)
    _shared_cookies(config, findings)


def _ownership(path: Path, rule: Rule, rollout: Rollout, findings: Findings) -> None:
    """Warn of a rule that says something else than the state a rollout begins in: all to the primary."""
    if not names(rule, rollout.primary):
        primary, other = clipped(rollout.primary), clipped(rollout.canary)
        message = f"no rule of this route names {primary}, the primary of the rollout {clipped(rollout.name)}"
        message = f"{message}: it is added to those that name {other}, and has their traffic"
        findings.add((*path, "backendRefs"), message, f"name {primary} instead of {other}", key=True)
        return
    for index, reference in enumerate(rule.backend_refs):
        canary = reference.name == rollout.canary and reference.weight
        if canary or (reference.name == rollout.primary and not reference.weight):
            message = (
                f"the rollout {clipped(rollout.name)} divides this between {clipped(rollout.primary)} and "
                f"{clipped(rollout.canary)}: weights in the file are the starting state only"
            )
            findings.add((*path, "backendRefs", index), message, "give the canary the weight 0, or leave it out")
            return


def _shared_cookies(config: Config, findings: Findings) -> None:
    """Warn of a cookie that two rollouts set for the same host: each would take away the other's."""
    hosts = {route.name: route.hostnames or ("",) for route in config.routes}
    first: dict[tuple[str, str], Path] = {}
    for path, analysis in analyses(config):
        affinity, rollout = analysis.session_affinity, config.rollouts[int(path[1])]
        if affinity is None:
            continue
        place: Path = (*path, "sessionAffinity", "cookieName")
        for host in hosts[rollout.route]:
            earlier = first.setdefault((host, affinity.cookie_name), place)
            if earlier is not place:
                message = f"{findings.place(earlier, place)} sets the cookie {clipped(affinity.cookie_name)}"
                findings.add(place, f"{message} for the same host: clients would lose one or the other", "rename one")
                break


# --- keys that mean nothing here -------------------------------------------------------------------------------------
_KUBERNETES = "it means nothing outside Kubernetes"
Remark = tuple[Path, str, str]


def _without_meaning(analysis: Analysis) -> Iterator[Remark]:
    """Yield keys that have no effect, by their place in the analysis, with what to say and what to write instead."""
    for key, given in (
        ("primaryReadyThreshold", analysis.primary_ready_threshold),
        ("canaryReadyThreshold", analysis.canary_ready_threshold),
    ):
        if given is not None:
            yield (key,), f"{key} is ignored: {_KUBERNETES}", "leave it out"
    yield from _namespaces(analysis)
    yield from _labels(analysis)
    yield from _old_names(analysis)
    if analysis.mirror_weight and not analysis.mirror:
        yield ("mirrorWeight",), "nothing is copied without mirror: true", "write mirror: true, or leave it out"
    if "mirror" in analysis.compare.model_fields_set and not (
        analysis.mirror or any(step.mirror for step in analysis.steps)
    ):
        yield ("compare", "mirror"), "nothing is copied, so nothing is compared", "write mirror: true, or leave it out"
    if analysis.step_weights and "max_weight" in analysis.model_fields_set:
        yield (
            ("maxWeight",),
            "maxWeight is ignored beside stepWeights: the last of them is the greatest",
            "leave it out",
        )


def _namespaces(analysis: Analysis) -> Iterator[Remark]:
    for index, metric in enumerate(analysis.metrics):
        if metric.template_ref is not None and metric.template_ref.namespace is not None:
            place: Path = ("metrics", index, "templateRef", "namespace")
            yield place, f"the namespace of a templateRef is ignored: {_KUBERNETES}", "leave it out"
    for index, alert in enumerate(analysis.alerts):
        if alert.provider_ref.namespace is not None:
            place = ("alerts", index, "providerRef", "namespace")
            yield place, f"the namespace of a providerRef is ignored: {_KUBERNETES}", "leave it out"


def _labels(analysis: Analysis) -> Iterator[Remark]:
    places: list[Path] = [("match",)] if analysis.match else [("rings", i, "match") for i in range(len(analysis.rings))]
    for place, cohort in zip(places, cohorts(analysis), strict=True):
        for index, match in enumerate(cohort):
            if match.source_labels is not None:
                effect = "no request fits this" if match.empty else "the other conditions decide alone"
                yield (*place, index, "sourceLabels"), f"sourceLabels are ignored: {_KUBERNETES}; {effect}", ""


def _old_names(analysis: Analysis) -> Iterator[Remark]:
    for index, metric in enumerate(analysis.metrics):
        if metric.threshold is not None:
            bound = "min" if metric.name == "request-success-rate" else "max"
            hint = f"write thresholdRange: {{{bound}: {metric.threshold}}}"
            if metric.threshold_range is not None:
                yield ("metrics", index, "threshold"), "threshold is ignored beside thresholdRange", "leave it out"
            else:
                yield ("metrics", index, "threshold"), "threshold is deprecated", hint
    for index, webhook in enumerate(analysis.webhooks):
        if "disable_tls" in webhook.model_fields_set:
            message = "disableTLS switches off no TLS, but the check of certificates"
            yield ("webhooks", index, "disableTLS"), message, "write insecureSkipVerify"


# --- what the canary would be judged by ------------------------------------------------------------------------------
def _cohorts(path: Path, analysis: Analysis, findings: Findings) -> None:
    if analysis.match and not analysis.iterations:
        message = "the weights are of all requests, not of the cohort alone as in Flagger"
        hint = "give iterations to try the cohort alone first, or leave match out"
        findings.add((*path, "match"), message, hint, key=True)


def _nothing_to_judge(
    path: Path, analysis: Analysis, rollout: Rollout, rules: tuple[Rule, ...], findings: Findings
) -> None:
    """Warn of a canary that is let in unseen: nobody judges it, or there is nothing to judge it by."""
    if not analysis.metrics and all(webhook.type in _TOLD for webhook in analysis.webhooks):
        message = "it has neither metrics nor webhooks that could say no, so every check passes"
        findings.add(path, message, "give metrics, or a webhook that tests the canary", key=True)
        return
    own = any(metric.template_ref is None for metric in analysis.metrics)
    if analysis.mirror or any(step.mirror for step in analysis.steps) or _forced(rollout, rules):
        return
    if analysis.dry_run and own:
        message = "a dry run sends the canary no requests, so the proxy's own metrics have nothing to judge"
        hint = "add mirror: true, which harms nobody, an override, or a rule for testers"
        findings.add((*path, "dryRun"), message, hint, key=True)
    elif analysis.iterations and not analysis.match and not analysis.dry_run:
        if any(webhook.type in {"rollout", "pre-rollout"} for webhook in analysis.webhooks):
            return
        message = "nothing sends the canary requests before all traffic does, so there is nothing to judge it by"
        hint = "add mirror: true, an override, a rule for testers, or a rollout webhook that makes load"
        findings.add((*path, "iterations"), message, hint, key=True)


_TOLD = frozenset({"event", "post-rollout"})
"""Webhooks that cannot stop a rollout."""


def _forced(rollout: Rollout, rules: tuple[Rule, ...]) -> bool:
    """Say whether the canary gets requests whatever the rollout does."""
    ours = owned(rollout, rules)
    return any(
        any(override.upstream == rollout.canary for override in rule.split.overrides)
        or (index not in ours and any(ref.name == rollout.canary and ref.weight for ref in rule.backend_refs))
        for index, rule in enumerate(rules)
    )
