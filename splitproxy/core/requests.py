"""Request heads: checked whole, read for what a proxy must know (RFC 9110, RFC 9112 §2 to §6).

The C parser (httptools) says whether the bytes are HTTP at all; what that parser lets through (versions, Host, targets,
limits, transfer codings) is refused here. Only fields that mean something to a proxy are then looked at, found by one
search over the lower-cased head; every other byte is forwarded as it came, and nothing is re-spelt on the way.
"""

import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import unquote_to_bytes

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

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
from splitproxy.core.targets import normalise, parse_host
from splitproxy.errors import (
    BadRequest,
    ExpectationFailed,
    HeadTooLarge,
    MethodNotSupported,
    NotImplementedCoding,
    TargetTooLong,
    VersionNotSupported,
)

IDEMPOTENT: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"))
"""RFC 9110 §9.2.2."""
SAFE: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE"))
"""RFC 9110 §9.2.1."""


_SPECIAL_REQUEST: Final = re.compile(
    rb"\n(host|connection|content[-_]length|keep[-_]alive|proxy[-_]connection|te|trailer|transfer[-_]encoding|upgrade|expect"
    rb"|http2-settings|forwarded|x[-_](?:forwarded[-_][a-z_-]+|real[-_]ip|request-id)):[ \t]*([^\r]*)"
)
"""Request fields that mean something to a proxy, in a head in lower case. A "_" stands for a "-" where a CGI-like
upstream would read both as one: such a twin may not slip through."""
_LINE: Final = re.compile(
    rb"([A-Z]+) (/[^\x00-\x20\"#%<>?\x7f-\xff]*)(?:\?([\x21\x24-\x3b\x3d\x3f-\x7e]*))? HTTP/1\.1\r\n"
)
"""The request line of nearly all requests; what else there may be goes the long way."""
_ORIGIN_FORM: Final = re.compile(rb"/[\x21\x24-\x3b\x3d\x3f-\x7e]*")
"""RFC 9112 §3.2.1, and as browsers write it: any visible ASCII but `"`, `#`, `<` and `>`."""
_ABSOLUTE_FORM: Final = re.compile(rb"(?i:https?)://([^/?#]*)([^#]*)")
_REQUEST_ID: Final = re.compile(rb"[\x21-\x7e]{1,128}")
_SINK: Final = Sink()


class RequestHead:
    """One request's head, checked; what the proxy must know of it, and its bytes. Made by `parse_request` alone."""

    __slots__ = (
        *(
            "authority",
            "chunked",
            "content_length",
            "cuts",
            "expect_continue",
            "host",
            "keep_alive",
            "line_end",
            "low",
            "method",
        ),
        *("minor", "options", "path", "plain", "query", "raw", "request_id", "rewritten", "upgrade"),
    )

    raw: bytes
    """All bytes, the last empty line included."""
    low: bytes
    """The same in lower case, from the end of the request line on."""
    method: bytes
    rewritten: bytes
    """The target to send on where the request line cannot be sent on as it came; else empty."""
    minor: int
    """The version: HTTP/1.`minor`."""
    line_end: int
    """Where the request line ends in `raw`."""
    plain: bool
    """Whether it has neither a body nor anything else that asks for more than being sent on."""
    authority: bytes
    """The Host value, or what an absolute-form target says instead; empty when an HTTP/1.0 request names none."""
    host: bytes
    """`authority` in lower case without its port."""
    path: bytes
    """Normalised for matching."""
    query: bytes
    cuts: Sequence[Span]
    """Spans of `raw` that must not be forwarded, in order: `\\r\\nName: value`."""
    options: frozenset[bytes]
    """What `Connection` lists."""
    content_length: int
    """0 when there is no body; meaningless when `chunked`."""
    chunked: bool
    keep_alive: bool
    expect_continue: bool
    upgrade: bytes
    request_id: bytes
    """The X-Request-Id that came with it, or empty."""

    def field(self, name: bytes) -> bytes | None:
        """Return the value of the field `name` (lower case); repeated ones joined by a comma (RFC 9110 §5.3)."""
        low, offset, values = self.low, self.line_end, []
        needle = b"\r\n" + name + b":"
        at = low.find(needle)
        while at >= 0:
            start = at + len(needle)
            end = low.find(b"\r\n", start)
            values.append(self.raw[start + offset : end + offset].strip(b" \t"))
            at = low.find(needle, end)
        return b", ".join(values) if values else None

    def cookie(self, name: bytes) -> bytes | None:
        """Return the first cookie called `name` (RFC 6265 §5.4)."""
        cookies = self.field(b"cookie")
        if cookies is None:
            return None
        for pair in cookies.replace(b",", b";").split(b";"):
            key, equals, value = pair.strip(b" \t").partition(b"=")
            if equals and key == name:
                return value.strip(b'"')
        return None

    def param(self, name: bytes) -> bytes | None:
        """Return the first query parameter called `name`, decoded as form fields are."""
        for pair in self.query.split(b"&"):
            key, _, value = pair.partition(b"=")
            if unquote_to_bytes(key.replace(b"+", b" ")) == name:
                return unquote_to_bytes(value.replace(b"+", b" "))
        return None

    @property
    def target(self) -> bytes:
        """The target as it came, in origin form or `*`; of an absolute form, the part from the path on."""
        return self.rewritten or self.raw[len(self.method) + 1 : self.line_end - 9]

    @property
    def target_is_origin(self) -> bool:
        """Whether the target came in origin form or as `*`, so that the Host field stands in the head itself."""
        return self.raw.startswith(self.target, len(self.method) + 1)

    def fields(self) -> list[Field]:
        """Return every field that may be forwarded, as (name, value)."""
        return split_fields(self.raw, self.cuts)


def parse_request(raw: bytes, max_count: int, max_uri: int) -> RequestHead:  # noqa: C901 - hot: one call a request
    """Check a complete request head and return it. Raises a ClientError or LocalError that says what is wrong."""
    head = RequestHead()
    head.raw = raw
    head.minor = 1
    head.plain = head.keep_alive = True
    head.chunked = head.expect_continue = False
    head.content_length = 0
    head.authority = head.host = head.query = head.rewritten = head.upgrade = head.request_id = b""
    head.cuts = ()
    head.options = NO_OPTIONS
    line = _LINE.match(raw)
    if line is None:
        target = _read_line(head, raw)
        line_end = head.line_end
        size = len(target)
    else:
        target = b""
        head.method, head.path, query = line.groups()
        head.line_end = line_end = line.end() - 2
        if query:
            head.query = query
        size = line_end - len(head.method) - 10
    if size > max_uri:
        raise TargetTooLong(f"the target is over {max_uri} bytes")
    head.low = low = raw[line_end:].lower()
    if len(low) > 4 * max_count and low.count(b"\n") > max_count + 2:
        raise HeadTooLarge(f"more than {max_count} fields")
    parser = _spare_parsers.pop() if _spare_parsers else HttpRequestParser(_SINK)
    try:
        parser.feed_data(raw)
    except HttpParserUpgrade:
        if head.method == b"CONNECT":
            raise MethodNotSupported("CONNECT is not supported") from None
    except HttpParserError as error:
        raise BadRequest(reason(error)) from None
    host = _read_fields(head, low, line_end)
    if head.plain:
        _spare_parsers.append(parser)
    if target:
        host = _read_target(head, target, host)
    elif head.path.find(b"//") >= 0 or head.path.find(b"/.") >= 0:
        head.path = normalise(head.path)
    if host:
        head.authority = host
        head.host = parse_host(host)
    return head


_spare_parsers: list[HttpRequestParser] = []
"""At most one parser, between two messages, to be used again: making one costs as much as using it. (Rule zero: state
in `core`.) It carries nothing over: only after a message without a body on a connection that goes on is it kept."""


def _read_line(head: RequestHead, raw: bytes) -> bytes:
    """Take in an unusual request line; return its target."""
    head.line_end = raw.find(b"\r\n")
    words = raw[: head.line_end].split(b" ")
    if len(words) != 3 or raw[0] in b"\r\n":  # the C parser skips these
        raise BadRequest("invalid request line")
    head.method, target, version = words
    if version != b"HTTP/1.1":
        _check_version(head, version)
    if not target:
        raise BadRequest("invalid request line")
    return target


def _read_target(head: RequestHead, target: bytes, host: bytes) -> bytes:
    """Take in a target that is not simply `/path?query`; return the host that counts."""
    if target.startswith(b"/") and _ORIGIN_FORM.fullmatch(target):
        head.rewritten = b"" if head.minor else target
    else:
        host = _other_form(head, target, host)
    path, _, head.query = head.target.partition(b"?")
    head.path = normalise(path) if path != b"*" else b"/"
    return host


def _read_fields(head: RequestHead, low: bytes, offset: int) -> bytes:  # noqa: C901, PLR0912 - hot, as above
    """Take in the fields that mean something to a proxy; return the Host value, empty when there is none."""
    host, cut, lengths, hosts = b"", b"", 0, 0
    cuts = 0
    for name, value in _SPECIAL_REQUEST.findall(low):
        if name == b"host":
            hosts += 1
            host = value.rstrip(b" \t")
        elif name == b"connection":
            cuts += 1
            cut = name
            if value != b"keep-alive" or not head.minor:
                head.options = head.options | parse_options(value)
                head.plain = False
        elif name == b"content-length":
            lengths += 1
            value = value.rstrip(b" \t")
            if lengths > 1 or not value.isdigit() or len(value) > 18:
                raise BadRequest("invalid or repeated Content-Length")
            head.content_length = int(value)
            head.plain = False
        elif name != b"x-request-id" or not _take_request_id(head):
            cuts += 1
            cut = name
            if name in _FRAMING:
                _read_framing(head, name, value.rstrip(b" \t"))
    if hosts > 1:
        raise BadRequest("more than one Host")
    if not host and (head.minor or hosts):
        raise BadRequest("no Host, or an empty one")
    if cuts == 1:
        start = low.find(b"\n" + cut + b":") - 1
        head.cuts = ((start + offset, low.find(b"\r", start + 1) + offset),)
    elif cuts:
        kept = _KEPT_WITH_ID if head.request_id else _KEPT
        head.cuts = spans(_SPECIAL_REQUEST, low, offset, kept)
    if not head.plain:
        if head.chunked and lengths:
            raise BadRequest("both Content-Length and Transfer-Encoding")
        _apply_options(head)
    return host


_KEPT: Final = frozenset((b"host", b"content-length"))
_KEPT_WITH_ID: Final = _KEPT | {b"x-request-id"}


_FRAMING: Final = frozenset((b"transfer-encoding", b"upgrade", b"expect"))


def _read_framing(head: RequestHead, name: bytes, value: bytes) -> None:
    head.plain = False
    if name == b"transfer-encoding":
        _check_coding(value, head)
    elif name == b"upgrade":
        head.upgrade = b"%b,%b" % (head.upgrade, value) if head.upgrade else value
    elif value != b"100-continue":
        raise ExpectationFailed("only Expect: 100-continue is understood")
    else:
        head.expect_continue = head.minor == 1


def _take_request_id(head: RequestHead) -> bool:
    """Keep the client's X-Request-Id if it is the only one and fit to be logged; return whether it is kept."""
    value = head.field(b"x-request-id") or b""
    if head.request_id or not _REQUEST_ID.fullmatch(value):
        head.request_id = b""
        return False
    head.request_id = value
    return True


def _check_version(head: RequestHead, version: bytes) -> None:
    if version == b"HTTP/1.0":
        head.minor = 0
        head.plain = head.keep_alive = False
    elif re.fullmatch(rb"HTTP/[0-9]\.[0-9]", version):
        raise VersionNotSupported("only HTTP/1.0 and HTTP/1.1 are spoken here")
    else:
        raise BadRequest("invalid HTTP version")


_CODINGS: Final = re.compile(rb"[a-z-]+([ \t]*,[ \t]*[a-z-]+)*")


def _check_coding(coding: bytes, head: RequestHead) -> None:
    if coding != b"chunked" or head.chunked:
        if coding.endswith(b"chunked") and not head.chunked and _CODINGS.fullmatch(coding):
            raise NotImplementedCoding("the only transfer coding understood is chunked")
        raise BadRequest("invalid Transfer-Encoding")
    if head.minor == 0:
        raise BadRequest("Transfer-Encoding in an HTTP/1.0 request")
    head.chunked = True


_PROTOCOL: Final = re.compile(rb"(?!h2c(?:/|$))[!#$%&'*+\-.^_`|~0-9a-z]+(?:/[!#$%&'*+\-.^_`|~0-9a-z]+)?")
"""RFC 9110 §7.8: a name, and a version perhaps; whatever else might be taken for h2c by somebody is no offer either."""


def _apply_options(head: RequestHead) -> None:
    """Act on what Connection lists: persistence, and fields that end here (RFC 9110 §7.6.1)."""
    options = head.options
    check_options(options)
    if b"close" in options:
        head.keep_alive = False
    elif b"keep-alive" in options:
        head.keep_alive = True
    if head.upgrade:
        # h2c would let a client speak past us (RFC 9113 §3.1 has dropped it); what is not in Connection is no offer.
        offers = [offer.strip(b" \t") for offer in head.upgrade.split(b",")]
        allowed = b"upgrade" in options and head.minor == 1
        head.upgrade = b", ".join(filter(_PROTOCOL.fullmatch, offers)) if allowed else b""
    nominated = options - HARMLESS
    if nominated:
        head.cuts = merge_cuts(head.cuts, spans_of(head.low, head.line_end, nominated))


def _other_form(head: RequestHead, target: bytes, host: bytes) -> bytes:
    """Set the target of an absolute-form or asterisk-form request; return the host that counts (RFC 9112 §3.2)."""
    if target == b"*":
        if head.method != b"OPTIONS":
            raise BadRequest("the target * belongs to OPTIONS")
        head.rewritten = b"" if head.minor else target
        return host
    found = _ABSOLUTE_FORM.fullmatch(target)
    if found is None:
        raise BadRequest("invalid target, or invalid characters in it")
    authority, rest = found[1], found[2]
    if not authority or b"@" in authority or (not host and head.minor):
        raise BadRequest("invalid authority in the target or no Host")
    if rest.startswith(b"?") or not rest:
        rest = b"/" + rest
    if not _ORIGIN_FORM.fullmatch(rest):
        raise BadRequest("invalid characters in the target")
    head.rewritten = rest
    head.plain = False
    # RFC 9112 §3.2.2: the authority of the target replaces the Host field.
    head.cuts = merge_cuts(head.cuts, spans_of(head.low, head.line_end, (b"host",)) if host else ())
    return authority.lower()


_EARLY: Final = re.compile(rb"(?<!\r)\n|\r[^\n]|\x00")


def check_partial(data: bytes, known: int = 0) -> None:
    """Raise BadRequest when the beginning of a head can no longer become a valid one.

    `known` octets, less the last, were checked before: who sends a head octet by octet must not have all of it looked
    at each time.
    """
    if _EARLY.search(data, max(known - 1, 0)):
        raise BadRequest("a bare CR, bare LF or NUL in the head")
