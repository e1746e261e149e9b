"""TLS on both sides, with certificates made for the occasion."""

import asyncio
import logging
import socket
import ssl
import sys

import pytest

from splitproxy.proxy.door import Entrance
from splitproxy.tls import overlook_invalid_names

HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
SPLIT = {"key": {"cookie": "sp_id", "issue": True}, "overrides": []}
TWO = [{"name": "a", "weight": 1, "filters": []}, {"name": "b", "weight": 1, "filters": []}]


def over(context, name="shop.test"):
    return {"tls": context, "name": name}


def served_name(client):
    names = client.writer.get_extra_info("peercert")["subjectAltName"]
    return names[0][1]


# --- termination ---------------------------------------------------------------------------------------------------
@pytest.mark.on_loop("uvloop", "asyncio")
async def test_requests_come_in_over_tls_and_connections_are_kept(rig, authority):
    endpoint = await rig.endpoint(HELLO)
    await rig.serve(endpoint, listener={"tls": authority.listener(["shop.test"])})
    client = await rig.client(**over(authority.client()))
    for _ in range(3):
        answer = await client.ask()
        assert (answer.status, answer.body) == (200, b"hello")
    assert endpoint.received[0].get(b"x-forwarded-proto") == b"https"
    assert endpoint.received[0].get(b"x-forwarded-for") == b"127.0.0.1"
    assert endpoint.connections == 1


@pytest.mark.parametrize(
    ("asked", "served"),
    [
        ("first.test", "first.test"),
        ("FIRST.test", "first.test"),
        ("second.test", "second.test"),
        ("also.test", "second.test"),
        ("a.wild.test", "*.wild.test"),
        ("b.a.wild.test", "first.test"),
        ("wild.test", "first.test"),
        ("unknown.test", "first.test"),
        ("", "first.test"),
    ],
)
async def test_the_certificate_is_that_of_the_name_asked_for_else_the_first(rig, authority, asked, served):
    certificates = (["first.test"], ["second.test", "also.test"], ["*.wild.test"])
    await rig.serve(await rig.endpoint(), listener={"tls": authority.listener(*certificates)})
    context = authority.client()
    context.check_hostname = False
    client = await rig.client(**over(context, asked))
    assert served_name(client) == served
    assert (await client.ask()).status == 200


async def test_of_the_protocols_a_client_offers_http_1_1_is_taken(rig, authority):
    await rig.serve(await rig.endpoint(), listener={"tls": authority.listener(["shop.test"])})
    client = await rig.client(**over(authority.client(alpn=["h2", "http/1.1"])))
    assert client.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"


@pytest.mark.parametrize(("minimum", "lets_in"), [("1.2", True), ("1.3", False)])
async def test_no_version_below_the_lowest_is_spoken(rig, authority, minimum, lets_in):
    await rig.serve(await rig.endpoint(), listener={"tls": authority.listener(["shop.test"], minVersion=minimum)})
    context = authority.client()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    if lets_in:
        assert (await rig.ask(connection=over(context))).status == 200
    else:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await rig.client(**over(context))


async def test_bytes_that_are_no_handshake_close_the_connection_and_are_told_of_once(rig, authority, caplog):
    await rig.serve(await rig.endpoint(), listener={"tls": authority.listener(["shop.test"])})
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            client = await rig.client()
            await client.send(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
            await client.reader.read()
        assert (await rig.ask(connection=over(authority.client()))).status == 200
    said = [record.message for record in caplog.records if "turned away" in record.message]
    assert len(said) == 1
    assert "http request" in said[0]


async def test_a_client_that_never_shakes_hands_is_closed_in_time(rig, authority):
    tls = authority.listener(["shop.test"])
    await rig.serve(await rig.endpoint(), listener={"tls": tls}, limits={"headerTimeout": 0.3})
    client = await rig.client()
    assert await client.ends() in {"eof", "reset"}


@pytest.mark.parametrize("name", [b"a..a.test", b"\xff\xfe\xfd\xfc.test", b".........", b"a\0aa.test", b"xn--a.tes"])
async def test_names_that_are_no_host_names_do_no_harm(rig, authority, name, monkeypatch, capfd):
    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)
    overlook_invalid_names()
    await rig.serve(await rig.endpoint(), listener={"tls": authority.listener(["shop.test"])})
    hello = ssl.MemoryBIO()
    connection = authority.client().wrap_bio(ssl.MemoryBIO(), hello, server_hostname="aaaa.test")
    with pytest.raises(ssl.SSLWantReadError):
        connection.do_handshake()
    client = await rig.client()
    await client.send(hello.read().replace(b"aaaa.test", name.ljust(9, b"a")))
    assert await client.reader.read(1) in {b"", b"\x15", b"\x16"}  # closed, an alert, or the handshake goes on
    assert (await rig.ask(connection=over(authority.client()))).status == 200
    assert capfd.readouterr().err == ""


# --- the end of connections ----------------------------------------------------------------------------------------
@pytest.mark.on_loop("uvloop", "asyncio")
async def test_a_connection_that_is_to_close_closes_at_once(rig, authority):
    await rig.serve(await rig.endpoint(HELLO), listener={"tls": authority.listener(["shop.test"])})
    client = await rig.client(**over(authority.client()))
    answer = await client.ask(connection="close")
    assert answer.body == b"hello"
    async with asyncio.timeout(1):
        assert await client.ends() == "eof"


@pytest.mark.slow
@pytest.mark.parametrize("encrypted", [True, False])
async def test_the_last_answer_of_a_connection_reaches_a_slow_reader_whole(rig, authority, encrypted):
    body = bytes(8_000_000)
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    listener = {"tls": authority.listener(["shop.test"])} if encrypted else {}
    await rig.serve(await rig.endpoint(answer), listener=listener)
    client = await rig.client(4096, **(over(authority.client()) if encrypted else {}))
    await client.send(b"GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n")
    await client.reader.readuntil(b"\r\n\r\n")
    taken, slow_reads = 0, 0
    while data := await client.reader.read(65536):
        taken += len(data)
        if rig.codes() and slow_reads < 16:  # it has all been written: the rest is for the connection's end to see to
            slow_reads += 1
            await asyncio.sleep(0.3)
    assert taken == len(body)


async def test_an_early_answer_arrives_though_the_client_is_still_sending(rig, authority):
    await rig.serve(
        await rig.endpoint(), listener={"tls": authority.listener(["shop.test"])}, limits={"bodyBytes": 1000}
    )
    client = await rig.client(**over(authority.client()))
    client.writer.write(b"POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 3000000\r\n\r\n" + b"x" * 3_000_000)
    assert (await client.response()).status == 413


async def test_an_upstream_that_breaks_off_ends_in_a_broken_connection(rig, authority):
    async def script(peer, endpoint):
        endpoint.received.append(await peer.request())
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this")
        peer.close()

    await rig.serve(await rig.endpoint(script), listener={"tls": authority.listener(["shop.test"])})
    client = await rig.client(**over(authority.client()))
    await client.send(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await client.response()


async def test_a_client_that_leaves_in_the_middle_is_recorded_as_gone(rig, authority):
    held = asyncio.Event()

    async def script(peer, endpoint):
        endpoint.received.append(await peer.request())
        held.set()
        await peer.reader.read()

    await rig.serve(await rig.endpoint(script), listener={"tls": authority.listener(["shop.test"])})
    client = await rig.client(**over(authority.client()))
    await client.send(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
    await held.wait()
    client.close()
    await rig.until(lambda: rig.codes().get("499") == 1)


@pytest.mark.parametrize("chunk", [1_000, 65_536])
@pytest.mark.on_loop("uvloop", "asyncio")
async def test_large_bodies_pass_both_ways(rig, authority, chunk):
    body = bytes(range(256)) * 8192  # 2 MiB

    def echo(request):
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(request.body) + request.body

    await rig.serve(await rig.endpoint(echo), listener={"tls": authority.listener(["shop.test"])})
    client = await rig.client(**over(authority.client()))

    async def send():
        client.writer.write(b"POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: %d\r\n\r\n" % len(body))
        for at in range(0, len(body), chunk):
            client.writer.write(body[at : at + chunk])
            await client.writer.drain()

    sending = asyncio.ensure_future(send())
    answer = await client.response()
    await sending
    assert answer.body == body


async def test_pipelined_requests_are_answered_in_order(rig, authority):
    await rig.serve(
        await rig.endpoint(lambda request: b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + request.target[-2:]),
        listener={"tls": authority.listener(["shop.test"])},
    )
    client = await rig.client(**over(authority.client()))
    await client.send(b"".join(b"GET /%02d HTTP/1.1\r\nHost: shop.test\r\n\r\n" % n for n in range(20)))
    assert [(await client.response()).body for _ in range(20)] == [b"%02d" % n for n in range(20)]


@pytest.mark.on_loop("uvloop", "asyncio")
async def test_an_upgraded_connection_is_a_tunnel_and_ends_with_either_side(rig, authority):
    async def script(peer, endpoint):
        endpoint.received.append(await peer.request())
        await peer.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n")
        assert await peer.reader.readexactly(4) == b"ping"
        await peer.send(b"pong")
        peer.close()

    tls = authority.upstream(serverName="up.test")
    for options in ({}, {"tls": tls}):
        endpoint = await rig.endpoint(script, tls=authority.server("up.test") if options else None)
        await rig.serve(endpoint, listener={"tls": authority.listener(["shop.test"])}, **options)
        client = await rig.client(**over(authority.client()))
        await client.send(b"GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n")
        assert (await client.response()).status == 101
        await client.send(b"ping")
        assert await client.reader.readexactly(4) == b"pong"
        async with asyncio.timeout(3):
            assert await client.ends() == "eof"


# --- reloads -------------------------------------------------------------------------------------------------------
async def test_after_a_reload_handshakes_use_the_new_certificate_and_connections_live_on(rig, authority):
    endpoint = await rig.endpoint()
    await rig.serve(endpoint, listener={"tls": authority.listener(["old.test"])})
    context = authority.client()
    context.check_hostname = False
    before = await rig.client(**over(context))
    assert (await before.ask()).status == 200
    await rig.serve(endpoint, listener={"tls": authority.listener(["new.test"])})
    after = await rig.client(**over(context))
    assert (served_name(before), served_name(after)) == ("old.test", "new.test")
    assert (await before.ask()).status == (await after.ask()).status == 200


async def test_a_reload_that_does_not_touch_a_listener_keeps_its_sessions(rig, authority):
    endpoint, listener = await rig.endpoint(), {"tls": authority.listener(["shop.test"])}
    await rig.serve(endpoint, listener=listener)
    door = rig.service.doors["127.0.0.1:0"]
    await rig.serve(endpoint, listener=listener, limits={"headerCount": 50})
    assert rig.service.doors["127.0.0.1:0"] is door


@pytest.mark.on_loop("uvloop", "asyncio")
async def test_a_listener_may_become_encrypted_and_plain_again_while_connections_wait(rig, authority):
    endpoint = await rig.endpoint()
    for _ in range(2):
        await rig.serve(endpoint)
        plain = await rig.client()
        assert (await plain.ask()).status == 200
        await rig.serve(endpoint, listener={"tls": authority.listener(["shop.test"])})
        assert (await rig.ask(connection=over(authority.client()))).status == 200
        assert (await plain.ask()).status == 200
        plain.close()


async def test_a_listener_that_comes_before_its_configuration_waits_for_it(rig, authority):
    await rig.serve(await rig.endpoint(), listener={"tls": authority.listener(["shop.test"])})
    doors, rig.service.doors = rig.service.doors, {}
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        rig.port = sock.getsockname()[1]
        entrance = Entrance(rig.service, "127.0.0.1:0", sock.dup())
        await entrance.open()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", rig.port))
        rig.service.doors = doors
        await entrance.adapt()
        assert (await rig.ask(connection=over(authority.client()))).status == 200
        entrance._stop()


async def test_a_release_takes_what_has_connected_already(rig, authority):
    endpoint = await rig.endpoint()
    await rig.serve(endpoint, listener={"tls": authority.listener(["shop.test"])})
    releasing = asyncio.ensure_future(rig.entrance.release())
    await asyncio.sleep(0)
    client = await rig.client(**over(authority.client()))
    await releasing
    assert (await client.ask()).status == 200
    await rig.until(lambda: rig.codes().get("200") == 1)
    rig.entrance = None


# --- client certificates -------------------------------------------------------------------------------------------
def mutual(authority, how="required", *names):
    names = names or ("shop.test", "other.test")
    return {"tls": authority.listener(list(names), clientCa=authority.pem, clientAuth=how)}


async def refused(rig, context, name="shop.test"):
    """Say whether a client is turned away: in the handshake, or over TLS 1.3 when it first reads."""
    try:
        client = await rig.client(**over(context, name))
        await client.send(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        return await client.reader.read(1) == b""
    except (ssl.SSLError, ConnectionError):
        return True


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(
    ("how", "shown", "lets_in"),
    [
        ("required", "ours", True),
        ("required", "", False),
        ("required", "foreign", False),
        ("optional", "ours", True),
        ("optional", "", True),
        ("optional", "foreign", False),
    ],
)
async def test_clients_prove_who_they_are(rig, authority, version, how, shown, lets_in):
    foreign = type(authority)()
    endpoint = await rig.endpoint()
    await rig.serve(endpoint, listener=mutual(authority, how))
    context = authority.client(*(["me@test"] if shown == "ours" else []))
    if shown == "foreign":
        foreign.ca.issue_cert("me@test").configure_cert(context)
    context.minimum_version = context.maximum_version = version
    if lets_in:
        assert (await rig.ask(connection=over(context), host="shop.test")).status == 200
    else:
        assert await refused(rig, context)
        assert endpoint.received == []


@pytest.mark.parametrize(
    ("asked", "host", "status"),
    [
        ("shop.test", "shop.test", 200),
        ("shop.test", "SHOP.test:8443", 200),
        ("shop.test", "shop.test.", 200),
        ("SHOP.test", "shop.test", 200),
        ("shop.test", "other.test", 421),
        ("other.test", "shop.test", 421),
        ("shop.test", "x.shop.test", 421),
        ("", "shop.test", 200),
    ],
)
async def test_under_mutual_tls_host_is_the_name_of_the_handshake(rig, authority, asked, host, status):
    endpoint = await rig.endpoint()
    await rig.serve(endpoint, listener=mutual(authority))
    context = authority.client("me@test")
    context.check_hostname = False
    client = await rig.client(**over(context, asked))
    answer = await client.ask(host=host)
    assert answer.status == status
    if status == 421:
        assert b"misdirected_request" in answer.body
        assert await client.ends() == "eof"
        assert endpoint.received == []
        assert rig.log()[-1]["error"] == "misdirected_request"


async def test_a_target_in_absolute_form_is_held_to_the_name_too(rig, authority):
    await rig.serve(await rig.endpoint(), listener=mutual(authority))
    client = await rig.client(**over(authority.client("me@test")))
    await client.send(b"GET http://other.test/ HTTP/1.1\r\nHost: shop.test\r\n\r\n")
    assert (await client.response()).status == 421


async def test_without_client_certificates_any_host_may_be_asked(rig, authority):
    await rig.serve(await rig.endpoint(), listener={"tls": authority.listener(["shop.test"])})
    assert (await rig.ask(connection=over(authority.client()), host="other.test")).status == 200


# --- what knows of the scheme --------------------------------------------------------------------------------------
@pytest.mark.parametrize("encrypted", [True, False])
async def test_redirects_and_cookies_know_the_scheme(rig, authority, encrypted):
    redirect = {"scheme": None, "hostname": None, "path": None, "port": None, "statusCode": 302}
    moved = {"type": "RequestRedirect", "requestRedirect": redirect}
    path = {"path": {"type": "PathPrefix", "value": "/moved"}, "method": None}
    elsewhere = {**path, "headers": [], "cookies": [], "queryParams": []}
    rules = [
        {"name": "moved", "matches": [elsewhere], "filters": [moved], "backendRefs": []},
        {"name": "split", "backendRefs": TWO, "split": SPLIT},
    ]
    listener = {"tls": authority.listener(["shop.test"])} if encrypted else {}
    await rig.serve(await rig.endpoint(), await rig.endpoint(), rules=rules, listener=listener)
    connection = over(authority.client()) if encrypted else {}
    answer = await rig.ask("/moved/x", connection=connection, host="shop.test")
    scheme = "https" if encrypted else "http"
    assert answer.get(b"location") == f"{scheme}://shop.test:{rig.port}/moved/x".encode()
    cookie = (await rig.ask("/", connection=connection, host="shop.test")).get(b"set-cookie")
    assert cookie.startswith(b"sp_id=")
    assert cookie.endswith(b"; Secure") is encrypted


# --- to endpoints --------------------------------------------------------------------------------------------------
@pytest.mark.on_loop("uvloop", "asyncio")
async def test_endpoints_are_spoken_to_over_tls_and_connections_are_kept(rig, authority):
    endpoint = await rig.endpoint(HELLO, tls=authority.server("127.0.0.1"))
    await rig.serve(endpoint, tls=authority.upstream())
    for _ in range(3):
        assert (await rig.ask()).body == b"hello"
    assert endpoint.connections == 1
    assert endpoint.received[0].get(b"host") == b"kit.test"


async def test_the_name_of_an_endpoint_is_asked_for_and_verified(rig, authority):
    names = []
    context = authority.server("localhost")
    context.sni_callback = lambda _connection, name, _context: names.append(name)
    endpoint = await rig.endpoint(tls=context)
    await rig.serve(f"localhost:{endpoint.port}", tls=authority.upstream())
    assert (await rig.ask()).status == 200
    assert names == ["localhost"]


@pytest.mark.parametrize(
    ("certified", "changes", "words"),
    [
        ("up.test", {"serverName": "up.test"}, ""),
        ("up.test", {}, "IP address mismatch, certificate is not valid for '127.0.0.1'"),
        ("up.test", {"serverName": "down.test"}, "Hostname mismatch, certificate is not valid for 'down.test'"),
        ("127.0.0.1", {"ca": ""}, "unable to get local issuer certificate"),
        ("up.test", {"ca": "", "insecureSkipVerify": True}, ""),
    ],
)
async def test_an_endpoint_is_verified(rig, authority, certified, changes, words):
    endpoint = await rig.endpoint(tls=authority.server(certified))
    await rig.serve(endpoint, tls=authority.upstream(**changes))
    answer = await rig.ask()
    if words:
        assert answer.status == 502
        assert b"connect_failed" in answer.body
        assert f"its certificate is not accepted: {words}" in answer.body.decode()
        assert rig.outcomes() == {"connect_failed": 1}
        assert endpoint.received == []
    else:
        assert answer.status == 200


async def test_an_endpoint_that_speaks_no_tls_is_a_connect_failure(rig, authority):
    async def script(peer, endpoint):
        await peer.reader.read(10)
        await peer.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    await rig.serve(await rig.endpoint(script), tls=authority.upstream())
    answer = await rig.ask()
    assert answer.status == 502
    assert b"wrong version number" in answer.body


async def test_an_endpoint_that_never_shakes_hands_is_a_connect_timeout(rig, authority):
    async def script(peer, endpoint):
        await peer.reader.read()

    await rig.serve(await rig.endpoint(script), tls=authority.upstream(), connect_timeout=0.2)
    assert (await rig.ask()).status == 504


@pytest.mark.parametrize("has_one", [True, False])
async def test_we_prove_ourselves_to_endpoints_that_want_it(rig, authority, has_one):
    endpoint = await rig.endpoint(tls=authority.server("127.0.0.1", clients=authority))
    pem = authority.certified("proxy.test")["pem"] if has_one else None
    await rig.serve(endpoint, tls=authority.upstream(pem=pem))
    assert (await rig.ask()).status == (200 if has_one else 502)


async def test_other_certificates_or_authorities_end_the_connections_made_before(rig, authority):
    other = type(authority)()
    endpoint = await rig.endpoint(tls=authority.server("127.0.0.1"))
    await rig.serve(endpoint, tls=authority.upstream())
    assert (await rig.ask()).status == 200
    await rig.serve(endpoint, tls=authority.upstream(ca=other.pem))
    assert (await rig.ask()).status == 502
    await rig.serve(endpoint, tls=authority.upstream())
    assert (await rig.ask()).status == 200
    assert len(endpoint.received) == 2


@pytest.mark.on_loop("uvloop", "asyncio")
@pytest.mark.parametrize("says_so", [True, False])
async def test_a_body_without_a_length_is_whole_only_if_tls_says_so(rig, authority, says_so):
    async def script(peer, endpoint):
        endpoint.received.append(await peer.request())
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\nall there is")
        if says_so:
            peer.close()
        else:  # a FIN that anybody on the way could have sent
            with peer.writer.get_extra_info("socket").dup() as sock:
                sock.shutdown(socket.SHUT_WR)
            await peer.reader.read()

    await rig.serve(await rig.endpoint(script, tls=authority.server("127.0.0.1")), tls=authority.upstream())
    client = await rig.client()
    await client.send(b"GET / HTTP/1.1\r\nHost: kit.test\r\n\r\n")
    if says_so:
        assert (await client.response()).body == b"all there is"
    else:
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await client.response()
        assert rig.outcomes() == {"upstream_reset": 1}


async def test_probes_go_over_tls_too(rig, authority):
    probe = {
        "path": "/up",
        "host": None,
        "statuses": ["200-299"],
        "interval": 0.05,
        "timeout": 1.0,
        "healthyThreshold": 1,
        "unhealthyThreshold": 1,
    }
    good = await rig.endpoint(tls=authority.server("127.0.0.1"))
    other = await rig.endpoint(tls=authority.server("elsewhere.test"))
    await rig.serve([good, other], tls=authority.upstream(), health={"a": {"healthCheck": probe}})
    await rig.until(lambda: good.received and len(rig.pool()._in_use) == 1)
    assert good.received[0].target == b"/up"
    assert (await rig.ask()).status == 200
    assert other.received == []


async def test_copies_go_over_tls_too(rig, authority):
    mirror = {
        "backendRef": {"name": "b"},
        "percent": 100.0,
        "maxBodyBytes": 1000,
        "maxInFlight": 9,
        "timeout": 5.0,
        "methods": "safe",
    }
    rule = {"filters": [{"type": "RequestMirror", "requestMirror": mirror}]}
    one, other = [await rig.endpoint(tls=authority.server("127.0.0.1")) for _ in range(2)]
    await rig.serve(one, other, rules=[rule], tls=authority.upstream())
    assert (await rig.ask()).status == 200
    await rig.until(lambda: other.received)


async def test_an_endpoint_that_closes_an_idle_connection_costs_no_request(rig, authority):
    async def script(peer, endpoint):
        endpoint.received.append(await peer.request())
        await peer.send(HELLO)
        peer.close()

    await rig.serve(await rig.endpoint(script), tls=authority.upstream(serverName=None, insecureSkipVerify=True, ca=""))
    endpoint = rig.endpoints[0]
    endpoint.stop()
    endpoint = await rig.endpoint(script, tls=authority.server("127.0.0.1"))
    await rig.serve(endpoint, tls=authority.upstream())
    for _ in range(5):
        assert (await rig.ask()).status == 200


async def test_a_socket_that_is_opened_and_closed_is_nobody_s_request(rig, authority):
    await rig.serve(await rig.endpoint(), listener={"tls": authority.listener(["shop.test"])})
    with socket.create_connection(("127.0.0.1", rig.port)):
        pass
    assert (await rig.ask(connection=over(authority.client()))).status == 200
    assert rig.codes() == {"200": 1}
