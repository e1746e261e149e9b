"""What happens to a rollout, and what it asks for in turn."""

from typing import Any, NamedTuple

from splitproxy.core.analysis import Verdict


# --- events ----------------------------------------------------------------------------------------------------------
class Begin(NamedTuple):
    """A revision that was not started yet is there, or an operator asks for a run (`start`, `retry`)."""

    revision: str
    by: str = ""
    """The operator; empty: the file."""


class Tick(NamedTuple):
    """Time for a check; `windows_open` says whether the present moment lies in an allowed window."""

    windows_open: bool = True
    hold: str = ""
    """Why no step forward may be taken now, whatever the checks say; empty: nothing stands in the way."""


class Answer(NamedTuple):
    """The webhooks of one type were asked, in order; the first that did not pass decides."""

    type: str
    round: int
    """The round in which they were asked; one of an earlier round is late and ignored."""
    outcome: str
    """pass | fail | hold | rollback; for `rollback` hooks: pass means that a rollback is wanted."""
    hook: str = ""
    """The name of the one that decided."""
    text: str = ""
    """What it said."""


class Checked(NamedTuple):
    """All metrics were measured and judged, in the order of the file."""

    round: int
    verdicts: tuple[Verdict, ...]


class Breached(NamedTuple):
    """A hard limit was broken."""

    verdict: Verdict
    side: str = "canary"
    """Who broke it: canary, or primary while traffic returns to the updated one."""
    blame: str = "side"
    """Whose fault it is: `side`; `both`, if the old primary breaks it as well; `open`, while the comparison with the
    primary has not decided."""


class Convicted(NamedTuple):
    """The comparison with the primary blames the canary."""

    sentence: str
    data: tuple[tuple[str, Any], ...] = ()
    """The numbers behind it."""


class Proven(NamedTuple):
    """The comparison has shown that a stage's canary may be given more."""

    step: int
    sentence: str
    tick: Tick = Tick()
    """The check with which the step is taken."""


class Reachable(NamedTuple):
    """Whether any endpoint of the canary, and of the primary, takes connections."""

    canary: bool
    primary: bool = True
    detail: str = ""
    """What is wrong with the canary."""
    primary_detail: str = ""
    """What is wrong with the primary."""


class Verb(NamedTuple):
    """An operator's word: pause, resume, promote, abort, undo, approve, deny, set-weight."""

    name: str
    by: str = ""
    weight: int = 0
    """Of set-weight."""
    full: bool = False
    """Of promote."""


class Adopted(NamedTuple):
    """The file now names the promoted upstream as the primary."""


Event = Begin | Tick | Answer | Checked | Breached | Convicted | Proven | Reachable | Verb | Adopted


# --- commands --------------------------------------------------------------------------------------------------------
class Ask(NamedTuple):
    """Send the webhooks of this type and report with `Answer`; `hand-back` is the promotion's own."""

    type: str
    round: int


class Measure(NamedTuple):
    """Measure and judge every metric and report with `Checked`."""

    round: int
    side: str = "canary"
    """Who is judged: canary, or primary once that has been updated; there is nobody to compare it with."""


class Alert(NamedTuple):
    """Send news to people."""

    severity: str
    """info | warn | error."""
    text: str
    key: str
    """What it is about: the same key is never sent twice in one run unless something else was sent between."""


class Record(NamedTuple):
    """Append to the history, log it, publish it, and send it to `event` hooks."""

    kind: str
    """phase | weight | check | gate | hook | verb | rollback | note."""
    text: str
    warning: bool = False
    data: tuple[tuple[str, Any], ...] = ()
    """Numbers that belong to it, by name."""


Command = Ask | Measure | Alert | Record
