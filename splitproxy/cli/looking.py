"""One look at a running proxy's rollouts, and the next one, over a proxy that starts again meanwhile."""

import sys
import time
from typing import Any, Final
from urllib.parse import quote

from splitproxy.cli.acting import refusal
from splitproxy.cli.admin_client import Unanswered, ask
from splitproxy.errors import SplitProxyError

LOOK_SECONDS: Final = 0.5
"""Between two looks."""
RESTART_SECONDS: Final = 15.0
"""How long it is borne that nobody answers: as long as the proxy may take to start again."""
_SECONDS: Final = 10.0


class Untold(SplitProxyError):
    """The proxy answered, but did not tell; `args[0]` says why."""


def look(admin: str, name: str | None, seconds: float = _SECONDS) -> Any:
    """Return what the API tells of one rollout, or of all. Raises Unanswered and Untold."""
    status, told = ask(admin, "GET", "/api/v1/rollouts" + (f"/{quote(name, safe='')}" if name else ""), seconds)
    if status != 200:
        raise Untold(refusal(status, told, admin, name))
    return told


def patient_look(admin: str, name: str | None, patience: float) -> Any | None:
    """Return what the API tells; None after saying why it does not, or did not for the seconds of `patience`."""
    end = time.monotonic() + patience
    while True:
        try:
            return look(admin, name)
        except Untold as error:
            print(error, file=sys.stderr)
            return None
        except Unanswered as error:
            if time.monotonic() >= end:
                print(error, file=sys.stderr)
                return None
        time.sleep(LOOK_SECONDS)
