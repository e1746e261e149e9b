"""Answers of the proxy itself: errors and redirects."""

import json
from http import HTTPStatus

from splitproxy.errors import ProxyError

_REASONS = {status.value: status.phrase for status in HTTPStatus}


def error_answer(error: ProxyError, request_id: bytes, date: bytes, *, close: bool, bodiless: bool = False) -> bytes:
    """Return the whole response for `error`: one JSON object that never echoes what the client sent."""
    body = json.dumps({"error": error.code, "detail": error.detail, "requestId": request_id.decode("latin-1")}).encode()
    return answer(
        error.status, b"Content-Type: application/json\r\n", b"" if bodiless else body, date, close, len(body)
    )


def answer(status: int, fields: bytes, body: bytes, date: bytes, close: bool, length: int | None = None) -> bytes:
    """Return a whole response; `length` where the body is left out (HEAD)."""
    return b"HTTP/1.1 %d %b\r\n%bContent-Length: %d\r\n%b%b\r\n%b" % (
        status,
        _REASONS.get(status, "Error").encode(),
        fields,
        len(body) if length is None else length,
        date,
        b"Connection: close\r\n" if close else b"",
        body,
    )
