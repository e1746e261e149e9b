"""handBack: the primary is updated, awaited, watched, and left alone again where it is no good."""

import pytest

from splitproxy.core.live import EVERYTHING
from splitproxy.core.rollout.events import Begin, Breached, Reachable, Tick, Verb
from splitproxy.core.rollout.machine import legal, traffic

BACK = {"stepWeights": [50], "mode": "handBack"}


def test_the_primary_is_updated_and_traffic_returns(run_of):
    run = run_of(stepWeights=[50], stepWeightPromotion=20, mode="handBack", bake=60.0).begin().tick()
    assert [run.tick().where for _ in range(7)] == [
        *(("Promoting", 50), ("Promoting", 30), ("Promoting", 10), ("Promoting", 0), ("Baking", 0)),
        *(("Finalising", 0), ("Succeeded", 0)),
    ]
    assert run.sides == ["canary"] + ["primary"] * 4
    assert run.take().count("hand-back") == 1
    assert (run.state.swapped, run.state.promoted) == (False, "r1")


def test_a_primary_that_cannot_be_updated_counts_and_is_asked_again(run_of):
    run = run_of(stepWeights=[50], mode="handBack", threshold=2, answers={"hand-back": "fail"}).begin().tick()
    assert run.tick().where == ("Promoting", 50)
    assert run.state.failed == 1
    assert run.tick().where == ("Failed", 0)


def test_a_primary_that_does_not_come_up_leaves_traffic_on_the_canary(run_of):
    run = run_of(stepWeights=[50], mode="handBack", progressDeadline=300.0).begin().until("Promoting")
    run.send(Reachable(canary=True, primary=False))
    assert run.tick(5).where == ("Promoting", 50)
    assert run.tick().where == ("Failed", 100)
    assert traffic(run.plan, run.state).weight == EVERYTHING
    assert (run.alerts[-1].severity, "stays on v2" in run.alerts[-1].text) == ("error", True)
    # What would throw traffic on it is refused while it is so.
    assert run.begin("r2").where == ("Failed", 100)
    assert run.say("retry").where == ("Failed", 100)
    run.send(Reachable(canary=True, primary=True))
    assert run.begin("r2").where == ("Progressing", 0)


def test_traffic_returns_within_the_windows_alone(run_of):
    run = run_of(stepWeights=[50], mode="handBack").begin().until("Promoting").tick(3, windows_open=False)
    assert run.where == ("Promoting", 50)
    assert run.tick().where == ("Promoting", 0)
    assert run.tick().where == ("Finalising", 0)


def test_who_updates_the_primary_may_need_time(run_of):
    run = run_of(stepWeights=[50], mode="handBack", threshold=1, answers={"hand-back": "hold"}).begin().tick(5)
    assert (run.where, run.state.failed) == (("Promoting", 50), 0)
    assert "because" in run.state.reason or "holds" in run.state.reason


def test_without_a_webhook_the_primary_counts_as_updated(run_of):
    run = run_of(stepWeights=[50], mode="handBack", back=False).begin().tick(2)
    assert run.state.handed_back
    assert run.tick(3).where == ("Succeeded", 0)


def test_a_revision_that_comes_while_the_primary_is_updated_waits_for_the_end(run_of):
    run = run_of(stepWeights=[50], mode="handBack").begin().until("Promoting")
    assert run.begin("r2").state.revision == "r1"
    assert "can begin after that" in run.records[-1].text
    assert run.until("Succeeded").begin("r2").where == ("Progressing", 0)


def test_baking_waits_for_the_updated_primary(run_of):
    run = run_of(stepWeights=[50], mode="handBack", bake=60.0).begin().until("Baking")
    run.send(Reachable(canary=True, primary=False))
    assert run.tick(3).where == ("Baking", 0)
    assert run.send(Reachable(canary=True)).tick().where == ("Finalising", 0)


def test_the_updated_primary_is_not_there_until_it_is_seen_to_be(run_of):
    run = run_of(**BACK).begin().tick(2)
    assert run.state.handed_back
    for _ in range(3):
        run.now += 60.0
        assert run.send(Tick()).where == ("Promoting", 50)
    assert "not ready" in run.state.reason
    assert run.send(Reachable(canary=True)).send(Tick()).where == ("Promoting", 0)


def test_a_canary_that_goes_away_does_not_hold_up_the_return(run_of):
    run = run_of(**BACK).begin().tick(2).send(Reachable(canary=False))
    assert run.until("Succeeded").where == ("Succeeded", 0)


@pytest.mark.parametrize("phase", ["Promoting", "Baking"])
@pytest.mark.parametrize(("letters", "end"), [("F", "Promoting"), ("FF", "Failed"), ("IIFIF", "Failed"), ("FIII", "-")])
def test_the_updated_primary_is_watched_and_left_when_it_fails(run_of, phase, letters, end):
    run = run_of(**BACK, bake=600.0, threshold=2).begin().until(phase)
    if phase == "Promoting":
        run.tick()
    assert run.where == (phase, 0)
    for letter in letters:
        run.checks = letter
        run.tick()
    assert run.where == (("Failed", 100) if end == "Failed" else (phase, 0))
    assert run.sides[-1] == "primary"
    if end == "Failed":
        assert "2 of 2 failed checks" in run.alerts[-1].text
        assert "stays on v2" in run.alerts[-1].text


def test_the_limit_of_a_metric_ends_the_return_too(run_of):
    run = run_of(**BACK, threshold=9, metrics=[{"failureLimit": 0, "inconclusiveLimit": 1}]).begin().tick(3)
    run.checks = "I"
    assert run.tick(3).where == ("Promoting", 0)
    assert run.alerts[-1].severity == "warn"
    run.checks = "F"
    assert run.tick().where == ("Failed", 100)


def test_the_canary_is_watched_while_the_primary_is_being_updated(run_of):
    run = run_of(**BACK, threshold=2, answers={"hand-back": "hold"}).begin().tick(2)
    assert run.take() == ["measure", "hand-back"]
    assert run.tick().take() == ["hand-back", "measure"]
    run.checks = "F"
    assert run.tick(2).where == ("Failed", 0)


@pytest.mark.parametrize("phase", ["Promoting", "Baking"])
def test_abort_leaves_the_traffic_on_the_good_version(run_of, phase):
    run = run_of(**BACK, bake=600.0).begin().tick(2).until(phase)
    assert run.state.handed_back
    assert run.say("abort").where == ("Failed", 100)
    assert traffic(run.plan, run.state).weight == EVERYTHING
    assert "aborted by ann" in run.state.reason
    assert run.send(Reachable(canary=True)).send(Begin("r2")).where == ("Progressing", 0)


def test_abort_needs_a_canary_to_leave_the_traffic_on(run_of):
    run = run_of(**BACK).begin().tick(2).send(Reachable(canary=False))
    assert "lose requests" in legal(run.plan, run.state, Verb("abort"))


def test_a_hard_limit_takes_the_rest_from_the_canary_once(run_of, verdict_of):
    run = run_of(**BACK, stepWeightPromotion=10, hooks=["rollback"]).begin().tick(3)
    assert run.where == ("Promoting", 40)
    run.send(Breached(verdict_of("fail")))
    assert run.where == ("Promoting", 0)
    assert run.alerts[-1].key == "left-canary"
    known = len(run.records)
    for _ in range(10):
        run.send(Breached(verdict_of("fail")))
    assert len(run.records) == known
    run.answers["rollback"] = "pass"
    assert run.until("Succeeded").where == ("Succeeded", 0)


def test_a_hard_limit_while_nobody_else_is_there_is_recorded_once(run_of, verdict_of):
    run = run_of(**BACK).begin().tick(2)
    for _ in range(10):
        run.send(Breached(verdict_of("fail")))
    assert run.where == ("Promoting", 50)
    assert [record.kind for record in run.records].count("rollback") == 1
    assert [alert.key for alert in run.alerts].count("no-way-back") == 1
    run.send(Reachable(canary=True)).send(Breached(verdict_of("fail")))
    assert run.where == ("Promoting", 0)


@pytest.mark.parametrize(("ticks", "end"), [(2, ("Progressing", 50)), (3, ("Promoting", 50)), (4, ("Failed", 100))])
def test_a_hard_limit_broken_by_the_updated_primary_leaves_it(run_of, verdict_of, ticks, end):
    run = run_of(stepWeights=[10, 50], stepWeightPromotion=10, mode="handBack").begin().tick(ticks)
    run.send(Breached(verdict_of("fail"), "primary"))
    assert run.where == end
