"""A small HTTP/1.1 client: enough for the demo's own requests."""

import asyncio
import json
from typing import Any, Final, NamedTuple

SECONDS: Final = 10.0
"""How long one answer may take."""


class Answer(NamedTuple):
    """A complete response; field names in lower case."""

    status: int
    fields: dict[str, str]
    body: bytes


class Client:
    """Requests to one address, as many at a time as wanted, over connections that are kept."""

    def __init__(self, address: str) -> None:
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def get(self, path: str) -> Answer:
        """Return the answer to a GET. Raises OSError, EOFError, ValueError or TimeoutError."""
        async with asyncio.timeout(SECONDS):
            reader, writer = self._idle.pop() if self._idle else await asyncio.open_connection(self._host, self._port)
            kept = False
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\n\r\n".encode())
                answer = await _read(reader)
                kept = answer.fields.get("connection") != "close"
            finally:
                if not kept:
                    writer.close()
        if kept:
            self._idle.append((reader, writer))
        return answer

    async def json(self, path: str) -> Any:
        """Return what a GET answers, read as JSON. Raises what `get` does."""
        answer = await self.get(path)
        if answer.status != 200:
            raise ValueError(f"{path} answered {answer.status}")
        return json.loads(answer.body)

    def close(self) -> None:
        """Close the connections that are kept."""
        for _, writer in self._idle:
            writer.close()
        self._idle.clear()


async def _read(reader: asyncio.StreamReader) -> Answer:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Answer(int(first.split(" ", 2)[1]), fields, await reader.readexactly(int(fields["content-length"])))
