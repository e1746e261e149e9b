import asyncio
import contextlib
import socket

import aiohttp
import pytest
from aiohttp import web

from splitproxy.control.guests import Guests, most
from splitproxy.control.sites import SiteError, Sites


@pytest.fixture
def sites():
    application = web.Application()

    async def whoami(request):
        return web.json_response({"host": request.host})

    application.add_routes([web.get("/", whoami)])
    return Sites(application)


async def served(address):
    try:
        async with aiohttp.ClientSession() as session, session.get(f"http://{address}/") as response:
            return response.status == 200
    except aiohttp.ClientConnectionError:
        return False


async def move(sites, address):
    await sites.open(address)
    await sites.keep(address)


async def test_a_port_of_zero_becomes_a_real_one(sites):
    await move(sites, "127.0.0.1:0")
    assert not sites.bound.endswith(":0")
    assert await served(sites.bound)
    await sites.close()


async def test_the_new_place_is_open_before_the_old_is_left(sites):
    await move(sites, "127.0.0.1:0")
    old = sites.bound
    await sites.open("localhost:0")
    assert await served(old)
    await sites.keep("localhost:0")
    assert sites.bound != old
    assert [await served(old), await served(sites.bound)] == [False, True]
    await sites.close()


async def test_a_change_that_is_taken_back_leaves_the_old_place(sites):
    await move(sites, "127.0.0.1:0")
    old = sites.bound
    await sites.open("localhost:0")
    await sites.forget()
    assert sites.bound == old
    assert await served(old)
    await sites.close()


async def test_the_same_address_again_is_no_move(sites):
    await move(sites, "127.0.0.1:0")
    bound = sites.bound
    await move(sites, "127.0.0.1:0")
    assert sites.bound == bound
    await sites.close()


async def test_a_listener_can_be_given_up(sites):
    await move(sites, "127.0.0.1:0")
    old = sites.bound
    await move(sites, None)
    assert not await served(old)
    await sites.close()


async def test_a_taken_port_is_an_error_in_words(sites):
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(SiteError) as refused:
            await sites.open(address)
    assert refused.value.args[0] == {address: "the port is in use by another program"}
    await sites.close()


# --- who only takes room ---------------------------------------------------------------------------------------------
@contextlib.asynccontextmanager
async def guarded(limit, patience=10.0, *, answering=True):
    """Serve with so many connections at most, and so much patience; yield host and port."""
    application, held = web.Application(), asyncio.Event()
    if answering:
        held.set()

    async def answer(_request):
        await held.wait()
        return web.Response()

    application.add_routes([web.get("/", answer)])
    sites = Sites(application, Guests(limit, patience))
    await move(sites, "127.0.0.1:0")
    try:
        yield sites.bound.rsplit(":", 1)
    finally:
        held.set()
        await sites.close()


async def _ended(reader):
    with contextlib.suppress(ConnectionError):
        return await asyncio.wait_for(reader.read(), 10) == b""
    return True


async def test_a_flood_of_silent_connections_keeps_nobody_out():
    async with guarded(8) as (host, port):
        flood = [await asyncio.open_connection(host, port) for _ in range(30)]
        assert all([await _ended(reader) for reader, _ in flood[:22]]), "the oldest have gone"
        assert await served(f"{host}:{port}")
        for _, writer in flood:
            writer.close()


async def test_who_is_being_answered_stays_and_then_there_is_no_room():
    async with guarded(2, answering=False) as (host, port):
        asked = [await asyncio.open_connection(host, port) for _ in range(2)]
        for _, writer in asked:
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await asyncio.sleep(0.1)
        late, writer = await asyncio.open_connection(host, port)
        assert await _ended(late)
        assert not any(reader.at_eof() for reader, _ in asked)
        for _, one in (*asked, (late, writer)):
            one.close()


async def test_who_asks_nothing_is_sent_away_and_who_has_asked_is_kept():
    async with guarded(8, 0.2) as (host, port):
        silent, one = await asyncio.open_connection(host, port)
        slow, two = await asyncio.open_connection(host, port)
        kept, three = await asyncio.open_connection(host, port)
        two.write(b"GET / HTTP/1.1\r\n")
        three.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert await _ended(silent)
        assert await _ended(slow)
        assert (await kept.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        three.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await kept.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        for writer in (one, two, three):
            writer.close()


@pytest.mark.parametrize("sent", [b"\x16\x03\x01nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nA: \x1b[31m\r\n\r\n"])
async def test_what_is_not_http_is_told_so_and_fills_no_log(caplog, sent):
    async with guarded(8) as (host, port):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(sent)
        assert (await asyncio.wait_for(reader.read(12), 10)).endswith(b" 400")
        writer.close()
    assert not caplog.records


@pytest.mark.parametrize(("descriptors", "connections"), [(-1, 256), (1 << 20, 256), (1024, 128), (64, 16)])
def test_most_descriptors_are_for_others(monkeypatch, descriptors, connections):
    monkeypatch.setattr("resource.getrlimit", lambda _: (descriptors, -1))
    assert most() == connections
