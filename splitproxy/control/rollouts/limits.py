"""The hard limits of one rollout, looked at between checks, and who is to blame when one is broken."""

from __future__ import annotations

from typing import TYPE_CHECKING

from splitproxy.core.live import EVERYTHING
from splitproxy.core.rollout.events import Breached, Event

if TYPE_CHECKING:
    from splitproxy.control.rollouts.controller import Controller


class Limits:
    """Ends a run whose canary breaks a hard limit, unless the comparison with the primary is there to blame it or not.

    A limit cannot tell a bad canary from a bad moment; where both sides have traffic that was drawn, the comparison can
    (analysis: the smaller of the two e-values counts). Until it blames the canary, the rollout holds and says so; where
    there is nothing to compare with, the limit acts alone.
    """

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self.hold = ""
        """Why no step forward is taken: a limit is broken, and it is not shown to be the canary's fault."""
        self._said = ""
        self._told = False

    def look(self, now: float) -> None:
        """Compare the limits with what was counted up to now, by the rollout's clock."""
        one = self._controller
        found = None if self._told else one.measuring.look(one.plan, one.state, now)
        if found is None:
            self.hold = self._said = ""
        elif found.side == "canary" and self._comparable:
            self._withhold(found, now)
        else:
            self._told = True
            one.put(found)

    @property
    def _comparable(self) -> bool:
        one = self._controller
        return one.weighing.drawn and 0 < one.traffic.weight < EVERYTHING

    def _withhold(self, found: Breached, now: float) -> None:
        """Hold, and say so once for every limit and reason."""
        one = self._controller
        shared = one.measuring.look(one.plan, one.state, now, side="primary", name=found.verdict.metric)
        blame = "both" if shared else "open"
        self.hold = f"hard limit broken: {found.verdict.reason}"
        if self._said != f"{blame}:{found.verdict.metric}":
            self._said = f"{blame}:{found.verdict.metric}"
            one.put(found._replace(blame=blame))

    def forget(self) -> None:
        """Hold no more: the canary has nothing, or another run begins."""
        self.hold = self._said = ""

    def answered(self, event: Event) -> None:
        """Look again once the run's end by a limit is decided on."""
        if isinstance(event, Breached):
            self._told = False
