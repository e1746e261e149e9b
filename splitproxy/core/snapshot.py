"""The compiled configuration that a worker serves, and how it travels there.

`encode` cuts a plain snapshot into segments, each a 4-byte big-endian length and marshalled data; `Loader` decodes and
compiles one segment per step. So neither side holds anything up for long, however many routes there are.
"""

import marshal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from splitproxy.core.filters import Plain
from splitproxy.core.live import Area
from splitproxy.core.routing import RouteTable, TableBuilder

_SLICE: Final = 100
"""Parts (rules, matches, filters, backendRefs, upstreams, endpoints) in a segment: about 1 ms of work."""
_LENGTH: Final = 4


class EndpointPlan(NamedTuple):
    """One endpoint as configured; `host` may be a name that has many addresses."""

    host: str
    port: int
    weight: float


class UpstreamPlan(NamedTuple):
    """One upstream as configured. Equal ones need no change on reload."""

    name: str
    endpoints: tuple[EndpointPlan, ...]
    policy: str
    connect_timeout: float
    max_idle: int
    """Per endpoint."""
    idle_timeout: float
    max_connections: int
    max_pending: int


class AccessLogPlan(NamedTuple):
    """Where the access log goes (`-`: standard output) and how it looks."""

    path: str
    format: str


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on clients; sizes in bytes, times in seconds, 0 is off."""

    header_bytes: int
    header_count: int
    uri_bytes: int
    body_bytes: int
    header_timeout: float
    body_idle_timeout: float
    keep_alive_timeout: float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One configuration, compiled.

    Nothing in it changes but the leaves of backends (`series`, `pool`) and what follows the live share of a rollout.
    """

    generation: int
    limits: Limits
    listeners: tuple[tuple[str, str], ...]
    """(name, address) of each."""
    access_log: AccessLogPlan | None
    workers: int
    upstreams: dict[str, UpstreamPlan]
    table: RouteTable


# --- there -----------------------------------------------------------------------------------------------------------
def encode(plain: Plain, generation: int) -> Iterator[bytes]:
    """Yield the segments of a plain snapshot, to be joined or written one after the other."""
    kept = ("limits", "listeners", "accessLog", "workers")
    yield _segment("head", {"generation": generation, **{key: plain[key] for key in kept}})
    for upstreams in _sliced([(upstream, 1 + len(upstream["endpoints"])) for upstream in plain["upstreams"]]):
        yield _segment("upstreams", upstreams)
    for routes in _sliced([piece for route in plain["routes"] for piece in _pieces(route)]):
        yield _segment("routes", routes)
    yield _segment("end", None)


def _segment(kind: str, data: Any) -> bytes:
    text = marshal.dumps((kind, data))
    return len(text).to_bytes(_LENGTH, "big") + text


def _sliced(weighed: list[tuple[Plain, int]]) -> Iterator[list[Plain]]:
    """Yield the items in lists of about `_SLICE` parts."""
    chosen: list[Plain] = []
    parts = 0
    for item, weight in weighed:
        if chosen and parts + weight > _SLICE:
            yield chosen
            chosen, parts = [], 0
        chosen.append(item)
        parts += weight
    if chosen:
        yield chosen


def _pieces(route: Plain) -> Iterator[tuple[Plain, int]]:
    """Yield a route with its weight, rule by rule when it is large."""
    weights = [_parts(rule, len(route["hostnames"])) for rule in route["rules"]]
    if sum(weights) <= _SLICE:
        yield route, sum(weights)
        return
    for rule, weight in zip(route["rules"], weights, strict=True):
        yield {**route, "rules": [rule]}, weight


def _parts(rule: Plain, hosts: int) -> int:
    refs = rule["backendRefs"]
    filters = len(rule["filters"]) + sum(len(ref["filters"]) for ref in refs)
    owner = rule.get("rollout")
    tests = 0 if owner is None else sum(len(cohort) for cohort in owner["cohorts"])
    return 1 + len(refs) + filters + len(rule["matches"]) * max(1, hosts) + tests


# --- and back --------------------------------------------------------------------------------------------------------
class Loader:
    """Decodes and compiles what `encode` wrote: `for _ in loader: ...`, a segment each; then `snapshot` is there.

    Raises ValueError for bytes that are cut short or are no snapshot, ConfigError for what cannot be compiled.
    """

    def __init__(self, data: bytes | memoryview, area: Area | None = None) -> None:
        """`area` is where the live shares of rollouts stand; without it all of them are at rest."""
        self.snapshot: Snapshot | None = None
        self._data = memoryview(data)
        self._upstreams: dict[str, UpstreamPlan] = {}
        self._builder = TableBuilder(area)

    def __iter__(self) -> Iterator[None]:
        head: Plain = {}
        for kind, content in self._segments():
            match kind:
                case "head":
                    head = content
                case "upstreams":
                    self._upstreams.update((plain["name"], _upstream(plain)) for plain in content)
                case "routes":
                    for route in content:
                        self._builder.add_route(route)
                case "end" if head:
                    self.snapshot = _snapshot(head, self._upstreams, self._builder.finish())
                case _:
                    raise ValueError(f"not a snapshot: an unexpected segment {kind!r}")
            yield

    def _segments(self) -> Iterator[tuple[str, Any]]:
        at, kind = 0, ""
        while kind != "end":
            start = at + _LENGTH
            at = start + int.from_bytes(self._data[at:start], "big")
            if start >= at or at > len(self._data):
                raise ValueError("the snapshot is cut short")
            try:
                kind, content = marshal.loads(self._data[start:at])
            except (EOFError, TypeError, ValueError) as error:
                raise ValueError("not a snapshot") from error
            yield kind, content


def build(plain: Plain, generation: int = 0, area: Area | None = None) -> Snapshot:
    """Compile a plain snapshot at once, by the same way as a worker does."""
    loader = Loader(b"".join(encode(plain, generation)), area)
    for _ in loader:
        pass
    assert loader.snapshot is not None
    return loader.snapshot


def _snapshot(head: Plain, upstreams: dict[str, UpstreamPlan], table: RouteTable) -> Snapshot:
    limits, log = head["limits"], head["accessLog"]
    return Snapshot(
        generation=head["generation"],
        limits=Limits(
            header_bytes=limits["headerBytes"],
            header_count=limits["headerCount"],
            uri_bytes=limits["uriBytes"],
            body_bytes=limits["bodyBytes"],
            header_timeout=limits["headerTimeout"],
            body_idle_timeout=limits["bodyIdleTimeout"],
            keep_alive_timeout=limits["keepAliveTimeout"],
        ),
        listeners=tuple((listener["name"], listener["address"]) for listener in head["listeners"]),
        access_log=None if log is None else AccessLogPlan(log["path"], log["format"]),
        workers=head["workers"],
        upstreams=upstreams,
        table=table,
    )


def _upstream(plain: Plain) -> UpstreamPlan:
    pool = plain["pool"]
    return UpstreamPlan(
        name=plain["name"],
        endpoints=tuple(EndpointPlan(item["host"], item["port"], item["weight"]) for item in plain["endpoints"]),
        policy=plain["loadBalancing"],
        connect_timeout=plain["connectTimeout"],
        max_idle=pool["maxIdle"],
        idle_timeout=pool["idleTimeout"],
        max_connections=pool["maxConnections"],
        max_pending=pool["maxPending"],
    )
