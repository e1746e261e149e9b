"""What requests and responses have in common: field lines, found and cut out by their place in the head."""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final

from httptools import HttpParserError

from splitproxy.errors import BadRequest

Field = tuple[bytes, bytes]
"""(name as it was spelt, value)."""
Span = tuple[int, int]
NO_OPTIONS: Final[frozenset[bytes]] = frozenset()
_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_PROTECTED: Final = frozenset(
    (b"host", b"content-length", b"transfer-encoding", b"connection", b"cookie", b"authorization", b"set-cookie")
)
"""Fields that a `Connection` option may not take away: they are end to end, whatever a sender claims."""
_HOP_BY_HOP: Final = frozenset(
    (b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade")
)
HARMLESS: Final = _PROTECTED | _HOP_BY_HOP | {b"close"}
"""What `Connection` may list without another look at the head: `close`, and what is cut anyway or never."""


class Sink:
    """Takes no callbacks: the parser is asked for its verdict alone."""


MOST_OPTIONS: Final = 32
"""Of all Connection fields of a head together. Each is looked for: who sends thousands would cost others their time."""
_OPTIONS_BYTES: Final = 1024


def parse_options(value: bytes) -> frozenset[bytes]:
    """Return the members of a comma-separated list of tokens, in lower case. Raises BadRequest."""
    if len(value) > _OPTIONS_BYTES:  # nor may what is remembered take more memory than a little
        raise BadRequest(f"a Connection field of over {_OPTIONS_BYTES} bytes")
    return _parse_options(value)


def check_options(options: frozenset[bytes]) -> None:
    """Raise BadRequest when a head lists more than any that means well."""
    if len(options) > MOST_OPTIONS:
        raise BadRequest(f"more than {MOST_OPTIONS} Connection options")


@lru_cache(maxsize=1024)
def _parse_options(value: bytes) -> frozenset[bytes]:
    options = [option.strip(b" \t") for option in value.lower().split(b",")]
    if any(option and not _TOKEN.fullmatch(option) for option in options):
        raise BadRequest("invalid Connection field")
    return frozenset(filter(None, options))


def split_fields(raw: bytes, cuts: Sequence[Span]) -> list[Field]:
    """Return the fields of a head that no cut takes out."""
    start = raw.find(b"\r\n")
    pieces = []
    for cut_start, cut_end in cuts:
        pieces.append(raw[start:cut_start])
        start = cut_end
    pieces.append(raw[start:-4])
    lines = b"".join(pieces).split(b"\r\n")[1:]
    return [(name, value.strip(b" \t")) for name, _, value in (line.partition(b":") for line in lines)]


def spans(special: re.Pattern[bytes], low: bytes, offset: int, kept: frozenset[bytes]) -> list[Span]:
    """Return the spans of all special lines but those called `kept`, each with the CRLF before it."""
    return [
        (found.start() - 1 + offset, found.end() + offset) for found in special.finditer(low) if found[1] not in kept
    ]


def spans_of(low: bytes, offset: int, names: Iterable[bytes]) -> list[Span]:
    """Return the spans of all lines called one of `names`, each with the CRLF before it."""
    found = []
    for name in names:
        needle = b"\n%b:" % name
        at = low.find(needle)
        while at >= 0:
            end = low.find(b"\r", at)
            found.append((at - 1 + offset, end + offset))
            at = low.find(needle, end)
    return found


def merge_cuts(cuts: Sequence[Span], more: Sequence[Span]) -> list[Span]:
    """Return both lists of spans as one, in order and each once."""
    return sorted({*cuts, *more})


def reason(error: HttpParserError) -> str:
    """Return what the C parser says is wrong."""
    return str(error).split("\n")[0][:100] or "malformed request"
