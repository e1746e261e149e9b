"""What the control process knows, for those who ask: the admin API and /metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from splitproxy.control import endpoints
from splitproxy.control.events import Events
from splitproxy.control.exemplars import Exemplars
from splitproxy.control.loading import Candidate, Share
from splitproxy.control.publish import Publisher
from splitproxy.control.signals import Signals
from splitproxy.control.tracing import Tracing

if TYPE_CHECKING:
    from splitproxy.control.reload import Reloader
    from splitproxy.control.rollouts.desk import Desk


class State:
    """Joins the parts; changes nothing."""

    reloader: Reloader
    rollouts: Desk

    def __init__(self, stats: int, publisher: Publisher) -> None:
        self.publisher = publisher
        self.signals = Signals(stats, lambda: list(publisher.workers))
        self.events = Events()
        self.exemplars = Exemplars()
        self.tracing = Tracing(self.exemplars)
        self.draining = False

    @property
    def generation(self) -> int:
        """Return what serves now, 0 before anything does."""
        return self.publisher.current.generation if self.publisher.current else 0

    @property
    def running(self) -> Candidate | None:
        """Return the configuration in force, None before there is one."""
        return self.reloader.running

    def shares(self) -> list[Share]:
        """Return what every upstream gets at this moment: as configured, or as a rollout and its health say."""
        running = self.running
        if running is None:
            return []
        shares = self.rollouts.live_shares(running.shares)
        if not self.publisher.serving():  # nobody who could say how endpoints stand
            return shares
        return endpoints.in_force(shares, running.health.get("failovers", ()), self.signals)

    def unready(self) -> str | None:
        """Return why not all workers serve the current configuration, None when they do."""
        publisher = self.publisher
        if self.draining:
            return "draining"
        if not publisher.current:
            return "the configuration has not been loaded yet"
        serving, generation = len(publisher.serving()), publisher.current.generation
        for worker in publisher.wanted():
            if worker.generation not in (None, generation):
                return f"worker {worker.slot} serves generation {worker.generation}, not {generation}"
        if serving < publisher.expected:
            return f"{serving} of {publisher.expected} workers serve generation {generation}"
        return None
