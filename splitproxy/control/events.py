"""What happens, told to everybody who listens (`GET /api/v1/events`)."""

import asyncio
import contextlib
import json
from collections.abc import Iterator
from typing import Any, Final

from aiohttp import web

_QUEUE: Final = 256
"""Events kept for a listener that does not read; later ones are lost to it."""
_BEAT_SECONDS: Final = 15.0
"""Silence after which a comment is sent, so that nothing in between takes the stream for dead."""

Event = tuple[str, dict[str, Any]]


class Events:
    """Publishes to any number of listeners and waits for none."""

    def __init__(self) -> None:
        self._queues: set[asyncio.Queue[Event]] = set()

    def publish(self, kind: str, data: dict[str, Any]) -> None:
        """Tell every listener."""
        for queue in self._queues:
            with contextlib.suppress(asyncio.QueueFull):
                queue.put_nowait((kind, data))

    @contextlib.contextmanager
    def subscribe(self) -> Iterator[asyncio.Queue[Event]]:
        """Give a queue that receives what is published within the block."""
        queue: asyncio.Queue[Event] = asyncio.Queue(_QUEUE)
        self._queues.add(queue)
        try:
            yield queue
        finally:
            self._queues.discard(queue)


async def stream(events: Events, request: web.Request) -> web.StreamResponse:
    """Answer with server-sent events until the client leaves."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
    with events.subscribe() as queue:
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                try:
                    async with asyncio.timeout(_BEAT_SECONDS):  # wait_for can swallow a cancellation before 3.12
                        kind, data = await queue.get()
                    await response.write(f"event: {kind}\ndata: {json.dumps(data)}\n\n".encode())
                except TimeoutError:
                    await response.write(b": still here\n\n")
    return response
