"""Webhooks: they are asked whether a rollout may go on, and told what happens.

The payload and the verdict are Flagger's, so that its receivers work as they are: `POST` with JSON, a status up to 202
is a pass, everything else is not. Beyond that an answer may say what it means: a JSON object with the member `action`,
`hold` or `rollback`, whatever its status. Other values of `action` mean nothing here and are the receiver's own affair.
"""

import asyncio
import hashlib
import hmac
import json
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from splitproxy.control import outbound
from splitproxy.control.lanes import Lanes
from splitproxy.control.outbound import Reply, Request

log = logging.getLogger(__name__)

_WAITING: Final = 256
"""Deliveries that wait for the receivers of one rollout; beyond it the oldest is lost."""
_ACTIONS: Final = frozenset({"hold", "rollback"})

Hook = Mapping[str, Any]
"""A webhook in its plain form."""
Pause = Callable[[float], Awaitable[object]]
"""Waits for that many seconds: `asyncio.sleep`."""


class HookResult(NamedTuple):
    """What the webhooks of one type said: the one that decided speaks for all."""

    outcome: str
    """pass | fail | hold | rollback."""
    hook: str = ""
    """The name of the one that decided; empty where there was none to ask."""
    status: int | None = None
    """Of its answer; None: there was no answer."""
    text: str = ""
    """Its body, or why there is none, on one line of at most 1,024 characters."""
    seconds: float = 0.0
    """How long all of them took."""


def event(payload: Mapping[str, Any], message: str, *, warning: bool, at: float) -> dict[str, Any]:
    """Return the payload that tells `event` hooks of something, as Flagger does; `at` in seconds of Unix time."""
    told = {
        "eventMessage": message,
        "eventType": "Warning" if warning else "Normal",
        "timestamp": str(round(at * 1000)),
    }
    return {**payload, "metadata": {**payload.get("metadata", {}), **told}}


class Hooks:
    """Sends to webhooks; to be made where a loop runs, and closed."""

    def __init__(self, pause: Pause = asyncio.sleep) -> None:
        self._pause = pause
        self._session = outbound.session()
        self._lanes = Lanes(self._told, _WAITING)

    async def ask(self, hooks: Sequence[Hook], payload: Mapping[str, Any]) -> HookResult:
        """Ask in order; the first that does not pass ends it and decides. No failure is raised.

        Hooks of the type `rollback` are the other way round, as in Flagger: the first that passes ends it, and a pass
        means that a rollback is wanted. Those of `post-rollout` are all told, whatever one of them says. Gates without
        URL are opened by operators and are not asked here.
        """
        began, results = time.monotonic(), list[HookResult]()
        for hook in hooks:
            if hook["url"] is None:
                continue
            results.append(_judged(hook, await self._deliver(hook, payload)))
            if _ends(hook, results[-1].outcome):
                break
        return _deciding(hooks, results)._replace(seconds=time.monotonic() - began)

    def tell(self, hooks: Sequence[Hook], payload: Mapping[str, Any]) -> None:
        """Tell every one in the background, those of one rollout in order; what they answer is logged at most."""
        for hook in hooks:
            if hook["url"] is not None and not self._lanes.put(payload["name"], (hook, dict(payload))):
                log.warning("rollout %s: the webhooks are too slow, an event is dropped", payload["name"])

    async def drained(self) -> None:
        """Wait until everything that was told has been delivered or given up."""
        await self._lanes.drained()

    async def close(self, patience: float = 0.0) -> None:
        """Go on telling for as many seconds at most, then stop and close the connections."""
        await self._lanes.close(patience)
        await self._session.close()

    async def _told(self, rollout: str, what: tuple[Hook, dict[str, Any]]) -> None:
        hook, payload = what
        result = _judged(hook, await self._deliver(hook, payload))
        if result.outcome == "fail":
            log.warning("rollout %s: webhook %s: %s", rollout, hook["name"], result.text)

    async def _deliver(self, hook: Hook, payload: Mapping[str, Any]) -> Reply:
        """Send until an answer is worth taking or the retries are used up."""
        request = _request(hook, payload)
        for attempt in range(hook["retries"]):
            reply = await outbound.send(self._session, request)
            if not reply.transient or _action(reply) is not None:
                return reply
            await self._pause(outbound.wait(attempt, reply))
        return await outbound.send(self._session, request)


def _request(hook: Hook, payload: Mapping[str, Any]) -> Request:
    # What the payload says of an event stands; the hook's own metadata fills in what it leaves open.
    metadata = {**hook["metadata"], **payload.get("metadata", {})}
    content = {**payload, "type": hook["type"], "metadata": metadata}
    if not metadata:
        del content["metadata"]
    body = outbound.encoded(content)
    ours = {"X-Splitproxy-Event": hook["type"], "X-Splitproxy-Delivery": str(uuid.uuid4())}
    if hook["secret"] is not None:
        digest = hmac.new(hook["secret"].encode(), body, hashlib.sha256).hexdigest()
        ours["X-Splitproxy-Signature"] = f"sha256={digest}"
    headers = outbound.merged({"Content-Type": "application/json"}, hook["headers"], ours)
    return Request(hook["url"], headers, hook["timeout"], body, verify=not hook["insecureSkipVerify"])


def _judged(hook: Hook, reply: Reply) -> HookResult:
    passed = reply.status is not None and 200 <= reply.status <= 202
    outcome = _action(reply) or ("pass" if passed else "fail")
    text = outbound.shown(reply.text)
    if not passed and reply.status is not None:
        text = outbound.shown(f"HTTP {reply.status}: {text}" if text else f"HTTP {reply.status}")
    return HookResult(outcome, hook["name"], reply.status, text)


def _ends(hook: Hook, outcome: str) -> bool:
    """Whether the hooks after this one need not be asked any more."""
    match hook["type"]:
        case "rollback":
            return outcome in {"pass", "rollback"}
        case "post-rollout":
            return False
        case _:
            return outcome != "pass"


def _deciding(hooks: Sequence[Hook], results: Sequence[HookResult]) -> HookResult:
    """Return the result that speaks for all of them."""
    if not results:
        return HookResult("pass")
    if hooks[0]["type"] == "rollback":
        return results[-1]
    return next((result for result in results if result.outcome != "pass"), results[-1])


def _action(reply: Reply) -> str | None:
    """Return what the answer wants by `action`: hold or rollback; None where it says nothing of the kind."""
    if reply.status is None or not reply.text.lstrip().startswith("{"):
        return None
    try:
        content = json.loads(reply.text)
    except (ValueError, RecursionError):
        return None
    wanted = content.get("action")
    return wanted if isinstance(wanted, str) and wanted in _ACTIONS else None
