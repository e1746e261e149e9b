"""What the providers have in common: how they ask, and what makes a number."""

import json
import math
import urllib.parse
from collections.abc import Mapping
from typing import Any, Final

from splitproxy.control import outbound
from splitproxy.control.outbound import Reply, Request
from splitproxy.core.analysis import Measurement

_MOST: Final = 1 << 20


class Source:
    """An address that is asked by GET, with the credentials of the plain form."""

    def __init__(self, plain: Mapping[str, Any]) -> None:
        self._address = urllib.parse.urlsplit(plain["address"])
        self._timeout: float = plain["timeout"]
        self._verify = not plain["insecureSkipVerify"]
        self._headers = outbound.merged({"Accept": "application/json"}, plain["headers"], _authorization(plain))

    async def get(self, path: str, query: str) -> Reply:
        """Ask for what stands behind the address, so that its host is always the one asked; no failure is raised."""
        address = self._address
        url = address._replace(
            path=f"{address.path.rstrip('/')}/{path.lstrip('/')}" if path else address.path,
            query="&".join(part for part in (address.query, query) if part),
        )
        request = Request(url.geturl(), self._headers, self._timeout, verify=self._verify, most=_MOST)
        async with outbound.session() as session:
            return await outbound.send(session, request)


def refusal(reply: Reply) -> str:
    """Return why there is no answer to read; empty: there is one."""
    if reply.status is None:
        return reply.text
    if not 200 <= reply.status < 300:
        return outbound.shown(f"HTTP {reply.status}: {reply.text}")
    return ""


def document(text: str) -> Any:
    """Return the JSON document. Raises ValueError that shows what came instead."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(f"the answer is no JSON: {outbound.shown(text, 200) or 'it is empty'}") from None


def measurement(value: object) -> Measurement:
    """Return the measurement that a number, or a string that is one, makes; NaN and null mean no data."""
    if value is None:
        return Measurement(None)
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return error(f"{outbound.shown(json.dumps(value), 200)} is no number")
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return error(f"'{outbound.shown(str(value), 200)}' is no number")
    if math.isinf(number):
        return error("the value is infinite: the query divides by zero")
    return Measurement(None if math.isnan(number) else number)


def error(why: str) -> Measurement:
    """Return the measurement that could not be made."""
    return Measurement(None, error=outbound.shown(why))


def _authorization(plain: Mapping[str, Any]) -> dict[str, str]:
    if plain["token"] is not None:
        return {"Authorization": f"Bearer {plain['token']}"}
    if plain["username"] is not None:
        return {"Authorization": outbound.basic(plain["username"], plain["password"] or "")}
    return {}
