"""`splitproxy explain` for a rule that a rollout owns: what is known without asking the running proxy."""

import json

import pytest

from splitproxy.cli import main

FILE = """
listeners: [{address: "127.0.0.1:8080"}]
upstreams:
  - {name: shop-v1, endpoints: ["http://127.0.0.1:9001"]}
  - {name: shop-v2, endpoints: ["http://127.0.0.1:9002"]}
routes:
  - name: shop
    rules: [{backendRefs: [{name: shop-v1}]}]
rollouts:
  - name: shop
    route: shop
    primary: shop-v1
    canary: shop-v2
    analysis:
      interval: 10s
      threshold: 2
      iterations: 10
      match: [{headers: {x-cohort: {exact: insider}}}]
      metrics: [{name: request-success-rate, thresholdRange: {min: 99}}]
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "rollout.yaml"
    path.write_text(FILE)
    return str(path)


@pytest.mark.parametrize(("cohort", "number"), [("other", None), ("insider", 0)])
def test_explain_shows_a_rollout_as_it_begins_and_says_so(file, capsys, cohort, number):
    assert main(["explain", "-c", file, "GET", "/", "-H", f"X-Cohort: {cohort}", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [(share["upstream"], share["percent"]) for share in answer["split"]] == [("shop-v1", 100), ("shop-v2", 0)]
    assert (answer["upstream"], answer["role"], answer["reason"]) == ("shop-v1", "primary", "match")
    rollout = answer["rollout"]
    assert (rollout["name"], rollout["primary"], rollout["canary"]) == ("shop", "shop-v1", "shop-v2")
    assert rollout["cohort"] == number
    assert rollout["detail"].startswith(
        "as before it begins: nothing goes to shop-v2; its live share is not in the file"
    )
    assert ("while cohort 1 is let in" in rollout["detail"]) is (number is not None)


def test_explain_says_what_is_done_when_an_attempt_fails(tmp_path, capsys):
    path = tmp_path / "split.yaml"
    split = FILE.partition("rollouts:")[0].replace(
        "{backendRefs: [{name: shop-v1}]}",
        "{backendRefs: [{name: shop-v1}, {name: shop-v2}], split: {failover: FAILOVER}, retry: {attempts: 1}}",
    )
    path.write_text(split.replace("FAILOVER", "true"))
    assert main(["explain", "-c", str(path), "GET", "/", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["failover"] == {"from": ["shop-v2"], "to": "shop-v1"}
    assert answer["retry"]["attempts"] == 1
    path.write_text(split.replace("FAILOVER", "false"))
    assert main(["explain", "-c", str(path), "GET", "/"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert not any(line.startswith("failover:") for line in lines)
    assert any(line.startswith("retry:    1 more attempt after no answer") for line in lines)


def test_explain_for_people_names_the_rollout(file, capsys):
    assert main(["explain", "-c", file, "GET", "/"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "failover: what fails at shop-v2 and may be sent again is answered by shop-v1" in lines
    assert "rollout:  shop, as before it begins: nothing goes to shop-v2; its live share is not in the file" in lines
