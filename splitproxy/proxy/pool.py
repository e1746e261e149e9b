"""Upstreams at run time: endpoints, their kept-alive connections, and who waits for one.

A pool outlives snapshots: it is keyed by what it connects to, so a reload that changes weights touches no socket.
Lists are last in, first out: the connection used last is the least likely to have been closed by the other side.
"""

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from random import random

from splitproxy.core import stats
from splitproxy.core.balancing import Balancer, in_use, make as make_balancer
from splitproxy.core.health import Health, Row
from splitproxy.core.retry import Budget
from splitproxy.core.snapshot import UpstreamPlan
from splitproxy.errors import ConnectFailed, ConnectTimeout, NoEndpoint, OutOfResources, QueueFull, UpstreamError
from splitproxy.proxy.encryption import no_connection, options
from splitproxy.proxy.timers import Wheel
from splitproxy.proxy.upstream import IDLE, Connection, User

_log = logging.getLogger("splitproxy.pool")
Address = tuple[str, int, float]
"""(IP address, port, weight)."""
Site = tuple[str, int]
"""(IP address, port): what has a health, whatever weight it is given."""


class Endpoint:
    """One address of an upstream, with its idle connections."""

    __slots__ = (
        "active",
        "block",
        "connects",
        "failures",
        "full_weight",
        "health",
        "host",
        "idle",
        "name",
        "opened",
        "port",
        "reported",
        "requests",
        "row",
        "unanswered",
        "upstream",
        "used",
        "weight",
    )

    def __init__(self, upstream: "Upstream", address: Address, health: Health, block: int) -> None:
        self.upstream = upstream
        self.host, self.port, self.full_weight = host, port, _ = address
        self.weight = self.full_weight
        """What it has of its full weight at present."""
        self.health = health
        self.name = (f"[{host}]:{port}" if ":" in host else f"{host}:{port}").encode()
        self.block = block
        """Where its cells begin in the worker's region."""
        self.used = True
        """Whether requests may go to it: the plan in force names it and its health allows it."""
        self.idle: list[Connection] = []
        self.active = self.opened = self.connects = self.failures = 0
        self.requests = 0
        """Attempts at it from the beginning, those in flight included."""
        self.reported = 0
        """Of these, what the region has."""
        self.unanswered = 0
        """Of these, what ended without a good answer, whoever is to blame."""
        self.row = Row()

    @property
    def usable(self) -> bool:
        """Whether its health lets it be used."""
        return self.health.usable

    def excuse(self) -> None:
        """Take note of an attempt that ended without an answer and through no fault of the endpoint."""
        self.unanswered += 1

    def blame(self, *, over: bool = True) -> None:
        """Take note of an attempt that failed; `over`: it is counted as active no more."""
        self.unanswered += 1
        self.upstream.blamed(self, self.requests - self.active - self.unanswered + (not over))

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

    usable: bool
    """Whether there is an endpoint that requests may go to."""

    def __init__(
        self,
        plan: UpstreamPlan,
        region: stats.Region,
        loop: asyncio.AbstractEventLoop,
        wheel: Wheel,
        healths: dict[Site, Health],
        changed: Callable[[], None],
        *,
        mirrors: bool = False,
    ) -> None:
        """`healths` is shared by an upstream's pools; `changed` is called when one of them has changed here."""
        self.plan = plan
        self.usable = False
        self._wheel = wheel
        self.fallback_host = plan.name.encode()
        """Host for HTTP/1.0 requests that name none, as nginx does."""
        self._healths, self._changed = healths, changed
        self._mirrors = mirrors
        self._warming = False
        self.endpoints: dict[Address, Endpoint] = {}
        self.hosts: Mapping[Site, str] = {}
        """By which name each of them is configured."""
        self.waiting: deque[User] = deque()
        self.opened = 0
        """Connections open or being opened, to all endpoints."""
        self.max_idle = plan.max_idle
        self._balancer: Balancer[Endpoint] | None = None
        self._only: Endpoint | None = None
        self._in_use: list[Endpoint] = []
        self._region = region
        self._loop = loop
        self._connecting: set[asyncio.Task[None]] = set()
        self.budget = Budget()
        """Of retries."""

    # --- where to ----------------------------------------------------------------------------------------------------
    def use(self, plan: UpstreamPlan, addresses: Iterable[Address]) -> None:
        """Serve `plan` with these endpoints from now on; connections to those that stay are kept."""
        before = self.endpoints
        if plan.tls != self.plan.tls:  # what was agreed by other certificates is over
            for endpoint in before.values():
                self._drop(endpoint)
            before = {}
        self.plan = plan
        self.max_idle = plan.max_idle
        self.endpoints = {
            address: before.get(address) or self._endpoint(address) for address in dict.fromkeys(addresses)
        }
        for address, endpoint in before.items():
            if address not in self.endpoints:
                self._drop(endpoint)
        if plan.outliers is None:
            self._end_ejections(self._loop.time())
        self.arrange()

    def _endpoint(self, address: Address) -> Endpoint:
        host, port, _ = address
        health = self._healths.get((host, port))
        if health is None:
            health = self._healths[host, port] = Health(self._loop.time() if self.endpoints else None)
        name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        block = self._region.block((stats.ENDPOINT, self.plan.name, name, "mirror" if self._mirrors else ""))
        return Endpoint(self, address, health, block)

    def arrange(self) -> None:
        """Choose anew among which endpoints requests are divided, and how: healths have changed, or time has."""
        now, slow_start = self._loop.time(), self.plan.slow_start
        weighed = [endpoint for endpoint in self.endpoints.values() if endpoint.full_weight > 0]
        self._in_use = chosen = in_use(weighed, self.plan.panic_percent)
        self._warming = False
        for endpoint in chosen:
            share = endpoint.health.share(slow_start, now)
            endpoint.weight = endpoint.full_weight * share
            self._warming = self._warming or share < 1.0
        used = set(chosen)
        for endpoint in self.endpoints.values():
            endpoint.used = endpoint in used
            if not endpoint.used:  # its connections would only take the room of others
                close_idle(endpoint)
            self._show(endpoint)
        self.usable = bool(chosen)
        self._only = chosen[0] if len(chosen) == 1 else None
        self._balancer = make_balancer(self.plan.policy, chosen) if chosen else None

    def _drop(self, endpoint: Endpoint) -> None:
        """Let go of an endpoint that no plan names any more."""
        endpoint.used = False
        close_idle(endpoint)
        self._report(endpoint)
        self._region.clear(endpoint.block, stats.ENDPOINT_GAUGES)

    def retire(self) -> None:
        """Close what is idle now and the rest when it is done: no snapshot names this upstream any more."""
        for endpoint in self.endpoints.values():
            self._drop(endpoint)

    @property
    def requested(self) -> int:
        """How many attempts its present endpoints have been asked for, from the beginning."""
        return sum(endpoint.requests for endpoint in self.endpoints.values())

    # --- leasing -----------------------------------------------------------------------------------------------------
    def lease(self, user: User, key: bytes, fresh: bool = False) -> Connection | None:
        """Return a connection for `user`, or None: then `user.on_connection` or `user.on_failure` follows.

        `key` identifies the client for the policy `hash`; `fresh`: none that was used before. The endpoint's `active`
        count is the caller's to take down again (`connection.endpoint.active -= 1`). Raises NoEndpoint and QueueFull.
        """
        endpoint = self._only
        if endpoint is None:
            if self._balancer is None:
                raise NoEndpoint(self._why_none())
            endpoint = self._balancer.pick(random(), key)
        if endpoint.idle and not fresh:
            endpoint.active += 1
            endpoint.requests += 1
            return endpoint.idle.pop()
        if self.opened < self.plan.max_connections:
            self._connect(endpoint, user)
            return None
        for other in self._in_use:  # the limit counts all endpoints: use what is open before waiting
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

    def _why_none(self) -> str:
        if any(endpoint.full_weight > 0 for endpoint in self.endpoints.values()):
            return f"no endpoint of the upstream {self.plan.name!r} is healthy"
        return f"the upstream {self.plan.name!r} has no address"

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
            endpoint = min(self._in_use or self.endpoints.values(), key=lambda endpoint: endpoint.active)
            self._connect(endpoint, self.waiting.popleft())

    def _hand_over(self, connection: Connection, user: User) -> None:
        if connection.transport.is_closing():
            connection.endpoint.active -= 1
            connection.endpoint.excuse()
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
        error: UpstreamError | OutOfResources
        try:
            async with asyncio.timeout(self.plan.connect_timeout or None):
                _, connection = await self._loop.create_connection(
                    lambda: Connection(endpoint),
                    endpoint.host,
                    endpoint.port,
                    flags=socket.AI_NUMERICHOST,
                    **options(self.plan.tls, self.hosts.get((endpoint.host, endpoint.port), endpoint.host)),
                )
        except TimeoutError:
            error = ConnectTimeout(f"no connection to {endpoint.name.decode()} within {self.plan.connect_timeout:g}s")
        except OSError as reason:
            error = no_connection(endpoint.name.decode(), reason)
        except Exception:
            _log.exception("defect while connecting to %s", endpoint.name.decode())
            error = ConnectFailed(f"cannot connect to {endpoint.name.decode()}: a defect of the proxy")
        else:
            user.on_connection(connection)
            return
        endpoint.active -= 1
        endpoint.opened -= 1
        if isinstance(error, UpstreamError):
            endpoint.failures += 1
            endpoint.blame()
        else:
            endpoint.excuse()
        self.closed()
        user.on_failure(error)

    # --- health ------------------------------------------------------------------------------------------------------
    def blamed(self, endpoint: Endpoint, answered: int) -> None:
        """Take note of a failed attempt at `endpoint`, which has `answered` others: it may be ejected for that.

        What copies do says nothing: the time they are given is short, and they may be cut off.
        """
        outliers, health, row = self.plan.outliers, endpoint.health, endpoint.row
        if outliers is None or self._mirrors or not endpoint.full_weight:
            return
        if health.ejected_until:  # what it does in a panic says nothing new
            row.clear()
            return
        if row.failed(answered) < outliers.consecutive_errors:
            return
        weighed = [one for one in self.endpoints.values() if one.full_weight > 0]
        ejected = sum(one.health.ejected_until > 0 for one in weighed)
        if outliers.allows(ejected, len(weighed)):
            row.clear()
            seconds = health.eject(outliers, self._loop.time())
            fields = {"upstream": self.plan.name, "endpoint": endpoint.name.decode(), "seconds": seconds}
            words = "%(endpoint)s of upstream %(upstream)s is ejected for %(seconds)g s"
            _log.warning(words, fields, extra={"fields": fields})
            self._changed()

    def _show(self, endpoint: Endpoint) -> None:
        """Write the endpoint's health to the region."""
        cells, block = self._region.cells, endpoint.block
        cells[block + stats.ENDPOINT_NAMED] = 1
        cells[block + stats.ENDPOINT_UNHEALTHY] = not endpoint.health.healthy
        cells[block + stats.ENDPOINT_EJECTED] = endpoint.health.ejected_until > 0
        cells[block + stats.ENDPOINT_IN_USE] = endpoint.used
        cells[block + stats.ENDPOINT_PANIC] = endpoint.used and not endpoint.usable

    # --- once in a while ---------------------------------------------------------------------------------------------
    def sweep(self, now: float) -> None:
        """Close connections that have been idle too long; end ejections whose time is over, let slow starts grow."""
        if self.plan.outliers is not None:
            self._end_ejections(now)
        if self._warming:
            self.arrange()
        oldest = now - self.plan.idle_timeout
        for endpoint in self.endpoints.values():
            while endpoint.idle and endpoint.idle[0].idle_since < oldest:
                endpoint.idle.pop(0).transport.close()

    def _end_ejections(self, now: float) -> None:
        """Bring back those whose time is over; all of them, where there is no ejection any more."""
        outliers = self.plan.outliers
        healths = [endpoint.health for endpoint in self.endpoints.values() if endpoint.health.ejected_until]
        back = [health.pardon(now) if outliers is None else health.returned(now) for health in healths]
        if any(back):
            self._changed()

    def report(self) -> None:
        """Write the gauges and counters of each endpoint to the worker's region."""
        for endpoint in self.endpoints.values():
            self._report(endpoint)

    def _report(self, endpoint: Endpoint) -> None:
        cells, block = self._region.cells, endpoint.block
        cells[block + stats.ENDPOINT_ACTIVE] = max(endpoint.active, 0)
        cells[block + stats.ENDPOINT_IDLE] = len(endpoint.idle)
        cells[block + stats.ENDPOINT_OPEN] = endpoint.opened
        cells[block + stats.ENDPOINT_PENDING] = len(self.waiting)
        cells[block + stats.ENDPOINT_REQUESTS] += endpoint.requests - endpoint.reported
        cells[block + stats.ENDPOINT_CONNECTS] += endpoint.connects
        cells[block + stats.ENDPOINT_CONNECT_FAILURES] += endpoint.failures
        endpoint.reported = endpoint.requests
        endpoint.connects = endpoint.failures = 0


def close_idle(endpoint: Endpoint) -> None:
    """Close the idle connections of `endpoint`."""
    idle, endpoint.idle = endpoint.idle, []
    for connection in idle:
        connection.transport.close()
