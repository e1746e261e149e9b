"""Endpoints that are dead or late, clients that are slow, limits: each with its status, charged to the right one."""

import asyncio
import contextlib
import socket

import pytest

GET = b"GET / HTTP/1.1\r\nHost: kit.test\r\n\r\n"


async def silent(peer, endpoint):
    endpoint.received.append(await peer.request())
    await peer.reader.read()


def nobody():
    """Return a port on which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@contextlib.contextmanager
def full_backlog():
    """Yield a port that neither accepts nor refuses: a connection to it can only time out."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def refused(response, status, error):
    assert (response.status, response.json["error"]) == (status, error)
    assert set(response.json) == {"error", "detail", "requestId"}
    assert response.get(b"content-type") == b"application/json"


async def test_a_refused_connection_is_502(rig):
    await rig.serve(f"127.0.0.1:{nobody()}")
    client = await rig.client()
    for _ in range(2):
        refused(await client.ask(), 502, "connect_failed")
    assert rig.codes(upstream="a", role="primary") == {"502": 2}
    assert rig.outcomes(upstream="a") == {"connect_failed": 2}
    assert [(line["attempts"], line["upstream"]) for line in rig.log()] == [(1, "a")] * 2


async def test_a_connection_that_is_not_accepted_in_time_is_504(rig):
    with full_backlog() as port:
        await rig.serve(f"127.0.0.1:{port}", connect_timeout=0.2)
        refused(await rig.ask(), 504, "connect_timeout")
    assert rig.codes(upstream="a") == {"504": 1}
    assert rig.outcomes(upstream="a") == {"connect_timeout": 1}


async def test_a_head_that_does_not_come_in_time_is_504(rig):
    endpoint = await rig.endpoint(silent)
    await rig.serve(endpoint, timeouts={"responseHead": 0.2})
    client = await rig.client()
    refused(await client.ask(), 504, "upstream_timeout")
    refused(await client.ask(), 504, "upstream_timeout")
    assert endpoint.connections == 2, "an answer may still come on the first: it is not used again"
    assert rig.outcomes(upstream="a") == {"upstream_timeout": 2}


async def test_one_attempt_over_its_time_is_504_and_charged(rig):
    await rig.serve(await rig.endpoint(silent), timeouts={"backendRequest": 0.2})
    refused(await rig.ask(), 504, "upstream_timeout")
    assert rig.outcomes(upstream="a") == {"upstream_timeout": 1}


@pytest.mark.parametrize("body", [b"", b"a body"])
async def test_a_request_over_its_time_is_504_and_its_attempt_is_charged_to_who_hung(rig, body):
    await rig.serve(await rig.endpoint(silent), timeouts={"request": 0.2})
    client = await rig.client()
    await client.send(b"POST / HTTP/1.1\r\nHost: kit.test\r\nContent-Length: %d\r\n\r\n" % len(body))
    await client.send(body)
    refused(await client.response(), 504, "request_deadline")
    assert rig.codes(upstream="a") == {}
    assert rig.codes(upstream="", route="shop") == {"504": 1}
    assert rig.outcomes(upstream="a") == {"upstream_timeout": 1}


async def test_who_got_the_request_late_is_not_charged_with_the_end_of_its_time(rig):
    await rig.serve(await rig.endpoint(silent), timeouts={"request": 0.6})
    client = await rig.client()
    await client.send(b"POST / HTTP/1.1\r\nHost: kit.test\r\nContent-Length: 4\r\n\r\nab")
    await asyncio.sleep(0.45)
    await client.send(b"cd")
    refused(await client.response(), 504, "request_deadline")
    assert rig.outcomes(upstream="a") == {"cancelled": 1}


@contextlib.contextmanager
def unreachable():
    """Yield the address of an endpoint to which every connection times out: its backlog is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield f"127.0.0.1:{listener.getsockname()[1]}"


async def test_an_endpoint_that_cannot_be_reached_is_charged_though_the_head_is_wanted_sooner(rig):
    with unreachable() as address:
        await rig.serve(address, timeouts={"responseHead": 0.1}, connect_timeout=0.5)
        refused(await rig.ask(), 504, "connect_timeout")
    assert rig.outcomes(upstream="a") == {"connect_timeout": 1}


async def test_an_endpoint_that_cannot_be_reached_is_charged_with_the_end_of_the_requests_time(rig):
    with unreachable() as address:
        await rig.serve(address, timeouts={"request": 0.2}, connect_timeout=0.5)
        refused(await rig.ask(), 504, "request_deadline")
        assert rig.outcomes(upstream="a") == {"connect_timeout": 1}
        await rig.until(rig.at_rest)  # the connection itself is given up later
    assert rig.outcomes(upstream="a") == {"connect_timeout": 1}, "once"


@pytest.mark.parametrize("limit", ["streamIdle", "request", "backendRequest"])
async def test_an_answer_that_stalls_is_cut_off(rig, limit):
    async def script(peer, endpoint):
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")
        await peer.reader.read()

    await rig.serve(await rig.endpoint(script), timeouts={limit: 0.2})
    client = await rig.client()
    await client.send(GET)
    await client.reader.readuntil(b"ab")
    assert await client.ends() in {"reset", "eof"}
    (line,) = rig.log()
    assert line["status"] == 200
    assert line["error"] == ("request_deadline" if limit == "request" else "upstream_timeout")
    assert rig.outcomes() == {"cancelled" if limit == "request" else "upstream_timeout": 1}


async def test_a_stream_may_last_as_long_as_it_moves(rig):
    async def script(peer, endpoint):
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n")
        for _ in range(8):
            await asyncio.sleep(0.1)
            await peer.send(b"x")

    await rig.serve(await rig.endpoint(script), timeouts={"streamIdle": 0.4, "responseHead": 0.4})
    assert (await rig.ask()).body == b"x" * 8


# --- clients -----------------------------------------------------------------------------------------------------
async def test_a_head_that_is_too_slow_is_408(rig):
    await rig.serve(await rig.endpoint(), limits={"headerTimeout": 0.2})
    client = await rig.client()
    await client.send(b"GET / HTTP/1.1\r\nHost:")
    refused(await client.response(), 408, "request_timeout")
    assert await client.ends() == "eof"


async def test_a_head_that_drips_is_408_all_the_same(rig):
    await rig.serve(await rig.endpoint(), limits={"headerTimeout": 0.3})
    client = await rig.client()

    async def drip():
        await client.send(b"GET / HTTP/1.1\r\nHost: kit.test\r\n")
        while True:
            await client.send(b"X: 1\r\n")
            await asyncio.sleep(0.05)

    dripping = asyncio.ensure_future(drip())
    refused(await client.response(), 408, "request_timeout")
    dripping.cancel()


async def test_empty_lines_put_no_deadline_off(rig):
    await rig.serve(await rig.endpoint(), limits={"headerTimeout": 0.3})
    client = await rig.client()

    async def drip():
        while True:
            await client.send(b"\r\n", bytewise=True)
            await asyncio.sleep(0.05)

    dripping = asyncio.ensure_future(drip())
    await client.reader.read()  # within the test's patience; a 408 or nothing, as the last byte was a CR or an LF
    dripping.cancel()


@pytest.mark.parametrize("bytewise", [False, True])
async def test_empty_lines_before_a_request_are_ignored(rig, bytewise):
    await rig.serve(await rig.endpoint())
    client = await rig.client()
    for _ in range(2):
        await client.send(b"\r\n" * 5 + GET, bytewise=bytewise)
        assert (await client.response()).status == 200


async def test_a_body_that_is_too_slow_is_408_and_charged_to_nobody(rig):
    await rig.serve(await rig.endpoint(), limits={"bodyIdleTimeout": 0.2})
    client = await rig.client()
    await client.send(b"POST / HTTP/1.1\r\nHost: kit.test\r\nContent-Length: 5\r\n\r\nab")
    refused(await client.response(), 408, "request_timeout")
    assert await client.ends() == "eof"
    assert rig.codes(upstream="a") == {}
    assert rig.outcomes() == {"cancelled": 1}


@pytest.mark.parametrize("first", [b"", GET])
async def test_an_idle_connection_is_closed_without_a_word(rig, first):
    await rig.serve(await rig.endpoint(), limits={"keepAliveTimeout": 0.2, "headerTimeout": 0.2})
    client = await rig.client()
    if first:
        await client.send(first)
        await client.response()
    assert await client.ends() == "eof"
    assert rig.codes() == ({"200": 1} if first else {})


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize(("size", "status"), [(10, 200), (11, 413)])
async def test_a_body_may_be_as_large_as_the_limit_however_it_is_framed(rig, chunked, size, status):
    endpoint = await rig.endpoint()
    await rig.serve(endpoint, limits={"bodyBytes": 10})
    client = await rig.client()
    body = b"x" * size
    if chunked:
        pieces = b"".join(b"1\r\n%c\r\n" % octet for octet in body)
        await client.send(
            b"POST / HTTP/1.1\r\nHost: kit.test\r\nTransfer-Encoding: chunked\r\n\r\n" + pieces + b"0\r\n\r\n"
        )
    else:
        await client.send(b"POST / HTTP/1.1\r\nHost: kit.test\r\nContent-Length: %d\r\n\r\n" % size + body)
    response = await client.response()
    assert response.status == status
    assert [request.body for request in endpoint.received] == ([body] if status == 200 else [])
    if status == 413:
        assert response.json["error"] == "body_too_large"
        assert await client.ends() == "eof"


async def test_heads_up_to_the_limits_pass(rig):
    await rig.serve(await rig.endpoint())
    client = await rig.client()
    await client.send(b"GET /" + b"a" * 8191 + b" HTTP/1.1\r\nHost: kit.test\r\n" + b"X: 1\r\n" * 99 + b"\r\n")
    assert (await client.response()).status == 200


async def test_no_route_is_404_and_the_connection_stays(rig):
    await rig.serve(await rig.endpoint(), hostnames=["other.test"])
    client = await rig.client()
    refused(await client.ask(), 404, "no_route")
    assert (await client.ask(host="other.test")).status == 200
    assert rig.codes(route="") == {"404": 1}


@pytest.mark.parametrize("refs", [[], [{"name": "a", "weight": 0, "filters": []}]])
async def test_a_rule_without_a_usable_backend_is_500(rig, refs):
    await rig.serve(await rig.endpoint(), rules=[{"backendRefs": refs}])
    refused(await rig.ask(), 500, "no_backend")
    assert rig.codes(route="shop", upstream="") == {"500": 1}
    assert rig.outcomes() == {}


# --- the pool ----------------------------------------------------------------------------------------------------
async def test_connections_are_used_last_in_first_out(rig):
    hold = asyncio.Event()
    used = []

    async def script(peer, endpoint):
        own = endpoint.connections
        while True:
            request = await peer.request()
            used.append(own)
            if request.target == b"/hold":
                await hold.wait()
            await peer.send(rig.OK)

    await rig.serve(await rig.endpoint(script))
    first, second = await rig.client(), await rig.client()
    held = asyncio.ensure_future(first.ask("/hold"))
    await rig.until(lambda: used)
    await second.ask()
    hold.set()
    await held
    await second.ask()
    assert used[-1] == used[0], "the connection that came back last"


async def test_connections_are_no_more_than_allowed_and_requests_wait_for_them(rig):
    hold = asyncio.Event()

    async def script(peer, endpoint):
        while True:
            endpoint.received.append(await peer.request())
            await hold.wait()
            await peer.send(rig.OK)

    endpoint = await rig.endpoint(script)
    await rig.serve(endpoint, pool={"maxConnections": 2, "maxPending": 3})
    clients = [await rig.client() for _ in range(5)]
    asked = [asyncio.ensure_future(client.ask()) for client in clients]
    await rig.until(lambda: len(endpoint.received) == 2 and len(rig.pool().waiting) == 3)
    refused(await rig.ask(), 503, "queue_full")
    hold.set()
    assert [response.status for response in await asyncio.gather(*asked)] == [200] * 5
    assert endpoint.connections == 2
    assert rig.codes(upstream="a") == {"200": 5}
    assert rig.codes(upstream="", route="shop") == {"503": 1}
    assert rig.outcomes() == {"success": 5}


async def test_a_place_that_becomes_free_by_a_lost_connection_is_given_to_who_waits(rig):
    async def script(peer, endpoint):
        endpoint.received.append(await peer.request())
        await peer.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")

    endpoint = await rig.endpoint(script)
    await rig.serve(endpoint, pool={"maxConnections": 1})
    clients = [await rig.client() for _ in range(4)]
    responses = await asyncio.gather(*(client.ask() for client in clients))
    assert [response.status for response in responses] == [200] * 4
    assert endpoint.connections == 4


async def test_a_client_that_leaves_the_queue_is_forgotten(rig):
    hold = asyncio.Event()

    async def script(peer, endpoint):
        while True:
            endpoint.received.append(await peer.request())
            await hold.wait()
            await peer.send(rig.OK)

    endpoint = await rig.endpoint(script)
    await rig.serve(endpoint, pool={"maxConnections": 1})
    first, second = await rig.client(), await rig.client()
    asked = asyncio.ensure_future(first.ask())
    await rig.until(lambda: endpoint.received)
    await second.send(GET)
    await rig.until(lambda: rig.pool().waiting)
    second.reset()
    await rig.until(lambda: not rig.pool().waiting)
    hold.set()
    assert (await asked).status == 200
    assert len(endpoint.received) == 1
    assert rig.codes() == {"200": 1, "499": 1}


async def test_no_more_idle_connections_are_kept_than_allowed(rig):
    hold = asyncio.Event()

    async def script(peer, endpoint):
        while True:
            endpoint.received.append(await peer.request())
            await hold.wait()
            await peer.send(rig.OK)

    endpoint = await rig.endpoint(script)
    await rig.serve(endpoint, pool={"maxIdle": 1})
    clients = [await rig.client() for _ in range(3)]
    asked = [asyncio.ensure_future(client.ask()) for client in clients]
    await rig.until(lambda: len(endpoint.received) == 3)
    hold.set()
    await asyncio.gather(*asked)
    (known,) = rig.pool().endpoints.values()
    await rig.until(lambda: known.opened == 1)
    assert len(known.idle) == 1


async def test_idle_connections_are_closed_after_a_while(rig):
    await rig.serve(await rig.endpoint(), pool={"idleTimeout": 0.2})
    await rig.ask()
    (known,) = rig.pool().endpoints.values()
    await rig.until(lambda: known.opened == 0)
    assert not known.idle


async def test_all_endpoints_of_an_upstream_take_turns(rig):
    endpoints = [await rig.endpoint() for _ in range(3)]
    await rig.serve(endpoints)
    client = await rig.client()
    for _ in range(9):
        await client.ask()
    assert [len(endpoint.received) for endpoint in endpoints] == [3, 3, 3]


# --- a reload ----------------------------------------------------------------------------------------------------
async def test_a_reload_keeps_connections_to_endpoints_that_stay_and_finishes_what_is_under_way(rig):
    hold = asyncio.Event()

    async def script(peer, endpoint):
        while True:
            endpoint.received.append(await peer.request())
            await hold.wait()
            await peer.send(rig.OK)

    old, new = await rig.endpoint(script), await rig.endpoint()
    await rig.serve([old])
    client = await rig.client()
    asked = asyncio.ensure_future(client.ask())
    await rig.until(lambda: old.received)
    await rig.serve([new])
    assert (await rig.ask()).status == 200
    assert len(new.received) == 1
    hold.set()
    assert (await asked).status == 200
    await rig.serve([new])
    await rig.ask()
    assert new.connections == 1


async def test_names_are_resolved_and_all_their_addresses_used(rig):
    endpoint = await rig.endpoint()
    await rig.serve(f"localhost:{endpoint.port}")
    assert (await rig.ask()).status == 200
    assert rig.log()[0]["endpoint"] in {f"127.0.0.1:{endpoint.port}", f"[::1]:{endpoint.port}"}


async def test_a_name_that_does_not_resolve_is_503(rig):
    await rig.serve("nothing.invalid:80")
    refused(await rig.ask(), 503, "no_endpoint")
    assert rig.codes(upstream="a") == {}
    assert rig.outcomes() == {}
