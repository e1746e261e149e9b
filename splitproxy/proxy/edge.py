"""Connections of which there is more to know than who connects: TLS, a PROXY header, a peer whose word is taken.

These are classes of their own, so that a connection of a plain listener pays nothing for any of it.
"""

import select
from typing import TYPE_CHECKING, ClassVar, Final

from splitproxy.core.forwarding import believed, forwarded_lines
from splitproxy.core.requests import RequestHead
from splitproxy.errors import MisdirectedRequest, ProxyError
from splitproxy.proxy.downstream import Downstream
from splitproxy.proxy.exchange import Exchange
from splitproxy.proxy.tracing import RecordedExchange, TracedExchange

if TYPE_CHECKING:
    import asyncio

    from splitproxy.core.proxy_protocol import Origin
    from splitproxy.core.routing import Rule
    from splitproxy.core.splitting import Backend
    from splitproxy.proxy.crowd import Crowd
    from splitproxy.proxy.door import Door
    from splitproxy.proxy.service import Service

FAREWELL: Final = 10.0
"""Seconds that a client has to take what is on its way and to agree to the end of TLS."""
_LOOK: Final = 0.2
"""Seconds between two looks at whether a client has taken its last answer."""


class EdgeExchange(Exchange):
    """A request that came by way of such a connection."""

    __slots__ = ()

    downstream: "EdgeDownstream"

    def begin(self, head: RequestHead, rest: bytes) -> None:
        """Find out how it came, then route it."""
        if self.downstream.admit(head):
            super().begin(head, rest)

    def _split(self, rule: "Rule") -> "Backend":
        backend = super()._split(rule)
        if self.issued and self.downstream.scheme == b"https":
            affinity = None if rule.live is None else rule.live.affinity
            if affinity is None or not affinity.settles(self.issued):
                self.issued = b"%b; Secure\r\n" % self.issued[:-2]
        return backend


class TracedEdgeExchange(EdgeExchange, TracedExchange):
    """The same in a worker that traces."""

    __slots__ = ()


class RecordedEdgeExchange(EdgeExchange, RecordedExchange):
    """The same, recorded."""

    __slots__ = ()


TracedEdgeExchange.recorded = RecordedEdgeExchange


class EdgeDownstream(Downstream):
    """A client's connection through a `Door`."""

    __slots__ = ("_door", "_origin", "_own", "_peer", "_trusted", "asked", "scheme")

    exchange_class: ClassVar[type[Exchange]] = EdgeExchange
    traced_class: ClassVar[type[Exchange]] = TracedEdgeExchange

    asked: bytes | None
    """The name in the handshake, where a request's Host must be the same; None: nothing to compare."""

    def __init__(self, service: "Service", crowd: "Crowd", door: "Door", origin: "Origin | None") -> None:
        """`origin` is what a PROXY header said."""
        super().__init__(service, crowd)
        self.spares = service.edge_spares
        self._door, self._origin = door, origin
        self.scheme = b"http" if door.server is None else b"https"
        self.asked = None
        self._peer, self._own, self._trusted = b"", 0, False

    def connection_made(self, transport: "asyncio.BaseTransport") -> None:
        """Take note of who it is, then wait for a head."""
        super().connection_made(transport)
        if self._origin is not None:
            self.address, self.port = self._origin
        self._peer, self._own = self.address, self.port
        self._trusted = self._door.trust.covers(self._peer)
        server = self._door.server
        if server is not None and server.mutual:  # they prove it for a name, so that is the one they may ask
            name = server.asked.get(transport.get_extra_info("ssl_object"))
            self.asked = None if name is None else name.encode()

    def admit(self, head: RequestHead) -> bool:
        """Take in what a request says of its way; return whether it may be served."""
        if self.asked is not None and head.host != self.asked:
            self.exchange = None
            self.refuse(MisdirectedRequest("Host is not the name asked for in the TLS handshake"))
            return False
        if self._trusted:
            own = b"http" if self._door.server is None else b"https"
            arrival = believed(head, self._peer, own, self._own, self._door.trust)
            self.address, self.scheme, self.port, self.forwarded = arrival
            self.authority = head.authority
        return True

    def forward_for(self, authority: bytes) -> None:
        """Compose the X-Forwarded fields for `authority`, of a peer that is not trusted."""
        self.authority = authority
        self.forwarded = forwarded_lines(self.address, self.scheme, authority)

    def refuse(self, error: ProxyError) -> None:
        """Answer bytes that never became a request: they are the peer's, whoever its last request was for."""
        self.address = self._peer
        super().refuse(error)

    # --- TLS, which has no half-closed connections ------------------------------------------------------------------
    def data_received(self, data: bytes) -> None:
        """Read on, unless we have said that this is the end: what crosses that gets no answer, so it is no request."""
        if not self.transport.is_closing():
            super().data_received(data)

    def eof_received(self) -> bool:
        """Take the end of what the client sends. Over TLS nothing can be sent after it."""
        return super().eof_received() and self._door.server is None

    def linger(self) -> None:
        """Close; over TLS, closing itself waits for the client to agree, and reads on till then."""
        super().linger()
        if self.lingering and self._door.server is not None:
            self._see_off(self.service.wheel.now)
            self.set_deadline(self.deadline)

    def _see_off(self, now: float) -> None:
        """Close; over TLS as soon as all that is sent is with the kernel: from then on there is a limit to the time."""
        if self._door.server is None or self.transport.is_closing():
            super()._see_off(now)
        elif self.transport.get_write_buffer_size():
            super()._see_off(now)
            self.deadline = min(self.deadline, now + _LOOK)
        elif self._has_room():
            self.transport.close()
            self.deadline = now + FAREWELL
        else:
            self.patience = self.patience or now + self.service.limits.keep_alive_timeout
            if now < self.patience:
                self.deadline = now + _LOOK
            else:
                self.transport.abort()

    def _has_room(self) -> bool:
        """Return whether the kernel takes more, so that nothing can be waiting between it and TLS."""
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), select.POLLOUT)
        return bool(poll.poll(0))
