"""The comparison of one rollout: what the workers' tallies have gained goes to its evidence, and what follows is said.

A weight *epoch* is the time between two writes of the rollout's cell; workers count what was drawn in each apart. Here
it is known with which weight each was written. What a tally gains is read ten times a second, and at once when a worker
tells of a failure; latency four times a second.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Mapping
from itertools import starmap
from math import exp
from operator import sub
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from splitproxy.control.rollouts import weights
from splitproxy.core import tallies
from splitproxy.core.analysis import FAIL, INCONCLUSIVE, PASS, Verdict
from splitproxy.core.evidence import Batch, Evidence, Terms
from splitproxy.core.live import EVERYTHING, Traffic
from splitproxy.core.rollout.events import Alert, Convicted, Event
from splitproxy.core.rollout.state import State
from splitproxy.core.standing import Standing
from splitproxy.core.tallies import CANARY, PRIMARY, Aims

if TYPE_CHECKING:
    from splitproxy.control.rollouts.controller import Controller

log = logging.getLogger(__name__)

_LATENCY_SECONDS: Final = 0.25
"""Between looks at latency."""
_THRESHOLD_SECONDS: Final = 10.0
"""Between looks at where the thresholds should be."""
_EXAMPLES: Final = 5
"""Failures of each side that are kept to be shown."""
_CURVE: Final = 600
"""Points of the evidence's curve; beyond that every other one is left out."""
_MOST_CLIENTS: Final = 200_000
"""Clients that are counted once; what more of them do is left out."""
_KEPT_CLIENTS: Final = 5_000
"""Clients that a restart remembers; of more, it remembers those that failed, and leaves clients' latency out."""
_KEPT_FAILED: Final = 20_000
"""Of clients that failed a restart remembers the last ones."""

_LARGEST: Final = 700.0
"""The largest logarithm whose number is written out."""

_TOLERATED: Final = ("errors", "latency", "delay")
_FIXED: Final = (*_TOLERATED, "horizon")
"""The terms that a run keeps."""

Place = tuple[str, int]
"""A rollout's key in shared memory and an epoch."""


_Slow = tuple[list[tuple[int, int]], ...]
"""Of both sides, for each threshold: how many requests were beyond it, and how many below."""


class _Seen(NamedTuple):
    """What was taken of one worker's tally."""

    head: list[int]
    slow: _Slow


class Weighing:
    """Gathers the evidence of one rollout's runs."""

    def __init__(self, controller: Controller, saved: Mapping[str, Any]) -> None:
        """`saved` is all that was saved of the rollout beside its state."""
        self._controller = controller
        self._kept = controller.plan.terms
        """Of when the run began: what its bets are about, which an edit of the file cannot change."""
        self.thresholds: tuple[int, ...] = ()
        """In force, or to be put in force with the next epoch."""
        self.standing: Standing | None = None
        """As of the last second; None: nothing was compared yet."""
        self._epochs: dict[Place, tuple[float, tuple[int, ...]]] = {}
        """Weight, 0 to 1, and thresholds."""
        self._seen: dict[tuple[int, Place], _Seen] = {}
        self._clients: dict[int, int] = {}
        """Client -> what was counted of it, as bits; the lowest: a failure."""
        self._forgetful = False
        """Whether a restart has forgotten which clients were slow."""
        self.examples: dict[str, deque[dict[str, Any]]] = {}
        self.curve: list[tuple[float, float]] = []
        """Seconds of the rollout's clock, and the decimal logarithm of the e-value."""
        self._evidence = Evidence(controller.plan.terms)
        self._begun = -1.0
        """When the canary got its first drawn request, by the rollout's clock; below 0: it got none."""
        self._second = self._latency_at = self._thresholds_at = -1.0
        self._said: set[str] = set()
        self._drawn: set[int] = set()
        """Sides that have had requests which were drawn."""
        self._reset()
        if saved.get("weighing"):
            self._restore(saved["weighing"], counted=saved.get("counters") == controller.parts.counters)

    # --- its life ----------------------------------------------------------------------------------------------------
    def _reset(self) -> None:
        """Begin a run: nothing that was counted before it counts."""
        self._kept, self._salt = self._controller.plan.terms, self._controller.salt()
        self._evidence = Evidence(self._kept)
        self._enter(self._controller.state)
        self._epochs, self._seen, self._clients = {}, {}, {}
        self._forgetful, self._said, self._drawn = False, set(), set()
        self.examples = {"canary": deque(maxlen=_EXAMPLES), "primary": deque(maxlen=_EXAMPLES)}
        self.curve, self.standing = [], None
        self._begun = self._second = self._latency_at = -1.0

    def decided(self, before: State, after: State) -> None:
        """Follow the rollout: a run begins with nothing, a stage with a gate of its own."""
        if after.attempt != before.attempt:
            self._reset()
            return
        self._keep_terms()
        if after.stage_since != before.stage_since:
            self._enter(after)

    @property
    def terms(self) -> Terms:
        """The plan's terms, with what is tolerated as it was when the run began."""
        return self._controller.plan.terms._replace(**{name: getattr(self._kept, name) for name in _FIXED})

    def _keep_terms(self) -> None:
        """Go by edited terms, save for those that the bets were made on: another null would need other bets."""
        self._evidence.terms = self.terms
        planned = self._controller.plan.terms
        edited = any(getattr(planned, name) != getattr(self._kept, name) for name in _TOLERATED)
        if edited and "tolerate" not in self._said:
            self._said.add("tolerate")
            self._controller.telling.note("analysis.compare.tolerate was edited: it counts from the next run on")

    def _enter(self, state: State) -> None:
        least = next(
            (one.hard_min for one in self._controller.plan.metrics if one.kind == "request-success-rate"), None
        )
        limit = None if least is None else 1.0 - least / 100.0
        self._evidence.begin_stage(state.weight / EVERYTHING, limit)

    def in_force(self, place: Place, traffic: Traffic) -> None:
        """Take notice of the epoch that a write began, or that goes on."""
        if place in self._epochs or not 0 < traffic.weight < EVERYTHING or traffic.swapped:
            return
        for old in [one for one in self._epochs if (one[1] - place[1]) % tallies.PLACES == 0]:
            del self._epochs[old]  # the new one has its block
        self._epochs[place] = (traffic.weight / EVERYTHING, self.thresholds)
        for old in list(self._epochs)[: -tallies.PLACES]:
            del self._epochs[old]
        self._seen = {(slot, one): seen for (slot, one), seen in self._seen.items() if one in self._epochs}

    @property
    def on(self) -> bool:
        """Whether sides are compared at present: a canary, and a primary that is still the old version."""
        one = self._controller
        return one.plan.compare and one.active and bool(self._epochs) and not one.state.handed_back

    @property
    def drawn(self) -> bool:
        """Whether both sides have had requests that were drawn: then the comparison can tell who is to blame."""
        return self.on and self._drawn == {CANARY, PRIMARY}

    @property
    def aims(self) -> Aims:
        """What workers are to measure latency against."""
        return Aims(self.thresholds, self._kept.latency, self._kept.delay)

    # --- what was counted --------------------------------------------------------------------------------------------
    def look(self) -> None:
        """Weigh what was counted since the last look."""
        now = self._controller.clock.now()
        if not self.on or "convicted" in self._said:  # what is put to be decided on stays as it is
            return
        latency = now - self._latency_at >= _LATENCY_SECONDS
        if latency:
            self._latency_at = now
        whole = int(now) != int(self._second)
        if whole:
            self._second = now
            self._evidence.tick()
        for place, (weight, thresholds) in list(self._epochs.items()):
            self._take(place, weight, thresholds, latency=latency)
        if whole:
            self._stand(now)
        elif self._evidence.convicted:
            self.standing = self._evidence.standing()
        self._conclude()

    def heard(self, results: Iterable[list[Any]]) -> None:
        """Weigh what workers tell: failures, and clients' first slow requests."""
        if not self.on:
            return
        for key, epoch, what, side, client, request, status, outcome, bits in results:
            if (key, epoch) not in self._epochs:  # of an earlier run, or too late
                continue
            if what == "bad":
                name = ("canary", "primary")[side]
                example = {"requestId": request, "status": status or None, "outcome": outcome}
                self.examples[name].append({**example, "at": round(self._controller.clock.now(), 3)})
            if client:
                self._client(self._epochs[key, epoch][0], side, client, 1 if what == "bad" else bits << 1)
        self.look()

    def _client(self, weight: float, side: int, client: int, bits: int) -> None:
        """Count what a client did for the first time."""
        known = self._clients.get(client, 0)
        fresh = bits & ~known
        if not fresh or (not known and len(self._clients) >= _MOST_CLIENTS):
            return
        self._clients[client] = known | fresh
        canary = int(side == CANARY)
        if fresh & 1:
            self._evidence.add(
                Batch(weight, bad_canary=canary, bad_primary=1 - canary, failed_canary=0, failed_primary=0)
            )
        if fresh > 1 and not self._forgetful and not self._warming:
            count = len(tallies.QUANTILES)
            first = tuple((canary, 1) if fresh >> place + 1 & 1 else (0, 0) for place in range(count))
            self._evidence.add(Batch(weight, first_slow=first))

    @property
    def _warming(self) -> bool:
        now = self._controller.clock.now()
        return self._begun < 0 or now - self._begun < self._controller.plan.terms.warmup

    def _take(self, place: Place, weight: float, thresholds: tuple[int, ...], *, latency: bool) -> None:
        """Weigh what one epoch's tallies have gained."""
        one, histograms = self._controller, latency and bool(thresholds)
        block = tallies.key(one.plan.name, place[1])
        found = one.parts.signals.tally(block, tallies.END if histograms else tallies.HEAD)
        stamp = tallies.stamp(place[1], self._salt)
        for slot, cells in found:
            if cells[tallies.EPOCH] != stamp:
                continue
            seen = self._seen.get((slot, place)) or _Seen([0] * tallies.HEAD, ())
            head = cells[: tallies.HEAD]
            if head != seen.head:
                self._weigh_head(weight, list(map(sub, head, seen.head)))
            slow = seen.slow
            if histograms:
                slow = _most(seen.slow, tuple(tallies.slow(cells, side, thresholds) for side in (CANARY, PRIMARY)))
                self._weigh_slow(weight, seen.slow, slow)
            self._seen[slot, place] = _Seen(head, slow)

    def _weigh_head(self, weight: float, gained: list[int]) -> None:
        drawn = gained[tallies.DRAWN : tallies.DRAWN + 2]
        finished = gained[tallies.FINISHED : tallies.FINISHED + 2]
        if any(drawn) or any(finished):
            if self._begun < 0:
                self._begun = self._controller.clock.now()
            # Of clients that no cookie of ours makes known nobody knows which are new: they only finish requests.
            self._drawn |= {side for side in (CANARY, PRIMARY) if drawn[side] or finished[side]}
        if any(drawn):
            self._evidence.routed(weight, *drawn)
        failed = gained[tallies.FAILED : tallies.FAILED + 2]
        bad = gained[tallies.BAD : tallies.BAD + 2]
        if any(finished) or any(bad):
            canary, primary = starmap(max, zip(finished, failed, strict=True))  # a worker writes one after the other
            counted = Batch(weight, canary, primary, bad[CANARY], bad[PRIMARY])
            self._evidence.add(counted._replace(failed_canary=failed[0], failed_primary=failed[1]))

    def _weigh_slow(self, weight: float, before: _Slow, now: _Slow) -> None:
        nothing = [(0, 0)] * len(tallies.QUANTILES)
        canary, primary = (
            [(a - c, b - d) for (a, b), (c, d) in zip(new, old, strict=True)]
            for new, old in zip(now, before or (nothing, nothing), strict=True)
        )
        slow = tuple((*one, *other) for one, other in zip(canary, primary, strict=True))
        if any(map(any, slow)) and not self._warming:
            self._evidence.add(Batch(weight, slow=slow))

    # --- what follows ------------------------------------------------------------------------------------------------
    def _stand(self, now: float) -> None:
        """Take stock, once a second."""
        one = self._controller
        self.standing = standing = self._evidence.standing()
        self.curve.append((round(now, 1), round(weights.decimal(standing.log_e), 3)))
        if len(self.curve) > _CURVE:
            del self.curve[1 : _CURVE // 2 : 2]
        if standing.shares_alarm and "shares" not in self._said:
            self._said.add("shares")
            text = (
                f"{one.plan.name}: the observed shares contradict the weights, so nothing here can be compared: "
                f"{standing.counts.canary} of {standing.counts.canary + standing.counts.primary} requests went to "
                f"{one.plan.canary}; no step is taken on evidence"
            )
            log.error("rollout %s", text)
            one.telling.news(Alert("error", text, "shares"))
        stage = one.plan.stages[one.state.step] if 0 <= one.state.step < len(one.plan.stages) else None
        proven = stage and one.plan.by_evidence(stage) and standing.gate.passed and not standing.shares_alarm
        if proven and not one.state.proven:
            one.asking.proven(one.state.step, standing.sentence)
        if now - self._thresholds_at >= _THRESHOLD_SECONDS:
            self.aim()

    def answered(self, event: Event) -> None:
        """Put a conviction again if it was decided on when there was nothing to roll back, and there is now."""
        if isinstance(event, Convicted):
            self._said.discard("convicted")

    def _conclude(self) -> None:
        standing = self.standing
        if self._evidence.convicted and standing is not None and "convicted" not in self._said:
            self._said.add("convicted")
            self._controller.put(Convicted(standing.sentence, tuple(self.numbers(standing).items())))

    def aim(self) -> None:
        """Set the thresholds by what the primary has done lately; what is in force stays until it is clearly off."""
        one = self._controller
        self._thresholds_at = one.clock.now()
        found = weights.thresholds(one.parts.signals, one.facts.keys.primary)
        if found and weights.apart(found, self.thresholds):
            self.thresholds = found
            if self._epochs and self.on:
                one.put_in_force()

    # --- for those who ask -------------------------------------------------------------------------------------------
    def verdict(self) -> Verdict | None:
        """Return what the comparison says, in the form of a metric's verdict; None: nothing was compared."""
        standing = self.standing
        if standing is None or not self._drawn:
            return None
        counts, alpha = standing.counts, self.terms.alpha
        outcome = FAIL if standing.convicted else PASS if standing.gate.passed else INCONCLUSIVE
        value, most = exp(min(standing.log_e, _LARGEST)), 1.0 / alpha
        seconds = round(self._controller.clock.now() - max(self._begun, 0.0), 3)
        return Verdict("comparison", outcome, value, None, most, counts.canary, seconds, None, "", standing.sentence)

    def numbers(self, standing: Standing) -> dict[str, Any]:
        """Return the numbers behind a standing, for JSON."""
        return weights.numbers(standing, self.terms, self.examples)

    def view(self) -> dict[str, Any] | None:
        """Return all there is to see of the comparison; None: nothing was compared in this run."""
        if self.standing is None or not self._drawn:
            return None
        return {**self.numbers(self.standing), "history": self.curve}

    # --- across a restart --------------------------------------------------------------------------------------------
    def saved(self) -> dict[str, Any] | None:
        """Return what a restart goes on with: evidence, and what of the tallies is in it already."""
        if not self._epochs and self.standing is None:
            return None
        known = list(self._clients.items())
        forgetful = self._forgetful or len(known) > _KEPT_CLIENTS
        if len(known) > _KEPT_CLIENTS:
            known = [(client, bits & 1) for client, bits in known if bits & 1][-_KEPT_FAILED:]
        return {
            "kept": {name: getattr(self._kept, name) for name in _FIXED},
            "evidence": self._evidence.plain(),
            "epochs": [[*place, *self._epochs[place]] for place in self._epochs],
            "seen": [[slot, *place, seen.head, seen.slow] for (slot, place), seen in self._seen.items()],
            "clients": known,
            "forgetful": forgetful,
            "examples": {side: list(some) for side, some in self.examples.items()},
            "curve": self.curve,
            "thresholds": self.thresholds,
            "begun": self._begun,
            "said": sorted(self._said - {"convicted"}),  # what follows may not have been saved with it
            "drawn": sorted(self._drawn),
        }

    def _restore(self, saved: Mapping[str, Any], *, counted: bool) -> None:
        """Take up what was saved; `counted`: by workers whose tallies are still there."""
        self._kept = self._kept._replace(**saved["kept"])
        self._evidence = Evidence(self.terms)
        self._evidence.restore(saved["evidence"])
        if counted:
            self._epochs = {(key, epoch): (weight, tuple(some)) for key, epoch, weight, some in saved["epochs"]}
            for slot, key, epoch, head, slow in saved["seen"]:
                self._seen[slot, (key, epoch)] = _Seen(head, tuple([(a, b) for a, b in side] for side in slow))
        self._forgetful = saved["forgetful"]
        self._clients = dict(saved["clients"])
        for side, some in saved["examples"].items():
            self.examples[side].extend(some)
        self.curve = [(at, value) for at, value in saved["curve"]]
        self.thresholds = tuple(saved["thresholds"])
        self._begun, self._said, self._drawn = saved["begun"], set(saved["said"]), set(saved["drawn"])
        self.standing = self._evidence.standing()


def _most(before: _Slow, now: _Slow) -> _Slow:
    """Return the larger of both counts: a request that a worker was moving when it was read is missing for a moment."""
    if not before:
        return now
    return tuple(
        [(max(a, c), max(b, d)) for (a, b), (c, d) in zip(old, new, strict=True)]
        for old, new in zip(before, now, strict=True)
    )
