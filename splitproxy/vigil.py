"""Notices processes that live and do nothing: their event loop stands still, so nobody is answered or judged."""

import os
from collections.abc import Iterable, Iterator
from typing import Final

from splitproxy.children import Child
from splitproxy.core.stats import REGION_BYTES, TICKS

LOOK_SECONDS: Final = 5.0
STANDING_LOOKS: Final = 5
"""Looks in a row at which a process gave no sign. A worker ticks ten times a second, also while it compiles a snapshot;
control speaks every `ALIVE_SECONDS` at least."""


class Vigil:
    """Compares at every look the workers' ticks, which they count in shared memory, and what control has said.

    Looks are counted, not seconds: when a machine that was suspended goes on, one look has passed, and none is blamed.
    """

    def __init__(self, stats: int) -> None:
        """Read from the memory file `stats`."""
        self._stats = stats
        self._seen: dict[int, tuple[bytes, int]] = {}
        """Process -> its last sign, and at how many further looks it was the same."""
        self._words: dict[int, int] = {}
        """Control's process -> how often it has spoken; a start may take as long as it takes."""

    def heard(self, control: Child) -> None:
        """Take note that control has said something."""
        self._words = {control.pid: self._words.get(control.pid, 0) + 1}

    def look(self, children: Iterable[Child]) -> Iterator[Child]:
        """Yield those of control and the workers that stand still."""
        before, self._seen = self._seen, {}
        for child in children:
            sign = self._sign(child)
            if not sign:
                continue
            seen, looks = before.get(child.pid, (b"", 0))
            looks = looks + 1 if sign == seen else 0
            self._seen[child.pid] = (sign, looks)
            if looks >= STANDING_LOOKS:
                yield child

    def _sign(self, child: Child) -> bytes:
        if child.slot is None:
            words = self._words.get(child.pid)
            return b"%d" % words if words else b""
        return os.pread(self._stats, 8, child.slot * REGION_BYTES + 8 * TICKS)
