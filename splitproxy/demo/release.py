"""The demo's rollout: both sides while it goes on, and whether it ended as it had to."""

from typing import Any, Final

from splitproxy import reports
from splitproxy.demo.figures import Figures, Side
from splitproxy.demo.scenarios import ENDS, GOOD

ENDED: Final = frozenset(ENDS.values())
"""Phases in which nothing happens any more."""


def sides(routes: list[dict[str, Any]], rollout: reports.Rollout) -> list[Side]:
    """Return both sides from what `/api/v1/routes` and `/api/v1/rollouts/{name}` answered.

    A version has one series for each role that it has had; its golden signals are those of the busiest.
    """
    series: dict[str, list[dict[str, Any]]] = {}
    for backend in routes[0]["rules"][0]["backends"]:
        if backend["role"] != "mirror":
            series.setdefault(backend["name"], []).append(backend)
    found = []
    for name, backends in sorted(series.items()):
        signals = max((backend["signals"]["10s"] for backend in backends), key=lambda one: one["requests"])
        assigned = sum(sum(backend["assignments"].values()) for backend in backends)
        role = "primary" if name == rollout["primary"] else "canary"
        weight = rollout["canaryWeight"] if role == "canary" else 100 - rollout["canaryWeight"]
        rate, success = signals["rate"], signals["attemptSuccessRate"]
        found.append(Side(name, role, weight, assigned, rate, success, signals["p50"], signals["p99"]))
    return found


def ended(rollout: reports.Rollout | None) -> bool:
    """Say whether a run has been made and is over."""
    return rollout is not None and rollout["attempt"] > 0 and rollout["phase"] in ENDED


def complaints(figures: Figures, scenario: str, *, to_the_end: bool = True) -> list[str]:
    """Return why the scenario did not end as it must, or not `to_the_end`, go as it must; empty when it did."""
    rollout = figures.rollout
    if rollout is None:
        return ["the proxy told nothing of the rollout"]
    found = []
    if not figures.seen.answered:
        found.append("no request was answered")
    if to_the_end and rollout["phase"] != ENDS[scenario]:
        reason = f" ({rollout['reason']})" if rollout["reason"] else ""
        found.append(f"the rollout is {rollout['phase']}{reason}, and should have become {ENDS[scenario]}")
    elif to_the_end and scenario != GOOD and not rollout["reason"]:
        found.append("the rollout failed and does not say why")
    if scenario == GOOD:
        found += [f"{count} requests failed: {why}" for why, count in figures.seen.failures.most_common()]
    return found


def to_dict(figures: Figures, scenario: str, reasons: list[str]) -> dict[str, Any]:
    """Return how it went for JSON."""
    return {
        "held": not reasons,
        "reasons": reasons,
        "scenario": scenario,
        "seconds": round(figures.seconds, 3),
        "answered": figures.seen.answered,
        "failed": figures.failed,
        "rollout": figures.rollout,
    }
