"""What tests of running rollouts stand on: a real desk, store, memory and configuration; traffic is made up."""

import asyncio
import contextlib
import json
import mmap
import os
import random
import socket

from splitproxy.control import loader
from splitproxy.control.loading import Candidate, Memfd
from splitproxy.control.rollouts.desk import Desk
from splitproxy.control.signals import Signals
from splitproxy.core import live, stats, tallies
from splitproxy.core.live import LIVE_BYTES, LIVE_OFFSET, Traffic

INTERVAL = 0.04


class Memory:
    """The shared memory of the program: it outlives a control process."""

    def __init__(self):
        self.descriptor = os.memfd_create("stats")
        os.ftruncate(self.descriptor, LIVE_OFFSET + LIVE_BYTES)
        memory = mmap.mmap(self.descriptor, stats.REGION_BYTES)
        self.region = stats.Region(memoryview(memory).cast("Q"))

    def close(self):
        os.close(self.descriptor)


class World:
    """Control, as far as rollouts are concerned, and workers that do what the shared memory says."""

    def __init__(self, memory, folder):
        self.memory, self.folder = memory, folder
        self.endpoints, self._servers = {}, {}
        self.says = b"ok"
        self.statuses = {}
        """Path -> status that is answered to it; others have 200."""
        self.asked = []
        """What webhooks were told."""
        self.fails = {}
        """Upstream -> share of its requests that fail."""
        self.events, self._happened = [], asyncio.Event()
        self.generation = 0
        self.served = None
        self.cells = []
        """Every traffic that the workers saw, in order."""
        self.desk = None
        self._traffic = None

    # --- upstreams and workers ---------------------------------------------------------------------------------------
    def listen(self, *upstreams):
        for name in upstreams:
            # The kernel takes the connections; nobody needs to.
            server = self._servers[name] = socket.create_server(("127.0.0.1", 0), backlog=4096)
            self.endpoints[name] = f"http://127.0.0.1:{server.getsockname()[1]}"

    def hang_up(self, upstream):
        self._servers[upstream].close()

    def come_back(self, upstream):
        port = int(self.endpoints[upstream].rpartition(":")[2])
        self._servers[upstream] = socket.create_server(("127.0.0.1", port), backlog=4096)

    async def receiver(self):
        """Start a service that says `self.says` to everything and return its URL."""

        async def answer(reader, writer):
            with contextlib.suppress(asyncio.IncompleteReadError):  # somebody only looked whether it is there
                await answer_one(reader, writer)
            writer.close()

        async def answer_one(reader, writer):
            head = await reader.readuntil(b"\r\n\r\n")
            lines = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            if lines:
                self.asked.append(json.loads(await reader.readexactly(int(lines[0].partition(b":")[2]))))
                self._happened.set()
            status = self.statuses.get(head.split()[1].decode(), 200)
            head = f"HTTP/1.1 {status} OK\r\nContent-Length: {len(self.says)}\r\nConnection: close\r\n\r\n"
            writer.write(head.encode() + self.says)
            await writer.drain()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        self._servers[server] = server
        return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"

    def start_traffic(self):
        self._traffic = asyncio.create_task(self._serve_requests())

    async def _serve_requests(self):
        while True:
            for plain in self.served.releases["rollouts"] if self.served else ():
                self._request(plain)
            await asyncio.sleep(0.002)

    def _request(self, plain):
        traffic = self.traffic(plain)
        if not self.cells or self.cells[-1] != traffic:
            self.cells.append(traffic)
        roles = ("canary", "primary") if traffic.swapped else ("primary", "canary")
        for _ in range(5):
            canary = random.random() * 10_000 < traffic.weight
            self._count(plain, plain["canary"] if canary else plain["primary"], roles[canary])
            if traffic.mirror and not canary:
                self._count(plain, plain["canary"], "mirror")
        if traffic.cohorts:
            self._count(plain, plain["canary"], roles[1])

    def _count(self, plain, upstream, role):
        region = self.memory.region
        block = region.block((stats.SERIES, plain["route"], plain["rules"][0], upstream, role))
        outcome = "5xx" if random.random() < self.fails.get(upstream, 0.0) else "success"
        region.cells[block + stats.OUTCOME + stats.OUTCOMES.index(outcome)] += 1
        region.cells[block + stats.ATTEMPT_HISTOGRAM + stats.bucket(0.01)] += 1

    @property
    def key(self):
        return self.served.releases["rollouts"][0]["liveKey"]

    def epoch(self):
        """Return the epoch of the first rollout's weight."""
        return live.epoch(self.desk.area.read(self.desk.area.slot(self.key, take=False)))

    def thresholds(self):
        """Return the latency thresholds that workers have now."""
        return tallies.unpack(self.desk.area.thresholds(self.desk.area.slot(self.key, take=False)), self.epoch())

    def primed(self):
        """Give the primary a past."""
        for _ in range(2):
            for _ in range(300):
                self._count(self.served.releases["rollouts"][0], "v1", "primary")
            self.signals.sample()

    def tally(self):
        """Return the first cell of the tally of the present epoch, as a worker begins it."""
        cells, epoch = self.memory.region.cells, self.epoch()
        place = self.memory.region.block(tallies.key(self.served.releases["rollouts"][0]["name"], epoch))
        stamp = tallies.stamp(epoch, self.salt)
        if cells[place + tallies.EPOCH] != stamp:
            for cell in range(tallies.END):
                cells[place + cell] = 0
            cells[place + tallies.EPOCH] = stamp
        return place

    def drew(self, side, count=1, *, bad=0, seconds=0.01, tally=None, new=None):
        """Count so many requests that a coin brought to a side, some of them bad, without telling control.

        `new` of them were drawn themselves, the others' clients before; None: all.
        """
        cells, place = self.memory.region.cells, self.tally() if tally is None else tally
        for cell, number in (
            (tallies.DRAWN, count if new is None else new),
            (tallies.FINISHED, count),
            (tallies.FAILED, bad),
        ):
            cells[place + cell + side] += number
        cells[place + tallies.BAD + side] += bad
        cells[place + tallies.HISTOGRAM + side * stats.BUCKETS + stats.bucket(seconds)] += count

    def tell(self, side, client=0, *, what="bad", bits=0, outcome="5xx"):
        """Tell control of a result, as a worker does."""
        self.desk.heard([[self.key, self.epoch(), what, side, client, "request-1", 500, outcome, bits]])

    def traffic(self, plain=None):
        """Return what the workers do with the requests of a rollout: with those of the first one."""
        plain = plain or self.served.releases["rollouts"][0]
        slot = self.desk.area.slot(plain["liveKey"], take=False)
        return live.decode(self.desk.area.read(slot)) if slot is not None else Traffic()

    @property
    def salt(self):
        plain = self.served.releases["rollouts"][0]
        return self.desk.area.salt(self.desk.area.slot(plain["liveKey"], take=False))

    # --- control -----------------------------------------------------------------------------------------------------
    def begin(self):
        self.signals = Signals(self.memory.descriptor, lambda: [0])
        self.desk = Desk(self.memory.descriptor, self.signals, self._heard)

    async def restart(self, *, kill=False):
        """Let another control process take over; with `kill` the one before has no chance to put anything in order."""
        if kill:
            for task in (self.desk._watching, *(t for one in self.desk.controllers.values() for t in one._tasks)):
                task.cancel()
            await asyncio.sleep(0)
            await self.desk._session.close()
            await self.desk._hooks.close()
            await self.desk._news.close()
            self.desk.store.close()
        else:
            await self.desk.close()
        self.events.clear()
        self.begin()

    async def close(self):
        if self._traffic:
            self._traffic.cancel()
        await self.desk.close()
        for server in self._servers.values():
            server.close()

    def candidate(self, *rollouts, **changes):
        """Return a configuration with these rollouts, read as the program reads it, with intervals made short."""
        upstreams = {name: [url] for name, url in self.endpoints.items()} | changes.pop("upstreams", {})
        routes = changes.pop("routes", None) or sorted({one.get("route", one["name"]) for one in rollouts} or {"shop"})
        tree = {
            "listeners": [{"address": "127.0.0.1:0"}],
            "state": {"path": str(self.folder / "state.db")},
            "upstreams": [{"name": name, "endpoints": urls} for name, urls in upstreams.items()],
            "routes": [
                route
                if isinstance(route, dict)
                else {"name": route, "hostnames": [f"{route}.test"], "rules": [{"backendRefs": [{"name": "v1"}]}]}
                for route in routes
            ],
            "rollouts": list(rollouts),
            **changes,
        }
        path = self.folder / "config.yaml"
        path.write_text(json.dumps(tree))
        self.generation += 1
        head, plain, public = loader.load(str(path), "1")
        for plainly in head["releases"]["rollouts"]:
            analysis = plainly["analysis"]
            analysis["interval"] = INTERVAL * analysis["interval"]
            for metric in analysis["metrics"]:
                metric["interval"] *= INTERVAL
        described = Memfd.create("described")
        os.write(described.fileno(), b"".join(loader.lines(head, plain, public)))
        return Candidate.described_by(described, self.generation, Memfd.create("snapshot"))

    async def serve(self, candidate, *, start=False):
        """Bring a configuration to the workers, as a reload does."""
        if self.served and not start:
            objections = self.desk.objections(candidate)
            assert not objections, objections
        await self.desk.prepare(candidate)
        self.served = candidate
        self.desk.commit(candidate)
        self.desk.begin()

    def one(self, name="shop"):
        return self.desk.controllers[name]

    # --- what happens ------------------------------------------------------------------------------------------------
    def _heard(self, kind, data):
        self.events.append((kind, data))
        self._happened.set()

    async def until(self, condition, seconds=10.0):
        """Wait for an event after which `condition(controller)` is true of the first rollout."""
        async with asyncio.timeout(seconds):
            while not condition(next(iter(self.desk.controllers.values()))):
                self._happened.clear()
                await self._happened.wait()

    async def until_phase(self, *phases, seconds=10.0):
        await self.until(lambda one: one.state.phase in phases, seconds)

    def texts(self, name="shop"):
        return [entry.text for entry in self.one(name).keeping.history]


def rollout(name="shop", *, primary="v1", canary="v2", revision="1", **analysis):
    """Return an entry of the file; what is not said is a quick canary."""
    outer = {key: analysis.pop(key) for key in ("promotion", "progressDeadline", "skipAnalysis") if key in analysis}
    steps = {} if {"iterations", "steps", "stepWeights"} & analysis.keys() else {"stepWeights": [20, 50]}
    metrics = [{"name": "request-success-rate", "thresholdRange": {"min": 90}}]
    found = {
        **outer,
        "name": name,
        "route": name,
        "primary": primary,
        "canary": canary,
        "revision": revision,
        "analysis": {"interval": "1s", "threshold": 2, "metrics": metrics, **steps, **analysis},
    }
    if revision is None:
        del found["revision"]
    return found
