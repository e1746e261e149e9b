"""The composition root of the control process: builds all parts, joins them, owns their lives."""

import asyncio
import contextlib
import logging
import sys
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Final

from splitproxy.channel import ALIVE_SECONDS, Channel, Message
from splitproxy.control import endpoints
from splitproxy.control.admin import admin_application, probes_application
from splitproxy.control.audit import Audit
from splitproxy.control.link import Link, Parent
from splitproxy.control.loading import Candidate, Loading, Memfd
from splitproxy.control.publish import Publisher, Snapshot
from splitproxy.control.reload import Reloader, Report, Trigger
from splitproxy.control.rollouts.desk import Desk
from splitproxy.control.rollouts.trends import keep_pulsing
from splitproxy.control.sites import Sites
from splitproxy.control.state import State
from splitproxy.control.watch import Watch

log = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 1.0
_HELLO_SECONDS: Final = 3.0


@dataclass(frozen=True)
class Options:
    """What the supervisor says at the start."""

    channel: int
    stats: int
    path: str
    workers: str | None
    resume: int | None
    """The generation that was committed last, when this process replaces another."""


class App:
    """The control process."""

    def __init__(self, options: Options) -> None:
        self._options = options

    def run(self, first: Loading | None, watch: Watch) -> int:
        """Run until the supervisor hangs up and return the exit code; `first` is the first load, under way."""
        return asyncio.run(self._run(first, watch))

    async def _run(self, first: Loading | None, watch: Watch) -> int:
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._serving: asyncio.Future[Candidate] = asyncio.get_running_loop().create_future()
        self._parent, self._publisher, self._audit = Parent(), Publisher(), Audit()
        self._state = State(self._options.stats, self._publisher)
        self._admin = Sites(admin_application(self._state, lambda: self.reload("api"), self._drain, self._audit))
        self._probes = Sites(probes_application(self._state))
        self._desk = Desk(self._options.stats, self._state.signals, self._state.events.publish)
        self._publisher.results = self._desk.heard
        self._publisher.pair = self._desk.paired
        self._reloader = Reloader(self._load, self._parent, self._publisher, self._admin, self._probes, self._desk)
        self._state.reloader, self._state.rollouts = self._reloader, self._desk
        self._tracing = self._state.tracing
        self._watch = watch
        self._reloader.reported.append(self._note)
        self._parent.attach(Link(Channel.from_fd(self._options.channel), self._heard, lambda: self._end(0)))
        self._spawn(self._begin(first))
        self._spawn(self._live())
        try:
            return await self._ended
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._admin.close()
            await self._probes.close()
            await self._desk.close()
            await self._tracing.close()
            self._audit.close()

    async def _live(self) -> None:
        """Show the supervisor that this process does not stand still."""
        while True:
            self._parent.send({"type": "alive"})
            await asyncio.sleep(ALIVE_SECONDS)

    # --- the start ---------------------------------------------------------------------------------------------------
    async def _begin(self, first: Loading | None) -> None:
        if first is None:
            await self._resume()
        elif not await self._first_load(first):
            return
        self._spawn(self._look())
        self._spawn(self._state.signals.keep_sampling())
        self._spawn(endpoints.follow(self._state))
        self._spawn(keep_pulsing(self._state))
        await self._until_ready()
        self._desk.begin()
        self._parent.send(
            {"type": "ready", "generation": self._state.generation, "admin": f"http://{self._admin.bound}"}
        )

    async def _first_load(self, first: Loading) -> bool:
        report = await self._reloader.reload("start", lambda _generation: _loaded(first))
        if report.result == "success":
            return True
        for error in report.errors:
            print(error["text"], file=sys.stderr, flush=True)  # noqa: T201 - for the person who has just typed `run`
        self._parent.send({"type": "failed"})
        return False

    async def _resume(self) -> None:
        """Take over from a control process that died: the workers have served on."""
        serving = await self._serving
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_HELLO_SECONDS):
                await self._hellos()
        reached = [worker.generation or 0 for worker in self._publisher.workers.values()]
        await self._reloader.resume(serving, max(reached, default=0))
        self._tracing.use(serving.tracing)
        self._desk.begin()
        self._watch.follow(serving.sources)
        await self.reload("start")

    async def _hellos(self) -> None:
        while any(worker.generation is None for worker in self._publisher.workers.values()):
            self._publisher.changed.clear()
            await self._publisher.changed.wait()

    async def _until_ready(self) -> None:
        while self._state.unready():
            self._publisher.changed.clear()
            await self._publisher.changed.wait()

    # --- reloads -----------------------------------------------------------------------------------------------------
    async def _load(self, generation: int) -> Candidate:
        self._watch.look()
        return await _loaded(Loading(self._options.path, self._options.workers, generation))

    async def reload(self, trigger: Trigger) -> Report:
        """Apply what the files say now."""
        return await self._reloader.reload(trigger)

    def _note(self, report: Report) -> None:
        self._state.events.publish("reload", report.to_dict())
        self._parent.send({"type": "reloaded", "result": report.result, "generation": report.generation})
        if report.trigger in {"file", "signal"} and report.result != "unchanged":  # others come through the API
            path = self._state.running.audit_log if self._state.running else None
            self._audit.note(
                path, who=report.trigger, action="reload", result=report.result, generation=report.generation
            )
        if report.result == "success" and self._reloader.running:
            self._watch.follow(self._reloader.running.sources)
            self._tracing.use(self._reloader.running.tracing)

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            await self._reloader.open_sites()
            if self._watch.changed():
                await self.reload("file")

    # --- the supervisor ----------------------------------------------------------------------------------------------
    def _heard(self, message: Message, descriptors: list[int]) -> None:
        match message["type"]:
            case "serving":
                snapshot, described = map(Memfd, descriptors)
                serving = Candidate.described_by(described, message["generation"], snapshot)
                self._publisher.current = Snapshot(serving.generation, serving.snapshot)
                self._publisher.expected = serving.workers
                self._serving.set_result(serving)
            case "worker":
                self._publisher.arrived(message["slot"], message["pid"], descriptors[0])
                self._tracing.join(self._publisher.workers[message["slot"]].link)
            case "worker-leaving":
                self._publisher.leaving(message["slot"])
            case "worker-gone":
                self._publisher.gone(message["slot"], message["pid"])
            case "reload":
                self._spawn(self.reload("signal"))
            case "drain":
                self._state.draining = True
                self._spawn(self._desk.halt("the program is draining"))
            case _:
                self._parent.heard(message)

    def _drain(self) -> None:
        self._parent.send({"type": "drain"})

    def _end(self, code: int) -> None:
        if not self._ended.done():
            self._ended.set_result(code)

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception():
            # Something here is broken. The supervisor starts this process anew; the workers do not notice.
            log.critical("control fails", exc_info=task.exception())
            self._end(70)


async def _loaded(loading: Loading) -> Candidate:
    """Wait for `loading` without holding up anything else. Raises LoadError."""
    try:
        return await asyncio.to_thread(loading.candidate)
    except asyncio.CancelledError:
        loading.stop()
        raise
