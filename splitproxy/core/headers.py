"""Heads as they are sent on: hop-by-hop fields out, ours in, all else byte for byte (RFC 9110 §7.6, RFC 7230 §5.7).

`compose_*` cut a checked head at its spans and join what is left; `rebuild_*` go field by field and are used only where
a filter changes something.
"""

from typing import Final

from splitproxy.core.fields import Field
from splitproxy.core.requests import RequestHead
from splitproxy.core.responses import ResponseHead

MIRROR_MARK: Final = b"X-Splitproxy-Mirror"
"""Carried by every mirrored copy, so that an upstream can tell and a second proxy will not mirror again."""
_MIRROR_LINE: Final = b"\r\nx-splitproxy-mirror:"

Lines = bytes
"""Whole field lines, each ended by CRLF."""


def request_lines(head: RequestHead, forwarded: Lines, request_id: bytes) -> Lines:
    """Return the fields that the proxy itself adds to a request."""
    lines = forwarded if head.request_id else b"%bX-Request-Id: %b\r\n" % (forwarded, request_id)
    if head.plain:
        return lines
    if head.chunked:
        lines += b"Transfer-Encoding: chunked\r\n"
    if head.upgrade:
        lines += b"Connection: Upgrade\r\nUpgrade: %b\r\n" % head.upgrade
    if head.expect_continue:
        lines += b"Expect: 100-continue\r\n"
    return lines


def compose_request(head: RequestHead, forwarded: Lines, request_id: bytes, fallback_host: bytes) -> bytes:
    """Return the head to send to an endpoint. `fallback_host` is for HTTP/1.0 requests that name none."""
    raw, cuts = head.raw, head.cuts
    if head.plain and not head.request_id:
        if not cuts:
            return b"%b%bX-Request-Id: %b\r\n\r\n" % (raw[:-2], forwarded, request_id)
        if len(cuts) == 1:
            ((start, end),) = cuts
            return b"%b%b%bX-Request-Id: %b\r\n\r\n" % (raw[:start], raw[end:-2], forwarded, request_id)
    lines = request_lines(head, forwarded, request_id)
    if not head.rewritten:
        pieces, at = [], 0
    else:
        pieces, at = [b"%b %b HTTP/1.1" % (head.method, head.rewritten)], head.line_end
        lines = _host_line(head, fallback_host) + lines
    for start, end in cuts:
        pieces.append(raw[at:start])
        at = end
    pieces += (raw[at:-2], lines, b"\r\n")
    return b"".join(pieces)


def _host_line(head: RequestHead, fallback: bytes) -> Lines:
    """Return a Host line where the raw head has none to offer: absolute form, or an HTTP/1.0 request without one."""
    if not head.authority:
        return b"Host: %b\r\n" % fallback
    return b"" if head.target_is_origin else b"Host: %b\r\n" % head.authority


def rebuild_request(head: RequestHead, target: bytes, fields: list[Field], lines: Lines) -> bytes:
    """Return the head to send to an endpoint, from fields that filters have changed."""
    return b"%b %b HTTP/1.1\r\n%b%b\r\n" % (head.method, target, join(fields), lines)


def request_fields(head: RequestHead, fallback_host: bytes) -> list[Field]:
    """Return the fields of a request for filters to change, Host first when the raw head has none."""
    fields = head.fields()
    if not head.authority:
        fields.insert(0, (b"Host", fallback_host))
    elif not head.target_is_origin:
        fields.insert(0, (b"Host", head.authority))
    return fields


def is_mirrored(head: RequestHead) -> bool:
    """Return whether a request is itself a mirrored copy."""
    return _MIRROR_LINE in head.low


def compose_response(head: ResponseHead, lines: Lines) -> bytes:
    """Return the head to send to the client, with `lines` added."""
    raw, cuts = head.raw, head.cuts
    if head.minor and len(cuts) < 2:
        if not cuts:
            return b"%b%b\r\n" % (raw[:-2], lines) if lines else raw
        ((start, end),) = cuts
        return b"%b%b%b\r\n" % (raw[:start], raw[end:-2], lines) if lines else raw[:start] + raw[end:]
    pieces = [b"HTTP/1.1", raw[8 : head.line_end]]
    at = head.line_end
    for start, end in cuts:
        pieces.append(raw[at:start])
        at = end
    pieces += (raw[at:-2], lines, b"\r\n")
    return b"".join(pieces)


def rebuild_response(head: ResponseHead, fields: list[Field], lines: Lines) -> bytes:
    """Return the head to send to the client, from fields that filters have changed."""
    return b"HTTP/1.1%b\r\n%b%b\r\n" % (head.raw[8 : head.line_end], join(fields), lines)


def join(fields: list[Field]) -> Lines:
    """Return fields as lines."""
    return b"".join([b"%b: %b\r\n" % field for field in fields])
