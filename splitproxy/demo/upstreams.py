"""`python -m splitproxy.demo.upstreams`: two versions of a small service; started by the stage.

Prints one JSON object, version -> port, once both listen, and ends with the process that started it.
"""

import argparse
import asyncio
import json
import random
from typing import Final, cast

import httptools

from splitproxy.demo.attached import end_with
from splitproxy.demo.scenarios import GOOD, SCENARIOS, Health

LATENCIES: Final = {"v1": (0.002, 0.0005), "v2": (0.004, 0.001)}
"""Version -> seconds that it takes to answer: least, and the mean of what is added to that by chance."""
_CANARY: Final = "v2"


class Version:
    """One version of the service: its name, how well it does, and its connections."""

    def __init__(self, name: str, health: Health, chance: random.Random) -> None:
        self.name = name
        self._health, self._chance = health, chance
        self._connections: set[Service] = set()
        self._server: asyncio.Server | None = None

    async def listen(self) -> int:
        """Begin on a free port and return it."""
        self._server = await asyncio.get_running_loop().create_server(lambda: Service(self), "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    def came(self, connection: "Service") -> None:
        """Take note of a connection."""
        self._connections.add(connection)

    def left(self, connection: "Service") -> None:
        """Forget a connection."""
        self._connections.discard(connection)

    def plan(self) -> tuple[float, int] | None:
        """Return the seconds after which a request is answered and the status; None after a crash."""
        found = self._health.at(asyncio.get_running_loop().time())
        if found.gone:
            self._crash()
            return None
        least, mean = LATENCIES[self.name]
        return least + self._chance.expovariate(1 / mean) + found.extra, found.status

    def _crash(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in tuple(self._connections):
            connection.abort()


class Service(asyncio.Protocol):
    """One connection to one version: any request is answered with the version's name."""

    def __init__(self, version: Version) -> None:
        self._version = version
        self._parser = httptools.HttpRequestParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)
        self._version.came(self)

    def connection_lost(self, _why: Exception | None) -> None:
        """End."""
        self._version.left(self)

    def abort(self) -> None:
        """End at once."""
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Read requests."""
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._transport.close()

    def on_message_complete(self) -> None:
        """Answer the request after a while."""
        planned = self._version.plan()
        if planned is None:
            return
        delay, status = planned
        bodiless, keep = self._parser.get_method() == b"HEAD", self._parser.should_keep_alive()
        asyncio.get_running_loop().call_later(delay, self._answer, status, bodiless, keep)

    def _answer(self, status: int, bodiless: bool, keep: bool) -> None:
        if self._transport.is_closing():
            return
        name = self._version.name.encode()
        phrase = b"OK" if status < 300 else b"Internal Server Error"
        body = b'{"version": "%b"}\n' % name
        self._transport.write(
            b"HTTP/1.1 %d %b\r\nContent-Type: application/json\r\nX-Version: %b\r\nContent-Length: %d\r\n%b\r\n%b"
            % (status, phrase, name, len(body), b"" if keep else b"Connection: close\r\n", b"" if bodiless else body)
        )
        if not keep:
            self._transport.close()


async def _serve(scenario: str, onset: float, chance: random.Random) -> None:
    versions = [
        Version(name, Health(scenario if name == _CANARY else GOOD, onset, chance), chance) for name in LATENCIES
    ]
    print(json.dumps({version.name: await version.listen() for version in versions}), flush=True)
    await asyncio.Event().wait()


def main() -> None:
    """Serve until ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--scenario", choices=SCENARIOS, default=GOOD)
    parser.add_argument("--onset", type=float, default=0.0)
    parser.add_argument("--seed", type=int)
    options = parser.parse_args()
    end_with(options.parent)
    asyncio.run(_serve(options.scenario, options.onset, random.Random(options.seed)))


if __name__ == "__main__":
    main()
