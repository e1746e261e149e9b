"""The life of one request: match -> filter -> split -> (mirror) -> pick endpoint -> lease -> send -> relay -> finish.

Everything here is a synchronous callback of the event loop. A request is finished exactly once, whatever happened, and
has one outcome; each attempt at an endpoint has one of its own. Where a line looks laboured it is because it runs for
every request: `docs/performance.md` says what was measured.
"""

from random import random
from time import perf_counter
from typing import TYPE_CHECKING, Final

from splitproxy.core import stats
from splitproxy.core.chunked import chunk, last_chunk
from splitproxy.core.fields import Field
from splitproxy.core.headers import compose_request, compose_response, rebuild_response
from splitproxy.core.requests import RequestHead
from splitproxy.core.responses import ResponseHead
from splitproxy.errors import (
    ClientStalled,
    InternalError,
    NoBackend,
    NoRoute,
    OutOfResources,
    ProxyError,
    QueueFull,
    RequestDeadline,
    RequestTimeout,
    UpstreamError,
    UpstreamTimeout,
)
from splitproxy.proxy.drawing import draw_again
from splitproxy.proxy.ending import OUTCOME, REASON_CELL, SERVER_ERROR, SUCCESS
from splitproxy.proxy.filtering import filter_request
from splitproxy.proxy.receiving import Receiving
from splitproxy.proxy.repeating import injected, may_replay, repeated, replay
from splitproxy.proxy.tunnel import open_tunnel
from splitproxy.proxy.upstream import HEAD, Connection

if TYPE_CHECKING:
    from splitproxy.core.routing import Rule
    from splitproxy.core.splitting import Backend
    from splitproxy.proxy.downstream import Downstream

MOST_SPARES: Final = 64
"""Exchanges that are over and kept for further requests, of all connections together."""
_CODE_CELL: Final = tuple(stats.CODE + index for index in stats.CODE_INDEX)


class Exchange(Receiving):
    """One request and its answer."""

    __slots__ = ("_rechunk", "failed_over", "held", "issued", "ordinary", "out", "replayed", "retries")

    ordinary: bool
    """Whether nothing about the request asks for more than relaying the answer as it comes."""
    issued: bytes
    """The client id it was given, as a Set-Cookie line."""
    out: bytes
    """The request as sent, while it may have to be sent again."""
    held: float
    """Seconds of a fault by which the attempt is taken to have begun earlier."""
    retries: int
    failed_over: bool

    def __init__(self, downstream: "Downstream") -> None:
        """Set what the shortest way (`on_whole`) leaves as it is: after it an exchange serves another request."""
        self.downstream = downstream
        self.service = downstream.service
        self.connection = self.upload = self.error = self.timer = None
        self.upload_done = self.timed = True
        self._rechunk = self._waiting = self.replayed = self.failed_over = False
        self.attempt_started = self.held = 0.0
        self.retries = 0
        self.issued = b""

    # --- match, filter, split, mirror --------------------------------------------------------------------------------
    def begin(self, head: RequestHead, rest: bytes) -> None:  # noqa: C901, PLR0912, PLR0915 - hot: every request's way
        """Route the request and send it; `rest` is what followed its head."""
        self.started = perf_counter()
        service, downstream = self.service, self.downstream
        self.head = head
        self.method = head.method
        self.request_id = head.request_id or service.request_id()
        self.keep_alive = head.keep_alive and not service.draining
        self.rule = self.backend = self.series = self.endpoint = None
        self.begun = self.finished = self.ordinary = False
        self.status = self.attempts = self.bytes_out = 0
        self._request_deadline = self._attempt_deadline = 0.0
        self.reason = ""
        try:
            if not head.plain:
                rest = self._begin_upload(rest)
            if rest:
                downstream.buffer = rest
            self.rule = rule = service.snapshot.table.match(head)
            if rule is None:
                raise NoRoute("no route matches this host, path and method")
            self.timeouts = timeouts = rule.timeouts
            if rule.redirect is not None:
                self.redirect(rule.redirect)
                return
            backend = rule.split.single
            if backend is None:
                backend = self._split(rule)
            else:
                self.reason = "match"
            self.backend = backend
            series = backend.series
            if series is None:
                backend.pool = service.upstream(backend.upstream)
                series = backend.series = service.series(backend.key)
            self.series = series
            series.active += 1
            if not series.changed:
                service.note(series)
            if timeouts.request:
                self._request_deadline = service.loop.time() + timeouts.request
            if head.authority != downstream.authority or not downstream.forwarded:
                downstream.forward_for(head.authority)
            if rule.plain:
                self.out = compose_request(head, downstream.forwarded, self.request_id, backend.pool.fallback_host)
                self.ordinary = head.plain and not self.issued
            else:
                out = filter_request(self, rule, backend)
                if out is None:
                    return
                self.out = out
                if (rule.fault or backend.fault) is not None and injected(self, rule.fault):
                    return
            connection = backend.pool.lease(self, downstream.address)
            if connection is None:
                self.wait()
            else:
                self.send(connection)
        except ProxyError as error:
            self.refuse(error)
        except Exception:
            service.log_bug("while routing a request")
            self.refuse(InternalError("a defect of the proxy; its log has the details"))

    def _split(self, rule: "Rule") -> "Backend":
        split, live = rule.split, rule.live
        backend: Backend | None
        if live is not None:
            address, mint = self.downstream.address, self.service.mint
            backend, self.reason, self.issued = live.place(self.head, address, random(), mint)
            rule.plain = live.plain
            if backend is not None and backend.coin is not None:
                backend = self.service.tallies.fair(self, rule, backend)
        else:
            fresh = None
            if split.issue is not None and self.head.cookie(split.issue) is None:
                fresh = self.service.mint()
            backend, self.reason = split.choose(self.head, self.downstream.address, random(), fresh)
            if fresh is not None and self.reason != "override":
                self.issued = split.cookie(fresh)
        if backend is None:
            raise NoBackend(f"rule {rule.name!r} of route {rule.route!r} has no backendRef with a weight")
        pool = backend.pool
        return backend if pool is not None and pool.usable else draw_again(self, rule, backend)

    # --- lease, send -------------------------------------------------------------------------------------------------
    def wait(self) -> None:
        """There is no idle connection: one is being opened, or will become free."""
        self._waiting = True
        if not self.upload_done:
            self.downstream.pause()
        self._expect_within(self.timeouts.response_head)

    def on_connection(self, connection: Connection) -> None:
        """Send on the connection that was waited for."""
        if not self._waiting:  # the client left, or time ran out, while it was being opened
            connection.endpoint.active -= 1
            connection.endpoint.upstream.released(connection.endpoint, connection)
            return
        self._waiting = False
        self.attempt_started = perf_counter() - self.held
        self.send(connection)
        if self.downstream.congested:  # by interim responses of an attempt before
            connection.pause()

    def send(self, connection: Connection) -> None:
        """Send on `connection` what there is of the request."""
        self.connection = connection
        self.endpoint = connection.endpoint
        self.attempts += 1
        timeouts = self.timeouts
        if timeouts.backend_request:
            self._attempt_deadline = self.service.loop.time() + timeouts.backend_request
        upload = self.upload
        if upload is not None:
            if self.rule is not None and self.rule.repeats is not None:
                upload.keep()
            self.out += upload.take_waiting()
        connection.user = self
        connection.mode = HEAD
        connection.transport.write(self.out)
        if self.upload_done:
            self._expect_within(timeouts.response_head)
        else:
            self.out = b""
            self.downstream.resume()
            self._expect_within(self.service.limits.body_idle_timeout)

    # --- the answer --------------------------------------------------------------------------------------------------
    def on_interim(self, head: ResponseHead) -> None:
        """Relay a 1xx response; 100 only to a client that asked for it (RFC 9110 §15.2)."""
        if self.head.minor and (head.status != 100 or self.head.expect_continue):
            self.downstream.transport.write(compose_response(head, b""))
        self._expect_within(self.timeouts.response_head)

    def on_whole(self, head: ResponseHead, body: bytes) -> None:
        """Relay a complete answer: the shortest way for nearly all requests, the general one for the rest."""
        if not (self.ordinary and self.keep_alive and head.has_date) or self.attempt_started or self.attempts != 1:
            self.on_response(head, [body] if body else [], [])
            return
        sent = head.sent
        if not sent:
            if head.status >= 400:  # never kept, so that every failure is looked at
                self.on_response(head, [body] if body else [], [])
                return
            sent = head.sent = compose_response(head, b"")
        data = sent + body
        self.downstream.transport.write(data)
        elapsed = perf_counter() - self.started
        self.status, self.bytes_out = head.status, len(data)
        self.begun = True
        series, endpoint = self.series, self.endpoint
        assert series is not None
        assert endpoint is not None
        self.connection = None
        endpoint.active -= 1
        series.done.append((_CODE_CELL[head.status], elapsed, len(self.head.raw), len(data), REASON_CELL[self.reason]))
        series.active -= 1
        if not series.changed:
            self.service.note(series)
        spares = self.downstream.spares
        if len(spares) < MOST_SPARES:
            spares.append(self)
        self._close(elapsed)

    def on_beginning(self, head: ResponseHead, body: memoryview) -> None:
        """Relay a head and the beginning of a body whose length it says, without copying the latter."""
        if head.status >= 400 and repeated(self, head.status):
            return
        data = self._answer_head(head, body=True)
        self.bytes_out += len(data) + len(body)
        self.downstream.transport.writelines((data, body))
        self._expect_within(self.timeouts.stream_idle)

    def on_response(self, head: ResponseHead, pieces: list[bytes] | None, trailers: list[Field] | None) -> None:
        """Relay the head of the answer, with what has come of its body, in one write."""
        if head.status >= 400:
            if repeated(self, head.status):
                return
        elif head.status == 101:
            self.status = head.status
            open_tunnel(self, head)
            return
        data = self._answer_head(head, body=pieces is not None)
        if pieces:
            data += chunk(pieces) if self._rechunk else pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if trailers is not None and self._rechunk:
            data += last_chunk(trailers)
        self.bytes_out += len(data)
        self.downstream.transport.write(data)
        if trailers is None:
            self._expect_within(self.timeouts.stream_idle)
        else:
            self._end()

    def _answer_head(self, head: ResponseHead, *, body: bool) -> bytes:
        """Begin the answer: return its head as the client is to see it."""
        self.status = head.status
        self.begun = True
        lines = self.issued
        if head.content_length < 0:
            lines += self._frame(head, body)
        if not head.has_date:
            lines += self.service.date()
        if not self.keep_alive or not self.upload_done:
            lines += b"Connection: close\r\n"  # before the request's end, too: the rest of it will not be read
        elif not self.head.minor:
            lines += b"Connection: keep-alive\r\n"
        rule, backend = self.rule, self.backend
        assert rule is not None
        assert backend is not None
        if rule.plain or (rule.response_modifier is None and backend.response_modifier is None):
            return compose_response(head, lines)
        fields = head.fields()
        for modifier in (rule.response_modifier, backend.response_modifier):
            if modifier is not None:
                modifier.apply(fields)
        return rebuild_response(head, fields, lines)

    def _frame(self, head: ResponseHead, body: bool) -> bytes:
        """Decide how the client sees the end of a body without a length; return the field that says so."""
        if not head.chunked and not body:
            return b""
        self.timed = head.low.find(b"\r\ncontent-type: text/event-stream") < 0
        if not self.head.minor:
            if body:
                self.keep_alive = False
            return b""
        self._rechunk = body
        return b"Transfer-Encoding: chunked\r\n" if head.status not in {204, 304} else b""

    def on_body(self, pieces: list[bytes]) -> None:
        """Relay bytes of the answer's body."""
        data = chunk(pieces) if self._rechunk else pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self.bytes_out += len(data)
        self.downstream.transport.write(data)
        self._expect_within(self.timeouts.stream_idle)

    def on_end(self, trailers: list[Field]) -> None:
        """Relay the end of the answer; the request is done."""
        if self._rechunk:
            data = last_chunk(trailers)
            self.bytes_out += len(data)
            self.downstream.transport.write(data)
        self._end()

    def _end(self) -> None:
        """Count a complete answer and finish."""
        elapsed = perf_counter() - self.started
        series, connection = self.series, self.connection
        assert series is not None
        assert connection is not None
        if self.timed and self.attempts == 1 and not self.attempt_started and self.status < 500:
            self.connection = None
            connection.endpoint.active -= 1
            size = len(self.head.raw) if self.upload is None else self.bytes_in
            series.done.append((_CODE_CELL[self.status], elapsed, size, self.bytes_out, REASON_CELL[self.reason]))
            series.active -= 1
            if not series.changed:
                self.service.note(series)
            self._close(elapsed)
        else:
            self._end_attempt(SERVER_ERROR if self.status >= 500 else SUCCESS)
            self.finish()

    def on_failure(self, error: UpstreamError | OutOfResources) -> None:
        """Replay, refuse or abort: no complete answer will come from this attempt."""
        if self.finished:
            return  # the client left while a connection was being opened: nobody waits for it
        if isinstance(error, OutOfResources):
            self._waiting = False
            self.refuse(error)
        elif self.connection is None:
            self._waiting = False  # no connection could be made; the pool has taken its count down
            self.attempts += 1
            if self.series is not None and self.attempts == 1:
                self.series.attempt(OUTCOME[error.code], None, self)
            if repeated(self, 0, unsent=True):
                return
        elif may_replay(self, error):
            replay(self)
            return
        else:
            self._end_attempt(OUTCOME[error.code])
            if repeated(self, 0):
                return
        self.refuse(error)

    def on_deadline(self, now: float) -> None:
        """Time ran out for what was waited for."""
        error: ProxyError
        connection = self.connection
        if self._request_deadline and now >= self._request_deadline:
            self.charge_hang()
            error = RequestDeadline(f"no complete answer within {self.timeouts.request:g}s")
        elif connection is None:
            if self.opening:
                self._expect_within(0.0)
                return
            error = QueueFull("no connection became free in time")
        elif self._attempt_deadline and now >= self._attempt_deadline:
            error = UpstreamTimeout(f"no complete answer within {self.timeouts.backend_request:g}s")
        elif not self.upload_done and not connection.paused and not self.begun:
            error = RequestTimeout("the body did not arrive in time")
        elif self.downstream.congested:  # nothing is read from the endpoint, so its silence says nothing
            error = ClientStalled("the client did not take its answer")
        else:
            error = UpstreamTimeout("the endpoint was silent for too long")
        if connection is not None and isinstance(error, UpstreamTimeout):
            connection.abandon()
            self.on_failure(error)
        else:
            self.refuse(error)

    def pause_download(self) -> None:
        """Stop reading the answer: the client does not keep up."""
        if self.connection is not None:
            self.connection.pause()

    def resume_download(self) -> None:
        """Read the answer again."""
        if self.connection is not None:
            self.connection.resume()
            self._expect_within(self.timeouts.stream_idle)
