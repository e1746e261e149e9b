"""`splitproxy events`: what has happened to the rollouts, and with --follow whatever happens from now on."""

import argparse
import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

from splitproxy import reports
from splitproxy.cli.acting import refusal
from splitproxy.cli.admin_client import Unanswered, admin_argument, ask
from splitproxy.cli.looking import Untold
from splitproxy.cli.stream import CONNECTED, LOST, Event, follow

_SECONDS: Final = 10.0
_MOST_LINES: Final = 1000
"""What the API tells of one rollout's past."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("name", metavar="NAME", nargs="?", help="only what happens to this rollout")
    parser.add_argument(
        "-f", "--follow", action="store_true", help="go on: rollouts, verdicts, reloads, endpoints; until interrupted"
    )
    parser.add_argument(
        "-n", "--lines", metavar="N", type=_count, default=10, help="how much of the past is told (default 10)"
    )
    parser.add_argument("--all", action="store_true", help="with --follow: also verdicts that passed")
    parser.add_argument("--json", action="store_true", help="a JSON object for each, one a line")
    admin_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Tell the past, and what happens until interrupted; 1 when the proxy does not tell."""
    try:
        for event in _following(options) if options.follow else _past(options):
            line = json.dumps(event._asdict(), ensure_ascii=False) if options.json else sentence(event)
            print(line, flush=True)
    except (Unanswered, Untold) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _past(options: argparse.Namespace) -> list[Event]:
    """Return the last of what the rollouts remember, the oldest first."""
    status, told = ask(options.admin, "GET", f"/api/v1/rollouts?history={options.lines}", _SECONDS)
    if status != 200:
        raise Untold(refusal(status, told, options.admin))
    named = [rollout for rollout in told if options.name in (None, rollout["name"])]
    if options.name is not None and not named:
        raise Untold(refusal(404, {"error": f"there is no rollout {options.name!r}"}, options.admin, options.name))
    found = [
        Event("rollout", {"name": rollout["name"], **entry}, None) for rollout in named for entry in rollout["history"]
    ]
    found.sort(key=lambda event: (event.data["at"], event.data["id"]))
    return found[-options.lines :] if options.lines else []


def _following(options: argparse.Namespace) -> Iterator[Event]:
    """Yield the past and then what happens, nothing twice."""
    known = set[tuple[str, str]]()
    for event in follow(options.admin):
        if event.kind == CONNECTED and event.data["first"]:  # from now on nothing is missed
            past = _past(options)
            known = {(one.data["at"], one.data["text"]) for one in past}
            yield from past
        elif event.kind == CONNECTED:
            print("The proxy answers again.", file=sys.stderr)
        elif event.kind == LOST:
            print(f"Nothing is heard any more, trying again. {event.data['text']}", file=sys.stderr)
        elif _wanted(event, options, known):
            yield event


def _wanted(event: Event, options: argparse.Namespace, known: set[tuple[str, str]]) -> bool:
    data = event.data
    if options.name is not None and data.get("name") != options.name:
        return event.kind == "gap"
    if event.kind == "rollout":  # one without a text only says where it stands
        return "text" in data and (data["at"], data["text"]) not in known
    return event.kind != "verdict" or options.all or data["outcome"] != "pass"


# --- in words ---------------------------------------------------------------------------------------------------------
def sentence(event: Event) -> str:
    """Return an event as a line: when, of what, and what."""
    data = event.data
    at = reports.moment(data.get("at") or datetime.now(UTC).isoformat())
    match event.kind:
        case "rollout":
            return f"{at}  {data['name']:12}  {data['kind']:8}  {data['text']}"
        case "verdict":
            return f"{at}  {data['name']:12}  {data['outcome']:8}  {data['reason'] or reports.measured(data)}"
        case "reload":
            errors = "".join(f"\n  {error['text']}" for error in data["errors"])
            return f"{at}  {'-':12}  reload    {data['result']} ({data['trigger']}): {_serves(data)}{errors}"
        case "endpoint":
            return f"{at}  {data['upstream']:12}  endpoint  {data['address']} {_standing(data)}"
        case _:
            text = data.get("text") or json.dumps(data, ensure_ascii=False)
            return f"{at}  {'-':12}  {event.kind:8}  {text}"


def _serves(report: dict[str, Any]) -> str:
    return f"generation {report['generation']} serves"


def _standing(endpoint: dict[str, Any]) -> str:
    words = [
        "is healthy" if endpoint["healthy"] else "is unhealthy",
        *(["ejected"] if endpoint["ejected"] else []),
        *([] if endpoint["inUse"] else ["gets nothing"]),
    ]
    return ", ".join(words)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text[:9]) > _MOST_LINES:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to {_MOST_LINES}")
    return int(text)
