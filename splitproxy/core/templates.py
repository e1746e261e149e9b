"""Names in the queries of metric templates, as Flagger has them: `{{ target }}`, `{{ variables.x }}` and so on."""

import math
import re
from collections.abc import Mapping
from typing import Any, Final

NAMES: Final = frozenset({"name", "namespace", "target", "service", "route", "interval", "primary", "canary"})
"""What may stand between the braces, beside `variables.` and the key of a variable."""

_FOREIGN: Final = frozenset({"ingress"})
_TOKEN: Final = re.compile(r"\{\{(?P<inner>(?:(?!\{\{|\}\}).)*)(?P<end>\}\})?", re.DOTALL)
_VARIABLE: Final = re.compile(r"variables\.[A-Za-z0-9._-]+")


def variables_of(query: str) -> set[str]:
    """Return the names that `query` uses, variables as `variables.x`.

    Raises ValueError with the place and what to do: braces that are not closed, no name or an unknown one in them.
    """
    return {_name(query, found) for found in _TOKEN.finditer(query)}


def render(query: str, values: Mapping[str, str]) -> str:
    """Return `query` with every name replaced by its value.

    Raises ValueError as `variables_of` does, and for a name without a value.
    """
    return _TOKEN.sub(lambda found: _value(query, found, values), query)


def values(rollout: Mapping[str, Any], seconds: float, variables: Mapping[str, str]) -> dict[str, str]:
    """Return the value of every name for a query of `rollout`, in its plain form, over a window of `seconds`."""
    return {
        "name": rollout["name"],
        "namespace": "",  # nobody has one here
        "target": rollout["canary"],
        "service": rollout["route"],
        "route": rollout["route"],
        "primary": rollout["primary"],
        "canary": rollout["canary"],
        "interval": duration(seconds),
        **{f"variables.{name}": value for name, value in variables.items()},
    }


def duration(seconds: float) -> str:
    """Return a length of time as PromQL writes it: whole seconds where it is that, else milliseconds, at least one."""
    thousandths = max(1, math.ceil(round(seconds * 1000, 3)))
    return f"{thousandths // 1000}s" if thousandths % 1000 == 0 else f"{thousandths}ms"


def _value(query: str, found: re.Match[str], values: Mapping[str, str]) -> str:
    name = _name(query, found)
    if name not in values:
        raise ValueError(f"at character {found.start() + 1}: '{name}' has no value: give it in templateVariables")
    return values[name]


def _name(query: str, found: re.Match[str]) -> str:
    """Return the name in the braces that were found."""
    place = f"at character {found.start() + 1}"
    if not found["end"]:
        raise ValueError(f"{place}: '{{{{' is not closed: write '{{{{ name }}}}'")
    name = found["inner"].strip()
    if name in NAMES or _VARIABLE.fullmatch(name):
        return name
    if name in _FOREIGN:
        raise ValueError(f"{place}: '{name}' means nothing outside Kubernetes: write the value itself")
    known = ", ".join((*sorted(NAMES), "variables.x"))
    raise ValueError(f"{place}: '{name}' is unknown; known are {known}")
