"""Mirrored copies: of the right requests, whole or counted as dropped, and never in the way of the client."""

import asyncio

import pytest

pytestmark = pytest.mark.on_loop("uvloop", "asyncio")
MIRROR = {
    "backendRef": {"name": "b"},
    "percent": 100.0,
    "maxBodyBytes": 1 << 20,
    "maxInFlight": 64,
    "timeout": 5.0,
    "methods": "safe",
}
OF_COPIES = {"upstream": "b", "role": "mirror"}


def mirrored(**changes):
    """Return a rule that sends to `a` and mirrors to `b`."""
    return [{"filters": [{"type": "RequestMirror", "requestMirror": {**MIRROR, **changes}}]}]


async def silent(peer, endpoint):
    endpoint.received.append(await peer.request())
    await peer.reader.read()


async def test_a_copy_is_sent_and_marked_and_its_answer_thrown_away(rig):
    traffic, mirror = await rig.endpoint(), await rig.endpoint(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nmirror")
    await rig.serve(traffic, mirror, rules=mirrored())
    response = await rig.ask("/a?b", cookie="c=d")
    assert response.body == b"ok"
    await rig.until(lambda: rig.outcomes(**OF_COPIES))
    (copy,), (original,) = mirror.received, traffic.received
    assert copy.line == original.line
    assert copy.get(b"x-splitproxy-mirror") == b"b"
    assert original.get(b"x-splitproxy-mirror") is None
    assert copy.get(b"x-request-id") == original.get(b"x-request-id")
    assert copy.get(b"cookie") == b"c=d"
    assert rig.outcomes(**OF_COPIES) == {"success": 1}
    assert rig.outcomes(upstream="a") == {"success": 1}
    assert len(rig.lines()) == 1


async def test_copies_use_kept_alive_connections_of_their_own(rig):
    traffic, mirror = await rig.endpoint(), await rig.endpoint()
    await rig.serve(traffic, mirror, rules=mirrored())
    for number in range(1, 6):
        await rig.ask()
        await rig.until(lambda number=number: rig.outcomes(**OF_COPIES) == {"success": number})
    assert mirror.connections == 1
    assert traffic.connections == 1


@pytest.mark.parametrize("body", [b"", b"abc" * 1000])
async def test_a_body_is_copied_whole_as_it_streams(rig, body):
    traffic, mirror = await rig.endpoint(), await rig.endpoint()
    await rig.serve(traffic, mirror, rules=mirrored(methods="all"))
    client = await rig.client()
    await client.send(b"POST / HTTP/1.1\r\nHost: kit.test\r\nContent-Length: %d\r\n\r\n" % len(body))
    for at in range(0, len(body), 100):
        await client.send(body[at : at + 100])
        await asyncio.sleep(0)
    assert (await client.response()).status == 200
    await rig.until(lambda: rig.outcomes(**OF_COPIES))
    assert mirror.received[0].body == traffic.received[0].body == body


async def test_a_chunked_body_is_copied_with_its_trailers(rig):
    traffic, mirror = await rig.endpoint(), await rig.endpoint()
    await rig.serve(traffic, mirror, rules=mirrored(methods="all"))
    client = await rig.client()
    await client.send(b"POST / HTTP/1.1\r\nHost: kit.test\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n")
    await rig.until(lambda: mirror.connections)
    await client.send(b"1\r\nc\r\n0\r\nX-Sum: 1\r\n\r\n")
    assert (await client.response()).status == 200
    await rig.until(lambda: rig.outcomes(**OF_COPIES))
    assert (mirror.received[0].body, mirror.received[0].trailers) == (b"abc", [(b"X-Sum", b"1")])


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
async def test_only_safe_methods_are_copied_unless_told_otherwise(rig, method):
    traffic, mirror = await rig.endpoint(), await rig.endpoint()
    await rig.serve(traffic, mirror, rules=mirrored())
    assert (await rig.ask(method=method, body=b"x")).status == 200
    assert rig.drops(**OF_COPIES) == {"method": 1}
    assert mirror.connections == 0


async def test_a_copy_of_a_copy_is_refused(rig):
    traffic, mirror = await rig.endpoint(), await rig.endpoint()
    await rig.serve(traffic, mirror, rules=mirrored())
    assert (await rig.ask(x_splitproxy_mirror="b")).status == 200
    assert rig.drops(**OF_COPIES) == {"loop": 1}
    assert mirror.connections == 0


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_body_over_the_cap_is_not_copied_and_reaches_its_own_endpoint(rig, framing):
    traffic, mirror = await rig.endpoint(), await rig.endpoint()
    await rig.serve(traffic, mirror, rules=mirrored(methods="all", maxBodyBytes=100))
    body = b"x" * 1000
    client = await rig.client()
    if framing == "length":
        assert (await client.ask(method="POST", body=body)).status == 200
    else:
        await client.send(b"POST / HTTP/1.1\r\nHost: kit.test\r\nTransfer-Encoding: chunked\r\n\r\n")
        for at in range(0, 1000, 50):
            await client.send(b"32\r\n%b\r\n" % body[at : at + 50])
        await client.send(b"0\r\n\r\n")
        assert (await client.response()).status == 200
    assert traffic.received[0].body == body
    assert rig.drops(**OF_COPIES) == {"body_too_large": 1}
    assert mirror.received == [], "never in part as if it were whole"


async def test_no_more_copies_are_under_way_than_allowed(rig):
    traffic, mirror = await rig.endpoint(), await rig.endpoint(silent)
    await rig.serve(traffic, mirror, rules=mirrored(maxInFlight=2, timeout=0.3))
    client = await rig.client()
    assert [(await client.ask()).status for _ in range(5)] == [200] * 5
    assert rig.drops(**OF_COPIES) == {"in_flight": 3}
    await rig.until(lambda: rig.outcomes(**OF_COPIES) == {"upstream_timeout": 2})


@pytest.mark.parametrize(
    ("how", "outcome"),
    [
        ("hangs", "upstream_timeout"),
        ("refuses", "connect_failed"),
        ("resets", "upstream_reset"),
        ("closes", "upstream_reset"),
        ("lies", "upstream_protocol_error"),
        ("fails", "5xx"),
        ("switches", "upstream_protocol_error"),
        ("trickles", "upstream_timeout"),
    ],
)
async def test_a_mirror_that_misbehaves_is_noticed_by_nobody(rig, how, outcome):
    async def script(peer, endpoint):
        await peer.request()
        match how:
            case "resets":
                peer.reset()
            case "lies":
                await peer.send(b"nonsense\r\n\r\n")
            case "fails":
                await peer.send(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")
            case "switches":
                await peer.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")
            case "trickles":
                await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx")
        if how in {"hangs", "trickles", "switches"}:
            await peer.reader.read()

    mirror = await rig.endpoint(script)
    if how == "refuses":
        mirror.server.close()
        await mirror.server.wait_closed()
    await rig.serve(await rig.endpoint(), mirror, rules=mirrored(timeout=0.3))
    client = await rig.client()
    async with asyncio.timeout(0.25):
        for _ in range(3):
            response = await client.ask()
            assert (response.status, response.body) == (200, b"ok")
    await rig.until(lambda: sum(rig.outcomes(**OF_COPIES).values()) == 3)
    assert rig.outcomes(**OF_COPIES) == {outcome: 3}
    assert rig.outcomes(upstream="a") == {"success": 3}
    assert rig.codes(role="primary") == {"200": 3}


async def test_a_mirror_that_does_not_read_does_not_slow_the_upload(rig):
    async def script(peer, endpoint):
        peer.reader._transport.pause_reading()
        await asyncio.sleep(3600)

    traffic, mirror = await rig.endpoint(), await rig.endpoint(script)
    await rig.serve(traffic, mirror, rules=mirrored(methods="all", maxBodyBytes=1 << 30))
    size = 16 << 20
    client = await rig.client()
    await client.send(b"POST / HTTP/1.1\r\nHost: kit.test\r\nContent-Length: %d\r\n\r\n" % size)
    for _ in range(size // 65_536):
        await client.send(b"x" * 65_536)
    assert (await client.response()).status == 200
    assert len(traffic.received[0].body) == size
    assert rig.drops(**OF_COPIES) == {"overrun": 1}


async def test_a_request_cut_short_by_its_client_is_dropped_by_the_mirror(rig):
    traffic, mirror = await rig.endpoint(), await rig.endpoint()
    await rig.serve(traffic, mirror, rules=mirrored(methods="all"))
    client = await rig.client()
    await client.send(b"POST / HTTP/1.1\r\nHost: kit.test\r\nContent-Length: 10\r\n\r\nhalf")
    await rig.until(lambda: mirror.connections and traffic.connections)
    client.reset()
    await rig.until(lambda: rig.drops(**OF_COPIES))
    assert rig.drops(**OF_COPIES) == {"client_gone": 1}
    assert mirror.received == []


async def test_a_mirror_without_an_address_drops_copies(rig):
    await rig.serve(await rig.endpoint(), "nothing.invalid:80", rules=mirrored())
    assert (await rig.ask()).status == 200
    assert rig.drops(**OF_COPIES) == {"no_endpoint": 1}


async def test_a_share_of_requests_is_copied(rig):
    traffic, mirror = await rig.endpoint(), await rig.endpoint()
    await rig.serve(traffic, mirror, rules=mirrored(percent=20.0))
    client = await rig.client()
    for _ in range(500):
        await client.ask()
    await rig.until(rig.at_rest)
    assert 50 < rig.outcomes(**OF_COPIES)["success"] < 160, "7 standard deviations"
    assert len(traffic.received) == 500
