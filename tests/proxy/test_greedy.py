"""Clients that take more than their share: slow to read, slow to send, too many, or all of it at once."""

import asyncio
import contextlib
import resource
import socket
import sys
import time

import pytest

from splitproxy.core import stats
from splitproxy.proxy import crowd, downstream as downstream_module

GET = b"GET / HTTP/1.1\r\nHost: kit.test\r\n\r\n"
CLOSE = b"GET / HTTP/1.1\r\nHost: kit.test\r\nConnection: close\r\n\r\n"
MEBIBYTE = 1 << 20
LAST = 250_000
"""Bytes of an answer that the proxy takes from the endpoint even when its client takes none."""


def sized(count):
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % count + b"x" * count


async def idler(rig, ask=GET):
    """Connect a client that asks and does not read, with as little room as the system allows; return both ends."""
    known = set(rig.service.connections)
    client = await rig.client(receive_buffer=4096)
    client.writer.transport.pause_reading()
    await rig.until(lambda: rig.service.connections - known)
    (downstream,) = rig.service.connections - known
    sock = downstream.transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    await client.send(ask)
    return client, downstream


# --- slow to read ----------------------------------------------------------------------------------------------------
async def test_a_client_that_does_not_read_its_answer_is_cut_off_and_no_upstream_charged(rig):
    await rig.serve(await rig.endpoint(sized(8 * MEBIBYTE)), timeouts={"streamIdle": 0.3})
    await idler(rig)
    await rig.service.idle.wait()
    await rig.until(rig.lines)
    (line,) = rig.log()
    assert (line["status"], line["error"]) == (200, "client_stalled")
    assert rig.outcomes() == {"cancelled": 1}


async def test_a_complete_answer_that_is_not_read_is_not_kept_for_ever(rig, monkeypatch):
    monkeypatch.setattr(downstream_module, "LINGER", 0.2)
    await rig.serve(await rig.endpoint(sized(100_000)), limits={"keepAliveTimeout": 0.3, "headerTimeout": 1.0})
    _, downstream = await idler(rig)
    await rig.until(lambda: rig.codes() == {"200": 1})
    assert downstream.transport.get_write_buffer_size() > 0
    assert not downstream.congested
    await rig.service.idle.wait()


@pytest.mark.parametrize("ask", [CLOSE, b"GET / HTTP/1.0\r\n\r\n"])
async def test_the_last_answer_of_a_connection_is_whole_however_slowly_it_is_read(rig, ask, monkeypatch):
    """Longer than a client may go on sending after its last answer."""
    monkeypatch.setattr(downstream_module, "LINGER", 0.2)
    await rig.serve(await rig.endpoint(sized(LAST)))
    client, downstream = await idler(rig, ask)
    await rig.until(lambda: downstream.lingering)
    client.writer.transport.resume_reading()
    head = await client.reader.readuntil(b"\r\n\r\n")
    assert b" 200 OK" in head
    got = 0
    while got < LAST:
        piece = await client.reader.read(8192)
        assert piece, f"cut off after {got} bytes"
        got += len(piece)
        await asyncio.sleep(0.02)
    assert await client.ends() == "eof"


async def test_a_kept_connection_whose_time_is_over_is_closed_behind_the_whole_answer(rig, monkeypatch):
    monkeypatch.setattr(downstream_module, "LINGER", 0.2)
    await rig.serve(await rig.endpoint(sized(LAST)), limits={"keepAliveTimeout": 0.5, "headerTimeout": 1.0})
    client, downstream = await idler(rig)
    await rig.until(lambda: downstream.lingering)
    client.writer.transport.resume_reading()
    await client.reader.readuntil(b"\r\n\r\n")
    for _ in range(50):
        await client.reader.readexactly(LAST // 50)
        await asyncio.sleep(0.03)
    assert await client.ends() == "eof"


async def test_over_tls_too_the_last_answer_is_whole_however_slowly_it_is_read(rig, authority):
    await rig.serve(await rig.endpoint(sized(LAST)), listener={"tls": authority.listener(["kit.test"])})
    client = await rig.client(receive_buffer=4096, tls=authority.client(), name="kit.test")
    await rig.until(lambda: rig.service.connections)
    (downstream,) = rig.service.connections
    sock = downstream.transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    await client.send(CLOSE)
    await rig.until(lambda: downstream.lingering)
    await client.reader.readuntil(b"\r\n\r\n")
    for _ in range(25):
        await client.reader.readexactly(LAST // 25)
        await asyncio.sleep(0.1)


async def test_the_last_answer_of_a_connection_that_is_not_read_is_not_kept_for_ever(rig, monkeypatch):
    monkeypatch.setattr(downstream_module, "LINGER", 0.2)
    await rig.serve(await rig.endpoint(sized(LAST)), limits={"keepAliveTimeout": 0.3})
    await idler(rig, CLOSE)
    await rig.service.idle.wait()


@pytest.mark.parametrize("limit", ["headerTimeout", "keepAliveTimeout"])
async def test_a_limit_of_zero_is_none(rig, limit):
    await rig.serve(await rig.endpoint(), limits={limit: 0.0})
    client = await rig.client()
    if limit == "keepAliveTimeout":
        await client.ask()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.5):
            pytest.fail(f"closed: {await client.ends()}")
    assert (await client.ask()).status == 200


# --- too many of them ------------------------------------------------------------------------------------------------
def turned_away(rig):
    return rig.service.cells[stats.TURNED_AWAY]


@pytest.mark.parametrize("trusted", [[], ["10.0.0.0/8"]], ids=["plain", "edge"])
async def test_one_connection_too_many_is_told_so_and_the_others_are_served_on(rig, trusted, caplog):
    await rig.serve(await rig.endpoint(), listener={"maxConnections": 2, "trustedProxies": trusted})
    inside = [await rig.client() for _ in range(2)]
    for client in inside:
        assert (await client.ask()).status == 200
    for number in range(3):
        client = await rig.client()
        if number:  # whether it asks at once or waits
            await client.send(GET)
        response = await client.response()
        assert (response.status, response.json["error"]) == (503, "too_many_connections")
        assert response.get(b"connection") == b"close"
        assert await client.ends() == "eof"
    assert "turned away: the listener has 2 connections" in caplog.text
    assert turned_away(rig) == 3
    assert (await inside[0].ask()).status == 200
    inside[1].close()
    await rig.until(lambda: rig.entrance._crowd.inside == 1)
    assert (await rig.ask()).status == 200
    assert rig.codes() == {"200": 4}, "who was turned away has asked nothing"


async def test_a_flood_of_clients_too_many_holds_no_more_than_so_many_answers(rig):
    await rig.serve(await rig.endpoint(), listener={"maxConnections": 1})
    rig.entrance._crowd.leaving.limit = 5
    first = await rig.client()
    assert (await first.ask()).status == 200
    clients = [await rig.client() for _ in range(20)]
    await rig.until(lambda: turned_away(rig) == 20)
    assert len(rig.service.connections) <= 6
    told = [data for client in clients if (data := await _rest(client))]
    assert len(told) == 5
    assert (await first.ask()).status == 200


async def _rest(client):
    with contextlib.suppress(ConnectionError):
        return await client.reader.read()
    return b""


async def test_a_limit_changes_with_a_reload_and_whoever_is_inside_stays(rig):
    endpoint = await rig.endpoint()
    await rig.serve(endpoint)
    inside = [await rig.client() for _ in range(3)]
    for client in inside:
        await client.ask()
    await rig.serve(endpoint, listener={"maxConnections": 2})
    assert (await rig.ask()).status == 503
    assert [(await client.ask()).status for client in inside] == [200] * 3
    await rig.serve(endpoint)
    assert (await rig.ask()).status == 200


async def test_over_tls_one_connection_too_many_gets_no_handshake(rig, authority):
    tls = authority.listener(["kit.test"])
    await rig.serve(await rig.endpoint(), listener={"maxConnections": 1, "tls": tls})
    context = authority.client()
    first = await rig.client(tls=context, name="kit.test")
    assert (await first.ask()).status == 200
    with pytest.raises(OSError):  # noqa: PT011 - a reset, or the end of the stream where the handshake was to be
        await rig.client(tls=context, name="kit.test")
    assert turned_away(rig) == 1
    assert (await first.ask()).status == 200


@pytest.mark.parametrize("trusted", [[], ["127.0.0.1/32"]], ids=["plain", "edge"])
@pytest.mark.parametrize("proxied", [False, True], ids=["", "proxied"])
async def test_while_descriptors_are_short_nobody_is_accepted_and_nobody_lost(rig, trusted, proxied):
    first = b"PROXY UNKNOWN\r\n" if proxied else b""
    await rig.serve(await rig.endpoint(), listener={"trustedProxies": trusted, "proxyProtocol": proxied})
    inside = [await rig.client(first=first) for _ in range(3)]
    for client in inside:
        assert (await client.ask()).status == 200
    rig.service.room = rig.service._in_use_elsewhere + 6  # three inside, and what they have open to the endpoint
    waiting = [await rig.client(first=first) for _ in range(6)]
    leave = asyncio.Event()
    asked = [asyncio.ensure_future(_ask_and_leave(client, leave)) for client in waiting]
    await rig.until(lambda: rig.service.short_of_descriptors)
    await asyncio.sleep(0.5)
    assert len(rig.service.connections) < 9
    assert (await inside[0].ask()).status == 200
    leave.set()
    assert await asyncio.gather(*asked) == [200] * 6


@pytest.mark.parametrize("listener", [{"tls": [["kit.test"]]}, {"proxyProtocol": True}], ids=["tls", "proxied"])
async def test_who_says_nothing_before_http_takes_no_descriptor_from_others(rig, authority, listener):
    if "tls" in listener:
        listener = {"tls": authority.listener(*listener["tls"])}
    await rig.serve(await rig.endpoint(), listener=listener)
    rig.service.room = rig.service._in_use_elsewhere + 5
    silent = [socket.create_connection(("127.0.0.1", rig.port)) for _ in range(20)]
    try:
        await rig.until(lambda: rig.service.short_of_descriptors)
        await asyncio.sleep(0.1)
        assert rig.service.arriving == 5, "the others wait in the system's queue"
    finally:
        for sock in silent:
            sock.close()
    await rig.until(lambda: not rig.service.arriving)


async def _ask_and_leave(client, leave):
    status = (await client.ask()).status
    await leave.wait()
    client.close()
    return status


def test_a_quarter_of_the_descriptors_is_not_for_clients():
    assert (crowd.room(1024), crowd.room(-1)) == (768, sys.maxsize)


async def test_no_descriptor_for_a_connection_to_the_endpoint_is_503_and_nobodys_fault(rig):
    endpoint = await rig.endpoint()
    await rig.serve(endpoint, health={"a": {"outlierDetection": OUTLIERS}})
    client = await rig.client()
    assert (await client.ask()).status == 200
    (known,) = rig.pool().endpoints.values()
    known.idle.pop().transport.close()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1, hard))
    try:
        for _ in range(3):
            response = await client.ask()
            assert (response.status, response.json["error"]) == (503, "out_of_resources")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (await client.ask()).status == 200
    assert rig.outcomes() == {"success": 2}


OUTLIERS = {
    "consecutiveErrors": 1,
    "interval": 10.0,
    "baseEjectionTime": 30.0,
    "maxEjectionTime": 300.0,
    "maxEjectionPercent": 100,
}


# --- slow to send, and floods ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["one long field", "many fields", "empty lines first"])
async def test_a_head_that_comes_byte_by_byte_costs_time_in_proportion_to_its_size(rig, kind):
    """Had every byte all those before it looked at again, a head of 60 KiB would take minutes."""
    await rig.serve(await rig.endpoint())
    client = await rig.client()
    await rig.until(lambda: rig.service.connections)
    (downstream,) = rig.service.connections
    fields = b"X: " + b"a" * 60_000 + b"\r\n" if kind == "one long field" else b"X-Abcdef: 1\r\n" * 90
    head = b"\r\n\r\n" * (kind == "empty lines first") + GET[:-2] + fields + b"\r\n"
    began = time.process_time()
    for octet in head:
        downstream.data_received(bytes([octet]))
    assert time.process_time() - began < 5
    assert (await client.response()).status == 200


@pytest.mark.parametrize("bad", [b"\n", b"\rX", b"\0"])
@pytest.mark.parametrize("split", [0, 1, 2])
async def test_a_head_gone_wrong_is_refused_at_once_wherever_it_is_cut(rig, bad, split):
    await rig.serve(await rig.endpoint())
    client = await rig.client()
    for piece in (b"\r\n", b"\r", b"\nGET / HTTP/1.1\r\nHost: kit.test\r", b"\nX: 1" + bad[:split], bad[split:] + b"y"):
        await client.send(piece)
        await asyncio.sleep(0.01)
    assert (await client.response()).status == 400


async def test_thousands_of_pipelined_requests_wait_outside(rig):
    """While one is being answered, no more of those behind it is taken in than a head may have."""
    hold = asyncio.Event()

    async def script(peer, endpoint):
        while True:
            endpoint.received.append(await peer.request())
            await hold.wait()
            await peer.send(rig.OK)

    endpoint = await rig.endpoint(script)
    await rig.serve(endpoint)
    client = await rig.client()
    sending = asyncio.ensure_future(client.send(GET * 100_000))
    await rig.until(lambda: endpoint.received)
    (downstream,) = rig.service.connections
    await rig.until(lambda: not downstream.reading)
    assert len(downstream.buffer) <= 65_536 + READ
    assert len(endpoint.received) == 1
    hold.set()
    for _ in range(2_000):
        assert (await client.response()).status == 200
    sending.cancel()
    client.writer.transport.abort()


READ = 262_144
"""What the event loop takes from a socket at a time."""


async def test_a_client_that_sends_on_after_it_was_refused_is_cut_off(rig, monkeypatch):
    monkeypatch.setattr(downstream_module, "LINGER", 0.2)
    await rig.serve(await rig.endpoint())
    client = await rig.client()

    async def flood():
        await client.send(b"GET / HTTP/1.1\r\nHost: kit.test\r\nX: " + b"x" * 70_000)
        while True:
            await client.send(b"x" * 70_000)

    flooding = asyncio.ensure_future(flood())
    assert (await client.response()).status == 431
    await rig.service.idle.wait()
    flooding.cancel()
    await asyncio.wait([flooding])


async def test_clients_that_closed_their_side_and_say_nothing_are_closed(rig):
    await rig.serve(await rig.endpoint())
    clients = [await rig.client() for _ in range(3)]
    await clients[1].send(GET[:10])
    await clients[2].ask()
    for client in clients:
        client.writer.write_eof()
    assert await clients[0].ends() == "eof"
    assert (await clients[1].response()).status == 400
    assert await clients[1].ends() == "eof"
    assert await clients[2].ends() == "eof"


async def test_a_thousand_idle_connections_do_no_harm_and_all_end(rig):
    await rig.serve(await rig.endpoint(), limits={"headerTimeout": 1.0})
    idle = [await rig.client() for _ in range(500)]
    for _ in range(50):
        assert (await rig.ask()).status == 200
    assert [await client.ends() for client in idle] == ["eof"] * 500
    assert rig.codes() == {"200": 50}


# --- streams ---------------------------------------------------------------------------------------------------------
async def test_an_event_stream_is_cut_by_no_timeout_but_silence(rig):
    async def script(peer, endpoint):
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(8):
            await peer.send(b"7\r\ndata:\n\n\r\n")
            await asyncio.sleep(0.15)
        await peer.reader.read()

    timeouts = {"responseHead": 0.3, "streamIdle": 0.4}
    limits = {"headerTimeout": 0.3, "bodyIdleTimeout": 0.3, "keepAliveTimeout": 0.3}
    await rig.serve(await rig.endpoint(script), timeouts=timeouts, limits=limits)
    client = await rig.client()
    await client.send(GET)
    for _ in range(8):
        await client.reader.readuntil(b"7\r\ndata:\n\n\r\n")
    assert await client.ends() == "reset"
    assert rig.log()[0]["error"] == "upstream_timeout"


async def test_timeouts_request_is_for_streams_too_where_it_is_set(rig):
    """Gateway API: the whole exchange as the client sees it."""

    async def script(peer, endpoint):
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await peer.send(b"7\r\ndata:\n\n\r\n")
            await asyncio.sleep(0.05)

    await rig.serve(await rig.endpoint(script), timeouts={"request": 0.4})
    client = await rig.client()
    await client.send(GET)
    with contextlib.suppress(ConnectionResetError):
        while await client.reader.read(65_536):
            pass
    await rig.until(rig.lines)
    assert rig.log()[0]["error"] == "request_deadline"
