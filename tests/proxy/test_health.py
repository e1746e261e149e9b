"""Endpoints that are probed, ejected, brought back slowly, or left out with their whole upstream."""

import asyncio
import re

import pytest

from splitproxy.core import live, snapshot, stats
from splitproxy.core.live import Area, Traffic
from splitproxy.proxy import probing, service

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BAD = b"HTTP/1.1 500 Broken\r\nContent-Length: 6\r\n\r\nbroken"
PROBE = {
    "path": "/healthz",
    "host": None,
    "statuses": ["200-299"],
    "interval": 0.02,
    "timeout": 1.0,
    "healthyThreshold": 2,
    "unhealthyThreshold": 2,
}
ERRORS = {
    "consecutiveErrors": 3,
    "interval": 10.0,
    "baseEjectionTime": 30.0,
    "maxEjectionTime": 300.0,
    "maxEjectionPercent": 50,
}
ALONE = {**ERRORS, "maxEjectionPercent": 100}
"""Even the only endpoint of an upstream may be ejected."""


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    """Have endpoints looked at with every tick, and the first probes at once."""
    monkeypatch.setattr(service, "_SWEEP_EVERY", 1)
    monkeypatch.setattr(probing, "FIRST", 0.01)


def answer(body, status=b"200 OK"):
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


class Patient:
    """An endpoint that is in order or not as the test says, for probes and requests apart."""

    def __init__(self, name=b"ok"):
        self.name, self.health, self.works = name, b"204 No Content", True
        self.probed = asyncio.Event()

    def __call__(self, request):
        if request.target == b"/healthz":
            self.probed.set()
            return b"HTTP/1.1 %b\r\n\r\n" % self.health if self.health[:1] == b"2" else answer(b"", self.health)
        return answer(self.name) if self.works else BAD

    def fall_ill(self):
        self.health = b"503 Ill"

    def recover(self):
        self.health = b"204 No Content"


def used(rig, upstream="a"):
    """Return the ports that requests to an upstream may go to."""
    return {endpoint.port for endpoint in rig.pool(upstream).endpoints.values() if endpoint.used}


def gauges(rig, port, upstream="a", kind=""):
    """Return what the region says of an endpoint: named, unhealthy, ejected, in use, panic."""
    key = (stats.ENDPOINT, upstream, f"127.0.0.1:{port}", kind)
    place = dict(stats.directory(rig.service.cells))[key] + stats.ENDPOINT_NAMED
    return rig.service.cells[place : place + 5].tolist()


def probed(upstream="a", **changes):
    return {upstream: {"healthCheck": {**PROBE, **changes}}}


async def bodies(rig, count=6):
    client = await rig.client()
    return {(await client.ask()).body for _ in range(count)}


# --- probes ----------------------------------------------------------------------------------------------------------
async def test_an_endpoint_that_probes_find_ill_gets_nothing_until_it_is_well_again(rig):
    one, other = Patient(b"one"), Patient(b"other")
    endpoints = [await rig.endpoint(one), await rig.endpoint(other)]
    await rig.serve(endpoints, health=probed())
    assert await bodies(rig) == {b"one", b"other"}
    one.fall_ill()
    await rig.until(lambda: used(rig) == {endpoints[1].port})
    assert await bodies(rig) == {b"other"}
    assert gauges(rig, endpoints[0].port) == [1, 1, 0, 0, 0]
    assert gauges(rig, endpoints[0].port, kind="mirror") == [1, 1, 0, 0, 0], "copies do not go there either"
    assert gauges(rig, endpoints[1].port) == [1, 0, 0, 1, 0]
    one.recover()
    await rig.until(lambda: len(used(rig)) == 2)
    assert await bodies(rig) == {b"one", b"other"}
    assert rig.outcomes() == {"success": 18}, "probes are no requests"


async def silent(peer, endpoint):
    await peer.request()
    await peer.reader.read()


async def hanging_up(peer, endpoint):
    await peer.request()
    peer.reset()


@pytest.mark.parametrize(
    ("script", "well"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", True),
        (b"HTTP/1.0 204 No Content\r\n\r\n", True),
        (b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 299 Odd\r\n\r\n", True),
        (b"HTTP/1.1 301 Moved\r\nLocation: /\r\n\r\n", False),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", False),
        (b"HTTP/1.1 503 Ill\r\n\r\n", False),
        (b"SSH-2.0-OpenSSH\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n\r\n", False),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 20, False),
        (silent, False),
        (hanging_up, False),
    ],
)
async def test_only_a_whole_head_with_a_wanted_status_in_time_is_good(rig, script, well):
    """The other endpoint is what the first one is not."""
    asked = await rig.endpoint(script)
    other = await rig.endpoint(Patient())
    await rig.serve([asked, other], health=probed(timeout=0.3 if script is silent else 2.0, unhealthyThreshold=1))
    if well:
        await rig.until(lambda: asked.connections > 3)
        assert len(used(rig)) == 2
    else:
        await rig.until(lambda: used(rig) == {other.port})


async def test_nobody_at_home_is_ill(rig):
    well, closed = await rig.endpoint(Patient()), await rig.endpoint()
    closed.stop()
    await rig.serve([well, closed], health=probed())
    await rig.until(lambda: used(rig) == {well.port})


@pytest.mark.parametrize(("host", "named"), [(None, b"127.0.0.1:%d"), ("shop.internal", b"shop.internal")])
async def test_what_a_probe_looks_like(rig, host, named):
    endpoint = await rig.endpoint(b"HTTP/1.1 200 OK\r\n\r\n")
    await rig.serve(endpoint, health=probed(path="/healthz?full=1", host=host))
    await rig.until(lambda: endpoint.received)
    probe = endpoint.received[0]
    assert probe.line == b"GET /healthz?full=1 HTTP/1.1"
    assert probe.get(b"host") == (named % endpoint.port if b"%" in named else named)
    assert (probe.get(b"user-agent"), probe.get(b"connection")) == (b"splitproxy-health", b"close")


async def test_without_a_usable_endpoint_a_request_is_refused_at_once_and_charged_to_nobody(rig):
    patient = Patient()
    await rig.serve(await rig.endpoint(patient), health=probed())
    patient.fall_ill()
    await rig.until(lambda: not used(rig))
    response = await rig.ask()
    assert (response.status, response.json["error"]) == (503, "no_endpoint")
    assert response.json["detail"] == "no endpoint of the upstream 'a' is healthy"
    assert rig.outcomes() == {}
    assert rig.codes(role="none") == {"503": 1}
    patient.recover()
    await rig.until(lambda: used(rig))
    assert (await rig.ask()).status == 200


async def test_connections_to_an_ill_endpoint_are_not_kept(rig):
    """Else they would take the room of others: here there is room for one."""
    one, other = Patient(b"one"), Patient(b"other")
    endpoints = [await rig.endpoint(one), await rig.endpoint(other)]
    await rig.serve(endpoints, health=probed(), pool={"maxConnections": 1})
    client = await rig.client()
    await client.ask()
    (kept,) = [endpoint for endpoint in rig.pool().endpoints.values() if endpoint.idle]
    (one if kept.port == endpoints[0].port else other).fall_ill()
    await rig.until(lambda: not kept.used)
    await rig.until(lambda: rig.pool().opened == 0)
    assert (await client.ask()).status == 200


async def test_with_too_few_left_all_are_used(rig):
    patients = [Patient(b"%d" % number) for number in range(4)]
    endpoints = [await rig.endpoint(patient) for patient in patients]
    await rig.serve(endpoints, health=probed())
    for patient in patients[:2]:
        patient.fall_ill()
    await rig.until(lambda: len(used(rig)) == 2)
    patients[2].fall_ill()
    await rig.until(lambda: len(used(rig)) == 4)
    assert gauges(rig, endpoints[0].port) == [1, 1, 0, 1, 1]
    assert await bodies(rig, 8) == {b"0", b"1", b"2", b"3"}
    patients[3].fall_ill()
    await rig.until(lambda: not used(rig))


# --- reloads ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("change", [{}, {"pool": {"maxIdle": 1}}, {"weight": 3}, {"timeouts": {"request": 9.0}}])
async def test_what_is_known_of_an_endpoint_outlives_a_reload(rig, change):
    patient, well = Patient(), Patient()
    endpoints = [await rig.endpoint(patient), await rig.endpoint(well)]
    await rig.serve(endpoints, health=probed())
    patient.fall_ill()
    await rig.until(lambda: used(rig) == {endpoints[1].port})
    plain = rig.plain
    if weight := change.pop("weight", 0):

        def heavier(*args, **options):
            told = plain(*args, **options)
            for endpoint in told["upstreams"][0]["endpoints"]:
                endpoint["weight"] = weight
            return told

        rig.plain = heavier
    await rig.serve(endpoints, health=probed(), **change)
    assert used(rig) == {endpoints[1].port}
    patient.recover()
    await rig.until(lambda: len(used(rig)) == 2)


async def test_without_a_health_check_any_more_all_are_healthy_and_none_is_probed(rig):
    patient, well = Patient(), Patient()
    endpoints = [await rig.endpoint(patient), await rig.endpoint(well)]
    await rig.serve(endpoints, health=probed())
    patient.fall_ill()
    await rig.until(lambda: len(used(rig)) == 1)
    await rig.serve(endpoints)
    assert len(used(rig)) == 2
    before = endpoints[0].connections
    await asyncio.sleep(0.1)
    assert endpoints[0].connections <= before + 1, "one may have been on its way"


async def test_an_endpoint_that_is_gone_is_neither_probed_nor_shown(rig):
    one, other = await rig.endpoint(Patient()), await rig.endpoint(Patient())
    await rig.serve([one, other], health=probed())
    await rig.until(lambda: one.connections and other.connections)
    await rig.serve([one], health=probed())
    assert gauges(rig, other.port) == [0] * 5
    before = other.connections
    await asyncio.sleep(0.1)
    assert other.connections <= before + 1


async def test_a_configuration_that_is_not_taken_over_probes_nobody(rig):
    endpoint = await rig.endpoint(Patient())
    await rig.serve(await rig.endpoint())
    prepared = await rig.service.prepare(snapshot.build(rig.plain(endpoint, health=probed()), 9))
    await asyncio.sleep(0.1)
    rig.service.forget(prepared)
    assert endpoint.connections == 0


# --- ejection --------------------------------------------------------------------------------------------------------
async def cutting(peer, endpoint):
    await peer.request()
    await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
    peer.reset()


FAILURES = {
    "a 500": BAD,
    "a 503 in pieces": b"HTTP/1.1 503 Ill\r\nContent-Length: 70000\r\n\r\n" + b"x" * 70_000,
    "a 502 in chunks": b"HTTP/1.1 502 Ill\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n",
    "a 504 to the end": (b"HTTP/1.1 504 Late\r\n\r\nlate", {"then": "close"}),
    "a 500 without a body": b"HTTP/1.1 500 Broken\r\nContent-Length: 0\r\n\r\n",
    "a reset": hanging_up,
    "an answer cut off": cutting,
    "garbage": b"SSH-2.0-OpenSSH\r\n\r\n",
    "silence": silent,
}


@pytest.mark.parametrize("kind", FAILURES)
async def test_failures_in_a_row_eject(rig, kind):
    script = FAILURES[kind]
    script, options = script if isinstance(script, tuple) else (script, {})
    bad, good = await rig.endpoint(script, **options), await rig.endpoint(OK)
    await rig.serve([bad, good], health={"a": {"outlierDetection": ERRORS}}, timeouts={"responseHead": 0.15})
    failed = 0
    while bad.port in used(rig):
        client = await rig.client()
        try:
            failed += (await client.ask()).status >= 500
        except (asyncio.IncompleteReadError, ConnectionError):
            failed += 1
    assert failed == 3
    assert gauges(rig, bad.port) == [1, 0, 1, 0, 0]
    assert await bodies(rig) == {b"ok"}


async def test_a_refused_connection_counts_too(rig):
    closed, good = await rig.endpoint(), await rig.endpoint(OK)
    closed.stop()
    await rig.serve([closed, good], health={"a": {"outlierDetection": ERRORS}})
    client = await rig.client()
    statuses = [(await client.ask()).status for _ in range(12)]
    assert sorted(statuses)[-4:] == [200, 502, 502, 502]
    assert used(rig) == {good.port}


async def test_head_requests_are_judged_by_their_status(rig):
    bad, good = await rig.endpoint(b"HTTP/1.1 500 Broken\r\nContent-Length: 6\r\n\r\n"), await rig.endpoint(OK[:-2])
    await rig.serve([bad, good], health={"a": {"outlierDetection": ERRORS}})
    client = await rig.client()
    for _ in range(6):
        await client.ask(method="HEAD")
    assert used(rig) == {good.port}


async def test_what_works_now_and_then_is_not_ejected(rig):
    count = 0

    def flaky(request):
        nonlocal count
        count += 1
        return OK if count % 3 == 0 else BAD

    flawed, good = await rig.endpoint(flaky), await rig.endpoint(OK)
    await rig.serve([flawed, good], health={"a": {"outlierDetection": ERRORS}})
    client = await rig.client()
    for _ in range(40):
        await client.ask()
    assert flawed.port in used(rig)


async def test_404s_are_answers_like_any_other(rig):
    ending = await rig.endpoint(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
    await rig.serve(ending, health={"a": {"outlierDetection": ALONE}})
    client = await rig.client()
    for _ in range(10):
        assert (await client.ask()).status == 404


async def test_the_only_endpoint_stays_unless_the_percentage_allows_it(rig):
    endpoint = await rig.endpoint(BAD)
    await rig.serve(endpoint, health={"a": {"outlierDetection": ERRORS}})
    client = await rig.client()
    for _ in range(5):
        assert (await client.ask()).status == 500
    await rig.serve(endpoint, health={"a": {"outlierDetection": ALONE}})
    assert [(await client.ask()).status for _ in range(3)] == [500, 503, 503]


async def test_clients_that_leave_are_neither_an_error_nor_an_answer(rig):
    patient = Patient()
    patient.works = False

    async def script(peer, endpoint):
        while True:
            request = await peer.request()
            endpoint.received.append(request)
            if request.target != b"/slow":
                await peer.send(patient(request))

    endpoint = await rig.endpoint(script)
    await rig.serve(endpoint, health={"a": {"outlierDetection": ALONE}})
    for turn in range(3):
        assert used(rig)
        leaving = await rig.client()
        await leaving.send(b"GET /slow HTTP/1.1\r\nHost: kit.test\r\n\r\n")
        await rig.until(lambda turn=turn: len(endpoint.received) == 2 * turn + 1)
        leaving.reset()
        await rig.until(lambda turn=turn: rig.outcomes().get("client_gone") == turn + 1)
        await rig.ask()
    assert not used(rig)


async def test_a_replay_is_no_answer_in_between(rig):
    """The endpoint dies under every request on a kept-alive connection, and fails every one on a new connection."""

    async def script(peer, endpoint):
        endpoint.received.append(await peer.request())
        await peer.send(BAD)
        await peer.request()
        peer.reset()

    endpoint = await rig.endpoint(script)
    await rig.serve(endpoint, health={"a": {"outlierDetection": ALONE}})
    client = await rig.client()
    assert [(await client.ask()).status for _ in range(4)] == [500, 500, 500, 503]


async def test_answers_at_the_same_time_break_the_row(rig):
    gate = asyncio.Event()

    async def script(peer, endpoint):
        while True:
            request = await peer.request()
            if request.target == b"/good":
                await gate.wait()
                await peer.send(OK)
            else:
                await peer.send(BAD)

    endpoint = await rig.endpoint(script)
    await rig.serve(endpoint, health={"a": {"outlierDetection": ALONE}})
    good, bad = await rig.client(), await rig.client()
    waiting = asyncio.ensure_future(good.ask("/good"))
    await endpoint.connected.wait()
    assert [(await bad.ask()).status for _ in range(2)] == [500, 500]
    gate.set()
    assert (await waiting).status == 200
    assert [(await bad.ask()).status for _ in range(4)] == [500, 500, 500, 503]


async def test_what_was_answered_before_a_reload_gave_another_weight_does_not_count(rig):
    """Else what is counted anew would never seem to grow, and any three errors would be in a row."""
    patient = Patient()
    endpoint = await rig.endpoint(patient)
    plain = rig.plain

    def with_weight(weight):
        def heavier(*args, **options):
            told = plain(*args, **options)
            told["upstreams"][0]["endpoints"][0]["weight"] = weight
            return told

        return heavier

    client = None
    for weight in (1, 2):
        rig.plain = with_weight(weight)
        await rig.serve(endpoint, health={"a": {"outlierDetection": ALONE}})
        client = client or await rig.client()
        for works in (True, True, True, True, False, False, True, False, False, True, False):
            patient.works = works
            assert (await client.ask()).status == (200 if works else 500)


async def test_errors_in_a_panic_do_not_make_the_next_ejection_come_sooner(rig):
    patients = [Patient(), Patient(), Patient()]
    endpoints = [await rig.endpoint(patient) for patient in patients]
    brief = {**ERRORS, "baseEjectionTime": 0.3, "maxEjectionPercent": 70}
    await rig.serve(endpoints, health={"a": {"outlierDetection": brief, "panicThreshold": 100}})
    client = await rig.client()
    patients[0].works = False
    while not gauges(rig, endpoints[0].port)[2]:
        await client.ask()
    for _ in range(30):
        await client.ask()
    assert gauges(rig, endpoints[0].port) == [1, 0, 1, 1, 1]
    await rig.until(lambda: not gauges(rig, endpoints[0].port)[2])
    assert sorted([(await client.ask()).status for _ in range(3)]) == [200, 200, 500]
    assert not gauges(rig, endpoints[0].port)[2], "one error is not three"


async def test_copies_do_not_eject(rig):
    mirror = {"backendRef": {"name": "b"}, "percent": 100.0, "maxBodyBytes": 1000, "maxInFlight": 9, "timeout": 5.0}
    filters = [{"type": "RequestMirror", "requestMirror": {**mirror, "methods": "safe"}}]
    copied = await rig.endpoint(BAD)
    await rig.serve(
        await rig.endpoint(OK), copied, rules=[{"filters": filters}], health={"b": {"outlierDetection": ALONE}}
    )
    client = await rig.client()
    for number in range(6):
        await client.ask()
        await rig.until(lambda number=number: len(copied.received) > number)
    assert used(rig, "b")


async def test_the_ejected_come_back_and_the_next_time_stay_away_longer(rig):
    patient, well = Patient(), Patient()
    endpoints = [await rig.endpoint(patient), await rig.endpoint(well)]
    brief = {**ERRORS, "baseEjectionTime": 0.2}
    await rig.serve(endpoints, health={"a": {"outlierDetection": brief}})
    client, loop, lengths = await rig.client(), asyncio.get_running_loop(), []
    for _ in range(2):
        patient.works = False
        while endpoints[0].port in used(rig):
            await client.ask()
        left = loop.time()
        await rig.until(lambda: endpoints[0].port in used(rig))
        lengths.append(loop.time() - left)
    assert lengths[0] > 0.15
    assert lengths[1] > 0.35
    patient.works = True
    assert {(await client.ask()).status for _ in range(6)} == {200}


async def test_ejections_end_with_outlier_detection_itself(rig):
    endpoint = await rig.endpoint(BAD)
    await rig.serve(endpoint, health={"a": {"outlierDetection": ALONE}})
    client = await rig.client()
    assert [(await client.ask()).status for _ in range(4)] == [500, 500, 500, 503]
    await rig.serve(endpoint)
    await rig.until(lambda: used(rig))
    assert (await client.ask()).status == 500


async def test_one_that_comes_back_begins_slowly(rig):
    one, other = Patient(b"one"), Patient(b"other")
    endpoints = [await rig.endpoint(one), await rig.endpoint(other)]
    health = {"a": {"healthCheck": PROBE, "slowStart": 60.0}}
    await rig.serve(endpoints, health=health)
    assert {endpoint.weight for endpoint in rig.pool().endpoints.values()} == {1.0}, "they begin together"
    one.fall_ill()
    await rig.until(lambda: len(used(rig)) == 1)
    one.recover()
    await rig.until(lambda: len(used(rig)) == 2)
    weights = {endpoint.port: endpoint.weight for endpoint in rig.pool().endpoints.values()}
    assert weights == {endpoints[0].port: 0.1, endpoints[1].port: 1.0}
    client = await rig.client()
    answers = [(await client.ask()).body for _ in range(44)]
    assert 3 <= answers.count(b"one") <= 5
    await rig.serve(endpoints, health={"a": {"healthCheck": PROBE, "slowStart": 0.0}})
    assert {endpoint.weight for endpoint in rig.pool().endpoints.values()} == {1.0}


async def test_a_slow_start_goes_on_by_itself(rig):
    one, other = Patient(), Patient()
    endpoints = [await rig.endpoint(one), await rig.endpoint(other)]
    await rig.serve([endpoints[0]], health={"a": {"slowStart": 0.8}})
    await rig.serve(endpoints, health={"a": {"slowStart": 0.8}})
    newcomer = next(endpoint for endpoint in rig.pool().endpoints.values() if endpoint.port == endpoints[1].port)
    seen = [newcomer.weight]
    while seen[-1] < 1.0:
        await rig.until(lambda: newcomer.weight != seen[-1])
        seen.append(newcomer.weight)
    assert seen[0] == 0.1
    assert seen == sorted(seen)
    assert len(seen) > 2


# --- the draw --------------------------------------------------------------------------------------------------------
def refs(**weights):
    return [{"name": name, "weight": weight, "filters": []} for name, weight in weights.items()]


def split(*, failover=True, key=None, overrides=()):
    return {"key": key, "overrides": list(overrides), "failover": failover}


async def without_a_canary(rig, rule, health=None, upstreams=2):
    """Serve a rule whose canary `b` is ill."""
    patients = {name: Patient(name.encode()) for name in "abc"[:upstreams]}
    patients["b"].fall_ill()
    endpoints = [await rig.endpoint(patient) for patient in patients.values()]
    await rig.serve(*endpoints, rules=[rule], health=probed("b"))
    await rig.until(lambda: not used(rig, "b"))
    return patients


async def test_a_canary_without_an_endpoint_is_left_out_and_charged_nothing(rig):
    patients = await without_a_canary(rig, {"backendRefs": refs(a=1, b=99), "split": split()})
    assert await bodies(rig, 20) == {b"a"}
    await rig.until(lambda: rig.codes(upstream="a") == {"200": 20})
    assert rig.codes(upstream="b") == rig.outcomes(upstream="b") == rig.reasons(upstream="b") == {}
    assert rig.reasons(upstream="a") == {"random": 20}
    patients["b"].recover()
    await rig.until(lambda: used(rig, "b"))
    assert b"b" in await bodies(rig, 20)


async def test_without_failover_its_share_is_503(rig):
    await without_a_canary(rig, {"backendRefs": refs(a=50, b=50), "split": split(failover=False)})
    client = await rig.client()
    statuses = {(await client.ask()).status for _ in range(40)}
    assert statuses == {200, 503}
    assert rig.outcomes(upstream="b") == {}


async def test_the_first_request_of_all_is_drawn_without_it_too(rig):
    patients = [Patient(b"a"), Patient(b"b")]
    endpoints = [await rig.endpoint(patients[0]), []]
    await rig.serve(*endpoints, rules=[{"backendRefs": refs(a=1, b=999_999), "split": split()}])
    response = await rig.ask()
    assert (response.status, response.body) == (200, b"a")


async def test_a_primary_without_an_endpoint_sends_nobody_to_the_canary(rig):
    ill = Patient()
    ill.fall_ill()
    await rig.serve(
        await rig.endpoint(ill),
        await rig.endpoint(Patient(b"b")),
        rules=[{"backendRefs": refs(a=50, b=50), "split": split()}],
        health=probed("a"),
    )
    await rig.until(lambda: not used(rig, "a"))
    client = await rig.client()
    assert {(await client.ask()).status for _ in range(40)} == {200, 503}


async def test_a_failed_canary_answers_itself_while_the_primary_has_no_endpoint(rig):
    ill, failing = Patient(b"a"), Patient(b"b")
    ill.fall_ill()
    failing.works = False
    await rig.serve(
        await rig.endpoint(ill),
        await rig.endpoint(failing),
        rules=[{"backendRefs": refs(a=50, b=50), "split": split()}],
        health=probed("a"),
    )
    await rig.until(lambda: not used(rig, "a"))
    client = await rig.client()
    assert {(await client.ask()).status for _ in range(40)} == {500, 503}  # the canary's own, and the primary's share


async def test_with_both_ill_there_is_nowhere_to_go(rig):
    rule = {"backendRefs": refs(a=50, b=50), "split": split()}
    patients = await without_a_canary(rig, rule)
    patients["a"].fall_ill()
    await rig.serve(*rig.endpoints, rules=[rule], health={**probed("a"), **probed("b")})
    await rig.until(lambda: not used(rig, "a"))
    assert (await rig.ask()).json["error"] == "no_endpoint"


async def test_clients_of_the_others_stay_where_they_are(rig):
    rule = {"backendRefs": refs(a=40, b=30, c=30), "split": split(key={"header": "x-user"})}
    patients = await without_a_canary(rig, rule, upstreams=3)
    client = await rig.client()

    async def places():
        return {user: (await client.ask(x_user=f"user-{user}")).body for user in range(60)}

    without = await places()
    assert set(without.values()) == {b"a", b"c"}
    assert rig.reasons() == {"key": 60}
    patients["b"].recover()
    await rig.until(lambda: used(rig, "b"))
    whole = await places()
    assert {whole[user] for user in whole if whole[user] != without[user]} == {b"b"}
    assert {without[user] for user in whole if whole[user] == b"b"} == {b"a", b"c"}


async def test_an_id_given_meanwhile_keeps_its_client_where_it_was_put(rig):
    rule = {
        "backendRefs": refs(a=10, b=80, c=10),
        "split": split(key={"cookie": "sp_id", "issue": True}),
    }
    await without_a_canary(rig, rule, upstreams=3)
    client = await rig.client()
    for _ in range(20):
        first = await client.ask()
        (issued,) = re.findall(rb"^sp_id=([0-9a-f]{32});", first.get(b"set-cookie"))
        again = await client.ask(cookie=f"sp_id={issued.decode()}")
        assert again.body == first.body


async def test_who_asks_for_the_canary_gets_the_primary_as_a_failover(rig):
    override = {"header": "x-version", "value": "next", "upstream": "b"}
    await without_a_canary(rig, {"backendRefs": refs(a=1, b=0), "split": split(overrides=[override])})
    assert (await rig.ask(x_version="next")).body == b"a"
    assert rig.reasons() == {"failover": 1}
    assert rig.log()[0]["reason"] == "failover"


@pytest.mark.parametrize(("swapped", "weight"), [(False, 10_000), (False, 5_000), (True, 5_000), (True, 0)])
async def test_a_rollouts_canary_is_left_out_whichever_it_is(rig, swapped, weight):
    """Swapped, the roles are exchanged: then `a` is the canary, and `b` stands in for it."""
    rig.area = area = Area(memoryview(bytearray(live.LIVE_BYTES)).cast("Q"))
    slot = area.slot("key", take=True)
    area.write(slot, live.encode(Traffic(weight, swapped=swapped), 1))
    bounds = {"maxBodyBytes": 1 << 20, "maxInFlight": 64, "timeout": 5.0, "allMethods": False}
    owner = {"name": "shop", "live": "key", "primary": "a", "canary": "b", "cohorts": [], "affinity": None}
    rule = {"backendRefs": refs(a=1, b=0), "rollout": {**owner, "mirror": bounds}, "split": split()}
    ill, other = (b"a", b"b") if swapped else (b"b", b"a")
    patients = [Patient(b"a"), Patient(b"b")]
    patients[swapped is False].fall_ill()
    endpoints = [await rig.endpoint(patient) for patient in patients]
    await rig.serve(*endpoints, rules=[rule], health={**probed("a"), **probed("b")})
    await rig.until(lambda: not used(rig, ill.decode()))
    assert await bodies(rig, 20) == {other}
    await rig.until(lambda: rig.codes(role="primary") == {"200": 20})
    assert rig.codes(role="canary") == rig.outcomes(role="canary") == {}
    assert rig.reasons() == ({"random": 20} if weight == 5_000 else {"failover": 20})
