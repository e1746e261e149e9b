"""How verbs print: aligned text anywhere, tables and colour on a terminal."""

import os
import shutil
import sys
from collections.abc import Collection, Iterable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO

from splitproxy import tables
from splitproxy.cli.progress import working
from splitproxy.errors import ConfigError

if TYPE_CHECKING:  # loading it takes longer than most verbs do
    from splitproxy.config import Loaded, Problem

_COLOURS: Final = {"error": 31, "warning": 33}
WORDS: Final = {
    **dict.fromkeys(("pass", "Succeeded", "ok", "healthy"), 32),
    **dict.fromkeys(("fail", "Failed", "error", "unhealthy", "ejected"), 31),
    **dict.fromkeys(("inconclusive", "warning", "Paused", "panic"), 33),
}
"""Words that have a colour of their own where they are all of a cell."""

_FACT: Final = " " * 13
"""As wide as what stands before the text of a fact."""
_LEAST_ROOM: Final = 20


def loaded(path: str) -> "Loaded":
    """Load a configuration with this process's environment. Raises ConfigError."""
    with working(f"Reading {path}"):
        from splitproxy.config import load

        return load(Path(path), os.environ)


def reasons(error: ConfigError) -> "list[Problem]":
    """Return the problems that a ConfigError of `loaded` carries."""
    problems: list[Problem] = error.args[0]
    return problems


def show_problems(problems: "Iterable[Problem]", word: str, stream: TextIO) -> None:
    """Print problems, each led by `word` ("error" or "warning")."""
    label = f"\x1b[{_COLOURS[word]}m{word}:\x1b[0m" if _styled(stream) else f"{word}:"
    for problem in problems:
        print(f"{label} {problem}", file=stream)


def show_table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], *, whole: Collection[int] = (), leaving: Sequence[int] = ()
) -> None:
    """Print a table on standard output.

    On a terminal it is as wide as that: what is too long goes on in further lines; or, with `leaving`, as in
    `tables.fitted`.
    """
    if not sys.stdout.isatty():
        print("\n".join(table_lines(heads, rows)))
        return
    width = shutil.get_terminal_size().columns
    lines = [heads, *rows]
    head, *fitting = (
        tables.fitted(lines, width, whole=whole, leaving=leaving) if leaving else tables.wrapped(lines, width)
    )
    print(_in_bold(tables.GAP.join(head).rstrip()))
    for line in fitting:
        print(tables.GAP.join(map(coloured, line)).rstrip())


def show_facts(facts: Iterable[tuple[str, str]]) -> None:
    """Print pairs of a name and a text on standard output; on a terminal long texts stay in their column."""
    room = shutil.get_terminal_size().columns - len(_FACT) if sys.stdout.isatty() else 0
    for name, text in facts:
        lines = tables.folded(text, room) if room > _LEAST_ROOM else [text]
        print("\n".join(f"  {head:11}{line}" for head, line in zip_longest([name], lines, fillvalue="")))


def table_lines(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a table as aligned lines without colour."""
    return [tables.GAP.join(line).rstrip() for line in tables.aligned([heads, *rows])]


def coloured(text: str) -> str:
    """Return `text` for standard output, in its colour if it is a word that has one."""
    colour = WORDS.get(text.strip())
    return f"\x1b[{colour}m{text}\x1b[0m" if colour and _styled(sys.stdout) else text


def _in_bold(text: str) -> str:
    return f"\x1b[1m{text}\x1b[0m" if _styled(sys.stdout) else text


def _styled(stream: TextIO) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def counted(number: int, word: str) -> str:
    """Return `1 error`, `2 errors`."""
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
