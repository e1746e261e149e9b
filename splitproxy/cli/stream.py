"""The events of a running proxy as they come (`GET /api/v1/events`), over as many connections as it takes.

Server-sent events, as in the HTML standard, section 9.2: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import json
import time
from collections.abc import Iterator
from http.client import HTTPResponse
from typing import Any, Final, NamedTuple

from splitproxy.cli.acting import refusal
from splitproxy.cli.admin_client import Unanswered, answered
from splitproxy.cli.looking import Untold

CONNECTED: Final = "connected"
LOST: Final = "lost"
_SILENCE_SECONDS: Final = 40.0
"""The proxy says something at least every 15 s."""
_PAUSES: Final = (0.2, 0.5, 1.0, 2.0)
"""Seconds before another attempt to connect, the last over and over."""


class Event(NamedTuple):
    """One event."""

    kind: str
    data: dict[str, Any]
    id: str | None
    """What it is known by to the proxy; None: it is not kept."""


def follow(admin: str) -> Iterator[Event]:
    """Yield events for ever: those too that come while there is no connection, as far as the proxy keeps them.

    What becomes of the connection is among them: CONNECTED each time it is made, LOST once when it is gone, with the
    reason as its `text`. Raises Unanswered when nobody answers at first, and Untold when the proxy does not tell.
    """
    last, first, failures = "", True, 0
    while True:
        try:
            headers = {"Last-Event-ID": last} if last else {}
            with answered(admin, "GET", "/api/v1/events", _SILENCE_SECONDS, headers=headers) as answer:
                if answer.status != 200:
                    raise Untold(refusal(answer.status, json.loads(answer.read()), admin))
                yield Event(CONNECTED, {"first": first}, None)
                first, failures = False, 0
                for event in _parsed(answer):
                    last = event.id or last
                    yield event
            raise Unanswered(f"The admin API at {admin} ended the stream.")
        except Unanswered as error:
            if first:
                raise
            if not failures:
                yield Event(LOST, {"text": str(error)}, None)
            time.sleep(_PAUSES[min(failures, len(_PAUSES) - 1)])
            failures += 1


def _parsed(answer: HTTPResponse) -> Iterator[Event]:
    fields: dict[str, str] = {}
    while line := answer.readline():
        text = line.decode().rstrip("\r\n")
        if text:
            name, _, value = text.partition(":")
            value = value.removeprefix(" ")
            fields[name] = f"{fields[name]}\n{value}" if name == "data" and name in fields else value
            continue
        if "data" in fields:
            yield Event(fields.get("event", "message"), json.loads(fields["data"]), fields.get("id"))
        fields = {}
