"""What is known of a canary against its primary: all signals of one rollout under one error probability.

The e-values of errors, of latency and of what counts where no primary is left are averaged with fixed parts, and an
average of e-values is one. So `alpha` bounds the chance that a rollout of a canary that is no worse is ever rolled back
by evidence: per rollout, whatever the signals, the weights and the number of looks.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from math import exp, log
from operator import itemgetter
from typing import Any, Final, NamedTuple

from splitproxy.core.onset import Counts, Onset
from splitproxy.core.promotion import Gate, StageGate
from splitproxy.core.sequential import RATIOS, SHARE_RATIOS, LabelBet, RateBet, Schedule, Wealth, log_sum, ratio_bounds
from splitproxy.core.slowness import THRESHOLDS, LatencyBet, Slow
from splitproxy.core.standing import Absolute, Signal, Standing
from splitproxy.core.wording import (
    error_words,
    evidence_words,
    limit_words,
    place_words,
    quantile_name,
    slow_words,
)

ERRORS: Final = "errors"
LATENCY: Final = "latency"
LIMIT: Final = "limit"
PARTS: Final = {ERRORS: 0.5, LATENCY: 0.4, LIMIT: 0.1}
"""How the stake is divided: errors, latency, the absolute limit where there is nobody to compare with."""
RESERVE: Final = 0.1
"""The part of fresh starts that is kept for a rollout that takes longer than planned."""
SHARES_ALPHA: Final = 0.001
"""The chance of an alarm over shares that are as the weights say."""
_PAST, _ENOUGH = 10, 100
"""Ticks whose counts are kept, and requests of the primary that tell how many did not fail."""
_LEAST_LIMIT: Final = 1e-5
"""What an allowed share of 0 is taken for: one failed request in a hundred thousand."""


class Terms(NamedTuple):
    """`analysis.compare`, compiled. Times in seconds, probabilities 0 to 1."""

    alpha: float = 0.001
    """Most chance of rolling back a canary that is within what is tolerated, per rollout."""
    beta: float = 0.05
    """Most chance that a step's gate lets a canary pass that is worse than its margins."""
    errors: float = 1.1
    """How many times likelier bad events may be on the canary."""
    latency: float = 1.1
    """How many times longer the canary may take: its latency is divided by this before it is counted."""
    delay: float = 0.005
    """How many seconds longer it may take in any case: whoever counts subtracts it where that takes more."""
    min_bad_events: int = 3
    """The canary's bad events before a verdict; more delays it and keeps it as honest."""
    warmup: float = 10.0
    """For which latency is left out by whoever counts; never errors."""
    pace: str = "interval"
    """interval | evidence: what takes a step."""
    min_dwell: float = 5.0
    """The least time in a stage."""
    horizon: int = 3600
    """Ticks that the rollout is planned to take; 0: unknown."""
    sticky: bool = False
    """Clients keep their side, so bad events are counted once for each: only how it is put in words."""


class Batch(NamedTuple):
    """What was counted since the last look, of one weight epoch: only traffic whose side was drawn.

    Both sides are read at the same moment. Where a client keeps its side, bad events are its first ones only.
    """

    weight: float
    """The probability of the canary that was in force when these requests were routed."""
    canary: int = 0
    primary: int = 0
    """Requests that finished."""
    bad_canary: int = 0
    bad_primary: int = 0
    """Bad events, the first attempt's side."""
    slow: tuple[Slow, ...] = ()
    """For each of `THRESHOLDS`: the canary's requests above and below, the primary's above and below; () in warm-up."""
    first_slow: tuple[tuple[int, int], ...] = ()
    """The same of clients that keep their side, each once per threshold when first above: (the canary's, both)."""
    failed_canary: int | None = None
    failed_primary: int | None = None
    """All failed requests, for limits; None: as many as bad events."""

    @property
    def failed(self) -> tuple[int, int]:
        """All failed requests of both sides."""
        canary = self.bad_canary if self.failed_canary is None else self.failed_canary
        return canary, self.bad_primary if self.failed_primary is None else self.failed_primary


class Evidence:
    """The comparison of one rollout: fed with counts, asked at any time."""

    __slots__ = (
        "_alone",
        "_bad_onset",
        "_bounds",
        "_convicted",
        "_counts",
        "_errors",
        "_events",
        "_gate",
        "_held",
        "_latency",
        "_limit",
        "_limits",
        "_past",
        "_peak",
        "_shares",
        "_slow",
        "_slow_onset",
        "_ticks",
        "terms",
    )

    terms: Terms

    def __init__(self, terms: Terms, weight: float = 0.0, limit: float | None = None) -> None:
        """Begin a rollout with its first stage; see `begin_stage`."""
        self.terms = terms
        schedule = Schedule(terms.horizon, RESERVE if terms.horizon else 0.0)
        self._errors = LabelBet([terms.errors * ratio for ratio in RATIOS], terms.errors, schedule=schedule)
        self._latency = LatencyBet(schedule=schedule)
        self._alone = RateBet(schedule=schedule)
        self._limits = RateBet(schedule=schedule), RateBet(schedule=schedule)
        self._shares = LabelBet(SHARE_RATIOS, schedule=schedule)
        self._bad_onset = Onset(len(RATIOS), Counts())
        self._slow_onset = Onset(len(self._latency.numbers), (0, 0, 0, 0))
        self._counts = Counts()
        self._slow: list[Slow] = [(0, 0, 0, 0)] * len(THRESHOLDS)
        self._events: dict[float, tuple[int, int]] = {}
        self._bounds: tuple[float, float | None] | None = None
        """The ratio's interval; None: errors have come since it was asked for."""
        self._held = {ERRORS: 0.0, LATENCY: 0.0, LIMIT: 0.0}
        self._past = deque([(0, self._counts)], _PAST)
        self._ticks = 0
        self._peak = 0.0
        self._convicted = False
        self.begin_stage(weight, limit)

    # --- what happens -------------------------------------------------------------------------------------------------
    def begin_stage(self, weight: float, limit: float | None = None) -> None:
        """Begin a stage at a weight, 0 to 1: its gate starts from nothing, what speaks against the canary stays.

        `limit`: the share of failed requests that is allowed whatever the primary does; None: none is set.
        """
        self._gate = StageGate(weight, self.terms.errors)
        self._limit = None if limit is None else min(max(limit, _LEAST_LIMIT), 1.0 - _LEAST_LIMIT)

    def tick(self) -> None:
        """Count a second; to be called once a second, before what was counted in it is added."""
        self._past.append((self._ticks, self._counts))
        self._ticks += 1
        wealths: list[Wealth] = [self._errors, self._latency, self._shares]
        if self._limit is not None:
            wealths += [self._alone, *self._limits]
        for wealth in wealths:
            wealth.tick()
        self._gate.tick()

    def add(self, batch: Batch) -> bool:
        """Weigh what was counted; return whether the canary is convicted, now or before."""
        weight, bad = batch.weight, (batch.bad_canary, batch.bad_primary)
        looked = [LIMIT] if self._limit is not None else []
        self._counts = self._counts.plus(Counts(batch.canary, batch.primary, *bad))
        self._gate.add((batch.canary, batch.primary), bad, batch.failed, weight)
        if any(bad):
            gains = self._errors.add(bad[0], sum(bad), weight)
            self._bad_onset.step(gains, *self._lately(len(gains)))
            self._bounds = None
            looked.append(ERRORS)
        if any(bad) or batch.canary or batch.primary:
            canary, both = self._events.pop(weight, (0, 0))
            self._events[weight] = (canary + bad[0], both + sum(bad))  # the last one last: that is the one told of
        if batch.slow or batch.first_slow:
            self._add_slow(batch)
            looked.append(LATENCY)
        if self._limit is not None:
            self._add_absolute(batch, self._limit)
        self._look(looked)
        return self._convicted

    def routed(self, weight: float, canary: int, primary: int) -> None:
        """Check how requests were shared out at `weight`; where clients keep their side, how new clients were."""
        self._shares.add(canary, canary + primary, weight)

    def _lately(self, bets: int) -> tuple[list[Counts], int]:
        """Return from when on to count if something begins to speak against the canary now, for as many bets.

        A little earlier than that: how many requests did not fail beside those that did is what tells how bad it is.
        """
        tick, mark = next(
            (past for past in reversed(self._past) if self._counts.primary - past[1].primary >= _ENOUGH), self._past[0]
        )
        return [mark] * bets, tick

    def _add_slow(self, batch: Batch) -> None:
        numbers, before = self._latency.numbers, self._slow
        marks: Sequence[Slow] = itemgetter(*numbers)(before)
        if batch.slow:
            gains = self._latency.add(batch.slow, batch.weight)
            self._gate.add_slow(batch.slow, batch.weight)
            self._slow_onset.step(gains, marks, self._ticks)
            self._slow = [_sum(one, other) for one, other in zip(before, batch.slow, strict=True)]
        if batch.first_slow:
            gains = self._latency.add_first(batch.first_slow, batch.weight)
            self._gate.add_first_slow(batch.first_slow, batch.weight)
            self._slow_onset.step(gains, marks, self._ticks)
            firsts = [(canary, 0, both - canary, 0) for canary, both in batch.first_slow]
            self._slow = [_sum(one, other) for one, other in zip(self._slow, firsts, strict=True)]

    def _add_absolute(self, batch: Batch, limit: float) -> None:
        failed = batch.failed
        for wealth, bad, requests in zip(self._limits, failed, (batch.canary, batch.primary), strict=True):
            wealth.add(bad, max(requests, bad), limit)
        if batch.weight >= 1.0:
            self._alone.add(failed[0], max(batch.canary, failed[0]), limit)

    def _look(self, signals: Sequence[str]) -> None:
        """Take the present evidence of these signals, and convict if all together suffice."""
        wealths = {ERRORS: self._errors, LATENCY: self._latency, LIMIT: self._alone}
        for signal in signals:
            self._held[signal] = wealths[signal].log_e
        log_e = self._log_e()
        self._peak = max(self._peak, log_e)
        if log_e >= -log(self.terms.alpha) and self._bad_events() >= self.terms.min_bad_events:
            self._convicted = True

    def _log_e(self) -> float:
        return log_sum([log(part) + self._held[signal] for signal, part in PARTS.items()])

    def _leading(self) -> str:
        return max(PARTS, key=lambda signal: log(PARTS[signal]) + self._held[signal])

    def _bad_events(self) -> int:
        """Return how many of the canary's bad events there are of the kind that speaks most against it."""
        if self._leading() == LATENCY:
            return self._slow[self._latency.threshold()][0]
        return self._counts.bad_canary

    # --- what is known ------------------------------------------------------------------------------------------------
    @property
    def convicted(self) -> bool:
        """Whether the canary is to be rolled back."""
        return self._convicted

    def gate(self) -> Gate:
        """Return whether the stage may be left on evidence, and how much longer that takes."""
        return self._gate.standing(self.terms.beta, self.terms.min_dwell)

    def absolute(self) -> Absolute | None:
        """Return how both sides keep the limit, each by itself; None: none is set."""
        if self._limit is None:
            return None
        needed = -log(self.terms.alpha)
        canary, primary = (wealth.log_e for wealth in self._limits)
        broken = canary >= needed
        return Absolute(self._limit, canary, primary, broken, broken and primary >= needed)

    def standing(self) -> Standing:
        """Return all that is known, in numbers and in a sentence."""
        leading, log_e = self._leading(), self._log_e()
        quantile = THRESHOLDS[self._latency.threshold()]
        if self._bounds is None:
            self._bounds = ratio_bounds(self._events, self.terms.alpha)
        bound = self._bounds
        p = exp(-self._peak)
        recent, since = self._recent()
        return Standing(
            log_e=log_e,
            p=p,
            errors=Signal(self._held[ERRORS], self._errors.ratio()),
            latency=Signal(self._held[LATENCY], quantile),
            absolute=self.absolute(),
            convicted=self._convicted,
            leading=f"{LATENCY}@{quantile_name(quantile)}" if leading == LATENCY else leading,
            counts=self._counts,
            recent=recent,
            seconds=self._ticks - since,
            weights=tuple(self._events),
            ratio=bound,
            gate=self.gate(),
            shares=self._shares.log_e,
            shares_alarm=self._shares.log_e >= -log(SHARES_ALPHA),
            sentence=f"{self._words(leading)} ({evidence_words(log_e, p, bound[0], self.terms.errors)})",
        )

    def _recent(self) -> tuple[Counts, int]:
        mark, since = self._bad_onset.since(self._errors.leader())
        return self._counts.minus(mark), since

    def _words(self, leading: str) -> str:
        weight, clients = next(reversed(self._events), 0.0), self.terms.sticky
        if leading == LIMIT and self._limit is not None:
            return limit_words(self._counts, self._limit)
        if leading == LATENCY:
            leader = self._latency.leader()
            number = self._latency.numbers[leader]
            mark, since = self._slow_onset.since(leader)
            above = _difference(self._slow[number], mark)
            words = slow_words(THRESHOLDS[number], above, clients=clients)
        else:
            recent, since = self._recent()
            words = error_words(recent, clients=clients)
        return f"{words}{place_words(weight, self._ticks - since if since else 0)}"

    # --- across a restart ---------------------------------------------------------------------------------------------
    def plain(self) -> dict[str, Any]:
        """Return the state, safe for JSON and exact."""
        return {
            "wealth": {name: wealth.plain() for name, wealth in self._wealths().items()},
            "badOnset": self._bad_onset.plain(),
            "slowOnset": self._slow_onset.plain(),
            "counts": [*self._counts],
            "slow": [[*counts] for counts in self._slow],
            "events": [[weight, *counts] for weight, counts in self._events.items()],
            "past": [[tick, *counts] for tick, counts in self._past],
            "held": {**self._held},
            "ticks": self._ticks,
            "peak": self._peak,
            "convicted": self._convicted,
            "limit": self._limit,
            "gate": self._gate.plain(),
        }

    def restore(self, plain: Mapping[str, Any]) -> None:
        """Take up a state of `plain()`. Raises ValueError: it was saved by a program that makes other bets."""
        for name, wealth in self._wealths().items():
            wealth.restore(plain["wealth"][name])
        self._bad_onset.restore(plain["badOnset"])
        self._slow_onset.restore(plain["slowOnset"])
        self._counts = Counts(*map(int, plain["counts"]))
        self._slow = [(int(a), int(b), int(c), int(d)) for a, b, c, d in plain["slow"]]
        self._bounds = None
        self._events = {float(weight): (int(canary), int(both)) for weight, canary, both in plain["events"]}
        self._ticks, self._peak = int(plain["ticks"]), float(plain["peak"])
        self._limit = None if plain["limit"] is None else float(plain["limit"])
        self._gate = StageGate(float(plain["gate"]["weight"]), self.terms.errors)
        self._gate.restore(plain["gate"])
        self._past = deque([(int(tick), Counts(*map(int, counts))) for tick, *counts in plain["past"]], _PAST)
        self._held = {signal: float(plain["held"][signal]) for signal in PARTS}
        self._convicted = bool(plain["convicted"])

    def _wealths(self) -> dict[str, Wealth]:
        canary, primary = self._limits
        return {
            ERRORS: self._errors,
            LATENCY: self._latency,
            LIMIT: self._alone,
            "limitCanary": canary,
            "limitPrimary": primary,
            "shares": self._shares,
        }


def _sum(one: Slow, other: Slow) -> Slow:
    return one[0] + other[0], one[1] + other[1], one[2] + other[2], one[3] + other[3]


def _difference(one: Slow, other: Sequence[int]) -> Slow:
    return one[0] - other[0], one[1] - other[1], one[2] - other[2], one[3] - other[3]
