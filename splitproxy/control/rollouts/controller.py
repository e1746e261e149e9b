"""One rollout being run: its queue, its decisions in order, and the moment at which each is saved and put in force.

Everything that happens to a rollout goes through one queue: ticks, answers, verbs, changes of the file. A decision by
which traffic grows is saved first and then applied; any other is applied first, so that no slow or full disk holds up
a rollback.
"""

import asyncio
import json
import logging
from collections.abc import Coroutine, Iterable, Mapping
from typing import Any, Final

from splitproxy.control.rollouts import following, views
from splitproxy.control.rollouts.asking import Asking
from splitproxy.control.rollouts.clock import Clock, iso, wall
from splitproxy.control.rollouts.copies import Copies
from splitproxy.control.rollouts.items import Item, Unsaved, settle
from splitproxy.control.rollouts.keeping import Keeping
from splitproxy.control.rollouts.limits import Limits
from splitproxy.control.rollouts.measuring import Measuring
from splitproxy.control.rollouts.parts import Facts, Parts
from splitproxy.control.rollouts.rows import Rows
from splitproxy.control.rollouts.store import Entry, Row
from splitproxy.control.rollouts.telling import Telling
from splitproxy.control.rollouts.weighing import Weighing
from splitproxy.core.live import Traffic
from splitproxy.core.rollout.events import (
    Adopted,
    Alert,
    Begin,
    Breached,
    Convicted,
    Event,
    Record,
    Tick,
    Verb,
)
from splitproxy.core.rollout.machine import (
    Outcome,
    advance,
    compile_plan,
    from_plain,
    legal,
    traffic,
)
from splitproxy.core.rollout.plan import Plan
from splitproxy.core.rollout.state import ACTIVE, State
from splitproxy.core.rollout.traffic import grows

log = logging.getLogger(__name__)

_CLOCK_SECONDS: Final = 10.0
"""How much of a rollout's clock a crash may lose while nothing happens."""
_AT_ONCE: Final = (Breached, Convicted)
"""What ends a run between checks, without waiting for the disk's answer to an earlier decision."""
_URGENT: Final = frozenset({"abort", "undo"})
"""Verbs that do not wait for the disk's answer to an earlier decision."""


class Controller:
    """Runs one rollout, from `start` to `close`."""

    def __init__(self, parts: Parts, plain: Mapping[str, Any], facts: Facts, row: Row | None) -> None:
        """Take up the rollout where `row` left it; `plain` is what the file says now."""
        self.parts = parts
        self.rollout: Mapping[str, Any] = json.loads(row.plan) if row else plain
        """The plain rollout in force."""
        self.plan: Plan = compile_plan(dict(self.rollout))
        self.state: State = from_plain(row.state).loaded() if row else State()
        self.new = row is None
        """Whether it was never seen before."""
        self.clock = Clock(parts.monotonic, row.clock if row else 0.0)
        evidence: Mapping[str, Any] = row.evidence if row else {}
        self.verdicts: list[dict[str, Any]] = evidence.get("verdicts", [])
        """The last check's, as they are shown."""
        self.results: dict[str, int] = evidence.get("results", {"succeeded": 0, "failed": 0})
        """Runs that ended, by result."""
        self.started_at = row.started_at if row else None
        self.phase_at = row.phase_at if row else iso(wall())
        self.started = False
        self.refused = ""
        """Why what the file says is not done; empty: it is."""
        self.removed = False
        """Whether the file names it no more, and that was accepted."""
        self.served: list[Mapping[str, Any]] = []
        """The plain forms by which workers serve it: two while a configuration is being published."""
        self.facts = facts
        self.upcoming: tuple[Mapping[str, Any], Plan] | None = None
        """The plain form and plan of the file, where they wait for the next step."""
        self._file: Mapping[str, Any] = plain
        self._queue: asyncio.Queue[Item] = asyncio.Queue()
        self.rows = Rows(self)
        self.keeping = Keeping(parts.store, self.plan.name, self.rows.make)
        self._waits: Begin | None = None
        """The file's revision that waits for the primary, though no run is under way."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self.measuring = Measuring(parts.signals, parts.monotonic, self.rollout, facts.keys, facts.templates)
        self.weighing = Weighing(self, evidence)
        self.copies = Copies(self, evidence)
        self.limits = Limits(self)
        self.telling = Telling(self)
        self.asking = Asking(self, evidence.get("due", -1.0))
        mark = evidence.get("mark")
        if mark and evidence.get("counters") == parts.counters:
            self.measuring.resume(mark, self.state.stage_since, self.clock.now())

    # --- its life ----------------------------------------------------------------------------------------------------
    def start(self, history: Iterable[Entry] = ()) -> None:
        """Run it from now on, unless it is run already; `history` is the end of that on disk."""
        if self.started:
            return
        self.started = True
        self.keeping.history.extendleft(reversed(list(history)))
        if self.new:
            self.new = False
            self.keeping.save()
        self.later(self._work())
        self.later(self.asking.keep_ticking())

    async def close(self) -> None:
        """Run it no more; its state is kept."""
        self.started = False
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.keeping.close()
        while not self._queue.empty():
            settle(self._queue.get_nowait(), Unsaved("the rollout is run no more"))

    def later(self, work: Coroutine[Any, Any, Any]) -> None:
        """Do something beside the queue."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception():
            log.critical("rollout %s: a defect", self.plan.name, exc_info=task.exception())

    @property
    def running(self) -> following.Running:
        """The plan in force and the state."""
        return following.Running(self.rollout, self.state)

    @property
    def active(self) -> bool:
        """Whether a run is under way."""
        return self.state.phase in ACTIVE

    @property
    def traffic(self) -> Traffic:
        """What is done with requests now."""
        return traffic(self.plan, self.state)

    # --- events ------------------------------------------------------------------------------------------------------
    def put(self, event: Event) -> None:
        """Have an event decided on, after those before it."""
        self._queue.put_nowait(Item(event))
        if isinstance(event, _AT_ONCE):
            self.keeping.hurry(urgent=True)

    async def act(self, verb: Verb) -> str | None:
        """Do what an operator says; return why not, None when it was done. Raises Unsaved."""
        if not self.started:
            raise Unsaved(self.refused or "the configuration is not served yet")
        done: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait(Item(verb, done))
        if verb.name in _URGENT:
            self.keeping.hurry(urgent=True)
        return await done

    def look(self) -> None:
        """Weigh what was counted up to now, compare it with the hard limits, and keep a mark for later windows."""
        state = self.state  # of a dry run too: there may be copies, or requests that are forced
        if not self.active or not (state.weight or state.mirror or state.cohorts or state.handed_back):
            self.limits.forget()
            return
        now = self.clock.now()
        self.measuring.note(self.plan, now)
        self.weighing.look()
        self.copies.look()
        self.limits.look(now)

    # --- the file ----------------------------------------------------------------------------------------------------
    def follow(self, plain: Mapping[str, Any], facts: Facts) -> None:
        """Go by what the file says now; what would change the present step waits for the next one."""
        # What the plan in force still needs stays at hand until it is replaced.
        templates = {**self.facts.templates, **facts.templates}
        facts = facts._replace(templates=templates, endpoints={**self.facts.endpoints, **facts.endpoints})
        self._file, self.facts, self.refused, self._waits = plain, facts, "", None
        self.served = [plain]
        if self.state.swapped:
            if following.adopts(plain, self.running):
                self.upcoming = plain, compile_plan(dict(plain))
                self.put(Adopted())
                # Without a revision the old primary, now the canary, would look like a new version.
                if plain["revision"] not in (None, self.state.revision, self.state.promoted):
                    self.put(Begin(plain["revision"]))
                return
            if not following.same_pair(plain, self.rollout) or following.revision(plain) not in (
                self.state.revision,
                self.state.promoted,
            ):
                self.refused = following.refusal(plain, self.running)
                self.telling.note(self.refused)
                return
        plan = compile_plan(dict(plain))
        wanted = following.meaning(plain, self.running, new=self.new)
        if self.active:
            self.upcoming = plain, plan
            self.measuring.follow(self.rollout, facts.keys, facts.templates)
            self._taken(self.plan)
            if wanted != "begin" and not following.same_pair(plain, self.rollout):
                self._stranded()
        else:
            self._take_plan(plain, plan)
        self._begin_if(wanted, plain)

    def _begin_if(self, wanted: str, plain: Mapping[str, Any]) -> None:
        if wanted == "begin" and not (self.active and self.state.handed_back):
            self.put(Begin(following.revision(plain)))
        elif wanted == "return":
            self.put(Verb("abort", f"the file, which names the promoted revision {self.state.promoted} again"))

    def _await_primary(self, event: Event) -> None:
        """Say that the file's revision waits for the primary, if it does; begin it when that is back."""
        if following.bereft(self.state):
            if isinstance(event, Begin) and not event.by:
                self._waits, self.refused = event, following.waiting(self.running)
                self.telling.stands()
        elif self._waits:
            waits, self._waits, self.refused = self._waits, None, ""
            if not self.active:
                self.put(waits)

    def _stranded(self) -> None:
        """End a run whose upstreams the file has exchanged while nobody ran it (a reload would have been refused)."""
        text = (
            f"the file no longer leads from {self.plan.primary} to {self.plan.canary} on route {self.plan.route}:"
            " the run is over"
        )
        self.state = self.state._replace(
            phase="Failed", weight=0, cohorts=0, mirror=0, resume="", held="", awaiting="", reason=text
        )
        self.results["failed"] += 1
        self.telling.note(text)
        assert self.upcoming
        self._take_plan(*self.upcoming)

    def _take_plan(self, plain: Mapping[str, Any], plan: Plan) -> None:
        self.rollout, self.plan, self.upcoming = plain, plan, None
        self.measuring.follow(plain, self.facts.keys, self.facts.templates)

    def _taken(self, plan: Plan) -> None:
        """Take notice of the plan that is in force after a decision: what a run keeps of the old one stays in it."""
        self.plan = plan
        if self.upcoming is None:
            return
        plain, new = self.upcoming
        if plan == new:
            self._take_plan(plain, plan)
        elif plan == new._replace(dry_run=plan.dry_run, mode=plan.mode):
            promotion = {**plain["promotion"], "mode": plan.mode}
            analysis = {**plain["analysis"], "dryRun": plan.dry_run}
            self.rollout = {**plain, "promotion": promotion, "analysis": analysis}
            self.measuring.follow(self.rollout, self.facts.keys, self.facts.templates)

    def traffic_for(self, plain: Mapping[str, Any]) -> Traffic:
        """Return what is done with the requests of a version of the file: a new canary begins with nothing."""
        state = self.state
        kept = state.swapped or state.handed_back or (not self.active and state.weight > 0)
        same = following.same_pair(plain, self.rollout)
        return self.traffic if same and (kept or following.revision(plain) == state.revision) else Traffic()

    def put_in_force(self) -> None:
        """Write the traffic of every served version to the shared memory; the same again changes nothing."""
        for plain in self.served:
            traffic = self.traffic_for(plain)
            epoch = self.parts.put(plain, traffic, self.salt(), self.weighing.aims)
            self.weighing.in_force((plain["liveKey"], epoch), traffic)

    def salt(self) -> int:
        """Return what the clients of this run are drawn with."""
        return views.salt(self.plan.name, self.state)

    # --- decisions ---------------------------------------------------------------------------------------------------
    async def _work(self) -> None:
        while True:
            item = await self._queue.get()
            try:
                answer = await self._decide(item)
            except Unsaved as error:
                settle(item, error)
            except Exception as error:
                log.exception("rollout %s: a defect; %r is dropped", self.plan.name, item.event)
                settle(item, error)
            else:
                settle(item, answer)

    async def _decide(self, item: Item) -> str | None:
        """Let one event do its work; return why a verb was refused."""
        event, before = item.event, self.state
        self.limits.answered(event)
        self.weighing.answered(event)
        if isinstance(event, _AT_ONCE) or (isinstance(event, Verb) and event.name in _URGENT):
            self.keeping.hurry(urgent=False)
        if isinstance(event, Verb) and (why := legal(self.plan, self.state, event)):
            return why
        upcoming = self.upcoming[1] if self.upcoming else None
        outcome = advance(self.plan, before, event, self.clock.now(), upcoming)
        if outcome.state == before and not outcome.commands and outcome.plan is self.plan:
            self._idle(event)
            return None
        self.telling.saw(event)
        entries = self._entries(outcome)
        if grows(traffic(outcome.plan, outcome.state), self.traffic):
            await self._grow(outcome, entries)
        else:
            await self._settle(outcome, entries)
        self._perform(outcome)
        self.asking.decided(before, self.state)
        if before.phase in ACTIVE and not self.active:
            self._begin_if(following.meaning(self._file, self.running, new=False), self._file)
        self._await_primary(event)
        return None

    def _idle(self, event: Event) -> None:
        """Nothing happened; keep the clock, now and then."""
        now = self.clock.now()
        if isinstance(event, Tick) and now - self.keeping.saved_at > _CLOCK_SECONDS:
            self.keeping.saved_at = now
            self.keeping.save()

    async def _grow(self, outcome: Outcome, entries: list[Entry]) -> None:
        """Save, then apply; what cannot be saved is not done. Raises Unsaved."""
        if not await self.keeping.saved(self.rows.make(outcome.state, outcome.plan), entries):
            # The next tick tries again, from where it stood; late answers of this round mean nothing then.
            self.state = self.state.loaded()._replace(round=outcome.state.round)
            why = f"not done, because {self.keeping.obstacle}"
            self.telling.alarm(why)
            raise Unsaved(why)
        self._apply(outcome, entries)

    async def _settle(self, outcome: Outcome, entries: list[Entry]) -> None:
        """Apply, then save: a rollback without waiting, anything else waits a moment, so that effects come after."""
        shrinks = grows(self.traffic, traffic(outcome.plan, outcome.state))
        quiet = self.state._replace(round=outcome.state.round, awaiting=outcome.state.awaiting)
        trivial = outcome.state == quiet and not entries and outcome.plan is self.plan
        self._apply(outcome, entries)
        if trivial:
            return
        if shrinks:
            self.keeping.save()
        elif not await self.keeping.saved() and self.keeping.alarm:
            self.telling.alarm(
                f"its state cannot be saved: {self.keeping.alarm}; steps forward wait, a rollback does not"
            )

    def _apply(self, outcome: Outcome, entries: list[Entry]) -> None:
        """Make the outcome the present: shares first."""
        before, shares = self.state, self.traffic
        self.state = outcome.state
        self._taken(outcome.plan)
        self.weighing.decided(before, self.state)
        self.copies.decided(before, self.state)
        if self.state.attempt != before.attempt:
            self.limits.forget()
        self.put_in_force()
        if self.state.attempt != before.attempt:
            self.started_at, self.verdicts = iso(wall()), []
        if self.state.phase != before.phase:
            self.phase_at = iso(wall())
            if before.phase in ACTIVE and not self.active:
                self.results[self.state.phase.lower()] += 1
        if self.state.stage_since != before.stage_since or self.traffic != shares:
            self.measuring.restart(self.state.stage_since)
        self.keeping.add(entries)
        for entry in entries:
            self.telling.happened(entry)
        if not entries and before.reason != self.state.reason:
            self.telling.stands()

    def _perform(self, outcome: Outcome) -> None:
        for command in outcome.commands:
            if isinstance(command, Alert):
                self.telling.news(command)
            elif not isinstance(command, Record):
                self.asking.carry_out(command)

    # --- telling -----------------------------------------------------------------------------------------------------
    def _entries(self, outcome: Outcome) -> list[Entry]:
        records = (command for command in outcome.commands if isinstance(command, Record))
        return [self.keeping.entry(outcome.state.attempt, record) for record in records]

    def summary(self) -> dict[str, Any]:
        """Return where it stands, in short."""
        return views.summary(self.plan, self.state, self.traffic)
