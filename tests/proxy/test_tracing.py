"""Traces through a worker: what upstreams are told, what is recorded, and that nothing shows where nobody traces."""

import asyncio
import contextlib
import re
import socket
from functools import partial

import pytest

from splitproxy.core import stats
from splitproxy.core.tracing import LONGEST, parse_parent, unpack
from splitproxy.proxy.exchange import Exchange
from splitproxy.proxy.spans import MOST_WAITING
from splitproxy.proxy.tracing import TracedExchange

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
THEIRS = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "vendor=1"}
UNRECORDED = {"traceparent": f"00-{TRACE}-{SPAN}-00", "tracestate": "vendor=1"}
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nDate: now\r\n\r\nok"
BROKEN = b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n"


def tracing(sampler="always_on", ratio=1.0, query="names"):
    return {"sampler": sampler, "ratio": ratio, "query": query}


def recorded(rig):
    """Return the spans that the worker has handed over by now, and would now."""
    if not hasattr(rig, "control"):
        rig.control, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        rig.control.setblocking(False)
        rig.service.spans.attach(ours.detach())
    spans = []
    with contextlib.suppress(BlockingIOError):
        while True:
            rig.service.spans.flush()
            spans += unpack(rig.control.recv(1 << 20))
    return spans


@pytest.fixture(autouse=True)
def closed(rig):
    yield
    if rig.service is not None:
        rig.service.spans.close()
    if hasattr(rig, "control"):
        rig.control.close()


def told(message):
    """Return the one context that an upstream was told."""
    (value,) = message.all(b"traceparent")
    return parse_parent(value)


# --- where nobody traces ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("fields", [{}, THEIRS, {"traceparent": "nonsense", "tracestate": "x=y"}])
async def test_without_tracing_the_context_passes_untouched(rig, fields):
    endpoint = await rig.endpoint()
    await rig.serve(endpoint)
    await rig.ask(**fields)
    (request,) = endpoint.received
    assert {name: request.get(name.encode()) for name in fields} == {k: v.encode() for k, v in fields.items()}
    assert (b"traceparent" in request.names) == bool(fields)
    assert recorded(rig) == []
    assert "traceId" not in rig.log()[0]


async def test_without_tracing_no_exchange_knows_of_it(rig):
    await rig.serve(await rig.endpoint(OK))
    client = await rig.client()
    assert [(await client.ask(**THEIRS)).status for _ in range(3)] == [200] * 3
    (exchange,) = rig.service.spares
    assert type(exchange) is Exchange


# --- what is recorded ------------------------------------------------------------------------------------------------
async def test_a_trace_begins_here(rig):
    endpoint = await rig.endpoint(OK)
    await rig.serve(endpoint, tracing=tracing())
    response = await rig.ask("/a/b?token=x&page=2", user_agent="test")
    assert response.status == 200
    (span,), (request,) = recorded(rig), endpoint.received
    (call,) = span.calls
    context = told(request)
    assert (context.trace, context.span, context.flags) == (span.trace, call.span, 1)
    assert re.fullmatch(rb"[0-9a-f]{32}", span.trace)
    assert len({span.span, call.span}) == 2
    assert span.start <= call.start <= call.end <= span.end
    assert span._replace(trace=b"", span=b"", start=0, end=0, calls=()) == span._replace(
        trace=b"",
        span=b"",
        parent=b"",
        state=b"",
        flags=1,
        start=0,
        end=0,
        request_id=request.get(b"x-request-id"),
        method=b"GET",
        scheme=b"http",
        authority=b"kit.test",
        path=b"/a/b",
        query=b"token=REDACTED&page=REDACTED",
        minor=1,
        client=b"127.0.0.1",
        agent=b"test",
        status=200,
        error="",
        route="shop",
        rule="0",
        upstream="a",
        role="primary",
        reason="match",
        rollout="",
        calls=(),
    )
    assert call[3:] == (
        *("a", "primary", b"127.0.0.1:%d" % endpoint.port, "http", b"/a/b", span.query),
        *(200, "", 0),
    )
    (line,) = rig.log()
    assert (line["traceId"], line["spanId"]) == (span.trace.decode(), span.span.decode())


async def test_a_clients_trace_goes_on(rig):
    endpoint = await rig.endpoint(OK)
    await rig.serve(endpoint, tracing=tracing("parentbased_always_off"))
    await rig.ask(**THEIRS)
    (span,), (request,) = recorded(rig), endpoint.received
    assert (span.trace, span.parent, span.state) == (TRACE.encode(), SPAN.encode(), b"vendor=1")
    assert told(request)[:2] == (span.trace, span.calls[0].span)
    assert request.all(b"tracestate") == [b"vendor=1"], "not ours to change"


@pytest.mark.parametrize(
    "fields",
    [
        {"traceparent": "00-zz", "tracestate": "vendor=1"},
        {"tracestate": "vendor=1"},
        {"traceparent": THEIRS["traceparent"], "Traceparent": THEIRS["traceparent"], "tracestate": "vendor=1"},
    ],
)
@pytest.mark.parametrize("sampler", ["parentbased_always_on", "parentbased_always_off"])
async def test_what_is_no_context_is_left_out(rig, fields, sampler):
    endpoint = await rig.endpoint(OK)
    await rig.serve(endpoint, tracing=tracing(sampler))
    await rig.ask(**fields)
    (request,) = endpoint.received
    context = told(request)
    assert context.trace != TRACE.encode()
    assert context.sampled == (sampler == "parentbased_always_on")
    assert request.all(b"tracestate") == []
    assert [span.parent for span in recorded(rig)] == [b""] * context.sampled


# --- what is not -----------------------------------------------------------------------------------------------------
async def test_upstreams_are_told_that_nobody_records(rig):
    endpoint = await rig.endpoint(OK)
    await rig.serve(endpoint, tracing=tracing("parentbased_always_off"))
    client = await rig.client()
    for _ in range(3):
        await client.ask()
    contexts = [told(request) for request in endpoint.received]
    assert len({context.trace for context in contexts}) == 3
    assert not any(context.sampled for context in contexts)
    assert recorded(rig) == []
    assert [line["traceId"] for line in rig.log()] == [context.trace.decode() for context in contexts]
    assert {line["spanId"] for line in rig.log()} == {None}
    (exchange,) = rig.service.spares
    assert type(exchange) is TracedExchange, "one serves them all"


async def test_the_context_of_a_client_that_does_not_record_passes_untouched(rig):
    endpoint = await rig.endpoint(OK)
    await rig.serve(endpoint, tracing=tracing("parentbased_always_on"))
    await rig.ask(**UNRECORDED)
    (request,) = endpoint.received
    assert request.all(b"traceparent") == [UNRECORDED["traceparent"].encode()]
    assert request.all(b"tracestate") == [b"vendor=1"]
    assert recorded(rig) == []
    assert rig.log()[0]["traceId"] == TRACE


async def test_a_client_cannot_have_itself_recorded_where_its_word_is_not_taken(rig):
    endpoint = await rig.endpoint(OK)
    await rig.serve(endpoint, tracing=tracing("traceidratio", 0.0))
    await rig.ask(**THEIRS)
    context = told(endpoint.received[0])
    assert (context.trace, context.flags) == (TRACE.encode(), 0)
    assert context.span != SPAN.encode()
    assert recorded(rig) == []


async def test_a_share_is_recorded(rig):
    endpoint = await rig.endpoint(OK)
    await rig.serve(endpoint, tracing=tracing("parentbased_traceidratio", 0.5))
    client = await rig.client()
    for _ in range(200):
        await client.ask()
    spans = recorded(rig)
    assert 50 < len(spans) < 150, "half of 200 within 7 standard deviations"
    contexts = [told(request) for request in endpoint.received]
    assert [context.trace for context in contexts if context.sampled] == [span.trace for span in spans]
    assert all((int(context.trace[16:], 16) < 2**63) == context.sampled for context in contexts)


# --- more than one attempt, or none ----------------------------------------------------------------------------------
def failing_over(**more):
    override = {"header": "x-to", "value": "b", "upstream": "b"}
    refs = [{"name": name, "weight": weight, "filters": []} for name, weight in (("a", 1), ("b", 0))]
    refs[1]["filters"] = more.pop("canary", [])
    return [{"backendRefs": refs, "split": {"key": None, "overrides": [override], "failover": True}, **more}]


async def test_each_attempt_is_a_span_that_the_upstream_is_told(rig):
    primary, canary = await rig.endpoint(OK), await rig.endpoint(BROKEN)
    await rig.serve(primary, canary, rules=failing_over(), tracing=tracing())
    response = await rig.ask(x_to="b")
    assert response.status == 200
    (span,) = recorded(rig)
    first, second = span.calls
    assert (first.upstream, first.role, first.status, first.error, first.resends) == ("b", "canary", 500, "500", 0)
    assert (second.upstream, second.role, second.status, second.error, second.resends) == ("a", "primary", 200, "", 1)
    assert (span.upstream, span.role, span.reason, span.status) == ("a", "primary", "failover", 200)
    assert [told(request).span for request in (canary.received[0], primary.received[0])] == [first.span, second.span]
    assert span.start <= first.start <= first.end <= second.start <= second.end <= span.end


async def test_an_attempt_that_fails_at_once_leaves_one_context(rig):
    abort = {"type": "Fault", "fault": {"delay": None, "abort": {"status": 503, "percent": 100}}}
    primary, canary = await rig.endpoint(OK), await rig.endpoint(OK)
    await rig.serve(primary, canary, rules=failing_over(canary=[abort]), tracing=tracing())
    assert (await rig.ask(x_to="b")).status == 200
    (span,) = recorded(rig)
    assert [call.error for call in span.calls] == ["5xx", ""]
    assert told(primary.received[0]).span == span.calls[1].span


async def test_a_fault_that_looks_like_the_upstreams_is_told_as_its_own(rig):
    abort = {"type": "Fault", "fault": {"delay": None, "abort": {"status": 503, "percent": 100}}}
    refs = [{"name": "a", "weight": 1, "filters": [abort]}]
    await rig.serve(await rig.endpoint(OK), rules=[{"backendRefs": refs}], tracing=tracing())
    assert (await rig.ask()).status == 503
    (span,) = recorded(rig)
    assert (span.status, span.error, [call.error for call in span.calls]) == (
        *(503, "injected_fault"),
        ["injected_fault"],
    )


async def test_an_unrecorded_request_is_told_of_in_every_attempt(rig):
    primary, canary = await rig.endpoint(OK), await rig.endpoint(BROKEN)
    await rig.serve(primary, canary, rules=failing_over(), tracing=tracing("always_off"))
    await rig.ask(x_to="b")
    first, second = told(canary.received[0]), told(primary.received[0])
    assert first == second
    assert not first.sampled


async def test_filters_and_mirrors_see_one_context(rig):
    mirror = {
        "type": "RequestMirror",
        "requestMirror": {
            "backendRef": {"name": "b"},
            "percent": 100,
            "maxBodyBytes": 1024,
            "maxInFlight": 8,
            "timeout": 5.0,
            "methods": "all",
        },
    }
    endpoint, copied = await rig.endpoint(OK), await rig.endpoint(OK)
    await rig.serve(endpoint, copied, rules=[{"filters": [mirror]}], tracing=tracing())
    await rig.ask(**THEIRS)
    await rig.until(lambda: copied.received)
    assert told(endpoint.received[0]) == told(copied.received[0])
    assert told(endpoint.received[0]).trace == TRACE.encode()


async def test_a_rule_that_a_rollout_owns_says_whose_it_is(rig):
    bounds = {"maxBodyBytes": 1024, "maxInFlight": 8, "timeout": 5.0, "allMethods": False}
    owner = {"name": "release", "live": "key", "primary": "a", "canary": "b", "cohorts": [], "affinity": None}
    refs = [{"name": name, "weight": weight, "filters": []} for name, weight in (("a", 1), ("b", 0))]
    rules = [{"backendRefs": refs, "rollout": {**owner, "mirror": bounds}}]
    await rig.serve(await rig.endpoint(OK), await rig.endpoint(OK), rules=rules, tracing=tracing())
    await rig.ask()
    (span,) = recorded(rig)
    assert (span.rollout, span.upstream, span.role, span.reason) == ("release", "a", "primary", "match")


async def test_what_nobody_was_asked_for_has_no_call(rig):
    await rig.serve(await rig.endpoint(), hostnames=["other.test"], tracing=tracing())
    await rig.ask()
    (span,) = recorded(rig)
    assert (span.status, span.error, span.route, span.upstream, span.role) == (404, "no_route", "", "", "none")
    assert span.calls == ()


async def test_a_connection_that_cannot_be_made(rig):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{sock.getsockname()[1]}"
    await rig.serve(nobody, tracing=tracing())
    await rig.ask()
    (span,) = recorded(rig)
    (call,) = span.calls
    assert (span.status, span.error) == (502, "connect_failed")
    assert (call.error, call.status, call.endpoint, call.upstream) == ("connect_failed", 0, b"", "a")


async def test_a_replay_is_no_attempt_of_its_own(rig):
    async def script(peer, endpoint):
        endpoint.received.append(await peer.request())
        await peer.send(OK)
        if endpoint.connections == 1:
            endpoint.received.append(await peer.request())
            peer.reset()

    endpoint = await rig.endpoint(script)
    await rig.serve(endpoint, tracing=tracing())
    client = await rig.client()
    assert [(await client.ask()).status for _ in range(2)] == [200, 200]
    spans = recorded(rig)
    assert [[(call.status, call.error) for call in span.calls] for span in spans] == [[(200, "")], [(200, "")]]
    assert told(endpoint.received[1]) == told(endpoint.received[2])


async def test_a_client_that_leaves(rig):
    async def silent(peer, endpoint):
        endpoint.received.append(await peer.request())
        await peer.reader.read()

    endpoint = await rig.endpoint(silent)
    await rig.serve(endpoint, tracing=tracing())
    client = await rig.client()
    await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await rig.until(lambda: endpoint.received)
    client.reset()
    spans = []
    await rig.until(lambda: spans.extend(recorded(rig)) or spans)
    assert (spans[0].status, spans[0].error, [call.error for call in spans[0].calls]) == (
        *(499, "client_gone"),
        ["client_gone"],
    )


async def test_bodies_and_streams_are_recorded_to_their_end(rig):
    async def stream(peer, endpoint):
        endpoint.received.append(await peer.request())
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        await endpoint.go_on.wait()
        await peer.send(b"0\r\n\r\n")

    endpoint = await rig.endpoint(stream)
    endpoint.go_on = asyncio.Event()
    await rig.serve(endpoint, tracing=tracing())
    client = await rig.client()
    asking = asyncio.create_task(client.ask("/", "POST", body=b"x" * 1000))
    await rig.until(lambda: endpoint.received)
    assert recorded(rig) == []
    endpoint.go_on.set()
    assert (await asking).body == b"a"
    (span,) = recorded(rig)
    assert (span.method, span.status, len(span.calls)) == (b"POST", 200, 1)


async def test_over_tls_it_is_the_same(rig, authority):
    endpoint = await rig.endpoint(OK)
    listener = {"tls": authority.listener(["kit.test"])}
    await rig.serve(endpoint, listener=listener, tracing=tracing())
    await rig.ask(connection={"tls": authority.client(), "name": "kit.test"}, **THEIRS)
    (span,) = recorded(rig)
    assert (span.scheme, span.trace, span.status) == (b"https", TRACE.encode(), 200)
    assert told(endpoint.received[0]).span == span.calls[0].span
    assert b"proto: https" in endpoint.received[0].raw.lower()


# --- bounds ----------------------------------------------------------------------------------------------------------
async def test_texts_of_any_length_are_cut(rig):
    await rig.serve(await rig.endpoint(OK), tracing=tracing(query="full"))
    await rig.ask("/" + "p" * 3000 + "?" + "q" * 3000, user_agent="u" * 3000)
    (span,) = recorded(rig)
    assert {len(text) for text in (span.path, span.query, span.agent, span.calls[0].path)} == {LONGEST}


async def test_what_control_does_not_take_is_dropped_and_counted(rig):
    await rig.serve(await rig.endpoint(OK), tracing=tracing())
    client = await rig.client()
    await client.ask()
    (span,) = recorded(rig)
    for _ in range(MOST_WAITING + 5):
        rig.service.spans.take(span)
    assert rig.service.cells[stats.SPAN_DROPS] == 2 * 5, "a span each, and one of its attempt"
    assert len(recorded(rig)) == MOST_WAITING
    rig.control.close()
    rig.service.spans.take(span)
    rig.service.spans.flush()
    assert (await client.ask()).status == 200
    del rig.control
    assert len(recorded(rig)) == 2, "kept for the next control"


# --- reloads ---------------------------------------------------------------------------------------------------------
async def test_a_reload_turns_it_on_and_off_for_connections_that_stay(rig):
    endpoint = await rig.endpoint(OK)
    serve = partial(rig.serve, endpoint)
    await serve()
    client = await rig.client()
    for block in (None, tracing(), tracing("always_off"), None, tracing()):
        await serve(tracing=block)
        await client.ask(**THEIRS)
        await client.ask()
    asked = [request.all(b"traceparent") for request in endpoint.received]
    parsed = [(len(values), bool(values) and parse_parent(values[0]).sampled) for values in asked]
    untraced, all_of_them, none_of_them = [(1, True), (0, False)], [(1, True), (1, True)], [(1, False), (1, False)]
    assert parsed == [*untraced, *all_of_them, *none_of_them, *untraced, *all_of_them]
    assert asked[0] == asked[6] == [THEIRS["traceparent"].encode()]
    assert len(recorded(rig)) == 4


async def test_a_request_that_is_under_way_during_a_reload_ends_as_it_began(rig):
    waiting = asyncio.Event()

    async def script(peer, endpoint):
        while True:
            endpoint.received.append(await peer.request())
            await waiting.wait()
            await peer.send(OK)

    endpoint = await rig.endpoint(script)
    for before, after, count in ((tracing(), None, 1), (None, tracing(), 1)):
        waiting.clear()
        endpoint.received.clear()
        await rig.serve(endpoint, tracing=before)
        client = await rig.client()
        asking = asyncio.create_task(client.ask())
        await rig.until(lambda: endpoint.received)
        await rig.serve(endpoint, tracing=after)
        waiting.set()
        assert (await asking).status == 200
        assert (await client.ask()).status == 200
        assert len(recorded(rig)) == count
