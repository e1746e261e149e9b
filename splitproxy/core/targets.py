"""Host values and paths: what routes are matched against (RFC 3986, RFC 9110 §7.2)."""

import re
from functools import lru_cache
from typing import Final

from splitproxy.errors import BadRequest

_HOST: Final = re.compile(rb"([a-z0-9!$&'()*+,;=_~.%-]+|\[[0-9a-f:.]+\])(?::([0-9]{0,5}))?", re.IGNORECASE)
_ESCAPE: Final = re.compile(rb"%([0-9A-Fa-f]{2})")
_UNRESERVED: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


_HOST_BYTES: Final = 261
"""A name of 255 (RFC 3986 §3.2.2, as in DNS) and a port. Names are remembered, so they have to be bounded."""
_KNOWN_BYTES: Final = 256
"""The longest path that is remembered."""


@lru_cache(maxsize=16_384)
def parse_host(value: bytes) -> bytes:
    """Return the name of a Host value in lower case, without its port. Raises BadRequest (RFC 9110 §7.2)."""
    found = _HOST.fullmatch(value) if len(value) <= _HOST_BYTES else None
    if found is None or (found[2] and int(found[2]) > 65535):
        raise BadRequest("invalid Host")
    return found[1].lower().rstrip(b".") if found[1] != b"." else b"."


def normalise(path: bytes) -> bytes:
    """Return `path` as routes are matched against it; what is forwarded stays as it came.

    RFC 3986 §6.2.2: escapes of unreserved octets are decoded, all others kept in upper case (an encoded slash is data,
    not structure), dot segments resolved. Empty segments are dropped too, as upstreams mostly do.
    """
    return _known(path) if len(path) <= _KNOWN_BYTES else _normalise(path)


def _normalise(path: bytes) -> bytes:
    path = _ESCAPE.sub(_decode, path)
    kept: list[bytes] = []
    segments = path.split(b"/")[1:]
    for segment in segments:
        if segment == b"..":
            del kept[-1:]
        elif segment not in {b"", b"."}:
            kept.append(segment)
    tail = b"/" if segments and segments[-1] in {b"", b".", b".."} and kept else b""
    return b"/" + b"/".join(kept) + tail


_known: Final = lru_cache(maxsize=1024)(_normalise)


def _decode(escape: re.Match[bytes]) -> bytes:
    octet = int(escape[1], 16)
    return bytes((octet,)) if octet in _UNRESERVED else escape[0].upper()
