"""What a rollout is judged by: its own signals over windows that never begin before the step, and other providers'.

A *mark* is what the counters said at one moment; a window is the difference of two. A metric without an interval is
measured from the mark of the check before, so no request is judged twice. The mark of the last check is saved with the
decision that came of it, so a control process that takes over begins where the one before had ended.
"""

import asyncio
import os
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

from splitproxy.control.providers import Provider
from splitproxy.control.signals import Signals
from splitproxy.core import stats, templates
from splitproxy.core.analysis import Measurement, Verdict, breach, judge
from splitproxy.core.rollout.events import Breached
from splitproxy.core.rollout.plan import MetricPlan, Plan
from splitproxy.core.rollout.state import State
from splitproxy.core.rollout.traffic import traffic
from splitproxy.core.stats import Key

PROVIDER_SECONDS: Final = 30.0
"""The longest that a provider may take, whatever its own timeout is."""
_FIRST: Final = stats.ATTEMPT_HISTOGRAM
_LAST: Final = stats.OUTCOME + len(stats.OUTCOMES)
_HISTOGRAM: Final = slice(0, stats.BUCKETS)
_OUTCOMES: Final = slice(stats.OUTCOME - _FIRST, _LAST - _FIRST)
_LEFT_OUT: Final = frozenset({"client_gone", "cancelled"})
"""Outcomes that are nobody's failure and nobody's success."""
_SUCCESS: Final = stats.OUTCOMES.index("success")
_COUNTED: Final = tuple(place for place, outcome in enumerate(stats.OUTCOMES) if outcome not in _LEFT_OUT)
_FINEST: Final = 0.5
"""Seconds between marks at least."""
_MARKS: Final = 24
"""Marks within the shortest interval of a metric: how exactly its window can be met."""

Cells: TypeAlias = "array[int]"
"""Attempts by duration and by outcome."""


class Mark(NamedTuple):
    """The counters at one moment."""

    clock: float
    """The rollout's clock."""
    at: float
    """The machine's monotonic clock, which windows are measured by: it goes on while nobody runs the rollout."""
    canary: Cells
    mirror: Cells
    primary: Cells


class Check(NamedTuple):
    """What a check has found."""

    verdicts: tuple[Verdict, ...]
    """In the order of the plan."""
    broken: Breached | None = None
    """The hard limit that is broken by a metric of somebody else's; the others are looked at between checks."""


class Template(NamedTuple):
    """A metric of somebody else's."""

    provider: Provider
    query: str


class Keys(NamedTuple):
    """Where the signals of a rollout's sides are counted."""

    canary: tuple[Key, ...]
    mirror: tuple[Key, ...]
    primary: tuple[Key, ...]


def keys(rollout: Mapping[str, Any], rules: Iterable[str]) -> Keys:
    """Return the series of a plain rollout; `rules` are all rules of its route.

    Requests that a rule outside the rollout forces to the canary count for its limits; the primary is looked at where
    it is compared alone. Both roles count: a swap exchanges them.
    """
    route, owned = rollout["route"], rollout["rules"]
    every = tuple(dict.fromkeys((*owned, *rules)))

    def series(names: Iterable[str], upstream: str, *roles: str) -> tuple[Key, ...]:
        return tuple((stats.SERIES, route, name, upstream, role) for name in names for role in roles)

    return Keys(
        series(every, rollout["canary"], "canary", "primary"),
        series(owned, rollout["canary"], "mirror"),
        series(owned, rollout["primary"], "primary", "canary"),
    )


class Measuring:
    """The measurements of one rollout. `monotonic` is the machine's clock."""

    def __init__(
        self,
        signals: Signals,
        monotonic: Callable[[], float],
        rollout: Mapping[str, Any],
        where: Keys,
        found: Mapping[str, Template],
    ) -> None:
        self._signals, self._monotonic = signals, monotonic
        self._rollout, self._keys, self._templates = rollout, where, found
        self._stage = self._checked = self._mark(0.0)
        self._marks = [self._stage]

    # --- marks -------------------------------------------------------------------------------------------------------
    def follow(self, rollout: Mapping[str, Any], where: Keys, found: Mapping[str, Template]) -> None:
        """Measure by another version of the plan from now on; what was counted stays as long as the series do."""
        moved = where != self._keys
        self._rollout, self._keys, self._templates = rollout, where, found
        if moved:
            self.restart(self._checked.clock)

    def restart(self, clock: float) -> None:
        """Begin all windows now: traffic has changed."""
        self._stage = self._checked = self._mark(clock)
        self._marks = [self._stage]

    def note(self, plan: Plan, clock: float) -> None:
        """Keep a mark if one is due for the metrics with an interval."""
        shortest = min((metric.interval for metric in plan.metrics if metric.interval), default=0.0)
        if shortest and clock - self._marks[-1].clock >= max(_FINEST, shortest / _MARKS):
            self._keep(plan, self._mark(clock))

    def _keep(self, plan: Plan, mark: Mark) -> None:
        """Keep a mark, and of the older ones those that a window may still begin at."""
        longest = max((metric.interval for metric in plan.metrics), default=0.0)
        self._marks.append(mark)
        needless = bisect_left(self._marks, mark.clock - longest, key=lambda one: one.clock) - 1
        if needless > 0:
            del self._marks[:needless]

    def _mark(self, clock: float) -> Mark:
        signals = self._signals
        sides = (array("Q", signals.add_up(one, _FIRST, _LAST)) for one in self._keys)
        return Mark(clock, self._monotonic(), *sides)

    def _begin(self, metric: MetricPlan, clock: float, otherwise: Mark) -> Mark:
        """Return the mark at which the window of a metric with an interval begins: the nearest that there is."""
        if not metric.interval:
            return otherwise
        wanted = clock - metric.interval
        return min(self._marks, key=lambda mark: abs(mark.clock - wanted))

    # --- across a restart --------------------------------------------------------------------------------------------
    def saved(self) -> dict[str, Any]:
        """Return what the last check consumed, for the state file."""
        mark = self._checked
        sides = {"canary": mark.canary, "mirror": mark.mirror, "primary": mark.primary}
        return {"clock": mark.clock, "at": mark.at} | {name: _packed(cells) for name, cells in sides.items()}

    def resume(self, saved: Mapping[str, Any], since: float, clock: float) -> None:
        """Go on after a restart: from the mark that was saved, or from now when it is from before `since`.

        The counters must be the same ones (see `counters`); were they not, a window would be one of different things.
        """
        self.restart(clock)
        if saved["clock"] < since:
            return
        sides = (_unpacked(saved[side]) for side in ("canary", "mirror", "primary"))
        mark = Mark(saved["clock"], saved["at"], *sides)
        if all(
            a <= b
            for then, now in zip(mark[2:], self._checked[2:], strict=True)
            for a, b in zip(then, now, strict=True)
        ):
            self._stage = self._checked = mark
            self._marks = [mark]

    # --- measurements ------------------------------------------------------------------------------------------------
    async def check(self, plan: Plan, state: State, clock: float, side: str = "canary") -> Check:
        """Measure and judge every metric, all at the same time: of the canary, or of the updated `primary`."""
        now, before = self._mark(clock), self._checked
        self._checked = now
        updated = side == "primary"
        series = "primary" if updated else _series(plan, state)
        found: dict[str, Check] = {}
        for metric in plan.metrics:
            if metric.kind != "template":
                begin = self._begin(metric, clock, before)
                primary = None if updated else self._own(metric, begin, now, "primary")
                found[metric.name] = _judged(metric, plan, state, self._own(metric, begin, now, series), primary, side)
        self._keep(plan, now)
        foreign = [one for one in plan.metrics if one.kind == "template"]
        seconds = {one.name: now.at - self._begin(one, clock, before).at for one in foreign}
        asked = await asyncio.gather(*(self._foreign(one, plan, seconds[one.name], side) for one in foreign))
        for metric, measurement in zip(foreign, asked, strict=True):
            found[metric.name] = _judged(metric, plan, state, measurement, None, side)
        broken = next((found[one.name].broken for one in foreign if found[one.name].broken), None)
        return Check(tuple(verdict for one in plan.metrics for verdict in found[one.name].verdicts), broken)

    def look(self, plan: Plan, state: State, clock: float, side: str | None = None, name: str = "") -> Breached | None:
        """Return the hard limit that is broken at this moment, None when all are kept; of an updated primary too.

        With a `side` and the `name` of a metric, only whether that side breaks that limit.
        """
        hard = [
            one
            for one in plan.metrics
            if one.kind != "template" and (one.hard_min, one.hard_max) != (None, None) and name in ("", one.name)
        ]
        if not hard:
            return None
        sides = {"canary": _series(plan, state)} | ({"primary": "primary"} if state.handed_back else {})
        if side == "primary":
            sides = {"primary": "primary"}
        for metric in hard:
            begin = self._begin(metric, clock, self._stage)
            for side, series in sides.items():
                measurement = self._own(metric, begin, None, series)
                found = breach(metric, measurement, min_requests=_min_requests(plan, state, metric), who=side)
                if found:
                    return Breached(found, side)
        return None

    def _own(self, metric: MetricPlan, begin: Mark, end: Mark | None, series: str) -> Measurement:
        """Measure one of the series of `Keys` from one mark to another, or up to now."""
        where = getattr(self._keys, series)
        if metric.kind == "requests-in-flight":
            return Measurement(float(self._signals.gauge(where, stats.IN_FLIGHT)), 0, 0.0)
        cells = _HISTOGRAM if metric.kind == "request-duration" else _OUTCOMES
        then: Cells = getattr(begin, series)[cells]
        if end is None:
            now, at = self._signals.add_up(where, _FIRST + cells.start, _FIRST + cells.stop), self._monotonic()
        else:
            now, at = getattr(end, series)[cells], end.at
        return measured(metric, [b - a for a, b in zip(then, now, strict=True)], at - begin.at)

    async def _foreign(self, metric: MetricPlan, plan: Plan, seconds: float, side: str) -> Measurement:
        window = metric.interval or seconds or plan.interval
        # A query that names the canary is about the version on trial, and the updated primary is that.
        rollout = {**self._rollout, "canary": self._rollout[side]}
        try:
            template = self._templates[metric.template]
            query = templates.render(template.query, templates.values(rollout, window, dict(metric.variables)))
            async with asyncio.timeout(PROVIDER_SECONDS):
                return (await template.provider.query(query))._replace(seconds=window)
        except TimeoutError:
            return Measurement(None, 0, window, f"no answer within {PROVIDER_SECONDS:g} s")
        except Exception as error:
            return Measurement(None, 0, window, f"{type(error).__name__}: {error}")


def measured(metric: MetricPlan, cells: list[int], seconds: float) -> Measurement:
    """Return what the attempts of one side say of a metric of our own over a window of so many seconds.

    `cells` count them by duration for a request-duration, else by outcome.
    """
    match metric.kind:
        case "request-success-rate":
            return Measurement(*success_share(cells), seconds)
        case "request-duration":
            value = stats.quantile(cells, metric.quantile)
            return Measurement(None if value is None else 1000.0 * value, sum(cells), seconds)
        case "request-rate":
            return Measurement(sum(cells) / seconds if seconds > 0 else None, sum(cells), seconds)
        case unknown:
            raise AssertionError(unknown)


def success_share(outcomes: Sequence[int]) -> tuple[float | None, int]:
    """Return which percentage of attempts succeeded, None where none counts, and how many count."""
    counted = sum(outcomes[place] for place in _COUNTED)
    return 100.0 * outcomes[_SUCCESS] / counted if counted else None, counted


def counters(descriptor: int) -> str:
    """Return what tells the counters behind `descriptor` from those of another life of the program."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{os.fstat(descriptor).st_ino}"


def _judged(
    metric: MetricPlan,
    plan: Plan,
    state: State,
    measurement: Measurement,
    primary: Measurement | None,
    side: str,
) -> Check:
    """Judge one metric of one side."""
    least = _min_requests(plan, state, metric)
    broken = breach(metric, measurement, min_requests=least, who=side) if metric.kind == "template" else None
    limits = next(((low, high) for name, low, high in _limits(plan, state) if name == metric.name), None)
    verdict = broken or judge(
        metric, measurement, primary, compare=plan.compare, limits=limits, min_requests=least, who=side
    )
    return Check((verdict,), Breached(broken, side) if broken else None)


def _series(plan: Plan, state: State) -> str:
    """Return whose outcomes are the canary's: before any live traffic, as in a dry run, those of the copies."""
    live = not plan.dry_run and (state.weight or state.cohorts)
    return "mirror" if traffic(plan, state).mirror and not live else "canary"


def _limits(plan: Plan, state: State) -> tuple[tuple[str, float | None, float | None], ...]:
    return plan.stages[state.step].limits if 0 <= state.step < len(plan.stages) else ()


def _min_requests(plan: Plan, state: State, metric: MetricPlan) -> int:
    stage = plan.stages[state.step] if 0 <= state.step < len(plan.stages) else None
    return (stage.min_requests if stage else 0) or metric.min_requests


def _packed(cells: Cells) -> list[list[int]]:
    """Return the cells that are not zero, each with its index."""
    return [[index, value] for index, value in enumerate(cells) if value] if any(cells) else []


def _unpacked(pairs: list[list[int]]) -> Cells:
    cells = array("Q", bytes(8 * (_LAST - _FIRST)))
    for index, value in pairs:
        cells[index] = value
    return cells
