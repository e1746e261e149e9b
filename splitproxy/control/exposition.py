"""The two texts in which metrics are told: Prometheus' own (0.0.4) and OpenMetrics (1.0.0).

The label text of a series is made once and serves all its lines: at a thousand series there are thirty thousand lines,
and whoever asks for them waits.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Literal, TypeVar

from splitproxy.control.exemplars import Exemplar

PREFIX: Final = "splitproxy_"
_OPEN_METRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"
_PROMETHEUS: Final = "text/plain; version=0.0.4; charset=utf-8"
_ESCAPES: Final = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
_UNUSUAL: Final = {"inf": "+Inf", "-inf": "-Inf", "nan": "NaN"}

Place = TypeVar("Place", bound=tuple[str, ...])
"""The values of a sample's labels."""


def labelled(names: Sequence[str], values: Sequence[str]) -> str:
    """Return labels as they stand between the braces, in the order of their names."""
    pairs = sorted(zip(names, values, strict=True))
    return ",".join([f'{name}="{value.translate(_ESCAPES)}"' for name, value in pairs])


def number(value: float) -> str:
    """Return a value as both formats write it, with a point where it is whole too."""
    text = repr(float(value))
    return _UNUSUAL.get(text, text)


class Page:
    """One answer in the making. `lines` may be added to where that is much faster than `counter` and `gauge`."""

    def __init__(self, accept: str) -> None:
        """Choose the format: OpenMetrics where the `Accept` field names it, as Prometheus' does."""
        self.open_metrics = "application/openmetrics-text" in accept.lower()
        self.lines: list[str] = []

    def family(self, name: str, kind: Literal["counter", "gauge", "histogram"], text: str) -> str:
        """Begin a family, named without prefix or `_total`; return the full name of a counter's or gauge's samples."""
        full = PREFIX + name
        sample = f"{full}_total" if kind == "counter" else full
        about = full if self.open_metrics else sample
        self.lines += (f"# HELP {about} {text}\n", f"# TYPE {about} {kind}\n")
        return sample

    def counter(self, name: str, text: str, labels: Sequence[str], values: Mapping[Place, float]) -> None:
        """Add a whole counter."""
        self._samples(self.family(name, "counter", text), labels, values)

    def gauge(self, name: str, text: str, labels: Sequence[str], values: Mapping[Place, float]) -> None:
        """Add a whole gauge."""
        self._samples(self.family(name, "gauge", text), labels, values)

    def _samples(self, sample: str, labels: Sequence[str], values: Mapping[Place, float]) -> None:
        self.lines += [
            f"{sample}{{{labelled(labels, key)}}} {number(value)}\n" if key else f"{sample} {number(value)}\n"
            for key, value in values.items()
        ]

    def remark(self, exemplar: Exemplar | None, value: float) -> str:
        """Return what follows a sample's value to name a trace; only OpenMetrics has that."""
        if exemplar is None or not self.open_metrics:
            return ""
        return f' # {{trace_id="{exemplar.trace}"}} {number(value)} {exemplar.at:.3f}'

    def finish(self) -> tuple[bytes, str]:
        """Return the text and its content type."""
        if self.open_metrics:
            self.lines.append("# EOF\n")
        return "".join(self.lines).encode(), _OPEN_METRICS if self.open_metrics else _PROMETHEUS
