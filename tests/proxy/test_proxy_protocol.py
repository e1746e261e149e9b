"""PROXY headers on the wire: before HTTP, before TLS, in any pieces, from whom they may come."""

import asyncio
import logging

import pytest

from splitproxy.core.proxy_protocol import SIGNATURE

LINE = b"PROXY TCP4 203.0.113.9 192.0.2.1 56324 8443\r\n"
CODED = SIGNATURE + b"\x21\x11\0\x0f" + bytes((203, 0, 113, 9, 192, 0, 2, 1)) + b"\xdc\x04\x20\xfb" + b"\x04\0\0"
LOCAL = SIGNATURE + b"\x20\0\0\0"
GET = b"GET / HTTP/1.1\r\nHost: kit.test\r\n\r\n"
PROXIED = {"proxyProtocol": True, "trustedProxies": ["127.0.0.0/8"]}


@pytest.mark.on_loop("uvloop", "asyncio")
@pytest.mark.parametrize(
    ("header", "client"),
    [(LINE, b"203.0.113.9"), (CODED, b"203.0.113.9"), (LOCAL, b"127.0.0.1"), (b"PROXY UNKNOWN\r\n", b"127.0.0.1")],
)
@pytest.mark.parametrize("bytewise", [False, True])
async def test_the_client_is_who_the_header_says(rig, header, client, bytewise):
    endpoint = await rig.endpoint()
    await rig.serve(endpoint, listener=PROXIED)
    peer = await rig.client()
    await peer.send(header + GET, bytewise=bytewise)
    assert (await peer.response()).status == 200
    await peer.send(GET)
    assert (await peer.response()).status == 200
    assert [request.get(b"x-forwarded-for") for request in endpoint.received] == [client, client]
    assert {line["client"] for line in rig.log()} == {client.decode()}


@pytest.mark.on_loop("uvloop", "asyncio")
async def test_the_header_stands_before_tls(rig, authority):
    endpoint = await rig.endpoint()
    await rig.serve(endpoint, listener={**PROXIED, "tls": authority.listener(["shop.test"])})
    for header in (LINE, CODED):
        client = await rig.client(first=header, tls=authority.client(), name="shop.test")
        assert (await client.ask()).status == 200
    assert {request.get(b"x-forwarded-for") for request in endpoint.received} == {b"203.0.113.9"}
    assert {request.get(b"x-forwarded-proto") for request in endpoint.received} == {b"https"}


@pytest.mark.parametrize(
    "first", [GET, b"PROXY TCP4 x\r\n", b"\x16\x03\x01", LINE.replace(b" ", b"  "), SIGNATURE + b"\x31"]
)
async def test_a_connection_without_a_valid_header_is_closed_and_nothing_is_forwarded(rig, first, caplog):
    endpoint = await rig.endpoint()
    await rig.serve(endpoint, listener=PROXIED)
    with caplog.at_level(logging.WARNING):
        client = await rig.client()
        await client.send(first)
        assert await client.ends() in {"eof", "reset"}
    assert endpoint.connections == 0
    assert "a connection to 127.0.0.1:0 was turned away" in caplog.text


async def test_a_header_is_taken_from_trusted_peers_alone(rig, caplog):
    endpoint = await rig.endpoint()
    await rig.serve(endpoint, listener={**PROXIED, "trustedProxies": ["192.0.2.0/24"]})
    with caplog.at_level(logging.WARNING):
        client = await rig.client()
        await client.send(LINE + GET)
        assert await client.ends() in {"eof", "reset"}
    assert endpoint.connections == 0
    assert "127.0.0.1 is not one of trustedProxies" in caplog.text


async def test_where_nobody_is_named_everybody_may_send_one(rig):
    endpoint = await rig.endpoint()
    await rig.serve(endpoint, listener={"proxyProtocol": True})
    client = await rig.client()
    await client.send(LINE + GET)
    assert (await client.response()).status == 200
    assert endpoint.received[0].get(b"x-forwarded-for") == b"203.0.113.9"


async def test_a_header_that_does_not_come_is_not_waited_for_long(rig):
    await rig.serve(await rig.endpoint(), listener=PROXIED, limits={"headerTimeout": 0.3})
    client = await rig.client()
    await client.send(LINE[:10])
    async with asyncio.timeout(3):
        assert await client.ends() in {"eof", "reset"}


async def test_a_health_check_that_says_nothing_is_nobodys_request(rig):
    await rig.serve(await rig.endpoint(), listener=PROXIED)
    (await rig.client()).close()
    client = await rig.client()
    await client.send(LINE + GET)
    assert (await client.response()).status == 200
    assert rig.codes() == {"200": 1}


async def test_a_plain_listener_takes_no_header(rig):
    endpoint = await rig.endpoint()
    await rig.serve(endpoint)
    client = await rig.client()
    await client.send(LINE + GET)
    assert (await client.response()).status == 400
    assert endpoint.connections == 0


async def test_the_client_a_header_names_is_believed_only_if_it_is_trusted_itself(rig):
    endpoint = await rig.endpoint()
    lie = GET.replace(b"\r\n\r\n", b"\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n")
    for trusted, chain in (
        (["127.0.0.0/8"], b"203.0.113.9"),
        (["127.0.0.0/8", "203.0.113.0/24"], b"6.6.6.6, 203.0.113.9"),
    ):
        await rig.serve(endpoint, listener={**PROXIED, "trustedProxies": trusted})
        client = await rig.client()
        await client.send(LINE + lie)
        assert (await client.response()).status == 200
        assert endpoint.received[-1].get(b"x-forwarded-for") == chain


async def test_many_connections_at_once_are_all_let_in(rig):
    await rig.serve(await rig.endpoint(), listener=PROXIED)

    async def one():
        client = await rig.client()
        await client.send(CODED + GET)
        return (await client.response()).status

    assert await asyncio.gather(*(one() for _ in range(200))) == [200] * 200
