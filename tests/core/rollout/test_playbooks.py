"""Whole releases: what comes in, where the rollout stands after it, and what it asked for."""

import pytest

from splitproxy.core.live import Traffic
from splitproxy.core.rollout.events import Adopted, Alert, Begin, Breached, Checked, Reachable, Tick
from splitproxy.core.rollout.machine import advance, iterations, stage_plan, traffic
from splitproxy.core.rollout.plan import UNITS
from splitproxy.core.rollout.state import State

STEPS = {"stepWeight": 20, "maxWeight": 60}


def shares(run, ticks):
    """Return (phase, share) after each tick."""
    return [run.tick().where for _ in range(ticks)]


# --- stages ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("analysis", "stages"),
    [
        ({"stepWeight": 30}, ["30", "60", "90", "100"]),
        ({"stepWeight": 20, "maxWeight": 50}, ["20", "40", "50"]),
        ({"stepWeights": [0.01, 0.5, 50]}, ["0.01", "0.5", "50"]),
        ({"stepWeights": [10, 60, 80], "maxWeight": 50}, ["10", "50"]),
        ({"mirror": True, "mirrorWeight": 25, "stepWeights": [10]}, ["0 M25", "10"]),
        ({"mirror": True, "iterations": 4}, ["0 M100 x4", "100"]),
        ({"iterations": 2, "cohorts": [[{}]], "ringIterations": [2]}, ["0 C1 x2"]),
        ({"stepWeights": [10, 50], "cohorts": [[{}]], "ringIterations": [0]}, ["10 C1", "50 C1"]),
        ({"stepWeights": [10], "cohorts": [[{}], [{}]], "ringIterations": [3, 1]}, ["0 C1 x3", "0 C2", "10 C2"]),
        ({"steps": [{"mirror": 50}, {"setWeight": 5}, {"pause": 0}, {"setWeight": 9}]}, ["0 M50", "5", "5 P0", "9"]),
        ({"steps": [{"setWeight": 5, "hold": 120, "iterations": 2}]}, ["5 x2 H120"]),
        ({"skipAnalysis": True}, []),
    ],
)
def test_an_analysis_becomes_stages(plan_of, analysis, stages):
    plan = plan_of(**analysis)
    assert [words(stage) for stage in plan.stages] == stages
    assert [view["weight"] for view in stage_plan(plan)] == [stage.weight / 100 for stage in plan.stages]


def words(stage):
    parts = [f"{stage.weight / 100:g}"]
    parts += [f"C{stage.cohorts}"] if stage.cohorts else []
    parts += [f"M{stage.mirror // 100}"] if stage.mirror else []
    parts += [f"x{stage.checks}"] if stage.checks != 1 else []
    parts += [f"H{stage.hold:g}"] if stage.hold else []
    parts += [f"P{stage.pause:g}"] if stage.pause is not None else []
    return " ".join(parts)


# --- canary ----------------------------------------------------------------------------------------------------------
def test_a_canary_takes_over(run_of):
    run = run_of(**STEPS, bake=120.0).begin()
    assert run.where == ("Progressing", 0)
    assert shares(run, 8) == [
        *(("Progressing", 20), ("Progressing", 40), ("Progressing", 60), ("Promoting", 100), ("Baking", 100)),
        *(("Baking", 100), ("Finalising", 100), ("Succeeded", 100)),
    ]
    assert run.take() == ["measure"] * 6
    assert run.state.promoted == "r1"
    assert traffic(run.plan, run.state) == Traffic(UNITS, 0, 0, True)
    assert "primary: v2" in run.alerts[-1].text


def test_the_share_grows_to_everything_by_the_promotions_own_step(run_of):
    run = run_of(stepWeights=[50], stepWeightPromotion=20).begin().until("Promoting")
    assert run.where == ("Promoting", 70)
    run.checks = "I"
    assert run.tick().where == ("Promoting", 70)
    run.checks = "S"
    assert shares(run, 4) == [("Promoting", 90), ("Promoting", 100), ("Finalising", 100), ("Succeeded", 100)]


@pytest.mark.parametrize("phase", ["Progressing", "Promoting", "Baking"])
def test_failed_checks_bring_it_back_from_every_phase(run_of, phase):
    run = run_of(**STEPS, bake=600.0, threshold=2, hooks=["post-rollout"]).begin().tick().until(phase)
    share = run.state.weight
    run.checks = "F"
    assert run.tick().where == (phase, share / 100)
    assert run.tick().where == ("Failed", 0)
    assert run.state.failed == 2
    assert run.take()[-1] == "post-rollout"
    alert = run.alerts[-1]
    assert alert.severity == "error"
    for part in ("2 of 2 failed checks", "request-success-rate", f"{share / 100:g} %", "v1"):
        assert part in alert.text
    assert run.tick().where == ("Failed", 0)


def test_a_hard_limit_ends_it_while_a_check_is_under_way(run_of, verdict_of):
    run = run_of(**STEPS).begin().tick()
    answers = run.step(Tick())
    run.send(Breached(verdict_of("fail")))
    assert run.where == ("Failed", 0)
    state = run.state
    run.send(answers[0])
    assert run.state == state


def test_a_hard_limit_without_traffic_ends_nothing(run_of, verdict_of):
    run = run_of(**STEPS).begin()
    assert run.send(Breached(verdict_of("fail"))).where == ("Progressing", 0)


def test_inconclusive_checks_and_errors_hold_and_do_not_count(run_of):
    run = run_of(**STEPS, metrics=[{"consecutiveErrorLimit": 100}]).begin().tick()
    for letter in "IIEEIE":
        run.checks = letter
        assert run.tick().where == ("Progressing", 20)
    assert run.state.failed == 0
    run.checks = "S"
    assert run.tick().where == ("Progressing", 40)


def test_one_check_counts_once_however_many_metrics_fail(run_of):
    run = run_of(**STEPS, metrics=[{"name": "a"}, {"name": "b"}]).begin().tick()
    run.checks = "F"
    assert run.tick().state.failed == 1


def test_news_of_both_sides_failing_goes_out_once(run_of, verdict_of):
    run = run_of(**STEPS).begin().tick()
    for outcome in ("inconclusive", "inconclusive", "pass", "inconclusive"):
        (answer,) = run.step(Tick())
        run.step(Checked(answer.round, (verdict_of(outcome, reason="both sides fail"),)))
    assert [alert.key for alert in run.alerts if "both sides" in alert.text] == [
        "inconclusive:request-success-rate"
    ] * 2


def test_a_step_waits_for_its_time_and_its_checks(run_of):
    run = run_of(steps=[{"setWeight": 5, "hold": 150}, {"setWeight": 50, "iterations": 3}]).begin()
    assert [share for _, share in shares(run, 8)] == [5, 5, 5, 50, 50, 50, 100, 100]


def test_the_plans_pause_ends_by_itself(run_of):
    run = run_of(steps=[{"setWeight": 5}, {"pause": 120}, {"setWeight": 50}]).begin().tick(2)
    assert shares(run, 4) == [("Paused", 5), ("Paused", 5), ("Progressing", 50), ("Promoting", 100)]


def test_the_plans_pause_waits_for_an_operator(run_of):
    run = run_of(steps=[{"setWeight": 5}, {"pause": 0}, {"setWeight": 50}]).begin().tick(10)
    assert run.where == ("Paused", 5)
    assert run.say("resume").where == ("Progressing", 50)


def test_checks_go_on_while_paused(run_of):
    run = run_of(**STEPS, threshold=2).begin().tick()
    run.say("pause").take()
    run.tick()
    assert run.take() == ["measure"]
    run.checks = "F"
    assert run.tick(2).where == ("Failed", 0)


def test_promotion_waits_at_its_gate_for_the_windows(run_of):
    run = run_of(**STEPS, hooks=["confirm-promotion"], answers={"confirm-promotion": "fail"}).begin()
    run.until("WaitingPromotion").take()
    assert run.tick(2, windows_open=False).where == ("WaitingPromotion", 60)
    assert run.take() == ["measure"] * 2


def test_outside_the_windows_nothing_moves_forward_and_checks_go_on(run_of):
    window = [{"days": [0], "start": 0, "end": 60, "zone": "UTC"}]
    run = run_of(**STEPS, allowedWindows=window, threshold=1).begin()
    assert run.where == ("Waiting", 0)
    assert run.tick(windows_open=False).where == ("Waiting", 0)
    assert run.tick().tick().where == ("Progressing", 20)
    run.take()
    assert run.tick(3, windows_open=False).where == ("Progressing", 20)
    assert run.take() == ["measure"] * 3
    run.checks = "F"
    assert run.tick(windows_open=False).where == ("Failed", 0)


def test_a_canary_out_of_reach_does_not_start(run_of):
    run = run_of(**STEPS, progressDeadline=300.0, hooks=["pre-rollout"])
    run.send(Reachable(canary=False, detail="refused")).begin()
    assert shares(run, 5) == [("Progressing", 0)] * 5
    assert (run.take(), run.state.failed) == ([], 0)
    assert run.tick().where == ("Failed", 0)
    assert run.alerts[-1].severity == "error"


def test_a_canary_that_comes_back_goes_on(run_of):
    run = run_of(**STEPS, progressDeadline=300.0).begin().tick()
    run.send(Reachable(canary=False))
    assert run.tick(3).where == ("Progressing", 20)
    run.send(Reachable(canary=True))
    assert run.tick().where == ("Progressing", 40)
    run.send(Reachable(canary=False))
    assert run.tick(4).where == ("Progressing", 40)


def test_a_newer_revision_begins_anew(run_of):
    run = run_of(**STEPS).begin().tick(2)
    assert run.begin("r2").where == ("Progressing", 0)
    assert (run.state.attempt, run.state.revision, run.state.failed) == (2, "r2", 0)
    assert run.until("Succeeded").state.promoted == "r2"


@pytest.mark.parametrize("times", range(4))
def test_the_same_revision_starts_nothing(run_of, times):
    run = run_of(**STEPS).begin().tick(times)
    state = run.state
    assert run.begin().state == state
    run.until("Succeeded")
    state = run.state
    assert run.begin().state == state


def test_a_failed_revision_begins_again_by_an_operator_alone(run_of):
    run = run_of(**STEPS, threshold=1, checks="F").begin().until("Failed")
    assert run.begin().where == ("Failed", 0)
    run.checks = "S"
    assert run.say("retry").where == ("Progressing", 0)
    assert (run.state.attempt, run.state.failed) == (2, 0)


# --- after a swap ----------------------------------------------------------------------------------------------------
def test_after_a_swap_a_new_revision_waits_for_the_file(run_of):
    run = run_of(**STEPS).begin().until("Succeeded")
    state = run.state
    assert run.begin("r2").state == state
    assert "primary: v2" in run.records[-1].text
    run.send(Adopted())
    assert traffic(run.plan, run.state) == Traffic()
    assert run.begin("r2").where == ("Progressing", 0)


def test_undo_goes_back_at_once(run_of):
    run = run_of(**STEPS).begin().until("Succeeded").say("undo")
    assert run.where == ("Failed", 0)
    assert traffic(run.plan, run.state) == Traffic()
    assert "undone by ann" in run.state.reason


def test_adoption_without_a_revision_remembers_the_new_canary(plan_of, run_of):
    run = run_of(**STEPS, revision=None).begin("digest").until("Succeeded")
    run.upcoming = plan_of(**STEPS, revision=None)._replace(primary="v2", canary="v1", identity="other")
    run.send(Adopted())
    assert (run.plan.primary, run.state.revision, run.state.swapped) == ("v2", "other", False)


# --- handing back ----------------------------------------------------------------------------------------------------
def test_the_primary_is_updated_and_traffic_returns(run_of):
    run = run_of(stepWeights=[50], stepWeightPromotion=20, mode="handBack", bake=60.0).begin().tick()
    assert shares(run, 6) == [
        *(("Promoting", 50), ("Promoting", 30), ("Promoting", 10), ("Baking", 0), ("Finalising", 0), ("Succeeded", 0)),
    ]
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
    assert traffic(run.plan, run.state).weight == UNITS
    assert (run.alerts[-1].severity, "stays on v2" in run.alerts[-1].text) == ("error", True)
    # What would throw traffic on it is refused while it is so.
    assert run.begin("r2").where == ("Failed", 100)
    assert run.say("retry").where == ("Failed", 100)
    run.send(Reachable(canary=True, primary=True))
    assert run.begin("r2").where == ("Progressing", 0)


def test_traffic_returns_within_the_windows_alone(run_of):
    run = run_of(stepWeights=[50], mode="handBack").begin().until("Promoting").tick(3, windows_open=False)
    assert run.where == ("Promoting", 50)
    assert run.tick().where == ("Finalising", 0)


def test_who_updates_the_primary_may_need_time(run_of):
    run = run_of(stepWeights=[50], mode="handBack", threshold=1, answers={"hand-back": "hold"}).begin().tick(5)
    assert (run.where, run.state.failed) == (("Promoting", 50), 0)
    assert "because" in run.state.reason or "holds" in run.state.reason


def test_without_a_webhook_the_primary_counts_as_updated(run_of):
    run = run_of(stepWeights=[50], mode="handBack", back=False).begin().tick(2)
    assert run.state.handed_back
    assert run.tick(2).where == ("Succeeded", 0)


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


def test_after_the_update_there_is_no_way_back(run_of, verdict_of):
    run = run_of(stepWeights=[50], stepWeightPromotion=10, mode="handBack", hooks=["rollback"]).begin().tick(2)
    run.send(Breached(verdict_of("fail")))
    assert run.where == ("Promoting", 50)
    assert run.alerts[-1].key == "no-way-back"
    run.answers["rollback"] = "pass"
    assert run.until("Succeeded").where == ("Succeeded", 0)


# --- the other strategies --------------------------------------------------------------------------------------------
def test_a_cohort_is_tried_and_then_everybody(run_of):
    run = run_of(iterations=2, cohorts=[[{}]], ringIterations=[2]).begin().tick()
    assert traffic(run.plan, run.state) == Traffic(cohorts=1)
    assert iterations(run.plan, run.state) == 1
    assert shares(run, 2) == [("Progressing", 0), ("Promoting", 100)]
    assert run.state.cohorts == 0


def test_rings_then_percentages(run_of):
    run = run_of(stepWeights=[10], cohorts=[[{}], [{}]], ringIterations=[2, 1]).begin()
    seen = []
    for _ in range(5):
        run.tick()
        seen.append((run.state.cohorts, run.state.weight))
    assert seen == [(1, 0), (1, 0), (2, 0), (2, 1000), (0, UNITS)]


def test_blue_green_on_copies_then_on_everything(run_of):
    run = run_of(iterations=2, mirror=True, hooks=["confirm-promotion"]).begin().tick()
    assert traffic(run.plan, run.state) == Traffic(mirror=UNITS)
    assert shares(run, 2) == [("Progressing", 0), ("Progressing", 100)]
    run.until("Succeeded")
    assert run.take().count("confirm-promotion") == 1


def test_without_analysis_it_goes_straight_to_promotion(run_of):
    hooks = ["confirm-rollout", "pre-rollout", "rollout", "confirm-promotion"]
    run = run_of(skipAnalysis=True, hooks=["confirm-rollout", "pre-rollout", "confirm-promotion"]).begin()
    assert shares(run, 3) == [("Promoting", 100), ("Finalising", 100), ("Succeeded", 100)]
    assert run.take() == hooks[:1]


def test_a_dry_run_decides_and_moves_nothing(run_of):
    run = run_of(**STEPS, dryRun=True).begin()
    while run.state.phase != "Succeeded":
        run.tick()
        assert traffic(run.plan, run.state) == Traffic()
    assert (run.state.swapped, run.state.promoted, run.state.weight) == (False, "", 0)
    assert "would" in run.alerts[-1].text
    assert any("would send 20 %" in record.text for record in run.records)


def test_a_dry_run_leaves_the_primary_alone(run_of):
    run = run_of(**STEPS, dryRun=True, mode="handBack").begin().until("Succeeded")
    assert "hand-back" not in run.take()
    assert "would be updated" in " ".join(record.text for record in run.records)


# --- gates and hooks -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("gate", "phase", "share"),
    [
        ("confirm-rollout", "Waiting", 0),
        ("confirm-traffic-increase", "WaitingTrafficIncrease", 0),
        ("confirm-promotion", "WaitingPromotion", 60),
    ],
)
@pytest.mark.parametrize("builtin", [False, True])
def test_a_gate_is_waited_at_told_once_and_opened(run_of, hook_of, gate, phase, share, builtin):
    run = run_of(**STEPS, hooks=[hook_of(gate, builtin=builtin)], answers={gate: "fail"}).begin().until(phase)
    alerts = len(run.alerts)
    assert run.tick(3).where == (phase, share)
    assert len(run.alerts) == alerts
    assert [alert.severity for alert in run.alerts if gate in alert.text] == ["warn"]
    assert (gate in run.take()) is not builtin
    assert run.say("approve").state.phase not in (phase, "Failed")
    if gate != "confirm-traffic-increase":
        assert run.until("Succeeded")


def test_a_muted_gate_is_waited_at_in_silence(run_of, hook_of):
    hooks = [hook_of("confirm-promotion", mute=True)]
    run = run_of(**STEPS, hooks=hooks, answers={"confirm-promotion": "fail"}).begin().until("WaitingPromotion")
    assert not [alert for alert in run.alerts if alert.severity == "warn"]


def test_a_gate_can_be_approved_ahead(run_of, hook_of):
    run = run_of(**STEPS, hooks=[hook_of("confirm-promotion", builtin=True)]).begin().tick().say("approve")
    assert run.state.granted == ("confirm-promotion",)
    assert "WaitingPromotion" not in {run.tick().state.phase for _ in range(6)}
    assert run.begin("r2", by="ann").state.granted == ()


def test_a_denial_closes_the_next_gate_though_no_hook_asks(run_of):
    run = run_of(**STEPS).begin().tick().say("deny")
    assert run.tick(3).where == ("WaitingTrafficIncrease", 20)
    assert run.say("approve").where == ("Progressing", 40)
    assert run.tick().where == ("Progressing", 60)


def test_a_denial_while_the_gate_is_being_asked_counts(run_of):
    run = run_of(**STEPS, hooks=["confirm-promotion"]).begin().tick(3)
    (checked,) = run.step(Tick())
    (answer,) = run.step(checked)
    run.say("deny")
    assert run.send(answer).state.phase != "Promoting"
    assert run.tick(2).state.phase == "WaitingPromotion"


@pytest.mark.parametrize("type_", ["rollout", "pre-rollout", "confirm-promotion", "confirm-traffic-increase"])
def test_any_hook_can_ask_for_a_rollback(run_of, type_):
    run = run_of(**STEPS, hooks=[type_], answers={type_: "rollback"}).begin().until("Failed")
    assert type_ in run.state.reason
    assert "because" in run.state.reason or "asked for a rollback" in run.state.reason


def test_rollback_hooks_are_asked_in_every_phase(run_of):
    hooks = ["rollback", "confirm-rollout"]
    run = run_of(**STEPS, hooks=hooks, answers={"confirm-rollout": "fail"}).begin().tick()
    assert run.take()[-2:] == ["rollback", "confirm-rollout"]
    run.answers["rollback"] = "pass"
    assert run.tick().where == ("Failed", 0)


def test_a_hook_that_holds_stops_steps_and_not_checks(run_of):
    run = run_of(**STEPS, hooks=["rollout"], answers={"rollout": "hold"}, threshold=1).begin().tick(3)
    assert run.where == ("Progressing", 20)
    assert run.state.failed == 0
    assert run.take() == ["rollout", "measure"] * 2
    run.checks = "F"
    assert run.tick().where == ("Failed", 0)


@pytest.mark.parametrize("phase", ["Promoting", "Baking"])
def test_a_hook_that_holds_stops_promotion_too(run_of, phase):
    run = run_of(**STEPS, hooks=["rollout"], bake=60.0).begin().until(phase)
    run.answers["rollout"] = "hold"
    assert run.tick(3).where == (phase, 100)
    run.answers["rollout"] = "pass"
    assert run.tick().state.phase != phase


def test_baking_does_not_end_with_a_canary_out_of_reach(run_of):
    run = run_of(**STEPS, bake=60.0, metrics=[]).begin().until("Baking").send(Reachable(canary=False))
    assert run.tick(3).where == ("Baking", 100)
    assert run.send(Reachable(canary=True)).tick().where == ("Finalising", 100)


def test_a_rollout_hook_that_fails_is_a_failed_check(run_of):
    run = run_of(**STEPS, hooks=["rollout"], answers={"rollout": "fail"}).begin().tick(2)
    assert (run.state.failed, run.take()) == (1, ["rollout"])


def test_pre_rollout_hooks_that_fail_count_and_that_hold_do_not(run_of):
    run = run_of(**STEPS, hooks=["pre-rollout"], answers={"pre-rollout": "hold"}, threshold=2).begin().tick(3)
    assert (run.where, run.state.failed) == (("Progressing", 0), 0)
    run.answers["pre-rollout"] = "fail"
    assert run.tick(2).where == ("Failed", 0)


def test_a_late_answer_is_ignored(run_of):
    run = run_of(**STEPS, hooks=["rollout"]).begin().tick()
    (answer,) = run.step(Tick())
    run.state = run.state.loaded()
    (newer,) = run.step(Tick())
    state = run.state
    assert run.step(answer) == []
    assert run.state == state
    assert run.send(newer).where == ("Progressing", 40)


def test_a_tick_during_a_round_is_ignored(run_of):
    run = run_of(**STEPS, hooks=["rollout"]).begin().tick()
    run.step(Tick())
    state = run.state
    assert run.step(Tick()) == []
    assert run.state == state


# --- limits of single metrics: Argo's counters -----------------------------------------------------------------------
@pytest.mark.parametrize(
    ("letters", "limits", "phases"),
    [
        ("FSFSF", {"failureLimit": 2}, "PPPPF"),
        ("FFF", {"failureLimit": 3}, "PPP"),
        ("FFF", {"failureLimit": 2}, "PPF"),
        ("F", {"failureLimit": 0}, "F"),
        ("EEEEE", {}, "PPPPF"),
        ("EEEE", {}, "PPPP"),
        ("EEEESEEEEE", {}, "PPPPPPPPPF"),
        ("SEESS", {}, "PPPPP"),
        ("E", {"consecutiveErrorLimit": 0}, "F"),
        ("EEEEIEEEEE", {}, "PPPPPPPPPF"),
        ("III", {"inconclusiveLimit": 2}, "PP|"),
        ("III", {"inconclusiveLimit": 3}, "PPP"),
        ("SI", {"inconclusiveLimit": 0}, "P|"),
        ("SISIS", {"inconclusiveLimit": 1}, "PPP||"),
        ("IIIIIIII", {}, "PPPPPPPP"),
        ("FSFSFSFS", {}, "PPPPPPPP"),
    ],
)
def test_the_limits_of_a_metric_are_strict(run_of, letters, limits, phases):
    run = run_of(steps=[{"setWeight": 5, "iterations": 100}], metrics=[limits], threshold=100).begin().tick()
    short = {"Progressing": "P", "Failed": "F", "Paused": "|"}
    seen = ""
    for letter in letters:
        run.checks = letter
        seen += short[run.tick().state.phase]
    assert seen == phases


def test_after_too_many_inconclusive_checks_an_operator_goes_on(run_of):
    run = run_of(**STEPS, metrics=[{"inconclusiveLimit": 0}], checks="I").begin().tick(2)
    assert run.where == ("Paused", 20)
    run.checks = "S"
    assert run.tick(2).where == ("Paused", 20)
    assert run.say("resume").tick().where == ("Progressing", 40)


def test_inconclusive_checks_are_counted_anew_after_a_resume(run_of):
    run = run_of(**STEPS, metrics=[{"inconclusiveLimit": 1}], checks="I").begin().tick(3)
    assert run.where == ("Paused", 20)
    assert run.say("resume").tick().where == ("Progressing", 20)
    assert run.tick().where == ("Paused", 20)


# --- edits of the file -----------------------------------------------------------------------------------------------
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


# --- what it says ----------------------------------------------------------------------------------------------------
def test_every_change_of_the_share_is_recorded_with_its_numbers(run_of):
    run = run_of(**STEPS).begin().until("Succeeded")
    numbers = [dict(record.data) for record in run.records if record.kind == "weight"]
    assert [(n["before"], n["weight"]) for n in numbers] == [(0, 2000), (2000, 4000), (4000, 6000), (6000, UNITS)]


def test_an_event_that_means_nothing_changes_nothing(plan_of, verdict_of):
    plan = plan_of(**STEPS)
    for event in (Tick(), Adopted(), Breached(verdict_of("fail"))):
        assert advance(plan, State(), event, 0.0) == (State(), (), plan)


def test_alerts_name_the_rollout(run_of):
    run = run_of(**STEPS).begin().until("Succeeded")
    assert run.alerts
    assert all(isinstance(alert, Alert) and alert.text.startswith("shop: ") for alert in run.alerts)
    assert [alert.key for alert in run.alerts] == ["started:1", "promoted"]


def test_a_start_by_the_file_is_told_from_one_by_an_operator(run_of):
    run = run_of(**STEPS)
    run.send(Begin("r1", "ann"))
    assert any("started by ann" in record.text for record in run.records)
