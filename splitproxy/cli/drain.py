"""`splitproxy drain`: have a running proxy finish its requests and exit."""

import argparse
import sys
import time
from typing import Final

from splitproxy.cli.admin_client import Unanswered, admin_argument, ask, post
from splitproxy.cli.progress import working
from splitproxy.cli.showing import counted

_SECONDS: Final = 10.0
_LOOK_SECONDS: Final = 0.2


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--wait", action="store_true", help="return when it has ended")
    admin_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Ask for the drain; it goes on after this returns 0, unless that is to be waited for."""
    answer = post(options.admin, "/-/drain", _SECONDS)
    if answer is None:
        return 1
    status, body = answer
    if status != 202:
        print(f"Refused ({status}): {body.get('detail', '')}", file=sys.stderr)
        return 1
    if not options.wait:
        print("Draining: requests under way are finished, then it exits.")
        return 0
    _wait(options.admin)
    print("It has finished its requests and ended.")
    return 0


def _wait(admin: str) -> None:
    """Return when nobody answers any more."""
    with working("Draining") as work:
        while True:
            try:
                status, upstreams = ask(admin, "GET", "/api/v1/upstreams", _SECONDS)
            except Unanswered:
                return
            if status == 200:
                under_way = sum(one["inFlight"] for upstream in upstreams for one in upstream["addresses"])
                work.text = f"Draining: {counted(under_way, 'request')} under way"
            time.sleep(_LOOK_SECONDS)
