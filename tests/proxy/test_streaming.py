"""Bodies on their way: nothing is held back, nothing is piled up, nothing is changed."""

import asyncio
import contextlib
import resource
import socket

import pytest
from hypothesis import given, settings, strategies as st

pytestmark = pytest.mark.on_loop("uvloop", "asyncio")
MEBIBYTE = 1 << 20
SIZES = st.lists(st.integers(1, 700), min_size=1, max_size=12)
POST = b"POST / HTTP/1.1\r\nHost: kit.test\r\n"


async def test_the_first_byte_of_an_answer_is_relayed_before_the_last_is_sent(rig):
    seen = asyncio.Event()

    async def script(peer, endpoint):
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na")
        await seen.wait()
        await peer.send(b"b")

    await rig.serve(await rig.endpoint(script))
    client = await rig.client()
    await client.send(b"GET / HTTP/1.1\r\nHost: kit.test\r\n\r\n")
    await client.reader.readuntil(b"\r\n\r\na")
    seen.set()
    assert await client.reader.readexactly(1) == b"b"


async def test_the_first_chunk_of_an_answer_is_relayed_before_the_next_is_sent(rig):
    seen = asyncio.Event()

    async def script(peer, endpoint):
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        await seen.wait()
        await peer.send(b"1\r\nb\r\n0\r\n\r\n")

    await rig.serve(await rig.endpoint(script))
    client = await rig.client()
    await client.send(b"GET / HTTP/1.1\r\nHost: kit.test\r\n\r\n")
    await client.reader.readuntil(b"\r\n\r\n1\r\na\r\n")
    seen.set()
    assert await client.reader.readexactly(11) == b"1\r\nb\r\n0\r\n\r\n"


@pytest.mark.parametrize("framing", [b"Content-Length: 2\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n"])
async def test_the_first_byte_of_a_request_body_is_relayed_before_the_last_is_sent(rig, framing):
    seen = asyncio.Event()

    async def script(peer, endpoint):
        await peer.reader.readuntil(b"a")
        seen.set()
        await peer.reader.readuntil(b"b")
        await peer.send(rig.OK)

    await rig.serve(await rig.endpoint(script))
    client = await rig.client()
    chunked = b"chunked" in framing
    await client.send(POST + framing + (b"1\r\na\r\n" if chunked else b"a"))
    await seen.wait()
    await client.send(b"1\r\nb\r\n0\r\n\r\n" if chunked else b"b")
    assert (await client.response()).status == 200


async def _flood(peer, sent):
    """Send for as long as the other side takes it; `sent` holds how much that was."""
    block = b"x" * 65_536
    while True:
        peer.writer.write(block)
        await peer.writer.drain()
        sent[0] += len(block)


async def _stalled(sent):
    """Wait until `sent` has stood still for a while; return it."""
    before = -1
    while sent[0] != before:
        before = sent[0]
        await asyncio.sleep(0.15)
    return before


def _buffered(transport):
    return transport.get_write_buffer_size()


async def test_a_client_that_does_not_read_makes_the_proxy_stop_reading_the_answer(rig):
    sent = [0]

    async def script(peer, endpoint):
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        await _flood(peer, sent)

    await rig.serve(await rig.endpoint(script))
    client = await rig.client(receive_buffer=65_536)
    client.writer.transport.pause_reading()
    await client.send(b"GET / HTTP/1.1\r\nHost: kit.test\r\n\r\n")
    await _stalled(sent)
    assert sent[0] > 0
    (downstream,) = rig.service.connections
    assert _buffered(downstream.transport) <= MEBIBYTE
    client.writer.transport.abort()


async def test_an_endpoint_that_does_not_read_makes_the_proxy_stop_reading_the_body(rig):
    sent, gone = [0], asyncio.Event()

    async def script(peer, endpoint):
        peer.reader._transport.pause_reading()
        await gone.wait()

    await rig.serve(await rig.endpoint(script))
    client = await rig.client()
    await client.send(POST + b"Content-Length: 1000000000\r\n\r\n")
    flood = asyncio.ensure_future(_flood(client, sent))
    await _stalled(sent)
    (downstream,) = rig.service.connections
    assert sent[0] > 0
    assert _buffered(downstream.exchange.connection.transport) <= MEBIBYTE
    flood.cancel()
    gone.set()
    client.writer.transport.abort()


async def test_a_client_that_pipelines_and_does_not_read_makes_the_proxy_stop_asking(rig):
    """Small answers, each complete at once: they must not pile up either."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 4096\r\n\r\n" + b"x" * 4096
    endpoint = await rig.endpoint(rig.answering(answer))
    await rig.serve(endpoint)
    client = await rig.client(receive_buffer=65_536)
    client.writer.transport.pause_reading()
    (downstream,) = await _connected(rig)
    _send_buffer(downstream, 4096)
    client.writer.write(b"GET / HTTP/1.1\r\nHost: kit.test\r\n\r\n" * 1000)
    before = -1
    while len(endpoint.received) != before:
        before = len(endpoint.received)
        await asyncio.sleep(0.2)
    buffered = _buffered(downstream.transport)
    client.writer.transport.abort()
    assert buffered <= MEBIBYTE, f"{buffered} bytes of answers wait for a client that does not read"


def _send_buffer(downstream, size):
    """Let the kernel hold little of what the proxy sends, so that the rest shows."""
    downstream.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)


async def _connected(rig):
    await rig.until(lambda: rig.service.connections)
    return rig.service.connections


async def test_a_slow_reader_leaves_no_endpoint_connection_that_is_not_read_from(rig):
    """The last bytes of an answer may be what fills the client's buffer: by then the connection is the pool's again."""
    size = 3 * MEBIBYTE
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size
    endpoint = await rig.endpoint(rig.answering(answer))
    await rig.serve(endpoint, timeouts={"responseHead": 3.0})
    for _ in range(4):
        client = await rig.client(receive_buffer=8_192)
        client.writer.transport.pause_reading()
        await client.send(b"GET / HTTP/1.1\r\nHost: kit.test\r\n\r\n")
        await rig.until(lambda: len(rig.service.connections) > 0)
        await asyncio.sleep(0.02)
        client.writer.transport.resume_reading()
        assert len((await client.response()).body) == size
        assert (await rig.ask("/next")).status == 200
        client.close()


@pytest.mark.parametrize("last", [200_000, 262_144, 300_000, 400_000])
async def test_an_answer_that_ends_as_the_client_stops_reading_frees_a_connection_that_works(rig, last):
    """An answer whose final read crosses the client's high-water mark, so that pausing and completing coincide."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % last + b"x" * last
    endpoint = await rig.endpoint(rig.answering(answer))
    await rig.serve(endpoint, timeouts={"responseHead": 2.0})
    client = await rig.client(receive_buffer=4_096)
    client.writer.transport.pause_reading()
    (downstream,) = await _connected(rig)
    _send_buffer(downstream, 4096)
    await client.send(b"GET /slow HTTP/1.1\r\nHost: kit.test\r\n\r\n")
    (known,) = rig.pool().endpoints.values()
    with contextlib.suppress(TimeoutError):  # a large one waits for the client: the next has a connection of its own
        async with asyncio.timeout(0.5):
            await rig.until(lambda: known.idle)
    response = await rig.ask("/next")
    assert (response.status, len(response.body)) == (200, last)
    client.writer.transport.abort()


async def test_a_large_body_passes_both_ways_without_being_held(rig):
    size = 24 * MEBIBYTE
    block = bytes(range(256)) * 256

    async def script(peer, endpoint):
        head = await peer.reader.readuntil(b"\r\n\r\n")
        assert b"Content-Length: %d" % size in head
        left = size
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        while left:
            data = await peer.reader.read(65_536)
            left -= len(data)
            await peer.send(data)

    await rig.serve(await rig.endpoint(script))
    client = await rig.client()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    async def send():
        await client.send(POST + b"Content-Length: %d\r\n\r\n" % size)
        for _ in range(size // len(block)):
            await client.send(block)

    sending = asyncio.ensure_future(send())
    await client.reader.readuntil(b"\r\n\r\n")
    got = 0
    while got < size:
        data = await client.reader.read(65_536)
        assert data == (block * 3)[got % 65_536 :][: len(data)]
        got += len(data)
    await sending
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < 16, f"{grown} MiB more memory for a body of 24 MiB"


async def test_a_body_arrives_as_it_was_sent_however_it_is_cut(rig):
    """Identity under any chunking, both ways: the endpoint sends back what it got, cut otherwise."""
    plans = []

    @settings(max_examples=40, deadline=None, database=None)
    @given(st.tuples(st.binary(max_size=2000), SIZES, SIZES, st.booleans(), st.booleans()))
    def collect(plan):
        plans.append(plan)

    collect()

    def chunks(body, sizes, framed):
        at, turn = 0, 0
        while at < len(body):
            piece = body[at : at + sizes[turn % len(sizes)]]
            yield b"%x\r\n%b\r\n" % (len(piece), piece) if framed else piece
            at, turn = at + len(piece), turn + 1
        if framed:
            yield b"0\r\n\r\n"

    async def script(peer, endpoint):
        while True:
            request = await peer.request()
            endpoint.received.append(request)
            _, _, sizes, _, framed = plans[int(request.target[1:])]
            await peer.send(b"HTTP/1.1 200 OK\r\n")
            await peer.send(
                b"Transfer-Encoding: chunked\r\n\r\n" if framed else b"Content-Length: %d\r\n\r\n" % len(request.body)
            )
            for piece in chunks(request.body, sizes, framed):
                await peer.send(piece)
                await asyncio.sleep(0)

    endpoint = await rig.endpoint(script)
    await rig.serve(endpoint)
    client = await rig.client()
    for number, (body, sizes, _, framed, _) in enumerate(plans):
        framing = b"Transfer-Encoding: chunked" if framed else b"Content-Length: %d" % len(body)
        await client.send(b"POST /%d HTTP/1.1\r\nHost: kit.test\r\n%b\r\n\r\n" % (number, framing))
        for piece in chunks(body, sizes, framed):
            await client.send(piece)
            await asyncio.sleep(0)
        response = await client.response()
        assert endpoint.received[-1].body == body
        assert response.body == body
    assert endpoint.connections == 1


async def test_trailers_of_a_request_reach_the_endpoint(rig):
    endpoint = await rig.endpoint()
    await rig.serve(endpoint)
    client = await rig.client()
    await client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n2;x=y\r\nab\r\n0\r\nX-Sum: 1\r\nHost: evil\r\n\r\n")
    assert (await client.response()).status == 200
    assert endpoint.received[0].body == b"ab"
    assert endpoint.received[0].trailers == [(b"X-Sum", b"1")], "and no field that must not be one (RFC 9110 §6.5.1)"


async def test_a_client_waits_for_100_continue_of_the_endpoint(rig):
    async def script(peer, endpoint):
        head = await peer.reader.readuntil(b"\r\n\r\n")
        assert b"\r\nExpect: 100-continue\r\n" in head
        await peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert await peer.reader.readexactly(2) == b"ab"
        await peer.send(rig.OK)

    await rig.serve(await rig.endpoint(script))
    client = await rig.client()
    await client.send(POST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    await client.send(b"ab")
    assert (await client.response()).status == 200


async def test_an_endpoint_may_refuse_instead_of_100(rig):
    answer = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"

    async def script(peer, endpoint):
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.send(answer)
        await peer.reader.read()

    await rig.serve(await rig.endpoint(script))
    client = await rig.client()
    await client.send(POST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    response = await client.response()
    assert (response.status, response.body) == (403, b"no")
    assert await client.ends() == "eof", "whether the body follows is not known, so nothing more can be read"


async def test_an_early_answer_is_relayed_at_once_and_ends_the_connection(rig):
    async def script(peer, endpoint):
        await peer.reader.readuntil(b"first")
        await peer.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
        await peer.reader.read()

    await rig.serve(await rig.endpoint(script))
    client = await rig.client()
    await client.send(POST + b"Content-Length: 1000000\r\n\r\nfirst")
    response = await client.response()
    assert (response.status, response.body) == (413, b"no")
    await client.send(b"x" * 100_000)
    assert await client.ends() == "eof"
    assert not any(known.idle for known in rig.pool().endpoints.values()), "the endpoint still expects a body"


async def test_what_a_client_asked_for_before_it_closed_its_side_is_answered(rig):
    answered = asyncio.Event()

    async def script(peer, endpoint):
        await peer.request()
        await answered.wait()
        await peer.send(rig.OK)

    await rig.serve(await rig.endpoint(script))
    client = await rig.client()
    await client.send(b"GET / HTTP/1.1\r\nHost: kit.test\r\n\r\n")
    client.writer.write_eof()
    await asyncio.sleep(0.05)
    answered.set()
    assert (await client.response()).body == b"ok"
    assert await client.ends() == "eof"


async def test_a_body_cut_short_by_its_client_is_refused_and_does_not_reach_the_end(rig):
    endpoint = await rig.endpoint()
    await rig.serve(endpoint)
    client = await rig.client()
    await client.send(POST + b"Content-Length: 10\r\n\r\nhalf")
    client.writer.write_eof()
    assert (await client.response()).status == 400
    await rig.until(rig.at_rest)
    assert endpoint.received == []


async def test_a_client_that_leaves_is_499_and_its_endpoint_connection_is_closed(rig):
    asked, closed = asyncio.Event(), asyncio.Event()

    async def script(peer, endpoint):
        await peer.request()
        asked.set()
        with contextlib.suppress(ConnectionError):
            assert await peer.reader.read() == b""
        closed.set()

    await rig.serve(await rig.endpoint(script))
    client = await rig.client()
    await client.send(b"GET / HTTP/1.1\r\nHost: kit.test\r\n\r\n")
    await asked.wait()
    client.reset()
    await closed.wait()
    await rig.until(rig.at_rest)
    assert rig.codes(upstream="a") == {"499": 1}
    assert rig.outcomes(upstream="a") == {"client_gone": 1}
    (line,) = rig.log()
    assert (line["status"], line["error"], line["upstream"]) == (499, "client_gone", "a")


@pytest.mark.parametrize("early", [b"", b"GET /next HT"])
async def test_a_client_that_read_late_goes_on_with_its_connection(rig, early):
    """Its answer was complete while it did not read; what it asks next, begun before or after, must still be read."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + b"x" * 300_000
    await rig.serve(await rig.endpoint(rig.answering(answer)))
    client = await rig.client(receive_buffer=4096)
    client.writer.transport.pause_reading()
    (downstream,) = await _connected(rig)
    _send_buffer(downstream, 4096)
    await client.send(b"GET / HTTP/1.1\r\nHost: kit.test\r\n\r\n" + early)
    await rig.until(lambda: rig.codes() == {"200": 1})
    client.writer.transport.resume_reading()
    assert len((await client.response()).body) == 300_000
    await client.send(b"GET /next HTTP/1.1\r\nHost: kit.test\r\n\r\n"[len(early) :])
    async with asyncio.timeout(2):
        assert len((await client.response()).body) == 300_000
