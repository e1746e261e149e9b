"""`splitproxy top`: what flows through a running proxy, by route and upstream, live."""

import argparse
import json
import sys
import time
from typing import Any, Final

from splitproxy.cli import flows
from splitproxy.cli.admin_client import Unanswered, admin_argument
from splitproxy.cli.looking import Untold
from splitproxy.cli.progress import working
from splitproxy.cli.screen import filled
from splitproxy.cli.showing import show_table

_SECONDS: Final = 10.0
_LEAST_SECONDS: Final = 0.2


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--route", metavar="ROUTE", help="only this route and its upstreams")
    parser.add_argument("--sort", choices=flows.SORTS, default=flows.SORTS[0], help="what comes first (%(default)s)")
    parser.add_argument(
        "--window", choices=flows.WINDOWS, default=flows.WINDOWS[0], help="what figures are of (%(default)s)"
    )
    parser.add_argument(
        "--interval", metavar="SECONDS", type=_interval, default=1.0, help="between two looks (default 1)"
    )
    parser.add_argument("--once", action="store_true", help="one look, in plain tables, as where there is no terminal")
    parser.add_argument("--json", action="store_true", help="a JSON object for each look, one a line")
    admin_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Show what flows until interrupted, or once; 1 when the proxy does not tell."""
    if not options.once and not options.json and filled():
        from splitproxy.cli.top_picture import watch  # rich, for whoever has a terminal

        return watch(options)
    try:
        while True:
            began = time.monotonic()
            with working("Asking"):
                seen = flows.look(options, _SECONDS)
            _print(seen, options)
            if options.once or not options.json:
                return 0
            time.sleep(flows.pause(options.interval, time.monotonic() - began))
    except (Unanswered, Untold) as error:
        print(error, file=sys.stderr)
        return 1


def _print(seen: flows.Flows, options: argparse.Namespace) -> None:
    if options.json:
        told: dict[str, Any] = seen.to_dict()
        print(json.dumps(told, indent=2 if options.once else None, ensure_ascii=False), flush=True)
        return
    show_table(flows.FLOW_HEADS, [flows.flow_row(flow) for flow in seen.flows], leaving=flows.FLOW_LEAVING)
    print()
    rows = [flows.address_row(one, None) for one in seen.addresses]
    show_table(flows.ADDRESS_HEADS, rows, whole=flows.ADDRESS_WHOLE, leaving=flows.ADDRESS_LEAVING)


def _interval(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not _LEAST_SECONDS <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from {_LEAST_SECONDS:g}")
    return value
