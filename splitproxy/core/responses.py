"""Response heads: checked whole, read for what a proxy must know (RFC 9112 §4, §6)."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from splitproxy.core.fields import (
    HARMLESS,
    NO_OPTIONS,
    Field,
    Sink,
    Span,
    check_options,
    merge_cuts,
    parse_options,
    reason,
    spans,
    spans_of,
    split_fields,
)
from splitproxy.errors import BadRequest, UpstreamProtocolError

_SINK: Final = Sink()
_SPECIAL_RESPONSE: Final = re.compile(
    rb"\n(content-length|date|connection|transfer-encoding|keep-alive|proxy-connection|te|trailer|upgrade)"
    rb":[ \t]*([^\r]*)"
)

BODILESS: Final = frozenset((101, 204, 304))
"""Statuses whose responses have no body, whatever their fields say."""


class ResponseHead:
    """One response's head, checked. Made by `parse_response` alone."""

    __slots__ = (
        "chunked",
        "close",
        "content_length",
        "cuts",
        "has_date",
        "line_end",
        "low",
        "minor",
        "raw",
        "sent",
        "sized",
        "status",
        "upgrade",
    )

    raw: bytes
    low: bytes
    """`raw` in lower case, from the end of the status line on."""
    line_end: int
    status: int
    minor: int
    cuts: Sequence[Span]
    content_length: int
    """-1: not given, the body ends with the connection unless `chunked` or bodiless."""
    chunked: bool
    close: bool
    """Whether the endpoint will close the connection after this response."""
    has_date: bool
    upgrade: bytes
    sized: bool
    """Whether it is a final answer, no 5xx, whose length it says itself, in whatever way: what nearly all are."""
    sent: bytes
    """As sent on where nothing is added; empty until it is first wanted. (A leaf: heads are shared, see below.)"""

    def fields(self) -> list[Field]:
        """Return every field that may be forwarded, as (name, value)."""
        return split_fields(self.raw, self.cuts)


def parse_response(raw: bytes) -> ResponseHead:  # noqa: C901, PLR0912, PLR0915 - hot: one call a response
    """Check a complete response head and return it. Raises UpstreamProtocolError."""
    head = ResponseHead()
    head.raw = raw
    head.minor = 1
    head.cuts = ()
    head.content_length = -1
    head.chunked = head.close = head.has_date = False
    head.upgrade = head.sent = b""
    version, code = raw[:9], raw[9:12]
    if version != b"HTTP/1.1 ":
        if version != b"HTTP/1.0 ":
            raise UpstreamProtocolError("invalid status line")
        head.minor = 0
        head.close = True
    if not code.isdigit() or code[0] == 48 or raw[12] not in b" \r":
        raise UpstreamProtocolError("invalid status code")
    head.status = status = int(code)
    head.line_end = line_end = raw.find(b"\r\n")
    head.low = low = raw[line_end:].lower()
    try:
        HttpResponseParser(_SINK).feed_data(raw)
    except HttpParserUpgrade:
        pass
    except HttpParserError as error:
        raise UpstreamProtocolError(reason(error)) from None
    cut, cuts, options = b"", 0, NO_OPTIONS
    for name, value in _SPECIAL_RESPONSE.findall(low):
        if name == b"date":
            head.has_date = True
        elif name == b"content-length":
            value = value.rstrip(b" \t")
            if head.content_length >= 0 or not value.isdigit() or len(value) > 18:
                raise UpstreamProtocolError("invalid or repeated Content-Length")
            head.content_length = int(value)
            if status == 204:  # RFC 9110 §8.6: MUST NOT be sent
                cut, cuts = name, cuts + 1
        else:
            cut, cuts = name, cuts + 1
            if name == b"connection":
                if value != b"keep-alive" or head.close:
                    options = _response_options(value, options)
            elif name == b"transfer-encoding":
                if value.rstrip(b" \t") != b"chunked" or head.chunked or head.minor == 0:
                    raise UpstreamProtocolError("a transfer coding other than chunked")
                head.chunked = True
            elif name == b"upgrade":
                head.upgrade = value.rstrip(b" \t")
    if cuts == 1:
        start = low.find(b"\n" + cut + b":") - 1
        head.cuts = ((start + line_end, low.find(b"\r", start + 1) + line_end),)
    elif cuts:
        kept = frozenset((b"date",)) if status == 204 else frozenset((b"date", b"content-length"))
        head.cuts = spans(_SPECIAL_RESPONSE, low, line_end, kept)
    if head.chunked and head.content_length >= 0:
        raise UpstreamProtocolError("both Content-Length and Transfer-Encoding")
    if options:
        head.close = b"close" in options or (head.minor == 0 and b"keep-alive" not in options)
        nominated = options - HARMLESS
        if nominated:
            head.cuts = merge_cuts(head.cuts, spans_of(low, line_end, nominated))
    head.sized = head.content_length >= 0 and 200 <= status < 500 and status not in BODILESS
    return head


KNOWN_BYTES: Final = 1024
"""Longest head that is remembered: what an endpoint can make us keep is bounded."""
parse_known = lru_cache(maxsize=512)(parse_response)
"""`parse_response` for heads that may have been seen before: an endpoint gives answers of the same length the same head
for as long as the second of their Date lasts. Errors are not remembered."""


def _response_options(value: bytes, before: frozenset[bytes]) -> frozenset[bytes]:
    try:
        options = before | parse_options(value)
        check_options(options)
        return options
    except BadRequest as error:
        raise UpstreamProtocolError(error.detail) from None
