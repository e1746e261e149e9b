"""From one stage to the next, through the gate in between."""

from splitproxy.core.rollout import gates, promoting
from splitproxy.core.rollout.plan import Plan
from splitproxy.core.rollout.stages import first_above
from splitproxy.core.rollout.state import State
from splitproxy.core.rollout.turn import Turn


def forward(turn: Turn) -> None:
    """Go to the next stage, or to promotion after the last, if the gate in front lets it."""
    turn.change(awaiting="")
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
    index = _same_stage(turn.plan, new, turn.state) if turn.active else turn.state.step
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
    return turn.upcoming, first_above(turn.upcoming, turn.state.weight, turn.state.cohorts)


def _same_stage(old: Plan, new: Plan, state: State) -> int | None:
    """Return where the present stage stands in the new plan; None: it is another there, or its limits are."""
    if state.step < 0:
        return -1
    if (old.metrics, old.threshold) != (new.metrics, new.threshold):
        return None
    if state.step >= len(old.stages):
        return len(new.stages)
    present = old.stages[state.step]._replace(gate="")
    for index, stage in enumerate(new.stages):
        if stage._replace(gate="") == present:
            return index
    return None
