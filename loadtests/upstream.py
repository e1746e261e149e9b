"""A small HTTP/1.1 upstream that says who it is: a version of a service, or nginx's stand-in where there is none.

It answers each request with its name in the body and in `X-Version`; `/files/64k` and `/files/1m` answer that much,
`/fresh/…` has a head unlike any other, `/slow/400` is answered after 400 milliseconds, and `/count` answers how many
other requests there were. `NAME=PORT=STATUS` answers with that status.
"""

import argparse
import asyncio
import contextlib
import re
import signal
from collections import Counter
from typing import ClassVar, cast

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)
_FORWARDED = re.compile(rb"\r\nx-forwarded-for: *([^\r\n]*)", re.IGNORECASE)
_END_OF_CHUNKS = re.compile(rb"\r\n0+\r\n(?:[^\r\n]+\r\n)*\r\n")
_SLOW = re.compile(rb"\S+ /slow/(\d{1,5})[ ?]")
_SIZES = {b"/files/64k": 65536, b"/files/1m": 1048576}


class Answer(asyncio.Protocol):
    """One connection: answers every whole request as it arrives."""

    counts: ClassVar[Counter[bytes]] = Counter()

    def __init__(self, name: bytes, status: bytes, open_connections: set[asyncio.Transport]) -> None:
        self._name, self._status = name, status
        self._open = open_connections
        self._data = b""
        self._waits = False
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but its bases
        self._open.add(self._transport)

    def connection_lost(self, _error: Exception | None) -> None:
        self._open.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._data += data
        while not self._waits and (end := self._whole_request()) and not self._transport.is_closing():
            head, self._data = self._data[:end].partition(b"\r\n\r\n")[0], self._data[end:]
            if slow := _SLOW.match(head):
                self._waits = True
                asyncio.get_running_loop().call_later(int(slow[1]) / 1000, self._answer_late, head)
            else:
                self._answer(head)

    def _answer_late(self, head: bytes) -> None:
        self._waits = False
        self._answer(head)
        self.data_received(b"")

    def _whole_request(self) -> int:
        """Return where the first request ends, 0 while some of it is missing."""
        head_end = self._data.find(b"\r\n\r\n")
        if head_end < 0:
            return 0
        head, start = self._data[:head_end], head_end + 4
        if _CHUNKED.search(head):
            found = _END_OF_CHUNKS.search(self._data, head_end + 2)
            return found.end() if found else 0
        length = _LENGTH.search(head)
        end = start + (int(length[1]) if length else 0)
        return end if len(self._data) >= end else 0

    def _answer(self, head: bytes) -> None:
        method, target = head.split(b" ", 2)[:2]
        path = target.partition(b"?")[0]
        forwarded = _FORWARDED.search(head)
        if path == b"/count":
            body = b"%d" % self.counts[self._name]
        else:
            self.counts[self._name] += 1
            body = b"v" * _SIZES[path] if path in _SIZES else self._name
        closing = bool(_CLOSE.search(head))
        fields = b"Content-Type: text/plain\r\nContent-Length: %d\r\nX-Version: %s\r\nX-Seen-For: %s\r\n" % (
            len(body),
            self._name,
            forwarded[1] if forwarded else b"",
        )
        fields += b"X-Request-Id: %d\r\n" % self.counts.total() if path.startswith(b"/fresh/") else b""
        fields += b"Connection: close\r\n" if closing else b""
        body = b"" if method == b"HEAD" else body
        self._transport.write(b"HTTP/1.1 %s\r\n%s\r\n%s" % (self._status, fields, body))
        if closing:
            self._transport.close()


async def serve(addresses: list[str]) -> None:
    """Serve every `NAME=PORT` or `NAME=PORT=STATUS` until SIGTERM or SIGINT."""
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, done.set)
    open_connections: set[asyncio.Transport] = set()
    servers = []
    for name, port, *more in (address.split("=") for address in addresses):
        status = b"%d Chosen" % int(more[0]) if more else b"200 OK"

        def answer(name: bytes = name.encode(), status: bytes = status) -> Answer:
            return Answer(name, status, open_connections)

        servers.append(await loop.create_server(answer, "127.0.0.1", int(port), backlog=4096))
    await done.wait()
    for server in servers:
        server.close()
    for transport in list(open_connections):
        transport.abort()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("addresses", nargs="+", metavar="NAME=PORT[=STATUS]")
    with contextlib.suppress(ImportError):
        import uvloop

        uvloop.install()
    asyncio.run(serve(parser.parse_args().addresses))


if __name__ == "__main__":
    main()
