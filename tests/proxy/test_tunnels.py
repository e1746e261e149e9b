"""Upgraded connections: bytes both ways, half-closes, back-pressure, limits."""

import asyncio

import pytest

pytestmark = pytest.mark.on_loop("uvloop", "asyncio")
UPGRADE = b"GET /ws HTTP/1.1\r\nHost: kit.test\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-Own: 1\r\n\r\n"


async def echo(peer, endpoint):
    """Switch protocols, then send back in upper case what comes, until the client ends its side."""
    endpoint.received.append(await peer.request())
    await peer.send(SWITCH + b"hello")
    while data := await peer.reader.read(65_536):
        await peer.send(data.upper())
    await peer.send(b"bye")
    peer.close()


@pytest.mark.parametrize("bytewise", [False, True])
async def test_bytes_pass_both_ways_after_101_and_so_do_half_closes(rig, bytewise):
    endpoint = await rig.endpoint(echo)
    await rig.serve(endpoint)
    client = await rig.client()
    await client.send(UPGRADE, bytewise=bytewise)
    response = await client.response()
    assert (response.status, response.get(b"x-own")) == (101, b"1")
    assert (response.get(b"connection"), response.get(b"upgrade")) == (b"Upgrade", b"websocket")
    assert await client.reader.readexactly(5) == b"hello"
    await client.send(b"abc", bytewise=bytewise)
    assert await client.reader.readexactly(3) == b"ABC"
    client.writer.write_eof()
    assert await client.reader.read() == b"bye"
    await rig.until(rig.lines)
    (request,) = endpoint.received
    assert (request.get(b"connection"), request.get(b"upgrade")) == (b"Upgrade", b"websocket")
    assert rig.codes() == {"101": 1}
    assert rig.outcomes() == {"success": 1}


async def test_what_a_client_sends_right_behind_its_head_goes_through_the_tunnel(rig):
    await rig.serve(await rig.endpoint(echo))
    client = await rig.client()
    await client.send(UPGRADE + b"early")
    assert (await client.response()).status == 101
    assert await client.reader.readexactly(10) == b"helloEARLY"


async def test_an_upgrade_that_is_declined_is_an_ordinary_answer(rig):
    endpoint = await rig.endpoint()
    await rig.serve(endpoint)
    client = await rig.client()
    for _ in range(2):
        await client.send(UPGRADE)
        assert (await client.response()).body == b"ok"
    assert endpoint.connections == 1


async def test_a_switch_to_another_protocol_than_offered_is_502(rig):
    await rig.serve(await rig.endpoint(SWITCH.replace(b"websocket", b"other")))
    client = await rig.client()
    await client.send(UPGRADE)
    response = await client.response()
    assert (response.status, response.json["error"]) == (502, "upstream_protocol_error")
    assert rig.outcomes() == {"upstream_protocol_error": 1}


@pytest.mark.parametrize("who", ["client", "endpoint"])
async def test_a_tunnel_ends_on_both_sides_when_one_is_reset(rig, who):
    endpoint = await rig.endpoint(echo)
    await rig.serve(endpoint)
    client = await rig.client()
    await client.send(UPGRADE)
    await client.reader.readuntil(b"hello")
    if who == "client":
        client.reset()
        await rig.until(lambda: endpoint.peers[0].reader.at_eof() or endpoint.peers[0].writer.is_closing())
    else:
        endpoint.peers[0].reset()
        assert await client.ends() in {"eof", "reset"}
    await rig.until(rig.lines)
    assert rig.codes() == {"101": 1}


async def test_an_idle_tunnel_is_closed(rig):
    await rig.serve(await rig.endpoint(echo), timeouts={"tunnelIdle": 0.2})
    client = await rig.client()
    await client.send(UPGRADE)
    await client.reader.readuntil(b"hello")
    assert await client.ends() == "eof"


async def test_a_client_of_a_tunnel_that_does_not_read_makes_the_proxy_stop_reading(rig):
    sent = [0]

    async def script(peer, endpoint):
        await peer.request()
        await peer.send(SWITCH)
        while True:
            peer.writer.write(b"x" * 65_536)
            await peer.writer.drain()
            sent[0] += 65_536

    await rig.serve(await rig.endpoint(script))
    client = await rig.client(receive_buffer=65_536)
    await client.send(UPGRADE)
    await client.response()
    client.writer.transport.pause_reading()
    before = -1
    while sent[0] != before:
        before = sent[0]
        await asyncio.sleep(0.15)
    (downstream,) = rig.service.connections
    assert downstream.transport.get_write_buffer_size() <= 1 << 20
    client.writer.transport.resume_reading()
    got, wanted = 0, sent[0] + (1 << 20)
    while got < wanted:
        got += len(await client.reader.read(65_536))
    client.writer.transport.abort()
