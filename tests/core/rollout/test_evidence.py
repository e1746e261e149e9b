"""What a rollout does when the comparison speaks."""

import pytest

from splitproxy.core.analysis import Verdict
from splitproxy.core.evidence import Terms
from splitproxy.core.rollout.events import (
    Alert,
    Ask,
    Begin,
    Breached,
    Checked,
    Convicted,
    Measure,
    Proven,
    Record,
    Tick,
    Verb,
)
from splitproxy.core.rollout.machine import advance
from splitproxy.core.rollout.state import State

SENTENCE = "errors on the canary alone: 4 of 10 requests failed"
GUILTY = Convicted(SENTENCE, (("logE", 3.2),))


class Play:
    """A rollout that is told of events."""

    def __init__(self, plan):
        self.plan, self.state, self.now, self.said = plan, State(), 0.0, []

    def put(self, event, seconds=1.0):
        self.now += seconds
        outcome = advance(self.plan, self.state, event, self.now)
        self.state, commands = outcome.state, outcome.commands
        self.said += commands
        return commands

    def check(self, seconds=1.0, **tick):
        """Let a check pass."""
        commands = self.put(Tick(**tick), seconds)
        if any(isinstance(command, Measure) for command in commands):
            verdict = Verdict("request-success-rate", "pass", 100.0, 99.0, None, 50, 1.0, 100.0, "%", "fine")
            self.put(Checked(self.state.round, (verdict,)), 0.0)

    def begin(self):
        self.put(Begin("r1"))
        while self.state.weight == 0:
            self.check()
        return self

    def records(self, kind):
        return [one for one in self.said if isinstance(one, Record) and one.kind == kind]


@pytest.fixture
def play(plan_of):
    return lambda **more: Play(plan_of(**{"stepWeights": [5, 20, 50], **more})).begin()


def by_evidence(plan_of, **more):
    plan = plan_of(stepWeights=[5, 20, 50], **more)
    return Play(plan._replace(terms=Terms(pace="evidence", min_dwell=5.0))).begin()


def test_a_conviction_ends_the_run_at_once_also_during_a_check(play):
    run = play()
    run.put(Tick())
    assert run.state.awaiting
    run.put(GUILTY)
    assert (run.state.phase, run.state.weight) == ("Failed", 0)
    assert SENTENCE in run.state.reason
    (record,) = run.records("evidence")
    assert dict(record.data) == {"logE": 3.2}


def test_a_dry_run_ends_by_what_its_copies_say(play):
    run = play(mirror=True, dryRun=True)
    run.put(GUILTY)
    assert run.state.phase == "Failed"
    assert f"{SENTENCE}; {run.plan.canary} had 5 %, all traffic would go back" in run.state.reason
    assert any(isinstance(one, Alert) and one.severity == "error" and SENTENCE in one.text for one in run.said)


def test_nobody_is_convicted_who_has_no_traffic(play, plan_of):
    waiting = Play(plan_of(stepWeights=[5]))
    waiting.put(GUILTY)
    assert waiting.state == State()
    run = play()
    run.put(Verb("abort", "somebody"))
    before = run.state
    run.put(GUILTY)
    assert run.state == before


def test_an_updated_primary_is_not_convicted_for_the_canary(play):
    run = play()
    run.state = run.state._replace(handed_back=True)
    before = run.state
    run.put(GUILTY)
    assert run.state == before


def test_a_proven_step_is_taken_with_the_next_passed_check(plan_of):
    run = by_evidence(plan_of)
    for _ in range(8):
        run.check()
    assert run.state.weight == 500, "checks alone take no step"
    assert "evidence" in run.state.reason
    run.put(Proven(0, "fine so far"))
    assert run.state.awaiting, "a check begins at once"
    verdict = Verdict("request-success-rate", "pass", 100.0, 99.0, None, 50, 1.0, 100.0, "%", "fine")
    run.put(Checked(run.state.round, (verdict,)), 0.0)
    assert run.state.weight == 2000
    assert not run.state.proven, "the next step has to be shown by itself"
    for _ in range(8):
        run.check()
    assert run.state.weight == 2000


def test_a_proven_step_is_not_taken_before_its_least_time(plan_of):
    run = by_evidence(plan_of)
    run.put(Proven(0, "fine so far"), 0.1)
    run.put(Checked(run.state.round, ()), 0.1)
    assert run.state.weight == 500
    run.check(2.0)
    assert run.state.weight == 500
    run.check(5.0)
    assert run.state.weight == 2000


def test_proof_of_another_step_or_in_another_phase_means_nothing(plan_of):
    run = by_evidence(plan_of)
    before = run.state
    run.put(Proven(1, "of the next step"))
    assert run.state == before
    run.put(Verb("pause", "somebody"))
    paused = run.state
    run.put(Proven(0, "fine so far"))
    assert run.state == paused


def test_a_failed_check_counts_whatever_is_proven(plan_of):
    run = by_evidence(plan_of, threshold=1)
    run.put(Proven(0, "fine so far"))
    verdict = Verdict("request-success-rate", "fail", 10.0, 99.0, None, 50, 1.0, 100.0, "%", "bad")
    run.put(Checked(run.state.round, (verdict,)), 0.0)
    assert run.state.phase == "Failed"


def test_the_whole_way_by_evidence(plan_of):
    run = by_evidence(plan_of)
    for step in range(3):
        run.put(Proven(step, "fine so far"), 5.0)
        run.put(Checked(run.state.round, ()), 0.1)
    for _ in range(4):
        run.check()
    assert run.state.phase == "Succeeded"


@pytest.mark.parametrize(
    ("blame", "words"), [("both", "both sides fail"), ("open", "does not blame the canary so far")]
)
def test_a_broken_limit_that_is_not_the_canarys_fault_holds(play, blame, words):
    run = play()
    verdict = Verdict("request-success-rate", "fail", 10.0, 80.0, None, 50, 1.0, None, "%", "10 % is below 80 %")
    run.put(Breached(verdict, "canary", blame))
    assert (run.state.phase, run.state.weight) == ("Progressing", 500)
    assert words in run.state.held
    assert any(isinstance(one, Alert) and one.severity == "warn" and words in one.text for one in run.said)
    for _ in range(4):
        run.check(hold=run.state.held)
    assert run.state.weight == 500, "no step forward"
    run.check()
    assert run.state.weight == 2000, "it is over"
    assert not any(isinstance(one, Ask) for one in run.said)
