"""What of the answers to copied requests is compared (`analysis.compare.mirror`)."""

from typing import Annotated, Any, Literal

from splitproxy.config.fields import Checked, HeaderName, Items, Reference, named, size, text, whole, wrong
from splitproxy.config.spec import Spec
from splitproxy.core.differences import rule


def _place(value: Any) -> str:
    given = str(text(value, "a place such as $.user.email, header:etag or status, or a bare name is wanted"))
    try:
        rule(given)
    except ValueError as error:
        raise wrong(f"no place of an answer is {named(given)}: {error}") from error
    return given


Place = Annotated[str, Checked(_place, {"type": "string", "minLength": 1})]


class Mirroring(Spec):
    """How answers to copies are compared with those to the originals, beside status and latency."""

    bodies: Literal["ignore", "report", "act"] = "ignore"
    """Headers and bodies: `report` shows how they differ; `act` also rolls back by it, and needs a noiseTwin."""
    noise_twin: Reference | None = None
    """An upstream with a second instance of the primary's version: how it differs from the primary is noise."""
    headers: Items[HeaderName] = ("content-type", "content-encoding", "cache-control", "location")
    """Headers that are compared with bodies."""
    ignore: Items[Place] = ()
    """Places that may differ: `$.items[].updatedAt`, `header:etag`, `status`, or a bare name anywhere."""
    redact: Items[Place] = ()
    """Places whose values nobody is to see, beside everything that is called password, token or the like."""
    max_body_bytes: Annotated[int, size(1, 1 << 20)] = 1 << 16
    """Bodies beyond it are not looked into, only their sizes compared."""
    per_second: Annotated[int, whole(1, 1000)] = 10
    """How many pairs each worker compares beyond status class and latency."""
    examples: Annotated[int, whole(0, 20)] = 5
    """Pairs that are kept to be shown of each place that differs."""
