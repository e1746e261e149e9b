"""The figures splitproxy sets out to reach, and whether this run reached them."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .peers import SUBJECT
from .report import DASH, TIMES, figures, ratios, spread, table
from .scenarios import SMALL_GET, Outcome, Row

Rows = Callable[[str, str, str], Row | None]
"""Scenario, peer and variant -> the row, None where it was not measured."""


@dataclass(frozen=True)
class Goal:
    """`measure` returns one value a round; their median is to be at most `limit`."""

    what: str
    limit: float
    unit: str
    measure: Callable[[Rows], list[float]]


def _beside(scenario: str, peer: str, field: str = "cpu_per_request") -> Callable[[Rows], list[float]]:
    return lambda rows: _ratios(rows(scenario, SUBJECT, ""), rows(scenario, peer, ""), field)


def _growth(scenario: str, first: str, then: str) -> Callable[[Rows], list[float]]:
    return lambda rows: _ratios(rows(scenario, SUBJECT, then), rows(scenario, SUBJECT, first), "cpu_per_request")


def _own(scenario: str, field: str, variant: str = "") -> Callable[[Rows], list[float]]:
    def measure(rows: Rows) -> list[float]:
        row = rows(scenario, SUBJECT, variant)
        return figures(row, field) if row else []

    return measure


def _ratios(mine: Row | None, other: Row | None, field: str) -> list[float]:
    return ratios(figures(mine, field), figures(other, field)) if mine and other else []


GOALS = [
    Goal("CPU per small GET beside nginx", 1.5, TIMES, _beside(SMALL_GET, "nginx")),
    Goal("CPU per small GET beside Envoy", 0.6, TIMES, _beside(SMALL_GET, "envoy")),
    Goal("CPU per small GET beside the aiohttp proxy", 0.2, TIMES, _beside(SMALL_GET, "aiohttp")),
    Goal("CPU per 64 KB response beside nginx", 1.1, TIMES, _beside("get-64k", "nginx")),
    Goal("CPU per 1 MB response beside nginx", 1.3, TIMES, _beside("get-1m", "nginx")),
    Goal("p99 at half of our top rate beside nginx", 2.0, TIMES, _beside("rate-half", "nginx", "p99")),
    Goal("CPU per request with 10,000 routes beside 1", 1.1, TIMES, _growth("routes", "routes-1", "routes-10000")),
    Goal("CPU per request with 2 workers beside 1", 1.05, TIMES, _growth("workers", "1 worker", "2 workers")),
    Goal("memory for an idle connection", 4.0, "KiB", _own("idle", "KiB each")),
    Goal("a worker at rest", 30.0, "MiB", _own("start", "worker MiB")),
    Goal("control at rest", 60.0, "MiB", _own("start", "control MiB")),
    Goal("start to ready", 1500.0, "ms", _own("start", "ms to /readyz")),
    Goal("reload of 1,000 routes", 2.0, "s", _own("reload-1000", "reload s", "reload")),
    Goal("longest wait of a client meanwhile", 50.0, "ms", _own("reload-1000", "longest wait ms", "reload")),
    Goal("reload of 10,000 routes", 15.0, "s", _own("reload-10000", "reload s", "reload")),
    Goal("longest wait of a client meanwhile", 50.0, "ms", _own("reload-10000", "longest wait ms", "reload")),
]


def summary(outcomes: Sequence[Outcome]) -> str:
    """Return the table of all goals this run measured, nothing when it measured none."""
    by_name = {outcome.name: outcome for outcome in outcomes}

    def rows(scenario: str, peer: str, variant: str) -> Row | None:
        return by_name[scenario].row(peer, variant) if scenario in by_name else None

    lines = []
    for goal in GOALS:
        if values := goal.measure(rows):
            reached = "yes" if statistics.median(values) <= goal.limit else "**no**"
            seen = spread(values, lambda value: f"{value:,.3g}" if value < 100 else f"{value:,.0f}")
            lines.append([goal.what, f"at most {goal.limit:g} {goal.unit}", f"{seen} {goal.unit}", reached])
    return table(["what", "goal", f"measured, median (min{DASH}max)", "reached"], lines) if lines else ""
