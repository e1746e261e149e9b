"""HTTP/1 heads and framing: bytes in, values or errors out (RFC 9110, RFC 9112).

A head is handled whole. The C parser (httptools) says whether its bytes are HTTP at all; what that parser lets through
(versions, Host, targets, limits, transfer codings) is refused here. Only fields that mean something to a proxy are then
looked at, found by one search over the lower-cased head; every other byte is forwarded as it came, so a head costs the
same however many fields it has and nothing is re-spelt on the way.
"""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import product
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
_NO_OPTIONS: Final[frozenset[bytes]] = frozenset()

IDEMPOTENT: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"))
"""RFC 9110 §9.2.2."""
SAFE: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE"))
"""RFC 9110 §9.2.1."""


def _spellings(*names: bytes) -> Iterator[bytes]:
    """Yield names with each "-" also as "_": a CGI-like upstream would read both as one, so neither may slip through."""
    for name in names:
        for marks in product((b"-", b"_"), repeat=name.count(b"-")):
            pieces = name.split(b"-")
            yield b"".join(piece for pair in zip(pieces, (*marks, b""), strict=True) for piece in pair)


_FORWARDED: Final = tuple(
    b"x-forwarded-" + what
    for what in (b"for", b"host", b"proto", b"port", b"prefix", b"server", b"scheme", b"ssl", b"path", b"uri", b"by", b"user")
)
_SPECIAL_REQUEST: Final = frozenset(
    (
        *(b"host", b"connection", b"expect", b"te", b"trailer", b"upgrade", b"forwarded", b"http2-settings", b"x-request-id"),
        *_spellings(b"content-length", b"transfer-encoding", b"keep-alive", b"proxy-connection", b"x-real-ip", *_FORWARDED),
    )
)
"""Request fields that mean something to a proxy."""
_SPECIAL_RESPONSE: Final = frozenset(
    (
        *(b"content-length", b"date", b"connection", b"transfer-encoding", b"keep-alive", b"proxy-connection", b"te"),
        *(b"trailer", b"upgrade"),
    )
)
_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_DIGITS: Final = re.compile(rb"[0-9]{1,18}")
_ORIGIN_FORM: Final = re.compile(rb"/[\x21\x24-\x3b\x3d\x3f-\x7e]*")
"""RFC 9112 §3.2.1, and as browsers write it: any visible ASCII but `"`, `#`, `<` and `>`."""
_PLAIN_TARGET: Final = re.compile(
    rb"((?:/[^\x00-\x20\"#%<>?./\x7f-\xff][^\x00-\x20\"#%<>?/\x7f-\xff]*)*/?)(?<!^)(\?[\x21\x24-\x3b\x3d\x3f-\x7e]*)?"
)
"""The same, less what has to be normalised before it is matched: escapes, dot segments, empty segments."""
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
_HARMLESS: Final = _PROTECTED | _HOP_BY_HOP | {b"close"}
"""What `Connection` may list without another look at the head: `close`, and what is cut anyway or never."""


class _Sink:
    """Takes the fields a parser finds into a dict, without a line of Python per field; the first of a name counts."""

    __slots__ = ("on_header",)

    def __init__(self, fields: dict[bytes, bytes]) -> None:
        self.on_header = fields.setdefault


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
    """One request's head, checked; what the proxy must know of it, and its bytes.

    No slots, on purpose: most requests leave most of this at the class's defaults, which then cost nothing to set.
    """

    raw: bytes
    """All bytes, the last empty line included."""
    low: bytes
    """The same in lower case, from the end of the request line on."""
    method: bytes
    target: bytes
    """As it came; of an absolute-form target only the origin-form part."""
    minor: int = 1
    """The version: HTTP/1.`minor`."""
    line_end: int
    """Where the request line ends in `raw`."""
    plain: bool = True
    """Whether it has neither a body nor anything else that asks for more than being sent on."""
    verbatim: bool = True
    """Whether the request line can be forwarded as it came."""
    authority: bytes = b""
    """The Host value, or what an absolute-form target says instead; empty when an HTTP/1.0 request names none."""
    host: bytes = b""
    """`authority` in lower case without its port."""
    path: bytes
    """Normalised for matching."""
    query: bytes = b""
    cuts: Sequence[Span] = ()
    """Spans of `raw` that must not be forwarded, in order: `\\r\\nName: value`."""
    options: frozenset[bytes] = _NO_OPTIONS
    """What `Connection` lists."""
    content_length: int = 0
    """0 when there is no body; meaningless when `chunked`."""
    chunked: bool = False
    keep_alive: bool = True
    expect_continue: bool = False
    upgrade: bytes = b""
    request_id: bytes = b""
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
    def target_is_origin(self) -> bool:
        """Whether the target came in origin form or as `*`, so that the Host field stands in the head itself."""
        return self.raw.startswith(self.target, len(self.method) + 1)

    def fields(self) -> list[Field]:
        """Return every field that may be forwarded, as (name, value)."""
        return _fields(self.raw, self.cuts)


def _fields(raw: bytes, cuts: Sequence[Span]) -> list[Field]:
    start = raw.find(b"\r\n")
    pieces = []
    for cut_start, cut_end in cuts:
        pieces.append(raw[start:cut_start])
        start = cut_end
    pieces.append(raw[start:-4])
    lines = b"".join(pieces).split(b"\r\n")[1:]
    return [(name, value.strip(b" \t")) for name, _, value in (line.partition(b":") for line in lines)]


def parse_request(raw: bytes, max_count: int, max_uri: int) -> RequestHead:
    """Check a complete request head and return it. Raises a ClientError or LocalError that says what is wrong."""
    line_end = raw.find(b"\r\n")
    words = raw[:line_end].split(b" ")
    if len(words) != 3:
        raise BadRequest("invalid request line")
    head = RequestHead()
    head.raw = raw
    head.line_end = line_end
    head.method, target, version = words
    if version != b"HTTP/1.1":
        _check_version(head, version)
    if len(target) > max_uri:
        raise TargetTooLong(f"the target is over {max_uri} bytes")
    head.low = low = raw[line_end:].lower()
    lines = low.count(b"\n") - 2
    if lines > max_count:
        raise HeadTooLarge(f"more than {max_count} fields")
    parser, fields = _spare_parsers.pop() if _spare_parsers else _request_parser()
    try:
        parser.feed_data(raw[:line_end])
        parser.feed_data(low)
    except HttpParserUpgrade:
        if head.method == b"CONNECT":
            raise MethodNotSupported("CONNECT is not supported") from None
    except HttpParserError as error:
        raise BadRequest(_reason(error)) from None
    if len(fields) != lines:
        _join_repeated(low, fields)
        if fields.get(b"host", b"").count(b"\0"):
            raise BadRequest("more than one Host")
    host = _read_fields(head, fields)
    if head.plain:
        fields.clear()
        _spare_parsers.append((parser, fields))
    found = _PLAIN_TARGET.fullmatch(target)
    if found is not None:
        head.target = target
        head.path, query = found.groups()
        if query:
            head.query = query[1:]
    else:
        host = _unusual_target(head, target, host)
    if host:
        head.authority = host
        head.host = parse_host(host)
    return head


def _unusual_target(head: RequestHead, target: bytes, host: bytes) -> bytes:
    """Take in a target that is not simply `/path?query`; return the host that counts."""
    if target.startswith(b"/") and _ORIGIN_FORM.fullmatch(target):
        head.target = target
    else:
        host = _other_form(head, target, host)
    path, _, head.query = head.target.partition(b"?")
    head.path = normalise(path) if path != b"*" else b"/"
    return host


_Parser = tuple[HttpRequestParser, dict[bytes, bytes]]
_spare_parsers: list[_Parser] = []
"""At most one parser, between two messages, to be used again: making one costs as much as using it. (Rule zero: state in
`core`.) It carries nothing over: only after a message without a body on a connection that goes on is it kept."""


def _request_parser() -> _Parser:
    fields: dict[bytes, bytes] = {}
    return HttpRequestParser(_Sink(fields)), fields


def _join_repeated(low: bytes, fields: dict[bytes, bytes]) -> None:
    """Put all values of names that occur more than once into `fields`, NUL between them: no single value has one."""
    seen: dict[bytes, list[bytes]] = {}
    for line in low.split(b"\r\n")[1:-2]:
        name, _, value = line.partition(b":")
        seen.setdefault(name, []).append(value.strip(b" \t"))
    for name, values in seen.items():
        if len(values) > 1:
            fields[name] = b"\0".join(values)


def _read_fields(head: RequestHead, fields: dict[bytes, bytes]) -> bytes:
    """Take in the fields that mean something to a proxy; return the Host value, empty when there is none."""
    host, cuts = b"", []
    for name in _SPECIAL_REQUEST.intersection(fields):
        if name == b"host":
            host = fields[name].rstrip(b" \t")
        elif name == b"connection":
            cuts.append(name)
            value = fields[name]
            if value != b"keep-alive" or not head.minor:
                head.options = parse_options(value.replace(b"\0", b","))
                head.plain = False
        elif name == b"content-length":
            head.content_length = _length(fields[name].rstrip(b" \t"))
            head.plain = False
        elif name != b"x-request-id" or not _take_request_id(head):
            cuts.append(name)
            if name in _FRAMING:
                _read_framing(head, name, fields[name].rstrip(b" \t"))
    if not host and (head.minor or b"host" in fields):
        raise BadRequest("no Host, or an empty one")
    if cuts:
        head.cuts = _cut(head.low, head.line_end, cuts)
    if not head.plain:
        if head.chunked and b"content-length" in fields:
            raise BadRequest("both Content-Length and Transfer-Encoding")
        _apply_options(head)
    return host


def _cut(low: bytes, offset: int, names: Sequence[bytes]) -> Sequence[Span]:
    """Return the spans of all lines called one of `names`, each with the CRLF before it."""
    if len(names) == 1:
        needle = b"\r\n" + names[0] + b":"
        start = low.find(needle)
        end = low.find(b"\r\n", start + 2)
        if low.find(needle, end) < 0:
            return ((start + offset, end + offset),)
    pattern = _names_pattern(frozenset(names))
    return [(found.start() + offset, found.end() + offset) for found in pattern.finditer(low)]


@lru_cache(maxsize=256)
def _names_pattern(names: frozenset[bytes]) -> re.Pattern[bytes]:
    return re.compile(rb"\r\n(?:" + b"|".join(map(re.escape, sorted(names))) + rb"):[^\r]*")


def _length(value: bytes) -> int:
    if not _DIGITS.fullmatch(value):
        raise BadRequest("invalid or repeated Content-Length")
    return int(value)


_FRAMING: Final = frozenset((b"transfer-encoding", b"upgrade", b"expect"))


def _read_framing(head: RequestHead, name: bytes, value: bytes) -> None:
    head.plain = False
    if name == b"transfer-encoding":
        _check_coding(value, head.minor)
        head.chunked = True
    elif name == b"upgrade":
        head.upgrade = value.replace(b"\0", b",")
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


def _reason(error: HttpParserError) -> str:
    return str(error).split("\n")[0][:100] or "malformed request"


def _check_version(head: RequestHead, version: bytes) -> None:
    if version == b"HTTP/1.0":
        head.minor = 0
        head.plain = head.verbatim = head.keep_alive = False
    elif re.fullmatch(rb"HTTP/[0-9]\.[0-9]", version):
        raise VersionNotSupported("only HTTP/1.0 and HTTP/1.1 are spoken here")
    else:
        raise BadRequest("invalid HTTP version")


def _check_coding(coding: bytes, minor: int) -> None:
    if coding != b"chunked":
        if coding.endswith(b"chunked") and re.fullmatch(rb"[a-z-]+([ \t]*,[ \t]*[a-z-]+)*", coding):
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
    if head.upgrade:
        # h2c would let a client speak past us (RFC 9113 §3.1 has dropped it); what is not in Connection is no offer.
        offers = [offer.strip(b" \t") for offer in head.upgrade.split(b",")]
        allowed = b"upgrade" in options and head.minor == 1
        head.upgrade = b", ".join(offer for offer in offers if offer and offer != b"h2c") if allowed else b""
    nominated = options - _HARMLESS
    if nominated:
        head.cuts = merge_cuts(head.cuts, _cut(head.low, head.line_end, sorted(nominated)))


def merge_cuts(cuts: Sequence[Span], more: Sequence[Span]) -> list[Span]:
    """Return both lists of spans as one, in order and each once."""
    return sorted({*cuts, *more})


def _other_form(head: RequestHead, target: bytes, host: bytes) -> bytes:
    """Set the target of an absolute-form or asterisk-form request; return the host that counts (RFC 9112 §3.2)."""
    if target == b"*":
        if head.method != b"OPTIONS":
            raise BadRequest("the target * belongs to OPTIONS")
        head.target = target
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
    head.target = rest
    head.plain = head.verbatim = False
    # RFC 9112 §3.2.2: the authority of the target replaces the Host field.
    head.cuts = merge_cuts(head.cuts, _cut(head.low, head.line_end, [b"host"]) if host else ())
    return authority.lower()


_EARLY: Final = re.compile(rb"(?<!\r)\n|\r[^\n]|\x00")


def check_partial(data: bytes) -> None:
    """Raise BadRequest when the beginning of a head can no longer become a valid one."""
    if _EARLY.search(data):
        raise BadRequest("a bare CR, bare LF or NUL in the head")


class ResponseHead:
    """One response's head, checked. No slots, as for `RequestHead`."""

    raw: bytes
    low: bytes
    """`raw` in lower case, from the end of the status line on."""
    line_end: int
    status: int
    minor: int = 1
    cuts: Sequence[Span] = ()
    content_length: int = -1
    """-1: not given, the body ends with the connection unless `chunked` or bodiless."""
    chunked: bool = False
    close: bool = False
    """Whether the endpoint will close the connection after this response."""
    has_date: bool = False
    upgrade: bytes = b""

    def fields(self) -> list[Field]:
        """Return every field that may be forwarded, as (name, value)."""
        return _fields(self.raw, self.cuts)


def parse_response(raw: bytes) -> ResponseHead:
    """Check a complete response head and return it. Raises UpstreamProtocolError."""
    head = ResponseHead()
    head.raw = raw
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
    fields: dict[bytes, bytes] = {}
    parser = HttpResponseParser(_Sink(fields))
    try:
        parser.feed_data(raw[:line_end])
        parser.feed_data(low)
    except HttpParserUpgrade:
        pass
    except HttpParserError as error:
        raise UpstreamProtocolError(_reason(error)) from None
    if len(fields) != low.count(b"\n") - 2:
        _join_repeated(low, fields)
    cuts, options = [], _NO_OPTIONS
    for name in _SPECIAL_RESPONSE.intersection(fields):
        if name == b"date":
            head.has_date = True
        elif name == b"content-length":
            value = fields[name].rstrip(b" \t")
            if not value.isdigit() or len(value) > 18:
                raise UpstreamProtocolError("invalid or repeated Content-Length")
            head.content_length = int(value)
            if status == 204:  # RFC 9110 §8.6: MUST NOT be sent
                cuts.append(name)
        else:
            cuts.append(name)
            if name == b"connection":
                if fields[name] != b"keep-alive" or head.close:
                    options = _response_options(fields[name].replace(b"\0", b","))
            elif name == b"transfer-encoding":
                if fields[name].rstrip(b" \t") != b"chunked" or head.minor == 0:
                    raise UpstreamProtocolError("a transfer coding other than chunked")
                head.chunked = True
            elif name == b"upgrade":
                head.upgrade = fields[name].rstrip(b" \t")
    if cuts:
        head.cuts = _cut(low, line_end, cuts)
    if head.chunked and head.content_length >= 0:
        raise UpstreamProtocolError("both Content-Length and Transfer-Encoding")
    if options:
        head.close = b"close" in options or (head.minor == 0 and b"keep-alive" not in options)
        nominated = options - _HARMLESS
        if nominated:
            head.cuts = merge_cuts(head.cuts, _cut(low, line_end, sorted(nominated)))
    return head


def _response_options(value: bytes) -> frozenset[bytes]:
    try:
        return parse_options(value)
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
