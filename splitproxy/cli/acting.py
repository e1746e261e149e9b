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
from splitproxy.cli.nearest import meant
from splitproxy.cli.progress import working

_SECONDS: Final = 60.0
"""Acts wait their turn behind what the rollout is doing."""
_MOST_NAMES: Final = 10
"""Rollouts that are named to somebody who asks for an unknown one."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("name", metavar="NAME", help="the rollout")
    admin_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Act, print the resulting state and return 0; or say why it cannot be and return 1."""
    return act(options, "POST", options.verb)


def act(options: argparse.Namespace, method: str, what: str, body: Mapping[str, Any] | None = None) -> int:
    """Send `what` to the rollout that the options name; print the resulting state, or why there is none."""
    try:
        with working(f"{what} {options.name}"):
            status, told = send(options.admin, options.name, method, what, body)
    except Unanswered as error:
        print(error, file=sys.stderr)
        return 1
    if status >= 300:
        print(refusal(status, told, options.admin, options.name), file=sys.stderr)
        return 1
    print(reports.headline(told))
    if told["reason"]:
        print(f"  {told['reason']}")
    return 0


def send(admin: str, name: str, method: str, what: str, body: Mapping[str, Any] | None = None) -> tuple[int, Any]:
    """Send `what` to the rollout called `name` and return the status and the answer. Raises Unanswered."""
    path = f"/api/v1/rollouts/{quote(name, safe='')}/{what}"
    return ask(admin, method, path, _SECONDS, body, {"X-Splitproxy-Operator": operator()})


def refusal(status: int, told: Any, admin: str, name: str | None = None) -> str:
    """Return the sentence of an answer that is none of success; of an unknown rollout, which one may be meant."""
    sentence = (told.get("detail") or told.get("error")) if isinstance(told, dict) else None
    if status == 404 and name is not None:
        return f"{sentence}{_others(admin, name)}" if sentence else f"There is no rollout {name!r}."
    return str(sentence) if sentence else f"Refused with status {status}."


def _others(admin: str, name: str) -> str:
    names = rollout_names(admin, _SECONDS)
    if not names:
        return ""
    return meant(name, names) or f"; there {'is' if len(names) == 1 else 'are'} {', '.join(names[:_MOST_NAMES])}"


def rollout_names(admin: str, seconds: float) -> list[str]:
    """Return the names of all rollouts of a running proxy; none when it does not tell them."""
    try:
        status, told = ask(admin, "GET", "/api/v1/rollouts?history=0", seconds)
    except Unanswered:
        return []
    return [rollout["name"] for rollout in told] if status == 200 else []


def operator() -> str:
    """Return the name under which this user's acts are recorded: `cli:` and the login name, or the number."""
    try:
        return f"cli:{pwd.getpwuid(os.getuid()).pw_name}"
    except KeyError:
        return f"cli:{os.getuid()}"
