"""Connections to the admin API and the probes: so many at most, and none for long to who asks nothing.

The probes are open to whoever reaches them. Without a limit a flood there would take the descriptors that control needs
to meet workers and to read files, and with them reloads and rollbacks.
"""

import asyncio
import resource
from collections.abc import Awaitable, Callable
from typing import Final, cast

from aiohttp import web

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
ASK_SECONDS: Final = 10.0
"""How long a new connection may take to bring its first request."""
IDLE_SECONDS: Final = 75.0
"""How long it is kept between two requests."""
_MOST: Final = 256
_PART: Final = 8
"""One of so many of the process's descriptors may be a connection of one application."""
_LEAST: Final = 16


def most() -> int:
    """Return how many connections one application may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST if soft < 0 else max(_LEAST, min(_MOST, soft // _PART))


class Guests:
    """The connections of one application."""

    def __init__(self, limit: int | None = None, patience: float = ASK_SECONDS) -> None:
        """`limit` is how many there may be, `patience` the seconds until the first request."""
        self._limit, self._patience = limit or most(), patience
        self._inside = 0
        self._resting: dict[asyncio.Transport, asyncio.TimerHandle | None] = {}
        """Those that no request of theirs is answered on, the longest first; and when a new one is given up."""

    def protocols(self, server: Callable[[], asyncio.Protocol]) -> Callable[[], asyncio.Protocol]:
        """Return what makes a protocol for each connection, from the one that `server` makes."""
        return lambda: _Guest(self, server())

    @web.middleware
    async def note(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Let nobody be turned away who is being answered."""
        transport = request.transport
        if transport is None:
            return await handler(request)
        timer = self._resting.pop(transport, None)
        if timer is not None:
            timer.cancel()
        try:
            return await handler(request)
        finally:
            if not transport.is_closing():
                self._resting[transport] = None

    def came(self, transport: asyncio.Transport) -> None:
        """Take a connection in; with one too many, the one that has rested longest goes, or else this one."""
        self._inside += 1
        if self._inside > self._limit:
            oldest = next(iter(self._resting), transport)
            self._forget(oldest)
            oldest.abort()
        if not transport.is_closing():
            loop = asyncio.get_running_loop()
            self._resting[transport] = loop.call_later(self._patience, transport.abort)

    def left(self, transport: asyncio.Transport) -> None:
        """Take note that a connection is lost."""
        self._inside -= 1
        self._forget(transport)

    def _forget(self, transport: asyncio.Transport) -> None:
        timer = self._resting.pop(transport, None)
        if timer is not None:
            timer.cancel()


class _Guest(asyncio.Protocol):
    """One connection, handed on to the protocol that serves it."""

    def __init__(self, guests: Guests, served: asyncio.Protocol) -> None:
        self._guests, self._served = guests, served

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._served.connection_made(transport)
        self._guests.came(self._transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._guests.left(self._transport)
        self._served.connection_lost(error)

    def data_received(self, data: bytes) -> None:
        self._served.data_received(data)

    def eof_received(self) -> bool | None:
        return self._served.eof_received()

    def pause_writing(self) -> None:
        self._served.pause_writing()

    def resume_writing(self) -> None:
        self._served.resume_writing()
