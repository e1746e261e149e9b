"""Paths: those that requests are matched against, and those written in their place."""

import re
from typing import Annotated, Any, Final

from splitproxy.config.fields import Checked, text, wrong
from splitproxy.config.problems import clipped

_PATH: Final = re.compile(r"/(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|%[0-9A-Fa-f]{2})*", re.ASCII)
_UNWANTED: Final = ("//", "/./", "/../", "%2f", "#", "?")


def path_value(given: str) -> str:
    """Return a path for an Exact or PathPrefix match (Gateway API `HTTPPathMatch`)."""
    if not given.startswith("/"):
        raise wrong(f"a path begins with '/', {clipped(given)} does not", f"write {clipped('/' + given)}")
    folded = given.lower().replace("%2e", ".")
    for part in _UNWANTED:
        if part in folded:
            raise wrong(f"'{part}' cannot stand in a path that is matched: requests are normalised before")
    if folded.endswith(("/.", "/..")):
        raise wrong("a path that is matched does not end in '/.' or '/..': requests are normalised before")
    if len(given) > 1024:
        raise wrong(f"a path has at most 1024 characters, not {len(given)}")
    if not _PATH.fullmatch(given):
        raise wrong(f"{clipped(given)} is not a path of a URL", "percent-encode what is not a letter, digit or -._~")
    return given


def replacement_path(value: Any) -> str:
    """Return a path to write instead of another; empty is the root."""
    given = text(value, "a path is wanted")
    if given and not given.startswith("/"):
        raise wrong(f"a path begins with '/', {clipped(given)} does not", f"write {clipped('/' + given)}")
    if given.startswith("//"):
        raise wrong("a path that begins with '//' would name another host (RFC 3986 §4.2)")
    if len(given) > 1024 or (given and not _PATH.fullmatch(given)):
        raise wrong(f"{clipped(given)} is not a path of a URL", "percent-encode what is not a letter, digit or -._~")
    return str(given)


ReplacementPath = Annotated[str, Checked(replacement_path, {"type": "string", "maxLength": 1024, "examples": ["/new"]})]
