"""Whole releases: what comes in, where the rollout stands after it, and what it asked for."""

import pytest

from splitproxy.core.live import EVERYTHING, Traffic
from splitproxy.core.rollout.events import Adopted, Breached, Checked, Reachable, Tick
from splitproxy.core.rollout.machine import iterations, stage_plan, traffic

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
        ({"stepWeights": [10, 60, 80], "maxWeight": 50}, ["10", "60", "80"]),
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
    assert traffic(run.plan, run.state) == Traffic(EVERYTHING, 0, 0, True)
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
    assert [alert.key for alert in run.alerts if "both sides" in alert.text] == ["both:request-success-rate"] * 2


def test_news_of_both_sides_failing_goes_out_after_any_other_doubt(run_of, verdict_of):
    run = run_of(**STEPS).begin().tick()
    for reason in ("no data", "both sides fail", "no data", "both sides fail"):
        (answer,) = run.step(Tick())
        run.step(Checked(answer.round, (verdict_of("inconclusive", reason=reason),)))
    assert [alert.text for alert in run.alerts if alert.severity == "warn"] == [
        "shop: both sides fail; it holds at 20 %"
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


@pytest.mark.parametrize("before", [True, False])
def test_a_primary_out_of_reach_holds_up_the_start(run_of, before):
    run = run_of(**STEPS, progressDeadline=300.0, hooks=["confirm-rollout", "pre-rollout"])
    gone = Reachable(canary=True, primary=False, detail="refused")
    run = run.send(gone).begin() if before else run.begin().send(gone)
    assert shares(run, 5) == [("Waiting" if before else "Progressing", 0)] * 5
    assert "v1 cannot be reached" in run.state.reason
    assert (run.take(), run.state.failed) == ([] if before else ["confirm-rollout"], 0)
    if before:
        assert run.send(Reachable(canary=True)).tick(2).where == ("Progressing", 20)
    else:
        assert run.tick().where == ("Failed", 0)
        assert "v1 keeps all traffic" in run.alerts[-1].text


def test_an_approval_counts_when_the_primary_is_there(run_of, hook_of):
    run = run_of(**STEPS, hooks=[hook_of("confirm-rollout", builtin=True)]).begin().tick()
    run.send(Reachable(canary=True, primary=False))
    assert run.say("approve").where == ("Waiting", 0)
    assert run.send(Reachable(canary=True)).tick().where == ("Progressing", 0)


def test_a_primary_that_goes_away_later_holds_nothing_up(run_of):
    run = run_of(**STEPS).begin().tick().send(Reachable(canary=True, primary=False))
    assert run.tick(12).where == ("Succeeded", 100)


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
    assert seen == [(1, 0), (1, 0), (2, 0), (2, 1000), (0, EVERYTHING)]


def test_blue_green_on_copies_then_on_everything(run_of):
    run = run_of(iterations=2, mirror=True, hooks=["confirm-promotion"]).begin().tick()
    assert traffic(run.plan, run.state) == Traffic(mirror=EVERYTHING)
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


@pytest.mark.parametrize(
    "plan", [{"iterations": 2, "mirror": True, "mirrorWeight": 25}, {**STEPS, "mirror": True, "mirrorWeight": 25}]
)
def test_a_dry_run_is_judged_by_copies_throughout(run_of, plan):
    run = run_of(**plan, dryRun=True).begin()
    while run.tick().state.phase in ("Progressing", "Promoting"):
        assert traffic(run.plan, run.state) == Traffic(mirror=2500)
    assert traffic(run.plan, run.state) == Traffic()
    assert any("sends copies of 25 %" in record.text for record in run.records)


def test_a_dry_run_leaves_the_primary_alone(run_of):
    run = run_of(**STEPS, dryRun=True, mode="handBack").begin().until("Succeeded")
    assert "hand-back" not in run.take()
    assert "would be updated" in " ".join(record.text for record in run.records)
