"""Where a rollout stands: everything that must survive a restart, and nothing else."""

from typing import Any, Final, NamedTuple

VERSION: Final = 1
"""Of the stored form; a newer one is refused."""
PHASES: Final = (
    *("Initialized", "Waiting", "Progressing", "WaitingTrafficIncrease", "Paused", "WaitingPromotion", "Promoting"),
    *("Baking", "Finalising", "Succeeded", "Failed"),
)
ACTIVE: Final = frozenset(PHASES) - {"Initialized", "Succeeded", "Failed"}
"""Phases in which a run is under way."""
RESTING: Final = frozenset({"Waiting", "WaitingTrafficIncrease", "Paused", "WaitingPromotion"})
"""Phases in which nothing moves until somebody says so; checks go on, but are not what it stands there for."""


class MetricCounts(NamedTuple):
    """Argo's counters of one metric."""

    failed: int = 0
    inconclusive: int = 0
    consecutive_errors: int = 0
    last: str = ""
    """The outcome of the check before, `both` where the primary failed too, so that news goes out when something begins
    and not at every check."""


class State(NamedTuple):
    """A rollout's state.

    Times are of the rollout's own clock: seconds that only grow, and stand still while nobody runs the rollout, so that
    no jump of the wall clock can matter.
    """

    phase: str = "Initialized"
    attempt: int = 0
    """Which run this is, counted from 1; salts the clients' hashes, so an old cookie means nothing in a new run."""
    revision: str = ""
    """Of the run under way or last ended; the identity's digest where the file gives none."""
    promoted: str = ""
    """The revision promoted last."""
    swapped: bool = False
    """Whether the canary has become the primary, by `swap`, and the file does not say so yet."""
    step: int = -1
    """Index of the stage; -1 before the first, len(stages) after the last."""
    weight: int = 0
    cohorts: int = 0
    mirror: int = 0
    passes: int = 0
    """Passed checks in this stage."""
    proven: bool = False
    """Whether the comparison has shown that this stage's canary may be given more."""
    failed: int = 0
    """Failed checks of the run, never reset by a success."""
    metrics: tuple[tuple[str, MetricCounts], ...] = ()
    prepared: bool = False
    """Whether the pre-rollout hooks have passed in this run."""
    granted: tuple[str, ...] = ()
    """Gates that an operator approved and that were not used yet."""
    denied: bool = False
    """Whether an operator closed the gate that is waited at."""
    told: bool = False
    """Whether news of the present wait has gone out."""
    confirmed: bool = False
    """Whether confirm-promotion has passed in this run."""
    handed_back: bool = False
    """handBack: whether the webhook has updated the primary."""
    returning: bool = False
    """handBack: whether traffic has begun to return to the updated primary."""
    resume: str = ""
    """Paused: the phase to go back to; `next`: the plan's own pause, which the next stage ends; `above`: the weight was
    set by hand, and the first stage above it is the next; `onward`: an operator has ended the pause, and the gate in
    front of the next stage is being asked."""
    recorded: tuple[tuple[str, str], ...] = ()
    """What was answered last, by question, since the phase began: while nothing moves, only changes are recorded."""
    phase_since: float = 0.0
    stage_since: float = 0.0
    """When traffic was last changed: no window of a measurement begins before."""
    unreachable_since: float = -1.0
    """Since when the canary has not been reachable; below 0: it is."""
    primary_unreachable_since: float = -1.0
    """The same of the primary: what handing back waits for."""
    reason: str = ""
    """Why it stands where it stands: one sentence with its numbers."""
    held: str = ""
    """Why no step forward may be taken at present, though checks go on: outside the windows, or a hook said so."""
    round: int = 0
    """The number of the round under way or last ended; it only grows, so a late answer is known as one."""
    awaiting: str = ""
    """What the round under way waits for: a hook's type, `measure` or `hand-back`; empty: no round is under way."""

    def loaded(self) -> "State":
        """Return the state as it is after a restart: a round that was cut off begins anew at the next tick."""
        return self._replace(awaiting="")


_COUNTS: Final = frozenset(MetricCounts._fields)
_FIELDS: Final = frozenset(State._fields)


def to_plain(state: State) -> dict[str, Any]:
    """Return `state` as JSON can carry it."""
    plain = state._asdict()
    plain["metrics"] = {name: counts._asdict() for name, counts in state.metrics}
    plain["granted"] = list(state.granted)
    plain["recorded"] = dict(state.recorded)
    return {"v": VERSION, **plain}


def from_plain(plain: dict[str, Any]) -> State:
    """Return the state that `to_plain` made `plain` of; ValueError for what this version does not know."""
    if plain.get("v") != VERSION:
        raise ValueError(
            f"the stored state has version {plain.get('v')!r} and this program reads version {VERSION}: "
            "run the version that wrote it, or remove the store"
        )
    unknown = plain.keys() - _FIELDS - {"v"}
    if unknown:
        raise ValueError(f"the stored state has unknown fields: {', '.join(sorted(unknown))}")
    fields = {name: value for name, value in plain.items() if name != "v"}
    fields["metrics"] = tuple((name, _counts(counts)) for name, counts in plain.get("metrics", {}).items())
    fields["granted"] = tuple(plain.get("granted", ()))
    fields["recorded"] = tuple(plain.get("recorded", {}).items())
    return State(**fields)


def _counts(plain: dict[str, Any]) -> MetricCounts:
    unknown = plain.keys() - _COUNTS
    if unknown:
        raise ValueError(f"the stored counters have unknown fields: {', '.join(sorted(unknown))}")
    return MetricCounts(**plain)
