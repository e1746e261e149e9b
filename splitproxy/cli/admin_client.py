"""What verbs share that talk to a running proxy."""

import argparse
import http.client
import json
import os
import sys
from typing import Any
from urllib.parse import urlsplit

_DEFAULT = "http://127.0.0.1:9900"


def admin_argument(parser: argparse.ArgumentParser) -> None:
    """Declare `--admin`."""
    parser.add_argument(
        "--admin",
        metavar="URL",
        default=os.environ.get("SPLITPROXY_ADMIN") or _DEFAULT,
        help="where the proxy's admin API is (SPLITPROXY_ADMIN, else %(default)s)",
    )


def post(admin: str, path: str, seconds: float) -> tuple[int, Any] | None:
    """Send an empty POST and return the status and the JSON answer; None after saying why nobody answered."""
    url = urlsplit(admin if "//" in admin else f"http://{admin}")
    try:
        connection = http.client.HTTPConnection(url.hostname or "", url.port or 80, timeout=seconds)
        connection.request("POST", url.path.rstrip("/") + path)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    except TimeoutError:
        print(f"The admin API at {admin} did not answer within {seconds:g} s.", file=sys.stderr)
    except (OSError, ValueError, http.client.HTTPException) as error:
        print(
            f"No splitproxy answers at {admin} ({error}). Is it running? "
            "Its admin address is named by --admin or SPLITPROXY_ADMIN.",
            file=sys.stderr,
        )
    return None
