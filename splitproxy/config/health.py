"""How endpoints are watched: probes, ejection of those that fail, and what happens when few are left."""

import re
from typing import Annotated, Any, Final

from pydantic import AfterValidator

from splitproxy.config.addresses import Hostname
from splitproxy.config.fields import Checked, Items, Percent, lasting, named, text, typed, whole, wrong
from splitproxy.config.problems import clipped
from splitproxy.config.spec import Spec

_TARGET: Final = re.compile(r"/[!-\"$-~]{0,1023}", re.ASCII)
_RANGE: Final = re.compile(r"([1-5][0-9]{2})(?:-([1-5][0-9]{2}))?", re.ASCII)


def _target(value: Any) -> str:
    given = str(text(value, "a path such as /healthz is wanted"))
    if not given.startswith("/"):
        raise wrong(f"a path begins with '/', {clipped(given)} does not", f"write {clipped('/' + given)}")
    if not _TARGET.fullmatch(given):
        raise wrong("a path, perhaps with a query, of at most 1024 visible ASCII characters without '#' is wanted")
    return given


def _statuses(value: Any) -> str:
    wanted = "a status such as 204, or a range such as 200-299, is wanted"
    given = typed(value)
    if isinstance(given, bool) or not isinstance(given, int | str):
        raise wrong(f"{wanted}, not {named(given)}")
    found = _RANGE.fullmatch(str(given))
    if not found:
        raise wrong(f"{wanted}, not {named(given)}")
    first, last = int(found[1]), int(found[2] or found[1])
    if first < 200:
        raise wrong("an answer's status is 200 at least: those below it only announce one")
    if last < first:
        raise wrong(f"a range goes from the lower status to the higher, {given} does not", f"write {last}-{first}")
    return str(given)


def _some(statuses: tuple[Any, ...]) -> tuple[Any, ...]:
    if not statuses:
        raise wrong("without a status no answer would ever be a good one")
    return statuses


_STATUSES_SCHEMA: Final = {
    "anyOf": [
        {"type": "integer", "minimum": 200, "maximum": 599},
        {"type": "string", "pattern": "^[2-5][0-9]{2}(-[2-5][0-9]{2})?$"},
    ]
}
Statuses = Annotated[str, Checked(_statuses, _STATUSES_SCHEMA)]


class HealthCheck(Spec):
    """Probes: each worker asks each endpoint for itself, on a connection of their own."""

    path: Annotated[str, Checked(_target, {"type": "string", "pattern": '^/[!-"$-~]{0,1023}$'})]
    """Of a GET request; it may have a query."""
    host: Hostname | None = None
    """For the Host field; the endpoint's host and port without it."""
    statuses: Annotated[Items[Statuses], AfterValidator(_some)] = ("200-299",)
    """Statuses of a good answer, each a number or a range such as 200-299."""
    interval: Annotated[float, lasting(0.01)] = 10.0
    """From one probe to the next, give or take a tenth."""
    timeout: Annotated[float, lasting(0.001)] = 2.0
    """Time for a probe to be answered, the connection included."""
    healthy_threshold: Annotated[int, whole(1, 1000)] = 2
    """Good answers in a row that bring an unhealthy endpoint back."""
    unhealthy_threshold: Annotated[int, whole(1, 1000)] = 3
    """Failed probes in a row that take an endpoint out."""


class OutlierDetection(Spec):
    """Ejection: an endpoint whose answers fail one after the other gets no requests for a time."""

    consecutive_errors: Annotated[int, whole(1, 100_000)] = 5
    """Attempts in a row that ended in a 5xx, a reset, a timeout or without a connection."""
    interval: Annotated[float, lasting(0.01)] = 10.0
    """Time without an ejection that makes the next one shorter by one baseEjectionTime."""
    base_ejection_time: Annotated[float, lasting(0.01)] = 30.0
    """How long the first ejection is; each further one is longer by as much."""
    max_ejection_time: Annotated[float, lasting(0.01)] = 300.0
    """How long an ejection is at most."""
    max_ejection_percent: Percent = 10
    """Of the upstream's endpoints, ejected at one time; of two or more at least one. 0 ejects none."""
