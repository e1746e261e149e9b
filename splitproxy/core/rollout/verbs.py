"""What operators can say, in which phase, and what it does."""

from collections.abc import Callable
from typing import Final

from splitproxy.core.live import EVERYTHING
from splitproxy.core.rollout import gates, promoting, stepping
from splitproxy.core.rollout.checking import opened, wait_to_begin
from splitproxy.core.rollout.ending import roll_back, undo
from splitproxy.core.rollout.events import Begin, Verb
from splitproxy.core.rollout.plan import Plan
from splitproxy.core.rollout.stages import first_above, percent
from splitproxy.core.rollout.starting import begin
from splitproxy.core.rollout.state import ACTIVE, State
from splitproxy.core.rollout.turn import Turn

_WAITING: Final = frozenset(gates.WAITING.values())
_GOING: Final = frozenset({"Progressing", "Promoting", "Baking"})
VERBS: Final[dict[str, frozenset[str]]] = {
    "start": frozenset({"Initialized", "Succeeded", "Failed"}),
    "retry": frozenset({"Failed"}),
    "pause": _WAITING | _GOING,
    "resume": frozenset({"Paused"}),
    "promote": _WAITING | _GOING | {"Paused"},
    "abort": ACTIVE,
    "undo": frozenset({"Succeeded"}),
    "approve": _WAITING | {"Progressing", "Paused"},
    "deny": _WAITING | {"Progressing", "Paused"},
    "set-weight": frozenset({"Paused"}),
}
"""The phases in which each verb can be legal; `legal` knows what else it takes."""


def legal(plan: Plan, state: State, verb: Verb) -> str | None:
    """Return None where `verb` may be acted on, else the sentence that says why not."""
    phases = VERBS.get(verb.name)
    if phases is None:
        return f"there is no verb {verb.name}: there are {', '.join(VERBS)}"
    if state.phase not in phases:
        return f"{plan.name} is {state.phase}: {verb.name} is for {_listed(phases)}"
    check = _CONDITIONS.get(verb.name)
    return check(plan, state, verb) if check is not None else None


def act(turn: Turn, verb: Verb) -> None:
    """Do what an operator says; what is not legal is noted and changes nothing."""
    why = legal(turn.plan, turn.state, verb)
    if why is not None:
        turn.note(why)
        return
    if verb.name not in ("start", "retry"):
        turn.begin_round()
        turn.record("verb", f"{_by(verb)}: {_words(verb)}", verb=verb.name, by=verb.by)
    _ACTS[verb.name](turn, verb)


# --- what each verb needs beside its phase ---------------------------------------------------------------------------
def _not_swapped(plan: Plan, state: State, verb: Verb) -> str | None:
    if state.swapped:
        return (
            f"{plan.canary} is the primary now: write primary: {plan.canary} and canary: {plan.primary} into the file "
            "first, or undo"
        )
    return _primary_there(plan, state, verb)


def _primary_there(plan: Plan, state: State, verb: Verb) -> str | None:
    if state.weight and state.primary_unreachable_since >= 0:
        has = percent(state.weight)
        return f"{plan.primary} cannot be reached and {plan.canary} has {has}: {verb.name} would lose requests"
    return None


def _pausable(plan: Plan, state: State, verb: Verb) -> str | None:
    if plan.mode == "handBack" and state.phase in ("Promoting", "Baking"):
        return f"{plan.primary} is being updated: {verb.name} is for the time before"
    return None


def _resumable(plan: Plan, state: State, verb: Verb) -> str | None:
    # What goes back to its phase waits there.
    onward = state.resume in ("next", "above", "onward")
    return _promotable(plan, state, verb) if onward else None


def _promotable(plan: Plan, state: State, verb: Verb) -> str | None:
    if state.handed_back:
        return _primary_there(plan, state, verb)
    if state.unreachable_since >= 0:
        return f"{plan.canary} cannot be reached: {verb.name} would lose requests"
    return None


def _abortable(plan: Plan, state: State, _verb: Verb) -> str | None:
    if state.handed_back and state.unreachable_since >= 0:
        return f"{plan.primary} is updated already and {plan.canary} cannot be reached: abort would lose requests"
    return None


def _undoable(plan: Plan, state: State, _verb: Verb) -> str | None:
    if not state.swapped:
        return f"nothing of {plan.name} can be undone: {plan.primary} is the primary already"
    if state.primary_unreachable_since >= 0:
        return f"{plan.primary}, the previous primary, cannot be reached: undo would lose requests"
    return None


def _approvable(plan: Plan, state: State, _verb: Verb) -> str | None:
    gate = next((gate for gate, phase in gates.WAITING.items() if phase == state.phase), None)
    if gate is None:
        return None if state.denied else f"{plan.name} waits at no gate: approve is for one that it waits at"
    if gate in state.granted and not state.denied:
        return f"{gate} was approved already: {state.reason}"
    return None


def _deniable(plan: Plan, state: State, _verb: Verb) -> str | None:
    ahead = state.phase in _WAITING or state.step < 0 or not state.confirmed
    ahead = ahead or any(stage.gate for stage in plan.stages[state.step + 1 :])
    return None if ahead else f"{plan.name} has passed its last gate"


def _within(plan: Plan, state: State, verb: Verb) -> str | None:
    if state.resume == "Waiting":
        return f"{plan.name} has not begun: resume it, and approve its start, before traffic is sent"
    if not 0 <= verb.weight <= EVERYTHING:
        return f"a weight lies between 0 % and 100 %, and {percent(verb.weight)} does not"
    if verb.weight > state.weight and state.unreachable_since >= 0:
        return f"{plan.canary} cannot be reached: more traffic for it would be lost"
    return None


_CONDITIONS: Final[dict[str, Callable[[Plan, State, Verb], str | None]]] = {
    "start": _not_swapped,
    "retry": _primary_there,
    "pause": _pausable,
    "resume": _resumable,
    "promote": _promotable,
    "abort": _abortable,
    "undo": _undoable,
    "approve": _approvable,
    "deny": _deniable,
    "set-weight": _within,
}


# --- what each verb does ---------------------------------------------------------------------------------------------
def _start(turn: Turn, verb: Verb) -> None:
    plan = turn.upcoming or turn.plan
    begin(turn, Begin(plan.target(), verb.by or "an operator"))


def _pause(turn: Turn, verb: Verb) -> None:
    turn.change(resume=turn.state.phase)
    turn.move("Paused", f"paused at {percent(turn.state.weight)} by {_by(verb)}")


def _resume(turn: Turn, verb: Verb) -> None:
    state = turn.state
    _forgive(turn)
    if state.resume == "above":
        turn.change(step=first_above(turn.plan, state.weight, state.cohorts) - 1)
    if state.resume in ("next", "above", "onward"):
        # Kept until the gate in front has answered: a crash in between must not lose the word.
        turn.change(resume="onward", reason=f"resumed by {_by(verb)}")
        stepping.forward(turn)
    else:
        turn.move(state.resume, f"resumed by {_by(verb)}")
        turn.change(resume="")


def _promote(turn: Turn, verb: Verb) -> None:
    if verb.full:
        _promote_fully(turn, verb)
        return
    state = turn.state
    _forgive(turn)
    phase = state.resume if state.phase == "Paused" else state.phase
    if phase == "above":
        turn.change(step=first_above(turn.plan, state.weight, state.cohorts) - 1)
    if state.phase == "Paused" and phase in ("Promoting", "Baking"):
        turn.move(phase, f"resumed by {_by(verb)}")
        turn.change(resume="")
    if phase == "Waiting":
        opened(turn, "confirm-rollout")
        turn.change(resume="", denied=False)
    elif phase == "Baking":
        promoting.finalise(turn, f"promoted by {_by(verb)} before the end of baking")
    elif phase == "Promoting":
        promoting.on(turn)
    else:
        stepping.take(turn)


def _promote_fully(turn: Turn, verb: Verb) -> None:
    turn.change(denied=False, granted=(), resume="", held="")
    if turn.plan.mode == "swap" or turn.state.handed_back:
        promoting.finalise(turn, f"promoted fully by {_by(verb)}")
    else:
        promoting.begin(turn)


def _abort(turn: Turn, verb: Verb) -> None:
    roll_back(turn, f"aborted by {_by(verb)}")


def _undo(turn: Turn, verb: Verb) -> None:
    undo(turn, _by(verb))


def _approve(turn: Turn, verb: Verb) -> None:
    state = turn.state
    gate = next((gate for gate, phase in gates.WAITING.items() if phase == state.phase), "")
    turn.change(denied=False)
    if not gate:
        turn.change(reason=f"the denial was taken back by {_by(verb)}")
        return
    turn.change(granted=(*state.granted, gate), reason=f"{gate} was approved by {_by(verb)}")
    if state.held:
        turn.change(reason=f"approved by {_by(verb)}; {state.held}")
    elif gate == "confirm-rollout":
        wait_to_begin(turn)
    elif not turn.unreachable:
        stepping.forward(turn)


def _deny(turn: Turn, verb: Verb) -> None:
    turn.change(denied=True, granted=(), reason=f"the next gate was closed by {_by(verb)}")


def _set_weight(turn: Turn, verb: Verb) -> None:
    state = turn.state
    if verb.weight != state.weight:
        turn.change(resume="Progressing" if _back_in_stage(turn.plan, state, verb.weight) else "above")
    turn.share(verb.weight, turn.state.cohorts, turn.state.mirror, f"set by {_by(verb)}")
    turn.change(reason=f"paused at {percent(verb.weight)}, set by {_by(verb)}")


def _back_in_stage(plan: Plan, state: State, weight: int) -> bool:
    """Return whether a weight is that of a stage that is more than its weight: it goes on there, not behind it."""
    if state.resume != "above" or not 0 <= state.step < len(plan.stages):
        return False
    stage = plan.stages[state.step]
    return weight == stage.weight and bool(stage.checks > 1 or stage.mirror or stage.cohorts)


_ACTS: Final[dict[str, Callable[[Turn, Verb], None]]] = {
    "start": _start,
    "retry": _start,
    "pause": _pause,
    "resume": _resume,
    "promote": _promote,
    "abort": _abort,
    "undo": _undo,
    "approve": _approve,
    "deny": _deny,
    "set-weight": _set_weight,
}


def _forgive(turn: Turn) -> None:
    """Count inconclusive checks anew: an operator has seen those that led to a pause."""
    counts = turn.state.metrics
    if any(own.inconclusive for _, own in counts):
        turn.change(metrics=tuple((name, own._replace(inconclusive=0)) for name, own in counts))


def _by(verb: Verb) -> str:
    return verb.by or "an operator"


def _words(verb: Verb) -> str:
    if verb.name == "set-weight":
        return f"set-weight {percent(verb.weight)}"
    return f"{verb.name} --full" if verb.full else verb.name


def _listed(phases: frozenset[str]) -> str:
    *rest, last = sorted(phases)
    return f"{', '.join(rest)} and {last}" if rest else last
