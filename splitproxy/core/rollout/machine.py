"""The rollout as a state machine: `advance` takes one event and returns the state after it and what is to be done.

Nothing here waits, reads a clock or draws lots: time comes in with the event, and whatever has to be asked goes out as
a command whose answer is an event of its own. An event that means nothing in the present phase changes nothing.
"""

from typing import NamedTuple

from splitproxy.core.rollout import checking, starting, stepping, verbs
from splitproxy.core.rollout.ending import deadline, leave_canary, leave_on_canary, roll_back
from splitproxy.core.rollout.events import (
    Adopted,
    Answer,
    Begin,
    Breached,
    Checked,
    Command,
    Convicted,
    Event,
    Proven,
    Reachable,
    Tick,
    Verb,
)
from splitproxy.core.rollout.plan import Plan
from splitproxy.core.rollout.stages import compile_plan, percent, stage_plan
from splitproxy.core.rollout.state import State, from_plain, to_plain
from splitproxy.core.rollout.traffic import canary_share, iterations, traffic
from splitproxy.core.rollout.turn import TRANSITIONS, Turn
from splitproxy.core.rollout.verbs import VERBS, legal

__all__ = [
    "TRANSITIONS",
    "VERBS",
    "Outcome",
    "advance",
    "canary_share",
    "compile_plan",
    "from_plain",
    "iterations",
    "legal",
    "stage_plan",
    "to_plain",
    "traffic",
]


class Outcome(NamedTuple):
    """What became of an event."""

    state: State
    commands: tuple[Command, ...]
    """In order; to be carried out when the state has been saved."""
    plan: Plan
    """In force from now on: an edit waits for the next stage where it would change the meaning of the present one."""


def advance(plan: Plan, state: State, event: Event, now: float, upcoming: Plan | None = None) -> Outcome:
    """Return what `event` makes of `state` at `now` (seconds of the rollout's own clock).

    `plan` is the one in force, `upcoming` the file's present one where it is another. With `Adopted`, `upcoming` is the
    plan that names the promoted upstream as the primary.
    """
    turn = Turn(plan, state, now, upcoming)
    if upcoming is not None and not isinstance(event, (Begin, Adopted)):
        stepping.settle(turn, upcoming)
    _take(turn, event)
    return Outcome(turn.state, tuple(turn.commands), turn.plan)


def _take(turn: Turn, event: Event) -> None:  # noqa: C901 - a table of events
    match event:
        case Answer():
            checking.answered(turn, event)
        case Checked():
            checking.checked(turn, event)
        case Tick():
            checking.ticked(turn, event)
        case Reachable():
            _reached(turn, event)
        case Breached():
            _breached(turn, event)
        case Convicted():
            _convicted(turn, event)
        case Proven():
            checking.proven(turn, event)
        case Verb():
            verbs.act(turn, event)
        case Begin():
            starting.begin(turn, event)
        case Adopted():
            starting.adopted(turn)


def _breached(turn: Turn, event: Breached) -> None:
    """Leave the side that broke a hard limit at once, also while a round is under way."""
    why = f"hard limit broken: {event.verdict.reason}"
    if not turn.active:
        return
    if event.blame != "side":
        _not_blamed(turn, event, why)
        return
    if event.side == "primary":
        # Before traffic returns to it, it is not what is judged: it may be starting.
        if turn.state.returning and turn.state.phase != "Finalising":
            leave_on_canary(turn, why)
    elif turn.state.handed_back and turn.traffic:
        leave_canary(turn, why)
    elif turn.traffic:
        roll_back(turn, why)


def _not_blamed(turn: Turn, event: Breached, why: str) -> None:
    """Hold at the present share: the canary breaks a limit, and nothing shows that it is the canary's fault."""
    both = f"both sides fail: {turn.plan.primary} breaks it as well"
    text = f"{why}; {both if event.blame == 'both' else 'the comparison does not blame the canary so far'}"
    held = f"{text}; it holds at {percent(turn.state.weight)}"
    turn.change(held=held)
    turn.record("note", held, warning=True)
    turn.alert("warn", held, f"limit:{event.verdict.metric}")


def _convicted(turn: Turn, event: Convicted) -> None:
    """Leave the canary that is worse than the primary at once, also while a round is under way."""
    if turn.active and turn.traffic and not turn.state.handed_back:
        turn.record("evidence", event.sentence, warning=True, **dict(event.data))
        roll_back(turn, event.sentence)


def _reached(turn: Turn, event: Reachable) -> None:
    """Take note of who can be reached; one who cannot for too long ends the run."""
    state = turn.state
    for upstream, field, there, why in (
        (turn.plan.canary, "unreachable_since", event.canary, event.detail),
        (turn.plan.primary, "primary_unreachable_since", event.primary, event.primary_detail),
    ):
        since = getattr(state, field)
        if there == (since < 0):
            continue
        turn.change(**{field: -1.0 if there else turn.now})
        if turn.active:
            detail = f": {why}" if why and not there else ""
            turn.record("note", f"{upstream} {'can' if there else 'cannot'} be reached{detail}", warning=not there)
    deadline(turn)
