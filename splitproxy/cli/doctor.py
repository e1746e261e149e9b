"""`splitproxy doctor`: whether this machine, and a configuration on it, have what it takes; and what to do if not."""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Iterator
from typing import Final

from splitproxy import tables
from splitproxy.cli import machine, premises
from splitproxy.cli.admin_client import DEFAULT
from splitproxy.cli.machine import ERROR, WARNING, Finding
from splitproxy.cli.progress import working
from splitproxy.cli.showing import coloured, counted

_HEAD: Final = 21
"""Columns before a text."""
_WIDTH: Final = 120
"""Columns of a line where there is no terminal."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("-c", "--config", metavar="FILE", help="also look at its files and addresses; a file or folder")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--admin",
        metavar="URL",
        default=os.environ.get("SPLITPROXY_ADMIN"),
        help="where a proxy is expected to run (SPLITPROXY_ADMIN; else none is expected)",
    )


def run(options: argparse.Namespace) -> int:
    """Print what was found and return 0; 1 when anything is an error."""
    with working("Looking"):
        found = list(_findings(options))
    errors = sum(one.level == ERROR for one in found)
    warnings = sum(one.level == WARNING for one in found)
    if options.json:
        body = {"errors": errors, "warnings": warnings, "findings": [one._asdict() for one in found]}
        print(json.dumps(body, indent=2, ensure_ascii=False))
        return 1 if errors else 0
    for one in found:
        _print(one)
    print(f"{counted(errors, 'error')}, {counted(warnings, 'warning')}, {len(found) - errors - warnings} ok.")
    return 1 if errors else 0


def _findings(options: argparse.Namespace) -> Iterator[Finding]:
    yield from machine.findings()
    if options.config:
        yield from premises.of_file(options.config)
    if options.admin or not options.config:
        yield from premises.of_admin(options.admin or DEFAULT, expected=bool(options.admin))


def _print(one: Finding) -> None:
    width = (shutil.get_terminal_size().columns if sys.stdout.isatty() else _WIDTH) - _HEAD
    first, *more = tables.folded(one.text, max(width, 20))
    print(f"{coloured(f'{one.level:9}')}{one.what:12}{first}")
    for line in more:
        print(" " * _HEAD + line)
    for number, line in enumerate(tables.folded(one.remedy, max(width - 2, 20)) if one.remedy else ()):
        print(" " * _HEAD + ("  " if number else "→ ") + line)
