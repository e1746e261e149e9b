"""How a run ends: everything back to the primary, or success."""

from splitproxy.core.rollout.plan import UNITS
from splitproxy.core.rollout.stages import percent
from splitproxy.core.rollout.turn import Turn


def roll_back(turn: Turn, why: str) -> None:
    """End the run with all traffic on the primary, at once.

    After a hand-back there is nothing to go back to: the primary has the new version itself. That is news, and nothing
    is moved.
    """
    state, plan = turn.state, turn.plan
    if state.handed_back:
        text = f"{why}; {plan.primary} has been updated already, so there is no older version to go back to"
        turn.hold(text)
        turn.record("rollback", text, warning=True, failed=state.failed)
        turn.alert("error", text, "no-way-back")
        return
    go = "would go" if plan.dry_run else "goes"
    text = f"{why}; {plan.canary} had {percent(state.weight)}, all traffic {go} back to {plan.primary}"
    turn.record("rollback", text, warning=True, failed=state.failed, threshold=plan.threshold, weight=state.weight)
    _fail(turn, 0, text)
    turn.alert("error", f"{text}. The revision {state.revision} is not tried again without a retry", "rolled-back")


def leave_on_canary(turn: Turn, why: str) -> None:
    """End the run with all traffic on the canary: the primary that was handed to cannot take it."""
    plan = turn.plan
    text = f"{why}; all traffic stays on {plan.canary}, the only good version"
    turn.record("rollback", text, warning=True, weight=UNITS)
    _fail(turn, UNITS, text)
    turn.alert("error", f"{text}. Repair {plan.primary}, then start the rollout again", "left-on-canary")


def succeed(turn: Turn) -> None:
    """End the run: the canary's version is promoted."""
    state, plan = turn.state, turn.plan
    swapped = plan.mode == "swap" and not plan.dry_run
    promoted = state.promoted if plan.dry_run else state.revision
    turn.share(UNITS if swapped else 0, 0, 0, "the rollout is over")
    turn.change(swapped=swapped, promoted=promoted, handed_back=False)
    _settle(turn)
    if plan.dry_run:
        text = f"{state.revision} would have been promoted; {plan.primary} keeps all traffic"
    elif swapped:
        edit = f"write primary: {plan.canary} and canary: {plan.primary} into the file"
        text = f"{state.revision} is promoted: {plan.canary} has all traffic and is the primary now; {edit}"
    else:
        text = f"{state.revision} is promoted: {plan.primary} has been updated and has all traffic"
    turn.move("Succeeded", text)
    turn.alert("info", text, "promoted")
    turn.tell("post-rollout")


def undo(turn: Turn, by: str) -> None:
    """Go back to the previous primary after a swap."""
    plan, state = turn.plan, turn.state
    text = f"undone by {by}: all traffic goes back from {plan.canary} to {plan.primary}"
    turn.record("rollback", text, warning=True)
    turn.change(swapped=False, promoted="" if state.promoted == state.revision else state.promoted)
    _fail(turn, 0, text)
    turn.alert("error", text, "undone")


def deadline(turn: Turn) -> bool:
    """End the run if an upstream has been out of reach for too long; return whether it ended."""
    state, limit = turn.state, turn.plan.progress_deadline
    if not turn.active or not limit:
        return False
    if state.handed_back:
        since = max(state.primary_unreachable_since, state.phase_since)
        if turn.primary_unreachable and turn.now - since > limit:
            leave_on_canary(
                turn, f"{turn.plan.primary} could not be reached for more than {limit:g} s after its update"
            )
            return True
    elif turn.unreachable and turn.now - state.unreachable_since > limit:
        roll_back(turn, f"{turn.plan.canary} could not be reached for more than {limit:g} s")
        return True
    return False


def _fail(turn: Turn, weight: int, text: str) -> None:
    turn.share(weight, 0, 0, "the rollout has failed" if weight == 0 else "the primary cannot take it")
    _settle(turn)
    turn.move("Failed", text, warning=True)
    turn.tell("post-rollout")


def _settle(turn: Turn) -> None:
    """Let go of what belonged to the run: its round, its approvals, its waits."""
    turn.change(awaiting="", held="", resume="", granted=(), denied=False)
