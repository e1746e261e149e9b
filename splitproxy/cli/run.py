"""`splitproxy run`: become the supervisor and serve."""

import argparse
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from splitproxy import __version__, logs
from splitproxy.core.stats import MAX_WORKERS
from splitproxy.supervisor import Programs, Ready, Supervisor


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("-c", "--config", metavar="FILE", required=True, help="a file, or a folder whose *.yaml merge")
    parser.add_argument(
        "--workers",
        metavar="N",
        type=worker_count,
        help="processes that serve, or auto: one per core; overrides the file",
    )
    parser.add_argument(
        "--log-format",
        choices=logs.FORMATS,
        help=f"of the program's log: auto is text at a terminal, json elsewhere (default: ${logs.FORMAT}, else auto)",
    )
    parser.add_argument(
        "--log-level",
        choices=logs.LEVELS,
        help=f"the least level that is logged (default: ${logs.LEVEL}, else info)",
    )


def run(options: argparse.Namespace) -> int:
    """Serve until told to stop."""
    try:
        _log_as(logs.FORMAT, options.log_format, logs.FORMATS)
        _log_as(logs.LEVEL, options.log_level, logs.LEVELS)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if logs.as_text():
        logs.write(f"Starting with {options.config} …")
    control = ["-m", "splitproxy.control", "-c", options.config]
    if options.workers:
        control += ["--workers", options.workers]
    return Supervisor(Programs(control), say, announce).run()


def _log_as(variable: str, given: str | None, choices: Sequence[str]) -> None:
    """Have all processes log as an option says, or else its variable. Raises ValueError."""
    chosen = given or os.environ.get(variable)
    if chosen:
        if chosen not in choices:
            raise ValueError(f"${variable} is one of {', '.join(choices)}, not {chosen!r}")
        os.environ[variable] = chosen


def worker_count(text: str) -> str:
    """Return `text` if it is a number of workers or `auto`. Raises ValueError."""
    if text != "auto" and not 1 <= int(text) <= MAX_WORKERS:
        raise argparse.ArgumentTypeError(f"a number from 1 to {MAX_WORKERS}, or auto")
    return text


def say(level: str, text: str) -> None:
    """Write an event as all lines of the log are written."""
    if logs.wanted(level):
        logs.write(logs.line(datetime.now(UTC), level, "supervisor", "splitproxy.supervisor", text, {}))


def announce(ready: Ready) -> None:
    """Say what runs, and how it ends."""
    if not logs.as_text():
        listeners = ", ".join(ready.listeners.values())
        say(
            "info",
            f"ready: listening on {listeners}; admin {ready.admin}; "
            f"workers {ready.workers}; generation {ready.generation}",
        )
        return
    lines = [
        f"splitproxy {__version__}",
        *(f"  listening  http://{bound}" for bound in ready.listeners.values()),
        f"  admin      {ready.admin}",
        f"  workers    {ready.workers}, generation {ready.generation}",
        "Ctrl-C drains and stops.",
    ]
    logs.write("\n".join(lines))
