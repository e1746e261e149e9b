"""Rollouts in the file: their plain form, what they own, and what of them is hidden."""

from pathlib import Path

import pytest
import yaml

from splitproxy.config import load
from splitproxy.core.rollout.stages import compile_plan
from splitproxy.core.splitting import compile_split

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
ANALYSIS = "rollouts[0].analysis"
COMPARE = {
    "enabled": True,
    "alpha": 0.001,
    "beta": 0.05,
    "tolerate": {"errors": 1.1, "latency": 1.1, "delay": 0.005},
    "minBadEvents": 3,
    "warmup": 10.0,
    "pace": "interval",
    "minDwell": 5.0,
    "mirror": {
        "bodies": "ignore",
        "noiseTwin": None,
        "headers": ["content-type", "content-encoding", "cache-control", "location"],
        "ignore": [],
        "redact": [],
        "maxBodyBytes": 65536,
        "perSecond": 10,
        "examples": 5,
    },
}


def rollout(text="", analysis="stepWeight: 10, " + METRICS):
    """Return a good file with one rollout, given as parts of flow mappings."""
    whole = f", analysis: {{{analysis}}}" if analysis else ""
    more = f", {text}" if text else ""
    return f"{BASE}rollouts:\n  - {{name: o, route: r, primary: a, canary: b{whole}{more}}}"


def analysing(text):
    return rollout(analysis=text)


def measuring(text):
    return rollout(analysis=f"stepWeight: 10, metrics: [{text}]")


# --- the plain form --------------------------------------------------------------------------------------------------
def test_a_rollout_has_every_default_filled_in(load_text):
    (plain,) = load_text(
        analysing("stepWeight: 10, metrics: [{name: request-duration, thresholdRange: {max: 5}}]")
    ).plain["rollouts"]
    identity = plain["identity"]
    assert len(identity) == len(plain["liveKey"]) == 32
    assert plain == {
        "name": "o",
        "route": "r",
        "primary": "a",
        "canary": "b",
        "revision": None,
        "identity": identity,
        "liveKey": plain["liveKey"],
        "rules": ["0"],
        "skipAnalysis": False,
        "progressDeadline": 600.0,
        "allowedWindows": [],
        "promotion": {"mode": "swap", "bakeTime": 0.0, "webhook": None, "readiness": {"path": None}},
        "rollback": {"tunnels": "keep"},
        "analysis": {
            "interval": 60.0,
            "threshold": 1,
            "iterations": 0,
            "stepWeight": 10,
            "maxWeight": 100,
            "stepWeights": [],
            "steps": [],
            "stepWeightPromotion": 0,
            "mirror": False,
            "mirrorWeight": 100,
            "dryRun": False,
            "minRequests": 1,
            "noData": "hold",
            "compare": COMPARE,
            "failureLimit": None,
            "consecutiveErrorLimit": 4,
            "inconclusiveLimit": None,
            "match": [],
            "cohorts": [],
            "ringIterations": [],
            "metrics": [
                {
                    "name": "request-duration",
                    "kind": "request-duration",
                    "min": None,
                    "max": 5,
                    "hardMin": None,
                    "hardMax": None,
                    "interval": 0.0,
                    "quantile": 0.99,
                    "minRequests": 1,
                    "noData": "hold",
                    "failureLimit": None,
                    "consecutiveErrorLimit": 4,
                    "inconclusiveLimit": None,
                    "template": "",
                    "variables": {},
                }
            ],
            "webhooks": [],
            "alerts": [],
            "sessionAffinity": None,
        },
    }


WEBHOOK = {
    "name": "hand-back",
    "type": "hand-back",
    "url": "https://x.y/update",
    "timeout": 10.0,
    "retries": 0,
    "headers": {},
    "secret": None,
    "insecureSkipVerify": False,
    "muteAlert": False,
    "metadata": {},
}
HOOKS = (
    "stepWeight: 10, webhooks: [{name: load test, url: 'http://x.y/', timeout: 500ms, retries: 2, disableTLS: true, "
    'headers: {X-A: b}, secret: s3, metadata: {cmd: "a\\nb"}}, {name: gate, type: confirm-promotion, muteAlert: true}]'
)


def plain_of(load_text, text):
    return load_text(text).plain["rollouts"][0]


def test_webhooks_have_one_form(load_text):
    load_test, gate = plain_of(load_text, analysing(HOOKS))["analysis"]["webhooks"]
    assert load_test == WEBHOOK | {
        "name": "load test",
        "type": "rollout",
        "url": "http://x.y/",
        "timeout": 0.5,
        "retries": 2,
        "insecureSkipVerify": True,
        "headers": {"X-A": "b"},
        "secret": "s3",
        "metadata": {"cmd": "a\nb"},
    }
    assert gate == WEBHOOK | {"name": "gate", "type": "confirm-promotion", "url": None, "muteAlert": True}


def test_hand_back_has_a_webhook_and_a_readiness(load_text):
    text = "promotion: {mode: handBack, bakeTime: 1m, webhook: {url: 'https://x.y/update'}, readiness: {path: /up}}"
    assert plain_of(load_text, rollout(text))["promotion"] == {
        "mode": "handBack",
        "bakeTime": 60.0,
        "webhook": WEBHOOK,
        "readiness": {"path": "/up"},
    }


def test_alerts_and_their_providers(load_text):
    loaded = load_text(
        analysing(
            "iterations: 1, mirror: true, alerts: "
            "[{name: all, providerRef: {name: chat}}, {name: bad, severity: error, providerRef: {name: chat}}, "
            "{name: more, severity: '', providerRef: {name: chat}}]"
        )
    )
    assert loaded.plain["rollouts"][0]["analysis"]["alerts"] == [
        {"name": "all", "severity": "info", "provider": "chat"},
        {"name": "bad", "severity": "error", "provider": "chat"},
        {"name": "more", "severity": "info", "provider": "chat"},
    ]
    (chat,) = loaded.plain["alertProviders"]
    assert chat == {
        "name": "chat",
        "type": "slack",
        "address": "http://chat.x/hook",
        "channel": "",
        "username": "splitproxy",
        "proxy": None,
        "token": None,
    }


def test_metrics_take_limits_from_the_analysis_or_have_their_own(load_text):
    plain = plain_of(
        load_text,
        analysing(
            "stepWeight: 5, minRequests: 20, noData: pass, failureLimit: 2, metrics: ["
            "{name: request-duration, quantile: 0.5, interval: 30s, thresholdRange: {max: 5}, hardRange: {max: 50}},"
            "{name: 404s percentage, templateRef: {name: t}, templateVariables: {zone: eu}, "
            "thresholdRange: {min: 1, max: 2}, minRequests: 0, noData: fail, "
            "consecutiveErrorLimit: 9, inconclusiveLimit: 8}]"
        ),
    )
    duration, share = plain["analysis"]["metrics"]
    assert (
        duration | {"quantile": 0.5, "interval": 30.0, "max": 5, "hardMax": 50, "kind": "request-duration"} == duration
    )
    assert duration | {"minRequests": 20, "noData": "pass", "failureLimit": 2, "consecutiveErrorLimit": 4} == duration
    assert share | {"kind": "template", "template": "t", "variables": {"zone": "eu"}, "min": 1, "max": 2} == share
    assert share | {"minRequests": 0, "noData": "fail", "failureLimit": 2, "consecutiveErrorLimit": 9} == share
    assert share["inconclusiveLimit"] == 8


@pytest.mark.parametrize(
    ("written", "key", "value"),
    [
        ("threshold: 0", "threshold", 1),
        ("threshold: 7", "threshold", 7),
        ("mirror: true, mirrorWeight: 0", "mirrorWeight", 100),
        ("mirror: true, mirrorWeight: 12.5", "mirrorWeight", 12.5),
        ("maxWeight: 0", "maxWeight", 100),
        ("sessionAffinity: {cookieName: v, maxAge: 0}", "sessionAffinity.maxAge", 86400),
        ("sessionAffinity: {cookieName: v, maxAge: 90m}", "sessionAffinity.maxAge", 5400),
        ("sessionAffinity: {cookieName: v, maxAge: 60}", "sessionAffinity.maxAge", 60),
    ],
)
def test_zero_keeps_the_meaning_it_has_in_flagger(load_text, written, key, value):
    found = plain_of(load_text, analysing(f"stepWeight: 10, {METRICS}, {written}"))["analysis"]
    for part in key.split("."):
        found = found[part]
    assert found == value


def test_the_deprecated_threshold_of_a_metric_is_a_min_or_a_max(load_text):
    metrics = plain_of(
        load_text, measuring("{name: request-success-rate, threshold: 99}, {name: request-duration, threshold: 500}")
    )["analysis"]["metrics"]
    assert [(metric["min"], metric["max"]) for metric in metrics] == [(99, None), (None, 500)]


COHORT = """[
  {headers: {X-A: {exact: a.b}}, queryParams: {q: {suffix: "+x"}}},
  {cookies: {c: {prefix: "a.b"}}},
  {headers: {u: {regex: "a|b"}}}
]"""
PLAIN_COHORT = [
    {
        "headers": [{"name": "X-A", "type": "Exact", "value": "a.b"}],
        "cookies": [],
        "queryParams": [{"name": "q", "type": "RegularExpression", "value": r".*\+x"}],
    },
    {"headers": [], "cookies": [{"name": "c", "type": "RegularExpression", "value": r"a\.b.*"}], "queryParams": []},
    {"headers": [{"name": "u", "type": "RegularExpression", "value": "a|b"}], "cookies": [], "queryParams": []},
]


def test_a_match_is_the_one_cohort(load_text):
    loaded = load_text(analysing(f"iterations: 3, match: {COHORT}, {METRICS}"))
    analysis = loaded.plain["rollouts"][0]["analysis"]
    assert analysis["match"] == PLAIN_COHORT
    assert analysis["cohorts"] == [PLAIN_COHORT]
    assert analysis["ringIterations"] == [3]
    assert loaded.plain["routes"][0]["rules"][0]["rollout"]["cohorts"] == [PLAIN_COHORT]


def test_rings_are_cohorts_in_their_order(load_text):
    ring = "match: [{{headers: {{x: {{exact: {}}}}}}}]"
    analysis = plain_of(
        load_text,
        analysing(
            f"rings: [{{{ring.format('a')}, iterations: 4}}, {{{ring.format('b')}}}], stepWeights: [1, 2], {METRICS}"
        ),
    )["analysis"]
    assert [cohort[0]["headers"][0]["value"] for cohort in analysis["cohorts"]] == ["a", "b"]
    assert analysis["ringIterations"] == [4, 1]
    assert analysis["match"] == []


def test_steps_have_one_form(load_text):
    analysis = plain_of(
        load_text,
        analysing(
            "steps: [{setWeight: 0.5, hold: 2m, interval: 5s, minRequests: 3, iterations: 2, "
            "metrics: [{name: request-success-rate, thresholdRange: {min: 90}}]}, {pause: {}}, "
            f"{{pause: {{duration: 1h}}}}, {{mirror: 20}}], {METRICS}"
        ),
    )["analysis"]
    empty = {"setWeight": None, "hold": 0.0, "pause": None, "mirror": None, "interval": None, "minRequests": None}
    assert analysis["steps"] == [
        {
            "setWeight": 0.5,
            "hold": 120.0,
            "pause": None,
            "mirror": None,
            "interval": 5.0,
            "minRequests": 3,
            "iterations": 2,
            "metrics": [{"name": "request-success-rate", "min": 90, "max": None}],
        },
        {**empty, "pause": 0, "iterations": 1, "metrics": []},
        {**empty, "pause": 3600.0, "iterations": 1, "metrics": []},
        {**empty, "mirror": 20, "iterations": 1, "metrics": []},
    ]


def test_without_checks_no_analysis_is_needed(load_text):
    plain = plain_of(load_text, rollout("skipAnalysis: true", analysis=""))
    assert plain["skipAnalysis"]
    assert plain["analysis"]["metrics"] == []


def test_a_match_for_labels_alone_takes_nobody(load_text):
    analysis = plain_of(load_text, analysing("iterations: 1, match: [{sourceLabels: {app: x}}]"))["analysis"]
    assert analysis["cohorts"] == [[]]


@pytest.mark.parametrize(
    ("written", "secure"),
    [
        ("", None),
        ("secure: true", True),
        ("secure: false", False),
        ("sameSite: None", True),
        ("partitioned: true", True),
    ],
)
def test_a_cookie_is_secure_where_browsers_ask_for_it(load_text, written, secure):
    plain = plain_of(load_text, analysing(f"stepWeight: 10, sessionAffinity: {{cookieName: v, {written}}}"))
    assert plain["analysis"]["sessionAffinity"]["secure"] is secure


def test_there_is_room_for_so_many_rollouts(load_text, refuse):
    def many(count):
        routes = "".join(
            f"\n  - {{name: r{i}, hostnames: [h{i}.x], rules: [{{backendRefs: [{{name: a}}]}}]}}" for i in range(count)
        )
        rollouts = "".join(
            f"\n  - {{name: o{i}, route: r{i}, primary: a, canary: b, skipAnalysis: true}}" for i in range(count)
        )
        return f"{BASE[: BASE.index('routes')]}routes:{routes}\nrollouts:{rollouts}"

    assert len(load_text(many(1024)).plain["rollouts"]) == 1024
    (problem,) = refuse(many(1025))
    assert (problem.path, problem.message) == ("rollouts[1024]", "there are 1025 rollouts, at most 1024 can run")


# --- ownership -------------------------------------------------------------------------------------------------------
def key_of(load_text, text):
    return plain_of(load_text, text)["liveKey"]


def test_a_release_is_known_by_its_revision_or_else_by_its_endpoints(load_text):
    other = ("http://127.0.0.1:9002", "http://127.0.0.1:9005")
    assert key_of(load_text, rollout()) == key_of(load_text, rollout())
    assert key_of(load_text, rollout()) != key_of(load_text, rollout().replace(*other))
    first = key_of(load_text, rollout("revision: '1'"))
    assert first != key_of(load_text, rollout("revision: '2'"))
    assert first == key_of(load_text, rollout("revision: '1'").replace(*other))
    assert first != key_of(load_text, rollout("revision: '1'").replace("name: o", "name: p"))


def test_the_order_of_endpoints_is_no_identity(load_text):
    turned = rollout().replace(
        '"http://127.0.0.1:9003", "http://127.0.0.1:9002"', '"http://127.0.0.1:9002", "http://127.0.0.1:9003"'
    )
    assert turned != rollout()
    assert key_of(load_text, rollout()) == key_of(load_text, turned)


RULES = """rules:
      - {name: owned, matches: [{path: {value: /a}}], backendRefs: [{name: a, weight: 9}, {name: c}]}
      - {name: whole, matches: [{path: {value: /b}}], backendRefs: [{name: b, weight: 0}, {name: a}]}
      - {name: forced, matches: [{path: {value: /c}}], backendRefs: [{name: b}]}
      - {name: foreign, matches: [{path: {value: /d}}], backendRefs: [{name: c}]}
      - {name: nowhere, matches: [{path: {value: /e}}], filters: [{type: RequestRedirect, requestRedirect: {port: 1}}]}
"""


def test_a_rollout_owns_the_rules_that_name_its_primary(load_text):
    loaded = load_text(rollout("revision: '1'").replace("rules: [{backendRefs: [{name: a}]}]\n", RULES))
    assert loaded.warnings == []
    (plain,) = loaded.plain["rollouts"]
    assert plain["rules"] == ["owned", "whole"]
    rules = {rule["name"]: rule for rule in loaded.plain["routes"][0]["rules"]}
    assert [(ref["name"], ref["weight"]) for ref in rules["owned"]["backendRefs"]] == [("a", 9), ("c", 1), ("b", 0)]
    assert [(ref["name"], ref["weight"]) for ref in rules["whole"]["backendRefs"]] == [("b", 0), ("a", 1)]
    assert rules["owned"]["backendRefs"][2]["filters"] == []
    for name in ("owned", "whole"):
        assert rules[name]["rollout"] == {
            "name": "o",
            "live": plain["liveKey"],
            "primary": "a",
            "canary": "b",
            "cohorts": [],
            "affinity": None,
            "mirror": {
                "maxBodyBytes": 1048576,
                "maxInFlight": 64,
                "timeout": 5.0,
                "allMethods": False,
                "compare": {**plain["analysis"]["compare"]["mirror"], "latency": 1.1, "delay": 0.005},
            },
            "tunnels": "keep",
        }
    assert all(rules[name]["rollout"] is None for name in ("forced", "foreign", "nowhere"))


def test_a_promoted_version_is_adopted_by_exchanging_the_names_alone(load_text):
    loaded = load_text(rollout().replace("primary: a, canary: b", "primary: b, canary: a"))
    assert [warning.path for warning in loaded.warnings] == ["routes[0].rules[0].backendRefs"]
    (rule,) = loaded.plain["routes"][0]["rules"]
    assert (rule["rollout"]["primary"], rule["rollout"]["canary"]) == ("b", "a")
    assert [(ref["name"], ref["weight"]) for ref in rule["backendRefs"]] == [("a", 1), ("b", 0)]
    shares = compile_split(("r", "0"), rule, "/").shares()
    assert [(backend.upstream, percent) for backend, percent in shares] == [("a", 0.0), ("b", 100.0)]


# --- where state is kept ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("written", "directory", "path"),
    [
        ("", "/var/lib/x", "/var/lib/x/splitproxy.db"),
        ("", "/var/lib/x:/var/lib/y", "/var/lib/x/splitproxy.db"),
        ("state: {path: s/../t.db}", "/var/lib/x", "/var/lib/x/t.db"),
        ("state: {path: /srv/t.db}", "/var/lib/x", "/srv/t.db"),
    ],
)
def test_state_is_kept_in_the_state_directory(load_text, good, written, directory, path):
    assert load_text(f"{good}\n{written}", {"STATE_DIRECTORY": directory}).plain["state"] == {"path": path}


def test_state_is_kept_in_the_working_directory_without_one(load_text, good):
    assert load_text(good).plain["state"] == {"path": str(Path.cwd() / "splitproxy.db")}


# --- Flagger ---------------------------------------------------------------------------------------------------------
FLAGGER = Path(__file__).with_name("flagger")
BLOCKS = sorted(FLAGGER.glob("*.yaml"))
AROUND = {
    "listeners": [{"address": ":80"}],
    "upstreams": [{"name": name, "endpoints": [f"http://{name}:80"]} for name in ("podinfo-1", "podinfo-2")],
    "routes": [{"name": "podinfo", "rules": [{"backendRefs": [{"name": "podinfo-1"}]}]}],
    "alertProviders": [
        {"name": name, "type": kind, "address": "http://x.y/"}
        for name, kind in (("dev-slack", "slack"), ("qa-discord", "discord"), ("on-call-msteams", "msteams"))
    ],
    "metricTemplates": [
        {"name": name, "provider": {"type": "prometheus", "address": "http://prometheus:9090"}, "query": query}
        for name, query in (
            ("not-found-percentage", 'up{destination="{{ target }}"}[{{ interval }}]'),
            ("latency", "{{variables.route}}"),
        )
    ],
}


@pytest.mark.parametrize("file", BLOCKS, ids=lambda file: file.stem)
def test_an_analysis_block_of_flagger_loads(tmp_path, file):
    text = file.read_text()
    block = yaml.safe_load(text)
    release = {"name": "podinfo", "route": "podinfo", "primary": "podinfo-1", "canary": "podinfo-2", **block}
    moved = tmp_path / "moved.yaml"
    moved.write_text(yaml.safe_dump({**AROUND, "rollouts": [release]}))
    loaded = load(moved, {})
    expected = [line.removeprefix("# warns: ") for line in text.splitlines() if line.startswith("# warns: ")]
    assert sorted(warning.path.removeprefix(f"{ANALYSIS}.") for warning in loaded.warnings) == sorted(expected)
    plan = compile_plan(loaded.plain["rollouts"][0])
    assert f"# strategy: {plan.strategy}" in text.splitlines()


# --- secrets ---------------------------------------------------------------------------------------------------------
SECRET_PARTS = """
alertProviders: [{name: chat, type: slack, address: "http://chat.x/S3CRET", proxy: "http://S3CRET.x", token: S3CRET}]
metricTemplates:
  - {name: t, provider: {type: prometheus, address: "http://p.x:9090", token: {file: token}, headers: {x: S3CRET}},
     query: up}
  - {name: u, provider: {type: web, address: "http://p.x:9090", username: u, password: S3CRET}}
rollouts:
  - name: o
    route: r
    primary: a
    canary: b
    promotion: {mode: handBack, webhook: {url: "http://x/${KEY}", secret: {file: token}}}
    analysis:
      stepWeight: 10
      iterations: 1
      match: [{headers: {x-cohort: {exact: "${KEY}"}}}, {cookies: {c: {prefix: S3CRET}}}]
      webhooks:
        - {name: w, url: "http://open.x", secret: S3CRET, headers: {authorization: {file: token}, x: S3CRET},
           metadata: {a: "${KEY}", b: open}}
"""


def test_secrets_of_rollouts_are_served_but_not_shown(load_text, tmp_path):
    (tmp_path / "token").write_text("S3CRET\n")
    text = BASE[: BASE.index("alertProviders")] + SECRET_PARTS
    loaded = load_text(text, {"KEY": "S3CRET"})
    assert "S3CRET" not in str(loaded.public)
    assert str(loaded.plain).count("S3CRET") == 18
    assert loaded.plain["metricTemplates"][0]["provider"]["token"] == "S3CRET"
    webhook = loaded.public["rollouts"][0]["analysis"]["webhooks"][0]
    assert webhook["headers"] == {"authorization": "***", "x": "***"}
    assert webhook["metadata"] == {"a": "***", "b": "open"}
    assert webhook["url"] == "http://open.x"
    assert loaded.public["alertProviders"][0]["channel"] == ""
    assert loaded.public["metricTemplates"][1]["provider"]["token"] is None
    assert tmp_path / "token" in loaded.sources


# --- folders ---------------------------------------------------------------------------------------------------------
def test_every_file_of_a_folder_may_add_rollouts(tmp_path):
    (tmp_path / "a.yaml").write_text(rollout())
    (tmp_path / "b.yaml").write_text(
        "rollouts: [{name: p, route: s, primary: c, canary: b, skipAnalysis: true}]\n"
        "alertProviders: [{name: other, type: webhook, address: 'http://x'}]\n"
    )
    plain = load(tmp_path, {}).plain
    assert [one["name"] for one in plain["rollouts"]] == ["o", "p"]
    assert [one["name"] for one in plain["alertProviders"]] == ["chat", "other"]


# --- spans of the week -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("written", "days", "start", "end", "zone"),
    [
        ("mon-fri 09:00-17:00 Europe/Berlin", [0, 1, 2, 3, 4], 540, 1020, "Europe/Berlin"),
        ("00:00-24:00 UTC", [0, 1, 2, 3, 4, 5, 6], 0, 1440, "UTC"),
        ("Sat,sun 22:30-4:00 America/New_York", [5, 6], 1350, 240, "America/New_York"),
        ("fri-mon,wed 1:00-2:00 Etc/GMT+5", [0, 2, 4, 5, 6], 60, 120, "Etc/GMT+5"),
    ],
)
def test_a_span_of_the_week(load_text, written, days, start, end, zone):
    (window,) = plain_of(load_text, rollout(f'allowedWindows: ["{written}"]'))["allowedWindows"]
    assert window == {"days": days, "start": start, "end": end, "zone": zone}


# --- the comparison --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "where", "words"),
    [
        ("compare: maybe", "compare", "mapping"),
        ("compare: 0", "compare", "mapping"),
        ("compare: {alpha: 0}", "compare.alpha", "a probability above 0"),
        ("compare: {alpha: 5}", "compare.alpha", "write 0.05"),
        ("compare: {beta: yes}", "compare.beta", "number"),
        ("compare: {tolerate: {errors: 0.1}}", "compare.tolerate.errors", "write 1.1"),
        ("compare: {tolerate: {latency: 20}}", "compare.tolerate.latency", "from 1 to 10"),
        ("compare: {tolerate: {delay: 5}}", "compare.tolerate.delay", "duration"),
        ("compare: {minBadEvents: 0}", "compare.minBadEvents", "from 1"),
        ("compare: {warmup: 10}", "compare.warmup", "duration"),
        ("compare: {pace: quickly}", "compare.pace", "evidence"),
        ("compare: {aplha: 0.01}", "compare.aplha", "alpha"),
    ],
)
def test_what_a_comparison_cannot_be(refuse, text, where, words):
    (problem,) = refuse(analysing(f"stepWeight: 10, {text}, {METRICS}"))
    assert problem.path == f"{ANALYSIS}.{where}"
    assert words in f"{problem.message} {problem.hint}"


@pytest.mark.parametrize(
    ("text", "on", "alpha"),
    [
        ("", True, 0.001),
        ("compare: true, ", True, 0.001),
        ("compare: false, ", False, 0.001),
        ("compare: {alpha: 0.01}, ", True, 0.01),
        ("compare: {enabled: false, alpha: 0.01}, ", False, 0.01),
    ],
)
def test_a_comparison_is_on_unless_it_is_switched_off(load_text, text, on, alpha):
    (plain,) = load_text(analysing(f"stepWeight: 10, {text}{METRICS}")).plain["rollouts"]
    plan = compile_plan(plain)
    assert (plan.compare, plan.terms.alpha) == (on, alpha)
    assert plan.terms.delay == 0.005
    assert plan.terms.horizon == 600, "ten checks a minute apart are ten minutes"
