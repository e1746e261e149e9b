"""The compiled configuration that a worker serves, and how it travels there.

`encode` cuts a plain snapshot into segments, each a 4-byte big-endian length and marshalled data; `Loader` decodes and
compiles one segment per step. So neither side holds anything up for long, however many routes there are.
"""

import marshal
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from splitproxy.core.filters import Plain
from splitproxy.core.health import HealthCheck, OutlierDetection
from splitproxy.core.live import Area
from splitproxy.core.routing import RouteTable, TableBuilder
from splitproxy.core.tracing import Sampling

_SLICE: Final = 100
"""Parts (rules, matches, filters, backendRefs, upstreams, endpoints) in a segment: about 1 ms of work."""
_LENGTH: Final = 4
_UNLIMITED: Final = 315_360_000.0
"""Seconds (ten years) that stand for a timeout which is off, so that who waits need not ask whether it is."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate with its chain, and the key that belongs to it, both as PEM."""

    chain: str = field(repr=False)
    key: str = field(repr=False)
    names: tuple[str, ...] = ()
    """What the certificate is for: DNS names, `*.` may stand for one label."""


@dataclass(frozen=True, slots=True)
class ServerTls:
    """How a listener speaks TLS."""

    pairs: tuple[Pair, ...]
    """The first is for clients that ask for no name, or for another."""
    minimum: str
    """The lowest version: 1.2 | 1.3."""
    client_ca: str = field(repr=False)
    """Whose client certificates are accepted, as PEM; empty: clients are not asked for one."""
    client_required: bool
    """Whether a client without a certificate is turned away."""


@dataclass(frozen=True, slots=True)
class ClientTls:
    """How connections to the endpoints of an upstream are encrypted."""

    ca: str = field(repr=False)
    """Whose certificates are accepted, as PEM; empty: those of the system's store."""
    server_name: str
    """What is asked for and what the certificate must be for; empty: the endpoint's host."""
    pair: Pair | None
    """What we prove ourselves with."""
    verify: bool


class ListenerPlan(NamedTuple):
    """A listener as configured."""

    name: str
    address: str
    tls: ServerTls | None = None
    proxy_protocol: bool = False
    trusted: tuple[str, ...] = ()
    """Networks whose word about the client is taken."""
    max_connections: int = 0
    """In one worker; 0 is any number."""


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
    health_check: HealthCheck | None
    outliers: OutlierDetection | None
    slow_start: float
    panic_percent: float
    tls: ClientTls | None = None
    """None: endpoints are spoken to in clear."""


class AccessLogPlan(NamedTuple):
    """Where the access log goes (`-`: standard output) and how it looks."""

    path: str
    format: str


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on clients; sizes in bytes, times in seconds. Of `body_bytes` and `body_idle_timeout` 0 is off."""

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
    listeners: tuple[ListenerPlan, ...]
    access_log: AccessLogPlan | None
    workers: int
    upstreams: dict[str, UpstreamPlan]
    table: RouteTable
    sampling: Sampling | None = None
    """Which requests are recorded; None: none, and nothing is asked of them."""


# --- there -----------------------------------------------------------------------------------------------------------
def encode(plain: Plain, generation: int) -> Iterator[bytes]:
    """Yield the segments of a plain snapshot, to be joined or written one after the other."""
    kept = ("limits", "listeners", "accessLog", "workers")
    tracing = plain.get("tracing")  # where spans go, and with what credentials, is not for workers
    sampling = tracing and {key: tracing[key] for key in ("sampler", "ratio", "query")}
    head = {**{key: plain[key] for key in kept}, "tracing": sampling}
    yield _segment("head", {"generation": generation, **head})
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
            header_timeout=limits["headerTimeout"] or _UNLIMITED,
            body_idle_timeout=limits["bodyIdleTimeout"],
            keep_alive_timeout=limits["keepAliveTimeout"] or _UNLIMITED,
        ),
        listeners=tuple(_listener(listener) for listener in head["listeners"]),
        access_log=None if log is None else AccessLogPlan(log["path"], log["format"]),
        workers=head["workers"],
        upstreams=upstreams,
        table=table,
        sampling=None if head["tracing"] is None else Sampling(head["tracing"]),
    )


def _listener(plain: Plain) -> ListenerPlan:
    tls = plain.get("tls")
    return ListenerPlan(
        name=plain["name"],
        address=plain["address"],
        tls=None
        if tls is None
        else ServerTls(
            pairs=tuple(_pair(certificate) for certificate in tls["certificates"]),
            minimum=tls["minVersion"],
            client_ca=tls["clientCa"],
            client_required=tls["clientAuth"] == "required",
        ),
        proxy_protocol=plain.get("proxyProtocol", False),
        trusted=tuple(plain.get("trustedProxies", ())),
        max_connections=plain.get("maxConnections", 0),
    )


def _pair(plain: Plain) -> Pair:
    return Pair(plain["pem"]["chain"], plain["pem"]["key"], tuple(plain["names"]))


def _client_tls(plain: Plain) -> ClientTls | None:
    """Return how to encrypt; None: not at all. The endpoints of one upstream are all alike in this."""
    if not any(endpoint["url"].startswith("https:") for endpoint in plain["endpoints"]):
        return None
    tls = plain["tls"]
    return ClientTls(
        ca=tls["ca"],
        server_name=tls["serverName"] or "",
        pair=None if tls["pem"] is None else Pair(tls["pem"]["chain"], tls["pem"]["key"]),
        verify=not tls["insecureSkipVerify"],
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
        health_check=_health_check(plain["healthCheck"]),
        outliers=_outliers(plain["outlierDetection"]),
        slow_start=plain["slowStart"],
        panic_percent=plain["panicThreshold"],
        tls=_client_tls(plain),
    )


def _health_check(plain: Plain | None) -> HealthCheck | None:
    if plain is None:
        return None
    return HealthCheck(
        path=plain["path"],
        host=plain["host"] or "",
        statuses=tuple((int(text[:3]), int(text[-3:])) for text in plain["statuses"]),
        interval=plain["interval"],
        timeout=plain["timeout"],
        healthy_threshold=plain["healthyThreshold"],
        unhealthy_threshold=plain["unhealthyThreshold"],
    )


def _outliers(plain: Plain | None) -> OutlierDetection | None:
    if plain is None:
        return None
    return OutlierDetection(
        consecutive_errors=plain["consecutiveErrors"],
        interval=plain["interval"],
        base_ejection_time=plain["baseEjectionTime"],
        max_ejection_time=plain["maxEjectionTime"],
        max_ejection_percent=plain["maxEjectionPercent"],
    )
