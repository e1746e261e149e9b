"""Channels on the event loop: to the supervisor, and one to each worker."""

import asyncio
import itertools
from collections.abc import Callable, Iterable
from typing import Final

from splitproxy.channel import Channel, Message
from splitproxy.control.loading import Candidate
from splitproxy.errors import SplitProxyError

ANSWER_SECONDS: Final = 20.0
"""How long another process may take to answer. Compiling 10,000 routes takes a worker a few seconds."""


class ListenError(SplitProxyError):
    """Addresses could not be bound; `args[0]` maps each to the reason."""


class Link:
    """A channel whose messages arrive as calls of `heard`, and whose end is one call of `lost`."""

    def __init__(self, channel: Channel, heard: Callable[[Message, list[int]], None], lost: Callable[[], None]) -> None:
        channel.sock.setblocking(False)
        self._channel, self._heard, self._lost = channel, heard, lost
        self._open = True
        asyncio.get_running_loop().add_reader(channel.fileno(), self._readable)

    def send(self, message: Message, fds: Iterable[int] = ()) -> bool:
        """Send `message`; say whether it went out. A peer that is gone, or reads nothing, is not an error here."""
        if not self._open:
            return False
        try:
            self._channel.send(message, fds)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Close our end; `lost` is not called."""
        if self._open:
            self._open = False
            asyncio.get_running_loop().remove_reader(self._channel.fileno())
            self._channel.close()

    def _readable(self) -> None:
        while self._open:
            try:
                received = self._channel.receive()
            except BlockingIOError:
                return
            if received is None:
                self.close()
                self._lost()
                return
            self._heard(*received)


class Parent:
    """The supervisor, as control sees it."""

    def __init__(self) -> None:
        self._link: Link | None = None
        self._ids = itertools.count(1)
        self._listening: dict[int, asyncio.Future[dict[str, str]]] = {}
        self._settled: dict[int, asyncio.Future[None]] = {}

    def attach(self, link: Link) -> None:
        """Take the link over which to talk."""
        self._link = link

    def send(self, message: Message, fds: Iterable[int] = ()) -> None:
        """Send `message`."""
        assert self._link is not None
        self._link.send(message, fds)

    async def listen(self, addresses: list[str], workers: int) -> dict[str, str]:
        """Have `addresses` bound and return what each became. Raises ListenError; nothing new is bound then."""
        number = next(self._ids)
        answer: asyncio.Future[dict[str, str]]
        answer = self._listening[number] = asyncio.get_running_loop().create_future()
        self.send({"type": "listen", "id": number, "addresses": addresses, "workers": workers})
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await answer
        finally:
            del self._listening[number]

    async def committed(self, serving: Candidate) -> None:
        """Report what serves now; return when every worker started from an older snapshot has been announced."""
        generation = serving.generation
        answer = self._settled[generation] = asyncio.get_running_loop().create_future()
        message = {"type": "committed", "generation": generation}
        self.send(
            {**message, "addresses": serving.listeners, "workers": serving.workers, "drain": serving.drain},
            [serving.snapshot.fileno(), serving.described.fileno()],
        )
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await answer
        finally:
            del self._settled[generation]

    def heard(self, message: Message) -> None:
        """Take an answer of the supervisor."""
        if message["type"] == "settled":
            settled = self._settled.get(message["generation"])
            if settled and not settled.done():
                settled.set_result(None)
            return
        listening = self._listening.get(message["id"])
        if listening and not listening.done():
            if "error" in message:
                listening.set_exception(ListenError(message["error"]))
            else:
                listening.set_result(message["addresses"])
