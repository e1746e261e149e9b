"""What thousands of simulated rollouts come to, in a few numbers."""

from math import exp, lgamma, log
from typing import Any, NamedTuple

import numpy as np

from splitproxy.simulation.playing import BY_ERRORS, BY_LATENCY, BY_LIMITS, Played
from splitproxy.simulation.traffic import Floats


class Middle(NamedTuple):
    """The median and the 95th percentile over all rollouts; None: it did not happen in so many."""

    median: float | None
    p95: float | None


class Column(NamedTuple):
    """How one controller did."""

    name: str
    rolled_back: int
    """Rollouts that were rolled back, by the time of the onset or later."""
    early: int
    """Those rolled back before anything was wrong, or though nothing was."""
    early_bound: float
    """With 95 % certainty the chance of that is below (Clopper and Pearson 1934)."""
    seconds: Middle
    """From the onset to the rollback."""
    bad: Middle
    """The canary's failed requests until then."""
    requests: Middle | None = None
    """Requests of both sides until then."""
    canary_requests: Middle | None = None
    promoted: int = 0
    promote_seconds: Middle | None = None
    by: tuple[int, int, int] = (0, 0, 0)
    """Rolled back by errors, by latency, by limits."""

    def plain(self) -> dict[str, Any]:
        """Return it safe for JSON."""
        return {name: value._asdict() if isinstance(value, Middle) else value for name, value in self._asdict().items()}


def joined(parts: list[Played]) -> Played:
    """Return rollouts that were played apart as one."""
    at, bad, requests, canary_requests, promoted, cause = (
        np.concatenate(arrays) for arrays in zip(*(part[:6] for part in parts), strict=True)
    )
    rivals = tuple(
        (np.concatenate([at for at, _ in one]), np.concatenate([bad for _, bad in one]))
        for one in zip(*(part.rivals for part in parts), strict=True)
    )
    return Played(at, bad, requests, canary_requests, promoted, cause, rivals)


def columns(played: Played, names: tuple[str, ...], onset: int, *, wrong: bool) -> list[Column]:
    """Return splitproxy's column, then those of `names`; `wrong`: whether anything is, from the onset on."""
    promoted = played.promoted
    by_errors, by_latency, by_limits = (int((played.cause == one).sum()) for one in (BY_ERRORS, BY_LATENCY, BY_LIMITS))
    own = _column("splitproxy", played.rolled_back, played.bad, onset, wrong=wrong)._replace(
        requests=_middle(played.requests),
        canary_requests=_middle(played.canary_requests),
        promoted=int(np.isfinite(promoted).sum()),
        promote_seconds=_middle(promoted),
        by=(by_errors, by_latency, by_limits),
    )
    return [own, *[_column(name, *one, onset, wrong=wrong) for name, one in zip(names, played.rivals, strict=True)]]


def _column(name: str, at: Floats, bad: Floats, onset: int, *, wrong: bool) -> Column:
    early = int((at < onset).sum() if wrong else np.isfinite(at).sum())
    late = np.where(at >= onset, at - onset, np.nan)
    return Column(name, int(np.isfinite(at).sum()), early, upper_bound(early, len(at)), _middle(late), _middle(bad))


def _middle(values: Floats) -> Middle:
    """Return median and p95; what did not happen counts as later than anything."""
    found = np.sort(np.where(np.isnan(values), np.inf, values))
    middle, high = (float(found[min(len(found) - 1, int(part * len(found)))]) for part in (0.5, 0.95))
    return Middle(middle if np.isfinite(middle) else None, high if np.isfinite(high) else None)


def upper_bound(events: int, trials: int, certainty: float = 0.95) -> float:
    """Return the chance below which that of an event is, given how often it was seen (one-sided, exact)."""
    if events >= trials:
        return 1.0
    low, high = events / trials, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _at_most(events, trials, middle) > 1.0 - certainty else (low, middle)
    return high


def _at_most(events: int, trials: int, chance: float) -> float:
    """Return the probability of at most so many events."""
    if not 0.0 < chance < 1.0:
        return 1.0 if chance <= 0.0 else 0.0
    return sum(
        exp(
            lgamma(trials + 1)
            - lgamma(number + 1)
            - lgamma(trials - number + 1)
            + number * log(chance)
            + (trials - number) * log(1.0 - chance)
        )
        for number in range(events + 1)
    )
