"""What one plain word of YAML means here: YAML 1.2's core schema without its surprises.

`true` and `false` are the only booleans; `1`, `-2`, `1.5` and `1e3` are numbers; an empty word, `~` and `null` are
null, which no key takes. Everything else is the text that was typed: `no`, `on`, `1:30`, `010`, `0x1F`, `1_000`,
`2026-11-23`. Readers of YAML disagree about those, so where a number is wanted they are refused, never guessed.
"""

import re
from collections.abc import Mapping
from typing import Final

Scalar = str | int | float | bool | None

_NULLS: Final = frozenset(("", "~", "null", "Null", "NULL"))
_BOOLEANS: Final = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER: Final = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})", re.ASCII)
_FLOAT: Final = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})?(?:\.[0-9]{1,18})?(?:[eE][-+]?[0-9]{1,2})?", re.ASCII)
_FIRST: Final = frozenset("+-.0123456789")

_REFERENCE: Final = re.compile(r"\$(\$\{)|\$\{([^}]*)(\}?)")
_VARIABLE: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL | re.ASCII)


class Substituted(str):
    """Text that came, wholly or partly, from the environment: typed by the key it stands at, not by its quotes."""

    __slots__ = ()


class UnsetVariable(Exception):
    """A `${…}` that cannot be replaced; `args` are the message and the hint."""


def resolve(text: str) -> Scalar:
    """Return the value of a plain (unquoted) scalar."""
    if text in _NULLS:
        return None
    if text[0] not in _FIRST:
        return _BOOLEANS.get(text, text)
    return number(text)


def number(text: str) -> str | int | float:
    """Return the number that `text` spells in the one way everybody reads alike, or `text` itself."""
    if _INTEGER.fullmatch(text):
        return int(text)
    if any(letter in "0123456789" for letter in text) and _FLOAT.fullmatch(text) and text[-1:] != ".":
        return float(text)
    return text


def retyped(text: str) -> Scalar:
    """Return a substituted text as a number or a boolean where it spells one: for keys that want one."""
    return _BOOLEANS.get(text, number(text))


def substitute(text: str, environment: Mapping[str, str], used: dict[str, str | None]) -> str:
    """Replace every `${NAME}` and `${NAME:-default}` in `text`, and note in `used` what was looked up.

    As in a shell, the default also stands in for an empty value; `$${` is a literal `${`. Raises `UnsetVariable`.
    """

    def replaced(found: re.Match[str]) -> str:
        if found[1]:
            return "${"
        variable = _VARIABLE.fullmatch(found[2]) if found[3] else None
        if variable is None:
            raise UnsetVariable(
                "'${' begins a variable that is not well formed", "write ${NAME} or ${NAME:-default}, and $${ for '${'"
            )
        name, default = variable[1], variable[2]
        value = used[name] = environment.get(name)
        if default is not None:
            return value or default
        if value is None:
            raise UnsetVariable(
                f"the environment variable {name} is not set", f"set it, or give a default: ${{{name}:-value}}"
            )
        return value

    return _REFERENCE.sub(replaced, text)
