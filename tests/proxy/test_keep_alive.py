"""Connections used again: pipelining, HTTP/1.0, what ends a connection, and races with an endpoint that closes."""

import asyncio

import pytest

pytestmark = pytest.mark.on_loop("uvloop", "asyncio")
GET = b"GET /%d HTTP/1.1\r\nHost: kit.test\r\n\r\n"


def numbered(request):
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(request.target), request.target)


@pytest.mark.parametrize("count", [1, 7, 3000])
async def test_pipelined_requests_are_answered_one_after_the_other(rig, count):
    endpoint = await rig.endpoint(numbered)
    await rig.serve(endpoint)
    client = await rig.client()
    sending = asyncio.ensure_future(client.send(b"".join(GET % number for number in range(count))))
    for number in range(count):
        assert (await client.response()).body == b"/%d" % number
    await sending
    assert endpoint.connections == 1, "serial: one connection is enough"
    assert rig.codes() == {"200": count}


async def test_pipelined_requests_that_come_byte_by_byte_are_answered(rig):
    endpoint = await rig.endpoint(numbered)
    await rig.serve(endpoint)
    client = await rig.client()
    await client.send(b"".join(GET % number for number in range(5)), bytewise=True)
    assert [(await client.response()).body for _ in range(5)] == [b"/%d" % number for number in range(5)]


async def test_thousands_of_pipelined_requests_that_the_proxy_answers_itself_do_not_nest(rig):
    await rig.serve(await rig.endpoint(), hostnames=["other.test"])
    client = await rig.client()
    sending = asyncio.ensure_future(client.send(b"GET / HTTP/1.1\r\nHost: kit.test\r\n\r\n" * 3000))
    for _ in range(3000):
        assert (await client.response()).status == 404
    await sending
    assert rig.codes() == {"404": 3000}


async def test_a_pipelined_request_behind_a_body_is_not_part_of_it(rig):
    endpoint = await rig.endpoint(numbered)
    await rig.serve(endpoint)
    client = await rig.client()
    chunked = b"POST /1 HTTP/1.1\r\nHost: kit.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    sized = b"POST /2 HTTP/1.1\r\nHost: kit.test\r\nContent-Length: 3\r\n\r\nabc"
    await client.send(chunked + sized + GET % 3 + chunked)
    assert [(await client.response()).body for _ in range(4)] == [b"/1", b"/2", b"/3", b"/1"]
    assert [request.body for request in endpoint.received] == [b"abc", b"abc", b"", b"abc"]


async def test_an_empty_line_before_a_request_is_ignored(rig):
    await rig.serve(await rig.endpoint(numbered))
    client = await rig.client()
    await client.send(b"\r\n" + GET % 1 + b"\r\n" + GET % 2)
    assert [(await client.response()).body for _ in range(2)] == [b"/1", b"/2"]


async def test_http_1_0_closes_unless_asked_to_stay(rig):
    endpoint = await rig.endpoint()
    await rig.serve(endpoint)
    client = await rig.client()
    await client.send(b"GET / HTTP/1.0\r\n\r\n")
    response = await client.response()
    assert (response.body, response.get(b"connection")) == (b"ok", b"close")
    assert await client.ends() == "eof"
    assert endpoint.received[0].line == b"GET / HTTP/1.1"
    assert endpoint.received[0].all(b"host") == [b"a"], "the upstream's name, when the client gave none"
    client = await rig.client()
    for _ in range(2):
        await client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\nHost: kit.test\r\n\r\n")
        response = await client.response()
        assert (response.body, response.get(b"connection")) == (b"ok", b"keep-alive")


async def test_http_1_0_gets_a_chunked_answer_without_chunks(rig):
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n"
    await rig.serve(await rig.endpoint(answer))
    client = await rig.client()
    await client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\nHost: kit.test\r\n\r\n")
    response = await client.response()
    assert response.body == b"ok"
    assert b"transfer-encoding" not in response.names
    assert await client.ends() == "eof"


async def test_http_1_0_gets_no_interim_response(rig):
    await rig.serve(await rig.endpoint(b"HTTP/1.1 103 Early Hints\r\nX: 1\r\n\r\n" + rig.OK))
    client = await rig.client()
    await client.send(b"GET / HTTP/1.0\r\nHost: kit.test\r\n\r\n")
    response = await client.response()
    assert (response.status, response.interim) == (200, [])


async def test_connection_close_of_the_client_is_honoured_and_stays_its_own(rig):
    endpoint = await rig.endpoint()
    await rig.serve(endpoint)
    for _ in range(2):
        client = await rig.client()
        response = await client.ask(connection="close")
        assert response.get(b"connection") == b"close"
        assert await client.ends() == "eof"
    assert endpoint.connections == 1


@pytest.mark.parametrize("framing", [b"Content-Length: 5", b"Transfer-Encoding: chunked"])
async def test_head_has_the_fields_of_get_and_no_body(rig, framing):
    endpoint = await rig.endpoint(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n")
    await rig.serve(endpoint)
    client = await rig.client()
    for _ in range(2):
        response = await client.ask(method="HEAD")
        assert response.status == 200
        name, _, value = framing.partition(b": ")
        assert response.get(name) == value
    assert endpoint.connections == 1


async def test_an_error_answer_to_head_has_no_body(rig):
    await rig.serve(await rig.endpoint(), hostnames=["other.test"])
    client = await rig.client()
    for _ in range(2):
        response = await client.ask(method="HEAD")
        assert response.status == 404
        assert int(response.get(b"content-length")) > 0
    client.close()


async def test_bytes_that_no_response_accounts_for_end_the_endpoint_connection(rig):
    endpoint = await rig.endpoint(rig.OK + b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nforge")
    await rig.serve(endpoint)
    client = await rig.client()
    assert [(await client.ask()).body for _ in range(3)] == [b"ok"] * 3
    assert endpoint.connections == 3


async def test_bytes_of_an_idle_endpoint_end_its_connection(rig):
    endpoint = await rig.endpoint()
    await rig.serve(endpoint)
    client = await rig.client()
    assert (await client.ask()).body == b"ok"
    await endpoint.peers[0].send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nforge")
    (known,) = rig.pool().endpoints.values()
    await rig.until(lambda: not known.idle)
    assert (await client.ask()).body == b"ok"
    assert endpoint.connections == 2


# --- an endpoint that closes as a request is sent ----------------------------------------------------------------
def racing(how):
    """Return a script whose first connection answers once and then ends when the second request has come."""

    async def script(peer, endpoint):
        first = endpoint.connections == 1
        while True:
            endpoint.received.append(await peer.request())
            if first and len(endpoint.received) == 2:
                peer.reset() if how == "reset" else peer.close()
                return
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    return script


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"])
async def test_a_request_lost_to_a_dying_kept_alive_connection_is_replayed_once_and_unseen(rig, how, method):
    endpoint = await rig.endpoint(racing(how))
    await rig.serve(endpoint)
    client = await rig.client()
    assert (await client.ask()).status == 200
    body = b"abc" if method == "PUT" else b""
    answer = client.ask("/again", method, body=body)
    if method == "HEAD":
        await client.send(b"HEAD /again HTTP/1.1\r\nHost: kit.test\r\n\r\n")
        answer.close()
        assert (await client.response(b"HEAD")).status == 200
    else:
        assert (await answer).status == 200
    assert [request.target for request in endpoint.received] == [b"/", b"/again", b"/again"]
    assert endpoint.received[2].body == body
    assert rig.codes() == {"200": 2}
    assert rig.outcomes() == {"success": 2}, "a replay is no attempt of its own"
    assert rig.log()[1]["attempts"] == 1


@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_a_request_that_must_not_be_repeated_is_not_replayed(rig, method):
    endpoint = await rig.endpoint(racing("close"))
    await rig.serve(endpoint)
    client = await rig.client()
    assert (await client.ask()).status == 200
    response = await client.ask("/again", method, body=b"abc")
    assert (response.status, response.json["error"]) == (502, "upstream_reset")
    assert [request.target for request in endpoint.received] == [b"/", b"/again"]
    assert rig.outcomes() == {"success": 1, "upstream_reset": 1}


@pytest.mark.parametrize("slow", [False, True])
async def test_all_that_a_client_asked_for_before_it_ended_its_side_is_answered(rig, slow):
    async def script(peer, endpoint):
        while True:
            endpoint.received.append(await peer.request())
            if slow:
                await asyncio.sleep(0.02)
            await peer.send(rig.OK)

    endpoint = await rig.endpoint(script)
    await rig.serve(endpoint)
    client = await rig.client()
    asked = [b"GET /%d HTTP/1.1\r\nHost: kit.test\r\n\r\n" % number for number in range(5)]
    await client.send(b"".join(asked) + b"GET /half")
    client.writer.write_eof()
    assert [(await client.response()).status for _ in range(5)] == [200] * 5
    assert await client.ends() == "eof"
    assert [request.target for request in endpoint.received] == [b"/0", b"/1", b"/2", b"/3", b"/4"]


async def test_a_request_is_replayed_no_more_than_once(rig):
    async def script(peer, endpoint):
        endpoint.received.append(await peer.request())
        if len(endpoint.received) == 1:
            await peer.send(rig.OK)
            endpoint.received.append(await peer.request())

    endpoint = await rig.endpoint(script)
    await rig.serve(endpoint)
    client = await rig.client()
    assert (await client.ask()).status == 200
    assert (await client.ask("/again")).status == 502
    assert len(endpoint.received) == 3
    assert rig.outcomes() == {"success": 1, "upstream_reset": 1}


async def test_a_request_on_a_new_connection_is_not_replayed(rig):
    async def script(peer, endpoint):
        endpoint.received.append(await peer.request())

    endpoint = await rig.endpoint(script)
    await rig.serve(endpoint)
    assert (await rig.ask()).status == 502
    assert len(endpoint.received) == 1


async def test_a_request_of_which_an_answer_has_begun_is_not_replayed(rig):
    async def script(peer, endpoint):
        endpoint.received.append(await peer.request())
        if endpoint.connections == 1 and len(endpoint.received) == 1:
            await peer.send(rig.OK)
            endpoint.received.append(await peer.request())
            await peer.send(b"HTTP/1.1 200")

    endpoint = await rig.endpoint(script)
    await rig.serve(endpoint)
    client = await rig.client()
    assert (await client.ask()).status == 200
    assert (await client.ask()).status == 502
    assert len(endpoint.received) == 2
