"""Examples of what the metrics count: for each series, and each of its durations and statuses, the latest trace.

They lead from a curve to a request that made it. Only traces that were sampled are worth naming, since no other can be
looked at; so what is exported as a span is noted here, and nothing without tracing.
"""

from bisect import bisect_left
from collections import OrderedDict
from typing import Final, NamedTuple

from splitproxy.core.stats import Key

BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Of the histogram of durations in /metrics, in seconds: Prometheus' customary ones. Each is a bound of the recorded
histogram too, so that nothing is estimated."""
_MOST: Final = 4096
"""Series that are remembered; beyond that, those without a trace for the longest time are forgotten."""


class Exemplar(NamedTuple):
    """One traced request."""

    trace: str
    """Its trace id: 32 hexadecimal digits."""
    seconds: float
    """How long it took."""
    at: float
    """When it ended, in seconds since 1970: people look the trace up by it."""


class Series(NamedTuple):
    """The examples of one series."""

    buckets: dict[int, Exemplar]
    """By the index of their bucket; behind the last of `BOUNDS` comes one without a bound."""
    codes: dict[str, Exemplar]
    """By their status."""


class Exemplars:
    """The latest examples of each series, written on the event loop and read in threads."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Key, Series] = OrderedDict()

    def note(self, key: Key, code: str, exemplar: Exemplar) -> None:
        """Remember a request of the series `key` that ended with `code` in place of an earlier one like it."""
        series = self._kept.setdefault(key, Series({}, {}))
        self._kept.move_to_end(key)
        series.buckets[bisect_left(BOUNDS, exemplar.seconds)] = exemplar
        series.codes[code] = exemplar
        if len(self._kept) > _MOST:
            self._kept.popitem(last=False)

    def of(self, key: Key) -> Series | None:
        """Return the examples of `key`, None without any."""
        return self._kept.get(key)
