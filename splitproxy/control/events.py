"""What happens, told to everybody who listens (`GET /api/v1/events`): server-sent events as in the HTML standard.

Every event has a number. Who lost the connection says which came last (`Last-Event-ID`, as browsers do by themselves)
and is told what it missed; where that is too much, or of an earlier life of control, a `gap` comes first.
"""

import asyncio
import contextlib
import json
import secrets
from collections import deque
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from aiohttp import web

_QUEUE: Final = 256
"""Events kept for a listener that does not read; later ones are lost to it."""
_KEPT: Final = 200
"""The newest events, for those who come back: they must fit into a listener's queue."""
_BEAT_SECONDS: Final = 15.0
"""Silence after which a comment is sent, so that nothing in between takes the stream for dead."""
_RETRY_MILLISECONDS: Final = 1000
"""What browsers are told to wait before they connect again."""
SIGNALS: Final = "signals"
"""The kind of event that comes once a second, to those alone who ask for it: `?signals=1`."""


class Event(NamedTuple):
    """One thing that happened."""

    kind: str
    data: dict[str, Any]
    id: str = ""
    """Grows within a life of control, which is named in it; empty for what nobody needs to be told later."""

    def encode(self) -> bytes:
        """Return it as it is sent."""
        number = f"id: {self.id}\n" if self.id else ""
        return f"{number}event: {self.kind}\ndata: {json.dumps(self.data)}\n\n".encode()


class Events:
    """Publishes to any number of listeners and waits for none."""

    def __init__(self) -> None:
        self._life = secrets.token_hex(4)
        self._number = 0
        self._kept: deque[Event] = deque(maxlen=_KEPT)
        self._queues: dict[asyncio.Queue[Event], bool] = {}
        """Each listener's, and whether it wants the signals too."""
        self.wanted = asyncio.Event()
        """Set while anybody wants the signals."""

    def publish(self, kind: str, data: dict[str, Any]) -> None:
        """Tell every listener, those too who come back later."""
        self._number += 1
        event = Event(kind, data, f"{self._life}-{self._number}")
        self._kept.append(event)
        for queue in self._queues:
            _put(queue, event)

    def publish_signals(self, data: dict[str, Any]) -> None:
        """Tell those who want to know what was counted."""
        for queue, wants in self._queues.items():
            if wants:
                _put(queue, Event(SIGNALS, data))

    @contextlib.contextmanager
    def subscribe(self, after: str = "", *, signals: bool = False) -> Iterator[asyncio.Queue[Event]]:
        """Give a queue that receives what is published within the block, and before it what came `after` an event."""
        queue: asyncio.Queue[Event] = asyncio.Queue(_QUEUE)
        for event in self._missed(after) if after else ():
            _put(queue, event)
        self._queues[queue] = signals
        self._look()
        try:
            yield queue
        finally:
            del self._queues[queue]
            self._look()

    def _look(self) -> None:
        if any(self._queues.values()):
            self.wanted.set()
        else:
            self.wanted.clear()

    def _missed(self, after: str) -> list[Event]:
        life, _, number = after.partition("-")
        known = life == self._life and number.isascii() and number.isdigit() and len(number) < 20
        first = self._number - len(self._kept)
        """The number before the oldest that is kept."""
        if known and first <= int(number) <= self._number:
            return list(self._kept)[int(number) - first :]
        gap = {"after": after[:100], "text": "events were missed: ask for the present state"}
        return [Event("gap", gap, f"{self._life}-{self._number}")]


def _put(queue: asyncio.Queue[Event], event: Event) -> None:
    with contextlib.suppress(asyncio.QueueFull):
        queue.put_nowait(event)


async def stream(events: Events, request: web.Request) -> web.StreamResponse:
    """Answer with server-sent events until the client leaves; with `?signals=1` the signals of each second too."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
    after = request.headers.get("Last-Event-ID", "")
    with events.subscribe(after, signals=request.query.get(SIGNALS) == "1") as queue:
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            await response.write(f"retry: {_RETRY_MILLISECONDS}\n\n".encode())
            while True:
                try:
                    async with asyncio.timeout(_BEAT_SECONDS):  # wait_for can swallow a cancellation before 3.12
                        event = await queue.get()
                    await response.write(event.encode())
                except TimeoutError:
                    await response.write(b": still here\n\n")
    return response
