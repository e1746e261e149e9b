"""Which rule a request meets: Gateway API precedence, at a cost that does not grow with the number of routes.

Hosts first: an exact one before wildcards, a longer wildcard before a shorter one, routes without hostnames last. Where
no rule of the most specific host matches, the next host is asked. Among the matches of a host: Exact path, regular
expression (longer first), longest PathPrefix by element; then one with a method, the most headers, the most cookies,
the most query parameters; then the order of the file.
"""

from bisect import insort
from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import Final, NamedTuple

from splitproxy.core.filters import Fault, HeaderModifier, Plain, Redirect, Rewrite, compile_filters
from splitproxy.core.live import Area
from splitproxy.core.matching import Compiled, Conditions, Matcher, RequestView
from splitproxy.core.owned import compile_live
from splitproxy.core.retry import Repeats, compile_repeats
from splitproxy.core.splitting import Mirror, Split, compile_split
from splitproxy.core.targets import normalise

__all__ = ["Effective", "Mirror", "RequestView", "RouteTable", "Rule", "TableBuilder", "Timeouts"]

MAX_HOST: Final = 255
"""Longer than any DNS name (RFC 1035 §2.3.4): such a host meets only routes that have no hostnames."""


class Timeouts:
    """A rule's timeouts in seconds; 0 is off."""

    __slots__ = ("backend_request", "request", "response_head", "stream_idle", "tunnel_idle")

    def __init__(self, plain: Plain) -> None:
        self.request: float = plain["request"]
        self.backend_request: float = plain["backendRequest"]
        self.response_head: float = plain["responseHead"]
        self.stream_idle: float = plain["streamIdle"]
        self.tunnel_idle: float = plain["tunnelIdle"]


class Rule:
    """One rule of a route, compiled: all that the data plane does with a request that met it."""

    __slots__ = (
        *("fault", "live", "mirrors", "name", "plain", "redirect", "repeats", "request_modifier", "response_modifier"),
        *("rewrite", "route", "split", "timeouts"),
    )

    plain: bool
    """Nothing changes or copies what passes: no filter here or at a backend, no mirror. A leaf where there is `live`,
    which says it with each placement."""

    def __init__(
        self, route: str, plain: Plain, timeouts: Timeouts, conditions: Conditions, area: Area | None = None
    ) -> None:
        self.route = route
        self.name: str = plain["name"]
        series = (route, self.name)
        prefix = _prefix(plain["matches"])
        filters = compile_filters(plain["filters"], prefix)
        self.request_modifier: HeaderModifier | None = filters.request_modifier
        self.response_modifier: HeaderModifier | None = filters.response_modifier
        self.rewrite: Rewrite | None = filters.rewrite
        self.redirect: Redirect | None = filters.redirect
        self.fault: Fault | None = filters.fault
        self.mirrors: tuple[Mirror, ...] = tuple(Mirror(series, mirror) for mirror in filters.mirrors)
        self.split: Split = compile_split(series, plain, prefix)
        """As it is at rest, where there is `live`."""
        self.live = compile_live(series, plain, prefix, self.split, conditions, area)
        """What decides instead of `split` where a rollout owns the rule, else None."""
        self.timeouts = timeouts
        self.repeats: Repeats | None = compile_repeats(plain)
        """Whether and how failed attempts are followed by others; None: never."""
        self.plain = not plain["filters"] and not any(ref["filters"] for ref in plain["backendRefs"])

    def __repr__(self) -> str:
        return f"<Rule {self.route}/{self.name}>"


def _prefix(matches: list[Plain]) -> str:
    """Return the path prefix that ReplacePrefixMatch replaces: the rule has no other kind of match then."""
    path = matches[0]["path"] if matches else None
    return path["value"] if path is not None and path["type"] == "PathPrefix" else "/"


# --- the table -------------------------------------------------------------------------------------------------------
class _Entry:
    """One match of one rule, in its place; shared by all hosts of its route."""

    __slots__ = ("conditions", "kind", "path", "rank", "rule", "test")

    def __init__(self, rule: Rule, path: Plain, compiled: Compiled, order: int) -> None:
        self.rule = rule
        self.kind: str = path["type"]
        self.path: str = path["value"]
        self.test, rank, self.conditions = compiled
        # Longer regular expressions go first; other paths are only ever ranked beside their equals.
        self.rank = (-len(self.path) if self.kind == "RegularExpression" else 0, *rank, order)


class Effective(NamedTuple):
    """One line of the routing order, for people."""

    host: str
    """A host, `*.suffix`, or `*` for any."""
    match: str
    rule: Rule
    shadowed: bool
    """No request can get here: a line above takes all of them."""


_by_rank: Final = attrgetter("rank")
_NO_PATHS: Final[dict[bytes, list[_Entry]]] = {}


class _Paths:
    """The matches of one host."""

    __slots__ = ("_depth", "_exact", "_patterns", "_prefixes", "_root")

    def __init__(self) -> None:
        self._root: list[_Entry] = []
        """PathPrefix /: meets every path."""
        self._exact = self._prefixes = _NO_PATHS
        self._patterns: Sequence[tuple[Matcher, _Entry]] = ()
        self._depth = 0
        """Elements of the deepest prefix."""

    def add(self, entry: _Entry, pattern: Matcher | None) -> None:
        """Put `entry` in its place; `pattern` is its path's when that is a regular expression."""
        value = entry.path.encode()
        if b"%" in value:
            value = normalise(value)
        if pattern is not None:
            self._patterns = sorted((*self._patterns, (pattern, entry)), key=lambda pair: pair[1].rank)
        elif entry.kind == "Exact":
            self._exact = _inserted(self._exact, value, entry)
        else:
            value = value.rstrip(b"/")  # Gateway API: /abc/ is /abc
            if value:
                self._prefixes = _inserted(self._prefixes, value, entry)
                self._depth = max(self._depth, value.count(b"/"))
            else:
                insort(self._root, entry, key=_by_rank)

    def only(self) -> Rule | None:
        """Return the rule that all requests meet, if there is one."""
        deep = self._exact or self._patterns or self._depth
        return self._root[0].rule if not deep and self._root and self._root[0].test is None else None

    def find(self, request: RequestView) -> Rule | None:
        """Return the rule that `request` meets at this host."""
        if self._exact and (rule := self._find_exact(request)) is not None:
            return rule
        if self._patterns and (rule := self._find_pattern(request)) is not None:
            return rule
        if self._depth and (rule := self._find_prefix(request)) is not None:
            return rule
        for entry in self._root:
            test = entry.test
            if test is None or test(request):
                return entry.rule
        return None

    def _find_exact(self, request: RequestView) -> Rule | None:
        for entry in self._exact.get(request.path, ()):
            test = entry.test
            if test is None or test(request):
                return entry.rule
        return None

    def _find_pattern(self, request: RequestView) -> Rule | None:
        path = request.path
        for matches, entry in self._patterns:
            if matches(path) and (entry.test is None or entry.test(request)):
                return entry.rule
        return None

    def _find_prefix(self, request: RequestView) -> Rule | None:
        """Try the prefixes of the path, from as many elements as the deepest one here has down to one."""
        path, depth = request.path, self._depth
        parts = path.split(b"/", depth + 1)
        if len(parts) > depth + 1:
            path = path[: -len(parts[-1]) - 1]
        end = len(path)
        while end > 0:
            path = path[:end]
            for entry in self._prefixes.get(path, ()):
                test = entry.test
                if test is None or test(request):
                    return entry.rule
            end = path.rfind(b"/")
        return None

    def entries(self) -> Iterator[list[_Entry]]:
        """Yield the entries, those with the same path together, in the order in which they are tried."""
        yield from self._exact.values()
        for _, entry in self._patterns:
            yield [entry]
        yield from (entries for _, entries in sorted(self._prefixes.items(), key=lambda item: -len(item[0])))
        yield self._root


def _inserted(paths: dict[bytes, list[_Entry]], value: bytes, entry: _Entry) -> dict[bytes, list[_Entry]]:
    """Return `paths` with `entry` in it; thousands of hosts share the empty one."""
    if paths is _NO_PATHS:
        paths = {}
    insort(paths.setdefault(value, []), entry, key=_by_rank)
    return paths


class RouteTable:
    """All routes, compiled."""

    __slots__ = ("_any", "_exact", "_only", "_wildcards")

    def __init__(self, exact: dict[bytes, _Paths], wildcards: dict[bytes, _Paths], anywhere: _Paths | None) -> None:
        self._exact = exact
        self._wildcards = wildcards
        """`.suffix` -> paths."""
        self._any = anywhere
        self._only = anywhere.only() if anywhere is not None and not exact and not wildcards else None
        """The rule that every request meets, if there is one."""

    def match(self, request: RequestView) -> Rule | None:
        """Return the rule that `request` meets; None: no route."""
        if self._only is not None:
            return self._only
        host = request.host
        paths = self._exact.get(host)
        if paths is not None:
            rule = paths.find(request)
            if rule is not None:
                return rule
        if self._wildcards and len(host) <= MAX_HOST:
            rule = self._match_wildcard(request, host)
            if rule is not None:
                return rule
        paths = self._any
        return None if paths is None else paths.find(request)

    def _match_wildcard(self, request: RequestView, host: bytes) -> Rule | None:
        wildcards = self._wildcards
        at = host.find(b".", 1)
        while at > 0:
            paths = wildcards.get(host[at:])
            if paths is not None:
                rule = paths.find(request)
                if rule is not None:
                    return rule
            at = host.find(b".", at + 1)
        return None

    def order(self) -> list[Effective]:
        """Return every match in the order in which they are tried, host by host."""
        hosts = [(host.decode(), paths) for host, paths in self._exact.items()]
        suffixes = sorted(self._wildcards.items(), key=lambda item: -len(item[0]))
        hosts += [("*" + suffix.decode(), paths) for suffix, paths in suffixes]
        if self._any is not None:
            hosts.append(("*", self._any))
        return [line for host, paths in hosts for line in _lines(host, paths)]


def _lines(host: str, paths: _Paths) -> Iterator[Effective]:
    for entries in paths.entries():
        taken: set[str] = set()
        for entry in entries:
            shadowed = "" in taken or entry.conditions in taken
            taken.add(entry.conditions)
            match = f"{entry.kind} {entry.path}"
            yield Effective(host, f"{match}, {entry.conditions}" if entry.conditions else match, entry.rule, shadowed)


class TableBuilder:
    """Builds a RouteTable route by route, so that whoever serves requests meanwhile can do it in slices."""

    def __init__(self, area: Area | None = None) -> None:
        """`area` is where the live shares of rollouts stand; without it all of them are at rest."""
        self._area = area
        self._exact: dict[bytes, _Paths] = {}
        self._wildcards: dict[bytes, _Paths] = {}
        self._any: _Paths | None = None
        self._conditions = Conditions()
        self._timeouts: dict[tuple[float, ...], Timeouts] = {}
        self._order = 0

    def add_route(self, plain: Plain) -> None:
        """Add one route of the plain snapshot, or some of its rules: their order counts, not how they are bundled."""
        places = [self._place(host) for host in plain["hostnames"]] or [self._anywhere()]
        for rule in plain["rules"]:
            compiled = Rule(plain["name"], rule, self._timed(rule["timeouts"]), self._conditions, self._area)
            self._add_rule(places, compiled, rule["matches"])

    def finish(self) -> RouteTable:
        """Return the table. The builder is used up."""
        return RouteTable(self._exact, self._wildcards, self._any)

    def _timed(self, plain: Plain) -> Timeouts:
        """Return the same object for the same timeouts: most rules have the default ones."""
        key = tuple(plain.values())
        timeouts = self._timeouts.get(key)
        if timeouts is None:
            timeouts = self._timeouts[key] = Timeouts(plain)
        return timeouts

    def _place(self, host: str) -> _Paths:
        name = host.lower().encode()
        table = self._exact
        if name.startswith(b"*."):
            name, table = name[1:], self._wildcards
        paths = table.get(name)
        if paths is None:
            paths = table[name] = _Paths()
        return paths

    def _anywhere(self) -> _Paths:
        if self._any is None:
            self._any = _Paths()
        return self._any

    def _add_rule(self, places: list[_Paths], rule: Rule, matches: list[Plain]) -> None:
        for plain in matches:
            path = plain["path"]
            pattern = self._conditions.pattern(path["value"]) if path["type"] == "RegularExpression" else None
            entry = _Entry(rule, path, self._conditions.compile(plain), self._order)
            self._order += 1
            for paths in places:
                paths.add(entry, pattern)
