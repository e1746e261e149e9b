"""`splitproxy reload`: have a running proxy read its configuration again."""

import argparse
import sys
from typing import Final

from splitproxy.cli.admin_client import admin_argument, post
from splitproxy.cli.progress import working

_SECONDS: Final = 180.0
arguments = admin_argument


def run(options: argparse.Namespace) -> int:
    """Reload and return 0, or print every error and return 1."""
    with working("Reloading"):
        answer = post(options.admin, "/-/reload", _SECONDS)
    if answer is None:
        return 1
    status, body = answer
    if status == 200:
        same = body["result"] == "unchanged"
        print(
            f"Nothing has changed; generation {body['generation']} serves."
            if same
            else f"Generation {body['generation']} serves."
        )
        return 0
    for error in body.get("errors", []):
        print(error["text"], file=sys.stderr)
    if status == 422:
        print(f"Not loaded; generation {body['generation']} serves on.", file=sys.stderr)
    else:
        print(f"Refused ({status}): {body.get('detail', '')}", file=sys.stderr)
    return 1
