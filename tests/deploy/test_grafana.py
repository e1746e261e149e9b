"""The dashboard for Grafana: importable, whole, and asking for nothing that is not there."""

import json
import re
import shutil
import subprocess
from collections import Counter

import pytest
import yaml

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
BUILT_IN = {"__rate_interval", "__interval"}
NEEDED = (
    *("requests_total", "request_duration_seconds_bucket", "attempts_total", "requests_in_flight"),
    *(
        "split_weight",
        "rollout_canary_weight",
        "rollout_phase",
        "rollout_verdict",
        "rollout_metric",
        "rollout_metric_limit",
    ),
    *("endpoint_healthy", "endpoint_ejected", "config_last_reload_success", "config_generation", "workers_ready"),
)


@pytest.fixture
def dashboard(deploy):
    return json.loads((deploy / "grafana/splitproxy.json").read_text())


@pytest.fixture
def panels(dashboard):
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


@pytest.fixture
def expressions(dashboard, panels):
    """Return every query, its variables filled in."""
    asked = [target["expr"] for panel in panels for target in panel["targets"]]
    asked += [one["expr"] for one in dashboard["annotations"]["list"] if "expr" in one]
    return [
        re.sub(r"\$__\w+", "1m", expr).replace("$job", ".*").replace("$route", ".*").replace("$rollout", ".*")
        for expr in asked
    ]


def test_it_can_be_imported(dashboard):
    assert dashboard["id"] is None  # Grafana gives it one
    assert dashboard["uid"] == "splitproxy"
    assert dashboard["schemaVersion"] >= 39
    assert "__inputs" not in dashboard  # nothing is asked for: the data source is a variable
    ids = Counter(panel["id"] for panel in dashboard["panels"])
    assert set(ids.values()) == {1}


def test_every_query_goes_to_the_data_source_that_was_chosen(dashboard, panels):
    sources = [panel["datasource"] for panel in panels]
    sources += [target["datasource"] for panel in panels for target in panel["targets"]]
    variables = dashboard["templating"]["list"]
    sources += [one["datasource"] for one in variables if one["type"] == "query"]
    sources += [one["datasource"] for one in dashboard["annotations"]["list"] if "builtIn" not in one]
    assert [source for source in sources if source != SOURCE] == []
    assert [one["name"] for one in variables] == ["datasource", "job", "route", "rollout"]
    assert variables[0]["query"] == "prometheus"


def test_variables_are_defined_and_used(dashboard):
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(dashboard)))
    assert used == {one["name"] for one in dashboard["templating"]["list"]} | BUILT_IN | {"__all"}


def test_panels_fill_the_page_and_do_not_overlap(dashboard):
    taken = Counter()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        taken.update((at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"]))
    assert set(taken.values()) == {1}
    assert len(taken) == 24 * (max(y for _, y in taken) + 1)


def test_every_panel_says_what_it_shows(panels):
    assert [panel["title"] for panel in panels if not panel["description"].endswith(".")] == []
    for panel in panels:
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        assert panel["fieldConfig"]["defaults"]["unit"]


def test_every_metric_is_there_and_none_that_matters_is_missing(expressions, dashboard, told):
    asked = set().union(*(re.findall(r"splitproxy_\w+", expression) for expression in expressions))
    variables = [one["definition"] for one in dashboard["templating"]["list"] if one["type"] == "query"]
    asked.update(name for text in variables for name in re.findall(r"splitproxy_\w+", text))
    assert asked - told == set()
    assert {f"splitproxy_{name}" for name in NEEDED} - asked == set()


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed (package prometheus)")
def test_every_expression_is_one(expressions, tmp_path):
    rules = [{"record": f"panel:{index}", "expr": expression} for index, expression in enumerate(expressions)]
    file = tmp_path / "rules.yaml"
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))  # JSON is YAML
    done = subprocess.run(["promtool", "check", "rules", file], capture_output=True, text=True, check=False)
    assert f"SUCCESS: {len(rules)} rules found" in done.stdout, done.stdout + done.stderr


def test_sides_differ_by_their_lines_too(panels):
    sides = [
        panel for panel in panels if panel["type"] == "timeseries" and "{{role}}" in panel["targets"][0]["legendFormat"]
    ]
    assert len(sides) == 6
    for panel in sides:
        lines = {
            one["matcher"]["options"]: next(
                item["value"]["fill"] for item in one["properties"] if item["id"] == "custom.lineStyle"
            )
            for one in panel["fieldConfig"]["overrides"]
        }
        assert (lines["/primary/"], lines["/canary/"]) == ("solid", "dash")


def test_it_is_provisioned_where_compose_mounts_it(deploy):
    compose = yaml.safe_load((deploy / "compose/docker-compose.yaml").read_text())["services"]["grafana"]
    folder = deploy / "grafana/provisioning"
    (provider,) = yaml.safe_load((folder / "dashboards/splitproxy.yaml").read_text())["providers"]
    mounts = {mount.split(":")[0]: mount.split(":")[1] for mount in compose["volumes"]}
    assert mounts["../grafana/splitproxy.json"].startswith(provider["options"]["path"] + "/")
    assert mounts["../grafana/provisioning"] == "/etc/grafana/provisioning"
    (source,) = yaml.safe_load((folder / "datasources/prometheus.yaml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
