"""Health with real processes: who gets traffic, what operators see, and what becomes of a rollout."""

import http.client
import time

import pytest

pytestmark = pytest.mark.slow
PATIENCE = 20.0
CHECK = {"path": "/", "interval": "100ms", "unhealthyThreshold": 2}


@pytest.fixture
def config(services, free_address, tmp_path):
    """A split whose canary, `shop-v2`, is probed; two workers."""
    stable, canary = services
    return {
        "listeners": [{"address": "127.0.0.1:0"}],
        "admin": {"address": free_address()},
        "state": {"path": str(tmp_path / "state.db")},
        "workers": 2,
        "upstreams": [
            {"name": stable.name, "endpoints": [f"http://{stable.address}"]},
            {"name": canary.name, "endpoints": [f"http://{canary.address}"], "healthCheck": CHECK},
        ],
        "routes": [
            {
                "name": "shop",
                "rules": [
                    {
                        "backendRefs": [{"name": stable.name, "weight": 50}, {"name": canary.name, "weight": 50}],
                        "split": {"failover": True},
                    }
                ],
            }
        ],
    }


def until(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def names(proxy, count=40):
    """Return who answered so many requests, each on a connection of its own."""
    found = set()
    for _ in range(count):
        with proxy.connected() as client:
            client.request("GET", "/")
            response = client.getresponse()
            found.add((response.status, response.read().decode()))
    return found


def shares(proxy):
    status, (route,) = proxy.ask("/api/v1/routes")
    assert status == 200
    return {one["name"]: one["weight"] for one in route["rules"][0]["backends"]}


def workers(proxy):
    """Return how many workers there are in the eyes of the probed endpoint, and how many find it unhealthy."""
    _, upstreams = proxy.ask("/api/v1/upstreams")
    told = next(one["workers"] for one in upstreams[1]["addresses"] if not one["mirror"])
    return told["all"], told["unhealthy"]


def test_an_ill_canary_is_left_out_with_control_or_without(running, config, services, tmp_path):
    proxy = running(config, tmp_path)
    until(lambda: workers(proxy) == (2, 0))
    assert names(proxy) == {(200, "shop-v1"), (200, "shop-v2")}
    services[1].status = 503
    until(lambda: workers(proxy) == (2, 2))
    assert names(proxy) == {(200, "shop-v1")}
    until(lambda: shares(proxy) == {"shop-v1": 100.0, "shop-v2": 0.0})
    proxy.kill_control()
    services[1].status = 200
    until(lambda: (200, "shop-v2") in names(proxy, 4))

    def told_again():
        try:
            return workers(proxy) == (2, 0) and shares(proxy) == {"shop-v1": 50.0, "shop-v2": 50.0}
        except (OSError, http.client.HTTPException):
            return False

    until(told_again)


def test_a_rollout_fails_whose_canary_takes_connections_and_is_ill(running, config, services, tmp_path):
    config["routes"][0]["rules"] = [{"backendRefs": [{"name": "shop-v1"}]}]
    metric = {"name": "request-success-rate", "thresholdRange": {"min": 99}}
    config["rollouts"] = [
        {
            "name": "shop",
            "route": "shop",
            "primary": "shop-v1",
            "canary": "shop-v2",
            "revision": "1",
            "progressDeadline": "2s",
            "analysis": {"interval": "1s", "threshold": 5, "stepWeight": 50, "maxWeight": 50, "metrics": [metric]},
        }
    ]
    services[1].status = 503
    proxy = running(config, tmp_path)
    over = proxy.until_phase("shop", "Failed")
    assert over["canaryWeight"] == 0
    assert any("no worker finds an endpoint of it healthy" in str(entry) for entry in over["history"]), over["history"]
    assert names(proxy, 10) == {(200, "shop-v1")}
