"""The client's side: one connection, the heads read from it, its limits, deadlines and end (RFC 9112 §9)."""

import asyncio
import re
import socket
import struct
from typing import TYPE_CHECKING, ClassVar, Final, cast

from splitproxy.core.requests import check_partial, parse_request
from splitproxy.errors import BadRequest, HeadTooLarge, ProxyError, RequestTimeout, TargetTooLong
from splitproxy.proxy.answers import error_answer
from splitproxy.proxy.exchange import Exchange
from splitproxy.proxy.tracing import TracedExchange
from splitproxy.proxy.tunnel import Tunnel
from splitproxy.proxy.upstream import WRITE_HIGH

if TYPE_CHECKING:
    from splitproxy.proxy.crowd import Crowd
    from splitproxy.proxy.service import Service
    from splitproxy.proxy.timers import Timed

_RESET: Final = struct.pack("ii", 1, 0)
LINGER: Final = 2.0
"""Seconds that a client may go on sending after an early answer, so that a reset does not destroy that answer."""
_EMPTY_LINES: Final = re.compile(rb"(?:\r\n)+")
_FIRST_WORD: Final = re.compile(rb"\r?|[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}(?: .*)?", re.DOTALL)
_NOTHING: Final = (b"", b"\r")
"""What is in the buffer while a head has not begun, an empty line perhaps."""
_FIRST_BYTES: Final = 64
"""So many decide whether it begins as a request does."""


class Downstream(asyncio.Protocol):
    """A client's connection. Requests on it are served one after the other."""

    __slots__ = (
        *(
            "address",
            "authority",
            "buffer",
            "closed",
            "congested",
            "crowd",
            "deadline",
            "eof",
            "exchange",
            "forwarded",
            "lingering",
            "next_look",
        ),
        *("patience", "port", "reading", "service", "slot", "spares", "transport", "unsent"),
    )

    exchange_class: ClassVar[type[Exchange]] = Exchange
    traced_class: ClassVar[type[Exchange]] = TracedExchange
    scheme: bytes = b"http"
    """What the client speaks: http | https."""
    transport: asyncio.Transport

    def __init__(self, service: "Service", crowd: "Crowd") -> None:
        """`crowd` is who else came in at the same listener."""
        self.service = service
        self.crowd = crowd
        self.exchange: Exchange | Tunnel | None = None
        self.spares: list[Exchange] = service.spares
        """Some that are over and may serve the next request: making one costs as much as some of its steps."""
        self.buffer = b""
        """Bytes of a head that is not complete, or of requests whose turn has not come."""
        self.address = b""
        self.authority = b""
        self.forwarded = b""
        """The X-Forwarded fields for `authority`: the same for all requests of most connections."""
        self.deadline = 0.0
        self.next_look = 0.0
        self.slot: set[Timed] | None = None
        self.closed = self.congested = self.eof = self.lingering = False
        self.reading = True
        self.unsent = 0
        """Bytes that waited for the client to take them when that was last looked at, after its last answer."""
        self.patience = 0.0
        """When it must have taken some of them."""

    # --- what the event loop does ------------------------------------------------------------------------------------
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a head."""
        service = self.service
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(WRITE_HIGH)
        peer = transport.get_extra_info("peername")
        self.address = peer[0].encode() if peer else b"unknown"
        own = transport.get_extra_info("sockname")
        self.port = own[1] if own else 80
        service.connected(self)
        self.deadline = service.wheel.now + service.limits.header_timeout
        service.wheel.watch(self)
        crowd = self.crowd
        crowd.inside += 1
        if crowd.inside > crowd.limit:
            self._turn_away(crowd)

    def _turn_away(self, crowd: "Crowd") -> None:
        """Tell one client too many so at once, whatever it may want, and close."""
        service, self.crowd = self.service, crowd.leaving
        service.turned_away()
        error = crowd.turn_away()
        if error is None:
            self.transport.abort()
            return
        self.transport.write(error_answer(error, service.request_id(), service.date(), close=True))
        self.linger()

    def data_received(self, data: bytes) -> None:
        """Read heads between requests; within one, its body."""
        if self.exchange is not None:
            self.exchange.on_client_data(data)
        elif not self.lingering:
            self.read_head(self.buffer + data if self.buffer else data)

    def eof_received(self) -> bool:
        """Take the client's half-close: what it has asked for completely is still answered."""
        self.eof = True
        if self.exchange is None:
            if not self.buffer or self.lingering:
                return False
            if b"\r\n\r\n" in self.buffer:  # requests whose turn comes in a moment
                return True
            self.refuse(BadRequest("the connection ended within the head"))
            return False
        return self.exchange.on_client_eof()

    def connection_lost(self, error: Exception | None) -> None:
        """End whatever goes on."""
        self.closed = True
        self.service.wheel.forget(self)
        self.service.disconnected(self)
        self.crowd.inside -= 1
        if self.exchange is not None:
            self.exchange.on_client_gone()

    def pause_writing(self) -> None:
        """Stop reading from the endpoint: the client does not keep up."""
        self.congested = True
        if self.exchange is not None:
            self.exchange.pause_download()

    def resume_writing(self) -> None:
        """Read from the endpoint again, or go on with requests that have waited."""
        self.congested = False
        if self.exchange is not None:
            self.exchange.resume_download()
        else:
            self.resume()
            if self.buffer:
                self.service.loop.call_soon(self._next)

    def on_deadline(self, now: float) -> None:
        """Act on the time that has passed: an idle connection is closed, a slow head refused, a request told."""
        if self.closed:
            return
        if self.exchange is not None:
            self.exchange.on_deadline(now)
        elif self.lingering or self.transport.is_closing():
            self._see_off(now)
        elif self.transport.get_write_buffer_size():  # an answer of which it has not taken all
            self.linger()
        elif self.buffer:
            self.refuse(RequestTimeout("the head did not arrive in time"))
        else:
            self.transport.close()
        if self.slot is None and not self.closed:
            self.service.wheel.watch(self)

    def _see_off(self, now: float) -> None:
        """Go on while the client takes what is left for it, however slowly; else end the connection."""
        unsent = self.transport.get_write_buffer_size()
        if unsent and unsent < (self.unsent or unsent + 1):
            self.unsent, self.patience = unsent, now + self.service.limits.keep_alive_timeout
        if unsent and now < self.patience:
            self.deadline = min(now + LINGER, self.patience)
        elif unsent or self.transport.is_closing() or self.transport.can_write_eof():
            self.transport.abort()
        else:  # over TLS closing is a conversation, for which there is a time limit
            self.transport.close()
            self.deadline = now + 2 * LINGER

    # --- heads -------------------------------------------------------------------------------------------------------
    def read_head(self, data: bytes) -> None:
        """Take a head from the beginning of `data`; begin an exchange when it is whole."""
        if data[:1] == b"\r":  # RFC 9112 §2.2: empty lines before a request are ignored
            found = _EMPTY_LINES.match(data)
            if found is not None:
                data = data[found.end() :]
        limits = self.service.limits
        end = data.find(b"\r\n\r\n") + 4
        rest = b""
        try:
            if end < 4:
                self._wait_for_more(data)
                return
            if end > limits.header_bytes:
                raise self._too_large(data)
            if end < len(data):
                data, rest = data[:end], data[end:]
            head = parse_request(data, limits.header_count, limits.uri_bytes)
        except ProxyError as error:
            self.buffer = data
            self.refuse(self._first_fault(data) or error)
            return
        self.buffer = b""
        if self.spares:
            exchange = self.spares.pop()
            exchange.downstream = self
        else:
            exchange = (self.exchange_class if self.service.sampling is None else self.traced_class)(self)
        self.exchange = exchange
        exchange.begin(head, rest)

    def _wait_for_more(self, data: bytes) -> None:
        service = self.service
        if len(data) > service.limits.header_bytes:
            raise self._too_large(data)
        known = 0 if self.buffer[:1] == b"\r" else len(self.buffer)  # empty lines may have been taken off the front
        if fault := self._first_fault(data, known):
            raise fault
        if self.buffer in _NOTHING and data not in _NOTHING:
            self.set_deadline(service.wheel.now + service.limits.header_timeout)
        self.buffer = data

    def _first_fault(self, data: bytes, known: int = 0) -> ProxyError | None:
        """Return what is wrong with a head before its end is seen: of several faults the one that pieces would show.

        In the first `known` bytes nothing is.
        """
        data = data[: self.service.limits.header_bytes]
        try:
            check_partial(data, known)
        except BadRequest as error:
            return error
        return None if _FIRST_WORD.fullmatch(data[:_FIRST_BYTES]) else BadRequest("this is not HTTP")

    def _too_large(self, data: bytes) -> ProxyError:
        limits = self.service.limits
        line_end = data.find(b"\r\n")
        if line_end < 0 or line_end > limits.uri_bytes + 64:
            return TargetTooLong(f"the target is over {limits.uri_bytes} bytes")
        return HeadTooLarge(f"the head is over {limits.header_bytes} bytes")

    def refuse(self, error: ProxyError) -> None:
        """Answer bytes that never became a request, and close."""
        request_id = self.service.request_id()
        self.transport.write(error_answer(error, request_id, self.service.date(), close=True))
        self.service.record_refusal(self, error, request_id)
        self.linger()

    # --- what exchanges do -------------------------------------------------------------------------------------------
    def set_deadline(self, deadline: float) -> None:
        """Have `on_deadline` called at `deadline`."""
        self.deadline = deadline
        if deadline < self.next_look:
            self.service.wheel.watch(self)

    def forward_for(self, authority: bytes) -> None:
        """Compose the X-Forwarded fields for `authority`; nobody is trusted, so what came in them has been cut."""
        self.authority = authority
        self.forwarded = b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: http\r\n" % self.address
        if authority:
            self.forwarded += b"X-Forwarded-Host: %b\r\n" % authority

    def pause(self) -> None:
        """Stop reading from the client."""
        if self.reading and not self.closed:
            self.reading = False
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read from the client again."""
        if not self.reading and not self.closed:
            self.reading = True
            self.transport.resume_reading()

    def done(self, keep_alive: bool) -> None:
        """Take note that the exchange is over: read the next head, wait for it, or close."""
        self.exchange = None
        if self.closed:
            return
        service = self.service
        if not keep_alive:
            self.linger()
            return
        self.deadline = service.wheel.now + service.limits.keep_alive_timeout
        if self.congested:  # nor are further requests taken from a client that does not read its answers
            self.pause()
            return
        if not self.reading:
            self.resume()
        if self.buffer:
            # Not from here: a flood of pipelined requests that are answered at once would nest ever deeper.
            service.loop.call_soon(self._next)
        elif self.eof:
            self.transport.close()

    def _next(self) -> None:
        if self.exchange is None and self.buffer and not (self.closed or self.lingering or self.congested):
            data, self.buffer = self.buffer, b""
            self.read_head(data)
            self._close_if_done()

    def _close_if_done(self) -> None:
        """Close when the client has half-closed and nothing of it is left to answer."""
        if self.eof and self.exchange is None and not self.lingering:
            self.transport.close()

    def drain(self) -> None:
        """Close if nothing is going on; else after the request that is."""
        if self.exchange is not None:
            self.exchange.keep_alive = False
        elif not self.buffer and not self.lingering:
            self.transport.close()

    def reset(self) -> None:
        """Cut the client off with a reset, so that it cannot take what it has for the whole answer."""
        if not self.closed:
            sock = self.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.transport.abort()

    def linger(self) -> None:
        """Close, but read on for a moment what the client is still sending (RFC 9112 §9.6)."""
        if self.closed or self.transport.is_closing():  # after a reset nothing may follow, not even a FIN
            return
        self.buffer = b""
        self.lingering, self.unsent = True, 0
        if self.eof:
            self.transport.close()
        else:
            self.resume()
            if self.transport.can_write_eof():
                self.transport.write_eof()
        self.set_deadline(self.service.wheel.now + LINGER)
