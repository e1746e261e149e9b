"""What verbs share that talk to a running proxy."""

import argparse
import contextlib
import http.client
import json
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from splitproxy.errors import SplitProxyError

DEFAULT = "http://127.0.0.1:9900"


def admin_argument(parser: argparse.ArgumentParser) -> None:
    """Declare `--admin`."""
    parser.add_argument(
        "--admin",
        metavar="URL",
        default=os.environ.get("SPLITPROXY_ADMIN") or DEFAULT,
        help="where the proxy's admin API is (SPLITPROXY_ADMIN, else %(default)s)",
    )


class Unanswered(SplitProxyError):
    """Nobody answered; `args[0]` says where and why."""


def post(admin: str, path: str, seconds: float) -> tuple[int, Any] | None:
    """Send an empty POST and return the status and the JSON answer; None after saying why nobody answered."""
    try:
        return ask(admin, "POST", path, seconds)
    except Unanswered as error:
        print(error, file=sys.stderr)
        return None


def ask(
    admin: str,
    method: str,
    path: str,
    seconds: float,
    body: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, Any]:
    """Send a request, with `body` as JSON, and return the status and the JSON answer.

    Raises Unanswered when there is none within `seconds`.
    """
    fields, content = dict(headers or {}), None
    if body is not None:
        fields["Content-Type"], content = "application/json", json.dumps(body)
    with answered(admin, method, path, seconds, content, fields) as answer:
        return answer.status, json.loads(answer.read())


@contextlib.contextmanager
def answered(
    admin: str,
    method: str,
    path: str,
    seconds: float,
    content: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Iterator[http.client.HTTPResponse]:
    """Send a request and provide the answer, whose body is still to be read; no silence is longer than `seconds`.

    Raises Unanswered, also for what goes wrong while the body is read.
    """
    fields = dict(headers or {})
    if token := os.environ.get("SPLITPROXY_TOKEN"):
        fields["Authorization"] = f"Bearer {token}"
    try:
        url = urlsplit(admin if "//" in admin else f"http://{admin}")
        connection = http.client.HTTPConnection(url.hostname or "", url.port or 80, timeout=seconds)
        try:
            connection.request(method, url.path.rstrip("/") + path, content, fields)
            yield connection.getresponse()
        finally:
            connection.close()
    except TimeoutError as error:
        raise Unanswered(f"The admin API at {admin} did not answer within {seconds:g} s.") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise Unanswered(
            f"No splitproxy answers at {admin} ({error}). Is it running? "
            "Its admin address is named by --admin or SPLITPROXY_ADMIN."
        ) from error
