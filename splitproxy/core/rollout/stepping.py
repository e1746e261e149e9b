"""From one stage to the next, through the gate in between."""

from splitproxy.core.rollout import gates, promoting
from splitproxy.core.rollout.placing import following, place
from splitproxy.core.rollout.plan import Plan
from splitproxy.core.rollout.stages import percent
from splitproxy.core.rollout.turn import Turn


def forward(turn: Turn) -> None:
    """Go to the next stage, or to promotion after the last, if the gate in front lets it."""
    turn.change(awaiting="")
    if _ends_below(turn):
        return
    plan, index = _next(turn)
    if gates.passes(turn, gate_of(plan, index)):
        enter(turn)


def enter(turn: Turn) -> None:
    """Go to the next stage, its gate having passed; an edit of the plan that waited comes into force here."""
    turn.change(awaiting="", resume="")
    plan, index = _next(turn)
    if plan is not turn.plan:
        turn.record("note", "the edited plan comes into force with this step")
    turn.plan, turn.upcoming = plan, None
    if gate_of(plan, index) == "confirm-promotion":
        turn.change(confirmed=True)
    if index < len(plan.stages):
        turn.enter(index)
    else:
        promoting.begin(turn)


def through(turn: Turn, gate: str) -> None:
    """Go through a gate that has just opened; if an edit has put another in its place meanwhile, that is asked."""
    if _ends_below(turn):
        return
    if gate == gate_of(*_next(turn)):
        enter(turn)
    else:
        forward(turn)


def take(turn: Turn) -> None:
    """Go to the next stage on an operator's word, whatever its gate says."""
    plan, index = _next(turn)
    gate = gate_of(plan, index)
    turn.change(denied=False, granted=tuple(own for own in turn.state.granted if own != gate))
    enter(turn)


def gate_of(plan: Plan, index: int) -> str:
    """Return the gate in front of a stage; behind the last stage stands that of promotion."""
    return plan.stages[index].gate if index < len(plan.stages) else "confirm-promotion"


def settle(turn: Turn, new: Plan) -> None:
    """Take an edited plan at once where it does not change the meaning of the present stage; else it waits."""
    if turn.active:
        # What traffic is for, and who gets it in the end, stay for the run.
        new = new._replace(dry_run=turn.plan.dry_run, mode=turn.plan.mode)
    if new == turn.plan:
        turn.upcoming = None
        return
    index = place(turn.plan, new, turn.state) if turn.active else turn.state.step
    if index is None:
        turn.upcoming = new
        return
    if turn.active:
        turn.change(step=index)
    turn.plan, turn.upcoming = new, None


def _next(turn: Turn) -> tuple[Plan, int]:
    """Return the plan that the next stage is of, and the stage's index."""
    if turn.upcoming is None:
        return turn.plan, turn.state.step + 1
    return turn.upcoming, following(turn.plan, turn.upcoming, turn.state)


def _ends_below(turn: Turn) -> bool:
    """Pause where an edited plan would promote for having no stage left that sends as much as is sent already."""
    new, state = turn.upcoming, turn.state
    if new is None or not new.stages or following(turn.plan, new, state) < len(new.stages):
        return False
    last = max((stage.weight, stage.cohorts) for stage in new.stages)
    if last >= (state.weight, state.cohorts):
        return False
    here, end = percent(state.weight), percent(last[0])
    text = f"the edited plan ends below the present share: at {end}, and {turn.plan.canary} has {here}"
    turn.change(resume="Progressing", awaiting="")
    turn.move("Paused", text, warning=True)
    turn.alert("warn", f"{text}; promote goes on with it, set-weight below it goes back into the plan", "ends-below")
    return True
