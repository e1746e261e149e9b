"""HTTP/1 heads and framing: bytes in, values or errors out (RFC 9110, RFC 9112).

A head is handled whole. The C parser (httptools) says whether its bytes are HTTP at all; what that parser lets through
(versions, Host, targets, limits, transfer codings) is refused here. Only fields that mean something to a proxy are then
looked at, found by one search over the lower-cased head; every other byte is forwarded as it came, so a head costs the
same however many fields it has and nothing is re-spelt on the way.
"""

import re
from functools import lru_cache
from typing import Final
from urllib.parse import unquote_to_bytes

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser, HttpResponseParser

from splitproxy.errors import (
    BadRequest,
    ExpectationFailed,
    HeadTooLarge,
    MethodNotSupported,
    NotImplementedCoding,
    ProxyError,
    TargetTooLong,
    UpstreamProtocolError,
    VersionNotSupported,
)

Span = tuple[int, int]
Field = tuple[bytes, bytes]

IDEMPOTENT: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"))
"""RFC 9110 §9.2.2."""
SAFE: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE"))
"""RFC 9110 §9.2.1."""

# Names are matched with "_" for "-" where a CGI-like upstream would read both as one: such a twin is never forwarded.
_SPECIAL_REQUEST: Final = re.compile(
    rb"\r\n(connection|keep[-_]alive|proxy[-_]connection|te|trailer|transfer[-_]encoding|upgrade|content[-_]length|expect"
    rb"|host|http2-settings|forwarded|x[-_](?:forwarded[-_][a-z_-]+|real[-_]ip|request-id)):[ \t]*([^\r]*)"
)
_SPECIAL_RESPONSE: Final = re.compile(
    rb"\r\n(connection|keep-alive|proxy-connection|te|trailer|transfer-encoding|upgrade|content-length|date):[ \t]*([^\r]*)"
)
_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [^\r\n]*)?\r\n")
_DIGITS: Final = re.compile(rb"[0-9]{1,18}")
_ORIGIN_FORM: Final = re.compile(rb"/[\x21\x22\x24-\x7e]*")
_ABSOLUTE_FORM: Final = re.compile(rb"(?i:https?)://([^/?#]*)([^#]*)")
_HOST: Final = re.compile(
    rb"([a-z0-9!$&'()*+,;=_~.%-]+|\[[0-9a-f:.]+\])(?::([0-9]{0,5}))?", re.IGNORECASE
)
_REQUEST_ID: Final = re.compile(rb"[\x21-\x7e]{1,128}")
_PROTECTED: Final = frozenset(
    (b"host", b"content-length", b"transfer-encoding", b"connection", b"cookie", b"authorization", b"set-cookie")
)
"""Fields that a `Connection` option may not take away: they are end to end, whatever a sender claims."""
_HOP_BY_HOP: Final = frozenset((b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade"))


class _Sink:
    """Takes no callbacks: the parser is only asked for its verdict."""


_SINK: Final = _Sink()


@lru_cache(maxsize=4096)
def parse_host(value: bytes) -> bytes:
    """Return the name of a Host value in lower case, without its port. Raises BadRequest (RFC 9110 §7.2)."""
    found = _HOST.fullmatch(value)
    if found is None or (found[2] and int(found[2]) > 65535):
        raise BadRequest("invalid Host")
    return found[1].lower().rstrip(b".") if found[1] != b"." else b"."


@lru_cache(maxsize=1024)
def parse_options(value: bytes) -> frozenset[bytes]:
    """Return the members of a comma-separated list of tokens, in lower case. Raises BadRequest."""
    options = [option.strip(b" \t") for option in value.lower().split(b",")]
    if any(option and not _TOKEN.fullmatch(option) for option in options):
        raise BadRequest("invalid Connection field")
    return frozenset(filter(None, options))


@lru_cache(maxsize=1024)
def normalise(path: bytes) -> bytes:
    """Return `path` as routes are matched against it: unreserved octets decoded, dot segments and empty ones removed.

    RFC 3986 §6.2.2. An encoded slash stays encoded: it is data, not structure.
    """
    decoded = b"%2F".join(unquote_to_bytes(part) for part in re.split(rb"%2[Ff]", path))
    kept: list[bytes] = []
    segments = decoded.split(b"/")[1:]
    for segment in segments:
        if segment == b"..":
            del kept[-1:]
        elif segment not in {b"", b"."}:
            kept.append(segment)
    tail = b"/" if segments and segments[-1] in {b"", b".", b".."} and kept else b""
    return b"/" + b"/".join(kept) + tail


class RequestHead:
    """One request's head, checked; what the proxy must know of it, and its bytes."""

    __slots__ = (
        *("authority", "chunked", "content_length", "cuts", "expect_continue", "host", "keep_alive", "line_end", "low"),
        *("method", "minor", "options", "path", "query", "raw", "request_id", "target", "upgrade", "verbatim"),
    )

    raw: bytes
    """All bytes, the last empty line included."""
    low: bytes
    """The same in lower case."""
    method: bytes
    target: bytes
    """As it came; of an absolute-form target only the origin-form part."""
    minor: int
    """The version: HTTP/1.`minor`."""
    line_end: int
    """Where the request line ends in `raw`."""
    verbatim: bool
    """Whether the request line can be forwarded as it came."""
    authority: bytes
    """The Host value, or what an absolute-form target says instead; empty when an HTTP/1.0 request names none."""
    host: bytes
    """`authority` in lower case without its port."""
    path: bytes
    """Normalised for matching."""
    query: bytes
    cuts: list[Span]
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
        low, values = self.low, []
        needle = b"\r\n" + name + b":"
        at = low.find(needle)
        while at >= 0:
            start = at + len(needle)
            end = low.find(b"\r\n", start)
            values.append(self.raw[start:end].strip(b" \t"))
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
    def target_is_origin(self) -> bool:
        """Whether the target came in origin form or as `*`, so that the Host field stands in the head itself."""
        return self.raw.startswith(self.target, len(self.method) + 1)

    def fields(self) -> list[Field]:
        """Return every field that may be forwarded, as (name, value)."""
        return _fields(self.raw, self.cuts)


def _fields(raw: bytes, cuts: list[Span]) -> list[Field]:
    start = raw.find(b"\r\n")
    pieces = []
    for cut_start, cut_end in cuts:
        pieces.append(raw[start:cut_start])
        start = cut_end
    pieces.append(raw[start:-4])
    lines = b"".join(pieces).split(b"\r\n")[1:]
    return [(name, value.strip(b" \t")) for name, _, value in (line.partition(b":") for line in lines)]


def parse_request(raw: bytes, max_count: int, max_uri: int) -> RequestHead:  # noqa: C901, PLR0912, PLR0915 - one pass, hot
    """Check a complete request head and return it. Raises a ClientError or LocalError that says what is wrong."""
    if raw.count(b"\r\n") > max_count + 2:
        raise HeadTooLarge(f"more than {max_count} fields")
    line_end = raw.find(b"\r\n")
    words = raw[:line_end].split(b" ")
    if len(words) != 3:
        raise BadRequest("invalid request line")
    method, target, version = words
    if len(target) > max_uri:
        raise TargetTooLong(f"the target is over {max_uri} bytes")
    if version == b"HTTP/1.1":
        minor = 1
    elif version == b"HTTP/1.0":
        minor = 0
    else:
        raise _bad_version(version)
    if method == b"CONNECT":
        raise MethodNotSupported("CONNECT is not supported")
    try:
        HttpRequestParser(_SINK).feed_data(raw)
    except HttpParserUpgrade:
        pass
    except HttpParserError as error:
        raise BadRequest(_reason(error)) from None

    head = RequestHead()
    head.raw, head.method, head.minor, head.line_end = raw, method, minor, line_end
    head.verbatim = minor == 1
    head.low = low = raw.lower()
    head.request_id = head.upgrade = b""
    head.chunked = head.expect_continue = False
    head.options = _NO_OPTIONS
    head.keep_alive = minor == 1
    cuts: list[Span] = []
    host: bytes | None = None
    length = -1
    for found in _SPECIAL_REQUEST.finditer(low, line_end):
        name, value = found.groups()
        if name == b"host":
            if host is not None:
                raise BadRequest("more than one Host")
            host = value.rstrip(b" \t")
            continue
        if name == b"content-length":
            if length >= 0 or not _DIGITS.fullmatch(value := value.rstrip(b" \t")):
                raise BadRequest("invalid or repeated Content-Length")
            length = int(value)
            continue
        if name == b"x-request-id":
            value = raw[found.start(2) : found.end(2)].rstrip(b" \t")
            if not head.request_id and _REQUEST_ID.fullmatch(value):
                head.request_id = value
                continue
        cuts.append(found.span())
        if name == b"connection":
            head.options = head.options | parse_options(value) if head.options else parse_options(value)
        elif name == b"transfer-encoding":
            _check_coding(value, minor, head.chunked)
            head.chunked = True
        elif name == b"upgrade":
            head.upgrade = value.rstrip(b" \t")
        elif name == b"expect":
            if value.rstrip(b" \t") != b"100-continue":
                raise ExpectationFailed("only Expect: 100-continue is understood")
            head.expect_continue = minor == 1
    if head.chunked and length >= 0:
        raise BadRequest("both Content-Length and Transfer-Encoding")
    head.content_length = max(length, 0)
    head.cuts = cuts
    if head.options:
        _apply_options(head)
    if target.startswith(b"/"):
        if not _ORIGIN_FORM.fullmatch(target):
            raise BadRequest("invalid characters in the target")
        head.target = target
    else:
        host = _other_form(head, target, host)
    if host is None:
        if minor:
            raise BadRequest("no Host")
        host = b""
    head.authority = host
    head.host = parse_host(host) if host else b""
    if minor and not host:
        raise BadRequest("empty Host")
    path, _, head.query = head.target.partition(b"?")
    head.path = normalise(path) if b"%" in path or b"//" in path or b"/." in path else path
    if path == b"*":
        head.path = b"/"
    return head


_NO_OPTIONS: Final[frozenset[bytes]] = frozenset()


def _reason(error: HttpParserError) -> str:
    return str(error).split("\n")[0][:100] or "malformed request"


def _bad_version(version: bytes) -> ProxyError:
    if re.fullmatch(rb"HTTP/[0-9]\.[0-9]", version):
        return VersionNotSupported("only HTTP/1.0 and HTTP/1.1 are spoken here")
    return BadRequest("invalid HTTP version")


def _check_coding(value: bytes, minor: int, repeated: bool) -> None:
    coding = value.rstrip(b" \t")
    if coding != b"chunked" or repeated:
        if coding.endswith(b"chunked") and not repeated and re.fullmatch(rb"[a-z-]+([ \t]*,[ \t]*[a-z-]+)*", coding):
            raise NotImplementedCoding("the only transfer coding understood is chunked")
        raise BadRequest("invalid Transfer-Encoding")
    if minor == 0:
        raise BadRequest("Transfer-Encoding in an HTTP/1.0 request")


def _apply_options(head: RequestHead) -> None:
    """Act on what Connection lists: persistence, and fields that end here (RFC 9110 §7.6.1)."""
    options = head.options
    if b"close" in options:
        head.keep_alive = False
    elif b"keep-alive" in options:
        head.keep_alive = True
    if head.upgrade and (b"upgrade" not in options or head.minor == 0):
        head.upgrade = b""
    nominated = options - _PROTECTED - _HOP_BY_HOP - _PERSISTENCE
    if nominated:
        head.cuts = merge_cuts(head.cuts, _spans_of(head.low, nominated))


_PERSISTENCE: Final = frozenset((b"close", b"keep-alive"))


def _spans_of(low: bytes, names: frozenset[bytes]) -> list[Span]:
    pattern = rb"\r\n(?:" + b"|".join(map(re.escape, sorted(names))) + rb"):[^\r]*"
    return [found.span() for found in re.finditer(pattern, low)]


def merge_cuts(cuts: list[Span], more: list[Span]) -> list[Span]:
    """Return both lists of spans as one, in order and each once."""
    return sorted({*cuts, *more})


def _other_form(head: RequestHead, target: bytes, host: bytes | None) -> bytes | None:
    """Set the target of an absolute-form or asterisk-form request; return the host that counts (RFC 9112 §3.2)."""
    if target == b"*":
        if head.method != b"OPTIONS":
            raise BadRequest("the target * belongs to OPTIONS")
        head.target = target
        return host
    found = _ABSOLUTE_FORM.fullmatch(target)
    if found is None:
        raise BadRequest("invalid target")
    authority, rest = found[1], found[2]
    if not authority or b"@" in authority or (host is None and head.minor):
        raise BadRequest("invalid authority in the target or no Host")
    if rest.startswith(b"?") or not rest:
        rest = b"/" + rest
    if not _ORIGIN_FORM.fullmatch(rest):
        raise BadRequest("invalid characters in the target")
    head.target = rest
    head.verbatim = False
    # RFC 9112 §3.2.2: the authority of the target replaces the Host field.
    head.cuts = merge_cuts(head.cuts, _spans_of(head.low, frozenset((b"host",))))
    return authority.lower()


_EARLY: Final = re.compile(rb"(?<!\r)\n|\r[^\n]|\x00")


def check_partial(data: bytes) -> None:
    """Raise BadRequest when the beginning of a head can no longer become a valid one."""
    if _EARLY.search(data):
        raise BadRequest("a bare CR, bare LF or NUL in the head")


class ResponseHead:
    """One response's head, checked."""

    __slots__ = ("chunked", "close", "content_length", "cuts", "has_date", "line_end", "low", "minor", "raw", "status", "upgrade")

    raw: bytes
    low: bytes
    line_end: int
    status: int
    minor: int
    cuts: list[Span]
    content_length: int
    """-1: not given, the body ends with the connection unless `chunked` or bodiless."""
    chunked: bool
    close: bool
    """Whether the endpoint will close the connection after this response."""
    has_date: bool
    upgrade: bytes

    def fields(self) -> list[Field]:
        """Return every field that may be forwarded, as (name, value)."""
        return _fields(self.raw, self.cuts)


def parse_response(raw: bytes) -> ResponseHead:  # noqa: C901 - one pass, hot
    """Check a complete response head and return it. Raises UpstreamProtocolError."""
    line = _STATUS_LINE.match(raw)
    if line is None:
        raise UpstreamProtocolError("invalid status line")
    try:
        HttpResponseParser(_SINK).feed_data(raw)
    except HttpParserUpgrade:
        pass
    except HttpParserError as error:
        raise UpstreamProtocolError(_reason(error)) from None
    head = ResponseHead()
    head.raw = raw
    head.low = low = raw.lower()
    head.line_end = line.end() - 2
    head.status = int(line[2])
    head.minor = 1 if line[1] == b"1" else 0
    head.chunked = head.has_date = False
    head.upgrade = b""
    head.close = head.minor == 0
    options = _NO_OPTIONS
    cuts: list[Span] = []
    length = -1
    for found in _SPECIAL_RESPONSE.finditer(low, head.line_end):
        name, value = found.groups()
        if name == b"date":
            head.has_date = True
        elif name == b"content-length":
            value = value.rstrip(b" \t")
            if not _DIGITS.fullmatch(value) or length >= 0:
                raise UpstreamProtocolError("invalid or repeated Content-Length")
            length = int(value)
        else:
            cuts.append(found.span())
            if name == b"connection":
                options = _response_options(options, value)
            elif name == b"transfer-encoding":
                if value.rstrip(b" \t") != b"chunked" or head.chunked or head.minor == 0:
                    raise UpstreamProtocolError("a transfer coding other than chunked")
                head.chunked = True
            elif name == b"upgrade":
                head.upgrade = value.rstrip(b" \t")
    if head.chunked and length >= 0:
        raise UpstreamProtocolError("both Content-Length and Transfer-Encoding")
    head.content_length = length
    if options:
        head.close = b"close" in options or (head.minor == 0 and b"keep-alive" not in options)
        nominated = options - _PROTECTED - _HOP_BY_HOP - _PERSISTENCE
        if nominated:
            cuts = merge_cuts(cuts, _spans_of(low, nominated))
    head.cuts = cuts
    return head


def _response_options(options: frozenset[bytes], value: bytes) -> frozenset[bytes]:
    try:
        return options | parse_options(value)
    except BadRequest as error:
        raise UpstreamProtocolError(error.detail) from None


_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")
_FIELD_LINE: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\t\x20-\x7e\x80-\xff]*)")
_NEVER_IN_TRAILERS: Final = re.compile(
    rb"(?i)connection|keep-alive|proxy-.*|te|trailer|transfer-encoding|upgrade|content-.*|host|cookie|set-cookie|expect|range"
    rb"|authorization|www-authenticate|cache-control|max-forwards|forwarded|x-forwarded-.*|x-real-ip|if-.*|age|date|expires"
    rb"|location|retry-after|vary|warning"
)
"""RFC 9110 §6.5.1: framing, routing, authentication, modifiers and response control stay out of trailers."""


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
        if len(rest) > self.limit:
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
