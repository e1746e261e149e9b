"""Filters as small compiled objects: header modifiers, redirects, rewrites (Gateway API HTTPRouteFilter), faults."""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple
from urllib.parse import unquote_to_bytes

from splitproxy.core.targets import normalise

Field = tuple[bytes, bytes]
Plain = dict[str, Any]
"""A piece of the plain snapshot: keys as in the file, every default filled in."""

_DEFAULT_PORTS: Final = {b"http": 80, b"https": 443}
_EMPTY: Final = frozenset((b"", b"."))
# RFC 9110 §5.3 joins repeated fields by a comma; a cookie list has its own separator (RFC 6265 §4.2.1).
_JOINTS: Final = {b"cookie": b"; "}
# RFC 9110 §5.3: the one field that cannot be joined at all.
_UNJOINABLE: Final = b"set-cookie"


class HeaderModifier:
    """Sets, adds and removes fields."""

    __slots__ = ("_add", "_drop", "_set")

    def __init__(self, put: Iterable[Field], add: Iterable[Field], remove: Iterable[bytes]) -> None:
        self._set = tuple(put)
        self._add = tuple((name, name.lower(), value) for name, value in add)
        self._drop = frozenset([*(name.lower() for name, _ in self._set), *(name.lower() for name in remove)])

    def apply(self, fields: list[Field]) -> None:
        """Change `fields` in place; names are compared without regard to case."""
        if self._drop:
            drop = self._drop
            fields[:] = [field for field in fields if field[0].lower() not in drop]
            fields += self._set
        for name, low, value in self._add:
            _add(fields, name, low, value)


def _add(fields: list[Field], name: bytes, low: bytes, value: bytes) -> None:
    """Append `value` to the last field called `name`, or as a field of its own."""
    if low != _UNJOINABLE:
        for index in range(len(fields) - 1, -1, -1):
            present, old = fields[index]
            if present.lower() == low:
                fields[index] = (present, old + _JOINTS.get(low, b",") + value if old else value)
                return
    fields.append((name, value))


class PathChange:
    """A new path in place of the request's."""

    __slots__ = ("_bare", "_base", "_elements", "_full", "_length")

    def __init__(self, full: bytes | None, prefix: bytes, replacement: bytes) -> None:
        self._full = full
        stripped = (normalise(prefix) if b"%" in prefix else prefix).rstrip(b"/")
        self._length = len(stripped)
        self._elements = stripped.count(b"/")
        self._base = replacement.rstrip(b"/")
        self._bare = replacement or b"/"

    def path(self, path: bytes) -> bytes:
        """Return the path that takes the place of `path`, which is as it came and begins with the matched prefix.

        What follows the prefix keeps its spelling, save that dot segments and empty segments are resolved: left in,
        they could climb out of the replacement.
        """
        if self._full is not None:
            return self._full
        if b"%" in path or b"//" in path or b"/." in path:
            rest = _without_elements(path, self._elements)
        else:
            rest = path[self._length :]
        return self._base + rest if rest else self._bare


def _without_elements(path: bytes, count: int) -> bytes:
    """Return `path`, its dot and empty segments resolved as for matching, without its first `count` elements."""
    kept: list[bytes] = []
    plain = b""
    for segment in path.split(b"/")[1:]:
        plain = unquote_to_bytes(segment)
        if plain == b"..":
            del kept[-1:]
        elif plain not in _EMPTY:
            kept.append(segment)
    if not kept:
        return b"/"
    rest = b"".join(b"/" + segment for segment in kept[count:])
    return rest + b"/" if plain in _EMPTY or plain == b".." else rest


class Redirect:
    """Answers with another address (HTTPRequestRedirectFilter)."""

    __slots__ = ("_change", "_hostname", "_port", "_scheme", "status")

    def __init__(
        self, status: int, scheme: bytes | None, hostname: bytes | None, port: int | None, change: PathChange | None
    ) -> None:
        self.status = status
        self._scheme, self._hostname, self._port, self._change = scheme, hostname, port, change

    def location(self, scheme: bytes, host: bytes, port: int, target_path: bytes, query: bytes) -> bytes:
        """Return the value of Location for a request that came by `scheme` to the listener's `port`.

        `host` is without a port; empty (HTTP/1.0) and not configured either, the value is relative.
        """
        path = target_path if self._change is None else self._change.path(target_path)
        if not path.startswith(b"/"):
            path = b"/"
        if query:
            path += b"?" + query
        name = self._hostname or host
        if not name:
            return b"/" + path.lstrip(b"/")  # two slashes would name another host (RFC 3986 §4.2)
        new_scheme = self._scheme or scheme
        standard = _DEFAULT_PORTS[new_scheme]
        new_port = self._port or (standard if self._scheme else port)
        if new_port == standard:
            return b"%b://%b%b" % (new_scheme, name, path)
        return b"%b://%b:%d%b" % (new_scheme, name, new_port, path)


class Rewrite:
    """Changes Host and target on the way to the upstream (HTTPURLRewriteFilter)."""

    __slots__ = ("_change", "changes_path", "hostname")

    def __init__(self, hostname: bytes | None, change: PathChange | None) -> None:
        self.hostname = hostname
        self._change = change
        self.changes_path = change is not None

    def target(self, path: bytes, query: bytes) -> bytes:
        """Return the request target for the upstream; `path` is as it came."""
        if self._change is not None:
            path = self._change.path(path)
        return path + b"?" + query if query else path


class Fault:
    """Delays or aborts some of the requests, to see what becomes of it."""

    __slots__ = ("_aborts", "_delay", "_delays", "_status")

    def __init__(self, delays: float, delay: float, aborts: float, status: int) -> None:
        """Delay `delays` percent by `delay` seconds, answer `aborts` percent with `status`."""
        self._delays, self._delay, self._aborts, self._status = delays, delay, aborts, status

    def draw(self, delay_point: float, abort_point: float) -> tuple[float, int]:
        """Return the seconds by which to delay a request, and the status to answer it with; 0: not at all.

        Both points are random in [0, 1).
        """
        return (
            self._delay if delay_point * 100.0 < self._delays else 0.0,
            self._status if abort_point * 100.0 < self._aborts else 0,
        )


class Filters(NamedTuple):
    """The filters of one rule or backendRef, compiled; mirrors are left to the rule, which knows their names."""

    request_modifier: HeaderModifier | None = None
    response_modifier: HeaderModifier | None = None
    rewrite: Rewrite | None = None
    redirect: Redirect | None = None
    mirrors: tuple[Plain, ...] = ()
    fault: Fault | None = None


NO_FILTERS: Final = Filters()


def compile_filters(plain: list[Plain], prefix: str) -> Filters:
    """Compile filters; `prefix` is the value of the rule's PathPrefix match, for ReplacePrefixMatch."""
    if not plain:
        return NO_FILTERS
    found: dict[str, Any] = {}
    mirrors: list[Plain] = []
    for item in plain:
        match item["type"]:
            case "RequestHeaderModifier":
                found["request_modifier"] = _modifier(item["requestHeaderModifier"])
            case "ResponseHeaderModifier":
                found["response_modifier"] = _modifier(item["responseHeaderModifier"])
            case "URLRewrite":
                found["rewrite"] = _rewrite(item["urlRewrite"], prefix)
            case "RequestRedirect":
                found["redirect"] = _redirect(item["requestRedirect"], prefix)
            case "RequestMirror":
                mirrors.append(item["requestMirror"])
            case "Fault":
                found["fault"] = _fault(item["fault"])
            case unknown:
                raise ValueError(f"unknown filter type {unknown!r}")
    return Filters(**found, mirrors=tuple(mirrors))


def _modifier(plain: Plain) -> HeaderModifier:
    return HeaderModifier(
        [(item["name"].encode(), item["value"].encode()) for item in plain["set"]],
        [(item["name"].encode(), item["value"].encode()) for item in plain["add"]],
        [name.encode() for name in plain["remove"]],
    )


def _fault(plain: Plain) -> Fault:
    delay = plain["delay"] or {"percent": 0, "duration": 0.0}
    abort = plain["abort"] or {"percent": 0, "status": 0}
    return Fault(delay["percent"], delay["duration"], abort["percent"], abort["status"])


def _rewrite(plain: Plain, prefix: str) -> Rewrite:
    return Rewrite(_optional(plain["hostname"]), _change(plain["path"], prefix))


def _redirect(plain: Plain, prefix: str) -> Redirect:
    return Redirect(
        plain["statusCode"],
        _optional(plain["scheme"]),
        _optional(plain["hostname"]),
        plain["port"],
        _change(plain["path"], prefix),
    )


def _change(plain: Plain | None, prefix: str) -> PathChange | None:
    if plain is None:
        return None
    if plain["type"] == "ReplaceFullPath":
        return PathChange(plain["replaceFullPath"].encode() or b"/", b"", b"")
    return PathChange(None, prefix.encode(), plain["replacePrefixMatch"].encode())


def _optional(text: str | None) -> bytes | None:
    return None if text is None else text.encode()
