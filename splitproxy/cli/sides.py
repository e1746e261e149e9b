"""Both versions of a rollout side by side: what each was given, and how it did in the last ten seconds."""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from splitproxy.reports import Rollout

_WINDOW: Final = "10s"

Route = dict[str, Any]
"""One of what `GET /api/v1/routes` answers."""


class Side(NamedTuple):
    """One version."""

    name: str
    role: str
    share: float
    """Percent of the route's traffic that it is to get."""
    rate: float
    """Requests a second."""
    observed: float | None
    """Percent of both sides' requests; None: there were none."""
    success: float | None
    """Share of 1, of first attempts, as verdicts go by: failover hides failures from clients. None like the rest: no
    data."""
    p50: float | None
    """Seconds, like p99; of the busiest rule, where there are several."""
    p99: float | None


def sides(rollout: Rollout, routes: Iterable[Route]) -> list[Side]:
    """Return the primary and the canary; while copies are all that the canary gets, what came of them."""
    series = [
        backend
        for route in routes
        if route["name"] == rollout["route"]
        for rule in route["rules"]
        for backend in rule["backends"]
    ]
    weight = rollout["canaryWeight"]
    copied = rollout["mirroring"] and not weight
    found = [
        _side(series, rollout["primary"], "primary", 100 - weight, copies=False),
        _side(series, rollout["canary"], "canary", weight, copies=copied),
    ]
    total = sum(one.rate for one in found)
    return [one._replace(observed=100 * one.rate / total) for one in found] if total and not copied else found


def _side(series: list[dict[str, Any]], name: str, role: str, share: float, *, copies: bool) -> Side:
    windows = [one["signals"][_WINDOW] for one in series if one["name"] == name and (one["role"] == "mirror") is copies]
    rate = sum(window["rate"] or 0.0 for window in windows)
    attempts = sum(window["attempts"] for window in windows)
    good = sum(window["attempts"] * window["attemptSuccessRate"] for window in windows if window["attempts"])
    busiest = max(windows, key=lambda window: int(window["requests"]), default={"p50": None, "p99": None})
    return Side(name, role, share, rate, None, good / attempts if attempts else None, busiest["p50"], busiest["p99"])
