"""Where the admin API and the probes listen; both may move by a reload, the new place bound before the old is left."""

import asyncio
import ipaddress
import logging
import socket
from typing import Final

from aiohttp import web
from aiohttp.http import HttpProcessingError

from splitproxy.control.guests import IDLE_SECONDS, Guests
from splitproxy.errors import SplitProxyError
from splitproxy.listening import in_words, resolve

_BACKLOG: Final = 128
log = logging.getLogger(__name__)


def _is_ours(record: logging.LogRecord) -> bool:
    """Say whether it tells of our doing: who sends what is not HTTP has an answer of 400 and no place in the log."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


log.addFilter(_is_ours)


class SiteError(SplitProxyError):
    """An address of ours could not be bound; `args[0]` maps it to the reason."""


class Sites:
    """The sites of one application: the one in force, and the one of a change under way.

    The latter is bound and answers nobody: who may ask there is known once the change is in force.
    """

    def __init__(self, application: web.Application, guests: Guests | None = None) -> None:
        """`guests` bounds the connections."""
        self._guests = guests or Guests()
        application.middlewares.insert(0, self._guests.note)
        self._runner = web.AppRunner(
            application,
            access_log=None,
            handle_signals=False,
            shutdown_timeout=1.0,
            keepalive_timeout=IDLE_SECONDS,
            logger=log,
        )
        self._site: asyncio.Server | None = None
        self._next: socket.socket | None = None
        self.asked: str | None = None
        """The address in force, as the configuration has it."""
        self.bound = ""
        """The same with the port that a port of 0 became."""

    async def open(self, address: str | None) -> None:
        """Bind `address` too. Raises SiteError."""
        if self._runner.server is None:
            await self._runner.setup()
        if address is None or address == self.asked:
            return
        try:
            sock = _bind(address)
        except OSError as error:
            raise SiteError({address: in_words(error)}) from None
        self._next = sock
        host, port = sock.getsockname()[:2]
        self._next_bound = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def keep(self, address: str | None) -> None:
        """Answer at `address` alone, which `open` was called with. Requests under way are finished."""
        if address == self.asked:
            return
        before, sock = self._site, self._next
        self._site, self._next, self.asked = None, None, address
        self.bound = self._next_bound if address else ""
        if sock:
            assert self._runner.server is not None
            protocols = self._guests.protocols(self._runner.server)
            self._site = await asyncio.get_running_loop().create_server(protocols, sock=sock, backlog=_BACKLOG)
        if before:
            before.close()

    async def forget(self) -> None:
        """Take `open` back."""
        if self._next:
            self._next.close()
            self._next = None

    async def close(self) -> None:
        """End everything."""
        if self._site:
            self._site.close()
        await self._runner.cleanup()


def is_loopback(host: str) -> bool:
    """Say whether `host`, a name or an address without brackets, is this machine to itself."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _bind(address: str) -> socket.socket:
    family, where = resolve(address)
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(where)
        sock.listen(_BACKLOG)  # here, not later in the event loop: this is where a taken port shows
    except OSError:
        sock.close()
        raise
    return sock
