"""What the demo shows, made from the admin API's answer and the clients' counts; and whether it all held."""

from dataclasses import dataclass
from math import log
from typing import Any, Final

from splitproxy import reports
from splitproxy.demo.traffic import Seens

_ERRORS: Final = 4.0
"""Standard errors that an observed share may be away from the configured one."""


@dataclass(frozen=True)
class Side:
    """One upstream of the demo's route."""

    name: str
    role: str
    configured: float
    """Percent."""
    assigned: int
    """Requests since the start."""
    rate: float | None
    """Requests a second, like the rest over the last ten seconds; None is no data."""
    success: float | None
    """Share of 1."""
    p50: float | None
    p99: float | None


def sides(routes: list[dict[str, Any]]) -> list[Side]:
    """Return both sides from what `GET /api/v1/routes` answered."""
    found = []
    for backend in routes[0]["rules"][0]["backends"]:
        signals = backend["signals"]["10s"]
        found.append(
            Side(
                *(backend["name"], backend["role"], backend["weight"] or 0.0, sum(backend["assignments"].values())),
                *(signals["rate"], signals["successRate"], signals["p50"], signals["p99"]),
            )
        )
    return sorted(found, key=lambda side: side.name)


@dataclass(frozen=True)
class Figures:
    """One look at everything."""

    seconds: float
    """Since traffic began."""
    sides: list[Side]
    seen: Seens
    rollout: reports.Rollout | None = None
    """What the API says of the rollout; None where there is none."""

    @property
    def assigned(self) -> int:
        """Requests that the proxy has divided."""
        return sum(side.assigned for side in self.sides)

    def observed(self, side: Side) -> float:
        """Return the share of the requests that `side` got, in percent.

        Since the start; where a rollout moves the weight, over the last ten seconds.
        """
        if self.rollout is not None:
            rate = sum(one.rate or 0.0 for one in self.sides)
            return 100 * (side.rate or 0.0) / rate if rate else 0.0
        return 100 * side.assigned / self.assigned if self.assigned else 0.0

    @property
    def failed(self) -> int:
        """Requests that were not answered by a 2xx."""
        return sum(self.seen.failures.values())


def complaints(figures: Figures, canary: float) -> list[str]:
    """Return why the demo did not hold; empty when it did. `canary` is the percentage it began with.

    Weights that were changed meanwhile (the file may be edited) leave no share to hold the observed one against.
    """
    found = [f"{count} failed: {why}" for why, count in figures.seen.failures.most_common()]
    if not figures.seen.answered:
        found.append("no request was answered")
    if figures.assigned < figures.seen.answered:
        found.append(f"{figures.seen.answered} requests were answered, the proxy counted {figures.assigned}")
    for side in figures.sides:
        unchanged = abs(side.configured - (canary if side.name == "v2" else 100 - canary)) < 0.01
        if unchanged and not plausible(side.assigned, figures.assigned, side.configured / 100):
            observed = f"{figures.observed(side):.2f} % of {figures.assigned} requests"
            found.append(f"{side.name} got {observed}, too far from {side.configured:g} %")
    return found


def plausible(hits: int, total: int, share: float) -> bool:
    """Say whether `hits` of `total` are within four standard errors of `share`.

    Measured by the likelihood ratio, which for large counts is just that, and for small ones, where a standard error
    says little, is as unlikely to be exceeded.
    """
    if not total:
        return True
    seen, divergence = hits / total, 0.0
    for observed, expected in ((seen, share), (1 - seen, 1 - share)):
        if observed > 0:
            if expected <= 0:
                return False
            divergence += observed * log(observed / expected)
    return 2 * total * divergence <= _ERRORS**2


def to_dict(figures: Figures, reasons: list[str]) -> dict[str, Any]:
    """Return the figures for JSON; durations in seconds, shares in percent."""
    return {
        "held": not reasons,
        "reasons": reasons,
        "seconds": round(figures.seconds, 3),
        "answered": figures.seen.answered,
        "failed": figures.failed,
        "sides": {
            side.role: {
                "upstream": side.name,
                "configured": side.configured,
                "observed": round(figures.observed(side), 3),
                "requests": side.assigned,
                "rate": side.rate,
                "successRate": side.success,
                "p50": side.p50,
                "p99": side.p99,
            }
            for side in figures.sides
        },
    }
