"""Who may ask the admin API: people and programs that mean it, not web pages that reach loopback through a browser.

A page under an attacker's name can make that name resolve to 127.0.0.1 (DNS rebinding), hence the check of `Host`; a
page of any other origin can send simple requests blindly, hence the checks of `Origin` and `Sec-Fetch-Site`. Then comes
the token, where there are any (`access`), and every request for a change is noted (`audit`).
"""

import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import Any, Final

from aiohttp import hdrs, web

from splitproxy.control.access import READING, Caller, caller
from splitproxy.control.audit import Audit
from splitproxy.control.loading import Candidate
from splitproxy.control.outbound import shown
from splitproxy.control.sites import is_loopback
from splitproxy.listening import split_address

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
BEARER: Final[ContextVar[str | None]] = ContextVar("bearer", default=None)
"""The name of the token that the present request came with."""
OPERATOR: Final = "X-Splitproxy-Operator"
"""The header in which commands say who gave them."""
_HEADERS: Final = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}


def refusal(
    method: str, headers: Mapping[str, str], hosts: list[str], allowed: frozenset[str]
) -> tuple[int, str] | None:
    """Return the status and reason for refusing a request, None for a good one.

    `hosts` are the values of all Host headers; `allowed` are names beside loopback.
    """
    if len(hosts) != 1 or not host_allowed(hosts[0], allowed):
        return (
            421,
            f"not served under the name {', '.join(hosts)!r}; list it in admin.allowedHosts if it is meant to be",
        )
    origin = headers.get(hdrs.ORIGIN)
    if origin is not None and origin.partition("://")[2].lower() != hosts[0].lower():
        return 403, f"requests from pages of {origin!r} are refused"
    if method not in READING and headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}:
        return 403, "requests from pages of other sites are refused"
    return None


def host_allowed(host: str, allowed: frozenset[str]) -> bool:
    """Say whether `host`, as in a Host header, is loopback or in `allowed`, where it may stand with its port."""
    name = host_name(host)
    return is_loopback(name) or name in allowed or host.lower() in allowed


def host_name(host: str) -> str:
    """Return a Host header's value without its port and brackets, in lower case."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].rstrip(".").lower()


def allowed_names(running: Candidate | None) -> frozenset[str]:
    """Return the names of a configuration's admin API beside loopback: its address and `admin.allowedHosts`."""
    if running is None:
        return frozenset()
    return frozenset({split_address(running.admin)[0].lower(), *(name.lower() for name in running.allowed_hosts)})


def guard(running: Callable[[], Candidate | None], audit: Audit) -> Any:
    """Return the middleware that refuses whom it must, answers every error in JSON and notes changes in `audit`."""

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        now = running()
        who, response = await _answer(request, handler, now)
        if request.method not in READING:
            path = now.audit_log if now else None
            audit.note(path, **_entry(request, who, response.status, _reason(response)))
        if not response.prepared:
            response.headers.update(_HEADERS)
        return response

    return guarded


async def _answer(
    request: web.Request, handler: Handler, running: Candidate | None
) -> tuple[Caller, web.StreamResponse]:
    foreign = refusal(request.method, request.headers, request.headers.getall(hdrs.HOST, []), allowed_names(running))
    if foreign:
        return Caller(role="none"), problem(*foreign)
    tokens = running.tokens if running else None
    who = caller(tokens, request.headers.get(hdrs.AUTHORIZATION), request.method, request.path)
    if isinstance(who, Caller):
        BEARER.set(who.name)
        return who, await in_json(request, handler)
    response = problem(who.status, who.detail)
    if who.status == 401:  # browsers ask their user for a password then
        response.headers[hdrs.WWW_AUTHENTICATE] = 'Basic realm="splitproxy", Bearer realm="splitproxy"'
    return Caller(role="none"), response


def _entry(request: web.Request, who: Caller, status: int, reason: str | None) -> dict[str, Any]:
    """Return what the audit log says of a request: nothing that it carried but the name that it claims."""
    return {
        "who": who.name,
        "role": who.role,
        "claims": shown(request.headers.get(OPERATOR, ""), 100) or None,
        "from": request.remote,
        "action": f"{request.method} {shown(request.path, 200)}",
        "status": status,
        "result": "done" if status < 300 else "refused",
        "reason": reason,
    }


def _reason(response: web.StreamResponse) -> str | None:
    """Return the sentence of an answer that is an error."""
    if response.status < 300 or not isinstance(response, web.Response) or not response.text:
        return None
    try:
        told = json.loads(response.text)
    except ValueError:
        return None
    return shown(str(told.get("detail") or told.get("error") or ""), 500) or None if isinstance(told, dict) else None


async def in_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer as `handler` does, its errors in JSON."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        response = problem(error.status, f"{request.method} {request.path}: {error.reason}")
        if hdrs.ALLOW in error.headers:
            response.headers[hdrs.ALLOW] = error.headers[hdrs.ALLOW]
        return response
    except Exception:
        log.exception("%s %s fails", request.method, request.path)
        return problem(500, "a defect of splitproxy; the log has its traceback")


def problem(status: int, detail: str, **more: Any) -> web.Response:
    """Return an error answer."""
    return web.json_response({"error": _CODES.get(status, "error"), "detail": detail, **more}, status=status)


_CODES: Final = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    409: "conflict",
    413: "body_too_large",
    421: "misdirected_request",
    500: "internal_error",
    422: "invalid_configuration",
    503: "not_ready",
}
