"""Spans of the week: `mon-fri 09:00-17:00 Europe/Berlin`.

Times are those that a clock on the wall shows there: when clocks are put forward, a minute that does not come is simply
never reached, and an hour that comes twice counts both times.
"""

import re
from typing import Annotated, Any, Final
from zoneinfo import ZoneInfo

from splitproxy.config.fields import Checked, text, wrong
from splitproxy.config.problems import clipped

_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_EXAMPLE: Final = "mon-fri 09:00-17:00 Europe/Berlin"
_FORM: Final = re.compile(
    r"(?:(?P<days>[A-Za-z,-]+) +)?(?P<start>[0-9]{1,2}:[0-9]{2})-(?P<end>[0-9]{1,2}:[0-9]{2})"
    r" +(?P<zone>[A-Za-z0-9_+/-]+)",
    re.ASCII,
)
_MIDNIGHT: Final = 24 * 60


def window(value: Any) -> dict[str, Any]:
    """Return the days (0 is Monday), the minutes of the day and the zone of a span of the week."""
    given = str(text(value, f"a span such as {_EXAMPLE} is wanted"))
    found = _FORM.fullmatch(given)
    if found is None:
        raise wrong(f"a span such as {_EXAMPLE} is wanted, not {clipped(given)}", _hint(given))
    start, end = _minutes(found["start"]), _minutes(found["end"])
    if start == _MIDNIGHT:
        raise wrong("a day begins at 00:00", "write 00:00 and the day after")
    if start == end:
        raise wrong(f"{clipped(given)} ends where it begins", "the whole day is 00:00-24:00")
    return {"days": _days(found["days"]), "start": start, "end": end, "zone": _zone(found["zone"])}


def _hint(given: str) -> str:
    if re.search(r"[0-9]:[0-9]{2} *$", given):
        return f"say whose time it is: write {clipped(given.rstrip() + ' UTC')}"
    return ""


def _minutes(clock: str) -> int:
    hours, minutes = (int(part) for part in clock.split(":"))
    if minutes > 59 or hours * 60 + minutes > _MIDNIGHT:
        raise wrong(f"a time from 00:00 to 24:00 is wanted, not {clipped(clock)}")
    return hours * 60 + minutes


def _days(text: str | None) -> list[int]:
    if text is None:
        return list(range(7))
    days: set[int] = set()
    for part in text.lower().split(","):
        first, _, last = part.partition("-")
        if first not in _DAYS or (last or first) not in _DAYS or part.endswith("-"):
            raise wrong(f"a day such as mon or mon-fri is wanted, not {clipped(part)}", "days are mon to sun")
        begin, end = _DAYS.index(first), _DAYS.index(last or first)
        days.update(day % 7 for day in range(begin, end + 1 + (7 if end < begin else 0)))
    return sorted(days)


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ValueError, LookupError, OSError):
        hint = "write a name such as Europe/Berlin or UTC; the zones are those of this machine (package tzdata)"
        raise wrong(f"there is no time zone {clipped(name)}", hint) from None
    return name


Window = Annotated[
    dict[str, Any],
    Checked(window, {"type": "string", "examples": [_EXAMPLE, "sat,sun 22:00-04:00 UTC", "09:00-17:00 UTC"]}),
]
