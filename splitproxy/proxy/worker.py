"""A worker process: takes snapshots and listeners in, serves, drains, and goes when its supervisor does."""

import argparse
import asyncio
import contextlib
import gc
import logging
import math
import mmap
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable

import uvloop

from splitproxy import logs
from splitproxy.channel import POLITE_SECONDS, Channel, Message
from splitproxy.core import live, stats
from splitproxy.core.snapshot import Loader, Snapshot
from splitproxy.proxy.door import Entrance
from splitproxy.proxy.service import Prepared, Service
from splitproxy.tls import overlook_invalid_names

log = logging.getLogger("splitproxy.worker")
_MOST_UNREAD = 65_536
"""Octets that control has not read yet beyond which it is told nothing that it can do without."""


class Worker:
    """The life of one worker."""

    def __init__(self, supervisor: Channel, service: Service, slot: int, area: live.Area) -> None:
        """`area` holds the live shares of rollouts; a worker only reads it."""
        self.service = service
        self.slot = slot
        self.ended = asyncio.Event()
        self.failed = False
        self._loop = service.loop
        self._area = area
        self._control: Channel | None = None
        self._entrances: dict[str, Entrance] = {}
        self._preparing: dict[int, asyncio.Task[Prepared | None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._queue: asyncio.Queue[tuple[Message, list[int]]] = asyncio.Queue()
        service.report = self._report
        self._watch(supervisor, self._from_supervisor, self.ended.set)
        self._spawn(self._obey_supervisor())

    def _spawn(self, work: "asyncio._CoroutineLike[None]") -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("defect in a task of the worker", exc_info=task.exception())

    def _watch(self, channel: Channel, take: Callable[[Message, list[int]], None], lost: Callable[[], None]) -> None:
        channel.sock.setblocking(False)

        def readable() -> None:
            while True:
                try:
                    received = channel.receive()
                except BlockingIOError:
                    return
                if received is None:
                    self._loop.remove_reader(channel)
                    lost()
                    return
                take(*received)

        self._loop.add_reader(channel, readable)

    # --- the supervisor's word: one after the other ------------------------------------------------------------------
    def _from_supervisor(self, message: Message, fds: list[int]) -> None:
        self._queue.put_nowait((message, fds))

    async def _obey_supervisor(self) -> None:
        """Do what it says. What cannot be done ends the process: one that is half alive would not be replaced."""
        message: Message = {}
        try:
            while True:
                message, fds = await self._queue.get()
                await self._obey(message, fds)
        except Exception:
            log.exception("cannot do what the supervisor says: %s", message["type"])
            self.failed = True
            self.ended.set()

    async def _obey(self, message: Message, fds: list[int]) -> None:
        match message["type"]:
            case "snapshot":
                await self._serve(await self.service.prepare(await self._load(fds[0])))
            case "listener":
                await self._listen(message["address"], socket.socket(fileno=fds[0]))
            case "release":
                self._spawn(self._release(message["address"]))
            case "control":
                self._meet_control(Channel.from_fd(fds[0]))
            case "reopen":
                if self.service.access_log is not None:
                    self.service.access_log.reopen()
            case "leaving":
                self.service.draining = True
            case "drain":
                self._spawn(self._drain(message["seconds"]))
            case unknown:
                log.error("the supervisor sent a message of unknown type %r", unknown)

    async def _serve(self, prepared: Prepared) -> None:
        self.service.commit(prepared)
        for entrance in list(self._entrances.values()):
            await entrance.adapt()

    async def _listen(self, address: str, sock: socket.socket) -> None:
        entrance = self._entrances[address] = Entrance(self.service, address, sock)
        await entrance.open()

    async def _release(self, address: str) -> None:
        await self._entrances.pop(address).release()

    async def _drain(self, seconds: float) -> None:
        """Finish every request, but none for longer than `seconds`; 0 is no limit.

        An idle connection is not closed at once: what its client may be sending at this moment would be lost.
        """
        self.service.draining = True
        end = self._loop.time() + (seconds or math.inf)
        await asyncio.gather(*(self._release(address) for address in list(self._entrances)))
        if not await self._idle(min(POLITE_SECONDS, end - self._loop.time())):
            self.service.drain()
            if not await self._idle(end - self._loop.time()):
                log.warning(
                    "%d connection(s) were in use after %g s and are cut", len(self.service.connections), seconds
                )
                self.service.cut()
                await self._idle(POLITE_SECONDS)
        self.ended.set()

    async def _idle(self, seconds: float) -> bool:
        """Wait until no client is connected, at most `seconds`; say whether that is so."""
        try:
            async with asyncio.timeout(max(seconds, 0.0) if seconds < math.inf else None):
                await self.service.idle.wait()
        except TimeoutError:
            return False
        return True

    # --- control's word ----------------------------------------------------------------------------------------------
    def _meet_control(self, channel: Channel) -> None:
        if self._control is not None:
            self._loop.remove_reader(self._control)
            self._control.close()
        self._control = channel
        self._watch(channel, self._from_control, lambda: None)
        self._tell({"type": "hello", "slot": self.slot, "generation": self.service.generation})

    def _tell(self, message: Message) -> None:
        if self._control is not None:
            try:
                self._control.send(message)
            except OSError as error:
                log.warning("control cannot be told %s: %s", message["type"], error)

    def _report(self, message: Message) -> bool:
        """Tell control what it can do without, and say whether that was done.

        While it is away it is lost, or while it does not keep up: there must be room for what it waits for.
        """
        if self._control is not None and self._control.unread() < _MOST_UNREAD:
            with contextlib.suppress(OSError):
                self._control.send(message)
                return True
        return False

    def _from_control(self, message: Message, fds: list[int]) -> None:
        if message["type"] == "spans":
            self.service.spans.attach(fds[0])
            return
        generation = message["generation"]
        match message["type"]:
            case "prepare":
                self._preparing[generation] = self._loop.create_task(self._prepare(generation, fds[0]))
            case "commit":
                self._spawn(self._commit(generation))
            case "forget":
                self._spawn(self._forget(generation))
            case unknown:
                log.error("control sent a message of unknown type %r", unknown)

    async def _prepare(self, generation: int, fd: int) -> Prepared | None:
        try:
            prepared = await self.service.prepare(await self._load(fd))
        except Exception as error:
            log.exception("cannot prepare generation %d", generation)
            self._tell({"type": "refused", "generation": generation, "error": f"{type(error).__name__}: {error}"})
            return None
        self._tell({"type": "prepared", "generation": generation})
        return prepared

    async def _commit(self, generation: int) -> None:
        prepared = await self._preparing.pop(generation)
        if prepared is not None:
            await self._serve(prepared)
            self._tell({"type": "committed", "generation": generation})

    async def _forget(self, generation: int) -> None:
        task = self._preparing.pop(generation, None)
        if task is not None:
            prepared = await task
            if prepared is not None:
                self.service.forget(prepared)

    async def _load(self, fd: int) -> Snapshot:
        """Build a snapshot in slices, between which requests are served."""
        try:
            loader = Loader(os.pread(fd, os.fstat(fd).st_size, 0), self._area)
        finally:
            os.close(fd)
        gc.disable()  # a full collection would look through all that is being built, again and again
        try:
            for _ in loader:
                await asyncio.sleep(0)
        finally:
            # A snapshot lives long and dies by reference count: no collection need ever look through it.
            gc.freeze()
            gc.enable()
        assert loader.snapshot is not None
        return loader.snapshot


def main() -> int:
    """Run until drained or orphaned."""
    parser = argparse.ArgumentParser()
    for name in ("--channel", "--stats", "--slot"):
        parser.add_argument(name, type=int, required=True)
    options = parser.parse_args()
    # Sent to the whole group, some of them: the supervisor decides.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    logs.set_up(f"worker {options.slot}")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # Young objects die by reference count; what survives is mostly the snapshot. Look for cycles rarely.
    gc.set_threshold(50_000, 50, 1_000)
    overlook_invalid_names()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(options.channel, options.stats, options.slot))


async def _serve(channel: int, stats_fd: int, slot: int) -> int:
    mapping = mmap.mmap(stats_fd, stats.REGION_BYTES, offset=slot * stats.REGION_BYTES)
    region = stats.Region(memoryview(mapping).cast("Q"))
    region.cells[stats.PID] = os.getpid()
    shares = mmap.mmap(stats_fd, live.LIVE_BYTES, prot=mmap.PROT_READ, offset=live.LIVE_OFFSET)
    area = live.Area(memoryview(shares).cast("Q"))
    gc.freeze()
    worker = Worker(Channel.from_fd(channel), Service(region, asyncio.get_running_loop()), slot, area)
    await worker.ended.wait()
    worker.service.write_signals()
    if worker.service.access_log is not None:
        worker.service.access_log.close()
    return 1 if worker.failed else 0


if __name__ == "__main__":
    sys.exit(main())
