"""What a state means for traffic and for those who look at it."""

from splitproxy.core.live import Traffic
from splitproxy.core.rollout.plan import Plan
from splitproxy.core.rollout.state import ACTIVE, State


def traffic(plan: Plan, state: State) -> Traffic:
    """Return what is to be done with requests: a function of plan and state alone."""
    if plan.dry_run:
        return Traffic(mirror=_copied(plan, state))
    return Traffic(state.weight, state.mirror, min(state.cohorts, plan.cohorts), state.swapped)


def _copied(plan: Plan, state: State) -> int:
    """Return the share that a dry run copies: what it moves nobody by, and is all that its canary is judged by.

    The copies therefore stay where the plan would go on with clients.
    """
    if state.phase not in ACTIVE or state.phase == "Finalising":
        return 0
    entered = reversed(plan.stages[: state.step + 1])
    return state.mirror or next((stage.mirror for stage in entered if stage.mirror), 0)


def canary_share(state: State) -> int:
    """Return the share that people are shown: after a swap the canary is the primary, and its share as canary is 0."""
    return 0 if state.swapped else state.weight


def iterations(plan: Plan, state: State) -> int:
    """Return Flagger's `iterations`: the round that a strategy which counts rounds is in; 0 where none is."""
    if plan.strategy == "canary" or state.phase not in ACTIVE or state.phase == "Finalising" or state.step < 0:
        return 0
    before = sum(stage.checks for stage in plan.stages[: state.step])
    if state.step >= len(plan.stages):
        return before
    return before + min(state.passes + 1, plan.stages[state.step].checks)


def grows(new: Traffic, old: Traffic) -> bool:
    """Return whether the canary gets more of anything, or becomes the primary."""
    more = new.weight > old.weight or new.mirror > old.mirror or new.cohorts > old.cohorts
    return more or (new.swapped and not old.swapped)
