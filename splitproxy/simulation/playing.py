"""Many rollouts of one policy on one kind of traffic, second by second."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from splitproxy.simulation.clients import Clients
from splitproxy.simulation.policy import Policy
from splitproxy.simulation.rivals import RIVAL_MS, Rule, Watcher
from splitproxy.simulation.traffic import (
    BURST_ERRORS,
    BURST_EVERY,
    BURST_RATE,
    BURST_SECONDS,
    LATENCY,
    TAIL,
    Counts,
    Flags,
    Floats,
    Traffic,
    above,
    chances,
    shares,
)
from splitproxy.simulation.weighing import Counted, Weighing

BY_ERRORS, BY_LATENCY, BY_LIMITS = 1, 2, 3
"""What rolled back."""
LOOKS: Final = 4
"""How often a second latency is looked at while the canary is slow; else once: nothing can be seen sooner."""


class Played(NamedTuple):
    """What became of each rollout; NaN where it did not happen, and from the onset on where there is one."""

    rolled_back: Floats
    """The second."""
    bad: Floats
    """The canary's failed requests until the rollback."""
    requests: Floats
    """Requests of both sides until then."""
    canary_requests: Floats
    promoted: Floats
    """The second."""
    cause: Counts
    """One of BY_...; 0: none."""
    rivals: tuple[tuple[Floats, Floats], ...] = ()
    """For each rule: the second of its rollback, and the canary's failed requests until then."""


_CANARY, _BAD, _SLOW, _PRIMARY, _BAD_PRIMARY, _RIVAL_SLOW = range(6)
"""What totals count: the canary's requests, failures, those above the policy's limit for latency, ..."""


class Rollouts:
    """So many rollouts, each with its own chance."""

    def __init__(self, policy: Policy, traffic: Traffic, runs: int, seed: np.random.SeedSequence) -> None:
        self._policy, self._traffic, self._runs = policy, traffic, runs
        self._random = np.random.default_rng(seed)
        self._weights = np.array([step.weight for step in policy.steps])
        self._gated = any(step.by_evidence for step in policy.steps)
        self._weighing = Weighing(policy.terms, [*self._weights], runs, gated=self._gated)
        self._clients = Clients(self._random, runs) if traffic.sticky else None
        self._shares = shares(traffic, policy.terms.latency, policy.terms.delay)
        self._above = (0.0, 0.0) if policy.most_ms is None else above(traffic, policy.most_ms)
        self._above_rival = above(traffic, RIVAL_MS)
        self._stage, self._since, self._passed, self._failed, self._burst = np.zeros((5, runs), dtype=np.int64)
        self._totals = np.zeros((6, runs), dtype=np.int64)
        self._checked = self._onset = self._totals.copy()
        self._live = np.ones(runs, dtype=bool)
        """Neither rolled back nor promoted."""
        at, bad, requests, canary_requests, promoted = np.full((5, runs), np.nan)
        cause = np.zeros(runs, dtype=np.int64)
        self.played = Played(at, bad, requests, canary_requests, promoted, cause)

    def play(self, rules: Sequence[Rule] = ()) -> Played:
        """Play to the end and return what became of them."""
        watchers = [Watcher(rule, self._runs) for rule in rules]
        for second in range(self._traffic.seconds):
            if not self._live.any() and not any(watcher.undecided for watcher in watchers):
                break
            self._play_second(second)
            for watcher in watchers:
                watcher.see(second + 1, self._totals[_CANARY], self._totals[_BAD], self._totals[_RIVAL_SLOW])
        rivals = tuple((watcher.at, watcher.bad - self._onset[_BAD]) for watcher in watchers)
        return self.played._replace(rivals=rivals)

    def _play_second(self, second: int) -> None:
        if second == self._traffic.onset:
            self._onset = self._totals.copy()
        if self._traffic.bursts:
            starts = self._random.random(self._runs) < 1.0 / BURST_EVERY
            self._burst = np.where(starts, BURST_SECONDS, np.maximum(self._burst - 1, 0))
        weighed = self._policy.compare and bool(self._live.any())
        if weighed:
            self._weighing.tick()
        latency = weighed and self._clients is None and not self._blind and second >= self._policy.terms.warmup
        looks = LOOKS if latency and self._traffic.kind in {LATENCY, TAIL} and second >= self._traffic.onset else 1
        for look in range(looks):
            counted = self._draw(second, looks, latency=latency)
            if weighed:
                self._weigh(counted, second + look / looks, 1.0 / looks)
            self._count(counted, second)
        self._since += 1
        self._decide(second + 1)

    @property
    def _blind(self) -> bool:
        """Whether nothing is known of latency."""
        return bool(self._traffic.recorded) and not self._traffic.recorded[0].slow

    # --- traffic -----------------------------------------------------------------------------------------------------
    def _draw(self, second: int, looks: int, *, latency: bool) -> Counted:
        random, now = self._random, chances(self._traffic, second)
        burst = self._burst > 0
        rate = now.rate / looks * np.where(burst, BURST_RATE, 1.0)
        errors, canary_errors = (
            np.minimum(1.0, np.where(burst, BURST_ERRORS, 1.0) * share) for share in (now.errors, now.canary_errors)
        )
        weight = self._weights[self._stage]
        if self._clients is not None:
            return self._clients.draw(rate, errors, canary_errors, weight)
        slow = None
        if latency:
            primary_shares, bad_shares, good_shares = self._shares
            canary_shares = bad_shares if second >= self._traffic.onset else good_shares
            slow = (
                random.poisson((rate * weight)[:, None] * canary_shares),
                random.poisson((rate * (1.0 - weight))[:, None] * primary_shares),
            )
            canary, primary = slow[0].sum(axis=1), slow[1].sum(axis=1)
        else:
            canary, primary = random.poisson(rate * weight), random.poisson(rate * (1.0 - weight))
        return Counted(canary, primary, random.binomial(canary, canary_errors), random.binomial(primary, errors), slow)

    def _count(self, counted: Counted, second: int) -> None:
        good, bad = self._above
        wrong = second >= self._traffic.onset
        totals = self._totals
        totals[_CANARY] += counted.canary
        totals[_BAD] += counted.bad_canary if counted.failed is None else counted.failed[0]
        totals[_PRIMARY] += counted.primary
        totals[_BAD_PRIMARY] += counted.bad_primary if counted.failed is None else counted.failed[1]
        if self._policy.most_ms is not None:
            totals[_SLOW] += self._random.binomial(counted.canary, bad if wrong else good)
        totals[_RIVAL_SLOW] += self._random.binomial(counted.canary, self._above_rival[wrong])

    # --- the comparison ----------------------------------------------------------------------------------------------
    def _weigh(self, counted: Counted, begin: float, length: float) -> None:
        """Weigh what a look brings: bad events one after the other, as they come; latency at the end of the look."""
        rows = self._weighing.suspects(self._stage, counted)
        rows = rows[self._live[rows]]
        if rows.size:
            sides, times = self._order(counted.bad_canary[rows], counted.bad_primary[rows])
            found = self._weighing.conviction(rows, self._stage, sides)
            hit = np.nonzero(found >= 0)[0]
            which = rows[hit]
            part = times[hit, found[hit]]
            bad = np.take_along_axis(np.cumsum(sides == 1, axis=1), found[:, None].clip(0), axis=1)[hit, 0]
            canary, primary = counted.canary[which] * part, counted.primary[which] * part
            self._end(which, begin + part * length, BY_ERRORS, bad, canary, primary)
        self._weighing.add(self._stage, counted)
        late = np.nonzero(self._weighing.convicted() & self._live)[0]
        cause = np.where(self._weighing.leading()[late] == 1, BY_LATENCY, BY_ERRORS)
        ended = counted.bad_canary[late], counted.canary[late], counted.primary[late]
        self._end(late, np.full(late.size, begin + length), cause, *ended)

    def _order(self, canary: Counts, primary: Counts) -> tuple[Counts, Floats]:
        """Return in which order and when bad events come: sides as `Weighing.conviction` wants them, times 0 to 1."""
        most = int((canary + primary).max())
        places = np.arange(most)
        sides = np.where(places < canary[:, None], 1, np.where(places < (canary + primary)[:, None], 0, -1))
        when = np.where(sides >= 0, self._random.random(sides.shape), np.inf)
        order = np.argsort(when, axis=1)
        return np.take_along_axis(sides, order, axis=1), np.take_along_axis(when, order, axis=1)

    def _end(
        self,
        rows: Counts,
        at: Floats,
        cause: Counts | int,
        bad: Counts,
        canary: Floats | Counts,
        primary: Floats | Counts,
    ) -> None:
        """Roll back; `bad`, `canary` and `primary`: what comes on top of the totals."""
        played, totals, onset = self.played, self._totals, self._onset
        played.rolled_back[rows] = at
        played.cause[rows] = cause
        played.bad[rows] = totals[_BAD, rows] - onset[_BAD, rows] + bad
        more = totals[_CANARY, rows] - onset[_CANARY, rows] + canary
        played.canary_requests[rows] = more
        played.requests[rows] = more + totals[_PRIMARY, rows] - onset[_PRIMARY, rows] + primary
        self._live[rows] = False

    # --- the policy --------------------------------------------------------------------------------------------------
    def _decide(self, second: int) -> None:
        """Check and take steps at the end of a second."""
        proven = self._weighing.passed() if self._gated else None
        for number, step in enumerate(self._policy.steps):
            here = self._live & (self._stage == number)
            if not here.any():
                continue
            due = here & (self._since % step.interval == 0)
            if due.any():
                self._check(due, second, step.min_requests)
            if step.by_evidence and proven is not None:
                leaving = self._live & here & proven & (self._since >= self._policy.terms.min_dwell)
            else:
                leaving = self._live & here & (self._passed >= step.checks) & (self._since >= step.least)
            self._advance(np.nonzero(leaving)[0], number, second)

    def _check(self, due: Flags, second: int, min_requests: int) -> None:
        """Check limits on what came since the last check; a failure that the primary shares is none."""
        policy = self._policy
        gained = self._totals - self._checked
        self._checked = np.where(due, self._totals, self._checked)
        wrong = np.zeros(self._runs, dtype=bool)
        with np.errstate(invalid="ignore", divide="ignore"):
            if policy.success is not None:
                shared = policy.compare & (1.0 - gained[_BAD_PRIMARY] / gained[_PRIMARY] < policy.success)
                wrong |= (1.0 - gained[_BAD] / gained[_CANARY] < policy.success) & ~shared
            if policy.most_ms is not None:
                wrong |= gained[_SLOW] / gained[_CANARY] > 1.0 - policy.quantile
        known = due & (gained[_CANARY] >= max(min_requests, 1))
        self._failed += known & wrong
        self._passed += known & ~wrong
        rows = np.nonzero(known & wrong & (self._failed >= policy.threshold))[0]
        nothing = np.zeros(rows.size, dtype=np.int64)
        self._end(rows, np.full(rows.size, float(second)), BY_LIMITS, nothing, nothing, nothing)

    def _advance(self, rows: Counts, number: int, second: int) -> None:
        if not rows.size:
            return
        self._since[rows] = self._passed[rows] = 0
        self._checked[:, rows] = self._totals[:, rows]
        if number + 1 < len(self._policy.steps):
            self._stage[rows] = number + 1
            self._weighing.begin_stage(rows)
        else:
            self.played.promoted[rows] = second
            self._live[rows] = False
