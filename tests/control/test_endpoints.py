"""How endpoints stand in the eyes of all workers, and what that does to shares, events, metrics and answers."""

import asyncio
from types import SimpleNamespace

import pytest
from prometheus_client.parser import text_string_to_metric_families as prometheus

from splitproxy.control import endpoints, metrics, views
from splitproxy.control.endpoints import Standing, changes, in_force, standings
from splitproxy.control.loader import health
from splitproxy.control.loading import Share
from splitproxy.control.publish import Publisher
from splitproxy.control.rollouts.asking import Asking
from splitproxy.control.signals import Signals
from splitproxy.control.state import State
from splitproxy.core import stats

ONE, OTHER = "127.0.0.1:9001", "127.0.0.1:9002"
WELL = Standing(named=1, unhealthy=0, ejected=0, in_use=1, panic=0)
ILL = Standing(named=1, unhealthy=1, ejected=0, in_use=0, panic=0)


def put(region, upstream, address, standing, kind=""):
    place = region.block((stats.ENDPOINT, upstream, address, kind)) + stats.ENDPOINT_NAMED
    for number, cell in enumerate(standing):
        region.cells[place + number] = cell


@pytest.fixture
def workers(regions):
    """The regions of two workers, both alive."""
    return regions.worker(0), regions.worker(1)


@pytest.fixture
def signals(regions, workers):
    return Signals(regions.descriptor, lambda: [0, 1])


def test_what_workers_say_is_added_up(signals, workers):
    put(workers[0], "a", ONE, WELL)
    put(workers[1], "a", ONE, ILL)
    put(workers[1], "a", ONE, WELL, "mirror")
    put(workers[1], "a", OTHER, (0, 0, 0, 0, 0))
    signals.refresh()
    assert standings(signals) == {("a", ONE): Standing(2, 1, 0, 1, 0)}
    assert standings(signals, {"b"}) == {}
    assert standings(signals)["a", ONE].to_dict() == {
        "healthy": False,
        "ejected": False,
        "inUse": True,
        "panic": False,
        "workers": {"all": 2, "unhealthy": 1, "ejected": 0, "inUse": 1},
    }


# --- shares ----------------------------------------------------------------------------------------------------------
def shares(*parts):
    return [Share("shop", "0", name, role, percent) for name, role, percent in parts]


STATIC = [("shop", "0", False)]
OWNED = [("shop", "0", True)]


@pytest.mark.parametrize(
    ("failovers", "served", "configured", "in_force_then"),
    [
        (STATIC, "ab", (("a", "primary", 95.0), ("b", "canary", 5.0)), (95.0, 5.0)),
        (STATIC, "a", (("a", "primary", 95.0), ("b", "canary", 5.0)), (100.0, 0.0)),
        ([], "a", (("a", "primary", 95.0), ("b", "canary", 5.0)), (95.0, 5.0)),
        ([("shop", "1", False)], "a", (("a", "primary", 95.0), ("b", "canary", 5.0)), (95.0, 5.0)),
        (STATIC, "b", (("a", "primary", 95.0), ("b", "canary", 5.0)), (95.0, 5.0)),
        (STATIC, "ac", (("a", "primary", 40.0), ("b", "canary", 20.0), ("c", "canary", 40.0)), (50.0, 0.0, 50.0)),
        (STATIC, "a", (("a", "primary", 40.0), ("b", "canary", 20.0), ("c", "canary", 40.0)), (100.0, 0.0, 0.0)),
        (OWNED, "ac", (("c", "none", 50.0), ("a", "primary", 30.0), ("b", "canary", 20.0)), (50.0, 50.0, 0.0)),
        (OWNED, "b", (("a", "canary", 10.0), ("b", "primary", 90.0)), (0.0, 100.0)),
    ],
)
def test_the_share_of_a_canary_without_an_endpoint(signals, workers, failovers, served, configured, in_force_then):
    for name in "abc":
        put(workers[0], name, ONE, WELL if name in served else ILL)
        put(workers[1], name, ONE, ILL)
    signals.refresh()
    found = in_force(shares(*configured), failovers, signals)
    assert tuple(share.percent for share in found) == in_force_then
    assert [share[:4] for share in found] == [share[:4] for share in shares(*configured)]


def test_the_rules_and_upstreams_to_look_at_are_told_by_the_loader():
    rule = {"name": "0", "split": {"failover": True}, "rollout": {"name": "shop"}}
    plain = {
        "upstreams": [
            {"name": "a", "healthCheck": {"path": "/"}, "outlierDetection": None},
            {"name": "b", "healthCheck": None, "outlierDetection": {}},
            {"name": "c", "healthCheck": None, "outlierDetection": {"interval": 1.0}},
        ],
        "routes": [
            {"name": "shop", "rules": [rule, {**rule, "name": "1", "split": {"failover": False}}]},
            {"name": "pay", "rules": [{**rule, "rollout": None}]},
        ],
    }
    assert health(plain) == {
        "watched": ["a", "c"],
        "failovers": [("shop", "0", True), ("pay", "0", False)],
    }


# --- events ----------------------------------------------------------------------------------------------------------
def test_an_event_tells_of_each_endpoint_that_stands_otherwise():
    before = {("a", ONE): WELL, ("a", OTHER): WELL, ("b", ONE): ILL}
    after = {("a", ONE): ILL, ("a", OTHER): WELL, ("c", ONE): ILL}
    (event,) = changes(before, after)
    assert (event["upstream"], event["address"], event["healthy"], event["inUse"]) == ("a", ONE, False, False)
    assert changes(before, {("a", ONE): WELL._replace(named=2, in_use=2)}) == [], "one worker more is no news"


@pytest.fixture
def state(regions, workers):
    publisher = Publisher()
    publisher.current = SimpleNamespace(generation=3)
    publisher.workers = {slot: SimpleNamespace(slot=slot, leaving=False, generation=3) for slot in (0, 1)}
    state = State(regions.descriptor, publisher)
    configured = shares(("a", "primary", 95.0), ("b", "canary", 5.0))
    plain = {
        "upstreams": [{"name": "a", "loadBalancing": "random", "endpoints": []}],
        "routes": [{"name": "shop", "hostnames": [], "rules": [{"name": "0", "matches": []}]}],
    }
    state.rollouts = SimpleNamespace(controllers={}, live_shares=lambda shares: shares)
    state.reloader = SimpleNamespace(
        running=SimpleNamespace(
            shares=configured, health={"watched": ["a"], "failovers": STATIC}, plain=lambda: plain, max_series=1000
        ),
        last=None,
        counts={},
    )
    return state


async def test_listeners_hear_of_it(state, workers, monkeypatch):
    monkeypatch.setattr(endpoints, "_LOOK_SECONDS", 0.01)
    put(workers[0], "a", ONE, WELL)
    state.signals.refresh()
    following = asyncio.ensure_future(endpoints.follow(state))
    with state.events.subscribe() as queue:
        await asyncio.sleep(0.05)
        put(workers[0], "a", ONE, ILL)
        kind, event, _ = await asyncio.wait_for(queue.get(), 5)
        put(workers[0], "a", ONE, WELL)
        _, back, _ = await asyncio.wait_for(queue.get(), 5)
        assert queue.empty()
    following.cancel()
    assert (kind, event["upstream"], event["healthy"], back["healthy"]) == ("endpoint", "a", False, True)


def test_metrics_and_answers_say_the_same(state, workers):
    put(workers[0], "a", ONE, ILL)
    put(workers[1], "a", ONE, WELL)
    put(workers[0], "a", OTHER, (1, 0, 1, 1, 1))
    put(workers[0], "b", ONE, ILL)
    body, _ = metrics.render(state, "")
    found = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in prometheus(body.decode())
        for sample in family.samples
    }
    assert found["splitproxy_endpoint_healthy", ONE, "a"] == 0
    assert found["splitproxy_endpoint_healthy", OTHER, "a"] == 1
    assert found["splitproxy_endpoint_ejected", ONE, "a"] == 0
    assert found["splitproxy_endpoint_ejected", OTHER, "a"] == 1
    assert found["splitproxy_endpoint_panic", OTHER, "a"] == 1
    assert found["splitproxy_split_weight", "0", "b", "shop"] == 0
    assert found["splitproxy_split_weight", "0", "a", "shop"] == 100
    (upstream,) = views.upstreams(state)
    told = {one["address"]: (one["healthy"], one["ejected"], one["panic"]) for one in upstream["addresses"]}
    assert told == {ONE: (False, False, False), OTHER: (True, True, True)}
    (route,) = views.routes(state)
    assert {one["name"]: one["weight"] for one in route["rules"][0]["backends"]} == {"a": 100.0, "b": 0.0}


def test_without_a_worker_nobody_can_say(state):
    state.publisher.workers = {}
    assert [share.percent for share in state.shares()] == [95.0, 5.0]


# --- rollouts --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("standing", "reached"), [(WELL, True), (ILL, False), (None, True)])
async def test_a_canary_that_no_worker_finds_healthy_cannot_be_reached(signals, workers, standing, reached):
    """That it takes connections is not enough."""
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    if standing:
        put(workers[0], "b", ONE, standing)
    signals.refresh()
    controller = SimpleNamespace(
        plan=SimpleNamespace(primary="a", canary="b"),
        facts=SimpleNamespace(endpoints={"a": [url], "b": [url]}),
        rollout={"promotion": {"readiness": {"path": None}}},
        parts=SimpleNamespace(signals=signals),
        state=SimpleNamespace(handed_back=False),
    )
    said = await Asking._found(SimpleNamespace(_controller=controller))
    server.close()
    await server.wait_closed()
    assert said[:2] == (reached, True)
    assert ("no worker finds an endpoint" in said[2]) is not reached
