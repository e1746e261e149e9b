"""A canary that is worse than its primary, with real processes: out by evidence, with the reason, in seconds."""

import json

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture
def config(services, free_address, tmp_path):
    """One rollout whose checks alone would take minutes to see anything."""
    analysis = {
        "interval": "10m",
        "threshold": 5,
        "stepWeights": [20, 50],
        "compare": {"pace": "interval"},
        "metrics": [{"name": "request-success-rate", "thresholdRange": {"min": 1}}],
    }
    upstreams = [{"name": one.name, "endpoints": [f"http://{one.address}"]} for one in services]
    return {
        "listeners": [{"address": "127.0.0.1:0"}],
        "admin": {"address": free_address()},
        "state": {"path": str(tmp_path / "state.db")},
        "accessLog": {"path": str(tmp_path / "access.log"), "format": "json"},
        "workers": 2,
        "upstreams": upstreams,
        "routes": [
            {"name": "shop", "hostnames": ["shop.example.com"], "rules": [{"backendRefs": [{"name": "shop-v1"}]}]}
        ],
        "rollouts": [
            {
                "name": "shop",
                "route": "shop",
                "primary": "shop-v1",
                "canary": "shop-v2",
                "revision": "1",
                "analysis": analysis,
            }
        ],
    }


@pytest.mark.parametrize("failover", [True, False])
def test_a_crashing_canary_is_out_after_a_few_requests(config, running, clients, services, tmp_path, failover):
    config["routes"][0]["rules"][0]["split"] = {"failover": failover}
    services[1].status = 500
    proxy = running(config, tmp_path)
    asking = clients(proxy)
    failed = proxy.until_phase("shop", "Failed")
    assert asking.names() == {"shop-v1": 40}
    statuses = [status for status, _ in asking.answers]
    served = services[1].asked
    assert 3 <= served <= 25, "the machine may be slow, but not by hundreds of requests"
    assert statuses.count(500) == (0 if failover else served)
    evidence = failed["evidence"]
    assert evidence["outcome"] == "fail"
    assert evidence["leading"] == "errors"
    assert evidence["logE"] >= evidence["needed"]
    assert evidence["sentence"] in failed["reason"]
    counted = evidence["counts"]["bad_canary"]
    assert 3 <= counted <= served
    told = {example["requestId"] for example in evidence["examples"]["canary"]}
    assert told
    # A rollback is put in force first and saved then.
    failed = proxy.until("shop", lambda one: any(entry["kind"] == "evidence" for entry in one["history"]))
    (record,) = [entry for entry in failed["history"] if entry["kind"] == "evidence"]
    assert record["data"]["counts"]["bad_canary"] == counted
    asking.stop()
    proxy.stop()
    logged = {json.loads(line)["requestId"] for line in (tmp_path / "access.log").read_text().splitlines()}
    assert told <= logged, "the reason names requests that the access log has"


def test_the_evidence_outlives_control(config, running, clients, services, tmp_path):
    proxy = running(config, tmp_path)
    asking = clients(proxy)
    before = proxy.until("shop", lambda one: one["evidence"] and one["evidence"]["counts"]["canary"] > 20)
    proxy.kill_control()
    after = proxy.until("shop", lambda one: one["evidence"] and one["evidence"]["counts"]["canary"] > 40)
    assert after["attempt"] == before["attempt"] == 1
    assert after["evidence"]["counts"]["primary"] > before["evidence"]["counts"]["primary"]
    services[1].status = 503
    failed = proxy.until_phase("shop", "Failed")
    assert failed["evidence"]["leading"] == "errors"
    asking.stop()
