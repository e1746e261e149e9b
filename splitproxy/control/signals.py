"""The golden signals of all workers, merged: totals from the start, and windows over the last ten minutes.

Counters are read from the workers' shared memory; a dead worker's region still counts, its gauges do not. Once a second
what has grown is kept as a *delta*, packed and only for the series that moved, so that an idle route costs nothing.
"""

import asyncio
import mmap
import os
import struct
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from operator import add
from typing import Final

from splitproxy.core import pairs, stats, tallies
from splitproxy.core.stats import BLOCK, Key

KEPT_SECONDS: Final = 600.0
_BUDGET: Final = 32 << 20
"""Bytes that the deltas may take; beyond it the oldest go, and windows become shorter than asked for."""
_DELTA_OVERHEAD: Final = 200
"""Bytes of a delta beside its cells: the object and its place in a dict."""
_PAGE: Final = struct.Struct(f"={BLOCK}Q")
_GAUGES: Final = {
    stats.FAILOVER: frozenset[int](),
    pairs.KIND: frozenset[int](),
    stats.SERIES: frozenset({stats.IN_FLIGHT}),
    stats.ENDPOINT: frozenset(stats.ENDPOINT_GAUGES),
}

Values = list[int]
"""The cells of one block."""


@dataclass(frozen=True)
class Window:
    """What was counted for one key over `seconds`: those asked for, or as many as are known."""

    seconds: float
    cells: Values

    @property
    def requests(self) -> int:
        """Requests that ended."""
        return sum(self.cells[stats.CODE : stats.REQUEST_BYTES])

    @property
    def failures(self) -> int:
        """Requests that ended with a 5xx."""
        codes = zip(stats.CODES, self.cells[stats.CODE : stats.REQUEST_BYTES], strict=True)
        return sum(count for code, count in codes if code[0] == "5")

    @property
    def attempts(self) -> int:
        """First attempts that say something of the upstream: neither left by the client nor given up by us."""
        outcomes = zip(stats.OUTCOMES, self.cells[stats.OUTCOME : stats.REASON], strict=True)
        return sum(count for outcome, count in outcomes if outcome not in ("client_gone", "cancelled"))

    @property
    def succeeded(self) -> int:
        """Those of them that succeeded."""
        return self.cells[stats.OUTCOME + stats.OUTCOMES.index("success")]

    def quantile(self, q: float) -> float | None:
        """Return the `q`-quantile of the requests' durations in seconds, None without any."""
        return stats.quantile(self.cells[stats.REQUEST_HISTOGRAM : stats.ATTEMPT_HISTOGRAM], q)


@dataclass(frozen=True)
class _Second:
    at: float
    """When its counting ended."""
    deltas: dict[Key, bytes]
    size: int


class _Slot:
    """One worker's region, read only, and what is known of its directory."""

    def __init__(self, descriptor: int, slot: int) -> None:
        self._memory = mmap.mmap(descriptor, stats.REGION_BYTES, prot=mmap.PROT_READ, offset=slot * stats.REGION_BYTES)
        self._cells = memoryview(self._memory).cast("Q")
        self.places: dict[Key, int] = {}
        self.endpoints: dict[str, list[Key]] = {}
        """Upstream -> the keys of its endpoints."""
        self.tallies: dict[Key, int] = {}
        """Where the tallies are, which are no signals: each is of one epoch and begins anew with another."""
        self._marks: dict[Key, int] = {}

    def refresh(self) -> None:
        """Take notice of keys that are new."""
        for key, place in stats.directory(self._cells, len(self.places) + len(self.tallies)):
            if key[0] == tallies.KIND:
                self.tallies[key] = place
                continue
            self.places[key] = place
            if key[0] == stats.ENDPOINT:
                self.endpoints.setdefault(key[1], []).append(key)

    def header(self, cell: int) -> int:
        """Return one cell of the region's header."""
        return self._cells[cell]

    def block(self, key: Key) -> Values:
        """Return the cells of `key`, which must be known."""
        return list(_PAGE.unpack_from(self._memory, self.places[key] * 8))

    def part(self, key: Key, first: int, last: int) -> Values | None:
        """Return some cells of `key`, None when it is not known."""
        place = self.places.get(key)
        return None if place is None else self._cells[place + first : place + last].tolist()

    def tally(self, key: Key, count: int) -> Values | None:
        """Return the first cells of a tally, None when it is not known."""
        place = self.tallies.get(key)
        return None if place is None else self._cells[place : place + count].tolist()

    def moved(self) -> Iterator[Key]:
        """Yield the keys whose cells differ from those at the last call."""
        marks = self._marks
        for key, place in self.places.items():
            mark = zlib.crc32(self._memory[place * 8 : (place + BLOCK) * 8])
            if marks.get(key) != mark:
                marks[key] = mark
                yield key


class Signals:
    """All regions. `alive` says which slots have a living worker, whose gauges are true."""

    def __init__(
        self, descriptor: int, alive: Callable[[], Iterable[int]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._descriptor, self._alive, self.clock = descriptor, alive, clock
        self._lock = threading.Lock()
        """Held where keys are looked through or added: answers are built in threads."""
        self._slots: dict[int, _Slot] = {}
        self._counted: dict[Key, bytes] = {}
        """Key -> its cells at the last sample, packed."""
        self._seconds: deque[_Second] = deque()
        self._size = 0
        self._began = clock()
        self._regions = os.fstat(descriptor).st_size // stats.REGION_BYTES
        self.sample()
        self._seconds.clear()  # what was counted before this process began belongs to no window
        self._size = 0

    async def keep_sampling(self) -> None:
        """Sample once a second, for ever."""
        while True:
            await asyncio.sleep(1.0)
            self.sample()

    # --- totals ------------------------------------------------------------------------------------------------------
    def refresh(self) -> None:
        """Take notice of regions and keys that are new."""
        with self._lock:
            self._refresh()

    def _refresh(self) -> None:
        for slot in range(self._regions):
            if slot not in self._slots:
                # Read, not mapped: looking at an untouched page of a mapping would make it a real one.
                used = os.pread(self._descriptor, 8, slot * stats.REGION_BYTES + 8 * stats.USED)
                if any(used):
                    self._slots[slot] = _Slot(self._descriptor, slot)
        for region in self._slots.values():
            region.refresh()

    def known(self) -> list[Key]:
        """Return every key that was ever used."""
        with self._lock:
            return list(dict.fromkeys(key for region in self._slots.values() for key in region.places))

    def endpoints(self, upstreams: Iterable[str] | None = None) -> list[Key]:
        """Return the key of every endpoint that was ever used, or of those of `upstreams`."""
        with self._lock:
            regions = [region.endpoints for region in self._slots.values()]
            names = dict.fromkeys(name for region in regions for name in region) if upstreams is None else upstreams
            return list(dict.fromkeys(key for name in names for region in regions for key in region.get(name, ())))

    def total(self, key: Key) -> Values:
        """Return the cells of `key` over all workers: counters of all, gauges of the living."""
        alive, gauges = set(self._alive()), _GAUGES[key[0]]
        merged: Values | None = None
        for slot, region in list(self._slots.items()):
            if key in region.places:
                cells = region.block(key)
                if slot not in alive:
                    for gauge in gauges:
                        cells[gauge] = 0
                merged = list(map(add, merged, cells)) if merged else cells
        return merged or [0] * BLOCK

    def add_up(self, keys: Iterable[Key], first: int, last: int) -> Values:
        """Return the cells from `first` to before `last`, all counters, summed over `keys` and all workers.

        Far less work than `total`: what a rollout looks at ten times a second.
        """
        found = [
            cells
            for region in list(self._slots.values())
            for key in keys
            if (cells := region.part(key, first, last)) is not None
        ]
        if len(found) == 1:
            return found[0]
        return list(map(sum, zip(*found, strict=True))) if found else [0] * (last - first)

    def tally(self, key: Key, count: int) -> list[tuple[int, Values]]:
        """Return for each worker's slot the first cells of a tally, where there is one."""
        return [
            (slot, cells)
            for slot, region in list(self._slots.items())
            if (cells := region.tally(key, count)) is not None
        ]

    def gauge(self, keys: Iterable[Key], cell: int) -> int:
        """Return one gauge summed over `keys` and the living workers."""
        alive = set(self._alive())
        slots = [region for slot, region in list(self._slots.items()) if slot in alive]
        parts = (region.part(key, cell, cell + 1) for region in slots for key in keys)
        return sum(part[0] for part in parts if part)

    def header_sum(self, cell: int, *, living: bool = False) -> int:
        """Return the sum of one header cell over all workers, or over the living ones."""
        return sum(self._headers(cell, living=living))

    def header_max(self, cell: int) -> int:
        """Return the greatest value of one header cell among the living workers."""
        return max(self._headers(cell, living=True), default=0)

    def _headers(self, cell: int, *, living: bool) -> list[int]:
        alive = set(self._alive())
        return [region.header(cell) for slot, region in list(self._slots.items()) if not living or slot in alive]

    # --- windows -----------------------------------------------------------------------------------------------------
    def sample(self) -> None:
        """Keep what has been counted since the last call."""
        with self._lock:
            self._refresh()
            moved = dict.fromkeys(key for region in self._slots.values() for key in region.moved())
        now = self.clock()
        deltas = {}
        for key in moved:
            cells = self.total(key)
            for gauge in _GAUGES[key[0]]:
                cells[gauge] = 0
            before = self._counted.get(key)
            self._counted[key] = _pack(cells)
            if before is not None:
                for cell, value in _unpack(before):
                    cells[cell] -= value
            delta = _pack(cells)
            if delta:
                deltas[key] = delta
        second = _Second(now, deltas, sum(len(delta) + _DELTA_OVERHEAD for delta in deltas.values()))
        self._seconds.append(second)
        self._size += second.size
        while self._seconds[0].at <= now - KEPT_SECONDS or (self._size > _BUDGET and len(self._seconds) > 1):
            gone = self._seconds.popleft()
            self._began, self._size = gone.at, self._size - gone.size

    def window(self, key: Key, seconds: float) -> Window:
        """Return what was counted for `key` over the last `seconds`, up to the last sample."""
        cells: Values = [0] * BLOCK
        begin, known = self._began, list(self._seconds)
        if not known:
            return Window(0.0, cells)
        end = known[-1].at
        for second in reversed(known):
            if second.at <= end - seconds:
                begin = second.at
                break
            for cell, value in _unpack(second.deltas.get(key, b"")):
                cells[cell] += value
        return Window(end - begin, cells)

    def seconds(self, keys: Collection[Key], last: float) -> Iterator[tuple[float, dict[int, int]]]:
        """Yield for each of the `last` seconds when it ended and what was counted for `keys`, oldest first.

        Times are of `clock`; what was counted is cell -> value, summed over `keys`, without zeros.
        """
        known = list(self._seconds)
        for second in known:
            if second.at <= known[-1].at - last:
                continue
            counted: dict[int, int] = {}
            for key in keys:
                for cell, value in _unpack(second.deltas.get(key, b"")):
                    counted[cell] = counted.get(cell, 0) + value
            yield second.at, counted


def _pack(cells: Values) -> bytes:
    """Return the cells that are not zero: their indices, then their values."""
    places = [place for place, value in enumerate(cells) if value]
    return struct.pack(f"={len(places)}H{len(places)}Q", *places, *(cells[place] for place in places))


def _unpack(packed: bytes) -> Iterable[tuple[int, int]]:
    count = len(packed) // 10
    numbers = struct.unpack(f"={count}H{count}Q", packed)
    return zip(numbers[:count], numbers[count:], strict=True)
