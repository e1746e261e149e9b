"""The admin API: reads what `State` knows, asks for reloads and the drain. Probes get three of its paths."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from aiohttp import web

from splitproxy import __version__
from splitproxy.control import dashboard, metrics, views
from splitproxy.control.audit import Audit
from splitproxy.control.events import stream
from splitproxy.control.guard import Handler, guard, in_json, problem
from splitproxy.control.reload import Report
from splitproxy.control.rollouts.api import Rollouts
from splitproxy.control.state import State

_LARGE: Final = 1 << 16
_to_json: Final = partial(json.dumps, ensure_ascii=False)


class Admin:
    """The handlers. What takes long to build is built in a thread."""

    def __init__(self, state: State, reload: Callable[[], Awaitable[Report]], drain: Callable[[], None]) -> None:
        self._state, self._reload, self._drain = state, reload, drain

    def routes(self) -> list[web.RouteDef]:
        """Return every path of the API."""
        return [
            *dashboard.routes(),
            *probe_routes(self._state),
            web.get("/api/v1/config", self.config),
            web.get("/api/v1/upstreams", self.upstreams),
            web.get("/api/v1/routes", self.routes_view),
            web.get("/api/v1/events", partial(stream, self._state.events)),
            *Rollouts(lambda: self._state.rollouts).routes(),
            web.post("/-/reload", self.reload),
            web.post("/-/drain", self.drain),
        ]

    async def config(self, request: web.Request) -> web.Response:
        """Answer with the running configuration and how the last reload went; `?brief=1` without what the files say."""
        return await _built(lambda: views.config(self._state, brief=request.query.get("brief") == "1"))

    async def upstreams(self, _request: web.Request) -> web.Response:
        """Answer with every endpoint's connections."""
        return await _built(views.upstreams, self._state)

    async def routes_view(self, request: web.Request) -> web.Response:
        """Answer with every route's weights and signals, or with one route's (`?route=`).

        `?contains=TEXT` are those with it in their name or a host name, `?limit=N` the first of them; the header
        `X-Total-Count` says how many there are.
        """
        query = request.query
        limit = query.get("limit", "")
        if limit and not (limit.isascii() and limit.isdigit() and len(limit) < 10):
            return problem(400, "limit is a number")
        found = await asyncio.to_thread(views.chosen, self._state, query.get("route"), query.get("contains", ""))
        response = await _built(views.routes, self._state, found[: int(limit)] if limit else found)
        response.headers["X-Total-Count"] = str(len(found))
        return response

    async def reload(self, _request: web.Request) -> web.Response:
        """Apply what the files say now."""
        report = await self._reload()
        if report.result == "failure":
            detail = "\n".join(error["text"] for error in report.errors)
            return problem(422, detail, generation=report.generation, errors=report.errors)
        return web.json_response(report.to_dict())

    async def drain(self, _request: web.Request) -> web.Response:
        """Let every request end, and the program after them."""
        self._drain()
        return web.json_response({"draining": True}, status=202)


class Probes:
    """What kubelets and Prometheus ask for."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def healthz(self, _request: web.Request) -> web.Response:
        """Answer, which says it all."""
        return web.json_response({"status": "ok", "version": __version__})

    async def readyz(self, _request: web.Request) -> web.Response:
        """Answer 200 when all workers serve the current configuration."""
        why = self._state.unready()
        if why:
            return problem(503, why)
        return web.json_response({"status": "ready", "generation": self._state.generation})

    async def metrics(self, request: web.Request) -> web.Response:
        """Answer with all workers' metrics in the format asked for."""
        body, content_type = await asyncio.to_thread(metrics.render, self._state, request.headers.get("Accept", ""))
        response = web.Response(body=body, headers={"Content-Type": content_type})
        if len(body) > _LARGE:
            response.enable_compression()
        return response


def probe_routes(state: State) -> list[web.RouteDef]:
    """Return the read-only paths that both listeners have."""
    probes = Probes(state)
    return [
        web.get("/healthz", probes.healthz),
        web.get("/readyz", probes.readyz),
        web.get("/metrics", probes.metrics),
    ]


def admin_application(
    state: State, reload: Callable[[], Awaitable[Report]], drain: Callable[[], None], audit: Audit | None = None
) -> web.Application:
    """Return the admin API; what is asked of it that changes anything is noted in `audit`."""
    application = web.Application(middlewares=[guard(lambda: state.running, audit or Audit())])
    application.add_routes(Admin(state, reload, drain).routes())
    return application


def probes_application(state: State) -> web.Application:
    """Return what the probes listener serves: nothing that changes or tells anything, so anyone may ask."""

    @web.middleware
    async def plainly(request: web.Request, handler: Handler) -> web.StreamResponse:
        return await in_json(request, handler)

    application = web.Application(middlewares=[plainly])
    application.add_routes(probe_routes(state))
    return application


async def _built(build: Callable[..., Any], *arguments: Any) -> web.Response:
    text = await asyncio.to_thread(lambda: _to_json(build(*arguments)))
    response = web.Response(text=text, content_type="application/json")
    if len(text) > _LARGE:
        response.enable_compression()
    return response
