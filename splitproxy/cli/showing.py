"""How verbs print: aligned text anywhere, tables and colour on a terminal."""

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO

from splitproxy.errors import ConfigError

if TYPE_CHECKING:  # loading it takes longer than most verbs do
    from splitproxy.config import Loaded, Problem

_COLOURS: Final = {"error": 31, "warning": 33}
_MOST_STYLED: Final = 500
"""Rows of a table that is laid out; a longer one is printed as plain text, at once."""


def loaded(path: str) -> "Loaded":
    """Load a configuration with this process's environment. Raises ConfigError."""
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


def show_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on standard output."""
    if _styled(sys.stdout) and len(rows) <= _MOST_STYLED:
        _show_styled(heads, rows)
        return
    for line in table_lines(heads, rows):
        print(line)


def table_lines(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a table as aligned lines without colour."""
    lines = [heads, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def _show_styled(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for head in heads:
        table.add_column(head, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def _styled(stream: TextIO) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR")


def counted(number: int, word: str) -> str:
    """Return `1 error`, `2 errors`."""
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
