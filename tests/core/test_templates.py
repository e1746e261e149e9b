import re

import pytest
from hypothesis import given, strategies as st

from splitproxy.core.templates import NAMES, duration, render, values, variables_of

ROLLOUT = {"name": "shop-release", "route": "shop", "primary": "shop-v1", "canary": "shop-v2"}
QUERY = '100 * sum(rate(errors_total{version="{{ canary }}",region="{{variables.region}}"}[{{\tinterval }}]))'


def test_names_are_found_and_replaced():
    assert variables_of(QUERY) == {"canary", "variables.region", "interval"}
    assert render(QUERY, values(ROLLOUT, 60.0, {"region": "eu-1"})) == (
        '100 * sum(rate(errors_total{version="shop-v2",region="eu-1"}[60s]))'
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("name", "shop-release"),
        ("namespace", ""),
        ("target", "shop-v2"),
        ("service", "shop"),
        ("route", "shop"),
        ("primary", "shop-v1"),
        ("canary", "shop-v2"),
        ("interval", "1500ms"),
    ],
)
def test_every_name_has_its_meaning(name, value):
    assert render(f"<{{{{ {name} }}}}>", values(ROLLOUT, 1.5, {})) == f"<{value}>"


def test_every_name_has_a_value():
    assert set(values(ROLLOUT, 1.0, {})) == NAMES


@pytest.mark.parametrize("query", ["", "up", "sum by (a) (x{b='c'})", "}}", "{ {target} }", "a{b='}}'}"])
def test_what_has_no_names_stays(query):
    assert variables_of(query) == set()
    assert render(query, {}) == query


def test_a_value_is_not_looked_into():
    assert render("{{ variables.a }}", {"variables.a": "{{ canary }} \\1"}) == "{{ canary }} \\1"


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("{{ targte }}", "at character 1: 'targte' is unknown; known are canary, "),
        ("rate(x[{{ interval ]))", "at character 8: '{{' is not closed: write '{{ name }}'"),
        ("{{ a {{ target }}", "at character 1: '{{' is not closed"),
        ("up{{", "at character 3: '{{' is not closed"),
        ("{{ }}", "at character 1: '' is unknown"),
        ("{{ .target }}", "at character 1: '.target' is unknown"),
        ("{{ variables }}", "at character 1: 'variables' is unknown"),
        ("{{ variables. }}", "at character 1: 'variables.' is unknown"),
        ("x {{ ingress }}", "at character 3: 'ingress' means nothing outside Kubernetes: write the value itself"),
    ],
)
def test_what_makes_no_sense_is_an_error_with_its_place(query, error):
    with pytest.raises(ValueError, match=re.escape(error)):
        variables_of(query)
    with pytest.raises(ValueError, match=re.escape(error)):
        render(query, values(ROLLOUT, 1.0, {}))


def test_a_variable_without_a_value_is_an_error():
    with pytest.raises(ValueError, match=r"'variables\.region' has no value: give it in templateVariables"):
        render(QUERY, values(ROLLOUT, 60.0, {}))


@given(st.text(st.sampled_from("{}} ta.variables"), max_size=40))
def test_a_query_either_renders_or_says_why_not(query):
    try:
        names = variables_of(query)
    except ValueError as error:
        said = str(error)
    else:
        said = f"rendered: {render(query, dict.fromkeys(names, 'value'))}"
    assert said.startswith("at character ") or ("{{" not in said and said.startswith("rendered: "))


@pytest.mark.parametrize(
    ("seconds", "text"), [(1, "1s"), (90, "90s"), (0.25, "250ms"), (0.1 + 0.2, "300ms"), (1.0001, "1001ms"), (0, "1ms")]
)
def test_a_duration_is_written_as_promql_has_it(seconds, text):
    assert duration(seconds) == text
