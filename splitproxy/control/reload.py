"""The life of a reload: load → listen → prepare → commit → settle; all or nothing, one at a time."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

from splitproxy.control.link import ListenError, Parent
from splitproxy.control.loading import Candidate, LoadError
from splitproxy.control.publish import Publisher, Refused, Snapshot
from splitproxy.control.sites import SiteError, Sites

log = logging.getLogger(__name__)

Trigger = Literal["start", "file", "signal", "api"]
Result = Literal["success", "unchanged", "failure"]
Load = Callable[[int], Awaitable[Candidate]]
"""Generation -> what the files hold now; raises LoadError."""


class Releases(Protocol):
    """What is under way by a configuration and must survive its change: the rollouts."""

    def objections(self, candidate: Candidate) -> list[str]:
        """Return why `candidate` must not take the place of what is served."""

    async def forgotten(self, candidate: Candidate) -> list[str]:
        """Return why nothing may be served by `candidate`: it does not know of what was done before the program."""

    async def prepare(self, candidate: Candidate) -> None:
        """Make ready for `candidate`, before any worker compiles it. Raises LoadError."""

    def commit(self, candidate: Candidate) -> None:
        """Go by `candidate`: all workers serve it."""

    def forget(self) -> None:
        """Go on as before: the candidate was refused."""


@dataclass(frozen=True)
class Report:
    """How a reload went."""

    result: Result
    trigger: Trigger
    generation: int
    """What serves after it."""
    seconds: float
    errors: list[dict[str, Any]] = field(default_factory=list)
    at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="milliseconds"))

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)


class Reloader:
    """Brings what the files say to all workers, or leaves everything as it is and says why."""

    def __init__(
        self, load: Load, parent: Parent, publisher: Publisher, admin: Sites, probes: Sites, releases: Releases
    ) -> None:
        self._load, self._parent, self._publisher = load, parent, publisher
        self._admin, self._probes, self._releases = admin, probes, releases
        self._lock = asyncio.Lock()
        self._generation = 0
        self.running: Candidate | None = None
        """What serves; None before the first success of this process."""
        self.last: Report | None = None
        self.counts: dict[Result, int] = {"success": 0, "unchanged": 0, "failure": 0}
        self.reported: list[Callable[[Report], None]] = []
        """Called with every report."""

    async def resume(self, running: Candidate, reached: int) -> None:
        """Take over while `running` serves; whatever comes next is numbered above `reached`."""
        self.running, self._generation = running, max(running.generation, reached)
        await self._releases.prepare(running)
        self._releases.commit(running)
        for error in await self.open_sites():
            log.error("%s; tried again every second", error)

    async def open_sites(self) -> list[str]:
        """Listen where the running configuration says, should this process have taken over without; say what fails."""
        running, failures = self.running, []
        if running and not self._lock.locked():
            for sites, address in ((self._admin, running.admin), (self._probes, running.probes)):
                try:
                    await sites.open(address)
                    await sites.keep(address)
                except SiteError as error:
                    failures += [f"cannot listen on {where}: {why}" for where, why in error.args[0].items()]
        return failures

    async def reload(self, trigger: Trigger, load: Load | None = None) -> Report:
        """Apply what the files say now; `load` replaces the usual way to read them."""
        async with self._lock:
            began = time.monotonic()
            errors: list[dict[str, Any]] = []
            result: Result = "failure"
            try:
                result = await self._apply(await (load or self._load)(self._generation + 1))
            except LoadError as error:
                errors = error.args[0]
            except (SiteError, ListenError) as error:
                errors = [_in_words(f"cannot listen on {where}: {why}") for where, why in error.args[0].items()]
            except Refused as error:
                errors = [_in_words(text) for text in error.args[0]]
            except TimeoutError:
                errors = [_in_words("the supervisor does not answer")]
            serving = self._publisher.current
            report = Report(result, trigger, serving.generation if serving else 0, time.monotonic() - began, errors)
            self._report(report)
            return report

    async def _apply(self, candidate: Candidate) -> Result:
        if self.running and (candidate.checksum, candidate.sources) == (self.running.checksum, self.running.sources):
            return "unchanged"
        if self.running:
            objections = self._releases.objections(candidate)
        else:  # at the start there is nothing to go on with: what was saved of a run wins over the file, which is said
            objections = await self._releases.forgotten(candidate)
        if objections:
            raise LoadError([_in_words(text) for text in objections])
        try:
            await self._admin.open(candidate.admin)
            await self._probes.open(candidate.probes)
            await self._publish(candidate)
        except BaseException:
            await self._admin.forget()
            await self._probes.forget()
            raise
        self.running = candidate
        await self._admin.keep(candidate.admin)
        await self._probes.keep(candidate.probes)
        return "success"

    async def _publish(self, candidate: Candidate) -> None:
        snapshot = Snapshot(candidate.generation, candidate.snapshot)
        try:
            await self._parent.listen(candidate.listeners, candidate.workers)
            self._generation = candidate.generation
            await self._releases.prepare(candidate)
            await self._publisher.prepare(snapshot)
        except BaseException:
            self._releases.forget()
            self._parent.send({"type": "forget"})
            raise
        self._publisher.expected = candidate.workers
        await self._publisher.commit(snapshot)  # from here on there is no way back
        self._releases.commit(candidate)
        try:
            await self._parent.committed(candidate)
        except TimeoutError:
            log.exception("the supervisor does not answer")
        await self._publisher.settle()

    def _report(self, report: Report) -> None:
        self.last = report
        self.counts[report.result] += 1
        match report.result:
            case "success":
                fields = {"generation": report.generation, "seconds": report.seconds, "trigger": report.trigger}
                words = "generation %(generation)d serves after %(seconds).2f s (%(trigger)s)"
                log.info(words, fields, extra={"fields": fields})
                for warning in self.running.warnings if self.running else ():
                    log.warning("%s", warning)
            case "unchanged":
                log.info("nothing has changed (%s)", report.trigger)
            case "failure" if report.generation:  # at the very start the errors are for who has just typed `run`
                log.error("not loaded (%s), generation %d serves on", report.trigger, report.generation)
                for error in report.errors:
                    log.error("%s", error["text"])
            case _:
                pass
        for call in self.reported:
            call(report)


def _in_words(text: str) -> dict[str, Any]:
    return {"message": text, "text": text}
