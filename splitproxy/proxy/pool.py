"""Upstreams at run time: endpoints, their kept-alive connections, and who waits for one.

A pool outlives snapshots: it is keyed by what it connects to, so a reload that changes weights touches no socket.
Lists are last in, first out: the connection used last is the least likely to have been closed by the other side.
"""

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Iterable
from random import random

from splitproxy.core import stats
from splitproxy.core.balancing import Balancer, make as make_balancer
from splitproxy.core.snapshot import UpstreamPlan
from splitproxy.errors import ConnectFailed, ConnectTimeout, NoEndpoint, QueueFull, UpstreamError
from splitproxy.proxy.timers import Wheel
from splitproxy.proxy.upstream import IDLE, Connection, User

_log = logging.getLogger("splitproxy.pool")
Address = tuple[str, int, float]
"""(IP address, port, weight)."""


class Endpoint:
    """One address of an upstream, with its idle connections."""

    __slots__ = (
        "active",
        "block",
        "connects",
        "failures",
        "host",
        "idle",
        "name",
        "opened",
        "port",
        "requests",
        "upstream",
        "used",
        "weight",
    )

    def __init__(self, upstream: "Upstream", host: str, port: int, weight: float, block: int) -> None:
        self.upstream = upstream
        self.host, self.port, self.weight = host, port, weight
        self.name = (f"[{host}]:{port}" if ":" in host else f"{host}:{port}").encode()
        self.block = block
        """Where its cells begin in the worker's region."""
        self.used = True
        """Whether the plan in force still names it."""
        self.idle: list[Connection] = []
        self.active = self.opened = self.connects = self.failures = self.requests = 0

    def discard(self, connection: Connection) -> None:
        """Lend `connection` to nobody any more."""
        if connection in self.idle:
            self.idle.remove(connection)

    def lost(self, connection: Connection, mode: int) -> None:
        """Take note that a connection is closed."""
        if mode == IDLE:
            self.discard(connection)
        self.opened -= 1
        self.upstream.closed()


class Upstream:
    """One upstream of the configuration: where its requests may go and how many at once."""

    def __init__(
        self, plan: UpstreamPlan, region: stats.Region, loop: asyncio.AbstractEventLoop, wheel: Wheel, kind: str = ""
    ) -> None:
        self.plan = plan
        self._wheel = wheel
        self.fallback_host = plan.name.encode()
        """Host for HTTP/1.0 requests that name none, as nginx does."""
        self._kind = kind
        self.endpoints: dict[Address, Endpoint] = {}
        self.waiting: deque[User] = deque()
        self.opened = 0
        """Connections open or being opened, to all endpoints."""
        self.max_idle = plan.max_idle
        self._balancer: Balancer[Endpoint] | None = None
        self._only: Endpoint | None = None
        self._region = region
        self._loop = loop
        self._connecting: set[asyncio.Task[None]] = set()

    # --- where to ----------------------------------------------------------------------------------------------------
    def use(self, plan: UpstreamPlan, addresses: Iterable[Address]) -> None:
        """Serve `plan` with these endpoints from now on; connections to those that stay are kept."""
        self.plan = plan
        self.max_idle = plan.max_idle
        before = self.endpoints
        self.endpoints = {
            address: before.get(address) or self._endpoint(*address) for address in dict.fromkeys(addresses)
        }
        for address, endpoint in before.items():
            if address not in self.endpoints:
                endpoint.used = False
                close_idle(endpoint)
        for endpoint in self.endpoints.values():
            endpoint.used = True
        chosen = [endpoint for endpoint in self.endpoints.values() if endpoint.weight > 0]
        self._only = chosen[0] if len(chosen) == 1 else None
        self._balancer = make_balancer(plan.policy, chosen) if chosen else None

    def _endpoint(self, host: str, port: int, weight: float) -> Endpoint:
        name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        block = self._region.block((stats.ENDPOINT, self.plan.name, name, self._kind))
        return Endpoint(self, host, port, weight, block)

    def retire(self) -> None:
        """Close what is idle now and the rest when it is done: no snapshot names this upstream any more."""
        for endpoint in self.endpoints.values():
            endpoint.used = False
            close_idle(endpoint)

    # --- leasing -----------------------------------------------------------------------------------------------------
    def lease(self, user: User, key: bytes, fresh: bool = False) -> Connection | None:
        """Return a connection for `user`, or None: then `user.on_connection` or `user.on_failure` follows.

        `key` identifies the client for the policy `hash`; `fresh`: none that was used before. The endpoint's `active`
        count is the caller's to take down again (`connection.endpoint.active -= 1`). Raises NoEndpoint and QueueFull.
        """
        endpoint = self._only
        if endpoint is None:
            if self._balancer is None:
                raise NoEndpoint(f"the upstream {self.plan.name!r} has no address")
            endpoint = self._balancer.pick(random(), key)
        if endpoint.idle and not fresh:
            endpoint.active += 1
            endpoint.requests += 1
            return endpoint.idle.pop()
        if self.opened < self.plan.max_connections:
            self._connect(endpoint, user)
            return None
        for other in self.endpoints.values():  # the limit counts all endpoints: use what is open before waiting
            if other.idle and not fresh:
                other.active += 1
                other.requests += 1
                return other.idle.pop()
        if len(self.waiting) >= self.plan.max_pending:
            raise QueueFull(
                f"{self.opened} connections to {self.plan.name!r} are busy and {len(self.waiting)} requests wait"
            )
        self.waiting.append(user)
        return None

    def give_up(self, user: User) -> None:
        """Forget that `user` waits in the queue."""
        if user in self.waiting:
            self.waiting.remove(user)

    def released(self, endpoint: Endpoint, connection: Connection) -> None:
        """Hand a connection that has become free to whoever waits, or keep it."""
        if self.waiting:
            endpoint.active += 1
            endpoint.requests += 1
            self._loop.call_soon(self._hand_over, connection, self.waiting.popleft())
        elif endpoint.used and len(endpoint.idle) < self.max_idle:
            connection.idle_since = self._wheel.now
            endpoint.idle.append(connection)
        else:
            connection.transport.close()

    def closed(self) -> None:
        """Take note that one connection fewer is open; somebody may wait for its place."""
        self.opened -= 1
        if self.waiting and self.endpoints and self.opened < self.plan.max_connections:
            endpoint = min(self.endpoints.values(), key=lambda endpoint: endpoint.active)
            self._connect(endpoint, self.waiting.popleft())

    def _hand_over(self, connection: Connection, user: User) -> None:
        if connection.transport.is_closing():
            connection.endpoint.active -= 1
            self._connect(connection.endpoint, user)
        else:
            user.on_connection(connection)

    # --- connecting --------------------------------------------------------------------------------------------------
    def _connect(self, endpoint: Endpoint, user: User) -> None:
        endpoint.active += 1
        endpoint.requests += 1
        endpoint.opened += 1
        endpoint.connects += 1
        self.opened += 1
        task = self._loop.create_task(self._open(endpoint, user))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _open(self, endpoint: Endpoint, user: User) -> None:
        error: UpstreamError
        try:
            async with asyncio.timeout(self.plan.connect_timeout or None):
                _, connection = await self._loop.create_connection(
                    lambda: Connection(endpoint), endpoint.host, endpoint.port, flags=socket.AI_NUMERICHOST
                )
        except TimeoutError:
            error = ConnectTimeout(f"no connection to {endpoint.name.decode()} within {self.plan.connect_timeout:g}s")
        except OSError as reason:
            error = ConnectFailed(f"cannot connect to {endpoint.name.decode()}: {reason.strerror or reason}")
        except Exception:
            _log.exception("defect while connecting to %s", endpoint.name.decode())
            error = ConnectFailed(f"cannot connect to {endpoint.name.decode()}: a defect of the proxy")
        else:
            user.on_connection(connection)
            return
        endpoint.active -= 1
        endpoint.opened -= 1
        endpoint.failures += 1
        self.closed()
        user.on_failure(error)

    # --- once in a while ---------------------------------------------------------------------------------------------
    def sweep(self, now: float) -> None:
        """Close connections that have been idle too long."""
        oldest = now - self.plan.idle_timeout
        for endpoint in self.endpoints.values():
            while endpoint.idle and endpoint.idle[0].idle_since < oldest:
                endpoint.idle.pop(0).transport.close()

    def report(self, cells: stats.Cells) -> None:
        """Write the gauges and counters of each endpoint to the worker's region."""
        for endpoint in self.endpoints.values():
            block = endpoint.block
            cells[block + stats.ENDPOINT_ACTIVE] = max(endpoint.active, 0)
            cells[block + stats.ENDPOINT_IDLE] = len(endpoint.idle)
            cells[block + stats.ENDPOINT_OPEN] = endpoint.opened
            cells[block + stats.ENDPOINT_PENDING] = len(self.waiting)
            cells[block + stats.ENDPOINT_REQUESTS] += endpoint.requests
            cells[block + stats.ENDPOINT_CONNECTS] += endpoint.connects
            cells[block + stats.ENDPOINT_CONNECT_FAILURES] += endpoint.failures
            endpoint.requests = endpoint.connects = endpoint.failures = 0


def close_idle(endpoint: Endpoint) -> None:
    """Close the idle connections of `endpoint`."""
    idle, endpoint.idle = endpoint.idle, []
    for connection in idle:
        connection.transport.close()
