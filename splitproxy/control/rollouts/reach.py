"""Whether the upstreams of a rollout can be reached at all: asked at every tick, apart from any traffic."""

import asyncio
import socket
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp

from splitproxy.control import outbound

SECONDS: Final = 2.0
"""How long an endpoint may take."""


async def any_connects(urls: Iterable[str]) -> tuple[bool, str]:
    """Return whether any endpoint takes a connection, and what the others said, where none does."""
    urls = tuple(urls)
    if not urls:
        return False, "it has no endpoints"
    if len(urls) == 1:
        failure = await _connect(urls[0])
        return not failure, failure
    attempts = [asyncio.create_task(_connect(url)) for url in urls]
    try:
        failures = []
        for attempt in asyncio.as_completed(attempts):
            failure = await attempt
            if not failure:
                return True, ""
            failures.append(failure)
        return False, "; ".join(sorted(failures))
    finally:
        for task in attempts:
            task.cancel()
        await asyncio.gather(*attempts, return_exceptions=True)


async def all_ready(session: aiohttp.ClientSession, urls: Iterable[str], path: str) -> tuple[bool, str]:
    """Return whether every endpoint answers a GET of `path` with a 2xx, and what those say that do not."""
    urls = tuple(urls)
    if not urls:
        return False, "it has no endpoints"
    answers = await asyncio.gather(*(_get(session, url, path) for url in urls))
    failures = [answer for answer in answers if answer]
    return not failures, "; ".join(failures)


async def _connect(url: str) -> str:
    """Return why no connection could be made to `url`, nothing when one could."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        async with asyncio.timeout(SECONDS):
            await _any_address(parts.hostname, port)
    except TimeoutError:
        return f"{parts.netloc}: no connection within {SECONDS:g} s"
    except OSError as error:
        return f"{parts.netloc}: {error.strerror or error}"
    return ""


async def _any_address(host: str, port: int) -> None:
    """Connect to the first address of `host` that takes it. Raises OSError."""
    loop = asyncio.get_running_loop()
    failure = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in await _addresses(loop, host, port):
        # A plain socket: a stream's transport would be made only to be thrown away.
        with socket.socket(family, kind, protocol) as sock:
            sock.setblocking(False)
            try:
                await loop.sock_connect(sock, address)
            except OSError as error:
                failure = error
            else:
                return
    raise failure


async def _addresses(loop: asyncio.AbstractEventLoop, host: str, port: int) -> list[Any]:
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:  # a name, which takes asking somebody
        return await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)


async def _get(session: aiohttp.ClientSession, url: str, path: str) -> str:
    address = f"{url.rstrip('/')}/{path.lstrip('/')}"
    reply = await outbound.send(session, outbound.Request(address, {}, SECONDS))
    if reply.status is None:
        return f"{address}: {reply.text}"
    return "" if 200 <= reply.status < 300 else f"{address}: HTTP {reply.status}"
