"""Gates, webhooks, the limits of single metrics, and what a rollout says of all that."""

import pytest

from splitproxy.core.live import EVERYTHING
from splitproxy.core.rollout.events import Adopted, Alert, Begin, Breached, Reachable, Tick
from splitproxy.core.rollout.machine import advance
from splitproxy.core.rollout.state import State

STEPS = {"stepWeight": 20, "maxWeight": 60}


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


def test_a_gate_that_is_not_waited_at_cannot_be_approved(run_of, hook_of):
    run = run_of(**STEPS, hooks=[hook_of("confirm-promotion", builtin=True)]).begin().tick().say("approve")
    assert run.state.granted == ()
    assert run.until("WaitingPromotion").tick(3).where == ("WaitingPromotion", 60)


def test_an_approval_opens_the_builtin_gate_and_the_webhooks_are_asked(run_of, hook_of):
    hooks = [hook_of("confirm-promotion", name="boss", builtin=True), hook_of("confirm-promotion", name="tests")]
    run = run_of(**STEPS, hooks=hooks, answers={"confirm-promotion": "fail"}).begin().until("WaitingPromotion")
    assert "boss" in run.state.reason
    assert "confirm-promotion" not in run.take()
    assert run.say("approve").where == ("WaitingPromotion", 60)
    assert run.take() == ["confirm-promotion"]
    assert run.tick(2).where == ("WaitingPromotion", 60)
    assert "because" in run.state.reason
    run.answers["confirm-promotion"] = "pass"
    assert run.tick().where == ("Promoting", 100)
    assert run.state.granted == ()


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


# --- what it says ----------------------------------------------------------------------------------------------------
def test_every_change_of_the_share_is_recorded_with_its_numbers(run_of):
    run = run_of(**STEPS).begin().until("Succeeded")
    numbers = [dict(record.data) for record in run.records if record.kind == "weight"]
    assert [(n["before"], n["weight"]) for n in numbers] == [(0, 2000), (2000, 4000), (4000, 6000), (6000, EVERYTHING)]


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


def test_why_it_waits_stays_to_be_seen(run_of, hook_of):
    run = run_of(**STEPS, hooks=[hook_of("confirm-promotion", builtin=True)]).begin().until("WaitingPromotion")
    reason = run.state.reason
    for letter in "IFS":
        run.checks = letter
        assert run.tick().state.reason == reason
    run.say("pause")
    for letter in "SIF":
        run.checks = letter
        assert "paused at 60 % by ann" in run.tick().state.reason


@pytest.mark.parametrize("metrics", [None, []])
def test_while_nothing_moves_only_changes_are_recorded(run_of, metrics):
    run = run_of(**STEPS, hooks=["rollout", "rollback"], metrics=metrics).begin().tick(2).say("pause").tick()
    known = len(run.records)
    assert len(run.tick(100).records) == known
    if metrics is None:
        run.checks = "I"
        assert len(run.tick(100).records) == known + 1
        run.checks = "S"
        assert len(run.tick(100).records) == known + 2


def test_a_failed_check_is_always_recorded(run_of):
    run = run_of(**STEPS).begin().tick(2).say("pause").tick()
    known = len(run.records)
    for letter in "FFSS":
        run.checks = letter
        run.tick()
    assert len(run.records) == known + 3


def test_a_closed_gate_is_recorded_once(run_of):
    run = run_of(**STEPS, hooks=["confirm-promotion"], answers={"confirm-promotion": "fail"}).begin()
    known = len(run.until("WaitingPromotion").tick().records)
    assert len(run.tick(100).records) == known


def test_a_digest_is_told_by_its_first_digits(run_of):
    digest = "c2ea51a4" + 24 * "0"
    run = run_of(**STEPS, revision=None, dryRun=True)
    run.plan = run.plan._replace(identity=digest)
    run.begin(digest).until("Succeeded").say("start").say("abort")
    texts = [alert.text for alert in run.alerts] + [record.text for record in run.records]
    assert any("endpoints c2ea51a4 of v2 begins" in text for text in texts)
    assert not any(digest in text for text in texts)
    assert run.state.revision == digest
