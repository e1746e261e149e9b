"""Copied requests as evidence against a canary: nobody is exposed to it, and both sides answer the very same request.

Of a pair of answers of which one is bad, either may be it: if the canary is no worse, the bad one is the canary's with
probability 1/2 at most, whatever the request was. So the bets of `core/sequential.py` apply, at weight 1/2, and may be
watched all the time. With a noise twin latency and everything that differs between answers can be weighed as well: what
the twin does too is noise. Without one they are only reported, as nobody can say what of it is.
"""

from collections.abc import Mapping, Sequence
from math import exp, log
from typing import Any, Final, NamedTuple

from splitproxy.core.differences import STATUS
from splitproxy.core.pairs import (
    BOTH,
    BOTH_BAD,
    CANARY_ALONE,
    CANARY_BAD,
    COMPARED,
    FACTORS,
    LATENCY,
    PAIRS,
    REFERENCE_BAD,
    TWIN_ALONE,
)
from splitproxy.core.sequential import PAIRED, LabelBet, Schedule, log_sum

SHARE: Final = 0.75
"""The part of a rollout's alpha that is for copies, where its plan makes any. A live canary's errors weigh up to
ln(1/weight) each, those of copies ln 2: what is left to the live comparison costs it half an error."""
_FAILURES: Final = 0.7
_LATENCY: Final = 0.2
_FIELDS: Final = 0.1
"""How that part is spread over what may be wrong, where there is a noise twin. Without one failures have all of it:
originals and copies go over connections that are used in different ways, which alone makes a difference in time."""
MOST_FIELDS: Final = 100
"""Fields that are watched at the same time; the first that differ."""
_FROM_THE_START: Final = 0.75
"""The part of a stake that is bet from the start: copies are most often how a rollout begins, and soon over."""
RESERVE: Final = 0.1
"""The part of fresh starts that is kept for a rollout that takes longer than planned."""
_LARGEST: Final = 600.0
"""The largest logarithm whose number is written out."""
FAILURES: Final = "failures"
LATENCIES: Final = tuple(f"latency x{factor:g}" for factor in FACTORS)
"""What evidence may rest on, beside fields."""
_ENOUGH: Final = 50
"""Pairs compared before people are told of differences that nothing follows from."""
_NAMED: Final = 3
"""Fields that are named then."""
_UNUSED: Final = ""
"""What is kept for fields that have not differed yet."""


class Field(NamedTuple):
    """A place in which answers of a rule differ, and in which way (`core/differences.py`)."""

    rule: str
    place: str
    kind: str


class _Watched:
    """One field."""

    __slots__ = ("bet", "both", "canary", "convicted", "examples", "stake", "twin")

    def __init__(self, schedule: Schedule) -> None:
        self.canary = self.twin = self.both = 0
        self.bet = LabelBet(schedule=schedule, start_mass=_FROM_THE_START)
        self.stake = 0.0
        """Its part of what is bet on fields; 0 until canary and twin differ in it for the first time."""
        self.convicted = False
        self.examples: list[Mapping[str, Any]] = []


class PairTerms(NamedTuple):
    """What the comparison of copies keeps to."""

    alpha: float = 0.001
    """Most chance that copies have a canary rolled back that is within what is tolerated: a part of the rollout's."""
    errors: float = 1.1
    """How many times likelier a bad answer may be on the canary."""
    min_bad_events: int = 3
    """Failures of the canary alone before a verdict by failures."""
    warmup: float = 10.0
    """Seconds after the first copy for which latency is left out."""
    horizon: int = 3600
    """Seconds that the rollout is planned to take."""
    twin: str = ""
    """The upstream of the noise twin; empty: there is none."""
    bodies: str = "ignore"
    """ignore | report | act."""
    examples: int = 5
    """How many are kept of each field."""


class PairStanding(NamedTuple):
    """What copies say at a moment."""

    log_e: float
    """Of everything together."""
    p: float
    """The least that 1/e has been: a p-value that holds however often one looks."""
    convicted: bool
    leading: str
    """failures | latency x1.5 | a field's place: what weighs most."""
    sentence: str


class PairEvidence:
    """What is known from the copies of one run."""

    def __init__(self, terms: PairTerms) -> None:
        self._terms = terms
        self._schedule = schedule = Schedule(terms.horizon, RESERVE)
        self.pairs = self.both_bad = self.canary_bad = self.reference_bad = self.compared = 0
        self._failures = LabelBet(tolerated=terms.errors, schedule=schedule, start_mass=_FROM_THE_START)
        self._latency = tuple(LabelBet(schedule=schedule, start_mass=_FROM_THE_START) for _ in FACTORS)
        self.slower = [[0, 0] for _ in FACTORS]
        """For each of FACTORS how often the canary, and the reference, was slower."""
        self._fields: dict[Field, _Watched] = {}
        self._staked = 0
        self.untracked = 0
        """Differences in fields beyond MOST_FIELDS."""
        self._peak = 0.0

    # --- what comes in -----------------------------------------------------------------------------------------------
    def tick(self) -> None:
        """Let a second begin: bets start anew with a part of their stake, before its data are seen."""
        for bet in (self._failures, *self._latency, *(one.bet for one in self._fields.values() if one.stake)):
            bet.tick()

    def count(self, cells: Sequence[int], *, latency: bool) -> None:
        """Weigh what workers have counted since the last call; without `latency` while the canary is warming up."""
        self.pairs += cells[PAIRS]
        self.both_bad += cells[BOTH_BAD]
        self.canary_bad += cells[CANARY_BAD]
        self.reference_bad += cells[REFERENCE_BAD]
        self.compared += cells[COMPARED]
        both = cells[CANARY_BAD] + cells[REFERENCE_BAD]
        if both:
            self._failures.add(cells[CANARY_BAD], both, PAIRED)
        for place, bet in enumerate(self._latency if latency else ()):
            mine, its = cells[LATENCY + 2 * place], cells[LATENCY + 2 * place + 1]
            self.slower[place][0] += mine
            self.slower[place][1] += its
            if mine or its:
                bet.add(mine, mine + its, PAIRED)
        self._peak = max(self._peak, self.log_e)

    def sample(self, rule_name: str, differences: Sequence[Sequence[str]], example: Mapping[str, Any]) -> None:
        """Weigh the differences of one pair: (place, kind, who, the primary's value, the canary's, the twin's) each.

        `example` says which request it was; the values are put beside it. Differences come in an order that does not
        depend on who differs, as later fields get smaller stakes.
        """
        for place, kind, who, *values in differences:
            watched = self._watch(Field(rule_name, place, kind))
            if watched is None:
                self.untracked += 1
                continue
            setattr(watched, who, getattr(watched, who) + 1)
            if who != BOTH and self._terms.twin:
                self._bet(watched, mine=who == CANARY_ALONE)
            if who != TWIN_ALONE and len(watched.examples) < self._terms.examples:
                watched.examples.append({**example, **dict(zip(("primary", "canary", "twin"), values, strict=False))})
        self._peak = max(self._peak, self.log_e)

    def _watch(self, field: Field) -> _Watched | None:
        watched = self._fields.get(field)
        if watched is None and len(self._fields) < MOST_FIELDS:
            watched = self._fields[field] = _Watched(self._schedule)
        return watched

    def _bet(self, watched: _Watched, *, mine: bool) -> None:
        if not watched.stake:
            # The n-th field to be bet on gets 1/(n(n+1)): together 1 at most, however many there will be.
            self._staked += 1
            watched.stake = 1.0 / (self._staked * (self._staked + 1))
        watched.bet.add(int(mine), 1, PAIRED)
        watched.convicted = watched.convicted or self._field_log_e(watched) >= -log(self._terms.alpha)

    @staticmethod
    def _field_log_e(watched: _Watched) -> float:
        """Return what a field says with its own stake: of all together the chance to reach 1/a is `a` at most."""
        return log(watched.stake) + watched.bet.log_e if watched.stake else 0.0

    # --- what it says ------------------------------------------------------------------------------------------------
    def acts(self, place: str) -> bool:
        """Return whether a difference in this field may end a rollout."""
        return bool(self._terms.twin) and (place == STATUS or self._terms.bodies == "act")

    def _parts(self) -> list[tuple[str, float]]:
        """Return what each part of the stake has become, by name."""
        if not self._terms.twin:
            return [(FAILURES, self._failures.log_e)]
        parts = [(FAILURES, log(_FAILURES) + self._failures.log_e)]
        for name, bet in zip(LATENCIES, self._latency, strict=True):
            parts.append((name, log(_LATENCY / len(FACTORS)) + bet.log_e))
        rest = 1.0
        for field, one in self._fields.items():
            if one.stake and self.acts(field.place):
                rest -= one.stake
                parts.append((field.place, log(_FIELDS * one.stake) + one.bet.log_e))
        return [*parts, (_UNUSED, log(_FIELDS * rest))]

    @property
    def log_e(self) -> float:
        """The logarithm of the e-value of everything together."""
        return log_sum([log_e for _, log_e in self._parts()])

    def standing(self, canary: str, reference: str) -> PairStanding:
        """Return what the copies say; the names are those of upstreams."""
        parts = self._parts()
        total = log_sum([log_e for _, log_e in parts])
        leading = max((part for part in parts if part[0]), key=lambda part: part[1])[0]
        p = exp(-self._peak)
        text = f"copies: {self._described(leading, canary, reference)} (e-value {exp(min(total, _LARGEST)):.3g}"
        enough = leading != FAILURES or self.canary_bad >= self._terms.min_bad_events
        convicted = total >= -log(self._terms.alpha) and enough
        return PairStanding(total, p, convicted, leading, f"{text}, anytime p {p:.2g})")

    def _described(self, leading: str, canary: str, reference: str) -> str:
        of = f"of {self.pairs} pairs"
        if leading == FAILURES:
            return f"{self.canary_bad} {of} failed on {canary} alone, {self.reference_bad} on {reference} alone"
        if leading in LATENCIES:
            place = LATENCIES.index(leading)
            mine, its = self.slower[place]
            how = f" {FACTORS[place]:g} times" if place else ""
            return f"{canary} was{how} slower in {mine} {of}, {reference} in {its}"
        mine, its = (
            sum(getattr(one, who) for field, one in self._fields.items() if field.place == leading)
            for who in (CANARY_ALONE, TWIN_ALONE)
        )
        return f"{leading} differed on {canary} alone in {mine} pairs, on {reference} alone in {its}"

    def remarkable(self) -> str:
        """Return in which fields the canary mostly differs though nothing follows from it; empty: there are none.

        Something is said once enough answers were compared; the first few may all be of one kind.
        """
        if self.compared < _ENOUGH:
            return ""
        often = [
            (one.canary, field.place)
            for field, one in self._fields.items()
            if 2 * one.canary >= self.compared and not self.acts(field.place) and self.verdict(one) != "noise"
        ]
        fields = [f"{place} ({count} of {self.compared} pairs)" for count, place in sorted(often, reverse=True)]
        rest = f" and {len(fields) - _NAMED} more" if len(fields) > _NAMED else ""
        return ", ".join(fields[:_NAMED]) + rest

    def verdict(self, one: _Watched) -> str:
        """Return what is to be thought of a field: reported | regression | noise | undecided."""
        if not self._terms.twin:
            return "reported"
        if one.convicted:
            return "regression"
        return "noise" if one.both + one.twin >= one.canary else "undecided"

    def fields(self) -> list[dict[str, Any]]:
        """Return every field that was seen to differ, for JSON, those that say most first."""
        twin = bool(self._terms.twin)
        found = [
            {
                "field": field.place,
                "kind": field.kind,
                "rule": field.rule,
                "canaryOnly": one.canary,
                "twinOnly": one.twin if twin else None,
                "both": one.both if twin else None,
                "e": round(exp(min(one.bet.log_e, _LARGEST)), 3) if twin else None,
                "verdict": self.verdict(one),
                "acts": self.acts(field.place),
                "examples": list(one.examples),
            }
            for field, one in self._fields.items()
        ]
        return sorted(found, key=lambda one: (-(one["e"] or 0.0), -one["canaryOnly"], one["field"]))

    # --- across a restart --------------------------------------------------------------------------------------------
    def plain(self) -> dict[str, Any]:
        """Return the state, safe for JSON and exact."""
        return {
            "counts": [self.pairs, self.both_bad, self.canary_bad, self.reference_bad, self.compared],
            "slower": self.slower,
            "failures": self._failures.plain(),
            "latency": [bet.plain() for bet in self._latency],
            "untracked": self.untracked,
            "peak": self._peak,
            "fields": [
                {
                    "field": list(field),
                    "counts": [one.canary, one.twin, one.both],
                    "bet": one.bet.plain() if one.stake else None,
                    "stake": one.stake,
                    "convicted": one.convicted,
                    "examples": one.examples,
                }
                for field, one in self._fields.items()
            ],
        }

    def restore(self, plain: Mapping[str, Any]) -> None:
        """Take up a state of `plain()`. Raises KeyError, TypeError, ValueError: it is none."""
        self.pairs, self.both_bad, self.canary_bad, self.reference_bad, self.compared = plain["counts"]
        self.slower = [list(pair) for pair in plain["slower"]]
        self._failures.restore(plain["failures"])
        for bet, saved in zip(self._latency, plain["latency"], strict=True):
            bet.restore(saved)
        self.untracked, self._peak = plain["untracked"], plain["peak"]
        for saved in plain["fields"]:
            one = self._fields[Field(*saved["field"])] = _Watched(self._schedule)
            one.canary, one.twin, one.both = saved["counts"]
            one.stake, one.convicted, one.examples = saved["stake"], saved["convicted"], list(saved["examples"])
            if one.stake:
                one.bet.restore(saved["bet"])
                self._staked += 1
