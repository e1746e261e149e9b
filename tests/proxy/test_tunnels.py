"""Upgraded connections: bytes both ways, half-closes, back-pressure, limits."""

import asyncio
import itertools

import pytest

from splitproxy.core import live
from splitproxy.core.live import Area, Traffic

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


@pytest.mark.parametrize("how", ["ends its side", "closes"])
async def test_an_endpoint_over_tls_hears_of_the_clients_end(rig, authority, how):
    ended = asyncio.Event()

    async def script(peer, endpoint):
        await peer.request()
        await peer.send(SWITCH)
        await peer.reader.read()
        ended.set()

    endpoint = await rig.endpoint(script, tls=authority.server("127.0.0.1"))
    await rig.serve(endpoint, tls=authority.upstream())
    client = await rig.client()
    await client.send(UPGRADE)
    assert (await client.response()).status == 101
    client.close() if how == "closes" else client.writer.write_eof()
    await ended.wait()


async def test_a_101_before_the_request_is_complete_is_502(rig):
    async def script(peer, endpoint):
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.send(SWITCH)
        endpoint.received.append(await peer.reader.read())

    endpoint = await rig.endpoint(script)
    await rig.serve(endpoint)
    client = await rig.client()
    await client.send(UPGRADE[:-2] + b"Content-Length: 9\r\n\r\nhalf")
    assert (await client.response()).status == 502
    await rig.until(lambda: endpoint.received)
    assert endpoint.received == [b"half"]
    assert rig.outcomes() == {"upstream_protocol_error": 1}


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


async def test_an_idle_tunnel_whose_sides_take_nothing_is_closed_too(rig):
    """What waits for either of them must not keep the tunnel open for ever."""

    async def script(peer, endpoint):
        await peer.request()
        peer.reader._transport.pause_reading()
        await peer.send(SWITCH)
        peer.writer.write(b"x" * (8 << 20))
        await asyncio.Event().wait()

    await rig.serve(await rig.endpoint(script), timeouts={"tunnelIdle": 0.5}, limits={"keepAliveTimeout": 0.3})
    client = await rig.client(receive_buffer=4096)
    await client.send(UPGRADE)
    await client.response()
    client.writer.transport.pause_reading()
    client.writer.write(b"y" * (8 << 20))
    await rig.until(rig.lines)
    await rig.service.idle.wait()
    (known,) = rig.pool().endpoints.values()
    assert known.opened == 1, "what the client sent has a while to arrive"


@pytest.mark.parametrize("upstream", ["same", "elsewhere", "nowhere"])
async def test_a_tunnel_survives_a_reload_even_when_its_route_and_upstream_are_gone(rig, upstream):
    old, new = await rig.endpoint(echo), await rig.endpoint()
    await rig.serve(old)
    client = await rig.client()
    await client.send(UPGRADE)
    await client.reader.readuntil(b"hello")
    endpoints = {"same": [old], "elsewhere": [new], "nowhere": []}[upstream]
    await rig.serve(*endpoints, **({} if endpoints else {"rules": []}))
    await client.send(b"abc")
    assert await client.reader.readexactly(3) == b"ABC"
    client.writer.write_eof()
    assert await client.reader.read() == b"bye"


async def test_a_tunnel_outlasts_every_other_timeout(rig):
    short = {"request": 0.3, "backendRequest": 0.3, "responseHead": 0.3, "streamIdle": 0.3}
    await rig.serve(await rig.endpoint(echo), timeouts=short, limits={"bodyIdleTimeout": 0.3, "keepAliveTimeout": 0.3})
    client = await rig.client()
    await client.send(UPGRADE)
    await client.reader.readuntil(b"hello")
    await asyncio.sleep(0.7)
    await client.send(b"abc")
    assert await client.reader.readexactly(3) == b"ABC"
    client.close()


# --- WebSocket frames (RFC 6455 §5.2) ------------------------------------------------------------------------------
def frame(payload, *, opcode=2, masked=True, final=True):
    size = len(payload)
    length = (
        bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2) if size < 1 << 16 else b"\x7f" + size.to_bytes(8)
    )
    head = bytes([final << 7 | opcode, length[0] | masked << 7]) + length[1:]
    if not masked:
        return head + payload
    key = b"\x01\x02\x03\x04"
    return head + key + _masked(payload, key)


def _masked(payload, key):
    return bytes(a ^ b for a, b in zip(payload, key * (len(payload) // 4 + 1), strict=False))


async def read_frame(reader):
    first, second = await reader.readexactly(2)
    size = second & 0x7F
    if size > 125:
        size = int.from_bytes(await reader.readexactly(2 if size == 126 else 8))
    key = await reader.readexactly(4) if second & 0x80 else b""
    payload = await reader.readexactly(size)
    return first & 0x0F, _masked(payload, key) if key else payload


async def frames_echoed(peer, endpoint):
    await peer.request()
    await peer.send(SWITCH)
    while True:
        opcode, payload = await read_frame(peer.reader)
        await peer.send(frame(payload, opcode=opcode, masked=False))
        if opcode == 8:
            peer.close()
            return


async def test_frames_of_every_kind_and_size_are_echoed(rig):
    await rig.serve(await rig.endpoint(frames_echoed))
    client = await rig.client()
    await client.send(UPGRADE)
    assert (await client.response()).status == 101
    sent = [(1, b"text"), (2, b""), (9, b"ping"), (2, bytes(range(256)) * 4), (2, b"x" * 70_000), (2, b"y" * 2_000_000)]
    for opcode, payload in sent:
        sending = asyncio.ensure_future(client.send(frame(payload, opcode=opcode)))
        assert await read_frame(client.reader) == (opcode, payload)
        await sending
    await client.send(frame(b"\x03\xe8bye", opcode=8))
    assert await read_frame(client.reader) == (8, b"\x03\xe8bye")
    assert await client.ends() == "eof"


async def test_many_frames_pass_both_ways_at_once(rig):
    await rig.serve(await rig.endpoint(frames_echoed))
    client = await rig.client()
    await client.send(UPGRADE)
    await client.response()
    payloads = [b"%d" % number * 700 for number in range(300)]
    sending = asyncio.ensure_future(client.send(b"".join(map(frame, payloads))))
    assert [(await read_frame(client.reader))[1] for _ in payloads] == payloads
    await sending
    client.close()


# --- tunnels of a rollout ------------------------------------------------------------------------------------------
def owned(tunnels):
    owner = {"name": "shop", "live": "key", "primary": "a", "canary": "b", "cohorts": [], "affinity": None}
    bounds = {"maxBodyBytes": 1 << 20, "maxInFlight": 64, "timeout": 5.0, "allMethods": False}
    refs = [{"name": name, "weight": int(name == "a"), "filters": []} for name in "ab"]
    override = {"header": "x-version", "value": "next", "upstream": "b"}
    split = {"key": None, "overrides": [override]}
    return [{"backendRefs": refs, "split": split, "rollout": {**owner, "mirror": bounds, "tunnels": tunnels}}]


@pytest.fixture
def share(rig):
    """Return a function that does what control does: it writes the share of the canary."""
    rig.area = Area(memoryview(bytearray(live.LIVE_BYTES)).cast("Q"))
    slot = rig.area.slot("key", take=True)
    epochs = itertools.count(1)
    return lambda weight=0, **more: rig.area.write(slot, live.encode(Traffic(weight, **more), next(epochs)))


async def through(rig, head=UPGRADE):
    client = await rig.client()
    await client.send(head)
    await client.reader.readuntil(b"hello")
    return client


async def lives(client):
    await client.send(b"abc")
    return await client.reader.readexactly(3) == b"ABC"


async def _cut(client):
    async with asyncio.timeout(1):
        assert await client.ends() == "eof"


EVERYTHING = 10_000


async def test_on_rollback_the_canarys_tunnels_are_closed_within_a_second_and_no_others(rig, share):
    await rig.serve(await rig.endpoint(echo), await rig.endpoint(echo), rules=owned("close"))
    asking = UPGRADE.replace(b"Connection", b"X-Version: next\r\nConnection", 1)
    asked_before = await through(rig, asking)  # while the canary had no share: no rollout has led it there
    primary = await through(rig)
    share(EVERYTHING)
    canary, asked = await through(rig), await through(rig, asking)
    for weight in (5_000, EVERYTHING, 1):  # a smaller share is none the less one
        share(weight)
        await asyncio.sleep(0.25)
    assert await lives(canary)
    share(0)
    await _cut(canary)
    await _cut(asked)
    assert await lives(primary)
    assert await lives(asked_before)
    await rig.until(lambda: not rig.service.recalls.tunnels)
    assert rig.outcomes(upstream="b") == {"success": 2}


async def test_tunnels_are_kept_where_it_is_not_said_otherwise(rig, share):
    await rig.serve(await rig.endpoint(echo), await rig.endpoint(echo), rules=owned("keep"))
    share(EVERYTHING)
    client = await through(rig)
    share(0)
    await asyncio.sleep(0.5)
    assert await lives(client)


async def test_undo_closes_tunnels_to_what_was_promoted_and_a_swap_closes_none(rig, share):
    await rig.serve(await rig.endpoint(echo), await rig.endpoint(echo), rules=owned("close"))
    primary = await through(rig)
    share(EVERYTHING)
    early = await through(rig)
    share(EVERYTHING, swapped=True)
    late = await through(rig)
    await asyncio.sleep(0.5)
    assert await lives(early)
    assert await lives(late)
    share(0)
    await _cut(early)
    await _cut(late)
    assert await lives(primary)


async def test_a_tunnel_opened_before_a_reload_is_closed_all_the_same(rig, share):
    pair = await rig.endpoint(echo), await rig.endpoint(echo)
    await rig.serve(*pair, rules=owned("close"))
    share(EVERYTHING)
    client = await through(rig)
    await rig.serve(*pair, rules=owned("close"))
    share(0)
    await _cut(client)


async def test_a_rollout_that_leaves_the_file_closes_no_tunnel(rig, share):
    pair = await rig.endpoint(echo), await rig.endpoint(echo)
    await rig.serve(*pair, rules=owned("close"))
    share(EVERYTHING)
    client = await through(rig)
    await rig.serve(*pair)
    rig.area.keep([])
    await asyncio.sleep(0.5)
    assert await lives(client)
    assert not rig.service.recalls.tunnels


async def test_tunnels_that_have_ended_are_forgotten(rig, share):
    await rig.serve(await rig.endpoint(echo), await rig.endpoint(echo), rules=owned("close"))
    share(EVERYTHING)
    client = await through(rig)
    client.close()
    await rig.until(lambda: not rig.service.recalls.tunnels)
