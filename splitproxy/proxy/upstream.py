"""The endpoint's side: one connection and how its responses are read (RFC 9112 §6.3, §9)."""

import asyncio
from typing import TYPE_CHECKING, Final, Protocol, cast

from splitproxy.core.chunked import ChunkedDecoder
from splitproxy.core.fields import Field
from splitproxy.core.responses import BODILESS, KNOWN_BYTES, ResponseHead, parse_known, parse_response
from splitproxy.errors import OutOfResources, UpstreamError, UpstreamProtocolError, UpstreamReset
from splitproxy.proxy.encryption import whole

if TYPE_CHECKING:
    from splitproxy.proxy.pool import Endpoint

MAX_HEAD: Final = 65_536
"""Bytes a response head may have; nginx allows 4 to 8 KiB, Envoy 60, HAProxy 16."""
MAX_INTERIM: Final = 16
"""1xx responses an endpoint may send before its answer."""
WRITE_HIGH: Final = 262_144
"""Bytes waiting to be sent at which the other side is no longer read from."""

IDLE, HEAD, LENGTH, CHUNKED, UNTIL_EOF, TUNNEL, CLOSED = range(7)


class User(Protocol):
    """Whoever sends a request on a connection: an exchange, or a mirror's copy of one."""

    method: bytes
    upload_done: bool

    def on_connection(self, connection: "Connection") -> None:
        """Take `connection`, which was waited for, and send."""

    def on_interim(self, head: ResponseHead) -> None:
        """Take a 1xx response."""

    def on_response(self, head: ResponseHead, pieces: list[bytes] | None, trailers: list[Field] | None) -> None:
        """Take the final head and what has come of the body; all in one, so that it can be sent on in one.

        `pieces` is None when there is no body by its nature (HEAD, 204, 304). When `trailers` is not None the response
        is complete, and the connection is no longer the user's; else `on_body` and `on_end` follow.
        """

    def on_whole(self, head: ResponseHead, body: bytes) -> None:
        """Take a complete response whose length its head says: as `on_response`, for what nearly all of them are."""

    def on_beginning(self, head: ResponseHead, body: memoryview) -> None:
        """Take a head and some of a body whose length it says: as `on_response` when `on_body` and `on_end` follow."""

    def on_body(self, pieces: list[bytes]) -> None:
        """Take the next bytes of the body."""

    def on_end(self, trailers: list[Field]) -> None:
        """Take note that the response is complete. The connection is no longer the user's."""

    def on_failure(self, error: UpstreamError | OutOfResources) -> None:
        """Take note that no (complete) response will come. The connection is no longer the user's."""

    def pause_upload(self) -> None:
        """Stop writing: the endpoint does not keep up."""

    def resume_upload(self) -> None:
        """Go on writing."""


class Relay(Protocol):
    """Whoever has a connection after an upgrade."""

    def on_tunnel(self, data: bytes) -> None:
        """Take bytes from the endpoint."""

    def on_tunnel_end(self) -> None:
        """Take note that the endpoint has ended its side, or is gone."""

    def pause_upload(self) -> None:
        """Stop writing: the endpoint does not keep up."""

    def resume_upload(self) -> None:
        """Go on writing."""


class Connection(asyncio.Protocol):
    """A connection to an endpoint; serves one user at a time."""

    __slots__ = (
        *("_buffer", "_decoder", "_halted", "_interim", "_keep", "_left", "endpoint", "idle_since", "mode", "paused"),
        *("relay", "reused", "transport", "user"),
    )

    transport: asyncio.Transport

    def __init__(self, endpoint: "Endpoint") -> None:
        self.endpoint = endpoint
        self.user: User | None = None
        self.relay: Relay | None = None
        self.mode = IDLE
        self.reused = False
        """Whether it has served a request before: only then may its death be a keep-alive race."""
        self.idle_since = 0.0
        self.paused = False
        self._buffer = b""
        self._decoder: ChunkedDecoder | None = None
        self._left = 0
        self._keep = True
        self._interim = 0
        self._halted = False
        """Whether it is not read from, because the user's client does not keep up."""

    # --- what users do -----------------------------------------------------------------------------------------------
    def send(self, user: User, head: bytes) -> None:
        """Send a request's head, with as much of its body as there is, for `user`."""
        self.user = user
        self.mode = HEAD
        self.transport.write(head)

    def write(self, data: bytes) -> None:
        """Send more of the request's body, or of a tunnel."""
        self.transport.write(data)

    def abandon(self) -> None:
        """Give the connection up in the middle of an exchange; the user hears no more of it."""
        self.user = None
        self.abort()

    def pause(self) -> None:
        """Stop reading: whoever takes the answer does not keep up. Without effect once the answer is complete."""
        if (self.user or self.relay) is not None and not self.transport.is_closing():
            self._halted = True
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        if self._halted and not self.transport.is_closing():
            self._halted = False
            self.transport.resume_reading()

    def abort(self) -> None:
        """Close at once."""
        if self.mode != CLOSED:
            self.transport.abort()

    # --- what the event loop does ------------------------------------------------------------------------------------
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(WRITE_HIGH)

    def data_received(self, data: bytes) -> None:
        """Read a response, or whatever the present mode expects."""
        user = self.user
        if user is None:
            self._read_unasked(data)
            return
        mode = self.mode
        if mode == HEAD:
            self._read_head(user, self._buffer + data if self._buffer else data)
        elif mode == LENGTH:
            size = len(data)
            if size < self._left:
                self._left -= size
                user.on_body([data])
            else:
                self._read_length(user, data)
        elif mode == CHUNKED:
            self._read_chunked(user, data)
        elif mode == UNTIL_EOF:
            user.on_body([data])

    def _read_unasked(self, data: bytes) -> None:
        if self.relay is not None:
            self.relay.on_tunnel(data)
        else:  # an idle endpoint has nothing to say (RFC 9112 §9.2): such a connection is never used again
            self.endpoint.discard(self)
            self.abort()

    def eof_received(self) -> bool:
        """Take the endpoint's end of stream: the regular end of a body that has no length."""
        user = self.user
        if user is not None and self.mode == UNTIL_EOF:
            if whole(self.transport):  # else the user is told of a failure when the connection is lost
                self._complete()
                user.on_end([])
        elif self.relay is not None:
            self.relay.on_tunnel_end()
            return self.transport.can_write_eof()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """Tell the user, if there is one, and the pool."""
        mode, self.mode = self.mode, CLOSED
        user, self.user = self.user, None
        relay, self.relay = self.relay, None
        self.endpoint.lost(self, mode)
        if user is not None:
            silent = mode == HEAD and not self._buffer and not self._interim
            detail = "the endpoint closed the connection before its answer was complete"
            user.on_failure(UpstreamReset(detail, silent=silent))
        elif relay is not None:
            relay.on_tunnel_end()

    def pause_writing(self) -> None:
        """Pass back-pressure on to whoever feeds the request body."""
        self.paused = True
        writer = self.user or self.relay
        if writer is not None:
            writer.pause_upload()

    def resume_writing(self) -> None:
        """Take back-pressure away."""
        self.paused = False
        writer = self.user or self.relay
        if writer is not None:
            writer.resume_upload()

    # --- reading a response ------------------------------------------------------------------------------------------
    def _read_head(self, user: User, data: bytes) -> None:
        end = data.find(b"\r\n\r\n") + 4
        if end < 4:
            if len(data) > MAX_HEAD or not b"HTTP/1.".startswith(data[:7]):
                self._fail(user, "the response head is too large or not HTTP/1")
                return
            self._buffer = data
            return
        self._buffer = b""
        if end > MAX_HEAD:
            self._fail(user, "the response head is too large")
            return
        try:
            head = parse_known(data[:end]) if end <= KNOWN_BYTES else parse_response(data[:end])
        except UpstreamProtocolError as error:
            self._fail(user, error.detail)
            return
        left = head.content_length - len(data) + end
        if not head.sized or user.method == b"HEAD" or left < 0:
            self._read_unusual(user, head, data[end:])
        elif left:
            self._keep = not head.close
            self.mode, self._left = LENGTH, left
            user.on_beginning(head, memoryview(data)[end:])
        else:
            self._keep = not head.close
            self._complete()
            user.on_whole(head, data[end:])

    def _read_unusual(self, user: User, head: ResponseHead, rest: bytes) -> None:
        if head.status < 200 and head.status != 101:
            self._read_interim(user, head, rest)
        else:
            self._keep = not head.close
            if head.status >= 500:
                self.endpoint.blame(over=False)
            self._begin_body(user, head, rest)

    def _begin_body(self, user: User, head: ResponseHead, rest: bytes) -> None:
        """Find out how the body ends (RFC 9112 §6.3) and take what has come of it."""
        status = head.status
        if status == 101:
            self.mode = TUNNEL
            user.on_response(head, None, None)
            if rest and self.relay is not None:
                self.relay.on_tunnel(rest)
        elif status in BODILESS or user.method == b"HEAD":
            self._keep = self._keep and not rest
            self._complete()
            user.on_response(head, None, [])
        elif head.chunked:
            self._begin_chunked(user, head, rest)
        elif head.content_length >= 0:
            self._begin_length(user, head, rest)
        else:
            self.mode, self._keep = UNTIL_EOF, False
            user.on_response(head, [rest] if rest else [], None)

    def _begin_length(self, user: User, head: ResponseHead, rest: bytes) -> None:
        left = head.content_length - len(rest)
        if left > 0:
            self.mode, self._left = LENGTH, left
            user.on_beginning(head, memoryview(rest))
            return
        self._keep = self._keep and not left  # bytes that no response accounts for: never reuse such a connection
        self._complete()
        user.on_whole(head, rest[: head.content_length])

    def _begin_chunked(self, user: User, head: ResponseHead, rest: bytes) -> None:
        self.mode = CHUNKED
        self._decoder = decoder = ChunkedDecoder()
        try:
            pieces, rest = decoder.feed(rest)
        except ValueError as error:
            self._fail(user, str(error))
            return
        if decoder.done:
            self._keep = self._keep and not rest
            self._complete()
            user.on_response(head, pieces, decoder.trailers)
        else:
            user.on_response(head, pieces, None)

    def _read_interim(self, user: User, head: ResponseHead, rest: bytes) -> None:
        self._interim += 1
        if self._interim > MAX_INTERIM:
            self._fail(user, "too many interim responses")
            return
        user.on_interim(head)
        if rest and self.user is user:
            self._read_head(user, rest)

    def _read_length(self, user: User, data: bytes) -> None:
        """Take the end of a body of known length."""
        left = self._left - len(data)
        if left < 0:
            self._keep = False
            data = data[:left]
        self._complete()
        user.on_body([data])
        user.on_end([])

    def _read_chunked(self, user: User, data: bytes) -> None:
        decoder = self._decoder
        assert decoder is not None
        try:
            pieces, rest = decoder.feed(data)
        except ValueError as error:
            self._fail(user, str(error))
            return
        if decoder.done:
            self._keep = self._keep and not rest
            self._complete()
        if pieces:
            user.on_body(pieces)
        if decoder.done:
            user.on_end(decoder.trailers)

    def _complete(self) -> None:
        """The response is whole: give the connection back first, so that the next request finds it."""
        user = self.user
        assert user is not None
        self.user = None
        self.mode = IDLE
        self._interim = 0
        self._decoder = None
        self.reused = True
        if self._halted:  # by an interim response that the client had no room for: the next user must be able to read
            self.resume()
        if self._keep and user.upload_done and not self.paused:
            endpoint = self.endpoint
            endpoint.upstream.released(endpoint, self)
        else:  # with the request's body still on its way, or a response that was the last one
            self.transport.close()

    def _fail(self, user: User, detail: str) -> None:
        self.abandon()
        user.on_failure(UpstreamProtocolError(detail))
