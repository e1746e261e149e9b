"""Any service that answers a GET with JSON: the query is what follows the address, `jsonPath` where the number is."""

from collections.abc import Mapping
from typing import Any

from splitproxy.control.providers import reading
from splitproxy.control.providers.reading import Source
from splitproxy.core import jsonpath
from splitproxy.core.analysis import Measurement


class Web:
    """Asks by path and query string."""

    def __init__(self, plain: Mapping[str, Any]) -> None:
        self._source = Source(plain)
        self._path = jsonpath.parse(plain["jsonPath"] or "$")

    async def query(self, text: str) -> Measurement:
        """Return the number at `jsonPath`; null and NaN are no data, a place that is not there is an error."""
        path, _, query = text.strip().partition("?")
        reply = await self._source.get(path, query)
        if why := reading.refusal(reply):
            return reading.error(why)
        try:
            return reading.measurement(jsonpath.look_up(reading.document(reply.text), self._path))
        except (ValueError, LookupError) as error:
            return reading.error(f"{error.args[0]} in the answer" if isinstance(error, LookupError) else str(error))
