"""Where measurements from elsewhere come from: one module for each type of provider.

A provider is stateless and never raises: what cannot be measured is a measurement with an error.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from splitproxy.control.providers import prometheus, web
from splitproxy.core.analysis import Measurement


class Provider(Protocol):
    """Answers queries."""

    async def query(self, text: str) -> Measurement:
        """Return what `text`, with every name filled in, measures now; its `seconds` are not the provider's to know."""


def build(plain: Mapping[str, Any]) -> Provider:
    """Return the provider of a metric template, given the template's `provider` in its plain form.

    Raises ValueError if there is no such type, or a `jsonPath` makes no sense.
    """
    match plain["type"]:
        case "prometheus":
            return prometheus.Prometheus(plain)
        case "web":
            return web.Web(plain)
        case other:
            raise ValueError(f"'{other}' is no type of provider: use prometheus or web")
