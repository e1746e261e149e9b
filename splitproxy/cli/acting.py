"""`splitproxy start|pause|resume|abort|retry|undo|approve|deny NAME`: act on a rollout of a running proxy."""

import argparse
import os
import pwd
import sys
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from splitproxy import reports
from splitproxy.cli.admin_client import Unanswered, admin_argument, ask

_SECONDS: Final = 60.0
"""Acts wait their turn behind what the rollout is doing."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("name", metavar="NAME", help="the rollout")
    admin_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Act, print the resulting state and return 0; or say why it cannot be and return 1."""
    return act(options, "POST", options.verb)


def act(options: argparse.Namespace, method: str, what: str, body: Mapping[str, Any] | None = None) -> int:
    """Send `what` to the rollout that the options name; print the resulting state, or why there is none."""
    path = f"/api/v1/rollouts/{quote(options.name, safe='')}/{what}"
    try:
        status, told = ask(options.admin, method, path, _SECONDS, body, {"X-Splitproxy-Operator": operator()})
    except Unanswered as error:
        print(error, file=sys.stderr)
        return 1
    if status >= 300:
        print(refusal(status, told), file=sys.stderr)
        return 1
    print(reports.headline(told))
    if told["reason"]:
        print(f"  {told['reason']}")
    return 0


def refusal(status: int, told: Any) -> str:
    """Return the sentence of an answer that is none of success."""
    sentence = (told.get("detail") or told.get("error")) if isinstance(told, dict) else None
    return str(sentence) if sentence else f"Refused with status {status}."


def operator() -> str:
    """Return the name under which this user's acts are recorded: `cli:` and the login name, or the number."""
    try:
        return f"cli:{pwd.getpwuid(os.getuid()).pw_name}"
    except KeyError:
        return f"cli:{os.getuid()}"
