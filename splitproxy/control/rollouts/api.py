"""The admin API's paths for rollouts: what there is, and what operators say."""

import asyncio
import json
import math
from collections.abc import Callable
from typing import Any, Final

from aiohttp import web

from splitproxy.control.guard import BEARER, OPERATOR, Handler
from splitproxy.control.outbound import shown
from splitproxy.control.rollouts import trends, views
from splitproxy.control.rollouts.controller import Controller
from splitproxy.control.rollouts.desk import Desk
from splitproxy.control.rollouts.items import Unsaved
from splitproxy.control.rollouts.keeping import SHOWN, VIEWED
from splitproxy.control.rollouts.store import Entry, StoreError
from splitproxy.control.signals import KEPT_SECONDS
from splitproxy.core.rollout.events import Verb
from splitproxy.core.rollout.machine import VERBS
from splitproxy.errors import SplitProxyError

_PAGE: Final = 100
_BY_PATH: Final = tuple(name for name in VERBS if name != "set-weight")


class Refusal(SplitProxyError):
    """A request that is not done; answered with `status` and `sentence`."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


class Rollouts:
    """The handlers; `desk` says who runs the rollouts."""

    def __init__(self, desk: Callable[[], Desk]) -> None:
        self._desk = desk

    def routes(self) -> list[web.RouteDef]:
        """Return every path."""
        one = "/api/v1/rollouts/{name}"
        return [
            web.get("/api/v1/rollouts", _answered(self.all)),
            web.get(one, _answered(self.one)),
            web.get(f"{one}/history", _answered(self.history)),
            web.get(f"{one}/trend", _answered(self.trend)),
            web.put(f"{one}/weight", _answered(self.weight)),
            web.post(f"{one}/{{verb}}", _answered(self.verb)),
        ]

    async def all(self, request: web.Request) -> web.Response:
        """Answer with every rollout."""
        number = _number(request, "history", VIEWED, SHOWN)
        controllers = list(self._desk().controllers.values())
        return web.json_response([await self._view(controller, number) for controller in controllers])

    async def one(self, request: web.Request) -> web.Response:
        """Answer with one rollout; `?history=N` shows more of the past."""
        controller = self._found(request)
        return web.json_response(await self._view(controller, _number(request, "history", VIEWED, SHOWN)))

    async def history(self, request: web.Request) -> web.Response:
        """Answer with a page of the history, oldest first: `?after=ID&limit=N`."""
        name, desk = self._found(request).plan.name, self._desk()
        after, limit = _number(request, "after", 0, 1 << 62), _number(request, "limit", _PAGE, SHOWN)
        try:
            store = desk.store
            found = await asyncio.to_thread(store.history, name, after=after, limit=limit) if store else []
        except StoreError as error:
            raise Refusal(503, str(error)) from error
        return web.json_response([entry.to_dict() for entry in found])

    async def trend(self, request: web.Request) -> web.Response:
        """Answer with the signals of both sides, second by second: of the last `?seconds=N`, ten minutes at most."""
        controller, most = self._found(request), int(KEPT_SECONDS)
        seconds = _number(request, "seconds", most, most)
        signals, rollout, keys = controller.parts.signals, controller.rollout, controller.facts.keys
        return web.json_response(await asyncio.to_thread(trends.trend, signals, rollout, keys, seconds))

    async def verb(self, request: web.Request) -> web.Response:
        """Do what an operator says and answer with the state after it."""
        controller, name = self._found(request), request.match_info["verb"]
        if name not in _BY_PATH:
            raise Refusal(404, f"there is no verb {name}: there are {', '.join(_BY_PATH)}")
        full = (await _body(request, empty=True)).get("full", False)
        if not isinstance(full, bool) or (full and name != "promote"):
            raise Refusal(400, "full is true or false, and of promote alone")
        return await self._act(controller, Verb(name, _operator(request), full=full))

    async def weight(self, request: web.Request) -> web.Response:
        """Set the canary's share by hand: `{"canaryWeight": 12.5}`, in percent."""
        controller, weight = self._found(request), (await _body(request)).get("canaryWeight")
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
            raise Refusal(400, 'the body is {"canaryWeight": P}, P a number of percent')
        if abs(weight * 100 - round(weight * 100)) > 1e-6:
            raise Refusal(400, f"canaryWeight {weight:g} has more than two decimals")
        return await self._act(controller, Verb("set-weight", _operator(request), weight=round(weight * 100)))

    async def _act(self, controller: Controller, verb: Verb) -> web.Response:
        try:
            why = await controller.act(verb)
        except Unsaved as error:
            raise Refusal(503, str(error)) from error
        if why:
            raise Refusal(409, why)
        return web.json_response(await self._view(controller, VIEWED), status=202)

    async def _view(self, controller: Controller, number: int) -> dict[str, Any]:
        view = views.everything(controller, await self._past(controller, number))
        view["alarms"] += [alarm for alarm in self._desk().alarms() if alarm not in view["alarms"]]
        return view

    async def _past(self, controller: Controller, number: int) -> list[Entry]:
        """Return the newest entries: those at hand, or more from the disk, when that works."""
        at_hand, store = list(controller.keeping.history), self._desk().store
        if number > max(VIEWED, len(at_hand)) and store and not store.alarm:
            at_hand = await asyncio.to_thread(store.newest, controller.plan.name, number)
        return at_hand[-number:] if number else []

    def _found(self, request: web.Request) -> Controller:
        name = request.match_info["name"]
        controller = self._desk().controllers.get(name)
        if controller is None:
            raise Refusal(404, f"there is no rollout {name!r}")
        return controller


def _operator(request: web.Request) -> str:
    return shown(BEARER.get() or request.headers.get(OPERATOR, "") or "api", 100)


def _number(request: web.Request, name: str, otherwise: int, most: int) -> int:
    text = request.query.get(name, str(otherwise))
    if not text.isascii() or not text.isdigit() or int(text[:20]) > most:
        raise Refusal(400, f"{name} is a number from 0 to {most}")
    return int(text)


async def _body(request: web.Request, *, empty: bool = False) -> dict[str, Any]:
    text = await request.text()
    if empty and not text.strip():
        return {}
    try:
        body = json.loads(text)
    except ValueError as error:
        raise Refusal(400, f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise Refusal(400, "the body is not a JSON object")
    return body


def _answered(handler: Handler) -> Handler:
    """Return `handler` with its refusals as answers: `{"error": SENTENCE}`."""

    async def answering(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except Refusal as refusal:
            return web.json_response({"error": refusal.sentence}, status=refusal.status)

    return answering
