"""Promotion: the canary takes everything, or hands its version back to the primary; then the time to bake."""

from splitproxy.core.rollout.ending import roll_back
from splitproxy.core.rollout.events import Answer
from splitproxy.core.rollout.plan import UNITS
from splitproxy.core.rollout.stages import percent
from splitproxy.core.rollout.turn import Turn


def begin(turn: Turn) -> None:
    """Start the promotion."""
    turn.change(step=len(turn.plan.stages), passes=0, confirmed=True, stage_since=turn.now)
    if turn.plan.mode == "swap":
        turn.move("Promoting", f"{turn.plan.canary} takes over from {turn.plan.primary}")
        grow(turn)
    else:
        turn.move("Promoting", f"{turn.plan.primary} is updated to {turn.state.revision}")
        hand_back(turn)


def grow(turn: Turn) -> None:
    """Swap: give the canary the next part of the rest, or everything at once."""
    state, plan = turn.state, turn.plan
    weight = min(UNITS, state.weight + plan.promotion_step) if plan.promotion_step else UNITS
    turn.share(weight, 0 if weight == UNITS else state.cohorts, 0, "promotion")


def passed(turn: Turn) -> None:
    """Swap: a check passed while the canary takes over."""
    if turn.state.held:
        turn.hold(turn.state.held)
    elif turn.state.weight < UNITS:
        grow(turn)
        turn.hold(f"promotion at {percent(turn.state.weight)}")
    else:
        _traffic_moved(turn)


def on(turn: Turn) -> None:
    """Take the next step of the promotion without a check."""
    if turn.plan.mode == "swap":
        turn.change(held="")
        passed(turn)
    elif turn.state.handed_back:
        turn.change(held="")
        bring_back(turn)
    else:
        hand_back(turn)


def hand_back(turn: Turn) -> None:
    """Have the primary updated; a dry run leaves it alone."""
    if turn.plan.dry_run:
        finalise(turn, f"{turn.plan.primary} would be updated to {turn.state.revision}, and traffic would return to it")
    elif turn.has("hand-back"):
        turn.ask("hand-back")
    else:
        _handed_back(turn)


def answered(turn: Turn, answer: Answer) -> None:
    """Take the answer of the one who updates the primary."""
    state, plan = turn.state, turn.plan
    said = f": {answer.text}" if answer.text else ""
    if answer.outcome == "pass":
        _handed_back(turn)
    elif answer.outcome == "hold":
        turn.hold(f"{answer.hook or 'the hand-back'} holds{said}")
    else:
        failed = state.failed + 1
        turn.change(failed=failed)
        text = f"{plan.primary} could not be updated by {answer.hook or 'the hand-back'}{said}"
        turn.record("check", text, warning=True, failed=failed, threshold=plan.threshold)
        if failed >= plan.threshold:
            roll_back(turn, f"{failed} of {plan.threshold} failed checks: {text}")
        else:
            turn.hold(f"{text}; failed checks: {failed} of {plan.threshold}")


def bring_back(turn: Turn) -> None:
    """After the hand-back: return the next part of the traffic to the updated primary, once it takes connections."""
    state, plan = turn.state, turn.plan
    if turn.primary_unreachable:
        turn.hold(f"{plan.primary} was updated and cannot be reached; {plan.canary} keeps {percent(state.weight)}")
        return
    if state.held:
        turn.hold(state.held)
        return
    weight = max(0, state.weight - plan.promotion_step) if plan.promotion_step else 0
    turn.share(weight, 0, 0, f"traffic returns to {plan.primary}")
    if weight:
        turn.hold(f"traffic returns to {plan.primary}: {percent(weight)} left on {plan.canary}")
    else:
        _traffic_moved(turn)


def baked(turn: Turn) -> None:
    """A check passed while baking, or, after a hand-back, time has gone by."""
    state, plan = turn.state, turn.plan
    left = plan.bake - (turn.now - state.phase_since)
    if left > 0:
        turn.hold(f"baking for another {left:.0f} s")
    elif state.handed_back and turn.primary_unreachable:
        turn.hold(f"baked, but {plan.primary} cannot be reached")
    elif state.held:
        turn.hold(state.held)
    else:
        finalise(turn, f"baked for {plan.bake:g} s")


def finalise(turn: Turn, why: str) -> None:
    """Go to the last phase, with all traffic where it belongs."""
    weight = UNITS if turn.plan.mode == "swap" else 0
    turn.change(step=len(turn.plan.stages), awaiting="")
    turn.share(weight, 0, 0, why)
    turn.move("Finalising", why)


def _handed_back(turn: Turn) -> None:
    turn.change(handed_back=True, awaiting="", phase_since=turn.now)
    text = f"{turn.plan.primary} has been updated; traffic returns when it takes connections"
    turn.record("note", text)
    turn.hold(text)


def _traffic_moved(turn: Turn) -> None:
    plan = turn.plan
    owner = plan.canary if plan.mode == "swap" else plan.primary
    if plan.bake:
        turn.change(awaiting="")
        turn.move("Baking", f"{owner} has all traffic; it bakes for {plan.bake:g} s")
    else:
        finalise(turn, f"{owner} has all traffic")
