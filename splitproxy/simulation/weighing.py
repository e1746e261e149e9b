"""The comparison of `core.evidence`, of many rollouts at once, with the very same bets."""

from typing import NamedTuple

import numpy as np

from splitproxy.core.evidence import ERRORS, LATENCY, LIMIT, PARTS, RESERVE, Terms
from splitproxy.core.promotion import TAIL, stage_margins
from splitproxy.core.sequential import BETTER_RATES, RATIOS, SAFE_RATIOS, Schedule, label_logs, rate_logs
from splitproxy.core.slowness import SHAPES, SLOWER, THRESHOLDS, latency_prior, level_logs, shape_logs
from splitproxy.simulation.stakes import Stakes
from splitproxy.simulation.traffic import Counts, Flags, Floats


class Counted(NamedTuple):
    """What happened since the last look, a row for each rollout."""

    canary: Counts
    primary: Counts
    bad_canary: Counts
    bad_primary: Counts
    """Bad events."""
    slow: tuple[Counts, Counts] | None = None
    """The canary's and the primary's requests between the thresholds, fastest first; None: latency is not known."""
    failed: tuple[Counts, Counts] | None = None
    """The canary's and the primary's failed requests, where more failed than are bad events."""


class Tables:
    """Each stage's logarithms: what an event does to each bet."""

    def __init__(self, weights: list[float], terms: Terms) -> None:
        ratios = [terms.errors * ratio for ratio in RATIOS]
        self.errors = np.array([[label_logs(ratio, terms.errors, weight) for ratio in ratios] for weight in weights])
        self.slow = np.array([_latency_logs(weight) for weight in weights])
        """For each stage what a request does to each bet: by its place between thresholds, the canary first."""
        margins = [stage_margins(weight, terms.errors) for weight in weights]
        pairs = list(zip(weights, margins, strict=True))
        self.safe = np.array([[label_logs(one * m.ratio, m.ratio, w) for one in _safe(m.ratio)] for w, m in pairs])
        self.safe_slow = np.array(
            [[label_logs(one * m.slow_ratio, m.slow_ratio, w) for one in _safe(m.slow_ratio)] for w, m in pairs]
        )
        self.low = np.array([[rate_logs(multiple, m.share) for multiple in BETTER_RATES] for m in margins])
        self.low_slow = np.array([[rate_logs(multiple, m.slow_share) for multiple in BETTER_RATES] for m in margins])


def _latency_logs(weight: float) -> list[list[float]]:
    """Return a row for each place between thresholds, the canary's and then the primary's, a column for each bet."""
    columns = []
    for number, some in enumerate(SLOWER):
        for ratio in some:
            above, below, its_above, its_below = level_logs(1.0 - THRESHOLDS[number], ratio, weight)
            beyond = len(THRESHOLDS) - number
            columns.append(
                [*[below] * (number + 1), *[above] * beyond, *[its_below] * (number + 1), *[its_above] * beyond]
            )
    columns += [[*canary, *primary] for canary, primary in (shape_logs(shape, weight) for shape in SHAPES)]
    return [list(row) for row in zip(*columns, strict=True)]


def _safe(margin: float) -> list[float]:
    return [ratio / margin for ratio in SAFE_RATIOS]


class Weighing:
    """The evidence of many rollouts."""

    def __init__(self, terms: Terms, weights: list[float], runs: int, *, gated: bool = True) -> None:
        """`gated`: whether anybody asks for gates."""
        schedule = Schedule(terms.horizon, RESERVE if terms.horizon else 0.0)
        self._terms = terms
        self._tables = Tables(weights, terms)
        self._errors = Stakes([1.0 / len(RATIOS)] * len(RATIOS), runs, schedule)
        self._latency = Stakes(latency_prior(SLOWER, SHAPES), runs, schedule)
        self._gated = gated
        self._gates = [
            Stakes([1.0 / bets] * bets, runs, Schedule(0), 1.0)
            for bets in (len(SAFE_RATIOS), len(BETTER_RATES), len(SAFE_RATIOS), len(BETTER_RATES))
        ]
        self._bad = np.zeros(runs, dtype=np.int64)
        self._held = {LATENCY: np.ones(runs), LIMIT: np.ones(runs)}

    def tick(self) -> None:
        """Count a second."""
        self._errors.tick()
        self._latency.tick()

    def e(self) -> Floats:
        """Return the combined e-values."""
        return PARTS[ERRORS] * self._errors.e() + self._rest()

    def leading(self) -> Counts:
        """Return 1 where latency speaks most against the canary, else 0."""
        slower = PARTS[LATENCY] * self._held[LATENCY] > PARTS[ERRORS] * self._errors.e()
        return slower.astype(np.int64)

    def _rest(self) -> Floats:
        return PARTS[LATENCY] * self._held[LATENCY] + PARTS[LIMIT] * self._held[LIMIT]

    def suspects(self, stage: Counts, counted: Counted) -> Counts:
        """Return which rollouts could be convicted by their errors, in the order that is worst for the canary."""
        gains = counted.bad_canary[:, None] * self._tables.errors[stage, :, 0]
        e = PARTS[ERRORS] * self._errors.after(gains) + self._rest()
        enough = self._bad + counted.bad_canary >= self._terms.min_bad_events
        return np.nonzero((e >= 1.0 / self._terms.alpha) & enough & (counted.bad_canary > 0))[0]

    def conviction(self, rows: Counts, stage: Counts, sides: Counts) -> Counts:
        """Return at which bad event rollouts are convicted, counted from 0; -1: at none.

        `sides`: for each of `rows` the order of bad events: 1 the canary's, 0 the primary's, -1 none.
        """
        tables = self._tables.errors[stage[rows]]
        canary, primary = sides == 1, sides == 0
        gains = np.cumsum(canary, axis=1)[:, :, None] * tables[:, None, :, 0]
        gains = gains + np.cumsum(primary, axis=1)[:, :, None] * tables[:, None, :, 1]
        e = PARTS[ERRORS] * self._errors.after(gains, rows) + self._rest()[rows, None]
        enough = self._bad[rows, None] + np.cumsum(canary, axis=1) >= self._terms.min_bad_events
        found = (e >= 1.0 / self._terms.alpha) & canary & enough
        return np.where(found.any(axis=1), found.argmax(axis=1), -1)

    def add(self, stage: Counts, counted: Counted) -> None:
        """Weigh what was counted."""
        tables = self._tables
        self._bad = self._bad + counted.bad_canary
        bad = counted.bad_canary[:, None], counted.bad_primary[:, None]
        if counted.bad_canary.any() or counted.bad_primary.any():
            self._errors.gain(bad[0] * tables.errors[stage, :, 0] + bad[1] * tables.errors[stage, :, 1])
        if counted.slow is not None:
            self._add_slow(stage, *counted.slow)
        if self._gated:
            self._add_to_gates(stage, counted)

    def _add_slow(self, stage: Counts, canary: Counts, primary: Counts) -> None:
        places = np.concatenate((canary, primary), axis=1).astype(np.float64)
        gains = np.empty_like(self._latency.held)
        for number in range(len(self._tables.slow)):
            rows = stage == number
            gains[rows] = places[rows] @ self._tables.slow[number]
        self._latency.gain(gains)
        self._held[LATENCY] = self._latency.e()

    def _add_to_gates(self, stage: Counts, counted: Counted) -> None:
        tables = self._tables
        bad, its_bad = counted.bad_canary[:, None], counted.bad_primary[:, None]
        failed = bad if counted.failed is None else counted.failed[0][:, None]
        good = np.maximum(counted.canary[:, None] - failed, 0)
        self._gates[0].gain(bad * tables.safe[stage, :, 0] + its_bad * tables.safe[stage, :, 1])
        self._gates[1].gain(failed * tables.low[stage, :, 0] + good * tables.low[stage, :, 1])
        if counted.slow is None:
            return
        canary, primary = counted.slow
        tail, its_tail = (side[:, TAIL + 1 :].sum(axis=1)[:, None] for side in (canary, primary))
        below = canary.sum(axis=1)[:, None] - tail
        self._gates[2].gain(tail * tables.safe_slow[stage, :, 0] + its_tail * tables.safe_slow[stage, :, 1])
        self._gates[3].gain(tail * tables.low_slow[stage, :, 0] + below * tables.low_slow[stage, :, 1])

    def convicted(self) -> Flags:
        """Return which rollouts' evidence suffices now."""
        result: Flags = (self.e() >= 1.0 / self._terms.alpha) & (
            (self._bad >= self._terms.min_bad_events) | (self.leading() == 1)
        )
        return result

    def passed(self) -> Flags:
        """Return which rollouts' gates are passed, least times apart."""
        errors, share, slow, slow_share = (gate.e() for gate in self._gates)
        needed = 2.0 / self._terms.beta
        result: Flags = (errors + share >= needed) & (slow + slow_share >= needed)
        return result

    def begin_stage(self, rows: Counts) -> None:
        """Let gates begin anew."""
        for gate in self._gates:
            gate.again(rows)
