"""The whole configuration, composed of every part's spec."""

from splitproxy.config.access import Admin, Drain
from splitproxy.config.fields import Items
from splitproxy.config.hooks import AlertProvider
from splitproxy.config.measuring import MetricTemplate
from splitproxy.config.rollouts import Rollout, StateStore
from splitproxy.config.routes import Route
from splitproxy.config.serving import AccessLog, Limits, Listener, Metrics, Probes, Workers
from splitproxy.config.spec import Spec
from splitproxy.config.tracing import Tracing
from splitproxy.config.upstreams import Upstream


class Config(Spec):
    """A splitproxy configuration."""

    listeners: Items[Listener] = ()
    """Where requests come in; at least one."""
    admin: Admin = Admin()
    """The admin API."""
    probes: Probes | None = None
    """A read-only listener for probes and metrics; none when left out."""
    metrics: Metrics = Metrics()
    """What /metrics may cost."""
    workers: Workers = 1
    """Processes that carry traffic; `auto` is one for each core."""
    access_log: AccessLog | None = None
    """Where and how requests are logged; nowhere when left out."""
    tracing: Tracing | None = None
    """Which requests are recorded as spans, and where those go; nothing is traced when left out."""
    drain: Drain = Drain()
    """How the program ends."""
    limits: Limits = Limits()
    """What one client's request may cost."""
    upstreams: Items[Upstream] = ()
    """The versions of services that requests can go to."""
    routes: Items[Route] = ()
    """Which requests go where."""
    state: StateStore = StateStore()
    """Where rollouts are remembered."""
    alert_providers: Items[AlertProvider] = ()
    """Where news of rollouts go."""
    metric_templates: Items[MetricTemplate] = ()
    """Measurements from elsewhere."""
    rollouts: Items[Rollout] = ()
    """Releases that go out by themselves."""
