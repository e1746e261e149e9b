"""`splitproxy drain`: have a running proxy finish its requests and exit."""

import argparse
import sys
from typing import Final

from splitproxy.cli.admin_client import admin_argument, post

_SECONDS: Final = 10.0
arguments = admin_argument


def run(options: argparse.Namespace) -> int:
    """Ask for the drain; it goes on after this returns 0."""
    answer = post(options.admin, "/-/drain", _SECONDS)
    if answer is None:
        return 1
    status, body = answer
    if status == 202:
        print("Draining: requests under way are finished, then it exits.")
        return 0
    print(f"Refused ({status}): {body.get('detail', '')}", file=sys.stderr)
    return 1
