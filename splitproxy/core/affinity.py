"""Session affinity: a client keeps its side for one run of a rollout, and the canary's share does not drift.

The cookie's value is `id.salt`: 32 hexadecimal digits that are the client's own, and the 16 of the run's salt. Not the
side is remembered but the id, whose hash says the side under any share: so a share that grows moves as many clients as
it must, none of them back, and one that never came before is drawn like all others. A cookie with another salt is of
another run, and as good as none.
"""

from typing import Final

from splitproxy.core.filters import Plain
from splitproxy.core.matching import RequestView

ID_DIGITS: Final = 32
_DIGITS: Final = b"0123456789abcdef"


class Affinity:
    """The cookies of one rollout: one for both sides, or one for each."""

    __slots__ = ("_attributes", "_canary", "_primary", "_settled")

    def __init__(self, plain: Plain) -> None:
        """`plain` is a `sessionAffinity` with every default filled in."""
        self._canary: bytes = plain["cookieName"].encode()
        self._primary: bytes = (plain["primaryCookieName"] or plain["cookieName"]).encode()
        parts = [f"Path={plain['path'] or '/'}", f"Max-Age={plain['maxAge']}"]
        if plain["domain"]:
            parts.append(f"Domain={plain['domain']}")
        parts += [word for key, word in _FLAGS.items() if plain[key]]
        parts.append(f"SameSite={plain['sameSite'] or 'Lax'}")
        self._attributes = "; ".join(parts).encode()
        self._settled: bool = plain["secure"] is not None

    def settles(self, line: bytes) -> bool:
        """Return whether a Set-Cookie line is ours, of a cookie for which the file itself says whether it is Secure."""
        names = (self._canary, self._primary)
        return self._settled and line.startswith(tuple(b"Set-Cookie: %b=" % name for name in names))

    def found(self, request: RequestView, salt: bytes) -> tuple[bytes, bytes] | None:
        """Return the client's id and the name of the cookie that has it, the canary's first.

        None: it has no cookie of the run with this salt (16 digits).
        """
        name = self._canary
        value = request.cookie(name)
        if not _valid(value, salt):
            if self._primary == name:
                return None
            name = self._primary
            value = request.cookie(name)
            if not _valid(value, salt):
                return None
        assert value is not None
        return value[:ID_DIGITS], name

    def kept(self, request: RequestView, client: bytes, name: bytes, salt: bytes, *, canary: bool) -> bytes:
        """Return the Set-Cookie line for a client that came with the cookie `name`; nothing unless it has moved."""
        wanted = self._canary if canary else self._primary
        if wanted == name or request.cookie(wanted) == client + b"." + salt:
            return b""
        return self.issued(client, salt, canary=canary)

    def issued(self, client: bytes, salt: bytes, *, canary: bool) -> bytes:
        """Return the Set-Cookie line for a client on this side."""
        name = self._canary if canary else self._primary
        return b"Set-Cookie: %b=%b.%b; %b\r\n" % (name, client, salt, self._attributes)


# What `secure` leaves open is for the connection to say: it is added where the client speaks TLS.
_FLAGS: Final = {"httpOnly": "HttpOnly", "secure": "Secure", "partitioned": "Partitioned"}


def _valid(value: bytes | None, salt: bytes) -> bool:
    """Whether it is a cookie of this run; its id may come back in a header, so it is looked at closely."""
    return (
        value is not None
        and len(value) == ID_DIGITS + 1 + len(salt)
        and value[ID_DIGITS:] == b"." + salt
        and not value[:ID_DIGITS].translate(None, _DIGITS)
    )
