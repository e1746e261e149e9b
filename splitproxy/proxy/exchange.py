"""The life of one request: match -> filter -> split -> (mirror) -> pick endpoint -> lease -> send -> relay -> finish.

Everything here is a synchronous callback of the event loop. `finish` runs exactly once, whatever happened, and records
one outcome; each attempt at an endpoint records one of its own.
"""

import socket
import struct
from bisect import bisect_left
from collections.abc import Sequence
from random import random
from time import perf_counter
from typing import TYPE_CHECKING, Final

from splitproxy.core import stats
from splitproxy.core.headers import (
    compose_request,
    compose_response,
    rebuild_request,
    rebuild_response,
    request_fields,
    request_lines,
)
from splitproxy.core.http1 import IDEMPOTENT, ChunkedDecoder, Field, RequestHead, ResponseHead, chunk, last_chunk
from splitproxy.errors import (
    BadRequest,
    BodyTooLarge,
    ClientGone,
    InternalError,
    NoBackend,
    NoRoute,
    ProxyError,
    QueueFull,
    RequestDeadline,
    RequestTimeout,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamReset,
    UpstreamTimeout,
)
from splitproxy.proxy.answers import answer, error_answer
from splitproxy.proxy.mirror import Copy, start_copies
from splitproxy.proxy.tunnel import Tunnel
from splitproxy.proxy.upstream import Connection

if TYPE_CHECKING:
    from splitproxy.core.routing import Rule
    from splitproxy.core.splitting import Backend
    from splitproxy.proxy.downstream import Downstream

REPLAY_BYTES: Final = 65_536
"""A request longer than this is not kept for a second try."""
_SUCCESS, _SERVER_ERROR = stats.OUTCOMES.index("success"), stats.OUTCOMES.index("5xx")
_CLIENT_GONE, _CANCELLED = stats.OUTCOMES.index("client_gone"), stats.OUTCOMES.index("cancelled")
_OUTCOME_OF: Final = {name: index for index, name in enumerate(stats.OUTCOMES)}
_REASON_CELL: Final = {reason: stats.REASON + index for index, reason in enumerate(stats.REASONS)}
_RESET: Final = struct.pack("ii", 1, 0)
_BOUNDS, _CODE_INDEX = stats.BOUNDS, stats.CODE_INDEX
_REQUEST_BYTES, _RESPONSE_BYTES, _IN_FLIGHT = stats.REQUEST_BYTES, stats.RESPONSE_BYTES, stats.IN_FLIGHT
_REQUEST_NS, _REQUEST_HISTOGRAM = stats.REQUEST_NS, stats.REQUEST_HISTOGRAM
_ATTEMPT_NS, _ATTEMPT_HISTOGRAM, _OUTCOME = stats.ATTEMPT_NS, stats.ATTEMPT_HISTOGRAM, stats.OUTCOME


class Exchange:
    """One request and its answer."""

    __slots__ = (
        *("_attempt_deadline", "_copies", "_decoder", "_left", "_lines", "_out", "_replayed", "_request_deadline"),
        *("_waiting", "_early", "attempt_started", "attempts", "backend", "begun", "block", "bytes_in", "bytes_out"),
        *("connection", "downstream", "endpoint", "error", "finished", "head", "method", "reason", "rechunk"),
        *("request_id", "rule", "service", "started", "status", "timed", "timeouts", "upload_done", "keep_alive"),
    )

    def __init__(self, downstream: "Downstream", head: RequestHead) -> None:
        self.started = perf_counter()
        self.downstream = downstream
        self.service = service = downstream.service
        self.head = head
        self.method = head.method
        self.request_id = head.request_id or service.request_id()
        self.keep_alive = head.keep_alive and not service.draining
        self.rule: Rule | None = None
        self.backend: Backend | None = None
        self.block = service.unrouted
        """Where its outcome is counted."""
        self.reason = ""
        self.status = 0
        self.error: ProxyError | None = None
        self.attempts = 0
        self.connection: Connection | None = None
        self.endpoint = b""
        self.begun = False
        """Whether the head of the answer has been sent: then it is too late for another status."""
        self.finished = False
        self.rechunk = False
        self.timed = True
        """Whether its duration says something about the upstream: not so for event streams."""
        self.upload_done = True
        self.bytes_in = len(head.raw)
        self.bytes_out = 0
        self._decoder: ChunkedDecoder | None = None
        self._left = 0
        self._early: list[bytes] = []
        """Body bytes that came before there was a connection to send them on."""
        self._waiting = False
        self._replayed = False
        self._copies: Sequence[Copy] = ()
        self._lines = b""
        self._request_deadline = self._attempt_deadline = 0.0

    # --- match, filter, split, mirror ----------------------------------------------------------------------------------
    def begin(self, rest: bytes) -> None:
        """Route the request and send it; `rest` is what followed its head."""
        head, service = self.head, self.service
        cells = service.cells
        cells[self.block + _IN_FLIGHT] += 1
        try:
            rule = service.snapshot.table.match(head)
            if rule is None:
                raise NoRoute("no route matches this host, path and method")
            self.rule = rule
            self.timeouts = rule.timeouts
            if head.chunked or head.content_length:
                self._begin_upload(rest)
            elif rest:
                self.downstream.buffer = rest
            backend = rule.split.single
            if backend is None:
                backend = self._split(rule)
            else:
                self.reason = "match"
            if backend.block < 0:
                backend.block = service.region.block(backend.key)
                backend.pool = service.upstream(backend.upstream)
            self.backend = backend
            cells[self.block + _IN_FLIGHT] -= 1
            self.block = block = backend.block
            cells[block + _IN_FLIGHT] += 1
            cells[block + _REASON_CELL[self.reason]] += 1
            if self.timeouts.request:
                self._request_deadline = service.loop.time() + self.timeouts.request
            lines = request_lines(head, self.downstream.forwarded_fields(head.authority), self.request_id)
            if rule.plain:
                self._out = compose_request(head, lines, backend.pool.fallback_host)
            elif self._filter(rule, backend, lines):
                return
            self._lease(False)
        except ProxyError as error:
            self.refuse(error)
        except Exception:
            service.log_bug("while routing a request")
            self.refuse(InternalError("a defect of the proxy; its log has the details"))

    def _split(self, rule: "Rule") -> "Backend":
        split, service = rule.split, self.service
        fresh = None
        if split.issue is not None and self.head.cookie(split.issue) is None:
            fresh = service.mint()
        backend, self.reason = split.choose(self.head, self.downstream.address, random(), fresh)
        if backend is None:
            raise NoBackend(f"rule {rule.name!r} of route {rule.route!r} has no backendRef with a weight")
        if fresh is not None and self.reason == "key":
            self._lines = b"Set-Cookie: %b=%b; Path=/; HttpOnly; SameSite=Lax\r\n" % (split.issue, fresh)
        return backend

    def _filter(self, rule: "Rule", backend: "Backend", lines: bytes) -> bool:
        """Apply the rule's filters, start mirrors; return True when a filter has answered."""
        head = self.head
        redirect = rule.redirect or backend.redirect
        path, _, query = head.target.partition(b"?")
        if redirect is not None:
            self._redirect(redirect.status, redirect.location(b"http", head.host, self._port(), path, query))
            return True
        fields = request_fields(head, backend.pool.fallback_host)
        target = _rewrite(rule.rewrite, head.target, fields)
        if rule.request_modifier is not None:
            rule.request_modifier.apply(fields)
        if rule.mirrors:
            mirrored = rebuild_request(head, target, fields, lines)
            self._copies = start_copies(self, rule.mirrors, mirrored)
            for copy in self._copies:
                for data in self._early:
                    copy.write(data)
                if self.upload_done:
                    copy.end()
        if backend.rewrite is not None:
            target = _rewrite(backend.rewrite, head.target, fields)
        if backend.request_modifier is not None:
            backend.request_modifier.apply(fields)
        self._out = rebuild_request(head, target, fields, lines)
        return False

    def _port(self) -> int:
        authority, host = self.head.authority, self.head.host
        port = authority[len(host) + 1 :]
        return int(port) if port.isdigit() else 80

    def _redirect(self, status: int, location: bytes) -> None:
        self.keep_alive = self.keep_alive and self.upload_done
        data = answer(status, b"Location: %b\r\n" % location, b"", self.service.date(), not self.keep_alive)
        self._answer(status, data)

    # --- lease, send ---------------------------------------------------------------------------------------------------
    def _lease(self, fresh: bool) -> None:
        backend = self.backend
        assert backend is not None
        self._waiting = True
        connection = backend.pool.lease(self, random(), self.downstream.address, fresh)
        if connection is not None:
            self.on_connection(connection)
        else:
            if not self.upload_done:
                self.downstream.pause()
            self._expect_within(self.timeouts.response_head)

    def on_connection(self, connection: Connection) -> None:
        """Send on `connection`."""
        if not self._waiting:  # the client left, or time ran out, while it was being opened
            connection.endpoint.active -= 1
            connection.endpoint.release(connection)
            return
        self._waiting = False
        self.connection = connection
        self.endpoint = connection.endpoint.name
        self.attempts += 1
        self.attempt_started = perf_counter()
        timeouts = self.timeouts
        if timeouts.backend_request:
            self._attempt_deadline = self.service.loop.time() + timeouts.backend_request
        if self.upload_done:
            if self._early:
                self._out += b"".join(self._early)
                self._early = []
            connection.send(self, self._out)
            self._expect_within(timeouts.response_head)
        else:
            connection.send(self, b"".join((self._out, *self._early)))
            self._early = []
            self._out = b""
            self._expect_within(self.service.limits.body_idle_timeout)
            self.downstream.resume()

    def _expect_within(self, seconds: float) -> None:
        """Have `on_deadline` called unless something happens within `seconds` (0: no limit)."""
        deadline = self.service.wheel.now + (seconds or 86_400.0)
        if self._request_deadline and self._request_deadline < deadline:
            deadline = self._request_deadline
        if self._attempt_deadline and self._attempt_deadline < deadline:
            deadline = self._attempt_deadline
        downstream = self.downstream
        downstream.deadline = deadline
        if deadline < downstream.next_look:
            self.service.wheel.watch(downstream)

    # --- the request's body --------------------------------------------------------------------------------------------
    def _begin_upload(self, rest: bytes) -> None:
        head, limit = self.head, self.service.limits.body_bytes
        if limit and head.content_length > limit:
            self.upload_done = False
            raise BodyTooLarge(f"the body is over {limit} bytes")
        self.upload_done = False
        if head.chunked:
            self._decoder = ChunkedDecoder()
        else:
            self._left = head.content_length
        if rest:
            self.on_client_data(rest)

    def on_client_data(self, data: bytes) -> None:
        """Take bytes from the client: its body, or requests to come."""
        if self.upload_done:
            self._keep_for_later(data)
        elif self._decoder is None:
            left = self._left - len(data)
            if left < 0:
                self._keep_for_later(data[left:])
                data = data[:left]
            self._left = max(left, 0)
            self._upload(data, left <= 0)
        else:
            self._decode(data)

    def _keep_for_later(self, data: bytes) -> None:
        downstream = self.downstream
        downstream.buffer += data
        if len(downstream.buffer) > self.service.limits.header_bytes:
            downstream.pause()

    def _decode(self, data: bytes) -> None:
        decoder = self._decoder
        assert decoder is not None
        try:
            pieces, rest = decoder.feed(data)
        except ValueError as error:
            self._upload_failed(BadRequest(str(error)))
            return
        framed = chunk(pieces) if pieces else b""
        if decoder.done:
            framed += last_chunk(decoder.trailers)
            if rest:
                self._keep_for_later(rest)
        if framed:
            self._upload(framed, decoder.done)

    def _upload(self, data: bytes, last: bool) -> None:
        self.bytes_in += len(data)
        limit = self.service.limits.body_bytes
        if limit and self._decoder is not None and self.bytes_in - len(self.head.raw) > limit:
            self._upload_failed(BodyTooLarge(f"the body is over {limit} bytes"))
            return
        self.upload_done = last
        connection = self.connection
        if connection is None:
            self._early.append(data)
            if self._waiting and not last:
                self.downstream.pause()
        else:
            connection.write(data)
            self._expect_within(self.timeouts.response_head if last else self.service.limits.body_idle_timeout)
        for copy in self._copies:
            copy.write(data)
            if last:
                copy.end()

    def _upload_failed(self, error: ProxyError) -> None:
        if self.rule is None or (self.connection is None and not self._waiting):
            raise error  # still in `begin`
        self.refuse(error)

    def pause_upload(self) -> None:
        """Stop reading the body: the endpoint does not keep up."""
        if not self.upload_done:
            self.downstream.pause()
            self._expect_within(self.timeouts.stream_idle)

    def resume_upload(self) -> None:
        """Read the body again."""
        if not self.upload_done:
            self.downstream.resume()
            self._expect_within(self.service.limits.body_idle_timeout)

    # --- the answer ----------------------------------------------------------------------------------------------------
    def on_interim(self, head: ResponseHead) -> None:
        """Relay a 1xx response; 100 only to a client that asked for it (RFC 9110 §15.2)."""
        if self.head.minor and not self.begun and (head.status != 100 or self.head.expect_continue):
            self.downstream.transport.write(compose_response(head, b""))
        self._expect_within(self.timeouts.response_head)

    def on_response(self, head: ResponseHead, bodiless: bool) -> None:
        """Relay the head of the answer."""
        self.status = status = head.status
        if status == 101:
            self._upgrade(head)
            return
        lines = self._lines
        client_minor = self.head.minor
        if not bodiless and (head.chunked or head.content_length < 0):
            if client_minor:
                self.rechunk = True
                lines += b"Transfer-Encoding: chunked\r\n"
            else:
                self.keep_alive = False
            self.timed = b"text/event-stream" not in head.low
        elif head.chunked and client_minor and status not in {204, 304}:  # the answer to HEAD
            lines += b"Transfer-Encoding: chunked\r\n"
        if not head.has_date:
            lines += self.service.date()
        if not self.keep_alive:
            lines += b"Connection: close\r\n"
        elif not client_minor:
            lines += b"Connection: keep-alive\r\n"
        rule, backend = self.rule, self.backend
        assert rule is not None
        assert backend is not None
        if rule.plain:
            data = compose_response(head, lines)
        else:
            fields = head.fields()
            if rule.response_modifier is not None:
                rule.response_modifier.apply(fields)
            if backend.response_modifier is not None:
                backend.response_modifier.apply(fields)
            data = rebuild_response(head, fields, lines)
        self.begun = True
        self.bytes_out += len(data)
        self.downstream.transport.write(data)
        if not bodiless:
            self._expect_within(self.timeouts.stream_idle)

    def on_body(self, pieces: list[bytes]) -> None:
        """Relay bytes of the answer's body."""
        data = chunk(pieces) if self.rechunk else pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self.bytes_out += len(data)
        self.downstream.transport.write(data)
        self._expect_within(self.timeouts.stream_idle)

    def on_end(self, trailers: list[Field]) -> None:
        """Relay the end of the answer; the request is done."""
        if self.rechunk:
            data = last_chunk(trailers)
            self.bytes_out += len(data)
            self.downstream.transport.write(data)
        self._end_attempt(_SERVER_ERROR if self.status >= 500 else _SUCCESS)
        if not self.upload_done:  # an early answer: the rest of the body is of no use to anybody
            self.keep_alive = False
        self.finish()

    def on_failure(self, error: UpstreamError) -> None:
        """Replay, refuse or abort: no complete answer will come from this attempt."""
        if self.connection is None:
            self._waiting = False  # no connection could be made; the pool has taken its count down
            self.attempts += 1
            self.service.cells[self.block + _OUTCOME + _OUTCOME_OF[error.code]] += 1
        elif self._may_replay(error):
            self._replayed = True
            self.connection.endpoint.active -= 1
            self.connection = None
            self.attempts -= 1
            self.service.cells[self.block + stats.REPLAYS] += 1
            try:
                self._lease(True)
            except ProxyError as refusal:
                self.refuse(refusal)
            return
        else:
            self._end_attempt(_OUTCOME_OF[error.code])
        self.refuse(error)

    def _may_replay(self, error: UpstreamError) -> bool:
        """Whether a kept-alive connection died under the request before the endpoint can have acted on it unseen."""
        connection = self.connection
        return (
            connection is not None
            and connection.reused
            and isinstance(error, UpstreamReset)
            and error.silent
            and not self._replayed
            and self.upload_done
            and self.method in IDEMPOTENT
            and 0 < len(self._out) <= REPLAY_BYTES
        )

    def pause_download(self) -> None:
        """Stop reading the answer: the client does not keep up."""
        if self.connection is not None:
            self.connection.pause()

    def resume_download(self) -> None:
        """Read the answer again."""
        if self.connection is not None:
            self.connection.resume()
            self._expect_within(self.timeouts.stream_idle)

    # --- upgrades ------------------------------------------------------------------------------------------------------
    def _upgrade(self, head: ResponseHead) -> None:
        connection, offered = self.connection, self.head.upgrade
        assert connection is not None
        if not offered or head.upgrade.lower() not in {word.strip() for word in offered.split(b",")}:
            connection.abandon()
            self.on_failure(UpstreamProtocolError("101 to a protocol that was not asked for"))
            return
        self.begun, self.timed = True, False
        data = compose_response(head, b"Connection: Upgrade\r\nUpgrade: %b\r\n" % head.upgrade)
        self.bytes_out += len(data)
        self.downstream.transport.write(data)
        Tunnel(self, connection, self.timeouts.tunnel_idle).open()

    def close_tunnel(self, bytes_in: int, bytes_out: int) -> None:
        """Take note that the tunnel this exchange became is over."""
        self.bytes_in += bytes_in
        self.bytes_out += bytes_out
        self._end_attempt(_SUCCESS)
        self.keep_alive = False
        self.finish()

    # --- how it may end early ------------------------------------------------------------------------------------------
    def on_client_eof(self) -> bool:
        """Take the client's half-close; return whether to keep its connection for the answer."""
        if self.upload_done:
            self.keep_alive = False
            return True
        self.refuse(BadRequest("the connection ended within the body"))
        return True

    def on_client_gone(self) -> None:
        """The client's connection is lost."""
        if not self.finished:
            self.error = ClientGone()
            self.status = 499
            self._give_up(_CLIENT_GONE)
            self.finish()

    def on_deadline(self, now: float) -> None:
        """Time ran out for what was waited for."""
        error: ProxyError
        if self._request_deadline and now >= self._request_deadline:
            error = RequestDeadline(f"no complete answer within {self.timeouts.request:g}s")
        elif self.connection is None:
            error = QueueFull("no connection became free in time")
        elif self._attempt_deadline and now >= self._attempt_deadline:
            error = UpstreamTimeout(f"no complete answer within {self.timeouts.backend_request:g}s")
        elif not self.upload_done and not self.connection.paused and not self.begun:
            error = RequestTimeout("the body did not arrive in time")
        else:
            error = UpstreamTimeout("the endpoint was silent for too long")
        if isinstance(error, UpstreamTimeout) and self.connection is not None:
            connection = self.connection
            self._end_attempt(_OUTCOME_OF[error.code])
            connection.abandon()
        self.refuse(error)

    def _give_up(self, outcome: int) -> None:
        """Drop the attempt under way, if any."""
        if self._waiting:
            self._waiting = False
            assert self.backend is not None
            self.backend.pool.give_up(self)
        connection = self.connection
        if connection is not None:
            self._end_attempt(outcome)
            connection.abandon()

    def refuse(self, error: ProxyError) -> None:
        """Answer with `error`; once the answer has begun, all that is left is to cut it off."""
        if self.finished:
            return
        self.error = error
        self._give_up(_CANCELLED)
        downstream = self.downstream
        if self.begun:
            self.keep_alive = False
            if not downstream.closed:
                reset(downstream)
            self.finish()
            return
        if error.closes or not self.upload_done:
            self.keep_alive = False
        if not isinstance(error, UpstreamError):
            self._count_locally()
        data = error_answer(
            error, self.request_id, self.service.date(), close=not self.keep_alive, bodiless=self.method == b"HEAD"
        )
        self._answer(error.status, data)

    def _count_locally(self) -> None:
        """Count the outcome as nobody's: what is ours is never charged to an upstream."""
        cells = self.service.cells
        cells[self.block + _IN_FLIGHT] -= 1
        rule = self.rule
        if rule is None:
            self.block = self.service.unrouted
        else:
            self.block = self.service.region.block((stats.SERIES, rule.route, rule.name, "", "none"))
        cells[self.block + _IN_FLIGHT] += 1

    def _answer(self, status: int, data: bytes) -> None:
        self.status = status
        self.begun = True
        if not self.downstream.closed:
            self.bytes_out += len(data)
            self.downstream.transport.write(data)
        self.finish()

    # --- finish --------------------------------------------------------------------------------------------------------
    def _end_attempt(self, outcome: int) -> None:
        connection = self.connection
        assert connection is not None
        self.connection = None
        connection.endpoint.active -= 1
        cells, block = self.service.cells, self.block
        cells[block + _OUTCOME + outcome] += 1
        if self.timed and outcome < _CLIENT_GONE:
            elapsed = perf_counter() - self.attempt_started
            cells[block + _ATTEMPT_NS] += int(elapsed * 1e9)
            cells[block + _ATTEMPT_HISTOGRAM + bisect_left(_BOUNDS, elapsed)] += 1

    def finish(self) -> None:
        """Record the one outcome of this request and let the connection go on."""
        self.finished = True
        service = self.service
        cells, block = service.cells, self.block
        elapsed = perf_counter() - self.started
        cells[block + _CODE_INDEX[self.status]] += 1
        cells[block + _REQUEST_BYTES] += self.bytes_in
        cells[block + _RESPONSE_BYTES] += self.bytes_out
        cells[block + _IN_FLIGHT] -= 1
        if self.timed:
            cells[block + _REQUEST_NS] += int(elapsed * 1e9)
            cells[block + _REQUEST_HISTOGRAM + bisect_left(_BOUNDS, elapsed)] += 1
        if self._copies and not self.upload_done:
            for copy in self._copies:
                copy.cut()
        if service.access_log is not None:
            service.access_log.write(self, elapsed)
        self.downstream.done(self.keep_alive)


def _rewrite(rewrite: "Rewrite | None", target: bytes, fields: list[Field]) -> bytes:
    if rewrite is None:
        return target
    if rewrite.hostname is not None:
        fields[:] = [(b"Host", rewrite.hostname), *(field for field in fields if field[0].lower() != b"host")]
    path, _, query = target.partition(b"?")
    return rewrite.target(path, query)


def reset(downstream: "Downstream") -> None:
    """Cut the client off with a reset, so that it cannot take what it has for the whole answer."""
    sock = downstream.transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    downstream.transport.abort()
