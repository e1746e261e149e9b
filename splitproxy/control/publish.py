"""Snapshots to all workers: prepare, all acknowledged, commit, all acknowledged.

Only a worker that is alive and says no stops a change. One that dies meanwhile is left out: its replacement starts from
what the supervisor was last told and is brought up to date when it says hello.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from splitproxy.channel import Channel, Message
from splitproxy.control.link import ANSWER_SECONDS, Link
from splitproxy.control.loading import Memfd
from splitproxy.errors import SplitProxyError

log = logging.getLogger(__name__)


class Refused(SplitProxyError):
    """A worker did not take a snapshot; `args[0]` lists why."""


@dataclass(frozen=True)
class Snapshot:
    """A compiled configuration in a memfd."""

    generation: int
    memfd: Memfd


@dataclass(eq=False)
class Worker:
    """A worker, as control sees it."""

    slot: int
    pid: int
    link: Link = field(repr=False)
    generation: int | None = None
    """What it serves, 0 for nothing; None before it has said hello."""
    leaving: bool = False
    """It finishes its requests and is sent nothing more."""
    answers: dict[tuple[str, int], asyncio.Future[str | None]] = field(default_factory=dict, repr=False)
    """What is waited for -> None for yes, or why not."""

    async def ask(self, verb: str, answer: str, snapshot: Snapshot) -> str | None:
        """Send `verb` and return None once `answer` has come, or died trying, or else why it will not."""
        key = (answer, snapshot.generation)
        waiting: asyncio.Future[str | None]
        waiting = self.answers[key] = asyncio.get_running_loop().create_future()
        descriptors = [snapshot.memfd.fileno()] if verb == "prepare" else []
        self.link.send({"type": verb, "generation": snapshot.generation}, descriptors)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await waiting
        except TimeoutError:
            return f"no answer to {verb} within {ANSWER_SECONDS:g} s"
        finally:
            del self.answers[key]

    def answered(self, answer: str, generation: int, error: str | None = None) -> None:
        """Take an answer."""
        if answer == "committed":
            self.generation = generation
        waiting = self.answers.get((answer, generation))
        if waiting and not waiting.done():
            waiting.set_result(error)

    def lost(self) -> None:
        """Stop waiting: the worker is gone, which is no refusal."""
        for waiting in self.answers.values():
            if not waiting.done():
                waiting.set_result(None)


class Publisher:
    """All workers and the snapshot they serve or should serve."""

    def __init__(self) -> None:
        self.workers: dict[int, Worker] = {}
        self.current: Snapshot | None = None
        self.expected = 0
        """How many workers should serve."""
        self.changed = asyncio.Event()
        """Set whenever a worker came, went, or serves something new."""
        self.results: Callable[[list[list[Any]]], None] = lambda _: None
        """Takes what workers tell of requests that are compared."""
        self.pair: Callable[[Message], None] = lambda _: None
        """Takes how answers to a request and to its copies differ."""
        self._busy = False
        self._late: set[asyncio.Task[None]] = set()

    def arrived(self, slot: int, pid: int, descriptor: int) -> None:
        """Talk to a worker over the channel `descriptor`."""
        link = Link(
            Channel.from_fd(descriptor),
            lambda message, _descriptors: self._heard(worker, message),
            lambda: self._lost(worker),
        )
        worker = Worker(slot, pid, link)
        before = self.workers.get(slot)
        if before:
            before.link.close()
            before.lost()
        self.workers[slot] = worker

    def gone(self, slot: int, pid: int) -> None:
        """Forget a worker that the supervisor has seen die."""
        worker = self.workers.get(slot)
        if worker and worker.pid == pid:
            worker.link.close()
            self._lost(worker)

    def leaving(self, slot: int) -> None:
        """Send nothing more to a worker that was asked to finish."""
        if slot in self.workers:
            self.workers[slot].leaving = True
            self.changed.set()

    def wanted(self) -> list[Worker]:
        """Return the workers that are to stay."""
        return [worker for worker in self.workers.values() if not worker.leaving]

    def serving(self) -> list[Worker]:
        """Return the workers that are to stay and serve the current snapshot."""
        return [worker for worker in self.wanted() if self.current and worker.generation == self.current.generation]

    async def prepare(self, snapshot: Snapshot) -> None:
        """Have every worker compile `snapshot` without using it. Raises Refused, after which it is forgotten."""
        self._busy = True
        present = self.wanted()
        answers = await asyncio.gather(*(worker.ask("prepare", "prepared", snapshot) for worker in present))
        refusals = [f"worker {worker.slot}: {no}" for worker, no in zip(present, answers, strict=True) if no]
        if refusals:
            self._busy = False
            for worker in present:
                worker.link.send({"type": "forget", "generation": snapshot.generation})
            self._catch_up(self.wanted())
            raise Refused(refusals)

    async def commit(self, snapshot: Snapshot) -> None:
        """Have every worker use what it has prepared, and return once none uses anything else."""
        self.current = snapshot
        present = self.wanted()
        answers = await asyncio.gather(*(worker.ask("commit", "committed", snapshot) for worker in present))
        for worker, no in zip(present, answers, strict=True):
            if no:
                log.error("worker %d does not serve generation %d: %s", worker.slot, snapshot.generation, no)

    async def settle(self) -> None:
        """Bring those up to date that came while a snapshot was being published."""
        self._busy = False
        self._catch_up(self.wanted())
        if self._late:
            await asyncio.wait(self._late)

    def _catch_up(self, workers: Iterable[Worker]) -> None:
        for worker in workers:
            if self.current and worker.generation not in (None, self.current.generation):
                task = asyncio.create_task(self._bring_up(worker, self.current))
                self._late.add(task)
                task.add_done_callback(self._late.discard)

    @staticmethod
    async def _bring_up(worker: Worker, snapshot: Snapshot) -> None:
        no = await worker.ask("prepare", "prepared", snapshot) or await worker.ask("commit", "committed", snapshot)
        if no:
            log.error("worker %d does not take generation %d: %s", worker.slot, snapshot.generation, no)

    def _heard(self, worker: Worker, message: Message) -> None:
        if message["type"] == "results":
            self.results(message["results"])
            return
        if message["type"] == "pair":
            self.pair(message)
            return
        generation = message["generation"]
        match message["type"]:
            case "hello":
                worker.generation = generation
                if not self._busy and not worker.leaving:
                    self._catch_up([worker])
            case "prepared" | "committed":
                worker.answered(message["type"], generation)
            case "refused":
                worker.answered("prepared", generation, message["error"])
            case unknown:
                raise AssertionError(unknown)
        self.changed.set()

    def _lost(self, worker: Worker) -> None:
        if self.workers.get(worker.slot) is worker:
            del self.workers[worker.slot]
        worker.lost()
        self.changed.set()
