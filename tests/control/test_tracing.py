"""Spans on their way to a receiver: as the protocol's own definitions have them, and never in anybody's way."""

import asyncio
import base64
import http.server
import json
import logging
import os
import socket
import threading
from contextlib import asynccontextmanager

import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Wanted, Status

from splitproxy.control import otlp, outbound, tracing
from splitproxy.control.exemplars import Exemplars
from splitproxy.control.tracing import MOST_QUEUED, TRIES, Tracing
from splitproxy.core.stats import SERIES
from splitproxy.core.tracing import Call, Span, pack

CALL = Call(
    span=b"c" * 16,
    start=2_000_000_000,
    end=3_000_000_000,
    upstream="shop-v1",
    role="primary",
    endpoint=b"[::1]:9001",
    scheme="https",
    path=b"/rewritten",
    query=b"a=REDACTED",
    status=200,
    error="",
    resends=1,
)
FAILED = CALL._replace(span=b"d" * 16, endpoint=b"", status=0, error="connect_failed", resends=0, upstream="shop-v2")
SPAN = Span(
    trace=b"a" * 32,
    span=b"b" * 16,
    parent=b"e" * 16,
    state=b"vendor=1",
    flags=1,
    start=1_000_000_000,
    end=4_000_000_000,
    request_id=b"id",
    method=b"GET",
    scheme=b"http",
    authority=b"shop.example.com:8080",
    path=b"/caf\xc3\xa9/\xff",
    query=b"a=REDACTED",
    minor=1,
    client=b"192.0.2.7",
    agent=b"curl",
    status=200,
    error="",
    route="shop",
    rule="0",
    upstream="shop-v1",
    role="primary",
    reason="failover",
    rollout="shop",
    calls=(FAILED, CALL),
)


def decoded(body):
    """Return a body as the official definitions have it. OTLP's JSON has ids in hexadecimal, protobuf's in base64."""
    document = json.loads(body)
    for resource in document["resourceSpans"]:
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                for key in {"traceId", "spanId", "parentSpanId"} & span.keys():
                    span[key] = base64.b64encode(bytes.fromhex(span[key])).decode()
    return json_format.ParseDict(document, ExportTraceServiceRequest())


def attributes(item):
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in item.attributes}


def spans_of(body):
    (resource,) = decoded(body).resource_spans
    (scope,) = resource.scope_spans
    return list(scope.spans)


# --- what a payload says ---------------------------------------------------------------------------------------------
def test_a_request_and_its_attempts_are_spans():
    (resource,) = decoded(otlp.payload([SPAN], {"service.name": "proxy", "zone": "a"})).resource_spans
    assert attributes(resource.resource) == {"service.name": "proxy", "zone": "a"}
    (scope,) = resource.scope_spans
    assert scope.scope.name == "splitproxy"
    server, failed, client = scope.spans
    assert {span.trace_id for span in scope.spans} == {b"\xaa" * 16}
    assert (server.span_id, server.parent_span_id, server.kind) == (b"\xbb" * 8, b"\xee" * 8, Wanted.SPAN_KIND_SERVER)
    assert (client.span_id, client.parent_span_id, client.kind) == (b"\xcc" * 8, b"\xbb" * 8, Wanted.SPAN_KIND_CLIENT)
    assert {span.trace_state for span in scope.spans} == {"vendor=1"}
    assert (server.name, client.name) == ("GET shop", "GET")
    assert (server.start_time_unix_nano, server.end_time_unix_nano) == (SPAN.start, SPAN.end)
    assert (server.flags, client.flags) == (0x301, 0x101), "the parent is elsewhere, and is not"
    assert [span.status.code for span in scope.spans] == [
        *(Status.STATUS_CODE_UNSET, Status.STATUS_CODE_ERROR, Status.STATUS_CODE_UNSET),
    ]
    assert failed.parent_span_id == server.span_id


def test_attributes_have_the_names_of_the_semantic_conventions():
    server, failed, client = spans_of(otlp.payload([SPAN], {}))
    assert attributes(server) == {
        "http.request.method": "GET",
        "url.scheme": "http",
        "url.path": "/café/\ufffd",
        "url.query": "a=REDACTED",
        "http.route": "shop",
        "http.response.status_code": 200,
        "server.address": "shop.example.com",
        "server.port": 8080,
        "client.address": "192.0.2.7",
        "network.protocol.name": "http",
        "network.protocol.version": "1.1",
        "user_agent.original": "curl",
        "splitproxy.rule": "0",
        "splitproxy.upstream": "shop-v1",
        "splitproxy.role": "primary",
        "splitproxy.reason": "failover",
        "splitproxy.rollout": "shop",
        "splitproxy.request_id": "id",
    }
    assert attributes(client) == {
        "http.request.method": "GET",
        "url.full": "https://[::1]:9001/rewritten?a=REDACTED",
        "server.address": "::1",
        "server.port": 9001,
        "http.response.status_code": 200,
        "http.request.resend_count": 1,
        "network.protocol.name": "http",
        "network.protocol.version": "1.1",
        "splitproxy.upstream": "shop-v1",
        "splitproxy.role": "primary",
    }
    assert {key: attributes(failed)[key] for key in ("server.address", "error.type", "url.full")} == {
        "server.address": "shop-v2",
        "error.type": "connect_failed",
        "url.full": "https://shop-v2/rewritten?a=REDACTED",
    }


@pytest.mark.parametrize(
    ("changes", "error", "failed"),
    [
        ({"status": 404, "error": "no_route", "upstream": ""}, None, False),
        ({"status": 404}, None, False),
        ({"status": 404, "error": "upstream_reset"}, "upstream_reset", True),
        ({"status": 500}, "500", True),
        ({"status": 504, "error": "upstream_timeout"}, "upstream_timeout", True),
        ({"status": 200, "error": "upstream_reset"}, "upstream_reset", True),
        ({"status": 499, "error": "client_gone"}, "client_gone", False),
    ],
)
def test_what_counts_as_an_error(changes, error, failed):
    server = spans_of(otlp.payload([SPAN._replace(**changes, calls=())], {}))[0]
    assert attributes(server).get("error.type") == error
    assert (server.status.code == Status.STATUS_CODE_ERROR) == failed


def test_a_method_of_ones_own_makes_no_name():
    server = spans_of(otlp.payload([SPAN._replace(method=b"M-SEARCH")], {}))[0]
    said = attributes(server)
    assert (server.name, said["http.request.method"], said["http.request.method_original"]) == (
        *("HTTP shop", "_OTHER"),
        "M-SEARCH",
    )


@pytest.mark.parametrize(
    ("scheme", "authority", "address", "port"),
    [
        (b"http", b"shop", "shop", 80),
        (b"https", b"shop", "shop", 443),
        (b"http", b"[2001:db8::1]", "2001:db8::1", 80),
        (b"http", b"[2001:db8::1]:81", "2001:db8::1", 81),
        (b"http", b"", None, None),
    ],
)
def test_the_server_is_whom_the_client_asked(scheme, authority, address, port):
    said = attributes(spans_of(otlp.payload([SPAN._replace(scheme=scheme, authority=authority)], {}))[0])
    assert (said.get("server.address"), said.get("server.port")) == (address, port)


# --- to a receiver ---------------------------------------------------------------------------------------------------
class Receiver(http.server.ThreadingHTTPServer):
    """Takes spans: answers with `answers` in turn, then 200, and keeps what came."""

    daemon_threads = True

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, answer = self.server.answers.pop(0) if self.server.answers else (200, b"{}")
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)
            self.server.came.append((self.path, dict(self.headers), body))

        def log_message(self, *_):
            pass

    def __init__(self, *answers):
        self.answers, self.came = list(answers), []
        super().__init__(("127.0.0.1", 0), self.Handler)
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def spans(self):
        return [span for _, _, body in self.came for span in spans_of(body)]


@pytest.fixture
def receiver():
    receiver = Receiver()
    yield receiver
    receiver.shutdown()
    receiver.server_close()


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """Neither gather nor wait."""
    monkeypatch.setattr(tracing, "GATHER", 0.0)
    monkeypatch.setattr(outbound, "wait", lambda _attempt, _reply: 0.0)


def plan(port, **changes):
    return {
        "endpoint": f"http://127.0.0.1:{port}/v1/traces",
        "headers": {"Authorization": "Bearer s3cret"},
        "timeout": 5.0,
        "serviceName": "proxy",
        "resource": {"zone": "a"},
        **changes,
    }


class Worker:
    """A worker's end of the way of its spans."""

    def send(self, message, descriptors):
        assert message == {"type": "spans"}
        self.sock = socket.socket(fileno=os.dup(descriptors[0]))
        return True


@asynccontextmanager
async def exporting(port, **changes):
    traces, worker = Tracing(Exemplars()), Worker()
    traces.use(plan(port, **changes))
    traces.join(worker)
    try:
        async with asyncio.timeout(20):
            yield traces, worker.sock
    finally:
        await traces.close()
        worker.sock.close()


async def until(condition):
    while not condition():  # noqa: ASYNC110 - a thread and a socket tell nobody
        await asyncio.sleep(0.005)


async def test_spans_of_a_worker_reach_the_receiver(receiver):
    async with exporting(receiver.server_port) as (traces, worker):
        worker.send(pack([SPAN]))
        await until(lambda: traces.counts["exported"])
        ((path, headers, body),) = receiver.came
        assert path == "/v1/traces"
        sent = {name.lower(): value for name, value in headers.items()}
        assert (sent["content-type"], sent["authorization"]) == ("application/json", "Bearer s3cret")
        (resource,) = decoded(body).resource_spans
        described = attributes(resource.resource)
        assert (described["service.name"], described["zone"]) == ("proxy", "a")
        assert traces.counts == {"exported": 3, "rejected": 0, "failed": 0, "dropped": 0}


async def test_a_request_that_was_recorded_is_an_exemplar(receiver):
    async with exporting(receiver.server_port) as (traces, worker):
        worker.send(pack([SPAN]))
        await until(lambda: traces.counts["exported"])
        found = traces._exemplars.of((SERIES, "shop", "0", "shop-v1", "primary"))
        assert found.codes["200"] == ("a" * 32, 3.0, 4.0)


@pytest.mark.parametrize("answer", [(503, b"busy"), (429, b""), (502, b""), (504, b"")])
async def test_what_a_receiver_cannot_take_now_is_sent_again(receiver, answer):
    receiver.answers += [answer] * (TRIES - 1)
    async with exporting(receiver.server_port) as (traces, worker):
        worker.send(pack([SPAN]))
        await until(lambda: traces.counts["exported"])
        assert len({body for _, _, body in receiver.came}) == 1
        assert len(receiver.came) == TRIES


@pytest.mark.parametrize("answer", [(400, b"no"), (401, b""), (404, b""), (500, b""), (302, b"")])
async def test_what_it_refuses_is_not(receiver, answer, caplog):
    receiver.answers += [answer]
    async with exporting(receiver.server_port) as (traces, worker):
        worker.send(pack([SPAN]))
        await until(lambda: traces.counts["rejected"])
        worker.send(pack([SPAN._replace(calls=())]))
        await until(lambda: traces.counts["exported"])
        assert traces.counts == {"exported": 1, "rejected": 3, "failed": 0, "dropped": 0}
    assert [record.levelname for record in caplog.records if record.name.endswith("tracing")] == ["WARNING"]
    assert f"HTTP {answer[0]}" in caplog.text
    assert "s3cret" not in caplog.text


async def test_a_receiver_may_take_some(receiver):
    said = {"partialSuccess": {"rejectedSpans": "2", "errorMessage": "too old"}}
    receiver.answers.append((200, json.dumps(said).encode()))
    async with exporting(receiver.server_port) as (traces, worker):
        worker.send(pack([SPAN]))
        await until(lambda: traces.counts["rejected"])
        assert traces.counts == {"exported": 1, "rejected": 2, "failed": 0, "dropped": 0}


@pytest.mark.parametrize(
    "body", ["", "{}", "[]", "null", '{"partialSuccess": null}', '{"partialSuccess": {"rejectedSpans": "x"}}', "\x80"]
)
def test_whatever_it_answers_is_understood(body):
    assert otlp.rejected(body) == (0, "")


async def test_without_a_receiver_spans_are_given_up_and_that_is_said_once(caplog):
    caplog.set_level(logging.INFO)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        async with exporting(port) as (traces, worker):
            for count in (1, 2):
                worker.send(pack([SPAN]))
                await until(lambda count=count: traces.counts["failed"] == 3 * count)
            said = [record.getMessage() for record in caplog.records if record.name.endswith("tracing")]
            (line,) = said
            assert line.startswith(f"spans do not reach http://127.0.0.1:{port}/v1/traces: cannot connect")
            again = Receiver()
            traces.use(plan(again.server_port))
            worker.send(pack([SPAN]))
            await until(lambda: traces.counts["exported"])
            assert "reach" in caplog.records[-1].getMessage()
            assert caplog.records[-1].levelname == "INFO"
            again.shutdown()
            again.server_close()


async def test_a_full_queue_drops_what_comes(receiver, monkeypatch):
    monkeypatch.setattr(tracing, "GATHER", 60.0)
    async with exporting(receiver.server_port) as (traces, worker):
        traces._task.cancel()  # a receiver that takes for ever
        one = SPAN._replace(calls=())
        for sent in range(0, MOST_QUEUED + 64, 32):
            worker.send(pack([one] * 32))
            await until(lambda sent=sent: len(traces._queue) + traces.counts["dropped"] == sent + 32)
        assert (len(traces._queue), traces.counts["dropped"]) == (MOST_QUEUED, 64)
        traces.use(None)
        assert not traces._queue


async def test_nothing_is_kept_where_nothing_is_traced_any_more(receiver):
    async with exporting(receiver.server_port) as (traces, worker):
        traces.use(None)
        worker.send(pack([SPAN]))
        worker.close()
        await until(lambda: not traces._sources)
        assert not traces._queue
    assert receiver.came == []


async def test_at_the_end_what_there_is_is_sent(receiver, monkeypatch):
    monkeypatch.setattr(tracing, "GATHER", 60.0)
    async with exporting(receiver.server_port) as (_, worker):
        worker.send(pack([SPAN]))
    assert len(receiver.spans) == 3


async def test_a_batch_that_is_under_way_at_the_end_is_sent_again(receiver, monkeypatch):
    receiver.answers.append((503, b""))
    async with exporting(receiver.server_port) as (traces, worker):
        monkeypatch.setattr(outbound, "wait", lambda _attempt, _reply: 60.0)
        worker.send(pack([SPAN]))
        await until(lambda: receiver.came)
        await until(lambda: not traces._queue)
    assert [len(spans_of(body)) for _, _, body in receiver.came] == [3, 3]
