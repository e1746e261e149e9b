"""The control process itself as metrics: processor time, memory, descriptors, Python; in their customary names."""

from typing import Final

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_open_metrics

_REGISTRY: Final = CollectorRegistry()
ProcessCollector(registry=_REGISTRY)
PlatformCollector(registry=_REGISTRY)
GCCollector(registry=_REGISTRY)
_END: Final = "# EOF\n"


def text(*, open_metrics: bool) -> str:
    """Return the families `process_*` and `python_*` of this process, without an end."""
    generate = generate_open_metrics if open_metrics else generate_latest
    made: bytes = generate(_REGISTRY)
    return made.decode().removesuffix(_END)
