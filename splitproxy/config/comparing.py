"""How a canary is compared with its primary, request by request (`analysis.compare`)."""

from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, GetJsonSchemaHandler
from pydantic_core import CoreSchema

from splitproxy.config.fields import Boolean, Checked, Duration, finite, named, typed, whole, wrong
from splitproxy.config.mirroring import Mirroring
from splitproxy.config.spec import Spec

_LARGEST_TOLERANCE: Final = 10.0


def _chance(value: Any) -> float:
    wanted = "a probability above 0 and at most 0.5 is wanted, such as 0.001"
    given = finite(value)
    if not 0 < given <= 0.5:
        raise wrong(f"{wanted}, not {named(value)}", f"write {given / 100:g}" if 0.5 < given <= 50 else "")
    return float(given)


def _factor(value: Any) -> float:
    wanted = f"a factor from 1 to {_LARGEST_TOLERANCE:g} is wanted, such as 1.1 for ten percent"
    given = finite(value)
    if not 1 <= given <= _LARGEST_TOLERANCE:
        raise wrong(f"{wanted}, not {named(value)}", f"write {1 + given:g}" if 0 < given < 1 else "")
    return float(given)


Chance = Annotated[float, Checked(_chance, {"type": "number", "exclusiveMinimum": 0, "maximum": 0.5})]
Factor = Annotated[float, Checked(_factor, {"type": "number", "minimum": 1, "maximum": _LARGEST_TOLERANCE})]


class Tolerate(Spec):
    """How much worse than the primary the canary may be."""

    errors: Factor = 1.1
    """How many times likelier a failure may be."""
    latency: Factor = 1.1
    """How many times longer an answer may take."""
    delay: Duration = 0.005
    """By how much longer it may take in any case: a quick service is slower by less than anybody notices."""


class Compare(Spec):
    """The comparison of the canary with the primary; `true` is all its defaults, `false` switches it off."""

    enabled: Boolean = True
    """Whether the canary is compared at all, and a check that the primary fails too is inconclusive."""
    alpha: Chance = 0.001
    """How likely a canary that is no worse than tolerated may be rolled back by evidence, per rollout."""
    beta: Chance = 0.05
    """How likely a canary that is worse than a step's margins may pass its gate by evidence."""
    tolerate: Tolerate = Tolerate()
    """What is not held against the canary."""
    min_bad_events: Annotated[int, whole(1, 1_000_000)] = 3
    """Failures of the canary before a verdict by evidence."""
    warmup: Duration = 10.0
    """For how long after its first request latency is left out; errors never are."""
    pace: Literal["interval", "evidence"] = "interval"
    """`interval`: steps come with passed checks. `evidence`: a step is taken as soon as it is shown to be safe."""
    min_dwell: Duration = 5.0
    """With `pace: evidence`, how long a step lasts at least."""
    mirror: Mirroring = Mirroring()
    """What of the answers to copied requests is compared."""


def _switched(value: Any) -> Any:
    """Return what `true` and `false` stand for."""
    value = typed(value)
    return {"enabled": value} if isinstance(value, bool) else value


@dataclass(frozen=True, slots=True)
class _OrSwitch:
    """Lets editors know that a boolean will do."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [{"type": "boolean"}, handler(schema)]}


Comparison = Annotated[Compare, BeforeValidator(_switched), _OrSwitch()]
