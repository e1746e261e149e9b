"""All rollouts of the program: taken up from the state file, fitted to each configuration, shown and spoken to.

A configuration comes in four moves. `objections` says what it must not do to what is under way; `prepare` takes its
places in shared memory and fills them before any worker compiles it; `commit` follows when all workers serve it;
`forget` when it was refused. All but the loading of the state file is done at once, between two events of the loop.
"""

import asyncio
import json
import logging
import mmap
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from splitproxy import mounts
from splitproxy.control import outbound, providers
from splitproxy.control.loading import Candidate, LoadError, Share
from splitproxy.control.rollouts import following, views
from splitproxy.control.rollouts.controller import Controller
from splitproxy.control.rollouts.hooks import Hooks
from splitproxy.control.rollouts.keeping import VIEWED
from splitproxy.control.rollouts.measuring import Template, counters, keys
from splitproxy.control.rollouts.news import News
from splitproxy.control.rollouts.parts import Facts, Parts
from splitproxy.control.rollouts.store import Entry, NewerStore, Row, Store, StoreError, StoreTaken
from splitproxy.control.signals import Signals
from splitproxy.core import live, tallies
from splitproxy.core.live import LIVE_BYTES, LIVE_OFFSET, Area, Traffic
from splitproxy.core.rollout.machine import from_plain
from splitproxy.core.tallies import Aims
from splitproxy.errors import LiveFull

log = logging.getLogger(__name__)

_WATCH_SECONDS: Final = 0.1
"""Between looks at the hard limits."""
_NEWS_SECONDS: Final = 2.0
"""How long alerts may still be sent when the program ends."""


class Desk:
    """Every rollout, by name. To be made where a loop runs, and closed."""

    def __init__(
        self,
        descriptor: int,
        signals: Signals,
        publish: Callable[[str, dict[str, Any]], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`descriptor` is of the shared memory, `publish` tells listeners of the API."""
        memory = mmap.mmap(descriptor, LIVE_BYTES, offset=LIVE_OFFSET)
        self.area = Area(memoryview(memory).cast("Q"))
        self.controllers: dict[str, Controller] = {}
        self.halted = ""
        """Why no rollout is run at all; empty: they are."""
        self.store: Store | None = None
        self._signals, self._publish, self._monotonic = signals, publish, monotonic
        self._counters = counters(descriptor)
        self._rows: dict[str, Row] = {}
        """What the state file held, and rollouts that are run no more."""
        self._tails: dict[str, list[Entry]] = {}
        """The end of the history of each rollout that is not run yet."""
        self._hooks, self._news, self._session = Hooks(), News(), outbound.session()
        self._providers: dict[str, Mapping[str, Any]] = {}
        self._begun = self._taken = False
        self._closing: set[asyncio.Task[None]] = set()
        self._watching = asyncio.create_task(self._watch())

    async def close(self) -> None:
        """Run no rollout any more; what they have decided is on disk, what they had to say is said."""
        self._watching.cancel()
        await asyncio.gather(self._watching, *self._closing, return_exceptions=True)
        await asyncio.gather(*(controller.close() for controller in self.controllers.values()))
        await self._hooks.close()
        await self._news.close(_NEWS_SECONDS)
        await self._session.close()
        await self._close_store()

    # --- configurations ----------------------------------------------------------------------------------------------
    def objections(self, candidate: Candidate) -> list[str]:
        """Return why `candidate` must not take the place of what is served."""
        running = {name: controller.running for name, controller in self.controllers.items()}
        wanted = {plain["name"] for plain in candidate.releases.get("rollouts", [])}
        resting = {name: one for name, one in self._resting().items() if name in wanted}
        return following.objections(candidate, running | resting, str(self.store.path) if self.store else None)

    async def forgotten(self, candidate: Candidate) -> list[str]:
        """Return which promotions of the state file `candidate` would undo without knowing: for a program's start."""
        rollouts, state = candidate.releases.get("rollouts", []), candidate.releases.get("state")
        path = Path(state["path"]) if state else None
        if path and self.store is None and not self.halted and (rollouts or await asyncio.to_thread(path.exists)):
            await self._open(path)
            if self._taken:
                return [self.halted]
        names = {plain["name"] for plain in rollouts}
        names |= {name for name, row in self._rows.items() if "removed" not in row.evidence}
        resting = {name: one for name, one in self._resting().items() if name in names}
        found = following.objections(candidate, resting, None)
        if not rollouts:
            await self._close_store()  # it was only looked into: a later file may name another
        return found

    def _resting(self) -> dict[str, following.Running]:
        """Return the promotions that are not adopted, of rollouts that nobody runs; the file may bring them back."""
        found = {}
        for name in self._rows.keys() - self.controllers.keys():
            row = self._rows[name]
            try:
                one = following.Running(json.loads(row.plan), from_plain(row.state))
            except (KeyError, TypeError, ValueError):
                continue  # that it cannot be read is said where it is taken up
            if one.state.swapped:
                found[name] = one
        return found

    async def prepare(self, candidate: Candidate) -> None:
        """Let the workers find the shares of `candidate` as they have to be. Raises LoadError."""
        rollouts = candidate.releases.get("rollouts", [])
        if rollouts and self.store is None and not self.halted:
            await self._open(Path(candidate.releases["state"]["path"]))
        templates = _templates(candidate.releases)
        for plain in rollouts:
            try:
                self.area.slot(plain["liveKey"], take=True)
            except LiveFull as error:
                raise LoadError([{"message": str(error), "text": f"rollout {plain['name']}: {error}"}]) from error
            controller = self.controllers.get(plain["name"])
            if controller is None:
                controller = self.controllers[plain["name"]] = self._controller(candidate, plain, templates)
            if plain not in controller.served:
                controller.served.append(plain)
            controller.put_in_force()

    def forget(self) -> None:
        """Go on with what is served: the candidate was refused."""
        for name, controller in list(self.controllers.items()):
            if controller.started:
                del controller.served[1:]
            else:
                del self.controllers[name]

    def commit(self, candidate: Candidate) -> None:
        """Go by `candidate`, which all workers serve from now on."""
        releases = candidate.releases
        wanted = {plain["name"]: plain for plain in releases.get("rollouts", [])}
        # Those that were taken out may still be named by a plan in force.
        self._providers |= {provider["name"]: provider for provider in releases.get("alertProviders", [])}
        self._news.configure(self._providers.values())
        for name in self.controllers.keys() - wanted:
            gone = self.controllers.pop(name)
            gone.removed = True
            if gone.started:
                gone.keeping.save()
            self._rows[name] = gone.rows.make()
            self._tails[name] = list(gone.keeping.history)[-VIEWED:]
            self._later(gone.close())
        templates = _templates(releases)
        for name, plain in wanted.items():
            controller = self.controllers[name]
            if self.halted:
                controller.refused = self.halted
                continue
            controller.follow(plain, _facts(releases, plain, templates))
            controller.put_in_force()
        self.area.keep({plain["liveKey"] for one in self.controllers.values() for plain in one.served})
        self.area.keep([plain["liveKey"] for plain in wanted.values()])
        if self._begun:
            self.begin()

    def begin(self) -> None:
        """Run the rollouts from now on: there are workers to run them on."""
        self._begun = True
        if not self.halted:
            for name, controller in self.controllers.items():
                controller.start(self._tails.pop(name, []))

    async def halt(self, why: str) -> None:
        """Run no rollout from now on, and say why; traffic stays as it is, and another process may take over."""
        self.halted = why
        for controller in self.controllers.values():
            controller.refused = why
        await asyncio.gather(*(controller.close() for controller in self.controllers.values()))
        if self.store:
            self.store.release()

    async def _open(self, path: Path) -> None:
        if why := mounts.loss(path):
            log.warning("rollouts are remembered in %s, but %s. Name a disk or a volume in state.path", path, why)
        store = Store(path)
        try:
            self._rows = await asyncio.to_thread(store.load)
            self._tails = await asyncio.to_thread(lambda: {name: store.newest(name, VIEWED) for name in self._rows})
        except (NewerStore, StoreTaken) as error:
            self.halted, self._taken = str(error), isinstance(error, StoreTaken)
            log.error("no rollout is run: %s", error)
            return
        except StoreError as error:
            log.error("rollouts begin without a memory, and take no step that cannot be saved: %s", error)
        self.store = store

    async def _close_store(self) -> None:
        if self.store:
            await asyncio.to_thread(self.store.close)
        self.store, self.halted = None, ""

    def _controller(
        self, candidate: Candidate, plain: Mapping[str, Any], templates: Mapping[str, Template]
    ) -> Controller:
        parts = Parts(
            signals=self._signals,
            store=self.store or Store(Path()),  # halted: nothing will be written
            session=self._session,
            hooks=self._hooks,
            news=self._news,
            publish=self._publish,
            put=self._put,
            monotonic=self._monotonic,
            counters=self._counters,
        )
        facts = _facts(candidate.releases, plain, templates)
        row = self._rows.get(plain["name"])
        try:
            return Controller(parts, plain, facts, row)
        except (KeyError, TypeError, ValueError):
            log.exception("rollout %s: the plan that was saved cannot be read; the file's is used", plain["name"])
        assert row is not None
        try:
            return Controller(parts, plain, facts, row._replace(plan=json.dumps(plain), evidence={}))
        except (KeyError, TypeError, ValueError):
            log.exception("rollout %s: the state that was saved cannot be read; it begins anew", plain["name"])
        return Controller(parts, plain, facts, None)

    def _put(self, plain: Mapping[str, Any], traffic: Traffic, salt: int, aims: Aims) -> int:
        """Write a rollout's traffic: one store, which all workers obey from their next request on; return its epoch.

        Other thresholds begin an epoch too, where both sides have traffic: else nothing is measured against them.
        """
        slot = self.area.slot(plain["liveKey"], take=False)
        if slot is None:
            return 0  # its candidate was refused for want of room
        cell = self.area.read(slot)
        epoch = live.epoch(cell)
        if self.area.salt(slot) != salt:
            if live.decode(cell) != Traffic():
                epoch += 1
                self.area.write(slot, live.encode(Traffic(), epoch))
            self.area.write_salt(slot, salt)
        both = 0 < traffic.weight < live.EVERYTHING
        if live.decode(self.area.read(slot)) != traffic or (
            both and self.area.thresholds(slot) != tallies.pack(aims.thresholds, epoch)
        ):
            epoch += 1
            self.area.write_thresholds(slot, tallies.pack(aims.thresholds, epoch), aims.word())
            self.area.write(slot, live.encode(traffic, epoch))
        return live.epoch(self.area.read(slot))

    # --- while they run ----------------------------------------------------------------------------------------------
    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            self._look()

    def heard(self, results: list[list[Any]]) -> None:
        """Let rollouts weigh what a worker tells of their requests."""
        found: dict[str, list[list[Any]]] = {}
        for result in results:
            found.setdefault(result[0], []).append(result)
        for controller in list(self.controllers.values()):
            own = [result for plain in controller.served for result in found.get(plain["liveKey"], ())]
            if own and controller.started:
                self._signals.refresh()
                _guarded(controller, partial(controller.weighing.heard, own))

    def paired(self, message: Mapping[str, Any]) -> None:
        """Let a rollout weigh what a worker tells of copies."""
        controller = self.controllers.get(message["rollout"])
        if controller is not None and controller.started:
            controller.copies.heard(message)

    def _look(self) -> None:
        running = [controller for controller in self.controllers.values() if controller.active]
        if running:
            self._signals.refresh()
        for controller in running:
            _guarded(controller, controller.look)

    def _later(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    # --- for those who ask -------------------------------------------------------------------------------------------
    def alarms(self) -> list[str]:
        """Return what is wrong with running rollouts as such."""
        return [text for text in (self.halted, self.store.alarm if self.store else "") if text]

    def live_shares(self, shares: list[Share]) -> list[Share]:
        """Return configured shares as they are at this moment."""
        running = [
            (one.served[0], one.traffic_for(one.served[0])) for one in list(self.controllers.values()) if one.served
        ]
        return views.live_shares(shares, running)


def _guarded(controller: Controller, work: Callable[[], None]) -> None:
    """Do something for one rollout; a defect there is nobody else's."""
    try:
        work()
    except Exception:
        log.exception("rollout %s: weighing what was counted fails", controller.plan.name)


def _templates(releases: Mapping[str, Any]) -> dict[str, Template]:
    """Return the metric templates by name. Raises LoadError."""
    found = {}
    for template in releases.get("metricTemplates", []):
        try:
            found[template["name"]] = Template(providers.build(template["provider"]), template["query"])
        except ValueError as error:
            raise LoadError([{"message": str(error), "text": f"metricTemplate {template['name']}: {error}"}]) from error
    return found


def _facts(releases: Mapping[str, Any], plain: Mapping[str, Any], templates: Mapping[str, Template]) -> Facts:
    return Facts(keys(plain, releases["rules"][plain["route"]]), templates, releases["endpoints"])
