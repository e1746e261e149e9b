"""Where spans go and which requests are recorded: the file, then OpenTelemetry's variables, then the defaults."""

import pytest

from splitproxy.config import load
from splitproxy.config.tracing import settle
from splitproxy.errors import ConfigError

TEXT = """
listeners: [{{address: 127.0.0.1:8080}}]
upstreams: [{{name: a, endpoints: [http://127.0.0.1:9001]}}]
routes: [{{name: shop, rules: [{{backendRefs: [{{name: a}}]}}]}}]
{block}
"""
DEFAULTS = {
    "endpoint": "http://localhost:4318/v1/traces",
    "headers": {},
    "timeout": 10.0,
    "sampler": "parentbased_always_on",
    "ratio": 1.0,
    "serviceName": "splitproxy",
    "resource": {},
    "query": "names",
}
BASE, OWN = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"


@pytest.fixture
def loaded(tmp_path):
    def write(block="", env=()):
        file = tmp_path / "proxy.yaml"
        file.write_text(TEXT.format(block=block))
        return load(file, dict(env))

    return write


@pytest.mark.parametrize(
    ("block", "env", "expected"),
    [
        ("", {}, None),
        ("tracing: {}", {}, {}),
        ("", {BASE: "http://otel:4318"}, {"endpoint": "http://otel:4318/v1/traces"}),
        ("", {BASE: "http://otel:4318/base/"}, {"endpoint": "http://otel:4318/base/v1/traces"}),
        ("", {BASE: "http://one:1", OWN: "http://other:2/as/it/is"}, {"endpoint": "http://other:2/as/it/is"}),
        ("", {BASE: ""}, None),
        ("tracing: {}", {"OTEL_SDK_DISABLED": "TRUE"}, None),
        ("tracing: {}", {"OTEL_TRACES_EXPORTER": "none"}, None),
        ("tracing: {}", {"OTEL_TRACES_EXPORTER": "otlp"}, {}),
        ("tracing: {endpoint: 'http://a:1'}", {BASE: "http://b:2"}, {"endpoint": "http://a:1/v1/traces"}),
        ("tracing: {endpoint: 'http://a:1/'}", {}, {"endpoint": "http://a:1/v1/traces"}),
        ("tracing: {endpoint: 'https://a/own'}", {}, {"endpoint": "https://a/own"}),
        ("tracing: {ratio: 0.25}", {}, {"sampler": "parentbased_traceidratio", "ratio": 0.25}),
        ("tracing: {sampler: traceidratio, ratio: 0.5}", {}, {"sampler": "traceidratio", "ratio": 0.5}),
        (
            "tracing: {ratio: 0.25}",
            {"OTEL_TRACES_SAMPLER": "always_off"},
            {"ratio": 0.25, "sampler": "parentbased_traceidratio"},
        ),
        (
            "tracing: {sampler: always_on}",
            {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.1"},
            {"sampler": "always_on"},
        ),
        (
            "tracing: {}",
            {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.1"},
            {"sampler": "traceidratio", "ratio": 0.1},
        ),
        ("tracing: {}", {"OTEL_TRACES_SAMPLER": "traceidratio"}, {"sampler": "traceidratio"}),
        (
            "tracing: {}",
            {"OTEL_TRACES_SAMPLER": "always_off", "OTEL_TRACES_SAMPLER_ARG": "0.1"},
            {"sampler": "always_off"},
        ),
        ("tracing: {}", {"OTEL_EXPORTER_OTLP_TIMEOUT": "1500"}, {"timeout": 1.5}),
        ("tracing: {timeout: 2s}", {"OTEL_EXPORTER_OTLP_TIMEOUT": "1500"}, {"timeout": 2.0}),
        (
            "tracing: {}",
            {"OTEL_EXPORTER_OTLP_TIMEOUT": "1500", "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT": "2500"},
            {"timeout": 2.5},
        ),
        (
            "tracing: {}",
            {"OTEL_EXPORTER_OTLP_HEADERS": "X-A=1, b = two%20words"},
            {"headers": {"x-a": "1", "b": "two words"}},
        ),
        (
            "tracing: {headers: {X-A: mine}}",
            {"OTEL_EXPORTER_OTLP_HEADERS": "x-a=1,b=2"},
            {"headers": {"X-A": "mine", "b": "2"}},
        ),
        ("tracing: {}", {"OTEL_SERVICE_NAME": "edge"}, {"serviceName": "edge"}),
        (
            "tracing: {}",
            {"OTEL_RESOURCE_ATTRIBUTES": "service.name=edge,zone=a"},
            {"serviceName": "edge", "resource": {"zone": "a"}},
        ),
        (
            "tracing: {}",
            {"OTEL_SERVICE_NAME": "one", "OTEL_RESOURCE_ATTRIBUTES": "service.name=two"},
            {"serviceName": "one"},
        ),
        (
            "tracing: {serviceName: mine, resource: {zone: b}}",
            {"OTEL_RESOURCE_ATTRIBUTES": "service.name=edge,zone=a,x=y"},
            {"serviceName": "mine", "resource": {"zone": "b", "x": "y"}},
        ),
        ("tracing: {query: full}", {}, {"query": "full"}),
    ],
)
def test_the_file_wins_over_variables_and_they_over_defaults(loaded, block, env, expected):
    found = loaded(block, env)
    assert found.warnings == []
    assert found.plain["tracing"] == (None if expected is None else {**DEFAULTS, **expected})


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("OTEL_TRACES_SAMPLER", "xray", "one of always_on, always_off"),
        ("OTEL_TRACES_EXPORTER", "zipkin", "otlp is all there is, not 'zipkin'"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "spans go out as http/json, not 'grpc'"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s", "whole milliseconds are wanted, not '10s'"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "otel:4317", "a URL such as"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "secret", "a list such as name=value"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "bad name=secret", "a header name is wanted"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "content-length=secret", "is written by the proxy itself"),
        ("OTEL_RESOURCE_ATTRIBUTES", "zone", "a list such as name=value"),
    ],
)
def test_a_variable_that_is_not_understood_is_a_warning(loaded, name, text, says):
    """They are for every program of a machine: OpenTelemetry has them ignored, not refused."""
    found = loaded("tracing: {}", {name: text})
    assert found.plain["tracing"] == DEFAULTS
    (warning,) = found.warnings
    assert f"the variable {name} is ignored: " in warning.message
    assert says in warning.message
    assert "secret" not in warning.message
    assert loaded("", {name: text}).warnings == [], "nobody traces"


@pytest.mark.parametrize("text", ["2", "-0.1", "nan", "inf", "half"])
def test_a_ratio_of_the_environment_is_one(loaded, text):
    found = loaded("tracing: {}", {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": text})
    assert found.plain["tracing"]["ratio"] == 1.0
    assert "OTEL_TRACES_SAMPLER_ARG" in found.warnings[0].message


@pytest.mark.parametrize(
    ("block", "path", "message", "hint"),
    [
        ("{ratio: 5}", "tracing.ratio", "a number from 0 to 1 is wanted, not 5", "write 0.05 for 5 %"),
        ("{ratio: 1%}", "tracing.ratio", "a number from 0 to 1 is wanted, not the text '1%'", "write 0.01 for 1 %"),
        ("{ratio: true}", "tracing.ratio", "a number from 0 to 1 is wanted, not true", ""),
        ("{sampler: always_on, ratio: 0.1}", "tracing", "a ratio means nothing with always_on", "use traceidratio"),
        ("{sampler: parentbased}", "tracing.sampler", "'parentbased'", ""),
        ("{endpont: 'http://a'}", "tracing.endpont", "", "endpoint"),
        ("{endpoint: 'localhost:4318'}", "tracing.endpoint", "a URL such as", "write 'http://localhost:4318'"),
        ("{timeout: 0s}", "tracing.timeout", "at least 100ms is wanted", ""),
        ("{headers: {Host: a}}", "tracing.headers.Host", "is written by the proxy itself", ""),
    ],
)
def test_mistakes_are_errors_that_say_what_to_write(loaded, block, path, message, hint):
    with pytest.raises(ConfigError) as caught:
        loaded(f"tracing: {block}")
    (problem,) = caught.value.args[0]
    assert problem.line == 5
    assert (problem.path, message in problem.message, hint in problem.hint) == (path, True, True), problem


def test_credentials_are_read_from_files_and_never_shown(loaded, tmp_path):
    (tmp_path / "token").write_text("Bearer s3cret\n")
    block = "tracing: {headers: {Authorization: {file: token}, X-Key: abc}}"
    found = loaded(block, {"OTEL_EXPORTER_OTLP_HEADERS": "from=env"})
    assert found.plain["tracing"]["headers"] == {"Authorization": "Bearer s3cret", "X-Key": "abc", "from": "env"}
    assert found.public["tracing"]["headers"] == {"Authorization": "***", "X-Key": "***", "from": "***"}
    off = loaded(block, {"OTEL_SDK_DISABLED": "true"})
    assert (off.plain["tracing"], off.public["tracing"]) == (None, None)


def test_nothing_of_the_block_is_changed_by_settling_it():
    block = {"headers": {"a": "b"}, "resource": {}, "query": "names", "endpoint": "http://a:1", "ratio": 0.1}
    before = {**block}
    settle(block, {})
    assert block == before
