"""Requests and plain snapshots, written short."""

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest

from splitproxy.core.routing import RouteTable, TableBuilder

Plain = dict[str, Any]
TIMEOUTS = {"request": 0.0, "backendRequest": 0.0, "responseHead": 60.0, "streamIdle": 300.0, "tunnelIdle": 3600.0}
LIMITS = {
    "headerBytes": 65536,
    "headerCount": 100,
    "uriBytes": 8192,
    "bodyBytes": 0,
    "headerTimeout": 10.0,
    "bodyIdleTimeout": 30.0,
    "keepAliveTimeout": 75.0,
}
POOL = {"maxIdle": 128, "idleTimeout": 30.0, "maxConnections": 1024, "maxPending": 1024}


@dataclass(slots=True)
class Request:
    """A request as routing sees it."""

    target: str = "/"
    method: bytes = b"GET"
    host: bytes = b"kit.test"
    headers: dict[str, str] = field(default_factory=dict)
    cookies: dict[str, str] = field(default_factory=dict)

    @property
    def path(self) -> bytes:
        return self.target.partition("?")[0].encode()

    @property
    def query(self) -> bytes:
        return self.target.partition("?")[2].encode()

    def field(self, name: bytes) -> bytes | None:
        assert name == name.lower(), "field names are asked for in lower case"
        for own, value in self.headers.items():
            if own.lower().encode() == name:
                return value.encode()
        return None

    def cookie(self, name: bytes) -> bytes | None:
        value = self.cookies.get(name.decode())
        return None if value is None else value.encode()

    def param(self, name: bytes) -> bytes | None:
        for pair in self.query.split(b"&"):
            key, _, value = pair.partition(b"=")
            if unquote_to_bytes(key) == name:
                return unquote_to_bytes(value)
        return None


def request_of(
    method: str,
    target: str,
    host: str = "kit.test",
    headers: dict[str, str] | None = None,
    cookies: dict[str, str] | None = None,
) -> Request:
    """Return a request; texts are taken as UTF-8."""
    return Request(target, method.encode(), host.encode(), headers or {}, cookies or {})


class Spec:
    """Builders of plain snapshots: what is not said is the default."""

    request = staticmethod(request_of)

    @staticmethod
    def values(named: dict[str, str] | None) -> list[Plain]:
        """Return value conditions; a value that begins with `~` is a regular expression."""
        return [
            {
                "name": name,
                "type": "RegularExpression" if value.startswith("~") else "Exact",
                "value": value.removeprefix("~"),
            }
            for name, value in (named or {}).items()
        ]

    @classmethod
    def match(
        cls,
        path: str = "/",
        kind: str = "PathPrefix",
        *,
        method: str | None = None,
        headers: dict[str, str] | None = None,
        cookies: dict[str, str] | None = None,
        params: dict[str, str] | None = None,
    ) -> Plain:
        return {
            "path": {"type": kind, "value": path},
            "method": method,
            "headers": cls.values(headers),
            "cookies": cls.values(cookies),
            "queryParams": cls.values(params),
        }

    @classmethod
    def rule(
        cls,
        *matches: Plain,
        to: dict[str, float] | list[Plain] | str = "a",
        name: str = "0",
        filters: list[Plain] | None = None,
        key: Plain | None = None,
        overrides: list[Plain] | None = None,
    ) -> Plain:
        weights = {to: 1} if isinstance(to, str) else to
        refs = weights if isinstance(weights, list) else [cls.ref(name, weight) for name, weight in weights.items()]
        return {
            "name": name,
            "matches": list(matches) or [cls.match()],
            "filters": filters or [],
            "backendRefs": refs,
            "split": {"key": key, "overrides": overrides or []},
            "timeouts": dict(TIMEOUTS),
        }

    @staticmethod
    def ref(name: str, weight: float = 1, filters: list[Plain] | None = None) -> Plain:
        return {"name": name, "weight": weight, "filters": filters or []}

    @staticmethod
    def route(name: str, *rules: Plain, hosts: tuple[str, ...] | list[str] = ()) -> Plain:
        return {"name": name, "hostnames": list(hosts), "rules": list(rules)}

    @staticmethod
    def upstream(name: str, *endpoints: str, **changes: Any) -> Plain:
        split = [endpoint.rpartition(":") for endpoint in endpoints or ("127.0.0.1:9001",)]
        return {
            "name": name,
            "endpoints": [
                {"url": f"http://{host}:{port}", "host": host, "port": int(port), "weight": 1}
                for host, _, port in split
            ],
            "loadBalancing": "roundRobin",
            "connectTimeout": 3.0,
            "pool": dict(POOL),
            "healthCheck": None,
            "outlierDetection": None,
            "slowStart": 0.0,
            "panicThreshold": 50,
            **changes,
        }

    @staticmethod
    def config(*routes: Plain, upstreams: list[Plain] | None = None, **changes: Any) -> Plain:
        return {
            "listeners": [{"name": "web", "address": "127.0.0.1:8080"}],
            "admin": {"address": "127.0.0.1:9900", "allowedHosts": []},
            "probes": None,
            "workers": 1,
            "accessLog": None,
            "limits": dict(LIMITS),
            "upstreams": upstreams or [],
            "routes": list(routes),
            **changes,
        }

    @staticmethod
    def table(*routes: Plain) -> RouteTable:
        builder = TableBuilder()
        for route in routes:
            builder.add_route(route)
        return builder.finish()

    @classmethod
    def chosen(cls, table: RouteTable, request: Request) -> str | None:
        """Return the upstream that a request gets by a rule with one upstream; None: no route."""
        rule = table.match(request)
        if rule is None:
            return None
        assert rule.split.single is not None
        return rule.split.single.upstream


@pytest.fixture(scope="session")
def spec() -> type[Spec]:
    """Builders of requests and plain snapshots."""
    return Spec
