"""`splitproxy completion bash|zsh|fish`: a script that makes the shell complete verbs, options and rollouts.

Verbs and options stand in the script; the rollouts are asked of the running proxy when they are wanted.
"""

import argparse
import re
import sys
from typing import Final, NamedTuple

from splitproxy.cli import VERBS, declare, shells
from splitproxy.cli.acting import rollout_names
from splitproxy.cli.admin_client import admin_argument

_NAMES_SECONDS: Final = 0.5
"""Nobody waits longer at the tab key."""
_KINDS: Final = {"NAME": "rollout", "FILE": "file"}
"""What stands for a value in the help -> what it is completed with."""


class Option(NamedTuple):
    """An option of a verb."""

    flags: tuple[str, ...]
    about: str
    valued: bool
    """Whether a value follows."""
    kind: str
    """What its values are: file, rollout, or nothing that is known."""
    choices: tuple[str, ...]
    """The values that there are; empty when any may do."""


class Verb(NamedTuple):
    """A verb, and what may follow it."""

    name: str
    about: str
    options: tuple[Option, ...]
    kind: str
    """Of its first operand: file, rollout, or nothing that is known."""
    choices: tuple[str, ...]
    """The first operands that there are; empty when any may do."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("shell", metavar="SHELL", nargs="?", choices=shells.SCRIPTS, help="bash, zsh or fish")
    parser.add_argument("--names", action="store_true", help="print the rollouts of the running proxy, for the script")
    admin_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Print the script, or the names; return 2 when neither is asked for."""
    if options.names:
        for name in rollout_names(options.admin, _NAMES_SECONDS):
            print(name)
        return 0
    if options.shell is None:
        print(f"Which shell? splitproxy completion {'|'.join(shells.SCRIPTS)}", file=sys.stderr)
        return 2
    print(shells.SCRIPTS[options.shell](verbs()), end="")
    return 0


def verbs() -> list[Verb]:
    """Return all verbs with their options."""
    found = []
    for name, (_, summary) in VERBS.items():
        parser = argparse.ArgumentParser(prog="splitproxy", add_help=False)
        declare(name, parser)
        actions = parser._actions  # noqa: SLF001 - there is no other way to ask what a parser takes
        operand = next((action for action in actions if not action.option_strings), None)
        options = tuple(_option(action) for action in actions if action.option_strings)
        kind, choices = (_kind(operand), _choices(operand)) if operand else ("", ())
        found.append(Verb(name, summary, options, kind, choices))
    return found


def _option(action: argparse.Action) -> Option:
    about = (action.help or "") % {**vars(action), "prog": "splitproxy"}
    return Option(
        *(tuple(action.option_strings), re.sub(r"\s*\([^)]*\)", "", about).partition(";")[0], action.nargs != 0),
        *(_kind(action), _choices(action)),
    )


def _kind(action: argparse.Action) -> str:
    return _KINDS.get(str(action.metavar), "")


def _choices(action: argparse.Action) -> tuple[str, ...]:
    return tuple(map(str, action.choices or ()))
