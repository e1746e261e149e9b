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

LATENCIES: Final = {"v1": (0.002, 0.0005), "v2": (0.004, 0.001)}
"""Version -> seconds that it takes to answer: least, and the mean of what is added to that by chance."""


class Service(asyncio.Protocol):
    """One connection to one version: any request is answered with the version's name."""

    def __init__(self, version: str, chance: random.Random) -> None:
        self._version, self._chance = version, chance
        self._parser = httptools.HttpRequestParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Read requests."""
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._transport.close()

    def on_message_complete(self) -> None:
        """Answer the request after a while."""
        least, mean = LATENCIES[self._version]
        delay = least + self._chance.expovariate(1 / mean)
        bodiless, keep = self._parser.get_method() == b"HEAD", self._parser.should_keep_alive()
        asyncio.get_running_loop().call_later(delay, self._answer, bodiless, keep)

    def _answer(self, bodiless: bool, keep: bool) -> None:
        if self._transport.is_closing():
            return
        body = b'{"version": "%b"}\n' % self._version.encode()
        self._transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Version: %b\r\nContent-Length: %d\r\n%b\r\n%b"
            % (self._version.encode(), len(body), b"" if keep else b"Connection: close\r\n", b"" if bodiless else body)
        )
        if not keep:
            self._transport.close()


async def _serve(chance: random.Random) -> None:
    loop, ports, servers = asyncio.get_running_loop(), {}, []
    for version in LATENCIES:

        def service(version: str = version) -> Service:
            return Service(version, chance)

        server = await loop.create_server(service, "127.0.0.1", 0)
        ports[version] = server.sockets[0].getsockname()[1]
        servers.append(server)
    print(json.dumps(ports), flush=True)
    await asyncio.gather(*(server.serve_forever() for server in servers))


def main() -> None:
    """Serve until ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--seed", type=int)
    options = parser.parse_args()
    end_with(options.parent)
    asyncio.run(_serve(random.Random(options.seed)))


if __name__ == "__main__":
    main()
