"""`splitproxy set-weight NAME PERCENT`: the canary's share by hand, while the rollout is paused."""

import argparse

from splitproxy.cli import acting


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    acting.arguments(parser)
    parser.add_argument("percent", metavar="PERCENT", type=percentage, help="from 0 to 100, in steps of 0.01")


def run(options: argparse.Namespace) -> int:
    """Set the weight, print the resulting state and return 0; or say why it cannot be and return 1."""
    return acting.act(options, "PUT", "weight", {"canaryWeight": options.percent})


def percentage(text: str) -> float:
    """Return a share given in percent, with or without the sign. Raises ArgumentTypeError."""
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        value = -1.0
    if not 0 <= value <= 100 or round(value, 2) != value:
        raise argparse.ArgumentTypeError(f"{text!r} is not a percentage from 0 to 100 with at most two decimals")
    return value
