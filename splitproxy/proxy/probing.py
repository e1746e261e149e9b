"""Probes: every endpoint of an upstream with a health check is asked again and again, apart from any request.

Each worker asks for itself, so that probing needs nobody else and goes on whatever becomes of the control process.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from random import random
from typing import Final

from splitproxy.core.health import Health, HealthCheck
from splitproxy.core.responses import parse_response
from splitproxy.core.snapshot import UpstreamPlan
from splitproxy.errors import OutOfResources, UpstreamProtocolError
from splitproxy.proxy.encryption import cause, no_connection, options
from splitproxy.proxy.pool import Site
from splitproxy.proxy.upstream import MAX_HEAD, MAX_INTERIM

_log = logging.getLogger("splitproxy.health")
FIRST: Final = 0.5
"""Seconds within which a fresh endpoint is probed for the first time."""
_JITTER: Final = 0.1
"""By how much of itself an interval varies, lest all workers ask at the same moment for ever."""


class Prober:
    """Probes all endpoints of one upstream."""

    __slots__ = ("_changed", "_plan", "_tasks")

    def __init__(self, changed: Callable[[], None]) -> None:
        """`changed` is called when an endpoint has become healthy or unhealthy."""
        self._changed = changed
        self._plan: UpstreamPlan | None = None
        self._tasks: dict[Site, asyncio.Task[None]] = {}

    def watch(self, plan: UpstreamPlan, healths: Mapping[Site, Health], hosts: Mapping[Site, str]) -> None:
        """Probe these endpoints from now on, as `plan` says; those that stay go on as they were.

        `hosts` are the names they are configured by.
        """
        before, self._plan = self._plan, plan
        if before is not None and _manner(before) != _manner(plan):
            self.stop()
        for site in self._tasks.keys() - healths.keys():
            self._tasks.pop(site).cancel()
        if plan.health_check is None:
            changed = [health.unprobed() for health in healths.values()]
            if any(changed):
                self._changed()
            return
        for site in healths.keys() - self._tasks.keys():
            probing = self._go_on(site, hosts.get(site, site[0]), healths[site], plan, plan.health_check)
            self._tasks[site] = asyncio.ensure_future(probing)

    def stop(self) -> None:
        """Probe no more."""
        for task in self._tasks.values():
            task.cancel()
        self._tasks.clear()

    async def _go_on(self, site: Site, name: str, health: Health, plan: UpstreamPlan, check: HealthCheck) -> None:
        wait = min(check.interval, FIRST) * random()
        while True:
            await asyncio.sleep(wait)
            try:
                failure = await _probe(site, name, plan, check)
            except OutOfResources as error:
                _log.warning("a probe of upstream %s was left out: %s", plan.name, error.detail)
                wait = check.interval
                continue
            except Exception:
                _log.exception("defect while probing %s:%d of upstream %s", *site, plan.name)
                wait = check.interval
                continue
            if health.probed(not failure, check, asyncio.get_running_loop().time()):
                fields = {"upstream": plan.name, "endpoint": f"{site[0]}:{site[1]}"}
                if failure:
                    words = "%s:%d of upstream %s is unhealthy: %s"
                    _log.warning(words, *site, plan.name, failure, extra={"fields": fields})
                else:
                    _log.warning("%s:%d of upstream %s is healthy again", *site, plan.name, extra={"fields": fields})
                self._changed()
            wait = check.interval * (1 - _JITTER + 2 * _JITTER * random())


def _manner(plan: UpstreamPlan) -> UpstreamPlan:
    """Return what of a plan bears on how an endpoint is probed."""
    return plan._replace(endpoints=())


async def _probe(site: Site, name: str, plan: UpstreamPlan, check: HealthCheck) -> str:
    """Ask once; return why the endpoint is not in order, nothing when it is."""
    try:
        async with asyncio.timeout(check.timeout or None):
            status = await _ask(site, name, plan, check)
    except TimeoutError:
        return f"no answer within {check.timeout:g} s"
    except (UpstreamProtocolError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        return f"no valid answer: {error}"
    except OSError as error:
        failure = no_connection(f"{site[0]}:{site[1]}", error)
        if isinstance(failure, OutOfResources):
            raise failure from None
        return cause(error)
    return "" if check.accepts(status) else f"it answers {status}"


async def _ask(site: Site, name: str, plan: UpstreamPlan, check: HealthCheck) -> int:
    """Return the status of the answer to a probe. Raises OSError and what a bad answer raises."""
    host, port = site
    reader, writer = await asyncio.open_connection(host, port, limit=MAX_HEAD, **options(plan.tls, name))
    try:
        authority = check.host or (f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        writer.write(
            f"GET {check.path} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: splitproxy-health\r\nAccept: */*\r\n"
            "Connection: close\r\n\r\n".encode()
        )
        for _ in range(MAX_INTERIM):
            status = parse_response(await reader.readuntil(b"\r\n\r\n")).status
            if status >= 200:
                return status
        raise UpstreamProtocolError("too many interim responses")
    finally:
        writer.transport.abort()
