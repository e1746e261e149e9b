"""Requests sent again after a failure: failed over to the primary, retried within a budget; and faults on purpose."""

import asyncio
import contextlib
import random
import socket
import time

import pytest

from splitproxy.core import live, snapshot, stats
from splitproxy.core.live import Area, Traffic

A = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na"
B = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nb"
BROKEN = b"HTTP/1.1 500 Oh\r\nContent-Length: 5\r\n\r\noh no"
GET = b"GET / HTTP/1.1\r\nHost: kit.test\r\nX-To: b\r\n\r\n"
RETRY = {"attempts": 2, "codes": [500, 503], "backoff": 0.0}


def ref(name, weight=0, *filters):
    return {"name": name, "weight": weight, "filters": list(filters)}


def rule(*, failover=True, retry=None, canary=(), primary=(), **more):
    """Return a rule whose primary is `a`; requests with `X-To: b` go to its canary `b`."""
    override = {"header": "x-to", "value": "b", "upstream": "b"}
    split = {"key": None, "overrides": [override], "failover": failover}
    return [{"backendRefs": [ref("a", 1, *primary), ref("b", 0, *canary)], "split": split, "retry": retry, **more}]


def alone(**retry):
    """Return a rule with one upstream and retries."""
    return [{"retry": {**RETRY, **retry}}]


def fault(**parts):
    return {"type": "Fault", "fault": {"delay": None, "abort": None, **parts}}


def nobody():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{sock.getsockname()[1]}"


async def silent(peer, endpoint):
    endpoint.received.append(await peer.request())
    await peer.reader.read()


def cutting(data):
    """Return a script that answers the beginning of something, then resets the connection."""

    async def script(peer, endpoint):
        endpoint.received.append(await peer.request())
        if data:
            await peer.send(data)
            await asyncio.sleep(0.02)
        peer.reset()

    return script


def failing(times, data=BROKEN, then=A):
    """Return what answers `data` so many times, then `then`."""
    left = [times]

    def answer(request):
        left[0] -= 1
        return data if left[0] >= 0 else then

    return answer


def failovers(rig):
    cells = rig.service.cells
    return {
        key[1:]: cells[place + stats.FAILOVERS] for key, place in stats.directory(cells) if key[0] == stats.FAILOVER
    }


def retries(rig, upstream="a"):
    return sum(block[stats.RETRIES] for key, block in rig.cells().items() if key[2] == upstream)


# --- failover --------------------------------------------------------------------------------------------------------
LARGE_BROKEN = b"HTTP/1.1 503 Oh\r\nContent-Length: 300000\r\n\r\n" + b"x" * 300_000
CANARIES = {
    "500": (BROKEN, "5xx"),
    "a large 503": (LARGE_BROKEN, "5xx"),
    "a 503 in chunks": (b"HTTP/1.1 503 Oh\r\nTransfer-Encoding: chunked\r\n\r\n4\r\noh n", "5xx"),
    "a 503 to the end": (b"HTTP/1.1 503 Oh\r\n\r\noh no", "5xx"),
    "no HTTP": (b"nonsense\r\n\r\n", "upstream_protocol_error"),
    "a reset": (cutting(b""), "upstream_reset"),
    "a reset within the head": (cutting(b"HTTP/1.1 200 OK\r\nContent-"), "upstream_reset"),
    "a reset after 103": (cutting(b"HTTP/1.1 103 Early\r\n\r\n"), "upstream_reset"),
    "silence": (silent, "upstream_timeout"),
    "nobody": (None, "connect_failed"),
}


@pytest.mark.parametrize("kind", CANARIES)
async def test_what_failed_at_the_canary_is_answered_by_the_primary(rig, kind):
    script, outcome = CANARIES[kind]
    primary = await rig.endpoint(A)
    canary = nobody() if script is None else await rig.endpoint(script)
    await rig.serve(primary, canary, rules=rule(), timeouts={"responseHead": 0.3})
    client = await rig.client()
    for number in range(2):
        response = await client.ask(f"/{number}", x_to="b")
        assert (response.status, response.body) == (200, b"a")
    assert (await client.ask()).body == b"a"
    client.close()
    await rig.until(lambda: rig.codes() == {"200": 3})
    assert [request.target for request in primary.received] == [b"/0", b"/1", b"/"]
    assert rig.codes(upstream="a", role="primary") == {"200": 3}
    assert rig.codes(upstream="b") == {}
    assert rig.outcomes(upstream="b", role="canary") == {outcome: 2}
    assert rig.outcomes(upstream="a") == {"success": 1}, "upstreams are judged by first attempts"
    assert rig.reasons(upstream="a") == {"failover": 2, "random": 1} or rig.reasons() == {"failover": 2, "match": 1}
    assert failovers(rig) == {("shop", "b", "a"): 2}
    lines = [(line["upstream"], line["role"], line["reason"], line["attempts"], line["error"]) for line in rig.log()]
    assert lines[:2] == [("a", "primary", "failover", 2, None)] * 2


async def test_without_failover_the_client_gets_what_the_canary_said(rig):
    primary, canary = await rig.endpoint(A), await rig.endpoint(BROKEN)
    await rig.serve(primary, canary, rules=rule(failover=False))
    response = await rig.ask(x_to="b")
    assert (response.status, response.body) == (500, b"oh no")
    assert primary.received == []


async def test_a_canary_that_accepts_no_connection_in_time_fails_over(rig):
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):  # fill its backlog: a connection can only time out
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        canary = f"127.0.0.1:{listener.getsockname()[1]}"
        await rig.serve(await rig.endpoint(A), canary, rules=rule(), connect_timeout=0.2)
        assert (await rig.ask(x_to="b")).body == b"a"
    assert rig.outcomes(upstream="b") == {"connect_timeout": 1}


@pytest.mark.parametrize("kind", ["500", "a reset", "silence"])
async def test_a_post_that_the_canary_got_is_not_repeated(rig, kind):
    primary = await rig.endpoint(A)
    canary = await rig.endpoint(CANARIES[kind][0])
    await rig.serve(primary, canary, rules=rule(), timeouts={"responseHead": 0.3})
    assert (await rig.ask("/", "POST", body=b"once", x_to="b")).status in {500, 502, 504}
    assert primary.received == []
    assert failovers(rig) == {}


@pytest.mark.parametrize("size", [4, 300_000])
async def test_a_post_that_the_canary_never_got_goes_to_the_primary(rig, size):
    primary = await rig.endpoint(A)
    await rig.serve(primary, nobody(), rules=rule())
    assert (await rig.ask("/", "POST", body=b"x" * size, x_to="b")).body == b"a"
    assert [len(request.body) for request in primary.received] == [size]
    assert rig.outcomes(upstream="b") == {"connect_failed": 1}
    assert failovers(rig) == {("shop", "b", "a"): 1}


@pytest.mark.parametrize("kind", ["500", "a reset", "nobody", "silence"])
@pytest.mark.parametrize("whole", [True, False], ids=["whole", "in pieces"])
@pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "by length"])
async def test_a_small_body_goes_to_the_primary_too(rig, kind, whole, chunked):
    script, outcome = CANARIES[kind]
    primary = await rig.endpoint(A)
    canary = nobody() if script is None else await rig.endpoint(script)
    await rig.serve(primary, canary, rules=rule(), timeouts={"responseHead": 0.3})
    body = bytes(range(250)) * 40
    client = await rig.client()
    head = b"PUT /x HTTP/1.1\r\nHost: kit.test\r\nX-To: b\r\n"
    if chunked:
        head += b"Transfer-Encoding: chunked\r\n\r\n"
        sent = b"1388\r\n%b\r\n1388\r\n%b\r\n0\r\n\r\n" % (body[:5000], body[5000:])
    else:
        head += b"Content-Length: 10000\r\n\r\n"
        sent = body
    if whole:
        await client.send(head + sent)
    else:
        await client.send(head)
        for piece in (sent[:10], sent[10:6000], sent[6000:]):
            await asyncio.sleep(0.01)
            await client.send(piece)
    assert (await client.response()).body == b"a"
    assert [(request.target, request.body) for request in primary.received] == [(b"/x", body)]
    assert (await client.ask()).body == b"a", "the connection goes on"
    assert rig.outcomes(upstream="b") == {outcome: 1}


@pytest.mark.parametrize("size", [65_536, 65_537, 100_000])
async def test_bodies_of_up_to_64_kib_are_repeated(rig, size):
    primary = await rig.endpoint(A)
    await rig.serve(primary, await rig.endpoint(BROKEN), rules=rule())
    response = await rig.ask("/", "PUT", body=b"x" * size, x_to="b")
    if size <= 65_536:
        assert response.status == 200
        assert [len(request.body) for request in primary.received] == [size]
    else:
        assert response.status == 500
        assert primary.received == []


async def test_a_long_chunked_body_is_not_kept(rig):
    primary, canary = await rig.endpoint(A), await rig.endpoint(BROKEN)
    await rig.serve(primary, canary, rules=rule())
    client = await rig.client()
    await client.send(b"PUT / HTTP/1.1\r\nHost: kit.test\r\nX-To: b\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(100):
        await client.send(b"400\r\n%b\r\n" % (b"x" * 1024))
    await client.send(b"0\r\n\r\n")
    assert (await client.response()).status == 500
    assert primary.received == []


async def test_an_early_refusal_of_an_unfinished_body_goes_over_with_the_rest(rig):
    async def early(peer, endpoint):
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.send(BROKEN)
        await peer.reader.read()

    primary = await rig.endpoint(A)
    await rig.serve(primary, await rig.endpoint(early), rules=rule())
    client = await rig.client()
    await client.send(b"PUT / HTTP/1.1\r\nHost: kit.test\r\nX-To: b\r\nContent-Length: 10\r\n\r\n01234")
    await rig.until(lambda: failovers(rig))
    await client.send(b"56789")
    assert (await client.response()).body == b"a"
    assert [request.body for request in primary.received] == [b"0123456789"]


async def test_never_back(rig):
    primary, canary = await rig.endpoint(BROKEN), await rig.endpoint(BROKEN)
    await rig.serve(primary, canary, rules=rule())
    assert (await rig.ask(x_to="b")).status == 500
    assert (len(primary.received), len(canary.received)) == (1, 1)
    assert rig.codes(upstream="a", role="primary") == {"500": 1}
    assert (await rig.ask()).status == 500
    assert (len(primary.received), len(canary.received)) == (2, 1)


async def test_a_pipelined_request_is_answered_after_it(rig):
    primary, canary = await rig.endpoint(lambda request: A[:-1] + request.target[-1:]), await rig.endpoint(BROKEN)
    await rig.serve(primary, canary, rules=rule())
    client = await rig.client()
    await client.send(GET.replace(b"/ ", b"/1 ") + GET.replace(b"/ ", b"/2 ") + b"GET /3 HTTP/1.1\r\nHost: x\r\n\r\n")
    assert [(await client.response()).body for _ in range(3)] == [b"1", b"2", b"3"]
    assert len(canary.received) == 2


async def test_a_4xx_is_an_answer(rig):
    canary = await rig.endpoint(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n")
    await rig.serve(await rig.endpoint(A), canary, rules=rule())
    client = await rig.client()
    for _ in range(2):
        assert (await client.ask(x_to="b")).status == 404
    client.close()
    await rig.until(lambda: rig.codes() == {"404": 2})
    assert rig.outcomes(upstream="b") == {"success": 2}


async def test_filters_of_the_primary_apply_to_what_it_gets(rig):
    def setting(value):
        change = {"set": [{"name": "x-side", "value": value}], "add": [], "remove": []}
        return {"type": "RequestHeaderModifier", "requestHeaderModifier": change}

    primary, canary = await rig.endpoint(A), await rig.endpoint(BROKEN)
    await rig.serve(primary, canary, rules=rule(primary=[setting("a")], canary=[setting("b")]))
    assert (await rig.ask(x_to="b")).body == b"a"
    assert [one.received[0].get(b"x-side") for one in (primary, canary)] == [b"a", b"b"]


async def test_a_mirrored_request_is_copied_once(rig):
    target = {"backendRef": {"name": "c"}, "percent": 100.0}
    bounds = {"maxBodyBytes": 1024, "maxInFlight": 64, "timeout": 5.0, "methods": "safe"}
    primary, canary, mirror = await rig.endpoint(A), await rig.endpoint(BROKEN), await rig.endpoint(B)
    mirrored = rule(filters=[{"type": "RequestMirror", "requestMirror": {**target, **bounds}}])
    await rig.serve(primary, canary, mirror, rules=mirrored)
    assert (await rig.ask(x_to="b")).body == b"a"
    await rig.until(lambda: rig.outcomes(role="mirror") == {"success": 1})
    assert [len(one.received) for one in (primary, canary, mirror)] == [1, 1, 1]


async def test_a_canary_that_dies_between_two_requests_is_replayed_then_failed_over(rig):
    async def once(peer, endpoint):
        endpoint.received.append(await peer.request())
        await peer.send(B if len(endpoint.received) == 1 else b"")
        if len(endpoint.received) == 1:
            await peer.request()
        peer.reset()

    primary, canary = await rig.endpoint(A), await rig.endpoint(once)
    await rig.serve(primary, canary, rules=rule())
    client = await rig.client()
    assert (await client.ask(x_to="b")).body == b"b"
    assert (await client.ask(x_to="b")).body == b"a"
    client.close()
    assert canary.connections == 2
    await rig.until(lambda: rig.codes() == {"200": 2})
    assert rig.outcomes(upstream="b") == {"success": 1, "upstream_reset": 1}


async def test_a_primary_that_a_reload_has_removed_takes_nothing(rig):
    reloaded = asyncio.Event()

    async def late(peer, endpoint):
        endpoint.received.append(await peer.request())
        await reloaded.wait()
        await peer.send(BROKEN)

    primary, canary = await rig.endpoint(A), await rig.endpoint(late)
    await rig.serve(primary, canary, rules=rule())
    client = await rig.client()
    await client.send(GET)
    await rig.until(lambda: canary.received)
    plain = rig.plain(primary, canary, rules=[{"backendRefs": [ref("b", 1)]}])
    del plain["upstreams"][0]
    rig.service.commit(await rig.service.prepare(snapshot.build(plain, 2)))
    reloaded.set()
    assert (await client.response()).status == 500
    assert primary.received == []


async def test_whatever_the_canary_does_nothing_unsafe_is_done_twice(rig):
    chance = random.Random(4)

    def echo(request):
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(request.target), request.target)

    async def moody(peer, endpoint):
        while True:
            request = await peer.request()
            endpoint.received.append(request)
            match chance.choice(["good", "500", "large", "chunks", "reset", "half"]):
                case "good":
                    await peer.send(echo(request))
                case "500":
                    await peer.send(BROKEN)
                case "large":
                    await peer.send(LARGE_BROKEN)
                case "chunks":
                    await peer.send(CANARIES["a 503 in chunks"][0] + b"\r\n0\r\n\r\n")
                case "half":
                    await peer.send(b"HTTP/1.1 200 O")
                    peer.close()
                    return
                case "reset":
                    peer.reset()
                    return

    primary, canary = await rig.endpoint(echo), await rig.endpoint(moody)
    await rig.serve(primary, canary, rules=rule(retry={**RETRY, "backoff": 0.001}))

    async def visit(visitor):
        client = await rig.client()
        for number in range(40):
            method = chance.choice(["GET", "PUT", "POST"])
            target = f"/{visitor}/{number}"
            body = b"" if method == "GET" else b"x" * chance.choice([1, 3000, 60_000])
            response = await client.ask(target, method, body=body, x_to="b")
            if method == "POST":
                assert response.status in {200, 500, 502, 503}
            else:
                assert (response.status, response.body) == (200, target.encode())
        client.close()

    await asyncio.gather(*(visit(visitor) for visitor in range(5)))
    received = [*primary.received, *canary.received]
    posted = [request.target for request in received if request.method == b"POST"]
    assert len(posted) == len(set(posted))
    assert {request.method for request in primary.received} == {b"GET", b"PUT"}
    await rig.until(lambda: sum(rig.codes().values()) == 200)
    assert sum(rig.outcomes().values()) == 200, "one first attempt for each"
    assert failovers(rig) == {("shop", "b", "a"): len(primary.received)}


# --- a rule that a rollout owns --------------------------------------------------------------------------------------
@pytest.mark.parametrize("swapped", [False, True])
async def test_the_canary_of_a_rollout_is_who_has_that_role(rig, swapped):
    rig.area = area = Area(memoryview(bytearray(live.LIVE_BYTES)).cast("Q"))
    slot = area.slot("key", take=True)
    # Swapped, `b` is the primary, and the share of the file's canary is what does not go to `a`.
    area.write(slot, live.encode(Traffic(0 if swapped else 10_000, swapped=swapped), 1))
    bounds = {"maxBodyBytes": 1 << 20, "maxInFlight": 64, "timeout": 5.0, "allMethods": False}
    owner = {"name": "r", "live": "key", "primary": "a", "canary": "b", "cohorts": [], "affinity": None}
    owned = {
        "backendRefs": [ref("a", 1), ref("b")],
        "split": {"key": None, "overrides": [], "failover": True},
        "rollout": {**owner, "mirror": bounds},
    }
    a, b = await rig.endpoint(BROKEN if swapped else A), await rig.endpoint(B if swapped else BROKEN)
    await rig.serve(a, b, rules=[owned])
    client = await rig.client()
    for _ in range(3):
        assert (await client.ask()).body == (b"b" if swapped else b"a")
    client.close()
    stable, canary = ("b", "a") if swapped else ("a", "b")
    await rig.until(lambda: rig.codes(upstream=stable, role="primary") == {"200": 3})
    assert rig.outcomes(upstream=canary, role="canary") == {"5xx": 3}
    assert rig.outcomes(upstream=stable) == {}
    assert failovers(rig) == {("shop", canary, stable): 3}


# --- retry -----------------------------------------------------------------------------------------------------------
async def test_a_listed_status_is_retried(rig):
    endpoint = await rig.endpoint(failing(2))
    await rig.serve(endpoint, rules=alone())
    assert (await rig.ask()).body == b"a"
    assert len(endpoint.received) == 3
    assert rig.codes() == {"200": 1}
    assert rig.outcomes() == {"5xx": 1}, "upstreams are judged by first attempts"
    assert retries(rig) == 2
    (line,) = rig.log()
    assert (line["attempts"], line["reason"], line["status"]) == (3, "match", 200)


async def test_when_no_attempt_is_left_the_last_answer_is_the_clients(rig):
    endpoint = await rig.endpoint(failing(9))
    await rig.serve(endpoint, rules=alone())
    response = await rig.ask()
    assert (response.status, response.body) == (500, b"oh no")
    assert len(endpoint.received) == 3


async def test_a_status_that_is_not_listed_is_the_clients(rig):
    endpoint = await rig.endpoint(failing(1))
    await rig.serve(endpoint, rules=alone(codes=[503]))
    assert (await rig.ask()).status == 500
    assert len(endpoint.received) == 1


async def test_a_4xx_may_be_listed(rig):
    answer = b"HTTP/1.1 429 Slow down\r\nContent-Length: 0\r\n\r\n"
    await rig.serve(await rig.endpoint(failing(1, answer)), rules=alone(codes=[429]))
    assert (await rig.ask()).body == b"a"


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_connection_that_cannot_be_made_is_safe_to_try_again(rig, method):
    await rig.serve(nobody(), rules=alone())
    response = await rig.ask("/", method, body=b"x" * 100_000 if method == "POST" else b"")
    assert (response.status, response.json["error"]) == (502, "connect_failed")
    assert rig.outcomes() == {"connect_failed": 1}
    assert retries(rig) == 2
    assert rig.log()[0]["attempts"] == 3


async def test_another_endpoint_takes_a_post_that_the_dead_one_never_got(rig):
    endpoint = await rig.endpoint(A)
    await rig.serve([nobody(), endpoint], rules=alone())
    for _ in range(4):
        assert (await rig.ask("/", "POST", body=b"x" * 100_000)).body == b"a"
    assert [len(request.body) for request in endpoint.received] == [100_000] * 4


@pytest.mark.parametrize("kind", ["a reset", "500"])
async def test_a_post_that_was_sent_is_not_sent_again(rig, kind):
    endpoint = await rig.endpoint(CANARIES[kind][0])
    await rig.serve(endpoint, rules=alone())
    assert (await rig.ask("/", "POST", body=b"once")).status in {500, 502}
    assert len(endpoint.received) == 1


async def test_an_attempt_over_its_time_is_retried(rig):
    async def late(peer, endpoint):
        endpoint.received.append(await peer.request())
        if len(endpoint.received) > 1:
            await peer.send(A)
        await peer.reader.read()

    endpoint = await rig.endpoint(late)
    await rig.serve(endpoint, rules=alone(), timeouts={"backendRequest": 0.2})
    assert (await rig.ask()).body == b"a"
    assert rig.outcomes() == {"upstream_timeout": 1}


async def test_no_retry_beyond_the_time_of_the_request(rig):
    endpoint = await rig.endpoint(failing(9))
    await rig.serve(endpoint, rules=alone(backoff=1.0), timeouts={"request": 0.5})
    begun = time.monotonic()
    assert (await rig.ask()).status == 500
    assert time.monotonic() - begun < 0.4, "the answer that there is, at once"
    assert len(endpoint.received) == 1


async def test_the_time_of_the_request_cuts_a_retry_off(rig):
    await rig.serve(await rig.endpoint(silent), rules=alone(), timeouts={"backendRequest": 0.2, "request": 0.5})
    response = await rig.ask()
    assert (response.status, response.json["error"]) == (504, "request_deadline")
    assert rig.codes(role="none") == {"504": 1}


async def test_an_answer_that_has_begun_is_never_repeated(rig):
    endpoint = await rig.endpoint(cutting(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"))
    await rig.serve(endpoint, rules=alone())
    client = await rig.client()
    await client.send(GET)
    assert (await client.reader.readexactly(len(b"HTTP/1.1 200 OK"))) == b"HTTP/1.1 200 OK"
    with pytest.raises(ConnectionError):
        await client.reader.readuntil(b"the other half")
    assert len(endpoint.received) == 1


async def test_back_off_waits_at_least_as_configured(rig):
    endpoint = await rig.endpoint(failing(2))
    await rig.serve(endpoint, rules=alone(backoff=0.1))
    begun = time.monotonic()
    assert (await rig.ask()).body == b"a"
    assert 0.19 < time.monotonic() - begun < 0.2 + 0.4 + 1


async def test_the_budget_ends_retries_not_requests(rig):
    endpoint = await rig.endpoint(BROKEN)
    await rig.serve(endpoint, rules=alone(attempts=1))
    client = await rig.client()
    for _ in range(100):
        assert (await client.ask()).status == 500
    assert 10 <= retries(rig) < 100
    assert len(endpoint.received) == 100 + retries(rig)


async def test_failover_is_not_held_up_by_the_budget(rig):
    await rig.serve(await rig.endpoint(A), nobody(), rules=rule(retry={**RETRY, "attempts": 1}))
    client = await rig.client()
    for _ in range(30):
        assert (await client.ask(x_to="b")).body == b"a"
    assert retries(rig, "b") == 0


async def test_a_failure_of_the_primary_after_a_failover_is_retried(rig):
    primary, canary = await rig.endpoint(failing(1)), await rig.endpoint(BROKEN)
    await rig.serve(primary, canary, rules=rule(retry=RETRY))
    assert (await rig.ask(x_to="b")).body == b"a"
    assert (len(primary.received), len(canary.received)) == (2, 1)
    assert (retries(rig, "a"), retries(rig, "b")) == (1, 0)


# --- while nothing is under way --------------------------------------------------------------------------------------
async def backing_off(rig, **more):
    """Serve, and return a client whose request waits for its retry."""
    endpoint = await rig.endpoint(failing(1))
    await rig.serve(endpoint, rules=alone(backoff=0.3), **more)
    client = await rig.client()
    await client.send(GET)
    await rig.until(lambda: retries(rig) == 1)
    return client, endpoint


async def test_a_client_that_leaves_during_the_back_off_ends_it(rig):
    client, endpoint = await backing_off(rig)
    client.reset()
    await rig.until(lambda: rig.codes() == {"499": 1})
    await asyncio.sleep(0.7)
    assert len(endpoint.received) == 1


async def test_a_drain_lets_the_back_off_end(rig):
    client, endpoint = await backing_off(rig)
    rig.service.drain()
    response = await client.response()
    assert (response.body, response.get(b"connection")) == (b"a", b"close")
    assert await client.ends() == "eof"
    assert len(endpoint.received) == 2


async def test_a_half_closed_client_gets_its_answer_after_the_back_off(rig):
    client, _ = await backing_off(rig)
    client.writer.write_eof()
    assert (await client.response()).body == b"a"


async def test_a_reload_during_the_back_off_changes_nothing(rig):
    client, endpoint = await backing_off(rig)
    await rig.serve(await rig.endpoint(B), rules=[{}])
    assert (await client.response()).body in {b"a", b"b"}
    assert (await client.ask()).body == b"b"
    assert len(endpoint.received) <= 2


# --- faults ----------------------------------------------------------------------------------------------------------
ABORT = {"percent": 100, "status": 503}


async def test_an_abort_of_a_rule_is_nobodys(rig):
    endpoint = await rig.endpoint(A)
    await rig.serve(endpoint, rules=[{"filters": [fault(abort=ABORT)], "retry": RETRY}])
    client = await rig.client()
    for _ in range(2):
        response = await client.ask()
        assert (response.status, response.json["error"]) == (503, "injected_fault")
    assert endpoint.received == []
    assert rig.codes(role="none") == {"503": 2}
    assert rig.outcomes() == {}


async def test_an_abort_of_a_backend_is_its_upstreams(rig):
    endpoint = await rig.endpoint(B)
    await rig.serve(await rig.endpoint(A), endpoint, rules=rule(failover=False, canary=[fault(abort=ABORT)]))
    response = await rig.ask(x_to="b")
    assert (response.status, response.json["error"]) == (503, "injected_fault")
    assert (await rig.ask()).body == b"a"
    assert endpoint.received == []
    assert rig.codes(upstream="b", role="canary") == {"503": 1}
    assert rig.outcomes(upstream="b", role="canary") == {"5xx": 1}


async def test_an_aborted_attempt_at_the_canary_fails_over(rig):
    await rig.serve(await rig.endpoint(A), await rig.endpoint(B), rules=rule(canary=[fault(abort=ABORT)]))
    assert (await rig.ask("/", "PUT", body=b"small", x_to="b")).body == b"a"
    assert rig.outcomes(upstream="b", role="canary") == {"5xx": 1}
    assert failovers(rig) == {("shop", "b", "a"): 1}


async def test_an_aborted_attempt_is_retried_and_struck_again(rig):
    endpoint = await rig.endpoint(A)
    aborting = [fault(abort={**ABORT, "status": 500})]
    await rig.serve(endpoint, rules=[{"backendRefs": [ref("a", 1, *aborting)], "retry": RETRY}])
    assert (await rig.ask()).status == 500
    assert retries(rig) == 2
    assert endpoint.received == []


@pytest.mark.parametrize("side", ["rule", "backend"])
async def test_a_delay_counts_for_the_upstream_only_where_it_is_meant_for_it(rig, side):
    slow = [fault(delay={"percent": 100, "duration": 0.2})]
    place = {"filters": slow} if side == "rule" else {"backendRefs": [ref("a", 1, *slow)]}
    endpoint = await rig.endpoint(A)
    await rig.serve(endpoint, rules=[place])
    client = await rig.client()
    for _ in range(2):  # with a new connection, and with one that was idle
        assert (await client.ask("/", "PUT", body=b"kept")).body == b"a"
    assert [request.body for request in endpoint.received] == [b"kept"] * 2
    client.close()
    await rig.until(lambda: rig.codes() == {"200": 2})
    (block,) = [block for key, block in rig.cells().items() if key[2] == "a"]
    assert block[stats.REQUEST_NS] > 0.38e9
    assert (block[stats.ATTEMPT_NS] > 0.38e9) == (side == "backend")


async def test_a_fault_of_no_percent_strikes_nobody(rig):
    never = fault(delay={"percent": 0, "duration": 5.0}, abort={"percent": 0, "status": 500})
    await rig.serve(await rig.endpoint(A), rules=[{"filters": [never], "backendRefs": [ref("a", 1, never)]}])
    assert (await rig.ask()).body == b"a"


async def test_a_client_that_leaves_a_delayed_request_ends_it(rig):
    endpoint = await rig.endpoint(A)
    await rig.serve(endpoint, rules=[{"filters": [fault(delay={"percent": 100, "duration": 0.3})]}])
    client = await rig.client()
    await client.send(GET)
    await rig.until(lambda: any(series.active for series in rig.service._series.values()))
    client.reset()
    await rig.until(lambda: rig.codes() == {"499": 1})
    await asyncio.sleep(0.4)
    assert endpoint.received == []
