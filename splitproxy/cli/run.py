"""`splitproxy run`: become the supervisor and serve."""

import argparse
import json
import sys
from datetime import UTC, datetime

from splitproxy import __version__
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


def run(options: argparse.Namespace) -> int:
    """Serve until told to stop."""
    control = ["-m", "splitproxy.control", "-c", options.config]
    if options.workers:
        control += ["--workers", options.workers]
    return Supervisor(Programs(control), say, announce).run()


def worker_count(text: str) -> str:
    """Return `text` if it is a number of workers or `auto`. Raises ValueError."""
    if text != "auto" and not 1 <= int(text) <= MAX_WORKERS:
        raise argparse.ArgumentTypeError(f"a number from 1 to {MAX_WORKERS}, or auto")
    return text


def say(level: str, text: str) -> None:
    """Print an event as control's log lines are: text at a terminal, JSON elsewhere."""
    now = datetime.now(UTC)
    if sys.stderr.isatty():
        line = f"{now.astimezone():%H:%M:%S} {level.upper()} {text}"
    else:
        at = now.isoformat(timespec="milliseconds")
        line = json.dumps({"time": at, "level": level, "process": "supervisor", "message": text})
    sys.stderr.write(f"{line}\n")  # in one piece: control writes to the same pipe
    sys.stderr.flush()


def announce(ready: Ready) -> None:
    """Say what runs, and how it ends."""
    if not sys.stderr.isatty():
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
    print("\n".join(lines), file=sys.stderr, flush=True)
