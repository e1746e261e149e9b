"""The kinds of value that keys take: each says in words what it wants, and in JSON Schema for editors.

A validator returns the value in its one normal form (seconds, bytes, lower case), or raises `PydanticCustomError`
through `wrong`, whose message and hint reach the operator unchanged.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import Annotated, Any, Final, TypeVar

from pydantic import AfterValidator, GetCoreSchemaHandler, GetJsonSchemaHandler, Strict
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from splitproxy.config.problems import clipped
from splitproxy.config.scalars import Substituted, number, retyped

T = TypeVar("T")
Items = Annotated[tuple[T, ...], Strict(strict=False)]
"""A list in the file, a tuple in the model."""


@dataclass(frozen=True, slots=True, eq=False)
class Checked:
    """Metadata of a type: what a value must be, as a function and as JSON Schema."""

    validate: Callable[[Any], Any]
    schema: dict[str, Any]

    def __get_pydantic_core_schema__(self, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.validate)

    def __get_pydantic_json_schema__(self, _schema: CoreSchema, _handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return dict(self.schema)


def wrong(message: str, hint: str = "") -> PydanticCustomError:
    """Return an error whose message and hint reach the operator."""
    return PydanticCustomError("wrong", "{message}", {"message": message, "hint": hint})


def text(value: Any, wanted: str) -> str:
    """Return `value`, which must be text."""
    if isinstance(value, str):
        return value
    raise PydanticCustomError("wanted_text", "{wanted}", {"wanted": wanted})


# --- numbers ---------------------------------------------------------------------------------------------------------
def typed(value: Any) -> Any:
    """Return a value from the environment as the number or boolean that it spells, any other as it is."""
    return retyped(value) if isinstance(value, Substituted) else value


def _number(value: Any, wanted: str) -> int | float:
    value = typed(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong(f"{wanted}, not {named(value)}", _number_hint(value) if isinstance(value, str) else "")
    return value


def _number_hint(value: str) -> str:
    if isinstance(number(value), int | float):
        return f"write {value}, without quotes"
    bare = value.replace("_", "").lstrip("0")
    return f"write {bare}" if bare and isinstance(number(bare), int | float) else ""


def named(value: Any) -> str:
    """Return a value as a message calls it."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return f"the text {clipped(value)}"
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case _:
            return str(value)


def _integer(low: int, high: int) -> Callable[[Any], int]:
    wanted = f"a whole number from {low} to {high} is wanted"

    def validate(value: Any) -> int:
        given = _number(value, wanted)
        if isinstance(given, int) and low <= given <= high:
            return given
        raise wrong(f"{wanted}, not {named(given)}")

    return validate


def finite(value: Any) -> int | float:
    """Return a number that is neither infinite nor beyond reason."""
    wanted = "a number is wanted"
    given = _number(value, wanted)
    if not isfinite(given) or abs(given) > 1e15:
        raise wrong(f"{wanted}, not {named(given)}")
    return given


def _quantile(value: Any) -> int | float:
    wanted = "a number between 0 and 1 is wanted"
    given = _number(value, wanted)
    if not 0 < given < 1:
        raise wrong(f"{wanted}, not {named(given)}", f"write {given / 100:g}" if 1 < given < 100 else "")
    return given


def _decimal(high: int) -> Callable[[Any], int | float]:
    wanted = f"a number from 0 to {high} with at most two decimals is wanted"

    def validate(value: Any) -> int | float:
        given = _number(value, wanted)
        if not 0 <= given <= high or abs(given * 100 - round(given * 100)) > 1e-6:
            raise wrong(f"{wanted}, not {named(given)}")
        return int(given) if given == int(given) else given

    return validate


def whole(low: int, high: int) -> Checked:
    """Want a whole number within bounds."""
    return Checked(_integer(low, high), {"type": "integer", "minimum": low, "maximum": high})


def _boolean(value: Any) -> bool:
    value = typed(value)
    if isinstance(value, bool):
        return value
    words = {"yes": "true", "on": "true", "no": "false", "off": "false"}
    hint = f"write {words[value.lower()]}" if isinstance(value, str) and value.lower() in words else ""
    raise wrong(f"true or false is wanted, not {named(value)}", hint)


Boolean = Annotated[bool, Checked(_boolean, {"type": "boolean"})]
Weight = Annotated[int | float, Checked(_decimal(1_000_000), {"type": "number", "minimum": 0, "maximum": 1_000_000})]
Percent = Annotated[int | float, Checked(_decimal(100), {"type": "number", "minimum": 0, "maximum": 100})]
Number = Annotated[int | float, Checked(finite, {"type": "number"})]
Quantile = Annotated[int | float, Checked(_quantile, {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1})]

# --- durations and sizes ---------------------------------------------------------------------------------------------
_DURATION: Final = re.compile(r"(?:[0-9]{1,5}(?:h|ms|m|s)){1,4}", re.ASCII)  # GEP-2257
_DURATION_PART: Final = re.compile(r"([0-9]+)(h|ms|m|s)", re.ASCII)
_MILLISECONDS: Final = {"h": 3600_000, "m": 60_000, "s": 1000, "ms": 1}


def duration(value: Any) -> float:
    """Return the seconds of a Gateway API duration (GEP-2257): `500ms`, `1m30s`, `0s`."""
    wanted = "a duration such as 500ms, 10s or 1m30s is wanted"
    if not isinstance(value, str):
        whole_number = isinstance(value, int) and not isinstance(value, bool)
        raise wrong(f"{wanted}, not {named(value)}", f"write {value}s" if whole_number else "")
    if not _DURATION.fullmatch(value):
        raise wrong(f"{wanted}, not {named(value)}", _duration_hint(value))
    return sum(int(count) * _MILLISECONDS[unit] for count, unit in _DURATION_PART.findall(value)) / 1000


def spelled_duration(seconds: float) -> str:
    """Return seconds as a duration, the largest units first (GEP-2257)."""
    left = round(seconds * 1000)
    spelled = ""
    for unit, milliseconds in _MILLISECONDS.items():
        count, left = divmod(left, milliseconds)
        spelled += f"{count}{unit}" if count else ""
    return spelled or "0s"


def _duration_hint(value: str) -> str:
    clock = re.fullmatch(r"([0-9]{1,4}):([0-9]{2})", value, re.ASCII)
    if clock:
        return f"write {int(clock[1])}m{int(clock[2])}s"
    fraction = re.fullmatch(r"([0-9]{1,3})\.([0-9]{1,3})s", value, re.ASCII)
    if fraction:
        return f"write {int(fraction[1]) * 1000 + int(fraction[2].ljust(3, '0'))}ms"
    return "the units are h, m, s and ms, in whole numbers"


_DURATION_SCHEMA: Final = {
    "type": "string",
    "pattern": "^([0-9]{1,5}(h|m|s|ms)){1,4}$",
    "examples": ["500ms", "10s", "1m30s"],
}
Duration = Annotated[float, Checked(duration, _DURATION_SCHEMA)]


def lasting(least: float) -> Checked:
    """Want a duration of at least so many seconds."""

    def validate(value: Any) -> float:
        seconds = duration(value)
        if seconds < least:
            raise wrong(f"at least {spelled_duration(least)} is wanted, not {named(value)}")
        return seconds

    return Checked(validate, _DURATION_SCHEMA)


_LONGEST_AGE: Final = 10 * 365 * 86400


def _age(value: Any) -> int:
    given = typed(value)
    if isinstance(given, int) and not isinstance(given, bool) and 0 <= given <= _LONGEST_AGE:
        return given
    if isinstance(given, str) and (seconds := duration(given)) == int(seconds):
        return int(seconds)
    raise wrong(f"whole seconds, or a duration such as 24h, are wanted, not {named(given)}")


Age = Annotated[
    int, Checked(_age, {"anyOf": [{"type": "integer", "minimum": 0, "maximum": _LONGEST_AGE}, _DURATION_SCHEMA]})
]
"""Whole seconds, written as a number or as a duration."""

_SIZE: Final = re.compile(r"([0-9]{1,15})(Ki|Mi|Gi)?", re.ASCII)
_BYTES: Final = {None: 1, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}


def _size(low: int, high: int) -> Callable[[Any], int]:
    wanted = f"a size such as 64Ki or 1Mi from {_spelled_size(low)} to {_spelled_size(high)} is wanted"

    def validate(value: Any) -> int:
        if isinstance(value, str) and (found := _SIZE.fullmatch(value)):
            size = int(found[1]) * _BYTES[found[2]]
        elif isinstance(value, int) and not isinstance(value, bool):
            size = value
        else:
            hint = (_number_hint(value) or "the units are Ki, Mi and Gi") if isinstance(value, str) else ""
            raise wrong(f"{wanted}, not {named(value)}", hint)
        if not low <= size <= high:
            raise wrong(f"{wanted}, not {named(value)}")
        return size

    return validate


def _spelled_size(size: int) -> str:
    for unit, factor in (("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)):
        if size and size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)


def size(low: int, high: int) -> Checked:
    """Want a number of bytes within bounds."""
    number = {"type": "integer", "minimum": low, "maximum": high}
    return Checked(_size(low, high), {"anyOf": [number, {"type": "string", "pattern": "^[0-9]{1,15}(Ki|Mi|Gi)?$"}]})


# --- names -----------------------------------------------------------------------------------------------------------
def _matching(pattern: str, wanted: str) -> Checked:
    """Want a text that matches `pattern` as a whole."""
    compiled = re.compile(pattern, re.ASCII)

    def validate(value: Any) -> str:
        given = text(value, wanted)
        if not compiled.fullmatch(given):
            raise wrong(f"{wanted}, not {named(given)}")
        return str(given)

    return Checked(validate, {"type": "string", "pattern": f"^(?:{pattern})$"})


_TOKEN: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}"  # RFC 9110 §5.6.2


def _reference(what: str) -> Checked:
    """Want a name that is defined elsewhere in the file."""
    return Checked(lambda value: str(text(value, f"the name of {what} is wanted")), {"type": "string"})


Name = Annotated[
    str,
    _matching(
        r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}",
        "a name of 1 to 63 letters, digits, '.', '_' or '-', the first a letter or digit, is wanted",
    ),
]
HeaderName = Annotated[str, _matching(_TOKEN, "a header name is wanted")]
CookieName = Annotated[str, _matching(_TOKEN, "a cookie name is wanted")]
Reference = Annotated[str, _reference("an upstream")]
RouteReference = Annotated[str, _reference("a route")]
DefinitionReference = Annotated[str, _reference("its definition")]


# --- texts -----------------------------------------------------------------------------------------------------------
def _free(wanted: str, longest: int, *, ascii_only: bool = False, lines: bool = False, least: int = 0) -> Checked:
    """Want a text without control characters; with `lines` it may have several."""
    allowed = "\t\n" if lines else "\t"

    def validate(value: Any) -> str:
        given = text(value, wanted)
        for index, letter in enumerate(given):
            if (letter < " " and letter not in allowed) or letter == "\x7f" or (ascii_only and letter > "~"):
                what = "CR, LF and NUL" if letter in "\r\n\0" else f"the character U+{ord(letter):04X}"
                raise wrong(f"{wanted}; {what} may not stand in it (at character {index + 1})")
        if len(given) > longest:
            raise wrong(f"{wanted} of at most {longest} characters, not {len(given)}")
        if len(given) < least:
            raise wrong(f"{wanted}, not an empty one")
        return str(given)

    return Checked(validate, {"type": "string", **({"minLength": least} if least else {}), "maxLength": longest})


def _trimmed(value: str) -> str:
    if value != value.strip(" \t"):
        raise wrong("a header value neither begins nor ends with a space or tab (RFC 9110 §5.5)")
    return value


HeaderValue = Annotated[str, _free("a header value is wanted", 4096, ascii_only=True), AfterValidator(_trimmed)]
CookieValue = Annotated[str, _free("a cookie value is wanted", 4096, ascii_only=True)]
QueryName = Annotated[str, _free("the name of a query parameter is wanted", 256)]
QueryValue = Annotated[str, _free("a value is wanted", 1024)]
Text = Annotated[str, _free("text is wanted", 4096)]
Lines = Annotated[str, _free("text is wanted", 65536, lines=True)]
"""Text of one or more lines."""
Label = Annotated[str, _free("a name is wanted", 128, least=1)]
"""What people call a thing; spaces may stand in it."""
