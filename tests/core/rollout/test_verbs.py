"""What operators can say: everything that is not in the table is refused in a sentence and changes nothing."""

import pytest

from splitproxy.core.live import EVERYTHING, Traffic
from splitproxy.core.rollout.events import Reachable, Verb
from splitproxy.core.rollout.machine import TRANSITIONS, VERBS, from_plain, legal, to_plain, traffic
from splitproxy.core.rollout.state import ACTIVE, PHASES

GATED = {"hooks": ["confirm-rollout", "confirm-traffic-increase", "confirm-promotion"]}
STEPS = {"stepWeight": 20, "maxWeight": 60}


def stand(run_of, phase, **more):
    """Return a rollout that stands in `phase`."""
    closed = {
        "Waiting": "confirm-rollout",
        "WaitingTrafficIncrease": "confirm-traffic-increase",
        "WaitingPromotion": "confirm-promotion",
    }.get(phase)
    run = run_of(**GATED, **STEPS, bake=300.0, answers={closed: "fail"} if closed else {}, **more)
    if phase == "Initialized":
        return run
    run.begin()
    if phase == "Progressing":
        return run.tick()
    if phase == "Paused":
        return run.tick().say("pause")
    if phase == "Failed":
        return run.tick().say("abort")
    return run.until(phase)


ALL = [(verb, phase) for verb in VERBS for phase in PHASES]


@pytest.mark.parametrize(("verb", "phase"), [pair for pair in ALL if pair[1] not in VERBS[pair[0]]])
def test_a_verb_that_makes_no_sense_is_refused_and_changes_nothing(run_of, verb, phase):
    run = stand(run_of, phase)
    why = legal(run.plan, run.state, Verb(verb, "ann"))
    assert phase in why
    assert verb in why
    before = run.state
    run.say(verb)
    assert run.state == before
    assert run.records[-1].text == why


LED = {
    "start": {"Waiting", "Progressing"},
    "retry": {"Waiting", "Progressing"},
    "pause": {"Paused"},
    "resume": {"Progressing"},
    "promote": {"Progressing", "Promoting", "Baking", "Finalising"},
    "abort": {"Failed"},
    "undo": {"Failed"},
    "approve": {"Progressing", "Promoting", "Paused"},
    "deny": {"Waiting", "Progressing", "WaitingTrafficIncrease", "WaitingPromotion", "Paused"},
    "set-weight": {"Paused"},
}


@pytest.mark.parametrize(("verb", "phase"), [pair for pair in ALL if pair[1] in VERBS[pair[0]]])
def test_a_verb_that_makes_sense_leads_where_it_says(run_of, verb, phase):
    run = stand(run_of, phase)
    if verb == "approve" and phase in ("Progressing", "Paused"):
        run.say("deny")
    if verb == "start" and phase == "Succeeded":
        assert "primary: v2" in legal(run.plan, run.state, Verb(verb))
        return
    assert legal(run.plan, run.state, Verb(verb, weight=run.state.weight)) is None
    run.say(verb, weight=run.state.weight)
    assert run.state.phase in LED[verb]


def test_an_unknown_verb_is_refused(run_of):
    run = run_of()
    assert "there is no verb jump" in legal(run.plan, run.state, Verb("jump"))
    assert run.say("jump").state.phase == "Initialized"


def test_the_tables_know_every_phase():
    assert set(TRANSITIONS) == set(PHASES)
    assert set().union(*TRANSITIONS.values()) == set(PHASES) - {"Initialized"}
    assert VERBS["abort"] == ACTIVE


# --- promote ---------------------------------------------------------------------------------------------------------
def test_promote_takes_one_step_at_a_time(run_of):
    run = run_of(**STEPS, bake=600.0, hooks=["confirm-traffic-increase"], answers={"confirm-traffic-increase": "fail"})
    run.begin()
    seen = [run.say("promote").where for _ in range(7)]
    assert seen == [
        *(("Progressing", 20), ("Progressing", 40), ("Progressing", 60), ("Promoting", 100), ("Baking", 100)),
        *(("Finalising", 100), ("Finalising", 100)),
    ]


@pytest.mark.parametrize("phase", sorted(VERBS["promote"]))
def test_promote_fully_goes_to_the_end(run_of, phase):
    run = stand(run_of, phase).say("promote", full=True)
    assert run.where == ("Finalising", 100)
    assert run.tick().state.swapped


@pytest.mark.parametrize("phase", sorted(VERBS["promote"] - {"Baking"}))
def test_promote_fully_hands_back_now(run_of, phase):
    run = stand(run_of, phase, mode="handBack").say("promote", full=True)
    assert run.state.phase in ("Promoting", "Finalising")
    assert run.until("Succeeded").where == ("Succeeded", 0)
    assert run.asked.count("hand-back") == 1


def test_promote_ends_the_plans_pause(run_of):
    run = run_of(steps=[{"setWeight": 5}, {"pause": 0}, {"setWeight": 50}]).begin().until("Paused")
    assert run.say("promote").where == ("Progressing", 50)


@pytest.mark.parametrize("phase", ["Promoting", "Baking", "Waiting", "WaitingPromotion"])
def test_pause_and_resume_go_back_to_the_phase(run_of, phase):
    run = stand(run_of, phase)
    share = run.state.weight
    assert run.say("pause").tick(2).where == ("Paused", share / 100)
    assert run.say("resume").where == (phase, share / 100)
    assert run.state.resume == ""


@pytest.mark.parametrize("phase", ["Promoting", "Baking"])
def test_promote_while_paused_goes_on_from_there(run_of, phase):
    run = stand(run_of, phase).say("pause").say("promote")
    assert run.state.phase == {"Promoting": "Baking", "Baking": "Finalising"}[phase]


# --- set-weight ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("share", "then"),
    [(0, 20), (1, 20), (1999, 20), (3000, 40), (4500, 60), (6000, 100), (9000, 100), (EVERYTHING, 100)],
)
@pytest.mark.parametrize("verb", ["resume", "promote"])
def test_after_set_weight_it_goes_on_above(run_of, share, then, verb):
    run = run_of(**STEPS).begin().tick().say("pause").say("set-weight", weight=share)
    assert run.where == ("Paused", share / 100)
    assert traffic(run.plan, run.state).weight == share
    assert run.tick(2).where == ("Paused", share / 100)
    assert run.say(verb).where == ("Progressing" if then < 100 else "Promoting", then)
    assert run.until("Succeeded")


@pytest.mark.parametrize(("verb", "then"), [("resume", 20), ("promote", 40)])
def test_the_weight_that_it_has_already_changes_nothing(run_of, verb, then):
    run = run_of(**STEPS).begin().tick().say("pause").say("set-weight", weight=2000)
    assert (run.where, run.state.resume) == (("Paused", 20), "Progressing")
    assert run.say(verb).where == ("Progressing", then)
    assert run.tick().where == ("Progressing", then + 20)


@pytest.mark.parametrize("weights", [[0], [300, 0]])
@pytest.mark.parametrize(
    "plan",
    [
        {"iterations": 10, "cohorts": [[{}]], "ringIterations": [10]},
        {"iterations": 10, "mirror": True},
        {"steps": [{"mirror": 10, "iterations": 10}, {"setWeight": 10}]},
    ],
)
def test_a_stage_that_is_more_than_its_weight_goes_on_where_it_was(run_of, plan, weights):
    run = run_of(**plan).begin().tick(3).say("pause")
    for weight in weights:
        run.say("set-weight", weight=weight)
    assert (run.say("resume").where, run.state.step, run.state.passes) == (("Progressing", 0), 0, 2)


def test_resume_needs_a_canary_that_can_be_reached_where_its_share_grows(run_of):
    run = run_of(steps=[{"setWeight": 5, "pause": 0}, {"setWeight": 90}]).begin().until("Paused")
    run.send(Reachable(canary=False))
    assert "cannot be reached" in legal(run.plan, run.state, Verb("resume"))
    assert run.say("resume").where == ("Paused", 5)
    run = run_of(**STEPS).begin().tick().say("pause").send(Reachable(canary=False))
    assert run.say("resume").where == ("Progressing", 20)


@pytest.mark.parametrize("ends", [True, False])
def test_a_resume_is_not_lost_while_its_gate_is_asked(run_of, ends):
    steps = [{"setWeight": 5, "pause": 0}, {"setWeight": 50}]
    run = run_of(steps=steps, hooks=["confirm-traffic-increase"]).begin().until("Paused")
    run.step(Verb("resume", "ann"))
    run.state = from_plain(to_plain(run.state)).loaded()
    run.answers["confirm-traffic-increase"] = "pass" if ends else "fail"
    assert run.tick().where == (("Progressing", 50) if ends else ("WaitingTrafficIncrease", 5))


def test_what_has_not_begun_has_no_weight_to_set(run_of):
    run = stand(run_of, "Waiting").say("pause")
    assert "has not begun" in legal(run.plan, run.state, Verb("set-weight", weight=500))


def test_promote_takes_the_next_step_of_the_return(run_of):
    run = run_of(stepWeights=[50], stepWeightPromotion=20, mode="handBack", answers={"hand-back": "hold"})
    run.begin().until("Promoting").take()
    run.answers["hand-back"] = "pass"
    assert run.say("promote").state.handed_back
    run.send(Reachable(canary=True))
    assert [run.say("promote").where for _ in range(4)] == [
        *(("Promoting", 30), ("Promoting", 10), ("Promoting", 0), ("Finalising", 0)),
    ]


def test_a_weight_set_by_hand_in_the_plans_pause_stays_until_resumed(run_of):
    run = run_of(steps=[{"setWeight": 5}, {"pause": 60}, {"setWeight": 50}]).begin().until("Paused")
    assert run.say("set-weight", weight=800).tick(5).where == ("Paused", 8)
    assert run.say("resume").where == ("Progressing", 50)


@pytest.mark.parametrize("weight", [-1, EVERYTHING + 1])
def test_a_weight_that_is_none_is_refused(run_of, weight):
    run = stand(run_of, "Paused")
    assert "between 0 % and 100 %" in legal(run.plan, run.state, Verb("set-weight", weight=weight))


def test_failed_checks_bring_back_a_weight_set_by_hand(run_of):
    run = stand(run_of, "Paused", threshold=1).say("set-weight", weight=9000)
    run.checks = "F"
    assert run.tick().where == ("Failed", 0)
    assert traffic(run.plan, run.state) == Traffic()


# --- what stands in the way ------------------------------------------------------------------------------------------
def test_promote_needs_a_canary_that_can_be_reached(run_of):
    run = stand(run_of, "Progressing").send(Reachable(canary=False))
    assert "cannot be reached" in legal(run.plan, run.state, Verb("promote"))
    run.say("pause")
    assert legal(run.plan, run.state, Verb("set-weight", weight=0)) is None
    assert "cannot be reached" in legal(run.plan, run.state, Verb("set-weight", weight=EVERYTHING))


def test_undo_needs_the_previous_primary(run_of):
    run = run_of(**STEPS).begin().until("Succeeded").send(Reachable(canary=True, primary=False))
    assert "previous primary" in legal(run.plan, run.state, Verb("undo"))


def test_after_the_update_of_the_primary_there_is_no_pause(run_of):
    run = run_of(stepWeights=[50], stepWeightPromotion=10, mode="handBack").begin().until("Promoting")
    assert "v1" in legal(run.plan, run.state, Verb("pause"))
    run.send(Reachable(canary=True, primary=False))
    assert "cannot be reached" in legal(run.plan, run.state, Verb("promote"))


def test_only_what_was_swapped_can_be_undone(run_of):
    run = run_of(stepWeights=[50], mode="handBack").begin().until("Succeeded")
    assert "v1 is the primary already" in legal(run.plan, run.state, Verb("undo"))


def test_approve_needs_a_gate_that_waits_for_it(run_of, hook_of):
    run = run_of(**STEPS, hooks=["confirm-promotion"]).begin().tick()
    assert "waits at no gate" in legal(run.plan, run.state, Verb("approve"))
    run = run_of(iterations=1, hooks=[hook_of("confirm-promotion", builtin=True)]).begin().until("WaitingPromotion")
    assert "waits at no gate" in legal(run.plan, run.say("approve").state, Verb("approve"))
    run = run_of(**STEPS, hooks=[hook_of("confirm-promotion", builtin=True)]).begin().tick().say("deny")
    assert run.say("approve").state.granted == ()
    assert "waits at no gate" in legal(run.plan, run.state, Verb("approve"))


def test_an_approval_outside_the_windows_counts_when_they_open(run_of, hook_of):
    hooks = [hook_of("confirm-traffic-increase", builtin=True)]
    run = run_of(**STEPS, hooks=hooks).begin().until("WaitingTrafficIncrease").tick(windows_open=False)
    assert run.say("approve").where == ("WaitingTrafficIncrease", 0)
    assert "was approved already" in legal(run.plan, run.state, Verb("approve"))
    assert run.tick(windows_open=False).where == ("WaitingTrafficIncrease", 0)
    assert run.tick().where == ("Progressing", 20)
