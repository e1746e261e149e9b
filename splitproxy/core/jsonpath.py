"""The place of one value in a JSON document: `$.data.items[0].value`; names with other characters as `["my-key"]`."""

import re
from typing import Any, Final

Path = tuple[str | int, ...]
"""Member names and indices, from the outside in; an index below 0 counts from the end."""

_STEP: Final = re.compile(
    r"""\.?(?P<name>[A-Za-z_][\w-]*) | \[(?P<index>-?\d{1,9})\] | \[(?P<quote>['"])(?P<quoted>.*?)(?P=quote)\]""",
    re.VERBOSE | re.ASCII,
)


def parse(text: str) -> Path:
    """Return the path that `text` writes; a leading `$` may be left out, `$` alone is the whole document.

    Raises ValueError that names the character where it makes no sense.
    """
    if not text:
        raise ValueError("it is empty: '$' is the whole document")
    steps: list[str | int] = []
    place = 1 if text.startswith("$") else 0
    while place < len(text):
        found = _STEP.match(text, place)
        # Without a dot a name may stand at the very beginning alone: `a.b`, but neither `$a` nor `[0]a`.
        if found is None or (found["name"] and place > 0 and text[place] != "."):
            raise ValueError(f"at character {place + 1}: expected '.name', '[0]' or '[\"name\"]'")
        steps.append(int(found["index"]) if found["index"] else found["name"] or found["quoted"])
        place = found.end()
    return tuple(steps)


def look_up(document: Any, path: Path) -> Any:
    """Return the value at `path`. Raises LookupError that says how far there was something."""
    value = document
    for count, step in enumerate(path):
        try:
            value = _inside(value, step)
        except LookupError:
            raise LookupError(f"there is no {_written(path[: count + 1])}") from None
    return value


def _inside(value: Any, step: str | int) -> Any:
    """Return a member of an object or an element of an array. Raises LookupError for anything else."""
    container: Any = value if isinstance(value, dict if isinstance(step, str) else list) else {}
    return container[step]


def _written(path: Path) -> str:
    """Return `path` as people write it."""
    return "$" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
