"""What a worker writes to the signals, in batches: a finished request costs one append, a batch a few additions.

A batch is written ten milliseconds after its first request: that much a killed worker loses of its counts. Whatever is
out of the ordinary is counted at once.
"""

from bisect import bisect_left, bisect_right
from collections import Counter
from struct import Struct
from typing import TYPE_CHECKING, Final

from splitproxy.core import stats

if TYPE_CHECKING:
    from splitproxy.proxy.ending import Ending

Done = tuple[int, float, int, int, int]
"""(cell of the status, seconds, bytes in, bytes out, cell of the reason) of a request that took one attempt."""

_SUMS: Final = Struct("5Q")
"""The cells from REQUEST_BYTES to ATTEMPT_NS, read and written together; native, so each of them in one piece."""
_SUCCESS, _SERVER_ERROR = stats.OUTCOMES.index("success"), stats.OUTCOMES.index("5xx")
_OUTCOME_OF: Final = tuple(
    stats.OUTCOME + (_SERVER_ERROR if word.startswith("5") else _SUCCESS) for word in stats.CODES
)
"""Cell of a status, less CODE -> cell of what it says of the attempt."""


class Series:
    """The signals of one (route, rule, upstream, role) in one worker; outlives snapshots."""

    __slots__ = ("_cells", "_octets", "_shown", "active", "block", "changed", "done")

    def __init__(self, cells: stats.Cells, octets: memoryview, block: int) -> None:
        """`octets` is the same memory as `cells`, shared by all series of a worker."""
        self.block = block
        self.active = 0
        """Requests in flight."""
        self.done: list[Done] = []
        self.changed = False
        """Whether a `write` is due."""
        self._shown = 0
        """What the gauge says of it: others may count in the same block."""
        self._cells = cells
        self._octets = octets

    def add(self, cell: int, count: int = 1) -> None:
        """Add to one cell at once."""
        self._cells[self.block + cell] += count

    def request(self, code: int, seconds: float | None, bytes_in: int, bytes_out: int) -> None:
        """Count the outcome of one request at once; `seconds` is None where it says nothing about the upstream."""
        self.add(stats.CODE + stats.CODE_INDEX[code])
        self.add(stats.REQUEST_BYTES, bytes_in)
        self.add(stats.RESPONSE_BYTES, bytes_out)
        if seconds is not None:
            self.add(stats.REQUEST_NS, int(seconds * 1e9))
            self.add(stats.REQUEST_HISTOGRAM + stats.bucket(seconds))

    def attempt(self, outcome: int, seconds: float | None, _exchange: "Ending | None" = None) -> None:
        """Count the outcome of one attempt at once; what it belongs to matters where sides are compared."""
        self.add(stats.OUTCOME + outcome)
        if seconds is not None:
            self.add(stats.ATTEMPT_NS, int(seconds * 1e9))
            self.add(stats.ATTEMPT_HISTOGRAM + stats.bucket(seconds))

    def write(self) -> None:
        """Write the batch and the gauge."""
        cells, block = self._cells, self.block
        done = self.done
        if len(done) == 1:
            self._write_one(*done.pop())
            return
        if done:
            self.done = []
            codes, seconds, bytes_in, bytes_out, reasons = zip(*done, strict=True)
            for code, count in Counter(codes).items():
                cells[block + code] += count
                cells[block + _OUTCOME_OF[code - stats.CODE]] += count
            for reason, count in Counter(reasons).items():
                cells[block + reason] += count
            cells[block + stats.REQUEST_BYTES] += sum(bytes_in)
            cells[block + stats.RESPONSE_BYTES] += sum(bytes_out)
            self._write_durations(sorted(seconds))
        cells[block + stats.IN_FLIGHT] += self.active - self._shown
        self._shown = self.active

    def _write_one(self, code: int, seconds: float, bytes_in: int, bytes_out: int, reason: int) -> None:
        """Write a batch of one: with many routes and little traffic on each, they are the rule."""
        cells, block, octets = self._cells, self.block, self._octets
        nanoseconds, index = int(seconds * 1e9), block + bisect_left(stats.BOUNDS, seconds)
        cells[block + code] += 1
        cells[block + _OUTCOME_OF[code - stats.CODE]] += 1
        cells[block + reason] += 1
        cells[index + stats.REQUEST_HISTOGRAM] += 1
        cells[index + stats.ATTEMPT_HISTOGRAM] += 1
        at = 8 * (block + stats.REQUEST_BYTES)
        came, went, active, requests, attempts = _SUMS.unpack_from(octets, at)
        active += self.active - self._shown
        self._shown = self.active
        sums = (came + bytes_in, went + bytes_out, active, requests + nanoseconds, attempts + nanoseconds)
        _SUMS.pack_into(octets, at, *sums)

    def _write_durations(self, ascending: list[float]) -> None:
        """Write durations to both histograms: one attempt, so request and attempt took as long."""
        cells, block = self._cells, self.block
        total = int(sum(ascending) * 1e9)
        cells[block + stats.REQUEST_NS] += total
        cells[block + stats.ATTEMPT_NS] += total
        at = 0
        while at < len(ascending):
            index = bisect_left(stats.BOUNDS, ascending[at])
            end = bisect_right(ascending, stats.BOUNDS[index], at) if index < len(stats.BOUNDS) else len(ascending)
            cells[block + stats.REQUEST_HISTOGRAM + index] += end - at
            cells[block + stats.ATTEMPT_HISTOGRAM + index] += end - at
            at = end
