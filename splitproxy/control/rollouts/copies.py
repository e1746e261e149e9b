"""The comparison of one rollout's copies: what workers have counted and told of pairs goes to its evidence.

Counts are read ten times a second, as is all that may end a rollout; how answers differ, workers tell as it happens.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import exp, log
from operator import sub
from typing import TYPE_CHECKING, Any, Final

from splitproxy.control.rollouts.clock import iso, wall
from splitproxy.core import pairs
from splitproxy.core.pair_evidence import PairEvidence, PairStanding
from splitproxy.core.pairs import FACTORS
from splitproxy.core.rollout.events import Alert, Convicted
from splitproxy.core.rollout.state import State

if TYPE_CHECKING:
    from splitproxy.control.rollouts.controller import Controller

_LARGEST: Final = 600.0
"""The largest logarithm whose number is written out."""


class Copies:
    """Gathers what the copies of one rollout's runs say."""

    def __init__(self, controller: Controller, saved: Mapping[str, Any]) -> None:
        """`saved` is all that was saved of the rollout beside its state."""
        self._controller = controller
        self._reset()
        if saved.get("copies"):
            self._restore(saved["copies"], counted=saved.get("counters") == controller.parts.counters)

    def _reset(self) -> None:
        """Begin a run: nothing that was counted before it counts."""
        self._evidence = PairEvidence(self._controller.plan.copies)
        self._seen: dict[str, list[int]] = {}
        """A rollout's key in shared memory -> what was taken of its pairs."""
        self._begun = self._second = -1.0
        """When there was the first copy, and the last look of a second, by the rollout's clock."""
        self._no_events = self._lost = 0
        self._convicted = self._remarked = False

    def decided(self, before: State, after: State) -> None:
        """Follow the rollout: each run begins with nothing."""
        if after.attempt != before.attempt:
            self._reset()

    @property
    def on(self) -> bool:
        """Whether requests are copied at present, and answers to be compared."""
        one = self._controller
        return one.plan.compare and one.active and one.traffic.mirror > 0

    @property
    def reference(self) -> str:
        """The upstream that the canary is compared with."""
        return self._controller.plan.copies.twin or self._controller.plan.primary

    # --- what comes in -----------------------------------------------------------------------------------------------
    def look(self) -> None:
        """Weigh what was counted since the last look."""
        if not self.on:
            return
        now = self._controller.clock.now()
        if int(now) != int(self._second):
            self._second = now
            self._evidence.tick()
        for live in dict.fromkeys(plain["liveKey"] for plain in self._controller.served):
            cells = self._controller.parts.signals.add_up([pairs.key(live)], 0, pairs.END)
            gained = list(map(sub, cells, self._seen.setdefault(live, cells)))
            self._seen[live] = cells
            if any(gained):
                self._take(gained, now)

    def _take(self, gained: list[int], now: float) -> None:
        if self._begun < 0:
            self._begun = now
        self._no_events += gained[pairs.NO_EVENT]
        self._lost += gained[pairs.LOST]
        self._evidence.count(gained, latency=now - self._begun >= self._controller.plan.copies.warmup)
        self._conclude()
        if not (self._convicted or self._remarked):
            self._remark()

    def heard(self, message: Mapping[str, Any]) -> None:
        """Weigh how the answers of a pair differ; one of another run says nothing of this one."""
        if self.on and message["run"] == self._controller.salt():
            example = {"requestId": message["request"], "at": iso(wall()), "statuses": message["statuses"]}
            self._evidence.sample(message["rule"], message["differences"], example)
            self._conclude()

    def _conclude(self) -> None:
        if self._convicted:
            return
        standing = self._standing()
        if standing.convicted:
            self._convicted = True
            numbers = {"leading": standing.leading, "e": exp(min(standing.log_e, _LARGEST)), "p": standing.p}
            self._controller.put(Convicted(standing.sentence, tuple((self._counts() | numbers).items())))

    def _remark(self) -> None:
        """Tell people, once in a run, in what the canary mostly differs where nothing follows from it."""
        fields = self._evidence.remarkable()
        if fields:
            self._remarked = True
            one = self._controller
            why = "bodies are to be reported" if one.plan.copies.twin else "without a noise twin this is only reported"
            text = f"{one.plan.canary} answers copies unlike {self.reference} in {fields}; {why}"
            one.telling.note(text)
            one.telling.news(Alert("warn", f"{one.plan.name}: {text}", "copies"))

    def _standing(self) -> PairStanding:
        return self._evidence.standing(self._controller.plan.canary, self.reference)

    # --- for those who ask -------------------------------------------------------------------------------------------
    def _counts(self) -> dict[str, Any]:
        evidence = self._evidence
        return {
            "pairs": evidence.pairs,
            "bothBad": evidence.both_bad,
            "canaryOnlyBad": evidence.canary_bad,
            "referenceOnlyBad": evidence.reference_bad,
            "reference": self.reference,
        }

    def view(self) -> dict[str, Any] | None:
        """Return all there is to see of the comparison; None: nothing was copied in this run."""
        if self._begun < 0:
            return None
        evidence, standing = self._evidence, self._standing()
        return {
            **self._counts(),
            "noEvents": self._no_events,
            "compared": evidence.compared,
            "lost": self._lost,
            "slower": [
                {"factor": factor, "canary": mine, "reference": its}
                for factor, (mine, its) in zip(FACTORS, evidence.slower, strict=True)
            ],
            "logE": round(standing.log_e / log(10), 3),
            "p": standing.p,
            "alpha": self._controller.plan.copies.alpha,
            "leading": standing.leading,
            "convicted": self._convicted,
            "sentence": standing.sentence,
            "fields": evidence.fields(),
            "untracked": evidence.untracked,
        }

    # --- across a restart --------------------------------------------------------------------------------------------
    def saved(self) -> dict[str, Any] | None:
        """Return what a restart goes on with: evidence, and what of the counts is in it already."""
        if self._begun < 0:
            return None
        return {
            "evidence": self._evidence.plain(),
            "seen": self._seen,
            "begun": self._begun,
            "counts": [self._no_events, self._lost],
            "convicted": self._convicted,
            "remarked": self._remarked,
        }

    def _restore(self, saved: Mapping[str, Any], *, counted: bool) -> None:
        """Take up what was saved; `counted`: by workers whose counters are still there."""
        self._evidence.restore(saved["evidence"])
        self._seen = dict(saved["seen"]) if counted else {}
        self._begun, self._convicted, self._remarked = saved["begun"], saved["convicted"], saved["remarked"]
        self._no_events, self._lost = saved["counts"]
