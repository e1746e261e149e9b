"""What a rollout is allowed but hardly meant to say: warnings."""

from collections.abc import Iterator

from splitproxy.config.analysis import Analysis
from splitproxy.config.nodes import Findings, Path
from splitproxy.config.ownership import cohorts, owned
from splitproxy.config.problems import clipped
from splitproxy.config.rollouts import Rollout
from splitproxy.config.root import Config
from splitproxy.config.routes import Rule
from splitproxy.config.walking import analyses


def advise_rollouts(config: Config, findings: Findings) -> None:
    """Report what is allowed but hardly meant."""
    rules = {route.name: (index, route.rules) for index, route in enumerate(config.routes)}
    for index, rollout in enumerate(config.rollouts):
        path: Path = ("rollouts", index)
        place, candidates = rules[rollout.route]
        for number in owned(rollout, candidates):
            _starting_state(("routes", place, "rules", number), candidates[number], rollout, findings)
        if rollout.analysis is None:
            continue
        for where, message, hint in _without_meaning(rollout.analysis):
            findings.add((*path, "analysis", *where), message, hint, key=True)
        _cohorts((*path, "analysis"), rollout.analysis, findings)
        if not rollout.skip_analysis:
            _nothing_to_judge((*path, "analysis"), rollout, candidates, findings)
    _shared_cookies(config, findings)


def _starting_state(path: Path, rule: Rule, rollout: Rollout, findings: Findings) -> None:
    """Warn of a rule whose weights say something else than the state a rollout begins in: all to the primary."""
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


def _nothing_to_judge(path: Path, rollout: Rollout, rules: tuple[Rule, ...], findings: Findings) -> None:
    """Warn of blue/green without any request for the canary before all traffic goes there."""
    analysis = rollout.analysis
    if analysis is None or not analysis.iterations or analysis.match or analysis.mirror:
        return
    if any(webhook.type in {"rollout", "pre-rollout"} for webhook in analysis.webhooks):
        return
    for rule in rules:
        names = {reference.name for reference in rule.backend_refs if reference.weight}
        overridden = any(override.upstream == rollout.canary for override in rule.split.overrides)
        if overridden or (rollout.canary in names and rollout.primary not in names):
            return
    message = "nothing sends the canary requests before all traffic does, so there is nothing to judge it by"
    hint = "add mirror: true, an override, a rule for testers, or a rollout webhook that makes load"
    findings.add((*path, "iterations"), message, hint, key=True)
