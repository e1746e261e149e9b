"""What all connections of a worker share: the snapshot in force, upstreams, signals, clocks."""

import asyncio
import logging
import os
from email.utils import formatdate
from typing import TYPE_CHECKING, Final

from splitproxy.core import stats
from splitproxy.core.snapshot import Limits, Snapshot, UpstreamPlan
from splitproxy.errors import ProxyError
from splitproxy.proxy.access_log import AccessLog
from splitproxy.proxy.pool import Address, Upstream
from splitproxy.proxy.resolver import Resolver
from splitproxy.proxy.series import Series
from splitproxy.proxy.timers import RESOLUTION, Wheel

if TYPE_CHECKING:
    from splitproxy.proxy.downstream import Downstream

log = logging.getLogger("splitproxy.worker")
WRITE_AFTER: Final = 0.01
"""Seconds for which finished requests are gathered before they are counted."""
_SWEEP_EVERY: Final = 10
"""Ticks between two looks at idle connections to endpoints."""


class Route:
    """An upstream's two pools, traffic and mirrored copies, and the resolver that feeds both."""

    __slots__ = ("mirrors", "resolver", "traffic")

    def __init__(self, plan: UpstreamPlan, service: "Service") -> None:
        self.traffic = Upstream(plan, service.region, service.loop, service.wheel)
        self.mirrors = Upstream(plan, service.region, service.loop, service.wheel, "mirror")
        self.resolver = Resolver(plan, self.use)

    def use(self, addresses: list[Address]) -> None:
        """Send traffic and copies to `addresses` from now on."""
        self.traffic.use(self.resolver.plan, addresses)
        self.mirrors.use(self.resolver.plan, addresses)

    def retire(self) -> None:
        """Stop: no snapshot names this upstream any more."""
        self.resolver.stop()
        self.traffic.retire()
        self.mirrors.retire()


class Prepared:
    """A snapshot ready to be put in force, with what it needs that is not there yet."""

    __slots__ = ("access_log", "fresh", "snapshot")

    def __init__(self, snapshot: Snapshot, fresh: dict[str, Route], access_log: AccessLog | None) -> None:
        self.snapshot = snapshot
        self.fresh = fresh
        """Routes to upstreams that are new, or whose endpoints differ from those in force."""
        self.access_log = access_log


class Service:
    """The state of one worker. Only `commit` changes the snapshot, in one assignment."""

    snapshot: Snapshot
    """What is in force; there is none until the first `commit`, and no listener either."""
    limits: Limits

    def __init__(self, region: stats.Region, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.region = region
        self.cells = region.cells
        self._octets = region.cells.cast("B")
        self.cells[stats.GENERATION] = 0
        self.wheel = Wheel(loop.time())
        self.access_log: AccessLog | None = None
        self.draining = False
        self.connections: set[Downstream] = set()
        self.accepted = 0
        self.idle = asyncio.Event()
        """Set while no client is connected."""
        self.idle.set()
        self._routes: dict[str, Route] = {}
        self._series: dict[stats.Key, Series] = {}
        self._changed: list[Series] = []
        self._prefix = os.urandom(6).hex().encode()
        self._serial = 0
        self._date = b""
        self._ticks = 0
        self._due = loop.time() + RESOLUTION
        loop.call_at(self._due, self._tick)
        self._stamp()

    @property
    def generation(self) -> int:
        """The generation in force, 0 before the first."""
        return self.cells[stats.GENERATION]

    # --- configuration -----------------------------------------------------------------------------------------------
    async def prepare(self, snapshot: Snapshot) -> Prepared:
        """Make ready what `snapshot` needs; nothing that serves is touched. Raises OSError (access log)."""
        fresh = {}
        for name, plan in snapshot.upstreams.items():
            route = self._routes.get(name)
            if route is None or route.resolver.plan != plan:
                fresh[name] = Route(plan, self)
        await asyncio.gather(*(route.resolver.start() for route in fresh.values()))
        return Prepared(snapshot, fresh, self._open_log(snapshot))

    def _open_log(self, snapshot: Snapshot) -> AccessLog | None:
        if snapshot.access_log is None:
            return None
        path, style = snapshot.access_log
        if self.access_log is not None and (self.access_log.path, self.access_log.style) == (path, style):
            return self.access_log
        return AccessLog(path, style)

    def commit(self, prepared: Prepared) -> None:
        """Serve by the prepared snapshot from the next request on."""
        snapshot = prepared.snapshot
        for name, route in prepared.fresh.items():
            known = self._routes.get(name)
            if known is None:
                self._routes[name] = route
                route.use(route.resolver.addresses())
            else:  # the pools stay, with whatever connections still lead to an endpoint of the new plan
                known.resolver.stop()
                known.resolver = route.resolver.adopted_by(known.use)
                known.use(known.resolver.addresses())
        for name in self._routes.keys() - snapshot.upstreams.keys():
            self._routes.pop(name).retire()
        before, self.access_log = self.access_log, prepared.access_log
        if before is not None and before is not self.access_log:
            before.close()
        self.limits = snapshot.limits
        self.snapshot = snapshot
        self.cells[stats.GENERATION] = snapshot.generation

    def forget(self, prepared: Prepared) -> None:
        """Drop what was prepared and will not be used."""
        for route in prepared.fresh.values():
            route.retire()
        if prepared.access_log is not None and prepared.access_log is not self.access_log:
            prepared.access_log.close()

    def upstream(self, name: str, *, mirrors: bool = False) -> Upstream:
        """Return the pool of an upstream of the snapshot in force, or of the one before it."""
        route = self._routes[name]
        return route.mirrors if mirrors else route.traffic

    # --- signals -----------------------------------------------------------------------------------------------------
    def series(self, key: stats.Key) -> Series:
        """Return the signals of `key`: the same for every snapshot that knows it."""
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = Series(self.cells, self._octets, self.region.block(key))
        return series

    def note(self, series: Series) -> None:
        """Have `series` written, in a moment."""
        if not series.changed:
            series.changed = True
            if not self._changed:
                self.loop.call_later(WRITE_AFTER, self._write_series)
            self._changed.append(series)

    def _write_series(self) -> None:
        changed, self._changed = self._changed, []
        for series in changed:
            series.changed = False
            series.write()

    # --- connections -------------------------------------------------------------------------------------------------
    def connected(self, downstream: "Downstream") -> None:
        """Count a client's connection."""
        self.connections.add(downstream)
        self.accepted += 1
        self.idle.clear()

    def disconnected(self, downstream: "Downstream") -> None:
        """Count it no more."""
        self.connections.discard(downstream)
        if not self.connections:
            self.idle.set()

    def drain(self) -> None:
        """Close what is idle; everything else closes when its request is done."""
        self.draining = True
        for downstream in list(self.connections):
            downstream.drain()

    # --- small things ------------------------------------------------------------------------------------------------
    def request_id(self) -> bytes:
        """Return a new id, unique among all workers."""
        self._serial += 1
        return b"%b%08x" % (self._prefix, self._serial)

    def mint(self) -> bytes:
        """Return a new client id: 128 random bits."""
        return os.urandom(16).hex().encode()

    def date(self) -> bytes:
        """Return the Date line of this second (RFC 9110 §6.6.1)."""
        return self._date

    def record_refusal(self, downstream: "Downstream", error: ProxyError, request_id: bytes) -> None:
        """Count bytes that never became a request."""
        self.series(stats.OVERFLOW_KEY).add(stats.CODE + stats.CODE_INDEX[error.status])
        if self.access_log is not None:
            self.access_log.write_refusal(downstream.address, error, request_id)

    def log_bug(self, where: str) -> None:
        """Log the present exception: a defect of the proxy, not of a peer."""
        log.exception("defect %s", where)

    # --- the tick ----------------------------------------------------------------------------------------------------
    def _tick(self) -> None:
        loop, cells = self.loop, self.cells
        now = loop.time()
        lag = now - self._due
        cells[stats.LAG_NS] = max(int(lag * 1e9), 0)
        self._due = now + RESOLUTION
        loop.call_at(self._due, self._tick)
        self._stamp()
        cells[stats.CONNECTIONS] = len(self.connections)
        cells[stats.ACCEPTED] += self.accepted
        self.accepted = 0
        self._ticks += 1
        if self.access_log is not None:
            self.access_log.flush()
            cells[stats.LOG_DROPS] += self.access_log.take_dropped()
        if self._ticks % _SWEEP_EVERY == 0:
            for route in self._routes.values():
                for upstream in (route.traffic, route.mirrors):
                    upstream.sweep(now)
                    upstream.report(cells)
        try:
            self.wheel.tick(now)
        except Exception:
            self.log_bug("at a deadline")

    def _stamp(self) -> None:
        self._date = b"Date: %b\r\n" % formatdate(usegmt=True).encode()
