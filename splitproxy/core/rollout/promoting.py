"""Promotion: the canary takes everything, or hands its version back to the primary; then the time to bake."""

from splitproxy.core.live import EVERYTHING
from splitproxy.core.rollout.ending import roll_back
from splitproxy.core.rollout.events import Answer
from splitproxy.core.rollout.stages import percent
from splitproxy.core.rollout.turn import Turn


def begin(turn: Turn) -> None:
    """Start the promotion."""
    turn.change(step=len(turn.plan.stages), passes=0, confirmed=True, stage_since=turn.now)
    if turn.plan.mode == "swap":
        turn.move("Promoting", f"{turn.plan.canary} takes over from {turn.plan.primary}")
        grow(turn)
    else:
        turn.move("Promoting", f"{turn.plan.primary} is updated to {turn.plan.version(turn.state.revision)}")
        hand_back(turn)


def grow(turn: Turn) -> None:
    """Swap: give the canary the next part of the rest, or everything at once."""
    state, plan = turn.state, turn.plan
    weight = min(EVERYTHING, state.weight + plan.promotion_step) if plan.promotion_step else EVERYTHING
    turn.share(weight, 0 if weight == EVERYTHING else state.cohorts, 0, "promotion")


def passed(turn: Turn) -> None:
    """A check passed: while the canary takes over, or, of the updated primary, while traffic returns to it."""
    if turn.state.held:
        turn.hold(turn.state.held)
    elif turn.plan.mode == "handBack":
        _returned(turn)
    elif turn.state.weight < EVERYTHING:
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
        _returned(turn)
    else:
        hand_back(turn)


def hand_back(turn: Turn) -> None:
    """Have the primary updated; a dry run leaves it alone."""
    if turn.plan.dry_run:
        version = turn.plan.version(turn.state.revision)
        finalise(turn, f"{turn.plan.primary} would be updated to {version}, and traffic would return to it")
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
        turn.change(held=f"{answer.hook or 'the hand-back'} holds{said}")
        turn.hold(turn.state.held)
    else:
        failed = state.failed + 1
        turn.change(failed=failed)
        text = f"{plan.primary} could not be updated by {answer.hook or 'the hand-back'}{said}"
        turn.record("check", text, warning=True, failed=failed, threshold=plan.threshold)
        if failed >= plan.threshold:
            roll_back(turn, f"{failed} of {plan.threshold} failed checks: {text}")
        else:
            turn.hold(f"{text}; failed checks: {failed} of {plan.threshold}")


def awaits_primary(turn: Turn) -> bool:
    """After the hand-back: return whether this check ends with waiting for the primary, or with its first traffic.

    Only what it does with that is a matter for measurements.
    """
    state, plan = turn.state, turn.plan
    if turn.primary_unreachable:
        turn.hold(f"{plan.primary} was updated and is not ready; {plan.canary} keeps {percent(state.weight)}")
    elif state.returning:
        return False
    elif state.held:
        turn.hold(state.held)
    else:
        _bring_back(turn)
    return True


def _returned(turn: Turn) -> None:
    """After the hand-back: go on after a part of the traffic that the updated primary has taken well."""
    if turn.state.returning and not turn.state.weight:
        _traffic_moved(turn)
    else:
        _bring_back(turn)


def _bring_back(turn: Turn) -> None:
    """Return the next part of the traffic to the updated primary; the check after it looks at what became of it."""
    state, plan = turn.state, turn.plan
    weight = max(0, state.weight - plan.promotion_step) if plan.promotion_step else 0
    turn.change(returning=True, stage_since=turn.now)
    turn.share(weight, 0, 0, f"traffic returns to {plan.primary}")
    turn.hold(f"traffic returns to {plan.primary}: {percent(weight)} left on {plan.canary}")


def baked(turn: Turn) -> None:
    """A check passed while baking."""
    state, plan = turn.state, turn.plan
    left = plan.bake - (turn.now - state.phase_since)
    if left > 0:
        turn.hold(f"baking for another {left:.0f} s")
    elif state.held:
        turn.hold(state.held)
    else:
        finalise(turn, f"baked for {plan.bake:g} s")


def finalise(turn: Turn, why: str) -> None:
    """Go to the last phase, with all traffic where it belongs."""
    weight = EVERYTHING if turn.plan.mode == "swap" else 0
    turn.change(step=len(turn.plan.stages), awaiting="")
    turn.share(weight, 0, 0, why)
    turn.move("Finalising", why)


def _handed_back(turn: Turn) -> None:
    # What was known of the primary was so before its update: it is not there until it is seen to be.
    now = turn.now
    turn.change(handed_back=True, awaiting="", phase_since=now, stage_since=now, primary_unreachable_since=now)
    turn.change(told=False)
    text = f"{turn.plan.primary} has been updated; traffic returns when it is ready"
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
