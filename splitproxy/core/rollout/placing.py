"""Where a run stands in a plan that was edited while it was under way."""

from splitproxy.core.rollout.plan import Plan, Stage
from splitproxy.core.rollout.stages import first_above
from splitproxy.core.rollout.state import State


def place(old: Plan, new: Plan, state: State) -> int | None:
    """Return where the present stage stands in the new plan; None: it is another there, or its limits are."""
    if state.step < 0 and not by_hand(old, state):
        return -1
    if (old.metrics, old.threshold) != (new.metrics, new.threshold):
        return None
    if state.step >= len(old.stages):
        return len(new.stages)
    if by_hand(old, state):
        return first_above(new, state.weight, state.cohorts) - 1
    return _counterpart(old, new, state.step)


def following(old: Plan, new: Plan, state: State) -> int:
    """Return the index of the stage in the new plan that comes after the present one; len(stages): none does.

    No stage that is in both plans is skipped or repeated; where the present one is gone, what stands in its place and
    sends more comes next, or else the first of those that were still to come.
    """
    if state.step >= len(old.stages):
        return len(new.stages)
    above = first_above(new, state.weight, state.cohorts)
    if by_hand(old, state):
        return above
    present = _counterpart(old, new, state.step) if state.step >= 0 else -1
    if present is not None:
        return present + 1
    later = (_counterpart(old, new, step) for step in range(state.step + 1, len(old.stages)))
    return min([above, *(index for index in later if index is not None)])


def by_hand(plan: Plan, state: State) -> bool:
    """Return whether the share is not the one of the stage: an operator has set it."""
    stage = plan.stages[state.step] if 0 <= state.step < len(plan.stages) else Stage()
    return state.step < len(plan.stages) and (state.weight, state.cohorts) != (stage.weight, stage.cohorts)


def _counterpart(old: Plan, new: Plan, step: int) -> int | None:
    """Return where a stage of the old plan stands in the new one; of equal stages, the one as many are before."""
    wanted = old.stages[step]._replace(gate="")
    before = sum(stage._replace(gate="") == wanted for stage in old.stages[:step])
    found = [index for index, stage in enumerate(new.stages) if stage._replace(gate="") == wanted]
    return found[min(before, len(found) - 1)] if found else None
