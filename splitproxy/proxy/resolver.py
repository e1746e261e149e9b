"""Names of endpoints turned into addresses, in the background, again and again.

All addresses of a name are used. While an answer fails or is empty the last good one stays. How long an answer is good
for is not known to `getaddrinfo`, so it is asked again every few seconds.
"""

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Callable
from typing import Final

from splitproxy.core.snapshot import UpstreamPlan
from splitproxy.proxy.pool import Address, Site

INTERVAL: Final = 5.0
FIRST_ANSWER: Final = 2.0
"""Seconds that taking over a configuration waits for the first answer to its names."""
_log = logging.getLogger("splitproxy.resolver")


def is_address(host: str) -> bool:
    """Return whether `host` is an IP address, so that there is nothing to resolve."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class Resolver:
    """Keeps the addresses of one upstream whose endpoints have names."""

    def __init__(self, plan: UpstreamPlan, use: Callable[[list[Address]], None]) -> None:
        self.plan = plan
        self._use = use
        self._answers: dict[str, list[str]] = {}
        self._failing: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    def addresses(self) -> list[Address]:
        """Return what is known now: given addresses, and the last good answer for each name."""
        known: list[Address] = []
        for host, port, weight in self.plan.endpoints:
            hosts = [host] if is_address(host) else self._answers.get(host, [])
            known += ((address, port, weight) for address in hosts)
        return known

    def hosts(self) -> dict[Site, str]:
        """Return for each address in use the host that it was found for: what TLS asks its certificate about."""
        return {
            (address, port): host
            for host, port, _ in self.plan.endpoints
            for address in ([host] if is_address(host) else self._answers.get(host, []))
        }

    def adopted_by(self, use: Callable[[list[Address]], None]) -> None:
        """Report to `use` from now on."""
        self._use = use

    async def start(self) -> None:
        """Resolve once, then for ever in the background."""
        names = {host for host, _, _ in self.plan.endpoints if not is_address(host)}
        if names:
            first = asyncio.ensure_future(self._ask(names))
            await asyncio.wait([first], timeout=FIRST_ANSWER)
            self._task = asyncio.ensure_future(self._go_on(names, first))

    def stop(self) -> None:
        """Ask no more."""
        if self._task is not None:
            self._task.cancel()

    async def _go_on(self, names: set[str], first: "asyncio.Future[bool]") -> None:
        await first
        self._use(self.addresses())
        while True:
            await asyncio.sleep(INTERVAL)
            if await self._ask(names):
                self._use(self.addresses())

    async def _ask(self, names: set[str]) -> bool:
        """Return whether any answer differs from the last one."""
        changed = False
        loop = asyncio.get_running_loop()
        for name in sorted(names):
            try:
                answer = await loop.getaddrinfo(name, None, type=socket.SOCK_STREAM)
            except OSError as error:
                if name not in self._failing:
                    self._failing.add(name)
                    _log.warning(
                        "cannot resolve %s of upstream %s: %s; keeping %s",
                        name,
                        self.plan.name,
                        error.strerror,
                        self._answers.get(name, []),
                    )
                continue
            self._failing.discard(name)
            hosts = sorted({str(entry[4][0]) for entry in answer})
            if hosts and hosts != self._answers.get(name):
                self._answers[name] = hosts
                changed = True
        return changed
