"""Releases that go out by themselves: what is released, where, and what happens in the end."""

from typing import Annotated, Any, Final, Literal

from splitproxy.config.analysis import Analysis
from splitproxy.config.fields import (
    Boolean,
    Checked,
    Duration,
    Items,
    Name,
    Reference,
    RouteReference,
    named,
    text,
    wrong,
)
from splitproxy.config.hooks import HandBackWebhook
from splitproxy.config.paths import path_value
from splitproxy.config.spec import Spec
from splitproxy.config.windows import Window


def _file(value: Any) -> str:
    given = str(text(value, "the path of a file is wanted"))
    if not given or "\0" in given or given.endswith("/"):
        raise wrong(f"the path of a file is wanted, not {named(given)}")
    return given


class StateStore(Spec):
    """Where rollouts are remembered, so that they survive restarts and crashes."""

    path: Annotated[str, Checked(_file, {"type": "string", "minLength": 1})] = "splitproxy.db"
    """A file (SQLite); seen from $STATE_DIRECTORY, or where that is not set from the working directory."""


_LONGEST_REVISION: Final = 256


def _revision(value: Any) -> str:
    given = str(text(value, "a revision is text"))
    if not given or not given.isprintable() or len(given) > _LONGEST_REVISION:
        wanted = f"a revision is printable text of 1 to {_LONGEST_REVISION} characters"
        raise wrong(f"{wanted}, not {named(given)}", "" if given else "leave the key out where there is none")
    return given


Revision = Annotated[str, Checked(_revision, {"type": "string", "minLength": 1, "maxLength": _LONGEST_REVISION})]


def _request_path(value: Any) -> str:
    return path_value(str(text(value, "a path such as /ready is wanted")))


class Readiness(Spec):
    """How it is seen that the primary was updated."""

    path: Annotated[str, Checked(_request_path, {"type": "string", "pattern": "^/"})] | None = None
    """All its endpoints must answer a GET of it with 2xx; connections are enough when left out."""


class Promotion(Spec):
    """What happens to a canary that has passed."""

    mode: Literal["swap", "handBack"] = "swap"
    """`swap`: the canary keeps the traffic. `handBack`: a webhook updates the primary, traffic returns to it."""
    bake_time: Duration = 0.0
    """How long checks go on after the promotion, with a way back; 0s is off."""
    webhook: HandBackWebhook | None = None
    """Of `handBack`: who updates the primary."""
    readiness: Readiness | None = None
    """Of `handBack`: how it is seen that the primary is ready."""


class Rollback(Spec):
    """What becomes of the canary's clients when it loses its share."""

    tunnels: Literal["keep", "close"] = "keep"
    """Upgraded connections, such as WebSockets: `keep` lets them end by themselves, `close` ends them at once."""


class Rollout(Spec):
    """A canary that takes the place of a primary, or does not."""

    name: Name
    """For commands, the API and metrics; unique."""
    route: RouteReference
    """The route whose traffic it moves; no other rollout moves that."""
    primary: Reference
    """The upstream that serves now; the rules of the route that name it belong to this rollout."""
    canary: Reference
    """The upstream that is to take its place."""
    revision: Revision | None = None
    """What is released: a new value starts a rollout. Left out, only `start` and changed endpoints do."""
    promotion: Promotion = Promotion()
    """What happens in the end."""
    rollback: Rollback = Rollback()
    """What happens when traffic goes back to the primary."""
    progress_deadline: Duration = 600.0
    """A canary that cannot be reached for longer has failed; 0s is off."""
    skip_analysis: Boolean = False
    """Promote without any check."""
    allowed_windows: Items[Window] = ()
    """When it may begin and advance, such as `mon-fri 09:00-17:00 Europe/Berlin`; always when left out."""
    analysis: Analysis | None = None
    """How the canary is let in and judged; may be left out with skipAnalysis alone."""
