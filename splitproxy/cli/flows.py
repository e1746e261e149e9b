"""What flows through a running proxy: by route, rule and upstream, and at each address."""

import argparse
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from splitproxy import reports
from splitproxy.cli.acting import refusal
from splitproxy.cli.admin_client import ask
from splitproxy.cli.looking import Untold

WINDOWS: Final = ("10s", "60s")
SORTS: Final = ("rate", "success", "p99", "name")
FLOW_HEADS: Final = (
    *("ROUTE/RULE", "UPSTREAM", "ROLE", "WEIGHT", "REQ/S", "SUCCESS", "P50 MS", "P99 MS", "IN FLIGHT"),
)
ADDRESS_HEADS: Final = ("UPSTREAM", "ADDRESS", "HEALTH", "REQ/S", "IN FLIGHT", "WAITING", "IDLE", "CONNECT FAILURES")
FLOW_LEAVING: Final[tuple[int, ...]] = (6,)
"""Columns that are left out where there is little room, by number."""
ADDRESS_LEAVING: Final[tuple[int, ...]] = (7, 6, 5)
ADDRESS_WHOLE: Final = (1, 2)
"""Columns that are not cut."""


class Flow(NamedTuple):
    """One upstream of a rule."""

    route: str
    rule: str
    upstream: str
    role: str
    weight: float | None
    """Percent; None: it has no share, as mirrors."""
    rate: float
    """Requests a second."""
    success: float | None
    """Share of 1; None like the rest: no data."""
    p50: float | None
    """Seconds, like p99."""
    p99: float | None
    in_flight: int


class Address(NamedTuple):
    """One address of an upstream."""

    upstream: str
    address: str
    mirror: bool
    """Whether these are the connections that copies go over."""
    health: str
    """healthy | unhealthy | ejected | panic: used only for want of others | unused: nothing goes to it."""
    requests: int
    """Since the workers began."""
    in_flight: int
    waiting: int
    idle: int
    connect_failures: int
    """Connections that could not be made."""


class Flows(NamedTuple):
    """One look."""

    at: datetime
    flows: list[Flow]
    addresses: list[Address]

    @property
    def rate(self) -> float:
        """Requests a second over all; copies are none."""
        return sum(flow.rate for flow in self.flows if flow.role != "mirror")

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "at": self.at.isoformat(timespec="milliseconds"),
            "routes": [{_camel(key): value for key, value in flow._asdict().items()} for flow in self.flows],
            "addresses": [{_camel(key): value for key, value in one._asdict().items()} for one in self.addresses],
        }


def look(options: argparse.Namespace, seconds: float) -> Flows:
    """Return what flows now, as the options of `top` say. Raises Unanswered and Untold."""
    admin, route = options.admin, options.route
    only = f"?route={quote(route, safe='')}" if route else ""
    routes = _asked(admin, f"/api/v1/routes{only}", seconds)
    if route and not routes:
        raise Untold(f"there is no route {route!r}")
    flows = [
        _flow(one["name"], rule["name"], backend, options.window)
        for one in routes
        for rule in one["rules"]
        for backend in rule["backends"]
    ]
    upstreams = {flow.upstream for flow in flows}
    addresses = [
        _address(upstream["name"], one)
        for upstream in _asked(admin, "/api/v1/upstreams", seconds)
        if not route or upstream["name"] in upstreams
        for one in upstream["addresses"]
        if not one["mirror"] or one["requests"] or one["open"]
    ]
    return Flows(datetime.now(UTC), _sorted(flows, options.sort), addresses)


def pause(interval: float, took: float) -> float:
    """Return how long to wait until the next look: where one takes long (`took`), watching is not to be a burden."""
    return max(interval - took, 3 * took)


def _asked(admin: str, path: str, seconds: float) -> Any:
    status, told = ask(admin, "GET", path, seconds)
    if status != 200:
        raise Untold(refusal(status, told, admin))
    return told


def _flow(route: str, rule: str, backend: dict[str, Any], window: str) -> Flow:
    signals = backend["signals"][window]
    return Flow(
        *(route, rule, backend["name"], backend["role"], backend["weight"], signals["rate"] or 0.0),
        *(signals["successRate"], signals["p50"], signals["p99"], backend["inFlight"]),
    )


def _address(upstream: str, one: dict[str, Any]) -> Address:
    return Address(
        *(upstream, one["address"], one["mirror"], _health(one), one["requests"], one["inFlight"], one["pending"]),
        *(one["idle"], one["connectFailures"]),
    )


def _health(one: dict[str, Any]) -> str:
    """Return the worst that holds."""
    if one["ejected"]:
        return "ejected"
    if not one["healthy"]:
        return "unhealthy"
    if one["panic"]:
        return "panic"
    return "healthy" if one["inUse"] else "unused"


def _sorted(flows: Iterable[Flow], sort: str) -> list[Flow]:
    by_name = sorted(flows, key=lambda flow: flow[:4])
    match sort:
        case "rate":
            return sorted(by_name, key=lambda flow: -flow.rate)
        case "success":
            return sorted(by_name, key=lambda flow: 2.0 if flow.success is None else flow.success)
        case "p99":
            return sorted(by_name, key=lambda flow: -(flow.p99 or 0.0))
        case _:
            return by_name


# --- in words ---------------------------------------------------------------------------------------------------------
def flow_row(flow: Flow) -> tuple[str, ...]:
    """Return the row under FLOW_HEADS."""
    return (
        *(f"{flow.route}/{flow.rule}", flow.upstream, flow.role),
        *(reports.NOTHING if flow.weight is None else reports.percent(flow.weight), f"{flow.rate:.1f}"),
        reports.NOTHING if flow.success is None else reports.share_of_success(flow.success),
        *(_milliseconds(flow.p50), _milliseconds(flow.p99), str(flow.in_flight)),
    )


def address_row(one: Address, rate: float | None) -> tuple[str, ...]:
    """Return the row under ADDRESS_HEADS; `rate` is None where only one look was taken."""
    return (
        *(one.upstream, f"{one.address} (copies)" if one.mirror else one.address, one.health),
        *(reports.NOTHING if rate is None else f"{rate:.1f}", str(one.in_flight), str(one.waiting), str(one.idle)),
        str(one.connect_failures),
    )


def rates(before: Flows | None, now: Flows) -> list[float | None]:
    """Return for each address its requests a second since the look `before`."""
    seconds = (now.at - before.at).total_seconds() if before else 0.0
    if before is None or seconds <= 0:
        return [None] * len(now.addresses)
    counted = {one[:3]: one.requests for one in before.addresses}
    # Workers that were replaced meanwhile count anew.
    return [max(one.requests - counted.get(one[:3], one.requests), 0) / seconds for one in now.addresses]


def _milliseconds(seconds: float | None) -> str:
    return reports.NOTHING if seconds is None else reports.amount(round(seconds * 1000, 1), "")


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)
