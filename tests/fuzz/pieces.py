"""The proxy's own readers of bytes, without sockets: what they make of a stream, whole or in pieces.

`client_side` feeds a `Downstream`, `endpoint_side` a `Connection`. Both return a transcript, plain data that must be
the same however the stream was cut, and let every exception through that is not one of the documented errors.
"""

import asyncio
import itertools
import json
import re
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from splitproxy.core.chunked import ChunkedDecoder
from splitproxy.errors import ProxyError
from splitproxy.proxy.crowd import new_crowd
from splitproxy.proxy.downstream import Downstream
from splitproxy.proxy.upload import Upload
from splitproxy.proxy.upstream import Connection

CASES = Path(__file__).resolve().parent.parent / "proxy" / "cases"
LIMITS = SimpleNamespace(
    header_bytes=512,
    header_count=12,
    uri_bytes=64,
    body_bytes=0,
    header_timeout=10.0,
    body_idle_timeout=30.0,
    keep_alive_timeout=75.0,
)
"""Small, so that short streams reach them."""


class Wire(asyncio.Transport):
    """A transport that leads nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.closing = False
        self.paused = False

    def write(self, data: Any) -> None:
        pass

    def close(self) -> None:
        self.closing = True

    abort = close

    def is_closing(self) -> bool:
        return self.closing

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        pass

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass


class Desk:
    """As much of a service as reading heads asks for; keeps the transcript."""

    limits = LIMITS
    sampling = None
    wheel = SimpleNamespace(now=0.0, watch=lambda _: None, forget=lambda _: None)

    def __init__(self) -> None:
        self.transcript: list[tuple[Any, ...]] = []
        self.later: deque[Any] = deque()
        self.spares: list[Any] = []
        self.loop = SimpleNamespace(call_soon=self.later.append)

    def connected(self, downstream: Downstream) -> None:
        pass

    def complain(self, error: Exception) -> None:
        raise error

    def request_id(self) -> bytes:
        return b"0" * 32

    def date(self) -> bytes:
        return b"Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"

    def record_refusal(self, downstream: Downstream, error: ProxyError, request_id: bytes) -> None:
        self.refused(error)

    def refused(self, error: ProxyError) -> None:
        """Write down that the client is told of `error`; its words may depend on how much of a fault was seen."""
        assert 400 <= error.status < 600
        assert error.detail
        self.transcript.append(("refused", error.status, error.code))


class Taker:
    """Stands for an exchange: takes one request and its body, as an exchange does, and answers nothing."""

    def __init__(self, downstream: Downstream) -> None:
        self.downstream = downstream
        self.desk: Any = downstream.service

    def begin(self, head: Any, rest: bytes) -> None:
        """Write the request down, then its body."""
        facts = (head.raw, head.method, head.target, head.path, head.query, head.host, tuple(head.fields()))
        framing = (head.chunked, head.content_length, head.keep_alive, head.upgrade, head.expect_continue)
        self.desk.transcript.append(("request", facts, framing))
        self.head, self.upload = head, Upload(head, 0)
        self.sent = b""
        self.on_client_data(rest)

    def on_client_data(self, data: bytes) -> None:
        """Take some of the body; after its end, give back what follows."""
        downstream = self.downstream
        try:
            sent, rest = self.upload.feed(data)
        except ProxyError as error:
            self.desk.refused(error)
            downstream.exchange = None
            downstream.linger()
            return
        self.sent += sent
        if self.upload.done:
            self.desk.transcript.append(("body", *self._body()))
            downstream.buffer = rest
            downstream.done(self.head.keep_alive)

    def _body(self) -> tuple[bytes, Any]:
        """Return the body as an endpoint reads it."""
        if not self.head.chunked:
            return self.sent, ()
        decoder = ChunkedDecoder()
        pieces, rest = decoder.feed(self.sent)
        assert decoder.done
        assert rest == b""
        return b"".join(pieces), tuple(decoder.trailers)

    def on_client_eof(self) -> bool:
        self.desk.transcript.append(("cut",))
        return False


class Front(Downstream):
    """A client's connection whose requests are only taken down."""

    exchange_class: Any = Taker


def client_side(data: bytes, cuts: Iterable[int] = ()) -> list[tuple[Any, ...]]:
    """Return what a listener makes of the stream `data` that comes in pieces, cut at `cuts`, and then ends."""
    desk = Desk()
    front = Front(desk, new_crowd(desk.complain))  # type: ignore[arg-type]
    front.connection_made(Wire())
    for piece in cut(data, cuts):
        front.data_received(piece)
        while desk.later:
            desk.later.popleft()()
    desk.transcript.append(("end of stream",))
    front.eof_received()
    return desk.transcript


class Asker:
    """Stands for an exchange that waits for its answer, and takes it down."""

    upload_done = True

    def __init__(self, method: bytes) -> None:
        self.method = method
        self.heads: list[tuple[Any, ...]] = []
        self.body = b""
        self.end: tuple[Any, ...] = ("unfinished",)
        self.ended = 0

    def on_interim(self, head: Any) -> None:
        self._take(head)

    def on_response(self, head: Any, pieces: list[bytes] | None, trailers: Any) -> None:
        self._take(head)
        self.on_body(pieces or [])
        if trailers is not None:
            self.on_end(trailers)

    def on_whole(self, head: Any, body: bytes) -> None:
        self.on_response(head, [body], [])

    def on_beginning(self, head: Any, body: memoryview) -> None:
        self.on_response(head, [bytes(body)], None)

    def on_body(self, pieces: list[bytes]) -> None:
        assert not self.ended
        self.body += b"".join(pieces)

    def on_end(self, trailers: Any) -> None:
        self._finish("complete", tuple(trailers))

    def on_failure(self, error: ProxyError) -> None:
        assert error.detail
        self._finish("failed", error.code)

    def _take(self, head: Any) -> None:
        assert not self.ended
        self.heads.append((head.status, head.raw, tuple(head.fields()), head.chunked, head.content_length, head.close))

    def _finish(self, *end: Any) -> None:
        self.end = end
        self.ended += 1
        assert self.ended == 1, "told of the end once"


class Shelf:
    """As much of an endpoint and its pool as a connection asks for."""

    def __init__(self) -> None:
        self.upstream = self
        self.kept = False

    def released(self, endpoint: Any, connection: Connection) -> None:
        self.kept = True

    def discard(self, connection: Connection) -> None:
        self.kept = False

    def lost(self, connection: Connection, mode: int) -> None:
        self.kept = False

    def blame(self, *, over: bool) -> None:
        pass


def endpoint_side(data: bytes, method: bytes = b"GET", cuts: Iterable[int] = ()) -> tuple[Any, ...]:
    """Return what an exchange hears of an answer `data` that comes in pieces, and whether its connection is kept.

    Of an answer that fails only the failure is compared: what was relayed before it depends on when it came.
    """
    shelf, asker, wire = Shelf(), Asker(method), Wire()
    connection = Connection(shelf)  # type: ignore[arg-type]
    connection.connection_made(wire)
    connection.send(asker, b"")  # type: ignore[arg-type]
    for piece in cut(data, cuts):
        if wire.closing:
            break
        connection.data_received(piece)
    kept = shelf.kept
    if not wire.closing:
        connection.eof_received()
    connection.connection_lost(None)
    if asker.end[0] != "complete":
        return (*asker.end, False)
    return (*asker.end, asker.heads, asker.body, kept)


def cut(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """Return `data` in pieces."""
    places = [0, *sorted({place for place in cuts if 0 < place < len(data)}), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(places) if start < end]


def table(name: str, key: str) -> list[bytes]:
    """Return the streams in one of the tables of wire cases: where fuzzing begins."""

    def octets(text: str | Sequence[str]) -> bytes:
        text = text if isinstance(text, str) else "\r\n".join(text)
        # The tables repeat up to limits that are far higher than those here.
        return re.sub(r"\{\{(.)\*\d+\}\}", lambda found: found[1] * 70, text).encode("latin-1")

    return [octets(row[key]) for row in json.loads((CASES / name).read_text()) if key in row]


START = b" HTTP/1.1\r\nHost: kit.test\r\n"
POST = b"POST /" + START + b"Transfer-Encoding: chunked\r\n\r\n"
REQUESTS = [
    *table("refused_requests.json", "send"),
    *(POST + body for body in table("bad_chunked_bodies.json", "body")),
    b"GET /a?b" + START + b"\r\n\r\nGET http://other.test/%61/../b" + START + b"\r\n",
    POST + b"3;a=b\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\nOPTIONS *" + START + b"Connection: X-A, close\r\nX-A: 1\r\n\r\n",
    b"\r\n\r\nPUT / HTTP/1.0\r\nContent-Length: 4\r\nConnection: keep-alive\r\n\r\nbodyDELETE /" + START + b"\r\n",
    b"GET /" + START + b"Upgrade: h2c, websocket\r\nConnection: upgrade\r\nExpect: 100-continue\r\n\r\n",
]
"""Streams of requests to begin with."""
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n"
RESPONSES = [
    *table("responses.json", "answer"),
    *table("bad_responses.json", "answer"),
    INTERIM + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
]
"""Answers to begin with."""


def check_client_side(data: bytes, cuts: Sequence[int]) -> None:
    """Raise AssertionError when pieces are read otherwise than the whole."""
    whole = client_side(data)
    for places in (cuts, range(len(data))):
        assert client_side(data, places) == whole


def check_endpoint_side(data: bytes, method: bytes, cuts: Sequence[int]) -> None:
    """Raise AssertionError when pieces are read otherwise than the whole, but for whether the connection is kept.

    Stray bytes after an answer are seen with it or later: either way the connection is not used again.
    """
    whole = endpoint_side(data, method)
    for places in (cuts, range(len(data))):
        assert endpoint_side(data, method, places) == whole
