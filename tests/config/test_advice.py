"""What is allowed but hardly meant: warnings, above all matches that can never win."""

import pytest


def advice(load_text, text):
    return [(warning.path, warning.message) for warning in load_text(text).warnings]


def shadowed(load_text, good, routes):
    """Return the paths of matches that never win, and what is said."""
    found = advice(
        load_text, f"{good}\nroutes:\n{routes}\n  - {{name: z, rules: [{{backendRefs: [{{name: a}}, {{name: b}}]}}]}}"
    )
    return [(path, message) for path, message in found if "never match" in message]


def route(name, *matches, hosts="h.x"):
    rules = ", ".join(f"{{backendRefs: [{{name: a}}], matches: [{match}]}}" for match in matches)
    return f"  - {{name: {name}, hostnames: [{hosts}], rules: [{rules}]}}"


def test_a_good_file_has_no_warnings(load_text, good):
    assert advice(load_text, good + "routes: [{name: r, rules: [{backendRefs: [{name: a}, {name: b}]}]}]") == []


def test_no_route_is_a_warning(load_text):
    assert advice(load_text, "listeners: [{address: ':80'}]") == [
        ("routes", "there is no route, so every request is answered with 404")
    ]


def test_an_upstream_that_no_rule_uses_is_a_warning(load_text, good):
    found = advice(load_text, good + "routes: [{name: r, rules: [{backendRefs: [{name: a}]}]}]")
    assert found == [("upstreams[1].name", "no rule uses the upstream 'b'")]


@pytest.mark.parametrize(
    "use",
    [
        "filters: [{type: RequestMirror, requestMirror: {backendRef: {name: b}}}]",
        "split: {overrides: [{header: x, value: y, upstream: b}]}",
    ],
)
def test_mirrors_and_overrides_use_an_upstream_too(load_text, good, use):
    assert advice(load_text, good + f"routes: [{{name: r, rules: [{{backendRefs: [{{name: a}}], {use}}}]}}]") == []


@pytest.mark.parametrize(
    ("inside", "path", "message"),
    [
        ("{}", "routes[0].rules[0]", "this rule has no backendRefs: its requests are answered with 500"),
        ("{backendRefs: []}", "routes[0].rules[0]", "this rule has no backendRefs"),
        (
            "{backendRefs: [{name: a, weight: 0}]}",
            "routes[0].rules[0].backendRefs",
            "all weights of this rule are zero",
        ),
    ],
)
def test_a_rule_without_a_usable_weight_is_a_warning(load_text, good, inside, path, message):
    found = advice(load_text, good + f"routes: [{{name: r, rules: [{inside}]}}]")
    assert any(place == path and message in said for place, said in found)


@pytest.mark.parametrize(
    ("inside", "paths"),
    [
        ("{backendRefs: [{name: a}], split: {failover: true}}", ["routes[0].rules[0].split.failover"]),
        ("{backendRefs: [{name: a}, {name: b}], split: {failover: true}}", []),
        ("{backendRefs: [{name: a}], split: {failover: true, overrides: [{header: x, value: y, upstream: b}]}}", []),
    ],
)
def test_failover_without_another_upstream_is_a_warning(load_text, good, inside, paths):
    other = "{backendRefs: [{name: b}], matches: [{method: GET}]}"
    found = advice(load_text, good + f"routes: [{{name: r, rules: [{inside}, {other}]}}]")
    assert [path for path, message in found if "fail over" in message] == paths


def test_a_redirect_needs_no_weight(load_text):
    text = "listeners: [{address: ':80'}]\nroutes: [{name: r, rules: [{filters: [{type: RequestRedirect, "
    assert advice(load_text, text + "requestRedirect: {scheme: https}}]}]}]") == []


def test_an_admin_api_that_is_open_to_others_is_a_warning(load_text, good):
    found = advice(load_text, good + "admin: {address: ':9900', insecure: true}")
    assert any(path == "admin.insecure" and "anybody" in message for path, message in found)


def test_an_upstream_that_is_this_proxy_is_a_warning(load_text):
    found = advice(
        load_text,
        """
        listeners: [{address: ":8080"}]
        upstreams: [{name: a, endpoints: ["http://x:1", "http://localhost:8080"]}]
        routes: [{name: r, rules: [{backendRefs: [{name: a}]}]}]
    """,
    )
    assert found == [
        (
            "upstreams[0].endpoints[1]",
            "this is the listener 0.0.0.0:8080 of this very proxy: requests may go round in circles",
        )
    ]


def test_a_name_twice_in_a_match_is_a_warning(load_text, good):
    match = "{headers: [{name: x, value: a}, {name: X, value: b}], cookies: [{name: x, value: a}, {name: X, value: b}]}"
    found = advice(
        load_text,
        good + f"routes: [{{name: r, rules: [{{matches: [{match}], backendRefs: [{{name: a}}, {{name: b}}]}}]}}]",
    )
    assert found == [
        ("routes[0].rules[0].matches[0].headers[1]", "'X' stands twice in this match: only the first counts")
    ]


EVERYTHING = "{path: {type: RegularExpression, value: '.*'}}"
BELOW = "{path: {type: RegularExpression, value: '/a/.*'}}"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("{path: {value: /a}}", "{path: {value: /a}}"),
        ("{path: {value: /a}}", "{path: {value: /a/}}"),
        ("{path: {value: /a}}", "{path: {value: /%61}}"),
        ("{}", "{path: {value: /}}"),
        ("{path: {type: Exact, value: /a}}", "{path: {type: Exact, value: /a}}"),
        ("{method: GET}", "{method: GET}"),
        ("{headers: [{name: x, value: '1'}]}", "{headers: [{name: X, value: '1'}]}"),
        (
            "{headers: [{name: x, value: '1'}, {name: y, value: '2'}]}",
            "{headers: [{name: y, value: '2'}, {name: x, value: '1'}, {name: x, value: '3'}]}",
        ),
        (EVERYTHING, EVERYTHING),
        (EVERYTHING, "{path: {value: /}}"),
        (EVERYTHING, "{path: {value: /a/b}, method: GET, headers: [{name: x, value: '1'}]}"),
        (BELOW, "{path: {value: /a/b}}"),
    ],
)
def test_a_match_that_an_earlier_one_takes_everything_from_can_never_win(load_text, good, first, second):
    ((path, message),) = shadowed(load_text, good, route("r", first, second))
    assert path == "routes[0].rules[1].matches[0]"
    assert "this can never match: routes[0].rules[0].matches[0] (line 8) takes all its requests" in message


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("{path: {value: /a}}", "{path: {value: /b}}"),
        ("{path: {value: /}}", "{path: {value: /a}}"),
        ("{path: {value: /a}}", "{path: {type: Exact, value: /a}}"),
        ("{path: {value: /a}}", "{path: {value: /a}, method: GET}"),
        ("{method: GET}", "{}"),
        ("{method: GET}", "{method: PUT}"),
        ("{headers: [{name: x, value: '1'}]}", "{headers: [{name: x, value: '2'}]}"),
        ("{headers: [{name: x, value: '1'}]}", "{cookies: [{name: x, value: '1'}]}"),
        ("{cookies: [{name: x, value: '1'}]}", "{cookies: [{name: X, value: '1'}]}"),
        ("{headers: [{name: x, value: '1'}]}", "{headers: [{name: x, type: RegularExpression, value: '1'}]}"),
        (EVERYTHING, "{path: {type: Exact, value: /a}}"),
        (EVERYTHING, BELOW),
        (EVERYTHING.replace("}}", "}, method: GET}"), "{path: {value: /a}}"),
        (BELOW, "{path: {value: /a}}"),
        (BELOW, "{path: {value: /ab}}"),
    ],
)
def test_a_match_that_has_requests_of_its_own_is_no_warning(load_text, good, first, second):
    assert shadowed(load_text, good, route("r", first, second)) == []


def test_an_expression_shadows_prefixes_wherever_it_stands(load_text, good):
    ((path, _),) = shadowed(load_text, good, route("r", "{path: {value: /a}}", EVERYTHING))
    assert path == "routes[0].rules[0].matches[0]"


def test_a_more_specific_host_is_not_shadowed(load_text, good):
    routes = "\n".join([route("r", "{}", hosts="'*.x'"), route("s", "{}", hosts="h.x")])
    assert shadowed(load_text, good, routes) == []


def test_the_hosts_are_named_when_only_some_are_shadowed(load_text, good):
    routes = "\n".join([route("r", "{}", hosts="a.x, b.x"), route("s", "{}", hosts="b.x, c.x")])
    ((path, message),) = shadowed(load_text, good, routes)
    assert path == "routes[1].rules[0].matches[0]"
    assert "this can never match for b.x: routes[0].rules[0].matches[0] (line 8)" in message


def test_two_routes_without_hosts_or_matches_shadow_each_other(load_text, good):
    found = advice(load_text, good + "routes: [{name: r, rules: [{backendRefs: [{name: a}, {name: b}]}]}, "
                   "{name: s, rules: [{backendRefs: [{name: a}]}]}]")  # fmt: skip
    assert [path for path, _ in found] == ["routes[1].rules[0]"]
