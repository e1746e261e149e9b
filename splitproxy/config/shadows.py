"""Matches that can never win, because another one comes before them and takes everything they would take.

Only matches for the same host pattern compete: a request goes to its most specific host first. Among those the order is
the Gateway API's, in which more conditions come before fewer. A match that is at least as wide as another therefore
comes before it in two cases alone, and both are found by looking up, not by comparing pairs:

- the same conditions, earlier in the file;
- a path expression that takes a whole prefix (`.*`, `/api/.*`), since expressions come before prefixes.
"""

import re
from collections.abc import Iterator
from typing import Final

from splitproxy.config.matches import Match
from splitproxy.config.nodes import Path
from splitproxy.config.root import Config
from splitproxy.core.targets import normalise

Conditions = tuple[str | None, frozenset[tuple[str, ...]]]
"""Method, and all other conditions but the path's."""

_SWEEPING: Final = re.compile(r"\^?((?:/[A-Za-z0-9_/-]*)?)\.\*\$?", re.ASCII)
_EVERYTHING: Final = Match()
_MOST_SWEEPS: Final = 100


def shadows(config: Config) -> Iterator[tuple[Path, Path, list[str]]]:
    """Yield matches that never win with the match that shadows them and, where it is so only for some, the hosts."""
    index = _Index()
    entries = list(_entries(config))
    for path, match, hosts in entries:
        index.sweep(path, match, hosts)
    for path, match, hosts in entries:
        found = [(host, winner) for host in hosts if (winner := index.winner(host, path, match)) is not None]
        if found:
            some = [] if len(found) == len(hosts) else [host for host, _ in found]
            yield path, found[0][1], some


def _entries(config: Config) -> Iterator[tuple[Path, Match, tuple[str, ...]]]:
    for route_index, route in enumerate(config.routes):
        hosts = route.hostnames or ("",)
        for rule_index, rule in enumerate(route.rules):
            path: Path = ("routes", route_index, "rules", rule_index)
            if not rule.matches:
                yield path, _EVERYTHING, hosts
            for match_index, match in enumerate(rule.matches):
                yield (*path, "matches", match_index), match, hosts


class _Index:
    def __init__(self) -> None:
        self._first: dict[tuple[str, str, str, Conditions], Path] = {}
        self._sweeps: dict[tuple[str, str], list[tuple[Conditions, Path]]] = {}

    def sweep(self, path: Path, match: Match, hosts: tuple[str, ...]) -> None:
        """Note a match whose path is an expression for everything behind some text."""
        if match.path.type != "RegularExpression":
            return
        found = _SWEEPING.fullmatch(match.path.value)
        if found is None:
            return
        for host in hosts:
            sweeps = self._sweeps.setdefault((host, found[1]), [])
            if len(sweeps) < _MOST_SWEEPS:
                sweeps.append((_conditions(match), path))

    def winner(self, host: str, path: Path, match: Match) -> Path | None:
        """Return the match that takes everything `match` would take for `host`."""
        conditions = _conditions(match)
        value = match.path.value
        if match.path.type != "RegularExpression":
            value = normalise(value.encode()).decode("latin-1")
        if match.path.type == "PathPrefix":
            value = value.rstrip("/")
            swept = self._swept(host, value, conditions)
            if swept is not None:
                return swept
        first = self._first.setdefault((host, match.path.type, value, conditions), path)
        return None if first is path else first

    def _swept(self, host: str, prefix: str, conditions: Conditions) -> Path | None:
        if not self._sweeps:
            return None
        for end in range(len(prefix) + 1):
            for (method, others), path in self._sweeps.get((host, prefix[:end]), ()):
                if method in {None, conditions[0]} and others <= conditions[1]:
                    return path
        return None


def _conditions(match: Match) -> Conditions:
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    for header in match.headers:
        found.setdefault(("header", header.name.lower()), ("header", header.name.lower(), header.type, header.value))
    for cookie in match.cookies:
        found.setdefault(("cookie", cookie.name), ("cookie", cookie.name, cookie.type, cookie.value))
    for param in match.query_params:
        found.setdefault(("query", param.name), ("query", param.name, param.type, param.value))
    return match.method, frozenset(found.values())
