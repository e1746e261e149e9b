"""What a rollout tells the world: the log, listeners of the API, `event` webhooks, receivers of news."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from splitproxy.control.rollouts import hooks, views
from splitproxy.control.rollouts.clock import iso, wall
from splitproxy.control.rollouts.store import Entry
from splitproxy.core.rollout.events import Alert, Breached, Checked, Convicted, Event, Record

if TYPE_CHECKING:
    from splitproxy.control.rollouts.controller import Controller

log = logging.getLogger(__name__)


class Telling:
    """The voice of one rollout. Nothing here waits for anybody."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller

    def happened(self, entry: Entry) -> None:
        """Tell of an entry of the history."""
        one = self._controller
        log.log(logging.WARNING if entry.warning else logging.INFO, "rollout %s: %s", one.plan.name, entry.text)
        details = {"kind": entry.kind, "text": entry.text, "warning": entry.warning, "at": entry.at}
        one.parts.publish("rollout", {**one.summary(), **details, "data": entry.data})
        listeners = [hook for hook in one.rollout["analysis"]["webhooks"] if hook["type"] == "event"]
        if listeners:
            payload = hooks.event(self.payload(), entry.text, warning=entry.warning, at=wall().timestamp())
            one.parts.hooks.tell(listeners, payload)

    def stands(self) -> None:
        """Tell listeners where it stands, though nothing happened that is worth remembering."""
        self._controller.parts.publish("rollout", self._controller.summary())

    def saw(self, event: Event) -> None:
        """Keep what people want to see of a check, or of what ended a run between checks, and tell listeners."""
        one = self._controller
        found = (
            (event.verdict,) if isinstance(event, Breached) else event.verdicts if isinstance(event, Checked) else ()
        )
        if found or isinstance(event, Convicted):
            compared = one.weighing.verdict()
            one.verdicts = [views.verdict(each) for each in (*found, *([compared] if compared else []))]
            self.judged()

    def note(self, text: str) -> None:
        """Add to the history what no decision of the machine says."""
        one = self._controller
        entry = one.keeping.entry(one.state.attempt, Record("note", text, warning=True))
        one.keeping.add([entry])
        self.happened(entry)
        one.keeping.save()

    def judged(self) -> None:
        """Tell listeners of the last verdicts."""
        for verdict in self._controller.verdicts:
            self._controller.parts.publish("verdict", {"name": self._controller.plan.name, **verdict})

    def news(self, alert: Alert) -> None:
        """Tell people."""
        one = self._controller
        # An operator's word, or a hook's, owes nothing to the last check.
        cause = [verdict for verdict in one.verdicts if verdict["reason"] in alert.text]
        context = {**one.summary(), "at": iso(wall()), "verdicts": cause}
        standing = one.weighing.standing
        if standing is not None and standing.sentence in alert.text:
            context["evidence"] = one.weighing.numbers(standing)
        one.parts.news.send(dict(one.rollout), alert, context)

    def alarm(self, text: str) -> None:
        """Tell people that the state cannot be saved; once, until it can be again."""
        name, keeping = self._controller.plan.name, self._controller.keeping
        if keeping.sounded or keeping.overtaken:
            return
        keeping.sounded = True
        self.stands()
        log.error("rollout %s: %s", name, text)
        self.news(Alert("error", f"{name}: {text}", "unsaved"))

    def payload(self) -> dict[str, Any]:
        """Return what webhooks are told."""
        one = self._controller
        return views.payload(one.plan, one.state, one.traffic, one.verdicts)
