import socket

import aiohttp
import pytest
from aiohttp import web

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
