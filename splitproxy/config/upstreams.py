"""One version of a service: its addresses and how connections to them are made and kept."""

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator

from splitproxy.config.addresses import EndpointUrl
from splitproxy.config.fields import Duration, Items, Name, Weight, whole
from splitproxy.config.spec import Spec


class Endpoint(Spec):
    """One address of an upstream; of a DNS name all addresses are used, looked up again and again."""

    url: EndpointUrl
    """`http://host:port`, and no more than that."""
    weight: Weight = 1
    """Its part of the upstream's requests beside the other endpoints' weights; 0 takes none."""

    @property
    def host(self) -> str:
        """The host without brackets."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """The port."""
        return int(self.url.rpartition(":")[2])


def _spelled_out(value: Any) -> Any:
    return {"url": value} if isinstance(value, str) else value


class Pool(Spec):
    """Connections of one worker to one endpoint."""

    max_idle: Annotated[int, whole(0, 100_000)] = 128
    """Idle connections kept; 0 keeps none."""
    idle_timeout: Duration = 30.0
    """How long an idle connection is kept; shorter than the endpoint's own. 0s is no limit."""
    max_connections: Annotated[int, whole(1, 100_000)] = 1024
    """Connections open at one time; further requests wait."""
    max_pending: Annotated[int, whole(0, 100_000)] = 1024
    """Requests waiting for a connection; one more is answered with 503. 0 lets none wait."""


class Upstream(Spec):
    """One version of a service: what a weight is given to."""

    name: Name
    """By which rules refer to it."""
    endpoints: Items[Annotated[Endpoint, BeforeValidator(_spelled_out, json_schema_input_type=str | Endpoint)]]
    """Its addresses: `http://host:port`, or a mapping that gives a weight too."""
    load_balancing: Literal["roundRobin", "leastRequest", "random", "hash"] = "roundRobin"
    """How an endpoint is picked; `hash` follows the key of the split."""
    connect_timeout: Duration = 3.0
    """Time for a connection to be made; longer is answered with 504. 0s is the kernel's own limit."""
    pool: Pool = Pool()
    """Connections to each endpoint."""
