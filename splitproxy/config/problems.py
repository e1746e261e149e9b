"""What is wrong with a configuration, where, and what to write instead."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from typing import Any

_WINDOW = 160
"""Characters shown of a long source line."""
_SHOWN = 60
"""Characters shown of a value."""


def printable(text: str, instead: str) -> str:
    """Return `text` with `instead` for every character that might move or colour a terminal."""
    return text if text.isprintable() else "".join(letter if letter.isprintable() else instead for letter in text)


def clipped(value: object) -> str:
    """Return `value` as it may stand in a message: printable, quoted when it is text, and not too long."""
    text = value if isinstance(value, str) else str(value)
    text = printable(text[: _SHOWN + 1], "\N{REPLACEMENT CHARACTER}")
    return f"'{text[:_SHOWN]}…'" if len(text) > _SHOWN else f"'{text}'"


@dataclass(frozen=True, slots=True)
class Problem:
    """One error or warning; `str()` gives it as people read it, with the source line and a caret."""

    file: str
    line: int
    """From 1; 0 when the problem is the file as a whole."""
    column: int
    """From 1; 0 when the problem is the file as a whole."""
    path: str
    """The key path, such as `routes[0].rules[2].backendRefs[0].weight`; empty when there is none."""
    message: str
    hint: str = ""
    """What to write instead; empty when there is no good guess."""
    source: str = ""
    """The source line, or the part of a long one around the column."""
    caret: int = 0
    """Where in `source` the column is, from 0."""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}: " if self.line else f"{self.file}: "
        lines = [f"{place}{self.path}: {self.message}" if self.path else f"{place}{self.message}"]
        if self.source.strip():
            number = str(self.line)
            lines += [f"  {number} | {self.source}", f"  {' ' * len(number)} | {' ' * self.caret}^"]
        if self.hint:
            lines.append(f"  hint: {self.hint}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return asdict(self)


def excerpt(line: str, column: int) -> tuple[str, int]:
    """Return the printable part of `line` around `column` (from 0), and the column within it."""
    start = max(0, column - _WINDOW // 2) if len(line) > _WINDOW else 0
    part = line[start : start + _WINDOW]
    return printable(part, " ").rstrip(), column - start


class Nearest:
    """Suggests the known word nearest to a misspelt one, with bounded work over all questions of one load."""

    def __init__(self, comparisons: int = 50_000) -> None:
        self._left = comparisons

    def __call__(self, word: str, known: Iterable[str]) -> str:
        """Return `did you mean 'x'?`, or nothing when no word is near."""
        near = self.word(word, known)
        return f"did you mean '{near}'?" if near else ""

    def word(self, word: str, known: Iterable[str]) -> str:
        """Return the nearest word, or nothing when none is near."""
        candidates = list(known)
        if not word or len(word) > _WINDOW or len(candidates) > self._left:
            return ""
        self._left -= len(candidates)
        folded = {candidate.casefold(): candidate for candidate in candidates}
        close = get_close_matches(word.casefold(), folded, n=1, cutoff=0.6)
        return folded[close[0]] if close else ""
