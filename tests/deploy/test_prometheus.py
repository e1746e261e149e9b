"""The rules for Prometheus: checked and tested by promtool, and against the metrics that there are."""

import re
import shutil
import subprocess

import pytest
import yaml

from splitproxy.control.exemplars import BOUNDS

promtool = pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed (package prometheus)")
RULES = (
    "recording",
    "alerts",
    "compatibility/contour",
    "compatibility/flagger",
    "compatibility/istio",
    "compatibility/linkerd",
    "compatibility/nginx",
)
TESTS = ("recording", "windows", "alerts", "compatibility")
IN_MILLISECONDS = (
    ("istio", "istio_request_duration_milliseconds_bucket"),
    ("linkerd", "response_latency_ms_bucket"),
    ("contour", "envoy_cluster_upstream_rq_time_bucket"),
)


def rules(folder, name):
    """Return the rules of a file."""
    document = yaml.safe_load((folder / "prometheus" / f"{name}.yaml").read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


def run(*command, cwd):
    done = subprocess.run(["promtool", *command], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_there_are_no_other_rules(deploy):
    found = {str(path.relative_to(deploy / "prometheus")) for path in (deploy / "prometheus").rglob("*.yaml")}
    tests = {f"tests/{name}.yaml" for name in TESTS}
    assert found - tests - {"prometheus.yaml"} == {f"{name}.yaml" for name in RULES}


@promtool
def test_promtool_accepts_the_rules_and_the_example(deploy):
    run("check", "rules", *(f"{name}.yaml" for name in RULES), cwd=deploy / "prometheus")
    run("check", "config", "prometheus.yaml", cwd=deploy / "prometheus")


@promtool
@pytest.mark.parametrize("name", TESTS)
def test_the_rules_do_what_their_tests_say(deploy, name):
    run("test", "rules", f"{name}.yaml", cwd=deploy / "prometheus/tests")


@pytest.mark.parametrize("name", RULES)
def test_every_metric_that_a_rule_asks_for_is_there(deploy, told, name):
    asked = set().union(*(re.findall(r"(?<![\w:])splitproxy_\w+", rule["expr"]) for rule in rules(deploy, name)))
    assert asked - told == set()
    recorded = {rule["record"] for rule in rules(deploy, "recording") + rules(deploy, name) if "record" in rule}
    derived = set().union(*(re.findall(r"\w+:splitproxy_[\w:]+", rule["expr"]) for rule in rules(deploy, name)))
    assert derived - recorded == set()


def test_every_metric_is_explained(deploy, told):
    text = (deploy.parent / "docs/metrics.md").read_text()
    table = text[text.index("| metric |") : text.index("**Two truths.**")]
    histogram = "splitproxy_request_duration_seconds"
    assert set(re.findall(r"`(splitproxy_\w+)`", table)) == {histogram} | {
        name for name in told if name.startswith("splitproxy_") and not name.startswith(histogram)
    }


def test_every_alert_is_tested_and_explained(deploy):
    alerts = {rule["alert"] for rule in rules(deploy, "alerts")}
    files = [yaml.safe_load((deploy / f"prometheus/tests/{name}.yaml").read_text()) for name in TESTS]
    cases = [case for file in files for test in file["tests"] for case in test.get("alert_rule_test", ())]
    firing = {case["alertname"] for case in cases if case["exp_alerts"]}
    assert firing == alerts
    explained = re.findall(r"^\| `(Splitproxy\w+)`", (deploy.parent / "docs/metrics.md").read_text(), re.MULTILINE)
    assert sorted(explained) == sorted(alerts)
    severities = {rule["labels"]["severity"] for rule in rules(deploy, "alerts")}
    assert severities == {"page", "ticket", "info"}


@pytest.mark.parametrize(("name", "record"), IN_MILLISECONDS)
def test_every_bucket_is_told_in_milliseconds_too(deploy, name, record):
    found = {}
    for rule in rules(deploy, f"compatibility/{name}"):
        if rule["record"] == record:
            (seconds,) = re.findall(r'le="([^"]+)"', rule["expr"])
            found[seconds] = rule["labels"]["le"]
    assert found == {**{str(bound): f"{bound * 1000:g}" for bound in BOUNDS}, "+Inf": "+Inf"}
