"""Gates: a step that has to be allowed by webhooks or by an operator, asked once per decision."""

from typing import Final

from splitproxy.core.rollout.events import Answer
from splitproxy.core.rollout.stages import percent
from splitproxy.core.rollout.turn import Turn

WAITING: Final = {
    "confirm-rollout": "Waiting",
    "confirm-traffic-increase": "WaitingTrafficIncrease",
    "confirm-promotion": "WaitingPromotion",
}
"""The phase in which each gate is waited at."""


def passes(turn: Turn, gate: str) -> bool:
    """Return whether `gate` lets the rollout through now; if not, it was closed, or is being asked."""
    state = turn.state
    if not gate or (gate == "confirm-promotion" and state.confirmed):
        return True
    if state.denied:
        close(turn, gate, f"{gate} is closed by an operator; it waits for approve")
        return False
    hooks = [hook for hook in turn.plan.hooks if hook.type == gate]
    own = next((hook for hook in hooks if hook.builtin), None)
    if gate in state.granted and (own is None or all(hook.builtin for hook in hooks)):
        _use(turn, gate)
        return True
    if own is not None and gate not in state.granted:
        close(turn, gate, f"{own.name} ({gate}) waits for approve", muted=own.mute_alert)
        return False
    if hooks:
        turn.ask(gate)
    return not hooks


def _use(turn: Turn, gate: str) -> None:
    """Use up an operator's approval."""
    turn.change(granted=tuple(own for own in turn.state.granted if own != gate))
    turn.record("gate", f"{gate} was approved by an operator")


def answered(turn: Turn, answer: Answer) -> bool:
    """Return whether the answer of a gate's webhooks opens it; if not, it was closed."""
    if answer.outcome == "pass":
        turn.record("gate", f"{answer.type} passed")
        if answer.type in turn.state.granted:
            _use(turn, answer.type)
        return True
    said = f": {answer.text}" if answer.text else ""
    muted = any(hook.name == answer.hook and hook.mute_alert for hook in turn.plan.hooks)
    close(turn, answer.type, f"{answer.hook or answer.type} ({answer.type}) is closed{said}", muted=muted)
    return False


def close(turn: Turn, gate: str, why: str, *, muted: bool = False) -> None:
    """Wait at `gate`; news goes out once per wait."""
    turn.change(awaiting="", resume="")
    turn.move(WAITING[gate], why, warning=True)
    if turn.state.told:
        return
    turn.change(told=True)
    turn.record("gate", why, warning=True, gate=gate)
    if not muted:
        share = f"checks go on at {percent(turn.state.weight)}" if turn.traffic else "nothing is sent to the canary"
        turn.alert("warn", f"{why}; until it opens, {share}", f"{gate}:{turn.state.step}")
