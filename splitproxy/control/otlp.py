"""Spans as OpenTelemetry's protocol has them (OTLP 1.x, JSON), named by its semantic conventions for HTTP.

Where a convention has an opt-in or a choice: the route is the name of the configuration's, not a pattern of paths; what
is the proxy's own stands under `splitproxy.`.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from splitproxy import __version__
from splitproxy.core.tracing import Call, Span

_METHODS: Final = frozenset((b"CONNECT", b"DELETE", b"GET", b"HEAD", b"OPTIONS", b"PATCH", b"POST", b"PUT", b"TRACE"))
"""Any other is `_OTHER` (semantic conventions, `http.request.method`)."""
_SERVER: Final = 2
_CLIENT: Final = 3
_ERROR: Final = 2
"""STATUS_CODE_ERROR."""
_HAS_PARENT: Final = 0x100
_PARENT_IS_REMOTE: Final = 0x200
"""SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK, and …_IS_REMOTE_MASK."""
_AUTHORITY: Final = re.compile(r"(?:\[([^\]]*)\]|([^:]*))(?::([0-9]{0,5}))?")
_PORTS: Final = {"http": 80, "https": 443}

Attribute = dict[str, Any]
Value = str | int


def payload(spans: Iterable[Span], resource: Mapping[str, str]) -> bytes:
    """Return the body of one request to a receiver: `spans`, of the program that `resource` describes."""
    scope = {"name": "splitproxy", "version": __version__}
    found = [one for span in spans for one in _spans(span)]
    document = {
        "resourceSpans": [
            {"resource": {"attributes": _attributes(resource)}, "scopeSpans": [{"scope": scope, "spans": found}]}
        ]
    }
    return json.dumps(document, separators=(",", ":")).encode()


def rejected(body: str) -> tuple[int, str]:
    """Return how many spans of a request a receiver did not take, and why (OTLP, "Partial Success")."""
    try:
        said = json.loads(body)["partialSuccess"]
        return max(0, int(said.get("rejectedSpans", 0))), str(said.get("errorMessage", ""))
    except (ValueError, LookupError, TypeError, AttributeError):
        return 0, ""


def _spans(span: Span) -> list[dict[str, Any]]:
    """Return a request's span and those of its attempts."""
    return [_server(span), *(_client(span, call) for call in span.calls)]


def _server(span: Span) -> dict[str, Any]:
    method = _method(span.method)
    scheme, (host, port) = _text(span.scheme), _place(span.authority)
    failed = span.error if span.status >= 500 or span.status == 499 or _is_cut(span) else ""
    failed = failed or (str(span.status) if span.status >= 500 else "")
    attributes: dict[str, Value] = {
        "http.request.method": method,
        "http.request.method_original": _text(span.method) if method == "_OTHER" else "",
        "url.scheme": scheme,
        "url.path": _text(span.path),
        "url.query": _text(span.query),
        "http.route": span.route,
        "http.response.status_code": span.status,
        "error.type": failed,
        "server.address": host,
        "server.port": port or (_PORTS.get(scheme, 0) if host else 0),
        "client.address": _text(span.client),
        "network.protocol.name": "http",
        "network.protocol.version": f"1.{span.minor}",
        "user_agent.original": _text(span.agent),
        "splitproxy.rule": span.rule,
        "splitproxy.upstream": span.upstream,
        "splitproxy.role": span.role if span.upstream else "",
        "splitproxy.reason": span.reason,
        "splitproxy.rollout": span.rollout,
        "splitproxy.request_id": _text(span.request_id),
    }
    parent = _text(span.parent)
    return {
        **_identity(span, span.span, span.parent),
        "flags": (span.flags & 0xFF) | ((_HAS_PARENT | _PARENT_IS_REMOTE) if parent else 0),
        "name": f"{_verb(method)} {span.route}" if span.route else _verb(method),
        "kind": _SERVER,
        "startTimeUnixNano": str(span.start),
        "endTimeUnixNano": str(span.end),
        "attributes": _attributes(attributes),
        **_status(failed if failed and span.status != 499 else "", span.error),
    }


def _is_cut(span: Span) -> bool:
    """Return whether the answer was cut off: it was not the proxy's own, and yet there is an error."""
    return bool(span.error) and (span.status < 400 or (span.status < 499 and bool(span.upstream)))


def _client(span: Span, call: Call) -> dict[str, Any]:
    method = _method(span.method)
    host, port = _place(call.endpoint)
    where = _text(call.endpoint) or call.upstream
    attributes: dict[str, Value] = {
        "http.request.method": method,
        "http.request.method_original": _text(span.method) if method == "_OTHER" else "",
        "url.full": f"{call.scheme}://{where}{_text(call.path)}" + (f"?{_text(call.query)}" if call.query else ""),
        "server.address": host or call.upstream,
        "server.port": port,
        "http.response.status_code": call.status,
        "error.type": call.error,
        "http.request.resend_count": call.resends,
        "network.protocol.name": "http",
        "network.protocol.version": "1.1",
        "splitproxy.upstream": call.upstream,
        "splitproxy.role": call.role,
    }
    return {
        **_identity(span, call.span, span.span),
        "flags": (span.flags & 0xFF) | _HAS_PARENT,
        "name": _verb(method),
        "kind": _CLIENT,
        "startTimeUnixNano": str(call.start),
        "endTimeUnixNano": str(call.end),
        "attributes": _attributes(attributes),
        **_status(call.error, ""),
    }


def _identity(span: Span, own: bytes, parent: bytes) -> dict[str, str]:
    """Return who a span is. In OTLP's JSON, unlike that of other protobufs, ids are hexadecimal."""
    identity = {"traceId": _text(span.trace), "spanId": _text(own)}
    if parent:
        identity["parentSpanId"] = _text(parent)
    if span.state:
        identity["traceState"] = _text(span.state)
    return identity


def _status(error: str, message: str) -> dict[str, Any]:
    """Return the status of a span, which is unset unless it failed."""
    if not error:
        return {}
    status: dict[str, Any] = {"code": _ERROR}
    if message:
        status["message"] = message
    return {"status": status}


def _attributes(values: Mapping[str, Value]) -> list[Attribute]:
    """Return attributes; empty texts and zeros, which are nobody's value, are left out."""
    return [
        {"key": key, "value": {"stringValue": value} if isinstance(value, str) else {"intValue": str(value)}}
        for key, value in values.items()
        if value
    ]


def _method(method: bytes) -> str:
    return method.decode() if method in _METHODS else "_OTHER"


def _verb(method: str) -> str:
    """Return what a span's name calls the method (semantic conventions for HTTP spans, "Name")."""
    return "HTTP" if method == "_OTHER" else method


def _place(authority: bytes) -> tuple[str, int]:
    """Return host, without brackets, and port (0: none is named) of an authority."""
    found = _AUTHORITY.fullmatch(_text(authority))
    return ("", 0) if found is None else (found[1] or found[2], int(found[3] or 0))


def _text(data: bytes) -> str:
    """Return what a peer wrote as text: UTF-8 where it is."""
    return data.decode("utf-8", "replace")
