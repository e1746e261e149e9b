"""`splitproxy demo`: two upstreams, the proxy and traffic, all on free ports of this machine."""

import argparse
import asyncio
import sys
from typing import Final

from splitproxy.demo.session import Wish, play

_UNWATCHED_SECONDS: Final = 15.0
"""How long it runs where nobody is at a terminal to end it."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--weight", metavar="PERCENT", type=_percent, default=10.0, help="canary's share (default 10)")
    parser.add_argument(
        "--duration",
        metavar="SECONDS",
        type=_seconds,
        help=f"end after so long; 0 is never (default: never, {_UNWATCHED_SECONDS:g} where there is no terminal)",
    )
    parser.add_argument("--seed", type=int, help="the same requests at the same moments; the split stays random")
    parser.add_argument("--headless", action="store_true", help="plain lines instead of the live view")
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end and nothing else")


def run(options: argparse.Namespace) -> int:
    """Play the demo."""
    live = sys.stdout.isatty() and not options.headless and not options.json
    duration = options.duration
    if duration is None and not sys.stdout.isatty():
        duration = _UNWATCHED_SECONDS
    style = "json" if options.json else "live" if live else "lines"
    return asyncio.run(play(Wish(options.weight, duration or None, options.seed, style)))


def _percent(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 100 or round(value, 2) != value:
        raise argparse.ArgumentTypeError("a percentage from 0 to 100 with at most two decimals")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError("a number of seconds")
    return value
