"""One event being worked on: the plan and the state as they change, and the commands so far."""

from typing import Any, Final

from splitproxy.core.rollout.events import Alert, Ask, Command, Measure, Record
from splitproxy.core.rollout.plan import Plan
from splitproxy.core.rollout.stages import describe, percent
from splitproxy.core.rollout.state import ACTIVE, RESTING, State

_BEGUN: Final = {"Waiting", "Progressing"}
_ENDED: Final = {"Failed"}
_LAST: Final = {"Promoting", "Finalising"}
TRANSITIONS: Final[dict[str, frozenset[str]]] = {
    "Initialized": frozenset(_BEGUN),
    "Waiting": frozenset(_BEGUN | _ENDED | _LAST | {"Paused"}),
    "Progressing": frozenset(
        _BEGUN | _ENDED | _LAST | {"WaitingTrafficIncrease", "WaitingPromotion", "Paused", "Promoting"}
    ),
    "WaitingTrafficIncrease": frozenset(_BEGUN | _ENDED | _LAST | {"WaitingPromotion", "Paused"}),
    "Paused": frozenset(_BEGUN | _ENDED | _LAST | {"WaitingTrafficIncrease", "WaitingPromotion", "Baking", "Paused"}),
    "WaitingPromotion": frozenset(_BEGUN | _ENDED | _LAST | {"WaitingTrafficIncrease", "Paused"}),
    "Promoting": frozenset(_BEGUN | _ENDED | _LAST | {"Baking", "Paused"}),
    "Baking": frozenset(_BEGUN | _ENDED | {"Finalising", "Paused"}),
    "Finalising": frozenset(_BEGUN | _ENDED | {"Succeeded"}),
    "Succeeded": frozenset(_BEGUN | _ENDED),
    "Failed": frozenset(_BEGUN),
}
"""Where each phase may lead; from an active one back to its beginning when a newer revision comes."""
_PLACES: Final = {name: place for place, name in enumerate(State._fields)}


class Turn:
    """Collects what one event changes and asks for; lives as long as one call of `advance`."""

    __slots__ = ("commands", "now", "plan", "state", "upcoming")

    plan: Plan
    """In force."""
    upcoming: Plan | None
    """The file's, where it differs and waits for the next stage; None: nothing waits."""
    state: State
    commands: list[Command]
    now: float

    def __init__(self, plan: Plan, state: State, now: float, upcoming: Plan | None) -> None:
        self.plan, self.state, self.now, self.upcoming = plan, state, now, upcoming
        self.commands = []

    @property
    def active(self) -> bool:
        """Whether a run is under way."""
        return self.state.phase in ACTIVE

    @property
    def traffic(self) -> bool:
        """Whether the canary gets any of it, copies included."""
        return bool(self.state.weight or self.state.cohorts or self.state.mirror)

    @property
    def unreachable(self) -> bool:
        """Whether the canary takes no connections at present."""
        return self.state.unreachable_since >= 0

    @property
    def primary_unreachable(self) -> bool:
        """Whether the primary takes no connections at present."""
        return self.state.primary_unreachable_since >= 0

    def change(self, **fields: Any) -> None:
        """Set fields of the state."""
        # A third of the time of _replace, which is most of what deciding costs.
        values = list(self.state)
        for name, value in fields.items():
            values[_PLACES[name]] = value
        self.state = State._make(values)

    def begin_round(self) -> None:
        """Start a new round: whatever an earlier one still waited for no longer counts."""
        self.change(round=self.state.round + 1, awaiting="")

    def move(self, phase: str, reason: str, *, warning: bool = False) -> None:
        """Go to `phase`, for `reason`."""
        old = self.state.phase
        if phase == old:
            self.change(reason=reason)
            return
        assert phase in TRANSITIONS[old], f"{old} -> {phase}"
        self.change(phase=phase, phase_since=self.now, reason=reason, told=False, recorded=())
        self.record("phase", f"{old} -> {phase}: {reason}", warning=warning, before=old, after=phase)

    def share(self, weight: int, cohorts: int, mirror: int, why: str) -> None:
        """Set who is sent to the canary; the windows of measurements begin anew if that is a change."""
        state = self.state
        if (weight, cohorts, mirror) == (state.weight, state.cohorts, state.mirror):
            return
        self.change(weight=weight, cohorts=cohorts, mirror=mirror, stage_since=self.now)
        verb = "would send" if self.plan.dry_run else "sends"
        parts = [f"{verb} {percent(weight)} to {self.plan.canary}"]
        if cohorts:
            parts.append(f"{cohorts} of {self.plan.cohorts} cohorts")
        if mirror:
            parts.append(f"{'sends ' if self.plan.dry_run else ''}copies of {percent(mirror)}")
        text = f"{', '.join(parts)}: {why}"
        self.record("weight", text, weight=weight, cohorts=cohorts, mirror=mirror, before=state.weight)

    def enter(self, index: int) -> None:
        """Enter the stage `index`."""
        stage = self.plan.stages[index]
        self.change(step=index, passes=0, proven=False, stage_since=self.now)
        words = f"step {index + 1} of {len(self.plan.stages)}"
        self.share(stage.weight, stage.cohorts, stage.mirror, words)
        self.move("Progressing", f"{words}: {describe(stage)}")

    def has(self, type_: str) -> bool:
        """Return whether the plan has webhooks of this type."""
        return any(hook.type == type_ for hook in self.plan.hooks)

    def ask(self, type_: str) -> None:
        """Have the webhooks of this type asked; the round goes on with their answer."""
        self.change(awaiting=type_)
        self.commands.append(Ask(type_, self.state.round))

    def measure(self) -> None:
        """Have every metric measured; the round goes on with the verdicts."""
        self.change(awaiting="measure")
        self.commands.append(Measure(self.state.round, "primary" if self.state.handed_back else "canary"))

    def tell(self, type_: str) -> None:
        """Have the webhooks of this type asked without waiting for what they say."""
        if self.has(type_):
            self.commands.append(Ask(type_, self.state.round))

    def record(self, kind: str, text: str, *, warning: bool = False, **data: Any) -> None:
        """Add to the history."""
        self.commands.append(Record(kind, text, warning, tuple(data.items())))

    def outcome(self, what: str, outcome: str, kind: str, text: str, *, warning: bool = False, **data: Any) -> None:
        """Add to the history what was answered to a question; while nothing moves, only what is not as before."""
        known = dict(self.state.recorded)
        if self.state.phase in RESTING and known.get(what) == outcome:
            return
        self.change(recorded=tuple((known | {what: outcome}).items()))
        self.record(kind, text, warning=warning, outcome=outcome, **data)

    def alert(self, severity: str, text: str, key: str) -> None:
        """Send news to people; `key` is what it is about."""
        dry = "dry run: " if self.plan.dry_run else ""
        self.commands.append(Alert(severity, f"{dry}{self.plan.name}: {text}", key))

    def note(self, text: str) -> None:
        """Record that something was not done, and why."""
        self.record("note", text, warning=True)

    def hold(self, reason: str) -> None:
        """End the round without a step forward."""
        self.change(awaiting="", reason=reason)

    def stay(self, reason: str) -> None:
        """End the round by what a check says; where nothing moves, the reason for that stays to be seen."""
        self.hold(self.state.reason if self.state.phase in RESTING else reason)
