"""Upgraded connections: bytes both ways, with back-pressure, half-closes and an idle limit (RFC 9110 §7.8)."""

from typing import TYPE_CHECKING, Final

from splitproxy.core.headers import compose_response
from splitproxy.core.responses import ResponseHead
from splitproxy.errors import UpstreamProtocolError
from splitproxy.proxy.upstream import Connection

if TYPE_CHECKING:
    from splitproxy.proxy.exchange import Exchange

FLUSH: Final = 30.0
"""Seconds that an endpoint has to take what was sent to it before its tunnel ended."""


def open_tunnel(exchange: "Exchange", head: ResponseHead) -> None:
    """Relay a 101 that was asked for and let bytes pass both ways; refuse any other (RFC 9110 §7.8)."""
    connection, offered = exchange.connection, exchange.head.upgrade
    assert connection is not None
    fault = ""
    if not offered or head.upgrade not in {word.strip() for word in offered.split(b",")}:
        fault = "101 to a protocol that was not asked for"
    elif not exchange.upload_done:  # the rest of the body would be taken for what comes after it
        fault = "101 before the request was complete"
    if fault:
        connection.abandon()
        exchange.on_failure(UpstreamProtocolError(fault))
        return
    exchange.begun, exchange.timed = True, False
    data = compose_response(head, b"Connection: Upgrade\r\nUpgrade: %b\r\n" % head.upgrade)
    exchange.bytes_out += len(data)
    exchange.downstream.transport.write(data)
    tunnel = Tunnel(exchange, connection, exchange.timeouts.tunnel_idle)
    rule, backend = exchange.rule, exchange.backend
    assert rule is not None
    assert backend is not None
    exchange.service.recalls.take(tunnel, rule, backend)
    tunnel.open()


class Tunnel:
    """What an exchange becomes after 101: stands in its place on both connections."""

    __slots__ = (
        "_bytes_out",
        "_client_ended",
        "_connection",
        "_endpoint_ended",
        "_exchange",
        "_idle",
        "keep_alive",
        "method",
        "recall",
        "upload_done",
    )

    def __init__(self, exchange: "Exchange", connection: Connection, idle: float) -> None:
        self.keep_alive = False
        self.recall: set[Tunnel] | None = None
        """Those that are called back together with this one; None: it is not."""
        self._exchange = exchange
        self._connection = connection
        self._idle = idle
        self._bytes_out = 0
        self._client_ended = self._endpoint_ended = False

    def open(self) -> None:
        """Take the exchange's place."""
        downstream = self._exchange.downstream
        downstream.exchange = self
        self._connection.user = None
        self._connection.relay = self
        self._touch()
        if downstream.buffer:  # what the client sent right behind its head
            early, downstream.buffer = downstream.buffer, b""
            downstream.resume()
            self.on_client_data(early)

    # --- the client's side -------------------------------------------------------------------------------------------
    def on_client_data(self, data: bytes) -> None:
        """Relay to the endpoint."""
        if not self._endpoint_ended or not self._connection.transport.is_closing():
            self._connection.write(data)
        self._touch()

    def on_client_eof(self) -> bool:
        """Pass the client's half-close on."""
        self._client_ended = True
        if self._endpoint_ended:
            self.close()
            return False
        transport = self._connection.transport
        if not transport.can_write_eof():  # TLS cannot end one side alone, and the endpoint must hear of the end
            self.close()
            return False
        if not transport.is_closing():
            transport.write_eof()
        return True

    def on_client_gone(self) -> None:
        """The client's connection is lost: so is the endpoint's."""
        self.close()

    def pause_download(self) -> None:
        """Stop reading from the endpoint."""
        self._connection.pause()

    def resume_download(self) -> None:
        """Read from the endpoint again."""
        self._connection.resume()

    def on_deadline(self, now: float) -> None:
        """Nothing moved for too long."""
        self.close()

    # --- the endpoint's side -----------------------------------------------------------------------------------------
    def on_tunnel(self, data: bytes) -> None:
        """Relay to the client."""
        self._bytes_out += len(data)
        downstream = self._exchange.downstream
        if not downstream.closed:
            downstream.transport.write(data)
        self._touch()

    def on_tunnel_end(self) -> None:
        """Pass the endpoint's half-close, or the loss of its connection, on."""
        self._endpoint_ended = True
        downstream = self._exchange.downstream
        if self._client_ended or self._connection.relay is None or downstream.closed:
            self.close()
        elif downstream.transport.can_write_eof():
            downstream.transport.write_eof()
        else:  # TLS cannot end one side alone, and nobody takes what the client might still say
            self.close()

    def pause_upload(self) -> None:
        """Stop reading from the client."""
        self._exchange.downstream.pause()

    def resume_upload(self) -> None:
        """Read from the client again."""
        self._exchange.downstream.resume()

    # --- the end -----------------------------------------------------------------------------------------------------
    def _touch(self) -> None:
        downstream = self._exchange.downstream
        downstream.set_deadline(downstream.service.wheel.now + (self._idle or 86_400.0))

    def close(self) -> None:
        """End both sides; what is on its way has a while to arrive."""
        exchange = self._exchange
        if exchange.finished:
            return
        if self.recall is not None:
            self.recall.discard(self)
        downstream, connection = exchange.downstream, self._connection
        connection.relay = None
        transport = connection.transport
        if not transport.is_closing():
            transport.close()
        if transport.get_write_buffer_size():  # for an endpoint that may never read it
            exchange.service.loop.call_later(FLUSH, transport.abort)
        exchange.close_tunnel(self._bytes_out)
        if not downstream.closed:
            downstream.transport.close()
