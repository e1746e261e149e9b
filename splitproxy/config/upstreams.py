"""One version of a service: its addresses and how connections to them are made and kept."""

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator

from splitproxy.config.addresses import EndpointUrl
from splitproxy.config.encryption import UpstreamTls
from splitproxy.config.fields import Duration, Items, Name, Percent, Weight, whole
from splitproxy.config.health import HealthCheck, OutlierDetection
from splitproxy.config.spec import Spec


class Endpoint(Spec):
    """One address of an upstream; of a DNS name all addresses are used, looked up again and again."""

    url: EndpointUrl
    """`http://host:port` or `https://host:port`, and no more than that."""
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
    """Connections of one worker."""

    max_idle: Annotated[int, whole(0, 100_000)] = 128
    """Idle connections kept to each endpoint; 0 keeps none."""
    idle_timeout: Duration = 30.0
    """How long an idle connection is kept; shorter than the endpoint's own. 0s is no limit."""
    max_connections: Annotated[int, whole(1, 100_000)] = 1024
    """Connections open at one time to all endpoints, and so requests in flight; further ones wait."""
    max_pending: Annotated[int, whole(0, 100_000)] = 1024
    """Requests waiting for a connection; one more is answered with 503. 0 lets none wait."""


class Upstream(Spec):
    """One version of a service: what a weight is given to."""

    name: Name
    """By which rules refer to it."""
    endpoints: Items[Annotated[Endpoint, BeforeValidator(_spelled_out, json_schema_input_type=str | Endpoint)]]
    """Its addresses: `http://host:port` or `https://host:port`, or a mapping that gives a weight too."""
    tls: UpstreamTls | None = None
    """For `https://` endpoints: whose certificates are accepted, and what we prove ourselves with."""
    load_balancing: Literal["roundRobin", "leastRequest", "random", "hash"] = "roundRobin"
    """How an endpoint is picked; `hash` follows the key of the split."""
    connect_timeout: Duration = 3.0
    """Time for a connection to be made; longer is answered with 504. 0s is the kernel's own limit."""
    pool: Pool = Pool()
    """Connections to its endpoints."""
    health_check: HealthCheck | None = None
    """Probes of its endpoints; none without it."""
    outlier_detection: OutlierDetection | None = None
    """Ejection of endpoints that fail; none without it."""
    slow_start: Duration = 0.0
    """Time in which an endpoint that joins or comes back grows to its full share; 0s is at once."""
    panic_threshold: Percent = 50
    """With fewer usable endpoints, in percent, but not without any, all are used. 0 is off."""
