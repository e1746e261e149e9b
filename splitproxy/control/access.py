"""Who asks the admin API: nobody in particular, or the bearer of a token with its role; and what that role may do."""

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass
from typing import Final

from splitproxy.control.loading import Token

OPEN: Final = frozenset({"/healthz", "/readyz", "/", "/favicon.ico"})
"""Paths that need no token: they change nothing and say next to nothing. The dashboard's page asks for one itself."""
ASSETS: Final = "/assets/"
"""Where the dashboard's files are, which are open too: they are the same everywhere."""
READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True)
class Caller:
    """Who asks."""

    name: str | None = None
    """The token's; None where none is configured."""
    role: str = "operator"


@dataclass(frozen=True)
class Denied:
    """A request that is not let through."""

    status: int
    detail: str


def caller(tokens: list[Token] | None, authorization: str | None, method: str, path: str) -> Caller | Denied:
    """Return who asks, or why the request is refused.

    With no tokens everybody may do everything; None says that they are not known yet, so nobody may.

    A token comes as `Bearer` (RFC 6750), or as the password of `Basic` (RFC 7617), for browsers.
    """
    if tokens == [] or (method in READING and (path in OPEN or path.startswith(ASSETS))):
        return Caller()
    if tokens is None:
        return Denied(503, "no configuration is in force yet")
    if authorization is None:
        return Denied(401, "a token is needed: send `Authorization: Bearer TOKEN`, or set SPLITPROXY_TOKEN")
    given = hashlib.sha256(_token(authorization)).hexdigest()
    # Every digest is compared, each in constant time: how long it takes says nothing about any token.
    found = [token for token in tokens if hmac.compare_digest(token.digest, given)]
    if not found:
        return Denied(401, "this token is not known here")
    known = found[0]
    if known.role != "operator" and method not in READING:
        return Denied(403, f"the token {known.name} may only read: this needs the role operator")
    return Caller(known.name, known.role)


def _token(authorization: str) -> bytes:
    scheme, _, rest = authorization.strip().partition(" ")
    rest = rest.strip()
    if scheme.lower() == "bearer":
        return rest.encode("utf-8", "surrogateescape")
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(rest, validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            return b""
    return b""
