"""The Gateway API's HTTPRoute semantics as tables: our own, and the published conformance data where it is at hand."""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

# --- own tables: routes are (hosts, rules), rules (matches, upstream); a case is (request, upstream or None) ---------


def exact(path, **more):
    return {"path": path, "kind": "Exact", **more}


def prefix(path, **more):
    return {"path": path, **more}


def when(**conditions):
    return conditions


def header(**values):
    return {"headers": values}


def query(**values):
    return {"params": values}


ONE, TWO, THREE, FOUR = ({"version": value} for value in ("one", "two", "three", "four"))

EXACT_PATH = (
    "A exact path",
    [((), [([exact("/one")], "v1"), ([exact("/two")], "v2")])],
    [
        (("GET", "/one"), "v1"),
        (("GET", "/two"), "v2"),
        (("GET", "/"), None),
        (("GET", "/one/example"), None),
        (("GET", "/two/"), None),
        (("GET", "/Two"), None),
    ],
)
PREFIX_OR_HEADER = (
    "B prefix or header",
    [((), [([prefix("/"), header(version="one")], "v1"), ([prefix("/v2"), header(version="two")], "v2")])],
    [
        (("GET", "/"), "v1"),
        (("GET", "/example"), "v1"),
        (("GET", "/", ONE), "v1"),
        (("GET", "/v2"), "v2"),
        (("GET", "/v2/example"), "v2"),
        (("GET", "/", TWO), "v2"),
        (("GET", "/v2/"), "v2"),
        (("GET", "/v2example"), "v1"),
        (("GET", "/foo/v2/example"), "v1"),
    ],
)
PATH_ORDER = (
    "C path order",
    [
        (
            (),
            [
                ([exact("/match")], "v1"),
                ([exact("/match/exact")], "v2"),
                ([exact("/match/exact/one")], "v3"),
                ([prefix("/match/")], "v3"),
                ([prefix("/match/prefix/")], "v1"),
                ([prefix("/match/prefix/one")], "v2"),
            ],
        )
    ],
    [
        (("GET", "/match/exact/one"), "v3"),
        (("GET", "/match/exact"), "v2"),
        (("GET", "/match"), "v1"),
        (("GET", "/match/prefix/one/any"), "v2"),
        (("GET", "/match/prefix/any"), "v1"),
        (("GET", "/match/any"), "v3"),
    ],
)
HEADER = (
    "D headers",
    [
        (
            (),
            [
                ([header(version="one")], "v1"),
                ([header(version="two")], "v2"),
                ([header(version="two", color="orange")], "v1"),
                ([header(color="blue"), header(color="green")], "v1"),
                ([header(color="red"), header(color="yellow")], "v2"),
            ],
        )
    ],
    [
        (("GET", "/", ONE), "v1"),
        (("GET", "/", {"Version": "two"}), "v2"),
        (("GET", "/", TWO | {"color": "orange"}), "v1"),
        (("GET", "/", TWO | {"color": "blue"}), "v2"),
        (("GET", "/", {"color": "orange"}), None),
        (("GET", "/", {"some-other-header": "one"}), None),
        (("GET", "/", {"color": "blue"}), "v1"),
        (("GET", "/", {"color": "green"}), "v1"),
        (("GET", "/", {"color": "red"}), "v2"),
        (("GET", "/", {"color": "yellow"}), "v2"),
        (("GET", "/", {"color": "purple"}), None),
        (("GET", "/", {"version": "ONE"}), None),
    ],
)
METHOD = (
    "E method",
    [
        (
            (),
            [
                ([when(method="POST")], "v1"),
                ([when(method="GET")], "v2"),
                ([prefix("/path1", method="GET")], "v1"),
                ([when(method="PUT", headers=ONE)], "v2"),
                ([prefix("/path2", method="POST", headers=TWO)], "v3"),
                ([prefix("/path3", method="PATCH"), prefix("/path4", method="DELETE", headers=THREE)], "v1"),
                ([prefix("/path5")], "v1"),
                ([when(method="PATCH")], "v2"),
                ([when(headers=FOUR)], "v3"),
            ],
        )
    ],
    [
        (("POST", "/"), "v1"),
        (("GET", "/"), "v2"),
        (("HEAD", "/"), None),
        (("GET", "/path1"), "v1"),
        (("PUT", "/", ONE), "v2"),
        (("POST", "/path2", TWO), "v3"),
        (("PATCH", "/path3"), "v1"),
        (("DELETE", "/path4", THREE), "v1"),
        (("PUT", "/"), None),
        (("DELETE", "/path4"), None),
        (("PATCH", "/path5"), "v1"),
        (("PATCH", "/", FOUR), "v2"),
        (("get", "/"), None),
    ],
)
QUERY = (
    "F query",
    [
        (
            (),
            [
                ([query(animal="whale")], "v1"),
                ([query(animal="dolphin")], "v2"),
                ([query(animal="dolphin", color="blue"), query(ANIMAL="Whale")], "v3"),
                ([prefix("/path1", **query(animal="whale"))], "v1"),
                ([when(headers=ONE, **query(animal="whale"))], "v2"),
                ([prefix("/path2", headers=TWO, **query(animal="whale"))], "v3"),
                (
                    [
                        prefix("/path3", **query(animal="shark")),
                        prefix("/path4", headers=THREE, **query(animal="kraken")),
                    ],
                    "v1",
                ),
                ([prefix("/path5")], "v1"),
                ([query(animal="hydra")], "v2"),
                ([when(headers=FOUR)], "v3"),
            ],
        )
    ],
    [
        (("GET", "/?animal=whale"), "v1"),
        (("GET", "/?animal=dolphin"), "v2"),
        (("GET", "/?animal=dolphin&color=blue"), "v3"),
        (("GET", "/?ANIMAL=Whale"), "v3"),
        (("GET", "/?animal=whale&otherparam=irrelevant"), "v1"),
        (("GET", "/?animal=dolphin&color=yellow"), "v2"),
        (("GET", "/?color=blue"), None),
        (("GET", "/?animal=dog"), None),
        (("GET", "/?animal=whaledolphin"), None),
        (("GET", "/"), None),
        (("GET", "/path1?animal=whale"), "v1"),
        (("GET", "/?animal=whale", ONE), "v2"),
        (("GET", "/path2?animal=whale", TWO), "v3"),
        (("GET", "/path3?animal=shark"), "v1"),
        (("GET", "/path4?animal=kraken", THREE), "v1"),
        (("GET", "/?animal=shark"), None),
        (("GET", "/path4?animal=kraken"), None),
        (("GET", "/path5?animal=hydra"), "v1"),
        (("GET", "/?animal=hydra", FOUR), "v3"),
    ],
)
ACROSS_ROUTES = (
    "G across routes",
    [
        (("example.com", "example.net"), [([prefix("/"), header(version="one")], "v1")]),
        (("example.com",), [([prefix("/v2"), header(version="two")], "v2")]),
    ],
    [
        (("GET", "/", {}, "example.com"), "v1"),
        (("GET", "/example", {}, "example.com"), "v1"),
        (("GET", "/example", {}, "example.net"), "v1"),
        (("GET", "/example", ONE, "example.com"), "v1"),
        (("GET", "/v2", {}, "example.com"), "v2"),
        (("GET", "/v2", {}, "example.net"), "v1"),
        (("GET", "/v2/example", {}, "example.com"), "v2"),
        (("GET", "/", TWO, "example.com"), "v2"),
    ],
)
# Listeners of ours have no hostnames: a route is given what its hostnames and its listener's have in common.
HOSTS = (
    "H host intersection",
    [
        (("very.specific.com",), [([prefix("/s1")], "v1")]),
        (("foo.wildcard.io", "bar.wildcard.io", "foo.bar.wildcard.io"), [([prefix("/s2")], "v2")]),
        (("very.specific.com",), [([prefix("/s3")], "v3")]),
        (("*.anotherwildcard.io",), [([prefix("/s4")], "v1")]),
        (("first.com", "sub.first.com", "*.second.com", "second.com"), [([prefix("/s6")], "v2")]),
    ],
    [
        (("GET", "/s1", {}, "very.specific.com"), "v1"),
        (("GET", "/s3", {}, "very.specific.com"), "v3"),
        (("GET", "/s2", {}, "foo.wildcard.io"), "v2"),
        (("GET", "/s2", {}, "bar.wildcard.io"), "v2"),
        (("GET", "/s2", {}, "foo.bar.wildcard.io"), "v2"),
        (("GET", "/s4", {}, "foo.anotherwildcard.io"), "v1"),
        (("GET", "/s4", {}, "bar.anotherwildcard.io"), "v1"),
        (("GET", "/s4", {}, "foo.bar.anotherwildcard.io"), "v1"),
        (("GET", "/s6", {}, "first.com"), "v2"),
        (("GET", "/s6", {}, "sub.first.com"), "v2"),
        (("GET", "/s6", {}, "second.com"), "v2"),
        (("GET", "/s6", {}, "sub.second.com"), "v2"),
        (("GET", "/s6", {}, "third.com"), None),
        (("GET", "/s6", {}, "sub.third.com"), None),
        (("GET", "/s1", {}, "non.matching.com"), None),
        (("GET", "/s1", {}, "foo.nonmatchingwildcard.io"), None),
        (("GET", "/s1", {}, "foo.wildcard.io"), None),
        (("GET", "/s2", {}, "wildcard.io"), None),
        (("GET", "/s2", {}, "baz.wildcard.io"), None),
        (("GET", "/s3", {}, "foo.specific.com"), None),
        (("GET", "/s4", {}, "anotherwildcard.io"), None),
        (("GET", "/s5", {}, "specific.but.wrong.com"), None),
        (("GET", "/s2", {}, "very.specific.com"), None),
        (("GET", "/s1", {}, "xvery.specific.com"), None),
    ],
)
LISTENER_HOSTS = (
    "I host precedence",
    [
        (("bar.com",), [([prefix("/")], "v1")]),
        (("foo.bar.com",), [([prefix("/")], "v2")]),
        (("*.bar.com", "*.foo.com"), [([prefix("/")], "v3")]),
    ],
    [
        (("GET", "/", {}, "bar.com"), "v1"),
        (("GET", "/", {}, "foo.bar.com"), "v2"),
        (("GET", "/", {}, "baz.bar.com"), "v3"),
        (("GET", "/", {}, "boo.bar.com"), "v3"),
        (("GET", "/", {}, "multiple.prefixes.bar.com"), "v3"),
        (("GET", "/", {}, "multiple.prefixes.foo.com"), "v3"),
        (("GET", "/", {}, "foo.com"), None),
        (("GET", "/", {}, "no.matching.host"), None),
    ],
)
TABLES = [
    EXACT_PATH,
    PREFIX_OR_HEADER,
    PATH_ORDER,
    HEADER,
    METHOD,
    QUERY,
    ACROSS_ROUTES,
    HOSTS,
    LISTENER_HOSTS,
]


@pytest.mark.parametrize(
    ("routes", "asked", "wanted"),
    [
        pytest.param(routes, asked, wanted, id=f"{name}: {' '.join(map(str, asked))}")
        for name, routes, cases in TABLES
        for asked, wanted in cases
    ],
)
def test_a_request_goes_where_the_table_says(spec, routes, asked, wanted):
    table = spec.table(
        *(
            spec.route(
                f"route-{at}",
                *(spec.rule(*(spec.match(**match) for match in matches), to=upstream) for matches, upstream in rules),
                hosts=hosts,
            )
            for at, (hosts, rules) in enumerate(routes)
        )
    )
    method, target, headers, host = (*asked, *({}, "kit.test")[len(asked) - 2 :])
    assert spec.chosen(table, spec.request(method, target, host, headers)) == wanted


# --- K: header modifiers ---------------------------------------------------------------------------------------------
def modifier(put=(), add=(), remove=()):
    def pairs(fields):
        return [{"name": name, "value": value} for name, value in fields]

    return {"set": pairs(put), "add": pairs(add), "remove": list(remove)}


SEVERAL = modifier(
    put=[("X-Header-Set-1", "header-set-1"), ("X-Header-Set-2", "header-set-2")],
    add=[("X-Header-Add-1", "add-1"), ("X-Header-Add-2", "add-2"), ("X-Header-Add-3", "add-3")],
    remove=["X-Header-Remove-1", "X-Header-Remove-2"],
)
MIXED_CASE = modifier(
    put=[("X-Header-Set", "header-set")],
    add=[
        ("X-Header-Add", "header-add"),
        ("x-lowercase-add", "lowercase-add"),
        ("x-Mixedcase-ADD-1", "mixedcase-add-1"),
        ("X-mixeDcase-add-2", "mixedcase-add-2"),
        ("X-UPPERCASE-ADD", "uppercase-add"),
    ],
    remove=["X-Header-Remove"],
)
MODIFIED = [
    ("set absent", modifier(put=[("X-Set", "new")]), {}, {"x-set": "new"}),
    ("set present", modifier(put=[("X-Set", "new")]), {"x-set": "old"}, {"x-set": "new"}),
    ("add absent", modifier(add=[("X-Add", "new")]), {}, {"x-add": "new"}),
    ("add present", modifier(add=[("X-Add", "new")]), {"X-ADD": "old"}, {"x-add": "old,new"}),
    ("remove", modifier(remove=["X-Gone"]), {"x-gone": "old", "other": "kept"}, {"other": "kept"}),
    (
        "several",
        SEVERAL,
        {"X-Header-Set-2": "old", "X-Header-Add-2": "old", "X-Header-Remove-2": "old", "Another-Header": "kept"},
        {
            "x-header-set-1": "header-set-1",
            "x-header-set-2": "header-set-2",
            "x-header-add-1": "add-1",
            "x-header-add-2": "old,add-2",
            "x-header-add-3": "add-3",
            "another-header": "kept",
        },
    ),
    (
        "mixed case",
        MIXED_CASE,
        {"x-header-set": "old", "x-header-add": "old", "x-header-remove": "old", "x-uppercase-add": "old"},
        {
            "x-header-set": "header-set",
            "x-header-add": "old,header-add",
            "x-lowercase-add": "lowercase-add",
            "x-mixedcase-add-1": "mixedcase-add-1",
            "x-mixedcase-add-2": "mixedcase-add-2",
            "x-uppercase-add": "old,uppercase-add",
        },
    ),
]


@pytest.mark.parametrize("kind", ["RequestHeaderModifier", "ResponseHeaderModifier"])
@pytest.mark.parametrize(("filter_", "before", "after"), [pytest.param(*row[1:], id=f"K {row[0]}") for row in MODIFIED])
def test_a_modifier_changes_fields_as_the_table_says(spec, kind, filter_, before, after):
    item = {"type": kind, kind[0].lower() + kind[1:]: filter_}
    rule = spec.table(spec.route("r", spec.rule(filters=[item]))).match(spec.request("GET", "/"))
    chosen = rule.request_modifier if kind.startswith("Request") else rule.response_modifier
    other = rule.response_modifier if kind.startswith("Request") else rule.request_modifier
    assert other is None
    fields = [(name.encode(), value.encode()) for name, value in before.items()]
    chosen.apply(fields)
    assert {name.decode().lower(): value.decode() for name, value in fields} == after
    assert len(fields) == len(after), "each name once"


# --- L: redirects ----------------------------------------------------------------------------------------------------
def full(path):
    return {"type": "ReplaceFullPath", "replaceFullPath": path}


def swapped(prefix):
    return {"type": "ReplacePrefixMatch", "replacePrefixMatch": prefix}


def redirect(**changes):
    plain = {"scheme": None, "hostname": None, "path": None, "port": None, "statusCode": 302, **changes}
    return {"type": "RequestRedirect", "requestRedirect": plain}


REDIRECTED_PATHS = [
    (
        "/original-prefix",
        {"path": swapped("/replacement-prefix")},
        "/original-prefix/lemon",
        "kit.test/replacement-prefix/lemon",
    ),
    ("/full", {"path": full("/full-path-replacement")}, "/full/path/original", "kit.test/full-path-replacement"),
    (
        "/path-and-host",
        {"path": swapped("/replacement-prefix"), "hostname": "example.org"},
        "/path-and-host",
        "example.org/replacement-prefix",
    ),
    (
        "/path-and-status",
        {"path": swapped("/replacement-prefix"), "statusCode": 301},
        "/path-and-status",
        "kit.test/replacement-prefix",
    ),
    (
        "/full-and-host",
        {"path": full("/replacement-full"), "hostname": "example.org"},
        "/full-and-host",
        "example.org/replacement-full",
    ),
    ("/full-and-status", {"path": full("/new"), "statusCode": 301}, "/full-and-status", "kit.test/new"),
    ("/", {"hostname": "example.org"}, "/hostname-redirect?a=b", "example.org/hostname-redirect?a=b"),
]


@pytest.mark.parametrize(("at", "changes", "target", "wanted"), REDIRECTED_PATHS)
def test_a_redirect_changes_path_host_and_status_as_the_table_says(spec, at, changes, target, wanted):
    rule = spec.table(spec.route("r", spec.rule(spec.match(at), filters=[redirect(**changes)], to={}))).match(
        spec.request("GET", target)
    )
    path, _, query = target.encode().partition(b"?")
    assert rule.redirect.location(b"http", b"kit.test", 80, path, query) == b"http://" + wanted.encode()
    assert rule.redirect.status == changes.get("statusCode", 302)


PORTS_AND_SCHEMES = [
    ("http", 80, None, None, "http://example.org/"),
    ("http", 80, None, 80, "http://example.org/"),
    ("http", 80, None, 8080, "http://example.org:8080/"),
    ("http", 80, "https", None, "https://example.org/"),
    ("http", 80, "https", 443, "https://example.org/"),
    ("http", 80, "https", 8443, "https://example.org:8443/"),
    ("http", 8080, None, None, "http://example.org:8080/"),
    ("http", 8080, None, 80, "http://example.org/"),
    ("http", 8080, None, 8083, "http://example.org:8083/"),
    ("http", 8080, "https", None, "https://example.org/"),
    ("https", 443, None, None, "https://example.org/"),
    ("https", 443, None, 443, "https://example.org/"),
    ("https", 443, None, 8443, "https://example.org:8443/"),
    ("https", 443, "http", None, "http://example.org/"),
    ("https", 443, "http", 80, "http://example.org/"),
    ("https", 443, "http", 8080, "http://example.org:8080/"),
]


@pytest.mark.parametrize(("came_by", "listener", "scheme", "port", "wanted"), PORTS_AND_SCHEMES)
def test_a_redirect_names_a_port_only_where_it_must(spec, came_by, listener, scheme, port, wanted):
    rule = spec.table(spec.route("r", spec.rule(filters=[redirect(scheme=scheme, port=port)], to={}))).match(
        spec.request("GET", "/")
    )
    assert rule.redirect.location(came_by.encode(), b"example.org", listener, b"/", b"") == wanted.encode()


# --- M: rewrites -----------------------------------------------------------------------------------------------------
def rewrite(hostname=None, path=None):
    return {"type": "URLRewrite", "urlRewrite": {"hostname": hostname, "path": path}}


REWRITTEN = [
    ("/one", rewrite("one.example.org"), "/one", "one.example.org", "/one"),
    ("/", rewrite("example.org"), "/two", "example.org", "/two"),
    ("/prefix/one", rewrite(path=swapped("/one")), "/prefix/one/two", None, "/one/two"),
    ("/strip-prefix", rewrite(path=swapped("/")), "/strip-prefix/three", None, "/three"),
    ("/strip-prefix", rewrite(path=swapped("/")), "/strip-prefix", None, "/"),
    ("/full/one", rewrite(path=full("/one")), "/full/one/two", None, "/one"),
    ("/full/rewrite", rewrite(path=full("/test")), "/full/rewrite/test?x=1", None, "/test?x=1"),
    ("/prefix/rewrite", rewrite(path=swapped("/prefix")), "/prefix/rewrite/one", None, "/prefix/one"),
]


@pytest.mark.parametrize(("at", "filter_", "target", "host", "wanted"), REWRITTEN)
def test_a_rewrite_changes_host_and_path_as_the_table_says(spec, at, filter_, target, host, wanted):
    rule = spec.table(spec.route("r", spec.rule(spec.match(at), filters=[filter_]))).match(spec.request("GET", target))
    path, _, query = target.encode().partition(b"?")
    assert rule.rewrite.target(path, query) == wanted.encode()
    assert rule.rewrite.hostname == (None if host is None else host.encode())
    assert rule.rewrite.changes_path == (filter_["urlRewrite"]["path"] is not None)


# --- the published data ----------------------------------------------------------------------------------------------
SHARED = Path(os.environ.get("SPLITPROXY_SHARED") or Path(__file__).resolve().parents[3] / "shared")
PUBLISHED = SHARED / "conformance" / "cases-routing" / "gateway.json"
GROUPS: list[dict[str, Any]] = json.loads(PUBLISHED.read_text()) if PUBLISHED.exists() else []

LEFT_OUT = {
    "grpcroute-header-matching": "a GRPCRoute; no cases in the data",
    "grpcroute-exact-method-matching": "a GRPCRoute: service and method are no match of ours; no cases in the data",
    "grpcroute-weight": "a GRPCRoute; its rule on weights is tested as that of httproute-weight",
    "weights-rule": "a note on how shares are judged, followed by the test of weights",
}
# Their routes hang on listeners with hostnames, which ours do not have: the routes are given those hostnames.
LISTENER_HOSTNAMES = {
    "httproute-listener-hostname-matching": {
        "backend-v1": ["bar.com"],
        "backend-v2": ["foo.bar.com"],
        "backend-v3": ["*.bar.com", "*.foo.com"],
    }
}


def table_of(spec, group):
    hosts = LISTENER_HOSTNAMES.get(group["group"], {})
    return spec.table(
        *(
            spec.route(
                route["name"],
                *(translated(spec, rule, str(at)) for at, rule in enumerate(route["rules"])),
                hosts=route["hostnames"] or hosts.get(route["name"], []),
            )
            for route in group["routes"]
        )
    )


def translated(spec, rule, name):
    """Return a rule of the data as a rule of ours: the words are the same, defaults are filled in, ports left out."""
    matches = []
    for match in rule.get("matches", []):
        ours = spec.match(method=match.get("method"))
        ours["path"] = match.get("path", ours["path"])
        for kind in ("headers", "queryParams"):
            ours[kind] = [{"type": "Exact", **item} for item in match.get(kind, [])]
        matches.append(ours)
    refs = [spec.ref(ref["name"], ref.get("weight", 1)) for ref in rule.get("backendRefs", [])]
    return spec.rule(*matches, name=name, to=refs, filters=[filled(item) for item in rule.get("filters", [])])


def filled(item):
    match item["type"]:
        case "RequestMirror":
            target = {"name": item["requestMirror"]["backendRef"]["name"]}
            limits = {"percent": 100.0, "maxBodyBytes": 1 << 20, "maxInFlight": 64, "timeout": 5.0, "methods": "safe"}
            return {"type": "RequestMirror", "requestMirror": {"backendRef": target, **limits}}
        case "RequestRedirect":
            return redirect(**item["requestRedirect"])
        case "URLRewrite":
            return rewrite(**item["urlRewrite"])
        case kind:
            key = kind[0].lower() + kind[1:]
            return {"type": kind, key: {"set": [], "add": [], "remove": [], **item[key]}}


needs_published = pytest.mark.skipif(not GROUPS, reason=f"the Gateway API's published cases are not at {PUBLISHED}")


@needs_published
@pytest.mark.parametrize(
    ("group", "case"),
    [
        pytest.param(group, case, id=f"{group['group']}: {case['method']} {case['host']}{case['path']} {at}")
        for group in GROUPS
        for at, case in enumerate(group.get("cases", []))
    ],
)
def test_the_published_case_holds(spec, group, case):
    table = table_of(spec, group)
    request = spec.request(case["method"], case["path"], case["host"], case["headers"])
    rule = table.match(request)
    if case.get("status") == 404:
        assert rule is None
    elif case.get("status") in {301, 302}:
        assert rule.redirect.status == case["status"]
    else:
        backend, _ = rule.split.choose(request, b"", 0.5, None)
        assert backend.upstream == case.get("backend", backend.upstream)
        assert case.get("status", 200) == 200


@needs_published
def test_the_published_weights_are_met(spec):
    (group,) = (group for group in GROUPS if group["group"] == "httproute-weight")
    request = spec.request("GET", "/")
    split = table_of(spec, group).match(request).split
    counts = Counter(split.choose(request, b"", number / 500)[0].upstream for number in range(500))
    assert counts == {"infra-backend-v1": 350, "infra-backend-v2": 150}


@needs_published
def test_the_published_mirrors_are_set_up(spec):
    (group,) = (group for group in GROUPS if group["group"] == "httproute-request-mirror")
    for case in group["cases"]:
        rule = table_of(spec, group).match(spec.request(case["method"], case["path"]))
        assert [mirror.backend.upstream for mirror in rule.mirrors] == ["infra-backend-v2"]
        assert (rule.request_modifier is not None) == case["path"].endswith("headers")


@needs_published
def test_every_published_group_is_run_or_left_out_for_a_reason():
    run = {group["group"] for group in GROUPS if group.get("cases")}
    assert {group["group"] for group in GROUPS} == run | set(LEFT_OUT)
    assert not run & set(LEFT_OUT)
