"""The demo's clients: requests due at random moments, sent whether or not earlier ones have been answered."""

import asyncio
import contextlib
import random
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Final

from splitproxy.demo.client import Client
from splitproxy.demo.files import ROLES

RATE: Final = 200.0
"""Requests a second, on average."""
_MOST_IN_FLIGHT: Final = 200
_RECENT: Final = 8
_PATHS: Final = ("/", "/products", "/products/17", "/cart", "/checkout", "/search?q=lamp", "/account", "/static/app.js")


@dataclass(frozen=True)
class Seen:
    """One request, as its client saw it."""

    at: float
    """When it was answered, in wall time."""
    path: str
    status: int
    role: str
    seconds: float
    """Since it was due."""


@dataclass
class Seens:
    """What the clients have seen."""

    answered: int = 0
    roles: Counter[str] = field(default_factory=Counter)
    """Role of the version that answered -> requests."""
    failures: Counter[str] = field(default_factory=Counter)
    """Why -> requests that were not answered by a 2xx."""
    recent: deque[Seen] = field(default_factory=lambda: deque(maxlen=_RECENT))


async def send(address: str, chance: random.Random, seen: Seens, stop: asyncio.Event) -> None:
    """Send requests to `address` until `stop` is set and every answer has come."""
    client, loop = Client(address), asyncio.get_running_loop()
    flying: set[asyncio.Task[None]] = set()
    due = loop.time()
    while not stop.is_set():
        due += chance.expovariate(RATE)
        path = chance.choice(_PATHS)
        await _until(due, stop)
        if len(flying) < _MOST_IN_FLIGHT:
            task = asyncio.create_task(_request(client, path, due, seen))
            flying.add(task)
            task.add_done_callback(flying.discard)
        else:
            seen.failures[f"{_MOST_IN_FLIGHT} requests were already waiting"] += 1
    if flying:
        await asyncio.wait(flying)
    client.close()


async def _until(due: float, stop: asyncio.Event) -> None:
    wait = due - asyncio.get_running_loop().time()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), max(0.0, wait))


async def _request(client: Client, path: str, due: float, seen: Seens) -> None:
    try:
        answer = await client.get(path)
    except TimeoutError:
        seen.failures["no answer in time"] += 1
        return
    except (OSError, EOFError, ValueError) as error:
        seen.failures[f"{type(error).__name__}: {error}"] += 1
        return
    role = ROLES.get(answer.fields.get("x-version", ""), "none")
    took = asyncio.get_running_loop().time() - due
    seen.recent.append(Seen(time.time(), path, answer.status, role, took))  # noqa: TID251 - shown to a human
    if 200 <= answer.status < 300:
        seen.answered += 1
        seen.roles[role] += 1
    else:
        seen.failures[f"status {answer.status}"] += 1
