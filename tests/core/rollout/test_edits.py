"""Edits of the file during a run: what they change, when, and that no step is skipped or repeated by one."""

import pytest
from hypothesis import given, settings, strategies as st

from splitproxy.core.rollout.events import Reachable, Tick
from splitproxy.core.rollout.machine import traffic
from splitproxy.core.rollout.plan import Stage

STEPS = {"stepWeight": 20, "maxWeight": 60}


def test_an_edit_that_leaves_the_stage_alone_is_in_force_at_once(plan_of, run_of):
    run = run_of(stepWeights=[10, 30, 50]).begin().tick(2)
    run.upcoming = plan_of(stepWeights=[30, 40, 80])
    run.step(Reachable(canary=True))
    assert (run.plan.stages[-1].weight, run.state.step, run.upcoming) == (8000, 0, None)
    assert run.tick().where == ("Progressing", 40)


def test_an_edit_of_the_present_stage_waits_for_the_next(plan_of, run_of):
    run = run_of(stepWeights=[10, 30, 50]).begin().tick(2)
    run.upcoming = plan_of(stepWeights=[20, 40, 60])
    run.checks = "I"
    assert run.tick(2).where == ("Progressing", 30)
    run.checks = "S"
    assert run.tick().where == ("Progressing", 40)
    assert run.upcoming is None
    assert run.tick().where == ("Progressing", 60)


def test_an_edit_comes_into_force_at_once_where_there_is_no_stage(plan_of, run_of):
    for phase, stages in (("Waiting", 1), ("Promoting", 3)):
        run = run_of(stepWeights=[10, 20], hooks=["confirm-rollout"], answers={"confirm-rollout": "fail"}).begin()
        if phase == "Promoting":
            run.say("approve").until(phase)
        run.upcoming = plan_of(stepWeights=[10, 20, 30, 40][: stages + 1])
        run.send(Reachable(canary=True))
        assert len(run.plan.stages) == stages + 1
        assert run.state.step in (-1, stages + 1)


def test_a_newer_revision_begins_by_its_own_plan(plan_of, run_of):
    run = run_of(stepWeights=[10, 20], dryRun=True).begin().tick()
    run.upcoming = plan_of(stepWeights=[5], revision="r2")
    assert run.begin("r2").tick().where == ("Progressing", 5)
    assert not run.plan.dry_run


def test_limits_come_into_force_with_the_next_stage(plan_of, run_of):
    run = run_of(**STEPS).begin().tick()
    run.upcoming = plan_of(**STEPS, threshold=1)
    run.checks = "F"
    assert run.tick().where == ("Progressing", 20)
    run.checks = "S"
    run.tick()
    run.checks = "F"
    assert run.tick().where == ("Failed", 0)


def test_a_gate_that_opens_after_an_edit_opens_no_other(plan_of, run_of):
    hooks = ["confirm-promotion", "confirm-traffic-increase"]
    run = run_of(stepWeights=[10], hooks=hooks).begin().tick()
    (checked,) = run.step(Tick())
    (promotion,) = run.step(checked)
    run.upcoming = plan_of(stepWeights=[10, 50], hooks=hooks)
    (increase,) = run.step(promotion)
    assert (run.where, increase.type) == (("Progressing", 10), "confirm-traffic-increase")
    assert run.send(increase).where == ("Progressing", 50)


def test_a_run_keeps_its_mode_and_its_being_dry(plan_of, run_of):
    run = run_of(**STEPS, dryRun=True).begin().tick()
    run.upcoming = plan_of(**STEPS)
    run.tick()
    assert run.plan.dry_run
    run.until("Succeeded").send(Reachable(canary=True))
    assert not run.plan.dry_run


EQUAL = {"steps": [{"setWeight": 5}, {"setWeight": 50}, {"pause": 0}, {"setWeight": 60}]}
MIRRORS = {"steps": [{"mirror": 10}, {"mirror": 50}, {"setWeight": 10}]}
RINGS = {"stepWeights": [10], "cohorts": [[{}], [{}], [{}]], "ringIterations": [1, 1, 1]}


@pytest.mark.parametrize("plan", [EQUAL, MIRRORS, RINGS])
@pytest.mark.parametrize("edit", [{"threshold": 7}, {"metrics": [{"min": 98.0}]}, {"progressDeadline": 500.0}])
@pytest.mark.parametrize("ticks", [1, 2, 3, 4])
def test_an_edit_of_the_limits_skips_no_step(plan_of, run_of, plan, edit, ticks):
    run = run_of(**plan).begin().tick(ticks)
    step, phase = run.state.step, run.state.phase
    run.upcoming = plan_of(**plan, **edit)
    seen = [step]
    for _ in range(12):
        if run.state.phase == "Paused":
            assert run.state.step == 2
            run.say("resume")
        else:
            run.tick()
        if run.state.step != seen[-1]:
            seen.append(run.state.step)
    assert phase != "Succeeded"
    assert run.state.phase == "Succeeded"
    assert seen == list(range(step, len(run.plan.stages) + 1))


def test_a_harmless_edit_moves_nothing_among_equal_steps(plan_of, run_of):
    steps = [{"setWeight": 20, "hold": 1}, {"hold": 1}, {"hold": 1}, {"setWeight": 50}]
    run = run_of(steps=steps).begin().tick(3)
    run.upcoming = plan_of(steps=steps, progressDeadline=500.0)
    run.send(Reachable(canary=True))
    assert (run.state.step, run.upcoming) == (2, None)
    run.upcoming = plan_of(steps=[{"setWeight": 10}, *steps])
    assert run.send(Reachable(canary=True)).state.step == 3


def test_an_edit_of_the_present_step_keeps_the_pause_behind_it(plan_of, run_of):
    run = run_of(**EQUAL).begin().tick(2)
    run.upcoming = plan_of(steps=[{"setWeight": 5}, {"setWeight": 50, "iterations": 3}, *EQUAL["steps"][2:]])
    assert run.tick(3).where == ("Paused", 50)
    assert run.say("resume").where == ("Progressing", 60)


def test_a_plan_that_ends_below_the_present_share_pauses(plan_of, run_of):
    run = run_of(stepWeights=[10, 30, 50, 70]).begin().tick(3)
    run.upcoming = plan_of(stepWeights=[10, 30])
    assert run.tick(3).where == ("Paused", 50)
    assert "the edited plan ends below the present share: at 30 %" in run.state.reason
    assert [alert.severity for alert in run.alerts[1:]] == ["warn"]
    assert run.say("resume").where == ("Progressing", 50)
    assert run.tick().where == ("Paused", 50)
    assert run.say("set-weight", weight=1500).say("resume").where == ("Progressing", 30)
    assert run.tick().where == ("Promoting", 100)


def test_a_plan_that_ends_below_goes_on_by_a_word_or_by_another_edit(plan_of, run_of):
    run = run_of(stepWeights=[10, 50, 70], hooks=["confirm-promotion"]).begin().tick(2)
    run.upcoming = plan_of(stepWeights=[10, 30], hooks=["confirm-promotion"])
    assert run.tick().where == ("Paused", 50)
    run.upcoming = plan_of(stepWeights=[10, 50, 80])
    assert run.say("resume").tick().where == ("Progressing", 80)
    run.upcoming = plan_of(stepWeights=[10, 30])
    assert run.tick().where == ("Paused", 80)
    assert run.say("promote").where == ("Promoting", 100)


def test_an_edit_that_ends_below_stops_at_an_open_gate(plan_of, run_of):
    run = run_of(stepWeights=[10, 50], hooks=["confirm-promotion"]).begin().tick(2)
    (checked,) = run.step(Tick())
    (answer,) = run.step(checked)
    run.upcoming = plan_of(stepWeights=[10, 30], hooks=["confirm-promotion"])
    assert run.send(answer).where == ("Paused", 50)
    assert [alert.key for alert in run.alerts].count("ends-below") == 1


def test_after_an_edit_a_weight_set_by_hand_still_counts(plan_of, run_of):
    run = run_of(stepWeights=[10, 30, 50], hooks=["confirm-traffic-increase"]).begin().tick(2)
    run.answers["confirm-traffic-increase"] = "fail"
    run.say("pause").say("set-weight", weight=4000).say("resume")
    assert run.where == ("WaitingTrafficIncrease", 40)
    run.upcoming = plan_of(stepWeights=[10, 20, 30, 35, 45], hooks=["confirm-traffic-increase"])
    run.tick().answers["confirm-traffic-increase"] = "pass"
    assert run.tick().where == ("Progressing", 45)


# --- any edits -------------------------------------------------------------------------------------------------------
WEIGHTS = [0, 0, 500, 2000, 2000, 2000, 5000, 5000]


def _stage(mark, draw, weight):
    """Return a stage that is known again by its mark, the least duration."""
    mirror = draw(st.sampled_from([0, 1000])) if not weight else 0
    pause = draw(st.sampled_from([None, None, 0, 60.0]))
    checks = draw(st.integers(1, 2))
    return Stage(weight=weight, mirror=mirror, pause=pause, checks=checks, hold=mark / 1000)


def _edited(stages, draw, marks):
    """Return the stages with one of them put in, taken out or changed, growing as before."""
    place = draw(st.integers(0, len(stages)))
    what = draw(st.sampled_from(["insert", "remove", "change", "limits"]))
    if what == "limits" or (what != "insert" and (place == len(stages) or len(stages) == 1)):
        return stages
    if what == "remove":
        return stages[:place] + stages[place + 1 :]
    low = stages[place - 1].weight if place else 0
    after = stages[place + (what == "change") :]
    high = after[0].weight if after else WEIGHTS[-1]
    weight = draw(st.sampled_from([own for own in (*WEIGHTS, low) if low <= own <= high]))
    return (*stages[:place], _stage(next(marks), draw, weight), *after)


@settings(max_examples=250, deadline=None)
@given(st.data())
def test_no_step_is_skipped_or_repeated_by_any_edit(plan_of, run_of, data):
    draw, marks = data.draw, iter(range(1, 1000))
    weights = sorted(draw(st.lists(st.sampled_from(WEIGHTS), min_size=2, max_size=6)))
    run = run_of(stepWeights=[1], threshold=5)
    run.plan = run.plan._replace(stages=tuple(_stage(next(marks), draw, weight) for weight in weights))
    run.begin()
    entered, due, threshold, share = [], [stage.hold for stage in run.plan.stages], 5, 0
    edits = draw(st.dictionaries(st.integers(0, 30), st.integers(1, 2), max_size=5))
    for turn in range(120):
        if run.state.phase == "Succeeded":
            break
        for _ in range(edits.get(turn, 0)):
            base = run.upcoming or run.plan
            stages = _edited(base.stages, draw, marks)
            threshold += stages == base.stages
            run.upcoming = base._replace(stages=stages, threshold=threshold)
        edited, before, old = run.upcoming, run.state, run.plan
        _go_on(run)
        state = run.state
        assert state.weight >= share
        share = state.weight
        if state.stage_since == run.now and state.step < len(run.plan.stages):
            entered.append(run.plan.stages[state.step].hold)
            assert entered[-1] in _next_marks(old, edited or old, before.step)
        # What is in every plan stays due: what was taken out no longer is.
        due = [mark for mark in due if mark in {stage.hold for stage in (edited or run.plan).stages} or mark in entered]
    assert run.state.phase == "Succeeded"
    assert len(entered) == len(set(entered))
    assert [mark for mark in due if mark not in entered] == []
    assert traffic(run.plan, run.state).swapped


def _next_marks(old, new, step):
    """Return the marks of the stages that may come next: one, where the present one is in the new plan too."""
    marks = [stage.hold for stage in new.stages]
    if step < 0:
        return marks[:1]
    present = old.stages[step].hold
    return [marks[marks.index(present) + 1]] if present in marks else marks


def _go_on(run):
    """Tick, or say what a pause waits for."""
    if run.state.phase == "Paused" and run.state.reason.startswith("the edited plan"):
        run.now += 60.0
        run.say("promote")
    elif run.state.phase == "Paused" and run.plan.stages[run.state.step].pause == 0:
        run.now += 60.0
        run.say("resume")
    else:
        run.tick()
