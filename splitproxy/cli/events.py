"""`splitproxy events`: what has happened to the rollouts, and with --follow whatever happens from now on."""

import argparse
import json
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, Final

from splitproxy import reports
from splitproxy.cli.acting import refusal
from splitproxy.cli.admin_client import Unanswered, admin_argument, ask
from splitproxy.cli.looking import Untold
from splitproxy.cli.progress import working
from splitproxy.cli.stream import CONNECTED, LOST, Event, follow

_SECONDS: Final = 10.0
_MOST_LINES: Final = 1000
"""What the API tells of one rollout's past."""
_MISSED_LINES: Final = 100
"""What is asked for when a connection is there again."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("name", metavar="NAME", nargs="?", help="only what happens to this rollout")
    parser.add_argument(
        "-f", "--follow", action="store_true", help="go on: rollouts, verdicts, reloads, endpoints; until interrupted"
    )
    parser.add_argument(
        "-n", "--lines", metavar="N", type=_count, default=10, help="how much of the past is told (default 10)"
    )
    parser.add_argument("--all", action="store_true", help="with --follow: every verdict, also one like the last")
    parser.add_argument("--json", action="store_true", help="a JSON object for each, one a line")
    admin_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Tell the past, and what happens until interrupted; 1 when the proxy does not tell."""
    try:
        past = None if options.follow else _past(options, options.lines)
        if past == [] and options.lines and not options.json:
            print("No rollout remembers anything. --follow tells what happens from now on.", file=sys.stderr)
        for event in _Following(options).events() if past is None else past:
            line = json.dumps(event._asdict(), ensure_ascii=False) if options.json else sentence(event)
            print(line, flush=True)
    except (Unanswered, Untold) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _past(options: argparse.Namespace, count: int) -> list[Event]:
    """Return the last `count` of what the rollouts remember, the oldest first."""
    with working("Asking"):
        status, told = ask(options.admin, "GET", f"/api/v1/rollouts?history={count}", _SECONDS)
    if status != 200:
        raise Untold(refusal(status, told, options.admin))
    named = [rollout for rollout in told if options.name in (None, rollout["name"])]
    if options.name is not None and not named:
        raise Untold(refusal(404, {"error": f"there is no rollout {options.name!r}"}, options.admin, options.name))
    found = [
        Event("rollout", {"name": rollout["name"], **entry}, None) for rollout in named for entry in rollout["history"]
    ]
    found.sort(key=lambda event: (event.data["at"], event.data["id"]))
    return found[-count:] if count else []


class _Following:
    """Tells the past and then what happens, nothing twice.

    Of the time without a connection it tells what the rollouts remember.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._told: deque[tuple[str, str, str]] = deque(maxlen=_MOST_LINES)
        """When, of which rollout, and what: of what was told last."""
        self._outcomes: dict[tuple[str, str], str] = {}
        """The last verdict of each metric of each rollout."""
        self._behind = False
        """Whether there is a time of which nothing was told."""

    def events(self) -> Iterator[Event]:
        """Yield events for ever. Raises Unanswered when nobody answers at first, and Untold."""
        for event in follow(self._options.admin):
            if self._behind and event.kind != LOST:
                yield from self._missed()
            if event.kind == CONNECTED and event.data["first"]:  # from now on nothing is missed
                past = list(self._new(_past(self._options, max(self._options.lines, 1))))
                yield from past[len(past) - min(self._options.lines, len(past)) :]
            elif event.kind == CONNECTED:
                print("The proxy answers again.", file=sys.stderr)
                self._behind = True
                yield from self._missed()
            elif event.kind == LOST:
                print(f"Nothing is heard any more, trying again. {event.data['text']}", file=sys.stderr)
            elif self._wanted(event):
                yield from self._new([event])

    def _missed(self) -> Iterator[Event]:
        """Yield what the rollouts remember of the time without a connection, whether the proxy kept its events or not.

        A proxy that starts again may not know its rollouts yet; then it is asked with the next event.
        """
        last = self._told[-1][0] if self._told else ""
        try:
            found = _past(self._options, _MISSED_LINES)
        except (Unanswered, Untold):
            return
        self._behind = not found
        yield from self._new(one for one in found if one.data["at"] >= last)

    def _new(self, found: Iterable[Event]) -> Iterator[Event]:
        """Yield those of `found` that were not told."""
        for event in found:
            if event.kind == "rollout":
                mark = event.data["at"], event.data["name"], event.data["text"]
                if mark in self._told:
                    continue
                self._told.append(mark)
            yield event

    def _wanted(self, event: Event) -> bool:
        data = event.data
        if event.kind == "gap":
            return True
        if self._options.name is not None and data.get("name") != self._options.name:
            return False
        if event.kind == "rollout":
            return "text" in data  # one without only says where it stands
        return event.kind != "verdict" or self._turned(data) or bool(self._options.all)

    def _turned(self, verdict: dict[str, Any]) -> bool:
        """Say whether a verdict is another than that of the check before."""
        which = verdict["name"], verdict["metric"]
        before, self._outcomes[which] = self._outcomes.get(which, "pass"), verdict["outcome"]
        return bool(before != verdict["outcome"])


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
