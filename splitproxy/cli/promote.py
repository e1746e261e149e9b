"""`splitproxy promote NAME`: leave the present wait, or take the next step, or go to the end."""

import argparse

from splitproxy.cli import acting


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    acting.arguments(parser)
    parser.add_argument("--full", action="store_true", help="to the end, over all steps that are left")


def run(options: argparse.Namespace) -> int:
    """Promote, print the resulting state and return 0; or say why it cannot be and return 1."""
    return acting.act(options, "POST", "promote", {"full": True} if options.full else None)
