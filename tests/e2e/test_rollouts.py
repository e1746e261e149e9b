"""Rollouts with real processes: what clients get, what operators see, what survives."""

import copy
import http.client
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from splitproxy.cli import main

pytestmark = pytest.mark.slow
EXAMPLE = Path(__file__).parents[2] / "config" / "rollout.yaml"
SUCCESS = {"name": "request-success-rate", "thresholdRange": {"min": 99}}
QUICK = {"interval": "1s", "threshold": 2, "minRequests": 3, "metrics": [SUCCESS]}


@pytest.fixture
def base(services, free_address, tmp_path):
    """The part of the configuration that all have in common."""
    upstreams = [{"name": service.name, "endpoints": [f"http://{service.address}"]} for service in services]
    return {
        "listeners": [{"address": "127.0.0.1:0"}],
        "admin": {"address": free_address()},
        "state": {"path": str(tmp_path / "state.db")},
        "upstreams": upstreams,
        "routes": [
            {"name": name, "hostnames": [f"{name}.example.com"], "rules": [{"backendRefs": [{"name": "shop-v1"}]}]}
            for name in ("shop", "search", "pay")
        ],
    }


def release(analysis, **more):
    """Return a rollout of the route shop."""
    return {
        "name": "shop",
        "route": "shop",
        "primary": "shop-v1",
        "canary": "shop-v2",
        "revision": "1",
        "analysis": {**QUICK, **analysis},
        **more,
    }


@pytest.fixture
def example(base, receiver):
    """The example with its three releases, in quick."""
    config = yaml.safe_load(EXAMPLE.read_text())
    for key in ("listeners", "admin", "state", "upstreams"):
        config[key] = base[key]
    config["alertProviders"][0]["address"] = f"http://{receiver.address}/hook"
    for rollout in config["rollouts"]:
        analysis = rollout["analysis"]
        analysis.update({"interval": "1s", "minRequests": 3})
        if "iterations" in analysis:
            analysis["iterations"] = 2
        for hook in analysis.get("webhooks", []):
            hook["url"] = hook["url"].replace("127.0.0.1:9300", receiver.address)
    config["rollouts"][0]["promotion"]["bakeTime"] = "1s"
    config["rollouts"][0]["analysis"].update({"stepWeight": 25, "threshold": 3})
    return config


def only(config, name):
    """Return the configuration with one of its rollouts."""
    return {**config, "rollouts": [rollout for rollout in config["rollouts"] if rollout["name"] == name]}


def said(rollout):
    return "\n".join(f"{entry['kind']}: {entry['text']}" for entry in rollout["history"])


def weights(rollout):
    """Return the shares that a rollout's history says it had, in percent."""
    return [entry["data"]["weight"] / 100 for entry in rollout["history"] if entry["kind"] == "weight"]


# --- the three releases of the example -------------------------------------------------------------------------------
def test_a_good_canary_passes_its_gates_is_promoted_and_adopted_by_the_file(
    example, running, clients, receiver, tmp_path
):
    config = only(example, "shop")
    receiver.statuses["/gate/check"] = 403
    proxy = running(config, tmp_path)
    customers = clients(proxy)
    waiting = proxy.until_phase("shop", "Waiting")
    assert (waiting["canaryWeight"], waiting["waitingFor"]["gate"]) == (0, "confirm-rollout")
    assert customers.names() == {"shop-v1": 40}

    receiver.statuses["/gate/check"] = 200
    grown = proxy.until("shop", lambda rollout: rollout["canaryWeight"] == 50)
    assert grown["phase"] == "Progressing"
    done = proxy.until_phase("shop", "Succeeded", "Failed")
    assert (done["phase"], done["primary"], done["canaryWeight"]) == ("Succeeded", "shop-v2", 0), said(done)
    assert done["adopt"] == {"primary": "shop-v2", "canary": "shop-v1"}
    assert weights(done) == [25, 50, 100]
    assert customers.names() == {"shop-v2": 40}
    assert {status for status, _ in customers.answers} == {200}

    asked = [body for path, body in receiver.calls if path != "/hook"]
    assert [body["metadata"] for body in asked if body["type"] == "pre-rollout"] == [{"cmd": "smoke"}]
    load = next(body for body in asked if body["type"] == "rollout")
    assert {"name": "shop", "namespace": "", "phase": "Progressing", "checksum": "2.1.0"}.items() <= load.items()
    news = receiver.until_called("/hook", lambda body: "shop-v2" in json.dumps(body) and "promoted" in json.dumps(body))
    assert news["channel"] == "shop"

    refused = copy.deepcopy(config)
    refused["rollouts"][0]["revision"] = "2.2.0"
    status, answer = proxy.reload(refused)
    assert status == 422
    assert "primary: shop-v2" in answer["detail"]
    assert customers.names() == {"shop-v2": 40}

    adopted = copy.deepcopy(config)
    adopted["rollouts"][0].update(done["adopt"])
    assert proxy.reload(adopted)[0] == 200
    after = proxy.until("shop", lambda rollout: rollout["adopt"] is None)
    assert (after["phase"], after["primary"], after["canary"]) == ("Succeeded", "shop-v2", "shop-v1")
    assert customers.names() == {"shop-v2": 40}

    adopted["rollouts"][0]["revision"] = "2.2.0"
    assert proxy.reload(adopted)[0] == 200
    again = proxy.until("shop", lambda rollout: rollout["canaryWeight"] == 25)
    assert (again["revision"], again["attempt"], again["canary"]) == ("2.2.0", 2, "shop-v1")
    assert {status for status, _ in customers.answers} == {200}


def test_an_ab_test_sends_its_cohort_and_nobody_else(example, running, clients, tmp_path):
    proxy = running(only(example, "search"), tmp_path)
    everybody = clients(proxy, "search.example.com")
    assert proxy.act("search", "start")[0] == 202
    insiders = clients(proxy, "search.example.com", headers=[("X-Cohort", "insider")])
    regulars = clients(proxy, "search.example.com", headers=[("Cookie", "a=b; canary=always")], count=1)
    proxy.until("search", lambda rollout: rollout["cohorts"] > 0)
    proxy.act("search", "pause")
    proxy.until_phase("search", "Paused")
    assert insiders.names() == {"shop-v2": 40}
    assert regulars.names() == {"shop-v2": 40}
    assert everybody.names() == {"shop-v1": 40}
    assert proxy.act("search", "resume")[0] == 202
    done = proxy.until_phase("search", "Succeeded", "Failed")
    assert done["phase"] == "Succeeded", said(done)
    assert everybody.names() == {"shop-v2": 40}


def test_blue_green_is_tried_on_copies_that_no_client_gets(example, running, clients, services, tmp_path):
    proxy = running(only(example, "pay"), tmp_path)
    customers = clients(proxy, "pay.example.com")
    proxy.act("pay", "start")
    mirroring = proxy.until("pay", lambda rollout: rollout["mirroring"])
    assert mirroring["canaryWeight"] == 0
    proxy.act("pay", "pause")
    proxy.until_phase("pay", "Paused")
    assert customers.names() == {"shop-v1": 40}
    assert services[1].asked > 0
    proxy.act("pay", "resume")
    done = proxy.until_phase("pay", "Succeeded", "Failed")
    assert done["phase"] == "Succeeded", said(done)
    assert customers.names() == {"shop-v2": 40}
    assert {status for status, _ in customers.answers} == {200}


def test_blue_green_that_fails_on_copies_harms_nobody(example, running, clients, services, tmp_path):
    services[1].status = 500
    proxy = running(only(example, "pay"), tmp_path)
    customers = clients(proxy, "pay.example.com")
    proxy.act("pay", "start")
    done = proxy.until_phase("pay", "Succeeded", "Failed")
    assert done["phase"] == "Failed"
    assert services[1].asked > 0
    assert set(customers.answers) == {(200, "shop-v1")}


def test_a_hand_back_updates_the_primary_and_returns_the_traffic(base, running, clients, services, receiver, tmp_path):
    promotion = {"mode": "handBack", "webhook": {"url": f"http://{receiver.address}/deploy"}, "bakeTime": "1s"}
    config = {**base, "rollouts": [release({"stepWeight": 100, "stepWeightPromotion": 50}, promotion=promotion)]}
    receiver.statuses["/deploy"] = 500
    proxy = running(config, tmp_path)
    customers = clients(proxy)
    assert receiver.until_called("/deploy")["type"] == "hand-back"
    assert customers.names() == {"shop-v2": 40}, "the canary has everything until the primary is the new version"
    services[0].name = "shop-v2 as primary"
    receiver.statuses["/deploy"] = 202
    done = proxy.until_phase("shop", "Succeeded", "Failed")
    assert (done["phase"], done["primary"], done["adopt"]) == ("Succeeded", "shop-v1", None), said(done)
    assert weights(done) == [100, 50, 0]
    assert customers.names() == {"shop-v2 as primary": 40}
    assert {status for status, _ in customers.answers} == {200}


def test_a_hand_back_to_a_primary_that_does_not_get_ready_harms_nobody(
    base, running, clients, services, receiver, tmp_path
):
    promotion = {
        "mode": "handBack",
        "webhook": {"url": f"http://{receiver.address}/deploy"},
        "readiness": {"path": "/ready"},
    }
    release_1 = release({"stepWeights": [50, 100]}, promotion=promotion, progressDeadline="3s")
    config = {**base, "rollouts": [release_1]}
    receiver.statuses["/deploy"] = 500
    proxy = running(config, tmp_path)
    customers = clients(proxy)
    receiver.until_called("/deploy")
    services[0].status = 503  # as when the new version does not start
    receiver.statuses["/deploy"] = 202
    done = proxy.until_phase("shop", "Succeeded", "Failed")
    assert (done["phase"], done["canaryWeight"]) == ("Failed", 100), said(done)
    assert "not be reached" in done["reason"]
    assert set(customers.answers) <= {(200, "shop-v1"), (200, "shop-v2")}, "nobody met the primary that was not ready"

    newer = copy.deepcopy(config)
    newer["rollouts"][0]["revision"] = "2"
    assert proxy.reload(newer)[0] == 200
    waiting = proxy.until("shop", lambda rollout: rollout["alarms"])
    assert "the new revision begins when shop-v1 is there again" in waiting["alarms"][0]
    services[0].status = 200
    again = proxy.until("shop", lambda rollout: rollout["revision"] == "2" and rollout["canaryWeight"] > 0)
    assert again["alarms"] == []
    assert {status for status, _ in customers.answers} == {200}


def test_an_updated_primary_that_fails_gives_the_traffic_back_to_the_canary(
    base, running, clients, services, receiver, tmp_path
):
    promotion = {"mode": "handBack", "webhook": {"url": f"http://{receiver.address}/deploy"}, "bakeTime": "1h"}
    proxy = running({**base, "rollouts": [release({"stepWeights": [100]}, promotion=promotion)]}, tmp_path)
    customers = clients(proxy)
    baking = proxy.until_phase("shop", "Baking", "Failed")
    assert (baking["phase"], baking["canaryWeight"]) == ("Baking", 0), said(baking)
    services[0].status = 500
    done = proxy.until_phase("shop", "Succeeded", "Failed")
    assert (done["phase"], done["canaryWeight"]) == ("Failed", 100), said(done)
    assert "(primary, " in done["reason"]
    assert customers.names() == {"shop-v2": 40}


# --- rollback ---------------------------------------------------------------------------------------------------------
def test_a_bad_canary_is_rolled_back_with_its_reason_and_tried_again_when_asked(
    base, running, clients, services, receiver, tmp_path
):
    alerts = [{"name": "team", "providerRef": {"name": "team"}}]
    analysis = {"stepWeight": 20, "maxWeight": 40, "compare": False, "alerts": alerts}  # by its checks alone
    provider = {"name": "team", "type": "webhook", "address": f"http://{receiver.address}/news"}
    services[1].status = 503
    proxy = running({**base, "alertProviders": [provider], "rollouts": [release(analysis)]}, tmp_path)
    customers = clients(proxy)
    done = proxy.until_phase("shop", "Succeeded", "Failed")
    assert (done["phase"], done["canaryWeight"]) == ("Failed", 0)
    assert "request-success-rate" in done["reason"]
    assert "99" in done["reason"]
    assert customers.names() == {"shop-v1": 40}
    news = receiver.until_called("/news", lambda body: "request-success-rate" in json.dumps(body))
    assert "shop-v1" in json.dumps(news)
    assert proxy.reload(json.loads(proxy.config.read_text()))[0] == 200
    assert proxy.rollout("shop")["phase"] == "Failed", "the same revision is not tried again by itself"

    services[1].status = 200
    assert proxy.act("shop", "retry")[0] == 202
    again = proxy.until("shop", lambda rollout: rollout["canaryWeight"] == 40)
    assert (again["attempt"], again["failedChecks"]) == (2, 0)


def test_a_client_stays_with_its_version_until_a_rollback_lets_it_go(base, running, clients, tmp_path):
    analysis = {"steps": [{"setWeight": 50, "pause": {}}], "sessionAffinity": {"cookieName": "version"}}
    proxy = running({**base, "rollouts": [release(analysis)]}, tmp_path)
    clients(proxy)
    proxy.until_phase("shop", "Paused")

    def ask(cookie=None):
        with proxy.connected() as connection:
            connection.request(
                "GET", "/", headers={"Host": "shop.example.com", **({"Cookie": cookie} if cookie else {})}
            )
            answer = connection.getresponse()
            return answer.read().decode(), (answer.getheader("Set-Cookie") or "").partition(";")[0]

    found = dict(ask() for _ in range(40))
    assert set(found) == {"shop-v1", "shop-v2"}
    for name, cookie in found.items():
        assert cookie.startswith("version=")
        assert {ask(cookie)[0] for _ in range(10)} == {name}
    assert proxy.act("shop", "abort")[0] == 202
    assert ask(found["shop-v2"])[0] == "shop-v1"


def test_a_hard_limit_ends_it_between_checks(base, running, clients, services, tmp_path):
    metric = {**SUCCESS, "hardRange": {"min": 50}}
    steps = [{"setWeight": 50, "interval": "1h"}]
    analysis = {"interval": "1h", "metrics": [metric], "steps": steps, "compare": False}
    proxy = running({**base, "rollouts": [release(analysis)]}, tmp_path)
    clients(proxy)
    proxy.until("shop", lambda rollout: rollout["canaryWeight"] == 50)
    services[1].status = 500
    assert "request-success-rate" in proxy.until_phase("shop", "Failed")["reason"]


# --- what survives ----------------------------------------------------------------------------------------------------
STEPS = {"steps": [{"setWeight": 20}, {"setWeight": 50, "iterations": 3}, {"setWeight": 80}]}


def middle(rollout):
    return rollout["step"] == 1 and rollout["canaryWeight"] == 50


def test_control_killed_in_the_middle_goes_on_where_it_was(base, running, clients, tmp_path):
    proxy = running({**base, "rollouts": [release(STEPS)]}, tmp_path)
    customers = clients(proxy)
    proxy.until("shop", middle)
    proxy.kill_control()
    assert set(customers.names(100)) == {"shop-v1", "shop-v2"}, "workers serve on with the weight they have"
    back = proxy.until("shop", lambda rollout: rollout["attempt"] == 1)
    assert back["canaryWeight"] >= 50
    done = proxy.until_phase("shop", "Succeeded", "Failed")
    assert (done["phase"], done["attempt"]) == ("Succeeded", 1), said(done)
    assert weights(done) == [20, 50, 80, 100], said(done)
    assert customers.names() == {"shop-v2": 40}
    assert {status for status, _ in customers.answers} == {200}


def test_everything_killed_goes_on_from_the_store(base, running, clients, tmp_path):
    config = {**base, "rollouts": [release({"steps": [{"setWeight": 20}, {"setWeight": 50, "pause": {}}]})]}
    first = running(config, tmp_path)
    customers = clients(first)
    before = first.until_phase("shop", "Paused")
    customers.stop()
    first.kill_everything()
    second = running(config, tmp_path)
    after = second.until("shop", lambda rollout: rollout["attempt"] > 0)
    for key in ("phase", "attempt", "step", "canaryWeight", "failedChecks", "revision"):
        assert after[key] == before[key], key
    customers = clients(second)
    assert set(customers.names(100)) == {"shop-v1", "shop-v2"}
    assert second.act("shop", "resume")[0] == 202
    done = second.until_phase("shop", "Succeeded", "Failed")
    assert (done["phase"], done["attempt"]) == ("Succeeded", 1), said(done)


def test_a_promotion_that_the_file_does_not_know_survives_a_restart(base, running, clients, tmp_path):
    config = {**base, "rollouts": [release({}, skipAnalysis=True)]}
    first = running(config, tmp_path)
    first.until_phase("shop", "Succeeded")
    first.kill_everything()
    second = running(config, tmp_path)
    customers = clients(second)
    assert customers.names() == {"shop-v2": 40}
    assert second.rollout("shop")["primary"] == "shop-v2"
    assert set(customers.answers) == {(200, "shop-v2")}, "from the very first request on"


def test_the_program_does_not_start_with_a_file_that_undoes_a_promotion(base, running, tmp_path):
    config = {**base, "rollouts": [release({}, skipAnalysis=True)]}
    first = running(config, tmp_path)
    done = first.until_phase("shop", "Succeeded")
    first.kill_everything()
    changed = copy.deepcopy(config)
    changed["rollouts"][0]["revision"] = "2"
    file = tmp_path / "changed.yaml"
    file.write_text(json.dumps(changed))
    command = [sys.executable, "-m", "splitproxy", "run", "-c", str(file)]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert refused.returncode == 1
    assert "first write `primary: shop-v2` and `canary: shop-v1`" in refused.stderr
    changed["rollouts"][0].update(done["adopt"])
    second = running(changed, tmp_path)
    after = second.until("shop", lambda rollout: rollout["revision"] == "2")
    assert (after["primary"], after["canary"]) == ("shop-v2", "shop-v1")


def test_a_newer_revision_begins_again_at_nothing(base, running, clients, tmp_path):
    config = {**base, "rollouts": [release(STEPS)]}
    proxy = running(config, tmp_path)
    clients(proxy)
    proxy.until("shop", middle)
    newer = copy.deepcopy(config)
    newer["rollouts"][0]["revision"] = "2"
    assert proxy.reload(newer)[0] == 200
    again = proxy.until("shop", lambda rollout: rollout["revision"] == "2" and rollout["canaryWeight"] > 0)
    assert (again["attempt"], again["failedChecks"]) == (2, 0)
    assert weights(again)[:4] == [20, 50, 0, 20]


# --- operators --------------------------------------------------------------------------------------------------------
def test_every_verb_of_the_command_line(base, running, clients, tmp_path, capsys, monkeypatch):
    steps = {"steps": [{"setWeight": 10, "pause": {}}, {"setWeight": 30, "pause": {}}, {"setWeight": 60, "pause": {}}]}
    gate = {"webhooks": [{"name": "boss", "type": "confirm-rollout"}]}
    proxy = running({**base, "rollouts": [release({**steps, **gate})]}, tmp_path)
    monkeypatch.setenv("SPLITPROXY_ADMIN", f"http://{proxy.admin}")
    clients(proxy)

    def does(*words):
        code = main([*words])
        out, err = capsys.readouterr()
        assert code == 0, err
        return out

    def refused(*words):
        assert main([*words]) == 1
        out, err = capsys.readouterr()
        assert out == ""
        return err

    proxy.until_phase("shop", "Waiting")
    assert "boss" in does("status", "shop")
    does("deny", "shop")
    assert proxy.rollout("shop")["phase"] == "Waiting"
    does("approve", "shop")
    does("status", "shop", "--wait", "Paused", "--timeout", "30s")
    assert "Paused" in does("set-weight", "shop", "25")
    assert proxy.rollout("shop")["canaryWeight"] == 25
    does("resume", "shop")
    at_30 = proxy.until("shop", lambda rollout: rollout["canaryWeight"] == 30)
    assert at_30["step"] == 1
    proxy.until_phase("shop", "Paused")
    assert refused("set-weight", "nobody", "5")
    assert refused("retry", "shop").count("\n") == 1
    does("promote", "shop")
    proxy.until("shop", lambda rollout: rollout["canaryWeight"] == 60)
    does("abort", "shop")
    assert proxy.rollout("shop")["phase"] == "Failed"
    assert refused("pause", "shop")
    assert refused("set-weight", "shop", "5")
    does("start", "shop")
    proxy.until("shop", lambda rollout: rollout["attempt"] == 2)
    does("approve", "shop")
    proxy.until_phase("shop", "Paused")
    does("promote", "shop", "--full")
    assert "Succeeded" in does("status", "shop", "--wait", "Succeeded", "--timeout", "30s")
    does("undo", "shop")
    undone = proxy.rollout("shop")
    assert (undone["phase"], undone["primary"], undone["canaryWeight"]) == ("Failed", "shop-v1", 0)
    assert "cli:" in said(undone)
    assert json.loads(does("status", "--json"))[0]["name"] == "shop"


def test_a_dry_run_decides_and_moves_nothing(base, running, clients, services, tmp_path):
    analysis = {"stepWeight": 100, "dryRun": True, "noData": "pass", "minRequests": 0}
    proxy = running({**base, "rollouts": [release(analysis)]}, tmp_path)
    customers = clients(proxy)
    done = proxy.until_phase("shop", "Succeeded", "Failed")
    assert done["phase"] == "Succeeded", said(done)
    assert set(customers.answers) == {(200, "shop-v1")}
    assert services[1].asked == 0


def test_metrics_show_phase_weight_and_what_was_measured(base, running, clients, tmp_path):
    proxy = running({**base, "rollouts": [release({"steps": [{"setWeight": 20}, {"setWeight": 50, "pause": {}}]})]},
                    tmp_path)  # fmt: skip
    clients(proxy)
    proxy.until_phase("shop", "Paused")
    host, port = proxy.admin.split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    assert 'splitproxy_rollout_phase{phase="Paused",rollout="shop"} 1.0' in text
    assert 'splitproxy_rollout_phase{phase="Failed",rollout="shop"} 0.0' in text
    assert 'splitproxy_rollout_canary_weight{rollout="shop"} 50.0' in text
    assert 'splitproxy_rollout_metric{metric="request-success-rate",rollout="shop"} 100.0' in text
    assert 'splitproxy_rollout_metric_limit{bound="min",metric="request-success-rate",rollout="shop"} 99.0' in text
    assert 'splitproxy_split_weight{route="shop",rule="0",upstream="shop-v2"} 50.0' in text


# --- a real Prometheus ------------------------------------------------------------------------------------------------
@pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed")
def test_a_real_prometheus_is_a_provider(base, running, clients, free_address, tmp_path):
    address = free_address()
    (tmp_path / "prometheus.yml").write_text(json.dumps({
        "global": {"scrape_interval": "1s"},
        "scrape_configs": [{"job_name": "splitproxy", "static_configs": [{"targets": [base["admin"]["address"]]}]}],
    }))  # fmt: skip
    with subprocess.Popen(
        [
            *("prometheus", f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data"),
            f"--web.listen-address={address}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as prometheus:
        try:
            template = {
                "name": "canary-requests",
                "query": 'sum(splitproxy_requests_total{upstream="{{ canary }}"})',
                "provider": {"type": "prometheus", "address": f"http://{address}"},
            }
            metric = {"name": "seen", "templateRef": {"name": "canary-requests"}, "thresholdRange": {"min": 1}}
            analysis = {"stepWeight": 50, "maxWeight": 50, "threshold": 30, "metrics": [metric], "minRequests": 0,
                        "consecutiveErrorLimit": 100}  # fmt: skip
            config = {**base, "metricTemplates": [template], "rollouts": [release(analysis)]}
            proxy = running(config, tmp_path)
            clients(proxy)
            done = proxy.until_phase("shop", "Succeeded", "Failed")
            assert done["phase"] == "Succeeded", said(done)
        finally:
            prometheus.terminate()
