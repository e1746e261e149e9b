"""Exchanges of a worker that traces: they decide which requests are recorded, and tell upstreams what came of that.

They are kinds of their own, so that nothing is asked of a request where nobody traces. A request that is not recorded
costs its exchange the decision and one line in its head; one that is goes on as an exchange of a third kind.
"""

from random import getrandbits
from time import perf_counter
from typing import TYPE_CHECKING, ClassVar, Final

from splitproxy.core.fields import Field, merge_cuts, spans_of
from splitproxy.core.requests import RequestHead
from splitproxy.core.responses import ResponseHead
from splitproxy.core.tracing import FIELDS, LONGEST, MARK, Context, Sampling, parent_line, parse_parent, unrecorded
from splitproxy.errors import OutOfResources, ProxyError, UpstreamError
from splitproxy.proxy.exchange import MOST_SPARES, Exchange
from splitproxy.proxy.spans import Recording, new_span
from splitproxy.proxy.tunnel import Tunnel
from splitproxy.proxy.upstream import Connection

if TYPE_CHECKING:
    from splitproxy.proxy.service import Service


_UNRECORDED: Final = b"traceparent: 00-%016x%%016x-%016x-00\r\n" % (getrandbits(64), getrandbits(64))
"""The line of requests that nobody records, whose traces differ in the right half: nobody ever asks for the rest."""


def trace_by(service: "Service", sampling: Sampling | None) -> None:
    """Have requests traced by `sampling` from the next one on; None: not at all."""
    if (sampling is None) != (service.sampling is None):
        service.spares.clear()
        service.edge_spares.clear()
        for downstream in service.connections:
            exchange = downstream.exchange
            if exchange is not None and not isinstance(exchange, Tunnel):
                exchange.ordinary = False  # so that it is not kept for further requests
    service.sampling = sampling


class TracedExchange(Exchange):
    """A request of which it is decided whether it is recorded; then one that is not."""

    __slots__ = ("lines",)

    recorded: "ClassVar[type[RecordedExchange]]"
    traced = True

    def begin(self, head: RequestHead, rest: bytes) -> None:
        """Decide, then route the request."""
        sampling, at = self.service.sampling, head.low.find(MARK)
        assert sampling is not None
        if at >= 0:
            if sampling.follows and unrecorded(head, at):  # nobody records: it goes on as it came
                self.lines = b""
                Exchange.begin(self, head, rest)
            else:
                self._begin_within(head, rest, sampling)
            return
        number = getrandbits(64)
        if number < sampling.bound:
            self._record(head, rest, Recording(b"%016x%016x" % (getrandbits(64), number)))
            return
        line = _UNRECORDED % number  # so that the upstream does not decide otherwise
        downstream = self.downstream  # as in `_send_with`, in line: this is the way of nearly every request
        if head.authority != downstream.authority or not downstream.forwarded:
            downstream.forward_for(head.authority)
        ours = downstream.forwarded
        downstream.forwarded = ours + line
        self.lines = b""
        Exchange.begin(self, head, rest)
        downstream.forwarded = ours
        self.lines = line

    def _begin_within(self, head: RequestHead, rest: bytes, sampling: Sampling) -> None:
        """Route a request that seems to be part of a trace."""
        context = parse_parent(head.field(b"traceparent"))
        if context is None:  # a trace begins here; what came of one is left out (Trace Context §4.3.2)
            _cut(head, FIELDS)
            number = getrandbits(64)
            if number < sampling.bound:
                self._record(head, rest, Recording(b"%016x%016x" % (getrandbits(64), number)))
            else:
                self._send_with(head, rest, _UNRECORDED % number)
        elif sampling.wants(context):
            _cut(head, FIELDS[:1])
            state = head.field(b"tracestate") or b""
            self._record(head, rest, Recording(context.trace, context, state if len(state) <= LONGEST else b""))
        elif context.sampled:
            _cut(head, FIELDS[:1])
            self._send_with(head, rest, parent_line(context.trace, new_span(), context.flags - 1))
        else:
            self._send_with(head, rest, b"")

    def _send_with(self, head: RequestHead, rest: bytes, line: bytes) -> None:
        """Route the request and send `line` with it, also should it be sent again later."""
        downstream = self.downstream
        if head.authority != downstream.authority or not downstream.forwarded:
            downstream.forward_for(head.authority)
        ours = downstream.forwarded
        downstream.forwarded = ours + line
        self.lines = b""
        Exchange.begin(self, head, rest)
        downstream.forwarded = ours
        if not self.lines:  # else it has been sent and failed already
            self.lines = line

    def _record(self, head: RequestHead, rest: bytes, recording: Recording) -> None:
        """Leave the request to an exchange that records it."""
        downstream = self.downstream
        if len(downstream.spares) < MOST_SPARES:
            downstream.spares.append(self)
        downstream.exchange = exchange = self.recorded(downstream)
        exchange.begin_recording(head, rest, recording)

    def trace(self) -> tuple[bytes, bytes]:
        """Return the ids of the request's trace and of our span of it; the latter is empty when nothing is recorded."""
        line = self.lines
        if line:
            return line[16:48], b""
        context: Context | None = parse_parent(self.head.field(b"traceparent"))
        return (b"", b"") if context is None else (context.trace, b"")


class RecordedExchange(TracedExchange):
    """A request that is recorded, from its head to its outcome."""

    __slots__ = ("_forwarded", "_recording", "_sampling")

    _recording: Recording
    _sampling: Sampling
    """By which it is told, whatever a reload says meanwhile."""
    _forwarded: bytes
    """The lines of the connection, without ours."""

    def begin_recording(self, head: RequestHead, rest: bytes, recording: Recording) -> None:
        """Route the request."""
        downstream, sampling = self.downstream, self.service.sampling
        assert sampling is not None
        self._recording, self._sampling = recording, sampling
        if head.authority != downstream.authority or not downstream.forwarded:
            downstream.forward_for(head.authority)
        self._forwarded = downstream.forwarded
        self._send_with(head, rest, recording.line)
        self.ordinary = False  # it is not kept, and every answer is looked at

    def send(self, connection: Connection) -> None:
        """Note what is asked for, and send."""
        self._recording.sent(self.out)
        super().send(connection)

    def on_whole(self, head: ResponseHead, body: bytes) -> None:
        """Note the status, and relay."""
        self._recording.answered(head.status)
        super().on_whole(head, body)

    def on_beginning(self, head: ResponseHead, body: memoryview) -> None:
        """Note the status, and relay."""
        self._recording.answered(head.status)
        super().on_beginning(head, body)

    def on_response(self, head: ResponseHead, pieces: list[bytes] | None, trailers: list[Field] | None) -> None:
        """Note the status, and relay."""
        self._recording.answered(head.status)
        super().on_response(head, pieces, trailers)

    def on_failure(self, error: UpstreamError | OutOfResources) -> None:
        """Note what failed, and go on."""
        if isinstance(error, UpstreamError):
            self._recording.failed(error.code)
        super().on_failure(error)

    def refuse(self, error: ProxyError) -> None:
        """Note what the upstream is said to have done, and answer."""
        if isinstance(error, UpstreamError):
            self._recording.failed(error.code)
        super().refuse(error)

    def drop_attempt(self, outcome: int) -> None:
        """Note that the attempt is over; a further one will be a span of its own."""
        super().drop_attempt(outcome)
        self._recording.end_call(self, self._sampling, perf_counter(), outcome)
        self.downstream.forwarded = self._forwarded  # should it still be in `_send_with`
        self.lines = self._recording.line

    def _close(self, elapsed: float) -> None:
        """Note how it ended, and let the client's connection go on."""
        self._recording.end_call(self, self._sampling, self.started + elapsed)
        self.service.spans.take(self._recording.whole(self, elapsed, self._sampling))
        super()._close(elapsed)

    def trace(self) -> tuple[bytes, bytes]:
        """Return the ids of the request's trace and of our span of it."""
        return self._recording.trace, self._recording.span


TracedExchange.recorded = RecordedExchange


def _cut(head: RequestHead, names: tuple[bytes, ...]) -> None:
    """Leave the fields called `names` out of what is sent on."""
    head.cuts = merge_cuts(head.cuts, spans_of(head.low, head.line_end, names))
