"""Rollouts that make no sense, each error with its place and what to write instead; and those that are hardly meant."""

import pytest

BASE = """
listeners: [{address: 127.0.0.1:8080}]
upstreams:
  - {name: a, endpoints: ["http://127.0.0.1:9001"]}
  - {name: b, endpoints: ["http://127.0.0.1:9003", "http://127.0.0.1:9002"]}
  - {name: c, endpoints: ["http://127.0.0.1:9004"]}
routes:
  - name: r
    rules: [{backendRefs: [{name: a}]}]
  - {name: s, hostnames: [s.x], rules: [{backendRefs: [{name: c}]}]}
alertProviders: [{name: chat, type: slack, address: "http://chat.x/hook"}]
metricTemplates:
  - {name: t, provider: {type: prometheus, address: "http://p.x:9090"}, query: 'up{z="{{ variables.zone }}"}'}
"""
METRICS = "metrics: [{name: request-success-rate, thresholdRange: {min: 99}}]"
ROLLOUT = "rollouts[0]"
ANALYSIS = "rollouts[0].analysis"


def rollout(text="", analysis="stepWeight: 10, " + METRICS):
    """Return a good file with one rollout, given as parts of flow mappings."""
    whole = f", analysis: {{{analysis}}}" if analysis else ""
    more = f", {text}" if text else ""
    return f"{BASE}rollouts:\n  - {{name: o, route: r, primary: a, canary: b{whole}{more}}}"


def analysing(text):
    return rollout(analysis=text)


def measuring(text):
    return rollout(analysis=f"stepWeight: 10, metrics: [{text}]")


# --- errors ----------------------------------------------------------------------------------------------------------
GATE = "name: g, type: confirm-rollout"
AFFINITY = "stepWeight: 10, " + METRICS + ", sessionAffinity: "
CASES = [
    # names
    (rollout().replace("route: r", "route: «q"), f"{ROLLOUT}.route", "there is no route 'q'", ""),
    (rollout().replace("primary: a", "primary: «aa"), f"{ROLLOUT}.primary", "no upstream 'aa'", "did you mean 'a'?"),
    (rollout().replace("canary: b", "canary: «bb"), f"{ROLLOUT}.canary", "no upstream 'bb'", ""),
    (rollout().replace("canary: b", "canary: «a"), f"{ROLLOUT}.canary", "'a' is the primary already", ""),
    (
        rollout().replace("primary: a, canary: b", "primary: «c, canary: b"),
        f"{ROLLOUT}.primary",
        "no rule of the route 'r' at routes[0]",
        "",
    ),
    (
        rollout() + "\n  - {name: «o, route: s, primary: c, canary: b, skipAnalysis: true}",
        "rollouts[1].name",
        "the rollout 'o' stands twice",
        "",
    ),
    (
        rollout() + "\n  - {name: p, route: «r, primary: a, canary: c, skipAnalysis: true}",
        "rollouts[1].route",
        "a rollout of the route 'r' stands twice",
        "",
    ),
    (
        rollout()
        .replace("alertProviders: [", "alertProviders: [{name: chat, type: slack, address: 'http://x'}, ")
        .replace("}, {name: chat", "}, {name: «chat"),
        "alertProviders[1].name",
        "the alertProvider 'chat' stands twice",
        "",
    ),
    (
        analysing("stepWeight: 1, alerts: [{name: x, providerRef: {name: «chta}}]"),
        f"{ANALYSIS}.alerts[0].providerRef.name",
        "there is no alertProvider 'chta'",
        "did you mean 'chat'?",
    ),
    (
        analysing(
            "stepWeight: 1, alerts: [{name: x, providerRef: {name: chat}}, {name: «x, providerRef: {name: chat}}]"
        ),
        f"{ANALYSIS}.alerts[1].name",
        "the alert 'x' stands twice",
        "",
    ),
    # the rollout
    (rollout("revision: «2.10"), f"{ROLLOUT}.revision", "YAML reads 2.10 as a number", 'write "2.10"'),
    (rollout("revision: «''"), f"{ROLLOUT}.revision", "1 to 256 characters", "leave the key out"),
    (rollout("revision: «~"), f"{ROLLOUT}.revision", "null is not a value here", ""),
    (
        rollout(analysis="").replace("- {name: o", "- «{name: o"),
        f"{ROLLOUT}.analysis",
        "the key 'analysis' is missing",
        "skipAnalysis",
    ),
    (rollout("«progressDeadlineSeconds: 60"), f"{ROLLOUT}.progressDeadlineSeconds", "unknown key", "a unit: 600s"),
    (rollout("«suspend: true"), f"{ROLLOUT}.suspend", "unknown key", "splitproxy pause"),
    (rollout("progressDeadline: «600"), f"{ROLLOUT}.progressDeadline", "a duration such as", "write 600s"),
    (rollout("promotion: {mode: «handback}"), f"{ROLLOUT}.promotion.mode", "swap or handBack is wanted", "'handBack'"),
    (rollout("rollback: {tunnels: «cut}"), f"{ROLLOUT}.rollback.tunnels", "keep or close is wanted, not 'cut'", ""),
    (rollout("rollback: {«tunnel: close}"), f"{ROLLOUT}.rollback.tunnel", "unknown key", "tunnels"),
    (rollout("promotion: «{mode: handBack}"), f"{ROLLOUT}.promotion.webhook", "handBack needs a webhook", ""),
    (
        rollout("promotion: {«webhook: {url: 'http://x'}}"),
        f"{ROLLOUT}.promotion.webhook",
        "webhook means nothing with mode swap",
        "mode: handBack",
    ),
    (
        rollout("promotion: {mode: handBack, webhook: {url: 'http://x', «type: event}}"),
        f"{ROLLOUT}.promotion.webhook.type",
        "unknown key 'type'",
        "",
    ),
    (
        rollout("promotion: {mode: handBack, webhook: {url: 'http://x'}, readiness: {path: «up}}"),
        f"{ROLLOUT}.promotion.readiness.path",
        "a path begins with '/'",
        "write '/up'",
    ),
    # windows
    (rollout("allowedWindows: [«09:00-17:00]"), f"{ROLLOUT}.allowedWindows[0]", "a span such as", "say whose time"),
    (
        rollout("allowedWindows: [«mon-fri 9-17 UTC]"),
        f"{ROLLOUT}.allowedWindows[0]",
        "a span such as mon-fri 09:00-17:00 Europe/Berlin is wanted",
        "",
    ),
    (rollout("allowedWindows: [«mo 09:00-17:00 UTC]"), f"{ROLLOUT}.allowedWindows[0]", "not 'mo'", "mon to sun"),
    (rollout("allowedWindows: [«mon- 09:00-17:00 UTC]"), f"{ROLLOUT}.allowedWindows[0]", "not 'mon-'", ""),
    (rollout("allowedWindows: [«09:00-24:01 UTC]"), f"{ROLLOUT}.allowedWindows[0]", "not '24:01'", ""),
    (rollout("allowedWindows: [«24:00-09:00 UTC]"), f"{ROLLOUT}.allowedWindows[0]", "a day begins at 00:00", ""),
    (
        rollout("allowedWindows: [«09:00-09:00 UTC]"),
        f"{ROLLOUT}.allowedWindows[0]",
        "ends where it begins",
        "00:00-24:00",
    ),
    (
        rollout("allowedWindows: [«09:00-17:00 Europe/Berln]"),
        f"{ROLLOUT}.allowedWindows[0]",
        "there is no time zone 'Europe/Berln'",
        "Europe/Berlin or UTC",
    ),
    (rollout("allowedWindows: [«09:00-17:00 ../etc]"), f"{ROLLOUT}.allowedWindows[0]", "a span such as", ""),
    (rollout("allowedWindows: [«09:00-17:00 Europe]"), f"{ROLLOUT}.allowedWindows[0]", "no time zone 'Europe'", ""),
    # pace
    (
        rollout().replace("analysis: {stepWeight: 10, ", "«analysis: {"),
        ANALYSIS,
        "it is not said how",
        "give stepWeight",
    ),
    (
        rollout(analysis=f"match: [{{headers: {{x: {{exact: y}}}}}}], {METRICS}").replace("analysis", "«analysis"),
        ANALYSIS,
        "it is not said how",
        "give iterations",
    ),
    (
        analysing("stepWeight: 1, «stepWeights: [1, 2]"),
        f"{ANALYSIS}.stepWeights",
        "stepWeight and stepWeights are two ways",
        "keep one",
    ),
    (
        analysing("stepWeights: [1], «steps: [{pause: {}}]"),
        f"{ANALYSIS}.steps",
        "stepWeights and steps are two ways",
        "",
    ),
    (
        analysing("stepWeight: 1, «iterations: 1, mirror: true"),
        f"{ANALYSIS}.iterations",
        "iterations beside stepWeight",
        "a match to try first",
    ),
    (
        analysing("rings: [{match: [{headers: {x: {exact: y}}}]}], «iterations: 1"),
        f"{ANALYSIS}.iterations",
        "iterations beside rings",
        "a ring has iterations of its own",
    ),
    (
        analysing(
            "rings: [{match: [{headers: {x: {exact: y}}}]}], «match: [{headers: {x: {exact: y}}}], stepWeight: 1"
        ),
        f"{ANALYSIS}.match",
        "match is a ring too",
        "",
    ),
    (
        analysing("rings: «[" + ", ".join(["{match: [{headers: {x: {exact: y}}}]}"] * 128) + "]"),
        f"{ANALYSIS}.rings",
        "there are 128 rings, at most 127 are possible",
        "",
    ),
    (analysing("interval: «500ms, stepWeight: 1"), f"{ANALYSIS}.interval", "at least 1s is wanted", ""),
    (analysing("interval: «10, stepWeight: 1"), f"{ANALYSIS}.interval", "a duration such as", "write 10s"),
    (analysing("threshold: «-1, stepWeight: 1"), f"{ANALYSIS}.threshold", "a whole number from 0", ""),
    (analysing("stepWeight: «101"), f"{ANALYSIS}.stepWeight", "from 0 to 100", ""),
    (analysing("stepWeight: 20, maxWeight: «10"), f"{ANALYSIS}.maxWeight", "the first step of 20 %", ""),
    (analysing("stepWeights: [10, «10, 20]"), f"{ANALYSIS}.stepWeights[1]", "10 is not above 10", ""),
    (analysing("stepWeights: [50, «20, 60]"), f"{ANALYSIS}.stepWeights[1]", "20 is not above 50", ""),
    (analysing("stepWeights: [«0, 20]"), f"{ANALYSIS}.stepWeights[0]", "0 is not above 0", "begins at 0"),
    (analysing("stepWeights: [1, «150]"), f"{ANALYSIS}.stepWeights[1]", "from 0 to 100", ""),
    (
        analysing("steps: [{setWeight: 5}, {pause: {}}, {setWeight: «5}]"),
        f"{ANALYSIS}.steps[2].setWeight",
        "5 is not above 5",
        "",
    ),
    (analysing("steps: [«{}]"), f"{ANALYSIS}.steps[0]", "a step does something", "give setWeight"),
    (analysing("steps: [«{iterations: 2}]"), f"{ANALYSIS}.steps[0]", "a step does something", ""),
    (
        analysing("steps: [{pause: {duration: «0s}}]"),
        f"{ANALYSIS}.steps[0].pause.duration",
        "at least 1ms is wanted",
        "",
    ),
    (
        analysing(
            "steps: [{setWeight: 5, metrics: [{name: «request-sucess-rate, thresholdRange: {min: 1}}]}], " + METRICS
        ),
        f"{ANALYSIS}.steps[0].metrics[0].name",
        "the analysis has no metric",
        "did you mean 'request-success-rate'?",
    ),
    # cohorts
    (analysing("iterations: 1, match: [«{}]"), f"{ANALYSIS}.match[0]", "this takes every request", ""),
    (
        analysing("iterations: 1, match: [{headers: {x: «{exact: a, regex: b}}}]"),
        f"{ANALYSIS}.match[0].headers.x",
        "exactly one of exact, prefix, suffix and regex",
        "",
    ),
    (
        analysing("iterations: 1, match: [{headers: {x: {regex: «'(?=a)'}}}]"),
        f"{ANALYSIS}.match[0].headers.x.regex",
        "not a usable regular expression",
        "no look-around",
    ),
    (
        analysing("iterations: 1, match: [{headers: {x: {«exct: a}}}]"),
        f"{ANALYSIS}.match[0].headers.x.exct",
        "unknown key 'exct'",
        "did you mean 'exact'?",
    ),
    (
        analysing("iterations: 1, match: [{headers: «[]}]"),
        f"{ANALYSIS}.match[0].headers",
        "a mapping of keys and values is wanted, not a list",
        "",
    ),
    # metrics
    (
        measuring("{name: «request-sucess-rate, thresholdRange: {min: 1}}"),
        f"{ANALYSIS}.metrics[0].name",
        "the proxy itself does not measure",
        "did you mean 'request-success-rate'?",
    ),
    (
        measuring("{name: «checkout, thresholdRange: {min: 1}}"),
        f"{ANALYSIS}.metrics[0].name",
        "the proxy itself does not measure 'checkout'",
        "name a metricTemplate",
    ),
    (
        measuring("{name: request-rate, «query: up, thresholdRange: {min: 1}}"),
        f"{ANALYSIS}.metrics[0].query",
        "unknown key 'query'",
        "make it a metricTemplate",
    ),
    (
        measuring("{name: x, templateRef: {name: «tt}, thresholdRange: {min: 1}}"),
        f"{ANALYSIS}.metrics[0].templateRef.name",
        "there is no metricTemplate 'tt'",
        "did you mean 't'?",
    ),
    (
        measuring("{name: x, templateRef: «{name: t}, thresholdRange: {min: 1}}"),
        f"{ANALYSIS}.metrics[0].templateRef",
        "wants the variable 'zone'",
        "give templateVariables",
    ),
    (
        measuring("{name: x, templateRef: {name: t}, templateVariables: {zone: e, «zoe: e}, thresholdRange: {min: 1}}"),
        f"{ANALYSIS}.metrics[0].templateVariables.zoe",
        "has no variable 'zoe'",
        "'zone'",
    ),
    (
        measuring("{name: request-rate, «templateVariables: {a: b}, thresholdRange: {min: 1}}"),
        f"{ANALYSIS}.metrics[0].templateVariables",
        "mean nothing without templateRef",
        "",
    ),
    (
        measuring("«{name: request-rate}"),
        f"{ANALYSIS}.metrics[0].thresholdRange",
        "nothing this metric says could fail a check",
        "",
    ),
    (
        measuring("{name: request-rate, thresholdRange: «{}}"),
        f"{ANALYSIS}.metrics[0].thresholdRange",
        "a range has a min, a max or both",
        "",
    ),
    (
        measuring("{name: request-rate, thresholdRange: «{min: 2, max: 1}}"),
        f"{ANALYSIS}.metrics[0].thresholdRange",
        "the min 2 is above the max 1",
        "",
    ),
    (
        measuring("{name: request-success-rate, thresholdRange: {min: «9900}}"),
        f"{ANALYSIS}.metrics[0].thresholdRange.min",
        "a percentage, from 0 to 100: 9900 is no limit",
        "",
    ),
    (
        measuring("{name: request-duration, thresholdRange: {max: «-5}}"),
        f"{ANALYSIS}.metrics[0].thresholdRange.max",
        "never below 0: -5 is no limit",
        "",
    ),
    (
        measuring("{name: request-duration, thresholdRange: {max: 500}, hardRange: {max: «100}}"),
        f"{ANALYSIS}.metrics[0].hardRange.max",
        "100 is reached before 500",
        "",
    ),
    (
        measuring("{name: request-success-rate, thresholdRange: {min: 90}, hardRange: {min: «95}}"),
        f"{ANALYSIS}.metrics[0].hardRange.min",
        "95 is reached before 90",
        "",
    ),
    (
        measuring("{name: request-rate, thresholdRange: {max: «many}}"),
        f"{ANALYSIS}.metrics[0].thresholdRange.max",
        "a number is wanted, not the text 'many'",
        "",
    ),
    (
        measuring("{name: request-duration, quantile: «99, thresholdRange: {max: 5}}"),
        f"{ANALYSIS}.metrics[0].quantile",
        "a number between 0 and 1 is wanted, not 99",
        "write 0.99",
    ),
    (
        measuring("{name: request-rate, «quantile: 0.5, thresholdRange: {max: 5}}"),
        f"{ANALYSIS}.metrics[0].quantile",
        "only a request-duration has a quantile",
        "",
    ),
    (
        measuring("{name: request-rate, failureLimit: «0, thresholdRange: {max: 5}}"),
        f"{ANALYSIS}.metrics[0].failureLimit",
        "a whole number from 1",
        "",
    ),
    (
        measuring("{name: request-rate, thresholdRange: {max: 5}}, {name: «request-rate, thresholdRange: {max: 5}}"),
        f"{ANALYSIS}.metrics[1].name",
        "the metric 'request-rate' stands twice",
        "",
    ),
    # templates
    (
        rollout().replace("query: 'up{z=\"{{ variables.zone }}\"}'", "query: «'{{ ingress }}'"),
        "metricTemplates[0].query",
        "'ingress' means nothing outside Kubernetes",
        "",
    ),
    (
        rollout().replace("query: 'up{z=\"{{ variables.zone }}\"}'", "query: «'{{ nmae }}'"),
        "metricTemplates[0].query",
        "'nmae' is unknown",
        "",
    ),
    (
        rollout().replace(", query: 'up{z=\"{{ variables.zone }}\"}'", "").replace("- {name: t", "- «{name: t"),
        "metricTemplates[0].query",
        "Prometheus is asked nothing",
        "",
    ),
    (
        rollout().replace("type: prometheus", "type: «datadog"),
        "metricTemplates[0].provider.type",
        "prometheus or web is wanted, not 'datadog'",
        "",
    ),
    (
        rollout().replace("type: prometheus", "type: prometheus, «jsonPath: $.a"),
        "metricTemplates[0].provider.jsonPath",
        "unknown key 'jsonPath'",
        "",
    ),
    (
        rollout().replace("type: prometheus", "type: web, jsonPath: «'$.a['"),
        "metricTemplates[0].provider.jsonPath",
        "not a path of a JSON document",
        "",
    ),
    (
        rollout().replace("provider: {type", "provider: «{username: u, type"),
        "metricTemplates[0].provider",
        "username and password go together",
        "",
    ),
    (
        rollout()
        .replace("http://p.x:9090", "http://u:p@p.x:9090")
        .replace('address: "http://u', 'address: «"http://u'),
        "metricTemplates[0].provider.address",
        "a URL has no user name or password here",
        "",
    ),
    # webhooks
    (
        analysing("stepWeight: 1, webhooks: [{name: g, type: «confirm-rolout, url: 'http://x'}]"),
        f"{ANALYSIS}.webhooks[0].type",
        "confirm-rollout, pre-rollout, rollout",
        "did you mean 'confirm-rollout'?",
    ),
    (
        analysing("stepWeight: 1, webhooks: [«{name: g, type: rollback}]"),
        f"{ANALYSIS}.webhooks[0].url",
        "a rollback webhook needs a url",
        "only a confirm- gate",
    ),
    (
        analysing(f"stepWeight: 1, webhooks: [{{{GATE}}}, {{{GATE.replace('name: g', 'name: «g')}}}]"),
        f"{ANALYSIS}.webhooks[1].name",
        "the confirm-rollout webhook 'g' stands twice",
        "",
    ),
    (
        analysing(f"stepWeight: 1, webhooks: [{{{GATE}, url: «'x.y:80/z'}}]"),
        f"{ANALYSIS}.webhooks[0].url",
        "a URL such as",
        "write 'http://x.y:80/z'",
    ),
    (
        analysing(f"stepWeight: 1, webhooks: [{{{GATE}, url: «'http://[x'}}]"),
        f"{ANALYSIS}.webhooks[0].url",
        "a URL such as",
        "",
    ),
    (
        analysing(f"stepWeight: 1, webhooks: [{{{GATE}, timeout: «0s}}]"),
        f"{ANALYSIS}.webhooks[0].timeout",
        "at least 100ms is wanted",
        "",
    ),
    (
        analysing(f"stepWeight: 1, webhooks: [{{{GATE}, metadata: {{n: «5}}}}]"),
        f"{ANALYSIS}.webhooks[0].metadata.n",
        "YAML reads 5 as a number",
        'write "5"',
    ),
    (
        analysing(f"stepWeight: 1, webhooks: [{{{GATE}, headers: {{Content-Length: «'5'}}}}]"),
        f"{ANALYSIS}.webhooks[0].headers.Content-Length",
        "'Content-Length' is written by the proxy itself",
        "",
    ),
    (
        analysing(f"stepWeight: 1, webhooks: [{{{GATE}, headers: {{x: {{«fle: y}}}}}}]"),
        f"{ANALYSIS}.webhooks[0].headers.x.fle",
        "unknown key 'fle'",
        "did you mean 'file'?",
    ),
    (
        analysing(f"stepWeight: 1, webhooks: [{{{GATE}, secret: {{file: «nowhere}}}}]"),
        f"{ANALYSIS}.webhooks[0].secret.file",
        "there is no such file",
        "",
    ),
    # affinity
    (
        analysing(AFFINITY + "«{cookieName: a, primaryCookieName: a}"),
        f"{ANALYSIS}.sessionAffinity",
        "cookieName and primaryCookieName are the same",
        "",
    ),
    (analysing(AFFINITY + "«{maxAge: 60}"), f"{ANALYSIS}.sessionAffinity.cookieName", "'cookieName' is missing", ""),
    (
        analysing(AFFINITY + "{cookieName: a, maxAge: «1500ms}"),
        f"{ANALYSIS}.sessionAffinity.maxAge",
        "whole seconds",
        "",
    ),
    (
        analysing(AFFINITY + "«{cookieName: a, sameSite: None, secure: false}"),
        f"{ANALYSIS}.sessionAffinity",
        "browsers refuse a cookie with sameSite: None",
        "",
    ),
    (
        analysing(AFFINITY + "{cookieName: «k}").replace("{name: a}]}]", "{name: a}], split: {key: {cookie: k}}}]"),
        f"{ANALYSIS}.sessionAffinity.cookieName",
        "the cookie 'k' is the key of the split at routes[0].rules[0].split.key.cookie",
        "",
    ),
    # others
    (analysing("stepWeight: 1, compare: {alpha: «2}"), f"{ANALYSIS}.compare.alpha", "a probability above 0", "0.02"),
    (analysing("stepWeight: 1, compare: «3"), f"{ANALYSIS}.compare", "a mapping of keys and values is wanted", ""),
    (BASE + "state: {path: «''}", "state.path", "the path of a file is wanted", ""),
    (BASE + "state: {path: «/var/lib/}", "state.path", "the path of a file is wanted", ""),
    (
        BASE.replace("type: slack", "type: «slak"),
        "alertProviders[0].type",
        "slack, msteams, discord, rocket, gchat or webhook is wanted",
        "did you mean 'slack'?",
    ),
]


@pytest.mark.parametrize(("text", "path", "message", "hint"), CASES)
def test_an_error_is_found_at_its_place(refuse, text, path, message, hint):
    before, _, _ = text.partition("«")
    problems = refuse(text.replace("«", ""))
    found = [problem for problem in problems if message in problem.message]
    assert found, "\n".join(map(str, problems))
    line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
    assert (found[0].line, found[0].column, found[0].path) == (line, column, path)
    assert hint in found[0].hint
    assert len(problems) == 1


def test_all_errors_of_all_rollouts_are_told_at_once(refuse):
    text = (
        rollout(analysis="stepWeights: [5, 1], metrics: [{name: x, thresholdRange: {max: 1}}, {name: request-rate}]")
        + "\n  - {name: p, route: r, primary: a, canary: a, analysis: {stepWeight: 1, steps: [{pause: {}}]}}"
        + "\n  - {name: q, route: s, primary: x, canary: b, skipAnalysis: maybe}"
    )
    assert {problem.path for problem in refuse(text)} == {
        "rollouts[0].analysis.stepWeights[1]",
        "rollouts[0].analysis.metrics[0].name",
        "rollouts[0].analysis.metrics[1].thresholdRange",
        "rollouts[1].route",
        "rollouts[1].canary",
        "rollouts[1].analysis.steps",
        "rollouts[2].primary",
        "rollouts[2].skipAnalysis",
    }


# --- warnings --------------------------------------------------------------------------------------------------------
def advice(load_text, text):
    return [(warning.path, warning.message) for warning in load_text(text).warnings]


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        (
            rollout().replace("[{name: a}]", "[{name: a, weight: 90}, {name: b, weight: 10}]"),
            "routes[0].rules[0].backendRefs[1]",
            "the rollout 'o' divides this between 'a' and 'b': weights in the file are the starting state only",
        ),
        (
            rollout().replace("[{name: a}]", "[{name: a, weight: 0}, {name: c}]"),
            "routes[0].rules[0].backendRefs[0]",
            "weights in the file are the starting state only",
        ),
        (analysing("iterations: 3, " + METRICS), f"{ANALYSIS}.iterations", "nothing sends the canary requests"),
        (
            analysing(f"stepWeight: 10, match: [{{headers: {{x: {{exact: y}}}}}}], {METRICS}"),
            f"{ANALYSIS}.match",
            "the weights are of all requests",
        ),
        (
            analysing("stepWeight: 10, primaryReadyThreshold: 50, " + METRICS),
            f"{ANALYSIS}.primaryReadyThreshold",
            "is ignored",
        ),
        (
            analysing("stepWeight: 10, canaryReadyThreshold: 50, " + METRICS),
            f"{ANALYSIS}.canaryReadyThreshold",
            "is ignored",
        ),
        (
            analysing("stepWeight: 10, mirrorWeight: 50, " + METRICS),
            f"{ANALYSIS}.mirrorWeight",
            "nothing is copied without",
        ),
        (
            analysing("stepWeights: [1, 10], maxWeight: 50, " + METRICS),
            f"{ANALYSIS}.maxWeight",
            "is ignored beside stepWeights",
        ),
        (
            analysing("stepWeight: 10, alerts: [{name: x, providerRef: {name: chat, namespace: n}}], " + METRICS),
            f"{ANALYSIS}.alerts[0].providerRef.namespace",
            "the namespace of a providerRef is ignored",
        ),
        (
            analysing("iterations: 1, match: [{sourceLabels: {app: x}}], " + METRICS),
            f"{ANALYSIS}.match[0].sourceLabels",
            "no request fits this",
        ),
        (
            analysing("iterations: 1, match: [{headers: {x: {exact: y}}, sourceLabels: {app: x}}], " + METRICS),
            f"{ANALYSIS}.match[0].sourceLabels",
            "the other conditions decide alone",
        ),
        (
            measuring("{name: request-success-rate, threshold: 99}"),
            f"{ANALYSIS}.metrics[0].threshold",
            "threshold is deprecated",
        ),
        (
            measuring("{name: request-success-rate, threshold: 99, thresholdRange: {min: 98}}"),
            f"{ANALYSIS}.metrics[0].threshold",
            "threshold is ignored beside thresholdRange",
        ),
        (
            analysing("stepWeight: 1, webhooks: [{name: x, url: 'http://x', disableTLS: true}]"),
            f"{ANALYSIS}.webhooks[0].disableTLS",
            "the check of certificates",
        ),
        (analysing("stepWeight: 10"), ANALYSIS, "so every check passes"),
        (
            analysing("stepWeight: 10, webhooks: [{name: x, type: event, url: 'http://x'}]"),
            ANALYSIS,
            "neither metrics nor webhooks that could say no",
        ),
        (
            rollout().replace("query: 'up{z=\"{{ variables.zone }}\"}'", "query: 'up{ns=\"{{ namespace }}\"}'"),
            "metricTemplates[0].query",
            "{{ namespace }} is empty",
        ),
        (
            rollout().replace("primary: a, canary: b", "primary: b, canary: a"),
            "routes[0].rules[0].backendRefs",
            "no rule of this route names 'b', the primary of the rollout 'o': it is added to those that name 'a'",
        ),
        (
            analysing(f"stepWeight: 10, dryRun: true, {METRICS}"),
            f"{ANALYSIS}.dryRun",
            "the proxy's own metrics have nothing to judge",
        ),
    ],
)
def test_what_is_hardly_meant_is_a_warning(load_text, text, path, message):
    ((found, said),) = advice(load_text, text)
    assert found == path
    assert message in said


STICKY = "stepWeight: 10, sessionAffinity: {cookieName: v}, " + METRICS


def test_a_cookie_that_two_rollouts_set_for_one_host_is_a_warning(load_text):
    second = "\n  - {name: p, route: s, primary: c, canary: b, analysis: {" + STICKY + "}}"
    text = analysing(STICKY) + second
    assert advice(load_text, text) == []
    found = advice(load_text, text.replace("name: r\n", "name: r\n    hostnames: [t.x, s.x]\n"))
    ((path, message),) = [(path, message) for path, message in found if "cookie" in message]
    assert path == "rollouts[1].analysis.sessionAffinity.cookieName"
    assert "rollouts[0].analysis.sessionAffinity.cookieName (line 16) sets the cookie 'v' for the same host" in message


@pytest.mark.parametrize(
    "text",
    [
        rollout(),
        rollout().replace("[{name: a}]", "[{name: a, weight: 5}, {name: b, weight: 0}]"),
        analysing(f"iterations: 3, mirror: true, {METRICS}"),
        analysing(f"iterations: 3, webhooks: [{{name: load, url: 'http://x'}}], {METRICS}"),
        analysing(f"iterations: 3, match: [{{headers: {{x: {{exact: y}}}}}}], stepWeight: 10, {METRICS}"),
        analysing(f"iterations: 3, {METRICS}").replace(
            "[{name: a}]", "[{name: a}], split: {overrides: [{header: x, value: y, upstream: b}]}"
        ),
        analysing(f"iterations: 3, {METRICS}").replace(
            "rules: [{", "rules: [{matches: [{path: {value: /test}}], backendRefs: [{name: b}]}, {"
        ),
        rollout("skipAnalysis: true", analysis="iterations: 3"),
        analysing("stepWeight: 10, webhooks: [{name: ask, type: confirm-promotion}]"),
        analysing(f"stepWeight: 10, dryRun: true, mirror: true, {METRICS}"),
        analysing(f"steps: [{{mirror: 10}}, {{setWeight: 10}}], dryRun: true, {METRICS}"),
        analysing(f"stepWeight: 10, dryRun: true, {METRICS}").replace(
            "rules: [{", "rules: [{matches: [{path: {value: /test}}], backendRefs: [{name: b}]}, {"
        ),
        analysing(
            "stepWeight: 10, dryRun: true, metrics: [{name: t, templateRef: {name: t}, "
            "templateVariables: {zone: x}, thresholdRange: {max: 1}}]"
        ),
    ],
)
def test_what_is_meant_is_no_warning(load_text, text):
    assert advice(load_text, text) == []
