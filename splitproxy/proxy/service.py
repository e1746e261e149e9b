"""What all connections of a worker share: the snapshot in force, upstreams, signals, clocks."""

import asyncio
import logging
import os
import resource
from collections.abc import Callable
from email.utils import formatdate
from typing import TYPE_CHECKING, Final

from splitproxy.channel import Message
from splitproxy.core import stats
from splitproxy.core.health import Health
from splitproxy.core.snapshot import Limits, Snapshot, UpstreamPlan
from splitproxy.core.tallies import Coin
from splitproxy.core.tracing import Sampling
from splitproxy.errors import ProxyError
from splitproxy.proxy.access_log import AccessLog
from splitproxy.proxy.crowd import room
from splitproxy.proxy.door import Door
from splitproxy.proxy.encryption import context as encryption
from splitproxy.proxy.pool import Address, Site, Upstream
from splitproxy.proxy.probing import Prober
from splitproxy.proxy.recalls import Recalls
from splitproxy.proxy.resolver import Resolver
from splitproxy.proxy.series import Series
from splitproxy.proxy.spans import SpanBuffer
from splitproxy.proxy.tallying import Book, Tallied, Tallies
from splitproxy.proxy.timers import RESOLUTION, Wheel
from splitproxy.proxy.tracing import trace_by
from splitproxy.proxy.tunnel import Tunnel

if TYPE_CHECKING:
    from splitproxy.proxy.downstream import Downstream
    from splitproxy.proxy.exchange import Exchange

log = logging.getLogger("splitproxy.worker")
WRITE_AFTER: Final = 0.01
"""Seconds for which finished requests are gathered before they are counted."""
_FEW: Final = 48
"""Descriptors that serve no connection, rather more than there are: listeners, logs, channels, memory, libraries."""
_SWEEP_EVERY: Final = 10
"""Ticks between two looks at idle connections to endpoints."""


class Route:
    """An upstream's two pools, traffic and mirrored copies, and the resolver that feeds both."""

    __slots__ = ("_healths", "mirrors", "prober", "resolver", "traffic")

    def __init__(self, plan: UpstreamPlan, service: "Service") -> None:
        self._healths: dict[Site, Health] = {}
        shared = (plan, service.region, service.loop, service.wheel, self._healths, self.arrange)
        self.traffic = Upstream(*shared)
        self.mirrors = Upstream(*shared, mirrors=True)
        self.prober = Prober(self.arrange)
        self.resolver = Resolver(plan, lambda _: None)  # until it is in force, nobody is probed or shown

    def begin(self) -> None:
        """Serve from now on."""
        self.resolver.adopted_by(self.use)
        self.use(self.resolver.addresses())

    def use(self, addresses: list[Address]) -> None:
        """Send traffic and copies to `addresses` from now on."""
        plan = self.resolver.plan
        self.traffic.hosts = self.mirrors.hosts = hosts = self.resolver.hosts()
        self.traffic.use(plan, addresses)
        self.mirrors.use(plan, addresses)
        for site in self._healths.keys() - {(host, port) for host, port, _ in addresses}:
            del self._healths[site]
        self.prober.watch(plan, self._healths, hosts)

    def arrange(self) -> None:
        """Divide traffic and copies anew: the health of an endpoint has changed."""
        self.traffic.arrange()
        self.mirrors.arrange()

    def retire(self) -> None:
        """Stop: no snapshot names this upstream any more."""
        self.resolver.stop()
        self.prober.stop()
        self.traffic.retire()
        self.mirrors.retire()


class Prepared:
    """A snapshot ready to be put in force, with what it needs that is not there yet."""

    __slots__ = ("access_log", "doors", "fresh", "snapshot")

    def __init__(
        self, snapshot: Snapshot, doors: dict[str, Door], fresh: dict[str, Route], access_log: AccessLog | None
    ) -> None:
        self.snapshot = snapshot
        self.doors = doors
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
        self.spares: list[Exchange] = []
        """Exchanges of plain connections that may serve further requests."""
        self.edge_spares: list[Exchange] = []
        """Those of other connections, which are of another kind."""
        self.cells[stats.GENERATION] = 0
        self.wheel = Wheel(loop.time())
        self.access_log: AccessLog | None = None
        self.sampling: Sampling | None = None
        """Which requests are recorded; None: this worker does not trace."""
        self.spans = SpanBuffer(loop, region.cells)
        self.draining = False
        self.connections: set[Downstream] = set()
        self.doors: dict[str, Door] = {}
        """Address -> how connections come in there, at present."""
        self.accepted = 0
        self.arriving = 0
        """Connections that have not come as far as HTTP: a PROXY header or a handshake is waited for."""
        self.room = room(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        """Descriptors that may be in use when one more client is accepted."""
        self.recalls = Recalls()
        self.tallies = Tallies(self)
        self.report: Callable[[Message], bool] = lambda _: False
        """Tells control, if it is there and keeps up; says whether that was done."""
        self._in_use_elsewhere = _FEW
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
        """Make ready what `snapshot` needs; nothing that serves is touched. Raises OSError (access log), TlsError."""
        fresh = {}
        for name, plan in snapshot.upstreams.items():
            route = self._routes.get(name)
            if route is None or route.resolver.plan != plan:
                if plan.tls is not None:
                    await self.loop.run_in_executor(None, encryption, plan.tls)
                fresh[name] = Route(plan, self)
        await asyncio.gather(*(route.resolver.start() for route in fresh.values()))
        return Prepared(snapshot, self._new_doors(snapshot), fresh, self._open_log(snapshot))

    def _new_doors(self, snapshot: Snapshot) -> dict[str, Door]:
        known = {address: door for address, door in self.doors.items() if door.plan in snapshot.listeners}
        return {plan.address: known.get(plan.address) or Door(plan) for plan in snapshot.listeners}

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
                route.begin()
            else:  # the pools stay, with whatever connections still lead to an endpoint of the new plan
                known.resolver.stop()
                known.resolver = route.resolver
                known.begin()
        for name in self._routes.keys() - snapshot.upstreams.keys():
            self._routes.pop(name).retire()
        before, self.access_log = self.access_log, prepared.access_log
        if before is not None and before is not self.access_log:
            before.close()
        trace_by(self, snapshot.sampling)
        self.limits = snapshot.limits
        self.doors = prepared.doors
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

    def tallied(self, key: stats.Key, book: Book, coin: Coin) -> Tallied:
        """Return the signals of `key` for requests that come by `coin`, which `book` counts too."""
        return Tallied(self.cells, self._octets, self.region.block(key), book, coin, self.tallies)

    def note(self, series: Series) -> None:
        """Have `series` written, in a moment."""
        if not series.changed:
            series.changed = True
            if not self._changed:
                self.loop.call_later(WRITE_AFTER, self._write_series)
            self._changed.append(series)

    def write_signals(self) -> None:
        """Write now what has been gathered: the process ends."""
        self._write_series()
        self.cells[stats.ACCEPTED] += self.accepted
        self.accepted = 0
        self.spans.flush()

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

    def turned_away(self) -> None:
        """Count a client's connection that was one too many for its listener."""
        self.cells[stats.TURNED_AWAY] += 1

    @property
    def short_of_descriptors(self) -> bool:
        """Whether so many descriptors are in use that no further client should be accepted for now."""
        return len(self.connections) + self.arriving + self._in_use_elsewhere >= self.room

    def drain(self) -> None:
        """Close what is idle; everything else closes when its request is done."""
        self.draining = True
        for downstream in list(self.connections):
            downstream.drain()

    def cut(self) -> None:
        """End what is left: tunnels with a close, requests with a reset, so that no answer looks whole that is not."""
        for downstream in list(self.connections):
            if isinstance(downstream.exchange, Tunnel):
                downstream.exchange.on_deadline(self.wheel.now)
            else:
                downstream.reset()

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
        cells[stats.TICKS] = self._ticks
        if self.access_log is not None:
            self.access_log.flush()
            cells[stats.LOG_DROPS] += self.access_log.take_dropped()
        if self.recalls.tunnels:
            self.recalls.look()
        self.tallies.look()
        if self._ticks % _SWEEP_EVERY == 0:
            opened = 0
            for route in self._routes.values():
                for upstream in (route.traffic, route.mirrors):
                    upstream.sweep(now)
                    upstream.report()
                    opened += upstream.opened
            self._in_use_elsewhere = _FEW + opened
        try:
            self.wheel.tick(now)
        except Exception:
            self.log_bug("at a deadline")

    def _stamp(self) -> None:
        self._date = b"Date: %b\r\n" % formatdate(usegmt=True).encode()
