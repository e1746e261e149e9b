"""What is saved of a rollout, made from what is true at that moment."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from splitproxy.control.rollouts.clock import iso, wall
from splitproxy.control.rollouts.store import Row
from splitproxy.core.rollout.machine import to_plain
from splitproxy.core.rollout.plan import Plan
from splitproxy.core.rollout.state import State

if TYPE_CHECKING:
    from splitproxy.control.rollouts.controller import Controller


class Rows:
    """Makes the rows of one rollout."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._written: tuple[Mapping[str, Any], str] = ({}, "")

    def make(self, state: State | None = None, plan: Plan | None = None) -> Row:
        """Return what is saved now, or once `state` and `plan` are in force."""
        one, now = self._controller, iso(wall())
        state, plain = state or one.state, one.rollout
        if plan is not None and one.upcoming and plan == one.upcoming[1]:
            plain = one.upcoming[0]
        evidence = {
            "verdicts": one.verdicts,
            "mark": one.measuring.saved(),
            "counters": one.parts.counters,
            "due": one.asking.due,
            "results": one.results,
            "weighing": one.weighing.saved(),
            "copies": one.copies.saved(),
        } | ({"removed": True} if one.removed else {})
        return Row(
            *(one.plan.name, to_plain(state), self._text(plain), one.clock.now(), evidence),
            one.started_at if state.attempt == one.state.attempt else now,
            one.phase_at if state.phase == one.state.phase else now,
            now,
        )

    def _text(self, plain: Mapping[str, Any]) -> str:
        """Return a plan as it is saved; it is large and seldom another."""
        if self._written[0] is not plain:
            self._written = plain, json.dumps(plain)
        return self._written[1]
