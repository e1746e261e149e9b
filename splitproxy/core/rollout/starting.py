"""How a run begins, and how the file catches up with a promotion."""

from splitproxy.core.rollout.checking import wait_to_begin
from splitproxy.core.rollout.events import Begin
from splitproxy.core.rollout.state import State
from splitproxy.core.rollout.turn import Turn

__all__ = ["adopted", "begin", "refusal"]


def begin(turn: Turn, event: Begin) -> None:
    """Begin a run, or say why there is none."""
    why = refusal(turn, event)
    if why is None:
        return
    if why:
        turn.note(why)
        return
    old, restart = turn.state, turn.active
    if turn.upcoming is not None:
        turn.plan, turn.upcoming = turn.upcoming, None
    version = turn.plan.version(event.revision)
    turn.share(0, 0, 0, f"{version} begins")
    phase = old.phase
    turn.state = State(
        phase=phase,
        phase_since=turn.now,
        stage_since=turn.now,
        reason=old.reason,
        attempt=old.attempt + 1,
        revision=event.revision,
        promoted=old.promoted,
        unreachable_since=turn.now if old.unreachable_since >= 0 else -1.0,
        primary_unreachable_since=turn.now if old.primary_unreachable_since >= 0 else -1.0,
        round=old.round,
    )
    turn.begin_round()
    who = f"by {event.by}" if event.by else "by the file"
    if restart:
        before = turn.plan.version(old.revision)
        turn.note(f"{version} takes the place of {before}, {who}: it begins anew at 0 %")
    turn.move("Waiting", f"{version} was started {who}")
    if turn.plan.windows:
        # An event does not know the time of the week: the next tick does.
        turn.change(held="it begins when the check sees an allowed window")
    wait_to_begin(turn)


def refusal(turn: Turn, event: Begin) -> str | None:
    """Return why this revision does not begin: empty, it does; None, there is nothing to say about it."""
    state, plan = turn.state, turn.plan
    if state.swapped:
        return (
            f"{plan.canary} is the primary since {plan.version(state.promoted or state.revision)} was promoted: "
            f"first write primary: {plan.canary} and canary: {plan.primary} into the file"
        )
    if turn.active:
        if event.revision == state.revision:
            return None if not event.by else f"{plan.version(state.revision)} is under way already"
        if state.handed_back:
            old, new = plan.version(state.revision), plan.version(event.revision)
            return f"{plan.primary} is being updated to {old}: {new} can begin after that"
        return ""
    if not event.by and event.revision in (state.revision, state.promoted):
        return None
    if state.weight and turn.primary_unreachable:
        return f"{plan.primary} cannot be reached and {plan.canary} has all traffic: repair {plan.primary} first"
    return ""


def adopted(turn: Turn) -> None:
    """The file names the promoted upstream as the primary: the swap is over."""
    state = turn.state
    if not state.swapped:
        return
    plan = turn.upcoming or turn.plan
    turn.plan, turn.upcoming = plan, None
    # Without a revision the digest of the new canary is what later changes are seen against.
    revision = state.revision if plan.revision is not None else plan.identity
    text = f"the file names {plan.primary} as the primary now"
    turn.change(swapped=False, weight=0, cohorts=0, mirror=0, step=-1, revision=revision, stage_since=turn.now)
    away, primary_away = state.primary_unreachable_since, state.unreachable_since
    turn.change(reason=text, unreachable_since=away, primary_unreachable_since=primary_away)
    turn.record("note", text)
