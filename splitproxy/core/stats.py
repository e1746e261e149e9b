"""The golden signals as numbers in shared memory: layout, writing, merging, windows and quantiles.

Each worker owns one *region* of the mapping and is its only writer; the control process reads all of them. A region is

    header page | directory of keys | blocks

and a *block* is one page of 512 unsigned 64-bit cells. A block is taken when its key is first used and keeps its place
for the life of the program, so a replaced worker finds its counters again by reading the directory. Counters only grow;
gauges (in flight, open connections) are set to zero when a worker starts.

Addition merges workers, subtraction makes windows. `/metrics` and every verdict read these same cells.
"""

import json
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Final

Cells = memoryview
"""A region as `memoryview.cast("Q")`."""

# --- histogram -------------------------------------------------------------------------------------------------------
# 32 buckets a decade: steps of 0.1 from 1 to 2, 0.25 to 5, 0.5 to 10. Half a bucket is at most 6 % of its value, and
# Prometheus' customary bounds (1, 2.5, 5, 7.5 of each decade) are bucket bounds, so its histogram is exact.
_DECADE: Final = (*(10 + i for i in range(10)), *(20 + 2.5 * i for i in range(12)), *(50 + 5 * i for i in range(10)))
BOUNDS: Final[tuple[float, ...]] = (
    *(round(step * 10.0 ** (exponent - 1), 12) for exponent in range(-4, 2) for step in _DECADE),
    100.0,
)
"""Upper bounds of the buckets in seconds, 0.1 ms to 100 s, inclusive; one more bucket lies above the last."""
BUCKETS: Final = len(BOUNDS) + 1


def bucket(seconds: float) -> int:
    """Return the index of the bucket that `seconds` falls into: the first whose upper bound is not below it."""
    return bisect_left(BOUNDS, seconds)


def quantile(counts: Sequence[int], q: float) -> float | None:
    """Return the `q`-quantile (0..1) in seconds of a histogram, interpolated in its bucket; None when it is empty."""
    total = sum(counts)
    if not total:
        return None
    rank, seen = q * total, 0
    for index, count in enumerate(counts):
        if count and seen + count >= rank:
            if index >= len(BOUNDS):
                return BOUNDS[-1]
            low = BOUNDS[index - 1] if index else 0.0
            return low + (BOUNDS[index] - low) * max(0.0, rank - seen) / count
        seen += count
    return BOUNDS[-1]


# --- statuses --------------------------------------------------------------------------------------------------------
_KNOWN: Final = (
    *(101,),
    *(200, 201, 202, 203, 204, 205, 206, 207, 208, 226),
    *(300, 301, 302, 303, 304, 305, 307, 308),
    *(400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 418),
    *(421, 422, 423, 424, 425, 426, 428, 429, 431, 451, 499),
    *(500, 501, 502, 503, 504, 505, 506, 507, 508, 510, 511),
)
CODES: Final[tuple[str, ...]] = (*map(str, _KNOWN), "1xx", "2xx", "3xx", "4xx", "5xx")
"""Label values of `code`: the registered statuses and 499; any other falls into its class, so the set is bounded."""
CODE_INDEX: Final[tuple[int, ...]] = tuple(
    _KNOWN.index(code) if code in _KNOWN else len(_KNOWN) + min(max(code // 100, 1), 5) - 1 for code in range(1000)
)
"""Status -> its cell within the `CODE` cells."""

# --- words -----------------------------------------------------------------------------------------------------------
ROLES: Final = ("primary", "canary", "mirror", "none")
OUTCOMES: Final = (
    *("success", "5xx", "connect_failed", "connect_timeout", "upstream_reset"),
    *("upstream_protocol_error", "upstream_timeout", "client_gone", "cancelled"),
)
"""How an attempt ended. `client_gone`: the client left before the upstream had answered: nobody's failure.
`cancelled`: we gave up for a reason of our own (request deadline, shutdown)."""
REASONS: Final = ("override", "session", "key", "random", "match", "failover")
"""Why a request went to its upstream."""
DROPS: Final = ("method", "body_too_large", "in_flight", "loop", "no_endpoint", "overrun", "client_gone")
"""Why a request that should have been mirrored was not, or not to its end."""

# --- a series block: (route, rule, upstream, role) -------------------------------------------------------------------
CODE: Final = 0
REQUEST_BYTES: Final = CODE + len(CODES)
RESPONSE_BYTES: Final = REQUEST_BYTES + 1
IN_FLIGHT: Final = RESPONSE_BYTES + 1
REQUEST_NS: Final = IN_FLIGHT + 1
ATTEMPT_NS: Final = REQUEST_NS + 1
REQUEST_HISTOGRAM: Final = ATTEMPT_NS + 1
ATTEMPT_HISTOGRAM: Final = REQUEST_HISTOGRAM + BUCKETS
OUTCOME: Final = ATTEMPT_HISTOGRAM + BUCKETS
REASON: Final = OUTCOME + len(OUTCOMES)
DROP: Final = REASON + len(REASONS)
REPLAYS: Final = DROP + len(DROPS)
"""Requests sent once more because a kept-alive connection turned out dead: invisible, no attempt of its own."""
RETRIES: Final = REPLAYS + 1
"""Attempts made because one before had failed, by the rule's policy. Failovers are counted by themselves."""
FAILOVERS: Final = RETRIES + 1
"""In a block of the kind `FAILOVER` alone: requests sent on to the primary after the canary had failed."""
_SERIES_END: Final = FAILOVERS + 1

# --- an endpoint block: (upstream, address, pool) --------------------------------------------------------------------
ENDPOINT_ACTIVE: Final = 0
"""Gauge: requests in flight on this endpoint."""
ENDPOINT_IDLE: Final = 1
"""Gauge: connections waiting in the pool."""
ENDPOINT_OPEN: Final = 2
"""Gauge: connections open or being opened."""
ENDPOINT_REQUESTS: Final = 3
ENDPOINT_CONNECTS: Final = 4
ENDPOINT_CONNECT_FAILURES: Final = 5
ENDPOINT_PENDING: Final = 6
"""Gauge: requests waiting for a connection."""
ENDPOINT_NAMED: Final = 7
"""Gauge: 1 while the upstream has this endpoint."""
ENDPOINT_UNHEALTHY: Final = 8
"""Gauge: 1 while probes find it unhealthy."""
ENDPOINT_EJECTED: Final = 9
"""Gauge: 1 while it is ejected for its errors."""
ENDPOINT_IN_USE: Final = 10
"""Gauge: 1 while requests may go to it."""
ENDPOINT_PANIC: Final = 11
"""Gauge: 1 while they may only because too few others are left."""

# --- a region --------------------------------------------------------------------------------------------------------
BLOCK: Final = 512
"""Cells of a block: one page of 4 KiB, so that an unused block costs no memory."""
assert _SERIES_END <= BLOCK, _SERIES_END
MAX_BLOCKS: Final = 65_536
_KEY_BYTES: Final = 512
_DIRECTORY: Final = BLOCK
_BLOCKS: Final = _DIRECTORY + MAX_BLOCKS * _KEY_BYTES // 8
REGION_BYTES: Final = 8 * (_BLOCKS + MAX_BLOCKS * BLOCK)
"""Size of a region in the mapping; sparse, so only what is used takes memory."""

MAX_WORKERS: Final = 64
"""Regions of the mapping."""

PID: Final = 0
GENERATION: Final = 1
CONNECTIONS: Final = 2
"""Gauge: open client connections."""
LAG_NS: Final = 3
"""Gauge: how late the last tick of the event loop was."""
USED: Final = 4
"""Blocks taken; written after the key, so a reader never sees a half-written one."""
OVERFLOWS: Final = 5
"""Keys that found the region full and were counted in block 0."""
ACCEPTED: Final = 6
LOG_DROPS: Final = 7
"""Access log lines lost because the disk or pipe did not keep up."""
TICKS: Final = 8
"""Turns of the worker's clock, ten a second: by them the supervisor sees that its event loop does not stand still."""
TURNED_AWAY: Final = 9
"""Clients' connections that were one too many for their listener."""
SPAN_DROPS: Final = 10
"""Spans that were lost since control did not take them."""

SERIES: Final = "series"
ENDPOINT: Final = "endpoint"
FAILOVER: Final = "failover"
"""Kind of a block that counts failovers, in the cell `FAILOVERS`."""
Key = tuple[str, ...]
"""("series", route, rule, upstream, role), ("endpoint", upstream, address, "mirror" for the mirrors' pool or ""), or
("failover", route, from upstream, to upstream)."""
OVERFLOW_KEY: Final[Key] = (SERIES, "", "", "", "none")
"""Block 0: requests that no route took, and whatever found the region full."""

ENDPOINT_GAUGES: Final = (
    *(ENDPOINT_ACTIVE, ENDPOINT_IDLE, ENDPOINT_OPEN, ENDPOINT_PENDING),
    *(ENDPOINT_NAMED, ENDPOINT_UNHEALTHY, ENDPOINT_EJECTED, ENDPOINT_IN_USE, ENDPOINT_PANIC),
)
_GAUGES: Final[dict[str, tuple[int, ...]]] = {SERIES: (IN_FLIGHT,), ENDPOINT: ENDPOINT_GAUGES}
"""Kind of a block -> those of its cells that mean nothing once their worker is gone."""


class Region:
    """One worker's cells, for writing. `cells[region.block(key) + CODE + ...] += 1` is how a signal is recorded."""

    def __init__(self, cells: Cells) -> None:
        self.cells = cells
        self._places: dict[Key, int] = {}
        for key, place in directory(cells):
            self._places[key] = place
            for gauge in _GAUGES.get(key[0], ()):
                cells[place + gauge] = 0
        for gauge in (CONNECTIONS, LAG_NS):
            cells[gauge] = 0
        self.block(OVERFLOW_KEY)

    def clear(self, place: int, gauges: Sequence[int]) -> None:
        """Set these cells of the block at `place` to zero: what they say is there no more."""
        for gauge in gauges:
            self.cells[place + gauge] = 0

    def block(self, key: Key) -> int:
        """Return the index of the first cell of `key`'s block, taking one if it has none yet."""
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = self._take(key)
        return place

    def _take(self, key: Key) -> int:
        cells, used = self.cells, self.cells[USED]
        text = json.dumps(key).encode()
        if used >= MAX_BLOCKS or len(text) >= _KEY_BYTES:
            cells[OVERFLOWS] += 1
            return _BLOCKS
        start = (_DIRECTORY * 8) + used * _KEY_BYTES
        cells.cast("B")[start : start + len(text)] = text
        cells[USED] = used + 1
        return _BLOCKS + used * BLOCK


def directory(cells: Cells, known: int = 0) -> Iterator[tuple[Key, int]]:
    """Yield each key of a region with the index of its first cell, beginning with the `known`-th."""
    octets = cells.cast("B")
    for index in range(known, cells[USED]):
        start = (_DIRECTORY * 8) + index * _KEY_BYTES
        text = bytes(octets[start : start + _KEY_BYTES]).rstrip(b"\0")
        yield tuple(json.loads(text)), _BLOCKS + index * BLOCK
