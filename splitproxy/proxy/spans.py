"""Recorded requests on their way out of a worker: gathered, handed to control, dropped where it does not keep up.

Nothing here waits: who serves requests has no time for who looks at them later.
"""

import errno
import socket
from random import getrandbits
from time import perf_counter_ns, time_ns
from typing import TYPE_CHECKING, Final

from splitproxy.core import stats
from splitproxy.core.tracing import LONGEST, SAMPLED, Call, Context, Span, pack, parent_line

if TYPE_CHECKING:
    import asyncio

    from splitproxy.core.tracing import Sampling
    from splitproxy.proxy.ending import Ending

MOST_WAITING: Final = 1024
"""Spans that wait for control; further ones are dropped and counted."""
_BATCH: Final = 32
"""Spans in a message: with every text of the greatest length, what a socket takes at once."""
_BUFFER: Final = 1 << 20
"""Bytes of messages that the kernel is asked to keep for control; it may keep fewer."""
_FLUSH_AFTER: Final = 0.25
"""Seconds for which spans are gathered."""
_SUCCESS, _SERVER_ERROR = stats.OUTCOMES.index("success"), stats.OUTCOMES.index("5xx")


def new_span() -> bytes:
    """Return the id of a new span. Chance need not be unguessable here, only rarely the same."""
    return b"%016x" % getrandbits(64)


class SpanBuffer:
    """The spans of one worker that control has not got yet."""

    def __init__(self, loop: "asyncio.AbstractEventLoop", cells: stats.Cells) -> None:
        """Drops are counted in `cells`."""
        self._loop, self._cells = loop, cells
        self._waiting: list[Span] = []
        self._control: socket.socket | None = None

    def attach(self, descriptor: int) -> None:
        """Send to control over this socket from now on; one before leads to a control that is no more."""
        self.close()
        self._control = socket.socket(fileno=descriptor)
        self._control.setblocking(False)
        self._control.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)

    def close(self) -> None:
        """Close the socket, if there is one."""
        if self._control is not None:
            self._control.close()
            self._control = None

    def take(self, span: Span) -> None:
        """Keep a span for control, or drop it: too many wait."""
        waiting = self._waiting
        if len(waiting) >= MOST_WAITING:
            self._cells[stats.SPAN_DROPS] += 1 + len(span.calls)
            return
        waiting.append(span)
        if len(waiting) == 1:
            self._loop.call_later(_FLUSH_AFTER, self._flush_again)

    def flush(self) -> None:
        """Hand over what waits, as far as control takes it."""
        while self._waiting and self._control is not None:
            part = self._waiting[:_BATCH]
            try:
                self._control.send(pack(part))
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.EMSGSIZE:  # control is gone; the next one will say where to send to
                    self.close()
                    return
                self._cells[stats.SPAN_DROPS] += sum(1 + len(span.calls) for span in part)
            del self._waiting[:_BATCH]

    def _flush_again(self) -> None:
        self.flush()
        if self._waiting:
            self._loop.call_later(_FLUSH_AFTER, self._flush_again)


class Recording:
    """One request while it is recorded: who asked, its span, and its attempts at upstreams so far."""

    __slots__ = (
        *("_answered", "_calls", "_counted", "_failure", "_next", "_parent", "_since", "_state", "_target", "flags"),
        *("_zero", "span", "trace"),
    )

    def __init__(self, trace: bytes, context: Context | None = None, state: bytes = b"") -> None:
        """`context` is what it came with, and `state` the `tracestate` beside that."""
        self.trace = trace
        self.span = new_span()
        self._parent = b"" if context is None else context.span
        self._state = state
        self.flags = SAMPLED if context is None else context.flags | SAMPLED
        self._calls: list[Call] = []
        self._next = new_span()
        """The span of the attempt that is made, or that will be made next."""
        self._since = 0.0
        """When the attempt before was over."""
        self._counted = self._answered = 0
        self._failure = ""
        self._target = b""
        self._zero = time_ns() - perf_counter_ns()
        """When the clock of durations stood at zero, so that all times of a trace fit together."""

    @property
    def line(self) -> bytes:
        """The `traceparent` that the upstream is sent in the attempt made next."""
        return parent_line(self.trace, self._next, self.flags)

    def sent(self, head: bytes) -> None:
        """Take note of the head with which the attempt begins."""
        self._target = head[: head.find(b"\r\n")].split(b" ")[1]

    def answered(self, status: int) -> None:
        """Take note of the status of the upstream's answer; what failed before was followed by another try."""
        self._answered, self._failure = status, ""

    def failed(self, outcome: str) -> None:
        """Take note of why no answer, or not all of it, will come."""
        self._failure = outcome

    def end_call(self, exchange: "Ending", sampling: "Sampling", now: float, outcome: int = _SUCCESS) -> None:
        """Note the attempt that is over, if there was one; `outcome` is its, where no failure was noted."""
        if exchange.attempts <= self._counted:
            return
        begun = max(exchange.attempt_started or exchange.started, self._since)
        failure, backend, endpoint = self._failure, exchange.backend, exchange.endpoint
        if not failure and self._answered >= 400 and outcome <= _SERVER_ERROR:
            failure = str(self._answered)
        elif not failure and outcome != _SUCCESS:
            failure = stats.OUTCOMES[outcome]
        unconnected = endpoint is None or failure in _UNCONNECTED
        path, _, query = (self._target or exchange.head.target).partition(b"?")
        self._calls.append(
            Call(
                span=self._next,
                start=self._at(begun),
                end=self._at(now),
                upstream="" if backend is None else backend.upstream,
                role="none" if backend is None else backend.role,
                endpoint=b"" if unconnected or endpoint is None else endpoint.name,
                scheme="http" if backend is None or backend.pool.plan.tls is None else "https",
                path=path[:LONGEST],
                query=sampling.told(query)[:LONGEST],
                status=self._answered,
                error=failure,
                resends=len(self._calls),
            )
        )
        self._since, self._counted = now, exchange.attempts
        self._next, self._answered, self._failure, self._target = new_span(), 0, "", b""

    def _at(self, seconds: float) -> int:
        """Return a moment of the clock of durations in nanoseconds since 1970."""
        return self._zero + int(seconds * 1e9)

    def whole(self, exchange: "Ending", elapsed: float, sampling: "Sampling") -> Span:
        """Return what is told of a request that is over after `elapsed` seconds."""
        head, rule, backend, error = exchange.head, exchange.rule, exchange.backend, exchange.error
        path = head.target.partition(b"?")[0]
        live = None if rule is None else rule.live
        return Span(
            trace=self.trace,
            span=self.span,
            parent=self._parent,
            state=self._state,
            flags=self.flags,
            start=self._at(exchange.started),
            end=self._at(exchange.started + elapsed),
            request_id=exchange.request_id,
            method=head.method[:LONGEST],
            scheme=exchange.downstream.scheme,
            authority=head.authority[:LONGEST],
            path=path[:LONGEST],
            query=sampling.told(head.query)[:LONGEST],
            minor=head.minor,
            client=exchange.downstream.address,
            agent=(head.field(b"user-agent") or b"")[:LONGEST],
            status=exchange.status,
            error="" if error is None else error.code,
            route="" if rule is None else rule.route,
            rule="" if rule is None else rule.name,
            upstream="" if backend is None else backend.upstream,
            role="none" if backend is None else backend.role,
            reason=exchange.reason,
            rollout="" if live is None else live.name,
            calls=tuple(self._calls),
        )


_UNCONNECTED: Final = frozenset(("connect_failed", "connect_timeout"))
