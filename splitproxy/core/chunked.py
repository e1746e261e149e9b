"""The chunked transfer coding: taken apart strictly, put together plainly (RFC 9112 §7.1)."""

import re
from typing import Final

from splitproxy.core.fields import Field

_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")
_FIELD_LINE: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\t\x20-\x7e\x80-\xff]*)")
_NEVER_IN_TRAILERS: Final = re.compile(
    rb"(?i)connection|keep[-_]alive|proxy[-_].*|te|trailer|transfer[-_]encoding|upgrade|content[-_].*|host|cookie|set[-_]cookie"
    rb"|expect|range|authorization|www[-_]authenticate|cache[-_]control|max[-_]forwards|forwarded|x[-_]forwarded[-_].*"
    rb"|x[-_]real[-_]ip|x[-_]request[-_]id|if[-_].*|age|date|expires|location|retry[-_]after|vary|warning"
)
"""RFC 9110 §6.5.1: framing, routing, authentication, modifiers and response control stay out of trailers. With "_" for
"-" too, which CGI-like upstreams read as one."""


class ChunkedDecoder:
    """Takes a chunked body apart, in whatever pieces it comes (RFC 9112 §7.1).

    Strict: CRLF only, hexadecimal sizes, bounded lines; chunk extensions are dropped.
    """

    __slots__ = ("_buffer", "_left", "_state", "done", "limit", "trailers")

    _SIZE, _DATA, _DATA_END, _TRAILER = range(4)

    def __init__(self, limit: int = 16_384) -> None:
        self.limit = limit
        """Bytes a chunk's size line, or all trailers together, may have."""
        self.trailers: list[Field] = []
        self.done = False
        self._buffer = b""
        self._left = 0
        self._state = self._SIZE

    def feed(self, data: bytes) -> tuple[list[bytes], bytes]:
        """Return the body's bytes in `data` and what follows the body's end. Raises ValueError."""
        out: list[bytes] = []
        if self._buffer:
            data, self._buffer = self._buffer + data, b""
        at, size = 0, len(data)
        while at < size and not self.done:
            if self._state == self._DATA:
                piece = data[at : at + self._left] if at or self._left < size else data
                out.append(piece)
                at += len(piece)
                self._left -= len(piece)
                if not self._left:
                    self._state = self._DATA_END
                continue
            line_end = data.find(b"\r\n", at)
            if line_end < 0:
                self._keep(data[at:])
                return out, b""
            self._line(data[at:line_end])
            at = line_end + 2
        return out, data[at:]

    def _keep(self, rest: bytes) -> None:
        if len(rest) > self.limit + 1:  # and the CR
            raise ValueError("a line of the chunked body is too long")
        if self._state == self._DATA_END and rest != b"\r":
            raise ValueError("a chunk is not followed by CRLF")
        if b"\n" in rest or b"\r" in rest[:-1]:
            raise ValueError("a bare CR or LF in the chunked body")
        self._buffer = rest

    def _line(self, line: bytes) -> None:
        if self._state == self._DATA_END:
            if line:
                raise ValueError("a chunk is not followed by CRLF")
            self._state = self._SIZE
        elif self._state == self._SIZE:
            found = _SIZE_LINE.fullmatch(line)
            if found is None or len(line) > self.limit:
                raise ValueError("invalid chunk size")
            self._left = int(found[1], 16)
            self._state = self._DATA if self._left else self._TRAILER
        elif line:
            self._trailer(line)
        else:
            self.done = True

    def _trailer(self, line: bytes) -> None:
        found = _FIELD_LINE.fullmatch(line)
        self.limit -= len(line)
        if found is None or self.limit < 0:
            raise ValueError("invalid or too many trailers")
        if not _NEVER_IN_TRAILERS.fullmatch(found[1]):
            self.trailers.append((found[1], found[2].rstrip(b" \t")))


def chunk(pieces: list[bytes]) -> bytes:
    """Frame `pieces`, which are not all empty, as one chunk."""
    return b"%x\r\n%b\r\n" % (sum(map(len, pieces)), b"".join(pieces))


def last_chunk(trailers: list[Field]) -> bytes:
    """Frame the end of a chunked body."""
    if not trailers:
        return b"0\r\n\r\n"
    return b"0\r\n%b\r\n" % b"".join(b"%b: %b\r\n" % field for field in trailers)
