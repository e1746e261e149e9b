"""Notices workers that live and do nothing: their event loop stands still, so nobody they serve is answered."""

import os
from collections.abc import Iterable, Iterator
from typing import Final

from splitproxy.children import Child
from splitproxy.core.stats import REGION_BYTES, TICKS

LOOK_SECONDS: Final = 5.0
STANDING_LOOKS: Final = 5
"""Looks in a row at which a worker has not ticked. It ticks ten times a second, also while it compiles a snapshot."""


class Vigil:
    """Compares the workers' ticks, which they count in shared memory, at every look.

    Looks are counted, not seconds: when a machine that was suspended goes on, one look has passed, and none is blamed.
    """

    def __init__(self, stats: int) -> None:
        """Read from the memory file `stats`."""
        self._stats = stats
        self._seen: dict[int, tuple[bytes, int]] = {}
        """Process -> its ticks, and at how many further looks they were the same."""

    def look(self, workers: Iterable[Child]) -> Iterator[Child]:
        """Yield the workers that stand still."""
        before, self._seen = self._seen, {}
        for worker in workers:
            assert worker.slot is not None
            ticks = os.pread(self._stats, 8, worker.slot * REGION_BYTES + 8 * TICKS)
            seen, looks = before.get(worker.pid, (b"", 0))
            looks = looks + 1 if ticks == seen else 0
            self._seen[worker.pid] = (ticks, looks)
            if looks >= STANDING_LOOKS:
                yield worker
