"""News for people: alerts go to the receivers that a rollout names, in the background."""

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final

from splitproxy.control import notifiers, outbound
from splitproxy.control.lanes import Lanes
from splitproxy.control.notifiers.message import Message, compose
from splitproxy.control.outbound import Reply
from splitproxy.core.rollout.events import Alert

log = logging.getLogger(__name__)

_ATTEMPTS: Final = 3
_WAITING: Final = 100
"""Messages that wait for one receiver; beyond it the oldest is lost."""
_WANTED: Final = {
    "": frozenset({"info", "warn", "error"}),
    "info": frozenset({"info", "warn", "error"}),
    "warn": frozenset({"warn", "error"}),
    "error": frozenset({"error"}),
}
"""What an entry of `alerts` wants to hear, by its severity."""


class News:
    """Sends alerts; to be made where a loop runs, and closed.

    A message that may have arrived is not sent again, even if no answer came: nobody is told the same thing twice.
    """

    def __init__(
        self, providers: Iterable[Mapping[str, Any]] = (), pause: Callable[[float], Awaitable[object]] = asyncio.sleep
    ) -> None:
        self._pause = pause
        self._session = outbound.session()
        self._lanes = Lanes(self._deliver, _WAITING)
        self._last: dict[str, tuple[int, str]] = {}
        """Rollout -> the attempt and key of the alert sent last."""
        self.configure(providers)

    def configure(self, providers: Iterable[Mapping[str, Any]]) -> None:
        """Use these `alertProviders`, in their plain form, from now on."""
        self._providers = {provider["name"]: provider for provider in providers}

    def send(self, rollout: Mapping[str, Any], alert: Alert, context: Mapping[str, Any]) -> None:
        """Tell every receiver that wants to hear it, each once; not at all if it was the last thing told in this run.

        `context` is described at `compose`.
        """
        what = (context.get("attempt", 0), alert.key)
        if self._last.get(rollout["name"]) == what:
            return
        self._last[rollout["name"]] = what
        message = compose(str(uuid.uuid4()), rollout, alert, context)
        wanting = (entry for entry in rollout["analysis"]["alerts"] if alert.severity in _WANTED[entry["severity"]])
        for name in dict.fromkeys(entry["provider"] for entry in wanting):
            provider = self._providers.get(name)
            if provider is None:
                # The rollout goes on as it was begun, while the file has dropped the receiver.
                log.warning("rollout %s: alert provider %s is gone from the configuration", rollout["name"], name)
            elif not self._lanes.put(name, (provider, message)):
                log.warning("alert provider %s is too slow, a message is dropped", name)

    async def drained(self) -> None:
        """Wait until everything has been delivered or given up."""
        await self._lanes.drained()

    async def close(self, patience: float = 0.0) -> None:
        """Go on sending for as many seconds at most, then stop and close the connections."""
        await self._lanes.close(patience)
        await self._session.close()

    async def _deliver(self, name: str, what: tuple[Mapping[str, Any], Message]) -> None:
        provider, message = what
        request = notifiers.request(provider, message)
        reply = await outbound.send(self._session, request)
        for attempt in range(_ATTEMPTS - 1):
            if not _repeatable(reply):
                break
            await self._pause(outbound.wait(attempt, reply))
            reply = await outbound.send(self._session, request)
        why = notifiers.refusal(provider, reply)
        if why:
            log.warning("alert provider %s did not take the news of rollout %s: %s", name, message.rollout, why)


def _repeatable(reply: Reply) -> bool:
    """Whether another attempt may fare better, and this one surely did not arrive."""
    return reply.transient and (reply.status is not None or not reply.sent)
