"""From files to what is served: folders, the environment, secrets, checksums, the plain snapshot."""

import os

import pytest

from splitproxy.config import load
from splitproxy.errors import ConfigError

FIRST = """
listeners: [{address: 127.0.0.1:8080}]
upstreams: [{name: a, endpoints: ["http://127.0.0.1:9001"]}]
routes: [{name: one, rules: [{backendRefs: [{name: b}]}]}]
"""
SECOND = """
upstreams: [{name: b, endpoints: ["http://127.0.0.1:9002"]}]
routes: [{name: two, hostnames: [x.y], rules: [{backendRefs: [{name: a}]}]}]
"""


@pytest.fixture
def folder(tmp_path):
    """Make a folder of files from texts."""

    def make(**texts):
        for name, text in texts.items():
            file = tmp_path / name.replace("_", ".")
            file.write_text(text)
        return tmp_path

    return make


def problems_of(path, environment=None):
    with pytest.raises(ConfigError) as caught:
        load(path, environment or {})
    return caught.value.args[0]


# --- folders -------------------------------------------------------------------------------------------------------
def test_the_files_of_a_folder_are_one_configuration_in_the_order_of_their_names(folder):
    loaded = load(folder(b_yaml=SECOND, a_yml=FIRST, c_txt="x: [", **{".hidden_yaml": "x: ["}), {})
    assert [route["name"] for route in loaded.plain["routes"]] == ["one", "two"]
    assert [upstream["name"] for upstream in loaded.plain["upstreams"]] == ["a", "b"]
    assert [source.name for source in loaded.sources] == ["a.yml", "b.yaml"]


def test_an_error_in_a_folder_names_its_file_and_the_place_in_it(folder):
    (problem,) = problems_of(folder(a_yaml=FIRST, b_yaml=SECOND.replace("name: a", "name: c")))
    assert (problem.file[-6:], problem.line) == ("b.yaml", 3)
    assert problem.path == "routes[0].rules[0].backendRefs[0].name"


def test_two_files_may_not_set_the_same_key(folder):
    path = folder(a_yaml=FIRST + "workers: 1\n", b_yaml=SECOND + "workers: 2\n")
    (problem,) = problems_of(path)
    assert (problem.file[-6:], problem.line, problem.column, problem.path) == ("b.yaml", 4, 1, "workers")
    assert problem.message == f"the key 'workers' stands in two files; first in {path / 'a.yaml'}:5"


def test_names_are_unique_over_all_files(folder):
    path = folder(a_yaml=FIRST, b_yaml=SECOND.replace("name: two", "name: one"))
    (problem,) = problems_of(path)
    assert problem.message == f"the route 'one' stands twice; first at routes[0].name ({path / 'a.yaml'}:4)"


def test_errors_of_all_files_are_told_at_once_and_unreadable_names_are_not_called_missing(folder):
    found = problems_of(folder(a_yaml=FIRST.replace("8080", "x"), b_yaml=SECOND + "x: [", c_yaml=""))
    assert [(problem.file[-6:], problem.line) for problem in found] == [("a.yaml", 2), ("b.yaml", 5), ("c.yaml", 0)]


def test_a_folder_without_files_is_refused(tmp_path):
    (problem,) = problems_of(tmp_path)
    assert "no .yaml or .yml file" in problem.message


def test_a_file_that_is_not_there_is_refused(tmp_path):
    (problem,) = problems_of(tmp_path / "shop.yaml")
    assert str(problem) == f"{tmp_path / 'shop.yaml'}: there is no such file"


def test_what_is_not_a_file_is_refused(folder):
    path = folder(a_yaml=FIRST)
    (path / "b.yaml").mkdir()
    assert any("cannot be read: Is a directory" in problem.message for problem in problems_of(path))
    assert "cannot be read" in problems_of(path / "a\0b.yaml")[0].message
    assert "cannot be read" in problems_of(path / "a.yaml" / "b")[0].message


# --- all errors at once --------------------------------------------------------------------------------------------
def test_errors_of_every_kind_appear_together(refuse):
    found = refuse("""
        listeners: [{address: 127.0.0.1:8080}]
        workers: 0
        upstreams:
          - {name: a, endpoints: ["http://127.0.0.1:9001"]}
          - {name: b, endpoints: null}
        routes:
          - name: r
            rules:
              - backendRefs: [{name: aa}]
                timeouts: {request: soon}
              - backendRefs: [{name: a}, {name: b}]
                timeouts: {request: 1s, backendRequest: 2s}
                colour: red
              - backendRefs: [{name: a, weight: "${WEIGHT}"}]
                timeouts: {request: 1s, backendRequest: 2s}
    """)
    assert [(problem.line, problem.path) for problem in found] == [
        (3, "workers"),
        (6, "upstreams[1].endpoints"),
        (10, "routes[0].rules[0].backendRefs[0].name"),
        (11, "routes[0].rules[0].timeouts.request"),
        (14, "routes[0].rules[1].colour"),
        (15, "routes[0].rules[2].backendRefs[0].weight"),
        (16, "routes[0].rules[2].timeouts.backendRequest"),
    ]


def test_where_a_name_could_not_be_read_none_is_called_missing(refuse):
    (problem,) = refuse("""
        listeners: [{address: 127.0.0.1:8080}]
        upstreams: [{name: "${NAME}", endpoints: ["http://127.0.0.1:9001"]}]
        routes: [{name: r, rules: [{backendRefs: [{name: a}]}]}]
    """)
    assert problem.message == "the environment variable NAME is not set"


def test_a_problem_is_plain_data_too(refuse):
    (problem,) = refuse("listeners: [{address: ':80', port: 1}]")
    assert problem.to_dict() == {
        "file": problem.file,
        "line": 1,
        "column": 30,
        "path": "listeners[0].port",
        "message": "unknown key 'port'",
        "hint": "",
        "source": "listeners: [{address: ':80', port: 1}]",
        "caret": 29,
    }


# --- environment ---------------------------------------------------------------------------------------------------
def test_variables_are_typed_by_the_key_they_stand_at(load_text):
    loaded = load_text(
        """
        listeners: [{address: "127.0.0.1:${PORT}", name: "${NUMBER}"}]
        workers: ${WORKERS:-2}
        limits: {headerCount: "${COUNT}", headerBytes: "${COUNT}Ki", headerTimeout: "${COUNT}s"}
        upstreams: [{name: a, endpoints: ["http://${HOST:-localhost}:9001"]}]
        routes:
          - name: r
            rules:
              - backendRefs: [{name: a, weight: "${WEIGHT}"}]
                split: {key: {cookie: id, issue: "${YES}"}}
                matches: [{headers: [{name: x, value: "$${NUMBER}"}]}]
              - filters: [{type: RequestRedirect, requestRedirect: {scheme: "${S}", statusCode: "${CODE}"}}]
        """,
        {"PORT": "81", "NUMBER": "1", "COUNT": "50", "WEIGHT": "0.5", "YES": "true", "S": "https", "CODE": "301"},
    )
    plain = loaded.plain
    rule, redirect = plain["routes"][0]["rules"]
    assert [(listener["name"], listener["address"]) for listener in plain["listeners"]] == [("1", "127.0.0.1:81")]
    assert (plain["workers"], plain["limits"]["headerCount"], plain["limits"]["headerBytes"]) == (2, 50, 51200)
    assert plain["limits"]["headerTimeout"] == 50.0
    assert plain["upstreams"][0]["endpoints"][0]["host"] == "localhost"
    assert rule["backendRefs"][0]["weight"] == 0.5
    assert rule["split"]["key"] == {"cookie": "id", "issue": True}
    assert rule["matches"][0]["headers"][0]["value"] == "${NUMBER}"
    assert redirect["filters"][0]["requestRedirect"]["statusCode"] == 301


@pytest.mark.parametrize("value", ["x, address: y", "[]", "{a: b}", "a\nb: c", "*x", "null", "&x", "!!str x"])
def test_a_variable_never_becomes_structure(refuse, value):
    (problem,) = refuse("listeners: [{address: ':80'}]\nworkers: ${X}", {"X": value})
    assert (problem.line, problem.path) == (2, "workers")
    assert "is wanted, not the text" in problem.message


# --- secrets -------------------------------------------------------------------------------------------------------
SECRETS = """
        routes:
          - name: r
            rules:
              - matches: [{headers: [{name: x-key, value: "${KEY}"}, {name: x, value: open}]}]
                backendRefs: [{name: a}, {name: b, filters: [{type: ResponseHeaderModifier,
                  responseHeaderModifier: {add: [{name: x-b, value: "b ${KEY}"}]}}]}]
                filters:
                  - type: RequestHeaderModifier
                    requestHeaderModifier:
                      set: [{name: authorization, value: {file: token}}, {name: x-open, value: open}]
                      add: [{name: x-a, value: "${KEY}"}]
"""


def secret_values(tree):
    rule = tree["routes"][0]["rules"][0]
    modifier = rule["filters"][0]["requestHeaderModifier"]
    of_b = rule["backendRefs"][1]["filters"][0]["responseHeaderModifier"]["add"]
    headers = [*modifier["set"], *modifier["add"], *of_b, *rule["matches"][0]["headers"]]
    return [header["value"] for header in headers]


def test_secrets_are_served_but_not_shown(load_text, good, tmp_path):
    (tmp_path / "token").write_text("Bearer 1\r\n")
    text = good.replace("\n", "\n        ") + SECRETS
    loaded = load_text(text, {"KEY": "k"})
    assert secret_values(loaded.plain) == ["Bearer 1", "open", "k", "b k", "k", "open"]
    assert secret_values(loaded.public) == ["***", "open", "***", "***", "***", "open"]
    assert "Bearer" not in str(loaded.public)
    assert "Bearer" not in repr(loaded.config)
    assert tmp_path / "token" in loaded.sources
    (tmp_path / "token").write_text("Bearer 2")
    assert load_text(text, {"KEY": "k"}).checksum != loaded.checksum


@pytest.mark.parametrize("data", [b"a\nb", b"a\r\n\n", b"\xff", b"a\0", b" a"])
def test_a_secret_that_would_break_a_head_is_refused_without_being_shown(refuse, good, tmp_path, data):
    (tmp_path / "token").write_bytes(data)
    (problem,) = refuse(good.replace("\n", "\n        ") + SECRETS, {"KEY": "k"})
    assert problem.path.endswith("set[0].value.file")
    assert "token'" in problem.message
    assert "'a" not in problem.message


def test_without_secrets_the_public_dump_is_the_plain_one(load_text, good):
    loaded = load_text(good)
    assert loaded.public == loaded.plain


# --- checksum ------------------------------------------------------------------------------------------------------
def test_the_checksum_is_of_files_and_of_variables_that_are_used(load_text):
    text = "listeners: [{address: '127.0.0.1:${PORT:-80}'}]"
    first = load_text(text, {"OTHER": "1"}).checksum
    assert len(first) == 64
    assert load_text(text, {"OTHER": "2"}).checksum == first
    assert load_text(text, {"PORT": "80"}).checksum != first
    assert load_text(text + "\n", {}).checksum != first


# --- the plain snapshot --------------------------------------------------------------------------------------------
def test_every_default_is_filled_in(load_text):
    loaded = load_text("""
        listeners: [{address: ":8080"}]
        upstreams: [{name: a, endpoints: ["http://127.0.0.1:9001"]}]
        routes: [{name: r, rules: [{}]}]
    """)
    assert loaded.plain == {
        "listeners": [
            {
                "name": "0.0.0.0:8080",
                "address": "0.0.0.0:8080",
                "tls": None,
                "proxyProtocol": False,
                "trustedProxies": [],
                "maxConnections": 0,
            }
        ],
        "admin": {
            "address": "127.0.0.1:9900",
            "allowedHosts": [],
            "tokens": [],
            "insecure": False,
            "auditLog": None,
        },
        "drain": {"delay": 0.0, "timeout": 25.0},
        "probes": None,
        "metrics": {"maxSeries": 50000},
        "tracing": None,
        "workers": 1,
        "accessLog": None,
        "limits": {
            "headerBytes": 65536,
            "headerCount": 100,
            "uriBytes": 8192,
            "bodyBytes": 0,
            "headerTimeout": 10.0,
            "bodyIdleTimeout": 30.0,
            "keepAliveTimeout": 75.0,
        },
        "upstreams": [
            {
                "name": "a",
                "endpoints": [{"url": "http://127.0.0.1:9001", "host": "127.0.0.1", "port": 9001, "weight": 1}],
                "tls": None,
                "loadBalancing": "roundRobin",
                "connectTimeout": 3.0,
                "pool": {"maxIdle": 128, "idleTimeout": 30.0, "maxConnections": 1024, "maxPending": 1024},
                "healthCheck": None,
                "outlierDetection": None,
                "slowStart": 0.0,
                "panicThreshold": 50,
            }
        ],
        "routes": [
            {
                "name": "r",
                "hostnames": [],
                "rules": [
                    {
                        "name": "0",
                        "matches": [
                            {
                                "path": {"type": "PathPrefix", "value": "/"},
                                "method": None,
                                "headers": [],
                                "cookies": [],
                                "queryParams": [],
                            }
                        ],
                        "filters": [],
                        "backendRefs": [],
                        "split": {"key": None, "overrides": [], "failover": False},
                        "retry": None,
                        "timeouts": {
                            "request": 0.0,
                            "backendRequest": 0.0,
                            "responseHead": 60.0,
                            "streamIdle": 300.0,
                            "tunnelIdle": 3600.0,
                        },
                        "rollout": None,
                    }
                ],
            }
        ],
        "state": {"path": os.path.abspath("splitproxy.db")},
        "alertProviders": [],
        "metricTemplates": [],
        "rollouts": [],
    }


FILTERS = """
        routes:
          - name: r
            rules:
              - backendRefs: [{name: a}]
                filters:
                  - {type: RequestMirror, requestMirror: {backendRef: &b {name: b}}}
                  - {type: RequestMirror, requestMirror: {backendRef: {name: b}, percent: 0.5, maxBodyBytes: 64Ki}}
                  - {type: RequestMirror, requestMirror: {fraction: {numerator: 1, denominator: 8}, backendRef: *b}}
                  - {type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: ""}}}
                  - {type: RequestHeaderModifier, requestHeaderModifier: {remove: [X-A]}}
                split:
                  key: {query: q}
                  overrides: [{header: h, value: v, upstream: a}, {cookie: c, value: v, upstream: b}]
              - filters: [{type: RequestRedirect, requestRedirect: {port: 81}}]
"""


def test_filters_and_splits_have_one_form(load_text, good):
    rule, redirect = load_text(good.replace("\n", "\n        ") + FILTERS).plain["routes"][0]["rules"]
    mirror = {
        "maxBodyBytes": 1048576,
        "maxInFlight": 64,
        "timeout": 5.0,
        "methods": "safe",
        "backendRef": {"name": "b"},
    }
    assert rule["filters"] == [
        {"type": "RequestMirror", "requestMirror": {**mirror, "percent": 100.0}},
        {"type": "RequestMirror", "requestMirror": {**mirror, "percent": 0.5, "maxBodyBytes": 65536}},
        {"type": "RequestMirror", "requestMirror": {**mirror, "percent": 12.5}},
        {
            "type": "URLRewrite",
            "urlRewrite": {"hostname": None, "path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": ""}},
        },
        {"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [], "add": [], "remove": ["X-A"]}},
    ]
    assert rule["split"] == {
        "key": {"query": "q"},
        "overrides": [{"header": "h", "value": "v", "upstream": "a"}, {"cookie": "c", "value": "v", "upstream": "b"}],
        "failover": False,
    }
    assert redirect["name"] == "1"
    assert redirect["filters"] == [
        {
            "type": "RequestRedirect",
            "requestRedirect": {"scheme": None, "hostname": None, "path": None, "port": 81, "statusCode": 302},
        }
    ]


def test_auto_workers_are_the_cores_this_process_may_use(load_text):
    loaded = load_text("listeners: [{address: ':80'}]\nworkers: auto")
    assert loaded.plain["workers"] == min(len(os.sched_getaffinity(0)), 64)


def test_a_configuration_cannot_be_changed(load_text):
    config = load_text("listeners: [{address: ':80'}]").config
    with pytest.raises(ValueError, match="frozen"):
        config.workers = 2
