"""Where requests come in, what is watched, and what one request may cost."""

from typing import Annotated, Any, Literal

from splitproxy.config.addresses import Address, Network
from splitproxy.config.encryption import ListenerTls
from splitproxy.config.fields import Boolean, Checked, Duration, Items, Name, Text, named, size, typed, whole, wrong
from splitproxy.config.spec import Spec
from splitproxy.core.stats import MAX_WORKERS


class Listener(Spec):
    """An address that takes requests; all listeners serve the same routes."""

    name: Name | None = None
    """For logs and messages; the address when left out."""
    address: Address
    """`127.0.0.1:8080`, `[::1]:8080`, `:8080` (all of IPv4) or `[::]:8080` (all addresses)."""
    tls: ListenerTls | None = None
    """TLS; connections are in clear when left out."""
    proxy_protocol: Boolean = False
    """Whether every connection begins with a PROXY header (version 1 or 2), from `trustedProxies` if there are any."""
    trusted_proxies: Items[Network] = ()
    """Networks of proxies whose X-Forwarded-For, -Proto, -Host and -Port are believed; none by default."""
    max_connections: Annotated[int, whole(0, 1_000_000)] = 0
    """Open connections in each worker; one more is answered with 503. 0 is no limit."""


class Probes(Spec):
    """A second, read-only listener with /healthz, /readyz and /metrics alone, for kubelets and Prometheus."""

    address: Address
    """Where it listens."""


class Metrics(Spec):
    """What /metrics may cost whoever keeps it."""

    max_series: Annotated[int, whole(1000, 10_000_000)] = 50_000
    """Time series in one answer; what is beyond it is left out and counted."""


class AccessLog(Spec):
    """One line for each request."""

    path: Text = "-"
    """A file, opened again on SIGUSR1; `-` is standard output."""
    format: Literal["json", "common", "combined"] = "json"
    """JSON objects, or the Common or Combined log format."""


class Limits(Spec):
    """What one client's request may cost."""

    header_bytes: Annotated[int, size(1024, 1 << 20)] = 65536
    """Bytes of a request's head; more is answered with 431."""
    header_count: Annotated[int, whole(1, 10_000)] = 100
    """Fields of a request's head; more is answered with 431."""
    uri_bytes: Annotated[int, size(64, 1 << 16)] = 8192
    """Bytes of a request's target; more is answered with 414."""
    body_bytes: Annotated[int, size(0, 1 << 50)] = 0
    """Bytes of a request's body; more is answered with 413. 0 is no limit."""
    header_timeout: Duration = 10.0
    """Time for a request's head to arrive; later is answered with 408. 0s is no limit."""
    body_idle_timeout: Duration = 30.0
    """Silence allowed within a request's body; longer is answered with 408. 0s is no limit."""
    keep_alive_timeout: Duration = 75.0
    """Time that an idle client connection is kept. 0s is no limit."""


def _workers(value: Any) -> int | str:
    given = typed(value)
    if given == "auto" or (isinstance(given, int) and not isinstance(given, bool) and 1 <= given <= MAX_WORKERS):
        return int(given) if given != "auto" else "auto"
    raise wrong(f"a whole number from 1 to {MAX_WORKERS}, or auto, is wanted, not {named(given)}")


Workers = Annotated[
    int | Literal["auto"],
    Checked(_workers, {"anyOf": [{"type": "integer", "minimum": 1, "maximum": MAX_WORKERS}, {"const": "auto"}]}),
]
