"""What a rollout asks of the world: ticks of the clock, webhooks, measurements, whether its upstreams are there.

Nothing here decides; every answer goes into the rollout's queue. Whatever is asked is answered, also when the asking
itself fails: a round that waited for ever would be a rollout that stands still.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from splitproxy.control import endpoints
from splitproxy.control.rollouts import reach
from splitproxy.control.rollouts.clock import in_window, wall
from splitproxy.core.analysis import ERROR, Verdict
from splitproxy.core.rollout.events import Answer, Ask, Checked, Measure, Proven, Reachable, Tick
from splitproxy.core.rollout.state import State

if TYPE_CHECKING:
    from splitproxy.control.rollouts.controller import Controller

log = logging.getLogger(__name__)

_LATE: Final = 0.25
"""A step that was entered later than this part of the interval after its tick gets a whole interval of its own."""
_WATCH_SECONDS: Final = 10.0
"""Between looks at the upstreams of a rollout that is over but still holds traffic."""


class Asking:
    """The questions of one rollout."""

    def __init__(self, controller: Controller, due: float) -> None:
        """`due` is when the next tick was to come, by the rollout's clock."""
        self._controller = controller
        now = controller.clock.now()
        self.due = due if 0 <= due <= now + self.interval() else now
        if not controller.active:
            self.due = now + _WATCH_SECONDS
        """When the next tick comes, by the rollout's clock."""
        self.late = 0.0
        """Seconds by which the last tick came after its time."""
        self._changed = asyncio.Event()

    # --- ticks -------------------------------------------------------------------------------------------------------
    def interval(self) -> float:
        """Return the seconds between ticks now."""
        plan, state = self._controller.plan, self._controller.state
        own = plan.stages[state.step].interval if 0 <= state.step < len(plan.stages) else 0.0
        return own or plan.interval

    def decided(self, before: State, after: State) -> None:
        """Fit the next tick to a decision: a run that has just begun is prepared at once, a step gets its interval."""
        now, interval = self._controller.clock.now(), self.interval()
        begun = after.step < 0 and not after.awaiting and self._controller.active
        if begun and (after.attempt != before.attempt or after.phase != before.phase) and after.phase != "Paused":
            waits = after.phase == "Waiting" and not after.held
            self.due = now + interval if waits else now
        elif after.attempt != before.attempt or (
            after.stage_since != before.stage_since and self.due - now < (1 - _LATE) * interval
        ):
            self.due = now + interval
        else:
            return
        self._changed.set()

    async def keep_ticking(self) -> None:
        """Tick for as long as the rollout is run."""
        controller = self._controller
        while True:
            await self._until_due()
            now = controller.clock.now()
            if not controller.active:
                self.due = now + _WATCH_SECONDS
                if controller.state.weight:
                    await self.probe()
                continue
            self.late = now - self.due
            # Not from now: a late tick makes the next one no later. Ticks that were missed altogether are let go.
            interval = self.interval()
            self.due += interval * ((now - self.due) // interval + 1)
            state = controller.state
            # Where a step hangs on who is there, the tick must know it.
            if state.step < 0 or state.unreachable_since >= 0 or self._handing_back:
                await self.probe()
            else:
                controller.later(self.probe())
            controller.put(self._tick())

    def _tick(self) -> Tick:
        return Tick(in_window(self._controller.plan.windows, wall()), self._controller.limits.hold)

    def proven(self, step: int, sentence: str) -> None:
        """Have a stage ended that the comparison has shown to be safe."""
        self._controller.put(Proven(step, sentence, self._tick()))

    async def _until_due(self) -> None:
        while (left := self.due - self._controller.clock.now()) > 0:
            self._changed.clear()
            try:
                # Not wait_for: before Python 3.12 it can swallow a cancellation that comes together with the event.
                async with asyncio.timeout(left):
                    await self._changed.wait()
            except TimeoutError:
                return

    # --- whether the upstreams are there -----------------------------------------------------------------------------
    @property
    def _handing_back(self) -> bool:
        """Whether the primary is being updated, or was, so that traffic is to return to it."""
        plan, state = self._controller.plan, self._controller.state
        return plan.mode == "handBack" and state.step >= len(plan.stages)

    async def probe(self) -> None:
        """Look whether the upstreams take connections, and the updated primary is ready, and report it."""
        while True:
            before = self._controller.state.handed_back
            found = await self._found()
            # What was seen of the primary before its update says nothing of the time after.
            if self._controller.state.handed_back == before:
                self._controller.put(found)
                return

    async def _found(self) -> Reachable:
        controller = self._controller
        plan, urls = controller.plan, controller.facts.endpoints
        path = controller.rollout["promotion"]["readiness"]["path"]
        canary, primary = await asyncio.gather(
            reach.any_connects(urls.get(plan.canary, ())),
            reach.all_ready(controller.parts.session, urls.get(plan.primary, ()), path)
            if path and controller.state.handed_back
            else reach.any_connects(urls.get(plan.primary, ())),
        )
        if canary[0] and not endpoints.usable(controller.parts.signals, plan.canary):
            canary = False, f"{plan.canary} takes connections, but no worker finds an endpoint of it healthy"
        return Reachable(canary[0], primary[0], canary[1], primary[1])

    # --- commands ----------------------------------------------------------------------------------------------------
    def carry_out(self, command: Ask | Measure) -> None:
        """Do what the machine asks for, in the background; webhooks are told how things stand at this moment."""
        controller = self._controller
        if isinstance(command, Measure):
            controller.later(self._measure(command))
            return
        promotion = controller.rollout["promotion"]["webhook"]
        hooks = [hook for hook in controller.rollout["analysis"]["webhooks"] if hook["type"] == command.type]
        if command.type == "hand-back" and promotion is not None:
            hooks = [promotion]
        controller.later(self._ask(command, hooks, controller.telling.payload()))

    async def _ask(self, command: Ask, hooks: list[dict[str, Any]], payload: dict[str, Any]) -> None:
        controller = self._controller
        try:
            result = await controller.parts.hooks.ask(hooks, payload)
            answer = Answer(command.type, command.round, result.outcome, result.hook, result.text)
        except Exception as error:
            log.exception("rollout %s: asking the %s webhooks fails", controller.plan.name, command.type)
            answer = Answer(command.type, command.round, "fail", "", f"a defect: {error!r}")
        controller.put(answer)

    async def _measure(self, command: Measure) -> None:
        controller = self._controller
        plan = controller.plan
        try:
            verdicts, broken = await controller.measuring.check(
                plan, controller.state, controller.clock.now(), side=command.side
            )
            if broken:
                controller.put(broken)
        except Exception as error:
            log.exception("rollout %s: measuring fails", plan.name)
            verdicts = tuple(
                Verdict(one.name, ERROR, None, one.min, one.max, 0, 0.0, None, "", f"a defect: {error!r}")
                for one in plan.metrics
            )
        controller.put(Checked(command.round, verdicts))
