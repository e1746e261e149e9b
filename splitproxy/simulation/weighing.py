"""The comparison of `core.evidence`, of many rollouts at once, with the very same bets."""

from typing import NamedTuple

import numpy as np

from splitproxy.core.evidence import ERRORS, LATENCY, LIMIT, PARTS, RESERVE, Terms
from splitproxy.core.promotion import TAIL, stage_margins
from splitproxy.core.sequential import BETTER_RATES, RATIOS, SAFE_RATIOS, Schedule, label_logs, rate_logs
from splitproxy.core.slowness import SHAPES, SLOWER, THRESHOLDS, latency_prior, level_logs, shape_logs
from splitproxy.simulation.stakes import Stakes
from splitproxy.simulation.traffic import Counts, Flags, Floats

_LEVELS = [(number, ratio) for number, some in enumerate(SLOWER) for ratio in some]
_NUMBERS = np.array([number for number, _ in _LEVELS])


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
        self.slow = np.array(
            [[level_logs(1.0 - THRESHOLDS[number], ratio, weight) for number, ratio in _LEVELS] for weight in weights]
        )
        self.shapes = np.array([[shape_logs(shape, weight) for shape in SHAPES] for weight in weights])
        margins = [stage_margins(weight, terms.errors) for weight in weights]
        pairs = list(zip(weights, margins, strict=True))
        self.safe = np.array([[label_logs(one * m.ratio, m.ratio, w) for one in _safe(m.ratio)] for w, m in pairs])
        self.safe_slow = np.array(
            [[label_logs(one * m.slow_ratio, m.slow_ratio, w) for one in _safe(m.slow_ratio)] for w, m in pairs]
        )
        self.low = np.array([[rate_logs(multiple, m.share) for multiple in BETTER_RATES] for m in margins])
        self.low_slow = np.array([[rate_logs(multiple, m.slow_share) for multiple in BETTER_RATES] for m in margins])


def _safe(margin: float) -> list[float]:
    return [ratio / margin for ratio in SAFE_RATIOS]


class Weighing:
    """The evidence of many rollouts."""

    def __init__(self, terms: Terms, weights: list[float], runs: int) -> None:
        schedule = Schedule(terms.horizon, RESERVE if terms.horizon else 0.0)
        self._terms = terms
        self._tables = Tables(weights, terms)
        self._errors = Stakes([1.0 / len(RATIOS)] * len(RATIOS), runs, schedule)
        self._latency = Stakes(latency_prior(SLOWER, SHAPES), runs, schedule)
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
            self._gates[0].gain(bad[0] * tables.safe[stage, :, 0] + bad[1] * tables.safe[stage, :, 1])
        good = np.maximum(counted.canary - counted.bad_canary, 0)[:, None]
        self._gates[1].gain(bad[0] * tables.low[stage, :, 0] + good * tables.low[stage, :, 1])
        if counted.slow is not None:
            self._add_slow(stage, *counted.slow)

    def _add_slow(self, stage: Counts, canary: Counts, primary: Counts) -> None:
        tables = self._tables
        above, its_above = _above(canary), _above(primary)
        below, its_below = canary.sum(axis=1)[:, None] - above, primary.sum(axis=1)[:, None] - its_above
        logs = tables.slow[stage]
        gains = above[:, _NUMBERS] * logs[:, :, 0]
        gains += below[:, _NUMBERS] * logs[:, :, 1]
        gains += its_above[:, _NUMBERS] * logs[:, :, 2]
        gains += its_below[:, _NUMBERS] * logs[:, :, 3]
        shapes = tables.shapes[stage]
        shaped = (canary[:, None, :] * shapes[:, :, 0]).sum(axis=2) + (primary[:, None, :] * shapes[:, :, 1]).sum(
            axis=2
        )
        self._latency.gain(np.concatenate((gains, shaped), axis=1))
        self._held[LATENCY] = self._latency.e()
        tail, its_tail = above[:, [TAIL]], its_above[:, [TAIL]]
        self._gates[2].gain(tail * tables.safe_slow[stage, :, 0] + its_tail * tables.safe_slow[stage, :, 1])
        self._gates[3].gain(tail * tables.low_slow[stage, :, 0] + below[:, [TAIL]] * tables.low_slow[stage, :, 1])

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


def _above(between: Counts) -> Counts:
    """Return for each threshold how many requests are above it."""
    reverse: Counts = np.cumsum(between[:, :0:-1], axis=1)[:, ::-1]
    return reverse
