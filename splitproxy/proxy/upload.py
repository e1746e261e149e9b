"""The body of a request on its way from the client to the endpoint, and to mirrored copies."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from splitproxy.core.chunked import ChunkedDecoder, chunk, last_chunk
from splitproxy.core.requests import RequestHead
from splitproxy.core.retry import KEPT_BYTES
from splitproxy.errors import BadRequest, BodyTooLarge

if TYPE_CHECKING:
    from splitproxy.proxy.mirror import Copy


class Upload:
    """A request's body, framed as the client framed it: by length, or chunked (and then chunked anew)."""

    __slots__ = (
        *("_decoder", "_left", "_limit", "_payload", "copies", "done", "ended", "kept", "size", "taken", "waiting"),
    )

    def __init__(self, head: RequestHead, limit: int) -> None:
        """Begin; `limit` in bytes, 0 for none. Raises BodyTooLarge."""
        if limit and head.content_length > limit:
            raise BodyTooLarge(f"the body is over {limit} bytes")
        self._decoder = ChunkedDecoder() if head.chunked else None
        self._left = head.content_length
        self._limit = limit
        self._payload = 0
        self.done = False
        self.ended = 0.0
        """When its end came; 0: with its beginning."""
        self.size = 0
        """Bytes so far, chunk framing included."""
        self.waiting: list[bytes] = []
        """What has come but has no connection yet to go to."""
        self.taken = False
        """Whether some of it may have gone to an endpoint."""
        self.kept: list[bytes] | None = None
        """All of it so far, while it may have to be sent again."""
        self.copies: Sequence[Copy] = ()

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Return what to send on, and what follows the body. Raises BadRequest and BodyTooLarge."""
        if self._decoder is None:
            left = self._left - len(data)
            rest = b""
            if left < 0:
                data, rest = data[:left], data[left:]
            self._left = max(left, 0)
            self.done = left <= 0
        else:
            data, rest = self._rechunk(self._decoder, data)
        self.size += len(data)
        if self.kept is not None:
            self.kept.append(data)
            if not self._is_small():
                self.kept = None
        if data:
            for copy in self.copies:
                copy.write(data)
        if self.done:
            for copy in self.copies:
                copy.end()
        return data, rest

    def _rechunk(self, decoder: ChunkedDecoder, data: bytes) -> tuple[bytes, bytes]:
        try:
            pieces, rest = decoder.feed(data)
        except ValueError as error:
            raise BadRequest(str(error)) from None
        self._payload += sum(map(len, pieces))
        if self._limit and self._payload > self._limit:
            raise BodyTooLarge(f"the body is over {self._limit} bytes")
        framed = chunk(pieces) if pieces else b""
        if decoder.done:
            self.done = True
            framed += last_chunk(decoder.trailers)
        return framed, rest

    def start_copies(self, copies: "Sequence[Copy]") -> None:
        """Feed `copies` from now on, and what has come already."""
        self.copies = copies
        for copy in copies:
            for data in self.waiting:
                copy.write(data)
            if self.done:
                copy.end()

    def cut_copies(self) -> None:
        """The body will not be whole: neither will the copies."""
        for copy in self.copies:
            copy.cut()

    # --- to be sent again --------------------------------------------------------------------------------------------
    def _is_small(self) -> bool:
        return (self.size + self._left if self._decoder is None else self._payload) <= KEPT_BYTES

    def keep(self) -> None:
        """Keep the body from now on, if it is small; before any of it is sent."""
        if not self.taken and self._is_small():
            self.kept = list(self.waiting)

    @property
    def repeatable(self) -> bool:
        """Whether the body is small and all that has come of it is still known."""
        return self.kept is not None if self.taken else self._is_small()

    def rewind(self) -> None:
        """Have all of it wait again, for another endpoint."""
        if self.kept is not None:
            self.waiting = list(self.kept)

    def take_waiting(self) -> bytes:
        """Return what waits, to be sent now."""
        self.taken = True
        waiting, self.waiting = self.waiting, []
        return b"".join(waiting)
