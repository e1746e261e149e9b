"""Traces: the context that requests carry (W3C Trace Context), which of them are sampled, and what a span says.

A trace is told by 32 hexadecimal digits, a span of it by 16. `traceparent` carries both, of whoever sends the request,
and whether that sender records; `tracestate`, which we never change, belongs to the systems that wrote it.
"""

import marshal
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from splitproxy.core.filters import Plain

if TYPE_CHECKING:
    from splitproxy.core.requests import RequestHead

_HALF: Final = 1 << 64
"""Values of the right half of a trace id, by which a ratio decides; so do OpenTelemetry's SDKs (TraceIdRatioBased)."""
SAMPLED: Final = 1
"""The flag of a `traceparent` whose sender records (W3C Trace Context §3.2.2.5)."""
_RANDOM: Final = 2
"""The flag of a trace id whose right half is random (Trace Context Level 2, §3.2.2.5.2); passed on as it came."""
_PARENT: Final = re.compile(
    rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-[\x21-\x7e]*)?"
)
MARK: Final = b"\r\ntrace"
"""What a head in lower case must hold to have a field of the trace context at all."""
_NAME: Final = b"\r\ntraceparent:"
_UNRECORDED: Final = re.compile(
    rb"\r\n(?i:traceparent):[ \t]*00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-0[02][ \t]*\r\n"
)
"""The line of nearly all senders that do not record."""
FIELDS: Final = (b"traceparent", b"tracestate")
LONGEST: Final = 1024
"""Bytes of a text in a span; the rest is left out."""
HIDDEN: Final = "REDACTED"
"""What stands for the value of a query parameter (OpenTelemetry, `url.query`)."""


class Context(NamedTuple):
    """What a request's `traceparent` says."""

    trace: bytes
    """32 hexadecimal digits."""
    span: bytes
    """Of its sender, 16 hexadecimal digits."""
    flags: int

    @property
    def sampled(self) -> bool:
        """Whether its sender records."""
        return bool(self.flags & SAMPLED)


def unrecorded(head: "RequestHead", at: int) -> bool:
    """Return whether it is plain that the sender does not record; `at` is where `MARK` was found in `head.low`."""
    found = _UNRECORDED.match(head.raw, at + head.line_end)
    return found is not None and head.low.find(_NAME, at + 1) < 0


def parse_parent(value: bytes | None) -> Context | None:
    """Return what a `traceparent` says; None: there is none, or none that may be believed (Trace Context §3.2).

    Of a later version, what this one knows is taken (§4.3.3). A repeated field is invalid, and comes joined by a comma.
    """
    found = None if value is None else _PARENT.fullmatch(value)
    if found is None or (found[1] == b"00" and found[5] is not None):
        return None
    return Context(found[2], found[3], int(found[4], 16))


def parent_line(trace: bytes, span: bytes, flags: int) -> bytes:
    """Return the `traceparent` line by which the span `span` of ours is told to whom it asks."""
    return b"traceparent: 00-%b-%b-%02x\r\n" % (trace, span, flags & (SAMPLED | _RANDOM))


class Sampling:
    """Which requests are recorded (OpenTelemetry's samplers), and what is told of them."""

    __slots__ = ("bound", "follows", "query")

    def __init__(self, plain: Plain) -> None:
        """`plain` is the block `tracing` of the plain snapshot."""
        kind: str = plain["sampler"]
        self.follows = kind.startswith("parentbased_")
        """Whether the sender's decision is ours, if it made one."""
        self.bound = round(_share(kind, plain["ratio"]) * _HALF)
        """Traces whose id has a right half below it are sampled, where we decide."""
        self.query: str = plain["query"]

    def wants(self, context: Context) -> bool:
        """Return whether to record a request that came with `context`."""
        if self.follows:
            return context.sampled
        return int(context.trace[16:], 16) < self.bound

    def told(self, query: bytes) -> bytes:
        """Return what of a query is told."""
        if not query or self.query == "none":
            return b""
        return query if self.query == "full" else without_values(query)


def _share(kind: str, ratio: float) -> float:
    if kind.endswith("traceidratio"):
        return ratio
    return 1.0 if kind.endswith("always_on") else 0.0


def without_values(query: bytes) -> bytes:
    """Return a query with its parameters' values hidden; a part without a name is hidden as a whole."""
    hidden = HIDDEN.encode()
    parts = (part.partition(b"=") for part in query.split(b"&"))
    return b"&".join(b"%b=%b" % (name, hidden) if equals else name and hidden for name, equals, _ in parts)


# --- spans -----------------------------------------------------------------------------------------------------------
class Call(NamedTuple):
    """One attempt at an upstream: a client's span, child of the request's."""

    span: bytes
    start: int
    """Nanoseconds since 1970, as all times here."""
    end: int
    upstream: str
    role: str
    endpoint: bytes
    """`host:port`; empty when no connection was made."""
    scheme: str
    path: bytes
    """What was asked for there, which a filter may have changed."""
    query: bytes
    """What of it is told."""
    status: int
    """0: no answer came."""
    error: str
    """Why it failed, one of `stats.OUTCOMES` or a status; empty when it did not."""
    resends: int
    """Attempts before it."""


class Span(NamedTuple):
    """A request that was recorded: a server's span. Bytes are as they came, but cut at `LONGEST`."""

    trace: bytes
    span: bytes
    parent: bytes
    """Empty: the trace begins here."""
    state: bytes
    """The `tracestate` that came with it."""
    flags: int
    start: int
    end: int
    request_id: bytes
    method: bytes
    scheme: bytes
    authority: bytes
    path: bytes
    query: bytes
    """What of it is told."""
    minor: int
    client: bytes
    agent: bytes
    status: int
    error: str
    """Why the proxy answered by itself or cut the answer off: an error's code; empty when it did not."""
    route: str
    rule: str
    upstream: str
    role: str
    reason: str
    rollout: str
    calls: tuple[Call, ...]


def pack(spans: Iterable[Span]) -> bytes:
    """Return spans as a message to a process of the same program."""
    return marshal.dumps([(*span[:-1], [tuple(call) for call in span.calls]) for span in spans])


def unpack(message: bytes) -> list[Span]:
    """Return the spans of a message that `pack` made."""
    whole: list[Any] = marshal.loads(message)
    return [Span._make((*span, tuple(map(Call._make, calls)))) for *span, calls in whole]
