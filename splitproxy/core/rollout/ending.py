"""How a run ends: everything back to the primary, or success."""

from splitproxy.core.live import EVERYTHING
from splitproxy.core.rollout.stages import percent
from splitproxy.core.rollout.turn import Turn


def roll_back(turn: Turn, why: str) -> None:
    """End the run with all traffic on the primary, at once; after a hand-back, on the canary.

    A primary that has been updated has the new version itself, and the canary's is the one that was seen to be good.
    """
    state, plan = turn.state, turn.plan
    if state.handed_back:
        leave_on_canary(turn, why)
        return
    go = "would go" if plan.dry_run else "goes"
    text = f"{why}; {plan.canary} had {percent(state.weight)}, all traffic {go} back to {plan.primary}"
    if not turn.traffic:
        text = f"{why}; {plan.canary} had nothing, {plan.primary} keeps all traffic"
    turn.record("rollback", text, warning=True, failed=state.failed, threshold=plan.threshold, weight=state.weight)
    _fail(turn, 0, text)
    version = plan.version(state.revision)
    turn.alert("error", f"{text}. The revision {version} is not tried again without a retry", "rolled-back")


def leave_canary(turn: Turn, why: str) -> None:
    """After a hand-back: return what the canary still has to the updated primary at once, and go on.

    While the primary is not there, the canary keeps it all the same: that is said once.
    """
    state, plan = turn.state, turn.plan
    if not turn.primary_unreachable:
        text = f"{why}; {plan.canary} had {percent(state.weight)}, all traffic goes to {plan.primary}, which is updated"
        turn.record("rollback", text, warning=True, failed=state.failed, weight=state.weight)
        turn.share(0, 0, 0, why)
        turn.change(returning=True)
        turn.begin_round()
        turn.hold(text)
        turn.alert("error", text, "left-canary")
    elif not state.told:
        text = f"{why}; {plan.canary} keeps {percent(state.weight)}: {plan.primary} was updated and is not ready"
        turn.change(told=True)
        turn.record("rollback", text, warning=True, failed=state.failed, weight=state.weight)
        turn.alert("error", text, "no-way-back")


def leave_on_canary(turn: Turn, why: str) -> None:
    """End the run with all traffic on the canary: the primary that was handed to cannot take it."""
    plan = turn.plan
    text = f"{why}; all traffic stays on {plan.canary}, the only good version"
    turn.record("rollback", text, warning=True, weight=EVERYTHING)
    _fail(turn, EVERYTHING, text)
    turn.alert("error", f"{text}. Repair {plan.primary}, then start the rollout again", "left-on-canary")


def succeed(turn: Turn) -> None:
    """End the run: the canary's version is promoted."""
    state, plan = turn.state, turn.plan
    swapped = plan.mode == "swap" and not plan.dry_run
    promoted = state.promoted if plan.dry_run else state.revision
    turn.share(EVERYTHING if swapped else 0, 0, 0, "the rollout is over")
    turn.change(swapped=swapped, promoted=promoted, handed_back=False)
    _settle(turn)
    version = plan.version(state.revision)
    if plan.dry_run:
        text = f"{version} would have been promoted; {plan.primary} keeps all traffic"
    elif swapped:
        edit = f"write primary: {plan.canary} and canary: {plan.primary} into the file"
        text = f"{version} is promoted: {plan.canary} has all traffic and is the primary now; {edit}"
    else:
        text = f"{version} is promoted: {plan.primary} has been updated and has all traffic"
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
        return False
    for upstream, since, counts in (
        (turn.plan.canary, state.unreachable_since, True),
        (turn.plan.primary, state.primary_unreachable_since, state.step < 0 and not turn.traffic),
    ):
        if counts and since >= 0 and turn.now - since > limit:
            roll_back(turn, f"{upstream} could not be reached for more than {limit:g} s")
            return True
    return False


def _fail(turn: Turn, weight: int, text: str) -> None:
    turn.share(weight, 0, 0, "the rollout has failed" if weight == 0 else "the primary cannot take it")
    _settle(turn)
    turn.move("Failed", text, warning=True)
    turn.tell("post-rollout")


def _settle(turn: Turn) -> None:
    """Let go of what belonged to the run: its round, its approvals, its waits."""
    turn.change(awaiting="", held="", resume="", granted=(), denied=False, returning=False)
