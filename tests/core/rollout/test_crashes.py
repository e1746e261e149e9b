"""Nothing is lost, repeated or skipped by whatever is cut off: a model with kills, and random lives with crashes."""

import json
from dataclasses import dataclass
from random import Random

import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from splitproxy.core.analysis import FAIL, PASS, Verdict
from splitproxy.core.live import EVERYTHING
from splitproxy.core.rollout.events import Answer, Ask, Begin, Breached, Checked, Measure, Reachable, Tick, Verb
from splitproxy.core.rollout.machine import TRANSITIONS, VERBS, advance, from_plain, legal, to_plain, traffic
from splitproxy.core.rollout.plan import Plan, Stage
from splitproxy.core.rollout.state import ACTIVE, State

KILL_POINTS = 10_000


def stored(state):
    """Return `state` as it comes out of the store after a restart."""
    return from_plain(json.loads(json.dumps(to_plain(state)))).loaded()


# --- the stored form -------------------------------------------------------------------------------------------------
def test_a_state_comes_back_as_it_went(run_of):
    run = run_of(stepWeight=20, metrics=[{"name": "a"}, {"name": "b"}], threshold=9, checks={"a": "F", "b": "E"})
    run.begin().tick(3)
    assert from_plain(json.loads(json.dumps(to_plain(run.state)))) == run.state
    assert run.state.metrics


def test_a_newer_or_unknown_form_is_refused():
    plain = to_plain(State())
    with pytest.raises(ValueError, match="version 2"):
        from_plain({**plain, "v": 2})
    with pytest.raises(ValueError, match="unknown fields: mood"):
        from_plain({**plain, "mood": "good"})
    with pytest.raises(ValueError, match="unknown fields: mood"):
        from_plain({**plain, "metrics": {"a": {"mood": "good"}}})


# --- kills -----------------------------------------------------------------------------------------------------------
@dataclass
class World:
    """What answers: by the state alone, so that a question asked twice is answered twice alike."""

    plan: Plan
    quota: dict[int, int]
    """For each step how many failed checks the run has before it passes."""
    closed: frozenset[str]
    """Gates that stay closed until an operator speaks."""

    def answer(self, command, state):
        match command:
            case Measure(number):
                bad = state.failed < self.quota.get(state.step, 0)
                verdict = Verdict("request-success-rate", FAIL if bad else PASS, 1.0, 99.0, None, 9, 1.0, None, "%", "")
                return Checked(number, (verdict,))
            case Ask(type_, number) if type_ != "post-rollout":
                closed = type_ in self.closed or type_ == "rollback"
                return Answer(type_, number, "fail" if closed else "pass", type_)
        return None

    def operator(self, state):
        """Return what the operator says to a rollout that would wait for ever."""
        if state.phase in ("Waiting", "WaitingTrafficIncrease", "WaitingPromotion"):
            return Verb("approve", "ann")
        if state.phase == "Paused" and state.resume == "next":
            return Verb("resume", "ann")
        return None


def mark(plan, state):
    """Return what people would see of a step; how long it is waited at a gate is no part of it."""
    coarse = "Progressing" if state.phase.startswith("Waiting") and state.step >= 0 else state.phase
    if state.phase in ("Waiting", "Progressing", "WaitingTrafficIncrease") and state.step < 0:
        coarse = "Before"
    return coarse, state.attempt, state.step, traffic(plan, state), state.failed


def live(world, state, now, limit=400):
    """Run to the end; return the marks, and for each event the state before it, the event, its time and the marks."""
    plan, marks, trace = world.plan, [], []
    pending, idle = [], 0
    if state.phase == "Initialized":
        pending.append(Begin("r1"))
    for _ in range(limit):
        if not marks or marks[-1] != mark(plan, state):
            marks.append(mark(plan, state))
        if state.phase in ("Succeeded", "Failed"):
            return marks, trace
        if pending:
            event = pending.pop(0)
        elif state.handed_back and state.primary_unreachable_since >= 0:
            event = Reachable(canary=True)
        else:
            now += 60.0
            said = world.operator(state) if idle % 3 == 2 else None
            event, idle = said or Tick(), idle + 1
        trace.append((state, event, now, list(marks)))
        outcome = advance(plan, state, event, now)
        state = outcome.state
        pending += [answer for command in outcome.commands if (answer := world.answer(command, state))]
    raise AssertionError(f"no end: {state}")


def resumed(world, state, event, now, kill):
    """Return the state after a kill: `before` what `event` did was saved, or `after`, its commands being lost."""
    if kill == "after":
        state = advance(world.plan, state, event, now).state
    return stored(state)


def worlds(plan_of):
    """Yield rollouts of every kind, with what the world says to each."""
    random = Random(20)
    gates = ("confirm-rollout", "confirm-traffic-increase", "confirm-promotion")
    while True:
        strategy = random.choice(
            [
                {"stepWeights": sorted(random.sample(range(1, 100), random.randint(1, 5)))},
                {"stepWeight": random.choice([20, 30, 45]), "maxWeight": random.choice([50, 90, 100])},
                {"iterations": random.randint(1, 4), "mirror": random.random() < 0.5},
                {"iterations": 2, "cohorts": [[{}]], "ringIterations": [2]},
                {"stepWeights": [10, 50], "cohorts": [[{}], [{}]], "ringIterations": [2, 1]},
                {"stepWeights": [10, 50], "mirror": True},
                {
                    "steps": [
                        {"setWeight": 5, "hold": 150},
                        {"pause": 120},
                        {"setWeight": 40, "iterations": 2},
                        {"pause": 0},
                    ]
                },
            ]
        )
        hooks = random.sample([*gates, "pre-rollout", "rollout", "rollback", "post-rollout"], random.randint(0, 7))
        plan = plan_of(
            **strategy,
            hooks=hooks,
            threshold=random.choice([2, 3, 50]),
            mode=random.choice(["swap", "handBack"]),
            bake=random.choice([0.0, 120.0]),
            stepWeightPromotion=random.choice([0, 0, 40]),
        )
        quota = {step: random.randint(0, 3) for step in range(len(plan.stages) + 1) if random.random() < 0.3}
        for step in sorted(quota):
            quota[step] = max([quota[step], *(own for before, own in quota.items() if before < step)])
        yield World(plan, quota, frozenset(gate for gate in gates if random.random() < 0.3))


@pytest.mark.slow
def test_no_kill_loses_repeats_or_skips_a_step(plan_of):
    points, ends, source = 0, set(), worlds(plan_of)
    while points < KILL_POINTS:
        world = next(source)
        whole, trace = live(world, State(), 0.0)
        ends.add(whole[-1][0])
        for state, event, now, marks in trace:
            for kill in ("before", "after"):
                again = resumed(world, state, event, now, kill)
                rest, _ = live(world, again, now)
                seen = marks if marks[-1] != rest[0] else marks[:-1]
                assert seen + rest == whole, (world, state, event, kill)
                points += 1
    assert ends == {"Succeeded", "Failed"}


# --- random lives ----------------------------------------------------------------------------------------------------
HOOKS = ["rollback", "confirm-rollout", "pre-rollout", "rollout", "confirm-traffic-increase", "confirm-promotion"]
PLANS = [
    {"stepWeights": [5, 20, 60], "hooks": HOOKS, "bake": 120.0, "stepWeightPromotion": 25},
    {"stepWeights": [5, 20, 60], "mode": "handBack", "hooks": HOOKS, "stepWeightPromotion": 25, "bake": 60.0},
    {"iterations": 2, "mirror": True, "hooks": HOOKS[1:]},
    {"stepWeights": [10, 50], "cohorts": [[{}], [{}]], "ringIterations": [2, 1], "dryRun": True},
    {"steps": [{"setWeight": 5, "hold": 90}, {"pause": 60}, {"setWeight": 40}, {"pause": 0}], "hooks": HOOKS[2:4]},
    {"steps": [{"mirror": 5}, {"mirror": 50}, {"setWeight": 40}, {"hold": 1}, {"pause": 0}, {}, {"setWeight": 60}]},
    {"stepWeights": [10, 50], "mirror": True, "dryRun": True},
]


class Lives(RuleBasedStateMachine):
    """A rollout to which anything may happen in any order, saved and lost at any point."""

    plan_of = None

    @initialize(choice=st.sampled_from(PLANS), threshold=st.integers(1, 4))
    def set_up(self, choice, threshold):
        metric = {"failureLimit": 3, "inconclusiveLimit": 2}
        self.plan = type(self).plan_of(**choice, threshold=threshold, metrics=[metric])
        self.state, self.now, self.waiting, self.set_by_hand, self.upcoming = State(), 0.0, [], False, None

    def send(self, event, *, saved=True):
        before = self.state
        old = self.plan
        outcome = advance(old, before, event, self.now, self.upcoming)
        shrinks = outcome.state.weight < before.weight and outcome.state.phase == "Failed"
        if not (saved or shrinks):
            return
        self.state, self.plan = outcome.state, outcome.plan
        if self.plan == self.upcoming:
            self.upcoming = None
        self.check(before, outcome.state, event, edited=old.stages != self.plan.stages)
        for command in outcome.commands:
            if isinstance(command, Ask | Measure):
                self.waiting.append(command)

    def check(self, old, new, event, *, edited):
        if new.phase != old.phase and new.attempt == old.attempt:
            assert new.phase in TRANSITIONS[old.phase]
        assert new.attempt >= old.attempt
        assert new.round >= old.round
        hand = isinstance(event, Verb) and event.name in ("set-weight", "resume", "promote")
        self.set_by_hand = (self.set_by_hand or hand) and new.attempt == old.attempt
        if new.attempt == old.attempt and not self.set_by_hand:
            # What an edit does to the steps is looked at in test_edits.
            assert new.step - old.step in (0, 1) or new.step == len(self.plan.stages) or edited
            back = new.phase == "Failed" or old.handed_back
            assert new.weight >= old.weight or back
            if new.phase not in ("Promoting", "Baking", "Finalising", "Succeeded", "Failed", "Paused"):
                assert new.weight <= max(stage.weight for stage in self.plan.stages)
        if new.phase == "Failed" and old.phase != "Failed" and not new.handed_back:
            assert (new.weight, new.cohorts, new.mirror) == (0, 0, 0)

    @rule(open_=st.booleans(), after=st.sampled_from([1.0, 60.0, 700.0]))
    def tick(self, open_, after):
        self.now += after
        self.send(Tick(open_ or self.now % 2 == 0))

    @rule(revision=st.sampled_from(["r1", "r2"]), by=st.sampled_from(["", "ann"]))
    def begin(self, revision, by):
        self.send(Begin(revision, by))

    @precondition(lambda self: self.waiting)
    @rule(
        outcome=st.sampled_from(["pass"] * 6 + ["fail", "hold", "rollback", "error", "inconclusive"]),
        saved=st.booleans(),
    )
    def answer(self, outcome, saved):
        command = self.waiting.pop(0)
        if isinstance(command, Measure):
            outcome = {"hold": "inconclusive", "rollback": "fail"}.get(outcome, outcome)
            reason = f"request-success-rate {outcome}"
            verdict = Verdict("request-success-rate", outcome, 1.0, 99.0, None, 9, 1.0, None, "%", reason)
            self.send(Checked(command.round, (verdict,)), saved=saved or outcome == "pass")
        else:
            if command.type == "rollback" and outcome == "pass":
                outcome = "fail"
            outcome = {"error": "pass", "inconclusive": "pass"}.get(outcome, outcome)
            self.send(Answer(command.type, command.round, outcome, command.type), saved=saved or outcome == "pass")

    @rule(name=st.sampled_from(sorted(VERBS)), full=st.booleans(), weight=st.integers(-1, EVERYTHING + 1))
    def verb(self, name, full, weight):
        verb = Verb(name, "ann", weight, full)
        why, before = legal(self.plan, self.state, verb), self.state
        self.send(verb)
        # An edit that waited may give the step another number.
        assert (why is None) or (self.state._replace(step=before.step) == before)

    @rule(
        what=st.sampled_from(["limits", "insert", "remove", "change", "deadline"]),
        place=st.integers(0, 6),
        weight=st.sampled_from([0, 500, 4000, 6000]),
    )
    def edit(self, what, place, weight):
        base = self.upcoming or self.plan
        stages = list(base.stages)
        stage = Stage(weight, pause=None if place % 2 else 0)
        match what:
            case "limits":
                base = base._replace(threshold=base.threshold + 1)
            case "deadline":
                base = base._replace(progress_deadline=base.progress_deadline + 1)
            case "insert":
                stages.insert(place, stage)
            case "remove" if len(stages) > 1:
                del stages[place % len(stages)]
            case "change":
                stages[place % len(stages)] = stage
        self.upcoming = base._replace(stages=tuple(sorted(stages, key=lambda one: one.weight)))

    @rule(side=st.sampled_from(["canary", "primary"]))
    def breach(self, side):
        verdict = Verdict("latency", FAIL, 9.0, None, 1.0, 9, 1.0, None, "ms", "latency 9 ms is above 1 ms")
        traffic_before = self.state.weight or self.state.cohorts or self.state.mirror
        active, handed = self.state.phase in ACTIVE, self.state.handed_back
        there, returning = self.state.primary_unreachable_since < 0, self.state.returning
        self.send(Breached(verdict, side))
        if side == "primary":
            assert not returning or self.state.phase in ("Failed", "Finalising")
        elif traffic_before and active and handed:
            assert self.state.weight == 0 or not there
        elif traffic_before and active:
            assert self.state.phase == "Failed"

    @rule(canary=st.booleans(), primary=st.booleans())
    def reach(self, canary, primary):
        self.send(Reachable(canary, primary))

    @rule()
    def crash(self):
        self.state, self.waiting = stored(self.state), []

    @invariant()
    def the_traffic_is_what_the_state_says(self):
        if not hasattr(self, "state"):
            return
        state = self.state
        assert from_plain(json.loads(json.dumps(to_plain(state)))) == state
        now = traffic(self.plan, state)
        assert 0 <= now.weight <= EVERYTHING
        assert not self.plan.dry_run or now == (0, now.mirror, 0, False)
        if state.phase in ("Initialized", "Waiting"):
            assert (now.weight, now.mirror, now.cohorts) == (0, 0, 0)
        if state.phase in ACTIVE and not state.handed_back:
            assert state.failed < self.plan.threshold
        assert not state.swapped or state.phase == "Succeeded"


def test_no_life_breaks_the_rules(plan_of):
    Lives.plan_of = staticmethod(plan_of)
    run_state_machine_as_test(Lives, settings=settings(max_examples=120, stateful_step_count=40, deadline=None))
