"""`splitproxy demo`: two upstreams, the proxy, traffic and a rollout, all on free ports of this machine."""

import argparse
import asyncio
import sys
from typing import Final

from splitproxy.cli.set_weight import percentage
from splitproxy.demo.scenarios import GOOD, SCENARIOS
from splitproxy.demo.session import Wish, play

_UNWATCHED_SECONDS: Final = {"split": 15.0, "release": 180.0}
"""How long it runs where nobody is at a terminal to end it."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--scenario",
        choices=SCENARIOS,
        default=GOOD,
        help="; ".join(f"{name}: {what}" for name, what in SCENARIOS.items()).replace("%", "%%"),
    )
    which.add_argument("--weight", metavar="PERCENT", type=percentage, help="no rollout, but this share to the canary")
    parser.add_argument(
        "--hold", metavar="SECONDS", type=_hold, default=8.0, help="how long each step of the rollout lasts (default 8)"
    )
    parser.add_argument(
        "--duration",
        metavar="SECONDS",
        type=_seconds,
        help="end after so long, 0 is never; where there is no terminal a rollout's end ends it, too",
    )
    parser.add_argument("--seed", type=int, help="the same requests at the same moments; the split stays random")
    parser.add_argument("--headless", action="store_true", help="plain lines instead of the live view")
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end and nothing else")


def run(options: argparse.Namespace) -> int:
    """Play the demo."""
    live = sys.stdout.isatty() and not options.headless and not options.json
    duration = options.duration
    if duration is None and not sys.stdout.isatty():
        duration = _UNWATCHED_SECONDS["release" if options.weight is None else "split"]
    style = "json" if options.json else "live" if live else "lines"
    return asyncio.run(
        play(
            Wish(
                options.weight,
                options.scenario,
                options.hold,
                duration or None,
                options.seed,
                style,
                brief=bool(options.duration),
            )
        )
    )


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError("a number of seconds")
    return value


def _hold(text: str) -> float:
    value = _seconds(text)
    if not 0.5 <= value <= 3600:
        raise argparse.ArgumentTypeError("a number of seconds from 0.5 to 3600")
    return value
