"""Which rule a request meets."""

import itertools
import re

import pytest
from hypothesis import given, settings, strategies as st

from splitproxy.core.matching import MAX_PROGRAM, MAX_SUBJECT, compile_pattern
from splitproxy.core.routing import MAX_HOST
from splitproxy.errors import ConfigError


def test_nothing_matches_in_an_empty_table(spec):
    assert spec.table().match(spec.request("GET", "/")) is None


def test_a_lone_rule_for_everything_takes_every_host_and_path(spec):
    table = spec.table(spec.route("all", spec.rule(to="a")))
    for host, target in (("", "/"), ("kit.test", "/x/y?z"), ("[::1]", "/")):
        assert spec.chosen(table, spec.request("GET", target, host)) == "a"


def test_a_rule_knows_its_route_name_and_timeouts(spec):
    plain = spec.rule(name="checkout")
    plain["timeouts"] = {
        "request": 1.0,
        "backendRequest": 2.0,
        "responseHead": 3.0,
        "streamIdle": 4.0,
        "tunnelIdle": 5.0,
    }
    rule = spec.table(spec.route("shop", plain)).match(spec.request("GET", "/"))
    assert (rule.route, rule.name) == ("shop", "checkout")
    timeouts = rule.timeouts
    assert (timeouts.request, timeouts.backend_request, timeouts.response_head) == (1.0, 2.0, 3.0)
    assert (timeouts.stream_idle, timeouts.tunnel_idle) == (4.0, 5.0)


# --- hosts -----------------------------------------------------------------------------------------------------------
def hosts_table(spec, *patterns):
    return spec.table(
        *(
            spec.route(f"r{at}", spec.rule(to=pattern), hosts=[] if pattern == "any" else [pattern])
            for at, pattern in enumerate(patterns)
        )
    )


@pytest.mark.parametrize(
    ("host", "wanted"),
    [
        ("shop.example.com", "shop.example.com"),
        ("other.example.com", "*.example.com"),
        ("deep.er.example.com", "*.example.com"),
        ("a.shop.example.com", "*.shop.example.com"),
        ("b.a.shop.example.com", "*.shop.example.com"),
        ("example.com", "any"),
        ("xexample.com", "any"),
        (".example.com", "any"),
        ("com", "any"),
        ("[2001:db8::1]", "any"),
        ("", "any"),
    ],
)
def test_the_most_specific_host_wins(spec, host, wanted):
    table = hosts_table(spec, "any", "*.example.com", "*.shop.example.com", "shop.example.com")
    assert spec.chosen(table, spec.request("GET", "/", host)) == wanted


def test_a_request_falls_through_to_less_specific_hosts(spec):
    table = spec.table(
        spec.route("exact", spec.rule(spec.match("/exact"), to="exact"), hosts=["a.x.com"]),
        spec.route("long", spec.rule(spec.match("/long"), to="long"), hosts=["*.x.com"]),
        spec.route("short", spec.rule(spec.match("/short"), to="short"), hosts=["*.com"]),
        spec.route("any", spec.rule(spec.match("/any"), to="any")),
    )
    for path in ("exact", "long", "short", "any"):
        assert spec.chosen(table, spec.request("GET", f"/{path}", "a.x.com")) == path
    assert spec.chosen(table, spec.request("GET", "/none", "a.x.com")) is None


def test_a_better_path_at_a_less_specific_host_does_not_win(spec):
    table = spec.table(
        spec.route("wild", spec.rule(spec.match("/a/b", "Exact"), to="wild"), hosts=["*.x.com"]),
        spec.route("exact", spec.rule(spec.match("/"), to="exact"), hosts=["a.x.com"]),
    )
    assert spec.chosen(table, spec.request("GET", "/a/b", "a.x.com")) == "exact"


def test_a_host_longer_than_any_name_is_not_looked_for_among_wildcards(spec):
    table = hosts_table(spec, "*.x.com", "any")
    longest = "a" * (MAX_HOST - len(".x.com")) + ".x.com"
    assert spec.chosen(table, spec.request("GET", "/", longest)) == "*.x.com"
    assert spec.chosen(table, spec.request("GET", "/", "a" + longest)) == "any"


def test_routes_of_the_same_host_are_one_list(spec):
    table = spec.table(
        spec.route("one", spec.rule(spec.match("/a"), to="one"), hosts=["x.com", "y.com"]),
        spec.route("two", spec.rule(spec.match("/a/b"), to="two"), hosts=["x.com"]),
    )
    assert spec.chosen(table, spec.request("GET", "/a/b", "x.com")) == "two"
    assert spec.chosen(table, spec.request("GET", "/a/b", "y.com")) == "one"


# --- paths -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("value", ["/abc", "/abc/"])
@pytest.mark.parametrize(
    ("path", "met"), [("/abc", True), ("/abc/", True), ("/abc/d", True), ("/abcd", False), ("/", False)]
)
def test_a_prefix_goes_by_whole_elements(spec, value, path, met):
    table = spec.table(spec.route("r", spec.rule(spec.match(value))))
    assert (table.match(spec.request("GET", path)) is not None) == met


def test_the_longest_prefix_wins_however_deep_the_path(spec):
    prefixes = ["/", "/a", "/a/b", "/a/b/c/d"]
    table = spec.table(spec.route("r", *(spec.rule(spec.match(prefix), to=prefix) for prefix in prefixes)))
    for path, wanted in [
        ("/a/b/c/d/e/f/g", "/a/b/c/d"),
        ("/a/b/c/d", "/a/b/c/d"),
        ("/a/b/c", "/a/b"),
        ("/a/b/c/dd", "/a/b"),
        ("/a/x/c/d/e", "/a"),
        ("/aa/b", "/"),
        ("/", "/"),
    ]:
        assert spec.chosen(table, spec.request("GET", path)) == wanted


def test_exact_goes_before_expression_before_prefix(spec):
    table = spec.table(
        spec.route(
            "r",
            spec.rule(spec.match("/a/b/c"), to="prefix"),
            spec.rule(spec.match("/a/.*", "RegularExpression"), to="expression"),
            spec.rule(spec.match("/a/b/c", "Exact"), to="exact"),
        )
    )
    assert spec.chosen(table, spec.request("GET", "/a/b/c")) == "exact"
    assert spec.chosen(table, spec.request("GET", "/a/b/c/")) == "expression"


def test_the_longer_expression_goes_first_then_the_order_of_the_file(spec):
    table = spec.table(
        spec.route(
            "r",
            spec.rule(spec.match("/.*", "RegularExpression"), to="short"),
            spec.rule(spec.match("/[ab]{1}", "RegularExpression"), to="first"),
            spec.rule(spec.match("/[bc]{1}", "RegularExpression"), to="second"),
        )
    )
    assert spec.chosen(table, spec.request("GET", "/b")) == "first"
    assert spec.chosen(table, spec.request("GET", "/c")) == "second"
    assert spec.chosen(table, spec.request("GET", "/d")) == "short"


def test_an_expression_matches_the_whole_path_and_only_with_its_conditions(spec):
    table = spec.table(spec.route("r", spec.rule(spec.match("/a+", "RegularExpression", method="PUT"))))
    assert table.match(spec.request("PUT", "/aaa")) is not None
    assert table.match(spec.request("PUT", "/aaab")) is None
    assert table.match(spec.request("PUT", "/b/aaa")) is None
    assert table.match(spec.request("GET", "/aaa")) is None


def test_a_path_that_is_percent_encoded_in_the_file_meets_the_same_on_the_wire(spec):
    table = spec.table(
        spec.route(
            "r",
            spec.rule(spec.match("/caf%C3%A9"), to="prefix"),
            spec.rule(spec.match("/%61", "Exact"), to="exact"),
        )
    )
    assert spec.chosen(table, spec.request("GET", "/caf%C3%A9/menu")) == "prefix"
    assert spec.chosen(table, spec.request("GET", "/a")) == "exact"


# --- conditions ------------------------------------------------------------------------------------------------------
def test_without_a_matching_condition_a_shorter_prefix_is_tried(spec):
    table = spec.table(
        spec.route(
            "r", spec.rule(spec.match("/a/b", headers={"x": "1"}), to="deep"), spec.rule(spec.match("/a"), to="shallow")
        )
    )
    assert spec.chosen(table, spec.request("GET", "/a/b", headers={"x": "1"})) == "deep"
    assert spec.chosen(table, spec.request("GET", "/a/b")) == "shallow"


RANKED = [
    ("a method", {"method": "GET"}),
    ("two headers", {"headers": {"h1": "1", "h2": "1"}}),
    ("a header and a cookie", {"headers": {"h1": "1"}, "cookies": {"c1": "1"}}),
    ("a header and two parameters", {"headers": {"h1": "1"}, "params": {"q1": "1", "q2": "1"}}),
    ("two cookies", {"cookies": {"c1": "1", "c2": "1"}}),
    ("a cookie and a parameter", {"cookies": {"c1": "1"}, "params": {"q1": "1"}}),
    ("two parameters", {"params": {"q1": "1", "q2": "1"}}),
    ("a parameter", {"params": {"q1": "1"}}),
    ("nothing", {}),
]


@pytest.mark.parametrize(
    ("better", "worse"),
    [pytest.param(one[1], two[1], id=f"{one[0]} before {two[0]}") for one, two in itertools.pairwise(RANKED)],
)
def test_more_conditions_go_first_wherever_they_stand(spec, better, worse):
    request = spec.request("GET", "/?q1=1&q2=1", headers={"h1": "1", "h2": "1"}, cookies={"c1": "1", "c2": "1"})
    rules = [spec.rule(spec.match(**better), to="better"), spec.rule(spec.match(**worse), to="worse")]
    for ordered in (rules, rules[::-1]):
        assert spec.chosen(spec.table(spec.route("r", *ordered)), request) == "better"


def test_of_equals_the_first_in_the_file_wins(spec):
    rules = [spec.rule(spec.match(method="GET"), to=name) for name in ("first", "second")]
    assert spec.chosen(spec.table(spec.route("r", *rules)), spec.request("GET", "/")) == "first"
    routes = [spec.route(name, spec.rule(spec.match(headers={"a": "1"}), to=name)) for name in ("first", "second")]
    assert spec.chosen(spec.table(*routes), spec.request("GET", "/", headers={"a": "1"})) == "first"


def test_of_a_name_listed_twice_the_first_counts_and_it_counts_once(spec):
    twice = spec.match()
    twice["headers"] = [*spec.values({"X-A": "1"}), *spec.values({"x-a": "2"})]
    table = spec.table(
        spec.route("r", spec.rule(spec.match(headers={"y": "1"}), to="one"), spec.rule(twice, to="twice"))
    )
    assert spec.chosen(table, spec.request("GET", "/", headers={"x-a": "1"})) == "twice"
    assert spec.chosen(table, spec.request("GET", "/", headers={"x-a": "2"})) is None
    assert spec.chosen(table, spec.request("GET", "/", headers={"x-a": "1", "y": "1"})) == "one"


@pytest.mark.parametrize("kind", ["headers", "cookies", "params"])
def test_values_match_exactly_or_by_a_whole_expression(spec, kind):
    def ask(value):
        if kind == "params":
            return spec.request("GET", f"/?n={value}")
        return spec.request("GET", "/", **{kind: {"n": value}})

    table = spec.table(
        spec.route(
            "r",
            spec.rule(spec.match(**{kind: {"n": "exact"}}), to="exact"),
            spec.rule(spec.match(**{kind: {"n": "~v[0-9]+"}}), to="expression"),
        )
    )
    for value, wanted in [
        ("exact", "exact"),
        ("v12", "expression"),
        ("v", None),
        ("xv12", None),
        ("v12x", None),
        ("Exact", None),
    ]:
        assert spec.chosen(table, ask(value)) == wanted
    assert spec.chosen(table, spec.request("GET", "/")) is None


def test_cookie_and_parameter_names_have_a_case(spec):
    table = spec.table(
        spec.route("r", spec.rule(spec.match(cookies={"Beta": "1"})), spec.rule(spec.match(params={"Beta": "1"})))
    )
    assert table.match(spec.request("GET", "/", cookies={"Beta": "1"})) is not None
    assert table.match(spec.request("GET", "/?Beta=1")) is not None
    assert table.match(spec.request("GET", "/", cookies={"beta": "1"})) is None
    assert table.match(spec.request("GET", "/?beta=1")) is None


# --- regular expressions ---------------------------------------------------------------------------------------------
def test_an_expression_matches_octets_so_nothing_invalid_slips_past():
    matches = compile_pattern(".*Firefox.*")
    assert matches(b"Mozilla Firefox/1")
    assert matches(b"\xff Firefox \n\xfe")
    assert compile_pattern("caf\u00e9+")("caf\u00e9".encode())


def test_a_value_too_long_to_look_at_matches_nothing():
    matches = compile_pattern("a*")
    assert matches(b"a" * MAX_SUBJECT)
    assert not matches(b"a" * (MAX_SUBJECT + 1))


@pytest.mark.parametrize("value", ["(", "a{2000}", "(?=x)", r"(a)\1", "(?:(?:a{1,30}){1,30}b{1,30}){1,9}"])
def test_an_expression_that_is_wrong_or_too_complex_is_refused_with_the_reason(value):
    with pytest.raises(ConfigError) as refused:
        compile_pattern(value)
    assert str(refused.value)


def test_an_expression_has_a_bounded_program():
    compile_pattern("[ab]" * (MAX_PROGRAM // 2))
    with pytest.raises(ConfigError, match="too complex"):
        compile_pattern("[ab]" * (MAX_PROGRAM + 1))


# --- for people ------------------------------------------------------------------------------------------------------
def test_the_order_is_told_as_it_is_tried(spec):
    table = spec.table(
        spec.route("any", spec.rule(name="all")),
        spec.route(
            "shop",
            spec.rule(
                spec.match("/new", method="GET", headers={"User-Agent": "~.*x.*"}, params={"p": "1"}), name="new"
            ),
            spec.rule(spec.match("/new/deep", cookies={"beta": "1"}), name="deep"),
            spec.rule(spec.match("/[0-9]+", "RegularExpression"), name="number"),
            spec.rule(spec.match("/new", "Exact"), name="exact"),
            hosts=["*.x.com", "shop.x.com"],
        ),
        spec.route("long", spec.rule(), hosts=["*.long.x.com"]),
    )
    lines = [(line.host, line.match, line.rule.name) for line in table.order()]
    shop = [
        ("Exact /new", "exact"),
        ("RegularExpression /[0-9]+", "number"),
        ("PathPrefix /new/deep, cookie beta = 1", "deep"),
        ("PathPrefix /new, GET, header user-agent ~ .*x.*, query p = 1", "new"),
    ]
    assert lines == [
        *(("shop.x.com", *line) for line in shop),
        ("*.long.x.com", "PathPrefix /", "0"),
        *(("*.x.com", *line) for line in shop),
        ("*", "PathPrefix /", "all"),
    ]
    assert not any(line.shadowed for line in table.order())


def test_the_order_says_what_can_never_be_met(spec):
    table = spec.table(
        spec.route(
            "r",
            spec.rule(spec.match("/a", headers={"x": "1"}), name="0"),
            spec.rule(spec.match("/a/", headers={"X": "1"}), name="same"),
            spec.rule(spec.match("/a"), name="2"),
            spec.rule(spec.match("/a"), name="behind"),
            spec.rule(spec.match("/b"), name="4"),
        )
    )
    assert {line.rule.name for line in table.order() if line.shadowed} == {"same", "behind"}


# --- against a slow and obvious reference ----------------------------------------------------------------------------
LABELS, ELEMENTS, VALUES = ("a", "b", "x"), ("a", "b", "ab"), ("1", "2")
hosts = st.lists(st.sampled_from(LABELS), min_size=1, max_size=3).map(".".join)
patterns = hosts | hosts.map("*.{}".format)
paths = st.lists(st.sampled_from(ELEMENTS), max_size=3).map(lambda parts: "/" + "/".join(parts))
expressions = st.sampled_from(["/a.*", "/.*b", "/(a|b)/a", ".*", "/[ab]+"])
conditions = st.dictionaries(st.sampled_from(("n", "m")), st.sampled_from((*VALUES, "~[12]", "~1.*")), max_size=2)


@st.composite
def matches(draw):
    kind = draw(st.sampled_from(("PathPrefix", "PathPrefix", "Exact", "RegularExpression")))
    slash = draw(st.sampled_from(("", "/"))) if kind == "PathPrefix" else ""
    return {
        "path": draw(expressions) if kind == "RegularExpression" else draw(paths).rstrip("/") + (slash or "") or "/",
        "kind": kind,
        "method": draw(st.sampled_from((None, None, "GET", "PUT"))),
        "headers": draw(conditions),
        "cookies": draw(conditions),
        "params": draw(conditions),
    }


routes = st.lists(
    st.tuples(
        st.lists(patterns, max_size=2), st.lists(st.lists(matches(), min_size=1, max_size=2), min_size=1, max_size=3)
    ),
    max_size=5,
)
values = st.dictionaries(st.sampled_from(("n", "m")), st.sampled_from((*VALUES, "12")), max_size=2)
requests = st.tuples(st.sampled_from(("GET", "PUT")), paths, hosts, values, values, values, st.sampled_from(("", "/")))


def obvious(routes, request):
    """Return (route, rule) by sorting everything that matches."""
    method, path, host, headers, cookies, params = request
    found = []
    order = 0
    for route, (patterns, rules) in enumerate(routes):
        for rule, alternatives in enumerate(rules):
            for match in alternatives:
                order += 1
                place = (
                    host_rank(patterns, host),
                    path_rank(match, path),
                    conditions_rank(match, method, headers, cookies, params),
                )
                if None not in place:
                    found.append((*place, -order, (route, rule)))
    return max(found)[-1] if found else None


def host_rank(patterns, host):
    ranks = [(2, 0) if pattern == host else (1, len(pattern)) for pattern in patterns if covers(pattern, host)]
    return max(ranks, default=None) if patterns else (0, 0)


def covers(pattern, host):
    return host == pattern or (pattern.startswith("*.") and host.endswith(pattern[1:]))


def path_rank(match, path):
    value, kind = match["path"], match["kind"]
    if kind == "Exact":
        return (3, 0) if path == value else None
    if kind == "RegularExpression":
        return (2, len(value)) if re.fullmatch(value, path) else None
    wanted = [element for element in value.split("/") if element]
    return (1, len(wanted)) if path.split("/")[1 : len(wanted) + 1] == wanted else None


def conditions_rank(match, method, *given):
    if match["method"] not in {None, method}:
        return None
    for wanted, present in zip((match["headers"], match["cookies"], match["params"]), given, strict=True):
        for name, value in wanted.items():
            if name not in present or not re.fullmatch(value.removeprefix("~"), present[name]):
                return None
    return match["method"] is not None, len(match["headers"]), len(match["cookies"]), len(match["params"])


@settings(max_examples=100, deadline=None)
@given(routes=routes, asked=st.lists(requests, min_size=1, max_size=8))
def test_the_table_agrees_with_the_obvious_way(spec, routes, asked):
    plain = [
        spec.route(
            str(at),
            *(
                spec.rule(
                    *(spec.match(match["path"], match["kind"], **rest(match)) for match in alternatives), name=str(rule)
                )
                for rule, alternatives in enumerate(rules)
            ),
            hosts=patterns,
        )
        for at, (patterns, rules) in enumerate(routes)
    ]
    table = spec.table(*plain)
    for method, path, host, headers, cookies, params, slash in asked:
        path = path.rstrip("/") + slash or "/"
        target = path + "?" + "&".join(f"{name}={value}" for name, value in params.items())
        rule = table.match(spec.request(method, target, host, headers, cookies))
        met = None if rule is None else (int(rule.route), int(rule.name))
        assert met == obvious(routes, (method, path, host, headers, cookies, params))


def rest(match):
    return {key: match[key] for key in ("method", "headers", "cookies", "params")}
