"""Versions that are judged on copies alone, before any client meets them: real processes, five rollouts at once."""

import itertools
import json
import time

import pytest

from .conftest import Server, Service

HOSTS = ("crash", "other", "slow", "good", "alone")
TWIN = {"noiseTwin": "twin", "bodies": "act"}
COPIES = {"crash": {}, "other": TWIN, "slow": TWIN, "good": TWIN, "alone": {"bodies": "report"}}


class Shop(Service):
    """Answers with a document that is never twice the same, `more`, and after `seconds`."""

    class Handler(Service.Handler):
        disable_nagle_algorithm = True

        def do_GET(self):  # noqa: N802 - as it is called
            shop = self.server
            time.sleep(shop.seconds)
            document = {"price": 5, "at": next(shop.ticks), "rows": [{"seen": next(shop.ticks)}], "token": shop.name}
            body = json.dumps(document | shop.more).encode()
            self.send_response(shop.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def __init__(self, name, *, status=200, seconds=0.0, **more):
        self.name, self.status, self.seconds, self.more = name, status, seconds, more
        self.ticks = itertools.count(1_000_000 + 1_000_000 * len(name))
        Server.__init__(self, self.Handler)


@pytest.fixture(scope="module")
def shops():
    made = {
        "v1": Shop("v1"),
        "twin": Shop("twin!"),
        "crash": Shop("crash", status=503),
        "other": Shop("other", debug=True),
        "slow": Shop("slow", seconds=0.05),
        "good": Shop("good"),
        "alone": Shop("alone", debug=True),
    }
    yield made
    for shop in made.values():
        shop.shutdown()
        shop.server_close()


def config(shops, admin, state):
    """Return a file with a rollout for each of HOSTS, tried on copies first and judged by nothing else."""
    analysis = {"interval": "1h", "iterations": 2, "mirror": True}
    return {
        "listeners": [{"address": "127.0.0.1:0"}],
        "admin": {"address": admin},
        "state": {"path": str(state)},
        "workers": 1,
        "upstreams": [{"name": name, "endpoints": [f"http://{shop.address}"]} for name, shop in shops.items()],
        "routes": [
            {"name": name, "hostnames": [f"{name}.test"], "rules": [{"backendRefs": [{"name": "v1"}]}]}
            for name in HOSTS
        ],
        "rollouts": [
            {
                "name": name,
                "route": name,
                "primary": "v1",
                "canary": name,
                "revision": "2",
                "analysis": {**analysis, "compare": {"warmup": "0s", "mirror": {"perSecond": 50, **COPIES[name]}}},
            }
            for name in HOSTS
        ],
    }


def field(rollout, name, kind):
    return next(one for one in rollout["mirrored"]["fields"] if (one["field"], one["kind"]) == (name, kind))


def entries(rollout, kind):
    return [entry for entry in rollout["history"] if entry["kind"] == kind]


@pytest.mark.slow
def test_versions_are_judged_on_copies_alone(shops, running, clients, free_address, tmp_path):
    proxy = running(config(shops, free_address(), tmp_path / "state.db"), tmp_path)
    crowds = [clients(proxy, f"{name}.test", count=2) for name in HOSTS]

    crash = proxy.until_phase("crash", "Failed")
    assert "failed on crash alone" in crash["reason"]
    assert crash["mirrored"]["convicted"]
    assert crash["mirrored"]["canaryOnlyBad"] >= 13
    assert crash["mirrored"]["referenceOnlyBad"] <= 1, "unless this machine stood still for seconds"
    crash = proxy.until("crash", lambda one: entries(one, "evidence"))  # a rollback is in force before it is saved
    assert [entry["data"]["leading"] for entry in entries(crash, "evidence")] == ["failures"]

    other = proxy.until_phase("other", "Failed")
    assert "$.debug differed on other alone" in other["reason"]
    debug = field(other, "$.debug", "extra")
    assert (debug["verdict"], debug["twinOnly"]) == ("regression", 0)
    assert debug["examples"][0]["canary"] == "true"
    assert field(other, "$.at", "value")["verdict"] == "noise"

    slow = proxy.until_phase("slow", "Failed")
    assert "slow was" in slow["reason"]
    assert "slower in" in slow["reason"]

    good = proxy.until("good", lambda one: one["mirrored"] and one["mirrored"]["compared"] > 60)
    assert good["phase"] == "Progressing"
    assert not good["mirrored"]["convicted"]
    assert {one["verdict"] for one in good["mirrored"]["fields"]} == {"noise"}
    assert field(good, "$.token", "value")["examples"][0]["canary"] == "(redacted)"

    alone = proxy.until("alone", lambda one: one["mirrored"] and one["mirrored"]["compared"] > 60)
    assert alone["phase"] == "Progressing"
    assert {one["verdict"] for one in alone["mirrored"]["fields"]} == {"reported"}
    assert field(alone, "$.debug", "extra")["canaryOnly"] > 50
    alone = proxy.until("alone", lambda one: entries(one, "note"))
    assert any("alone answers copies unlike v1 in" in entry["text"] for entry in entries(alone, "note"))

    for crowd in crowds:
        crowd.stop()
        assert {status for status, _ in crowd.answers} == {200}, "no client has met any of the versions"
        assert not any('"debug"' in body for _, body in crowd.answers)
