"""Which time series an answer of /metrics may hold, when there are more than its user's Prometheus is to keep.

What matters most comes first: rollouts and their routes, endpoints that are unwell, then everything else in the order
in which it was first seen. So the same ones are kept from one answer to the next: a curve has no holes. Each thing
is told whole or not at all.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from splitproxy.control.endpoints import Standing
from splitproxy.control.exemplars import BOUNDS
from splitproxy.control.loading import Share
from splitproxy.control.rollouts.controller import Controller
from splitproxy.control.signals import Values
from splitproxy.core import stats
from splitproxy.core.rollout.state import PHASES
from splitproxy.core.stats import Key

KINDS: Final = ("endpoint", "rollout", "traffic", "weight")
"""What may be left out."""
OWN: Final = 80
"""Time series about the program itself, and one for each word of a few; a test counts them."""
VERDICTS: Final = ("pass", "fail", "inconclusive", "error")
"""Outcomes of a check."""
_HISTOGRAM: Final = len(BOUNDS) + 3
_ENDPOINT: Final = 3
_METRIC: Final = 3 + len(VERDICTS)


class Told(NamedTuple):
    """What has been let in."""

    rollouts: list[Controller]
    traffic: list[tuple[Key, Values]]
    """Series and failovers with what was counted; those that nothing was counted for are no time series."""
    endpoints: dict[tuple[str, str], Standing]
    weights: dict[tuple[str, ...], float]
    """(route, rule, upstream) -> percent."""
    left_out: Mapping[str, int]
    """Kind -> time series that found no room."""


class _Room:
    """Lets in what fits; after the first that does not, no other."""

    def __init__(self, most: int) -> None:
        self._left = most
        self.left_out = Counter(dict.fromkeys(KINDS, 0))

    def admits(self, kind: str, lines: int) -> bool:
        """Return whether `lines` time series are let in."""
        if lines > self._left or self.left_out.total():
            self.left_out[kind] += lines
            return False
        self._left -= lines
        return True


def admit(
    controllers: Iterable[Controller],
    traffic: Iterable[tuple[Key, Values]],
    standings: Mapping[tuple[str, str], Standing],
    shares: Iterable[Share],
    most: int,
) -> Told:
    """Choose what is told of all there is, in at most `most` time series."""
    room = _Room(most - OWN)
    rollouts = [one for one in controllers if room.admits("rollout", _of_rollout(one))]
    urgent = {one.plan.route for one in controllers}
    counted = [(key, cells) for key, cells in traffic if any(cells)]
    weights: dict[tuple[str, ...], float] = {}
    for share in shares:  # an upstream may have two roles in a rule
        weights[share[:3]] = weights.get(share[:3], 0.0) + share.percent
    first = [one for one in counted if one[0][1] in urgent and room.admits("traffic", _of_traffic(*one))]
    first_weights = {key: value for key, value in weights.items() if key[0] in urgent and room.admits("weight", 1)}
    unwell = {place: one for place, one in standings.items() if not _well(one) and room.admits("endpoint", _ENDPOINT)}
    rest = [one for one in counted if one[0][1] not in urgent and room.admits("traffic", _of_traffic(*one))]
    well = {place: one for place, one in standings.items() if _well(one) and room.admits("endpoint", _ENDPOINT)}
    last = {key: value for key, value in weights.items() if key[0] not in urgent and room.admits("weight", 1)}
    return Told(rollouts, first + rest, unwell | well, first_weights | last, room.left_out)


def _of_rollout(one: Controller) -> int:
    """Return the time series of a rollout: phases, weight, failed checks, two results, and its metrics."""
    metrics = {metric.name for metric in one.plan.metrics} | {verdict["metric"] for verdict in one.verdicts}
    return len(PHASES) + 4 + _METRIC * len(metrics)


def _of_traffic(key: Key, cells: Values) -> int:
    """Return the most time series that the cells of `key` make."""
    if key[0] == stats.FAILOVER:
        return 1
    outcomes = _used(cells, stats.OUTCOME, len(stats.OUTCOMES))
    if key[4] == "mirror":
        return 2 * outcomes + _used(cells, stats.DROP, len(stats.DROPS))
    words = _used(cells, stats.CODE, len(stats.CODES)) + _used(cells, stats.REASON, len(stats.REASONS)) + outcomes
    histogram = any(cells[stats.REQUEST_HISTOGRAM : stats.ATTEMPT_HISTOGRAM])
    return words + _HISTOGRAM * histogram + 3 + (cells[stats.RETRIES] > 0)


def _used(cells: Values, first: int, count: int) -> int:
    return count - cells[first : first + count].count(0)


def _well(one: Standing) -> bool:
    return one.healthy and not one.ejected and not one.panic
