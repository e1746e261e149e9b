"""Whatever is in a file, loading it ends in a configuration or in a ConfigError with readable reasons."""

from hypothesis import HealthCheck, given, settings, strategies as st

from splitproxy.config import load
from splitproxy.config.schema import document
from splitproxy.core.rollout.stages import compile_plan
from splitproxy.errors import ConfigError


def flow(mapping):
    """Return a mapping of texts as YAML."""
    return f"{{{', '.join(f'{key}: {value}' for key, value in mapping.items())}}}"


BOUNDED = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def outcome(file):
    """Load a file; return the problems, none when it is good."""
    try:
        load(file, {"A": "1"})
    except ConfigError as error:
        problems = error.args[0]
        assert problems
        for problem in problems:
            text = str(problem)
            assert problem.message
            assert all(letter.isprintable() or letter == "\n" for letter in text)
        return problems
    return []


@BOUNDED
@given(data=st.binary(max_size=200))
def test_any_bytes(tmp_path, data):
    file = tmp_path / "any.yaml"
    file.write_bytes(data)
    outcome(file)


@BOUNDED
@given(text=st.text(alphabet="ab: -[]{}\n\t\"'|>#&*!?%@,~$01.\\x", max_size=120))
def test_any_text_that_looks_like_yaml(tmp_path, text):
    file = tmp_path / "any.yaml"
    file.write_text(text)
    outcome(file)


def _keys(schema):
    for form in [schema, *schema["$defs"].values()]:
        yield from form.get("properties", ())


SCALARS = st.one_of(
    st.sampled_from(
        [
            *(
                "",
                "~",
                "no",
                "010",
                "1:30",
                "1.10",
                "true",
                "-1",
                "1e9",
                "${A}",
                "${B}",
                "${B:-x}",
                "${",
                "*x",
                "/",
                "/a//",
            ),
            *(
                "a",
                "*.a.b",
                "127.0.0.1:80",
                "http://a:80",
                "http://[",
                "PathPrefix",
                "RegularExpression",
                "'('",
                "Exact",
            ),
            *(
                "RequestMirror",
                "RequestRedirect",
                "URLRewrite",
                "ReplacePrefixMatch",
                "64Ki",
                "10s",
                "99999h",
                "'\\ud800'",
            ),
        ]
    ),
    st.integers().map(str),
    st.floats().map(str),
    st.text(max_size=8).map(lambda text: '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'),
)
KEYS = st.sampled_from(sorted(set(_keys(document()))))
TREES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
        st.dictionaries(KEYS, inner, max_size=4).map(
            lambda items: f"{{{', '.join(f'{key}: {value}' for key, value in items.items())}}}"
        ),
    ),
    max_leaves=12,
)


@BOUNDED
@given(tree=st.dictionaries(st.sampled_from(sorted(document()["properties"])), TREES, max_size=5))
def test_any_tree_of_known_keys(tmp_path, tree):
    file = tmp_path / "any.yaml"
    file.write_text("\n".join(f"{key}: {value}" for key, value in tree.items()), errors="surrogatepass")
    outcome(file)


@BOUNDED
@given(inside=TREES)
def test_any_rule(tmp_path, inside):
    file = tmp_path / "any.yaml"
    text = "listeners: [{address: ':80'}]\nroutes:\n  - name: r\n    rules:\n      - " + inside
    file.write_text(text, errors="surrogatepass")
    outcome(file)


@BOUNDED
@given(inside=TREES, analysis=TREES)
def test_any_rollout(tmp_path, inside, analysis):
    file = tmp_path / "any.yaml"
    text = f"""
listeners: [{{address: ':80'}}]
upstreams: [{{name: a, endpoints: ['http://a:80']}}, {{name: b, endpoints: ['http://b:80']}}]
routes: [{{name: r, rules: [{{backendRefs: [{{name: a}}]}}]}}]
rollouts:
  - {{name: x, route: r, primary: a, canary: b, analysis: {analysis}}}
  - {inside}"""
    file.write_text(text, errors="surrogatepass")
    outcome(file)


METRICS = st.fixed_dictionaries(
    {"name": st.sampled_from(["request-success-rate", "request-duration", "x"])},
    optional={
        "thresholdRange": st.sampled_from(["{min: 1}", "{max: 2}", "{min: 2, max: 1}"]),
        "hardRange": st.sampled_from(["{min: 0}", "{max: 1}"]),
        "threshold": st.just("5"),
        "templateRef": st.sampled_from(["{name: t}", "{name: u}"]),
        "templateVariables": st.just("{z: a}"),
        "quantile": st.just("0.5"),
    },
)
ANALYSES = st.fixed_dictionaries(
    {},
    optional={
        "iterations": st.sampled_from(["0", "3"]),
        "stepWeight": st.sampled_from(["0", "20"]),
        "maxWeight": st.sampled_from(["0", "10", "50"]),
        "stepWeights": st.sampled_from(["[]", "[1, 5]", "[5, 1]"]),
        "steps": st.sampled_from(["[{pause: {}}]", "[{setWeight: 5, metrics: [{name: x, thresholdRange: {min: 1}}]}]"]),
        "match": st.sampled_from(["[{sourceLabels: {a: b}}]", "[{headers: {a: {prefix: b}}}]"]),
        "rings": st.just("[{match: [{cookies: {a: {suffix: b}}}]}]"),
        "mirror": st.sampled_from(["true", "false"]),
        "mirrorWeight": st.just("0"),
        "metrics": st.lists(METRICS.map(flow), max_size=2).map(lambda items: f"[{', '.join(items)}]"),
        "webhooks": st.sampled_from(
            ["[{name: a}]", "[{name: a, type: confirm-rollout}]", "[{name: a, url: 'http://x'}]"]
        ),
        "sessionAffinity": st.just("{cookieName: c}"),
    },
)


@BOUNDED
@given(analysis=ANALYSES, skipped=st.booleans())
def test_any_analysis_is_refused_or_can_be_planned(tmp_path, analysis, skipped):
    file = tmp_path / "any.yaml"
    file.write_text(f"""
listeners: [{{address: ':80'}}]
upstreams: [{{name: a, endpoints: ['http://a:80']}}, {{name: b, endpoints: ['http://b:80']}}]
routes: [{{name: r, rules: [{{backendRefs: [{{name: a}}]}}]}}]
metricTemplates: [{{name: t, provider: {{type: web, address: 'http://p'}}, query: '?z={{{{ variables.z }}}}'}}]
rollouts:
  - {{name: x, route: r, primary: a, canary: b, skipAnalysis: {str(skipped).lower()}, analysis: {flow(analysis)}}}
""")
    if outcome(file):
        return
    plan = compile_plan(load(file, {}).plain["rollouts"][0])
    assert plan.stages or skipped
    weights = [stage.weight for stage in plan.stages]
    assert weights == sorted(weights)
