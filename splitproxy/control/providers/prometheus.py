"""Prometheus, and whatever else answers `/api/v1/query`: an instant query that has to come down to one number."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from splitproxy.control.providers import reading
from splitproxy.control.providers.reading import Source
from splitproxy.core.analysis import Measurement


class Prometheus:
    """Asks by PromQL."""

    def __init__(self, plain: Mapping[str, Any]) -> None:
        self._source = Source(plain)

    async def query(self, text: str) -> Measurement:
        """Return the value of the only series, or of a scalar; no series and NaN are no data, several an error."""
        reply = await self._source.get("api/v1/query", urlencode({"query": " ".join(text.split())}))
        if why := reading.refusal(reply):
            return reading.error(why)
        try:
            return _reduced(reading.document(reply.text))
        except ValueError as error:
            return reading.error(str(error))


def _reduced(answer: Any) -> Measurement:
    """Return what the answer comes down to. Raises ValueError if it is not of Prometheus' form."""
    match answer:
        case {"status": "success", "data": {"resultType": "vector", "result": []}}:
            return Measurement(None)
        case {"status": "success", "data": {"resultType": "vector", "result": [{"value": [_, value]}]}}:
            return reading.measurement(value)
        case {"status": "success", "data": {"resultType": "vector", "result": [_, _, *_] as series}}:
            return reading.error(f"the query gives {len(series)} series, not one: put sum(...) or the like around it")
        case {"status": "success", "data": {"resultType": "scalar", "result": [_, value]}}:
            return reading.measurement(value)
        case {"status": "success", "data": {"resultType": ("matrix" | "string") as kind}}:
            return reading.error(f"the query gives a {kind}, not one number")
        case {"status": "error", "error": why}:
            return reading.error(f"Prometheus says: {why}")
        case _:
            raise ValueError("the answer is not of the form that Prometheus gives")
