"""Traffic shares that change without a reload: one 64-bit cell per rollout in shared memory, read for every request.

The cells stand behind the workers' regions in the same mapping. Control is their only writer; each is one aligned
store, so all workers see a change at once and none sees half of it.

    cell = epoch (28 bits) | swapped (1) | cohorts (7) | mirror (14) | weight (14)
    salt = 64 bits: digest of rollout, revision and attempt; written while the weight is 0

The live area is a row of slots of 16 words: key (8 words, ASCII, padded with zeros), cell, salt, the latency thresholds
of the epoch and what is tolerated beyond the primary's latency (`core/tallies.py`), and four words that are kept for
later. A worker keeps the place of a slot for as long as it serves a configuration that names it: only then may control
give it back. A control process that is started again finds all of them as they were.
"""

from collections.abc import Collection
from hashlib import blake2b
from typing import Final, NamedTuple

from splitproxy.core.stats import MAX_WORKERS, REGION_BYTES
from splitproxy.errors import LiveFull

SLOTS: Final = 1024
"""Rollouts that one mapping has room for."""
_SLOT: Final = 16
_KEY: Final = 8
_GIVEN_BACK: Final = 1
"""First word of a slot whose rollout is served no more; no text of ASCII letters begins like this."""
_CELL: Final = 8
_SALT: Final = 9
_THRESHOLDS: Final = 10
_TOLERANCE: Final = 11
LIVE_OFFSET: Final = REGION_BYTES * MAX_WORKERS
"""Where the live area begins in the mapping; on a page."""
LIVE_BYTES: Final = SLOTS * _SLOT * 8
"""Size of the live area; whole pages."""

EVERYTHING: Final = 10_000
"""All requests, in hundredths of a percent."""
MAX_COHORTS: Final = 127
_SHARE_BITS: Final = 14
_SHARE: Final = (1 << _SHARE_BITS) - 1
_COHORTS_AT: Final = 2 * _SHARE_BITS
_SWAPPED_AT: Final = 35
_EPOCH_AT: Final = 36
_EPOCH: Final = (1 << 28) - 1


class Traffic(NamedTuple):
    """What is done with the requests of one rollout; shares in hundredths of a percent."""

    weight: int = 0
    """The canary's share (the upstream that the file calls the canary)."""
    mirror: int = 0
    """The share of requests copied to the canary."""
    cohorts: int = 0
    """How many of the cohorts go to the canary."""
    swapped: bool = False
    """Whether the canary is the primary now: its requests count under that role, and the old primary's as canary."""


def encode(traffic: Traffic, epoch: int) -> int:
    """Return the cell of `traffic`; `epoch` counts writes and is kept modulo 2^28.

    Raises ValueError for a share outside 0..EVERYTHING or more than MAX_COHORTS cohorts.
    """
    for name, value, most in (
        ("weight", traffic.weight, EVERYTHING),
        ("mirror", traffic.mirror, EVERYTHING),
        ("cohorts", traffic.cohorts, MAX_COHORTS),
    ):
        if not 0 <= value <= most:
            raise ValueError(f"{name} {value} is not within 0 and {most}")
    word = (epoch & _EPOCH) << _EPOCH_AT | traffic.swapped << _SWAPPED_AT | traffic.cohorts << _COHORTS_AT
    return word | traffic.mirror << _SHARE_BITS | traffic.weight


def decode(cell: int) -> Traffic:
    """Return what `cell` says; a cell that was never written says that nothing goes to the canary."""
    return Traffic(
        cell & _SHARE,
        cell >> _SHARE_BITS & _SHARE,
        cell >> _COHORTS_AT & MAX_COHORTS,
        bool(cell >> _SWAPPED_AT & 1),
    )


def epoch(cell: int) -> int:
    """Return the epoch that `cell` was written with."""
    return cell >> _EPOCH_AT


def salt(name: str, revision: str, attempt: int) -> int:
    """Return the salt of one run of a rollout: BLAKE2b, 8 bytes, over the three with zero bytes between them."""
    text = "\0".join((name, revision, str(attempt)))
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


class Area:
    """The live area, as 64-bit words. Control has it for writing, workers for reading."""

    cells: memoryview
    """The words themselves; from `cells[place]` on: cell, salt, thresholds and tolerance of a slot (see `place`)."""

    def __init__(self, cells: memoryview) -> None:
        self.cells = cells
        self._known: dict[str, int] = {}
        self._look()

    def slot(self, key: str, *, take: bool) -> int | None:
        """Return the slot of `key`; when it has none, a fresh one if `take`, else None.

        Raises LiveFull when none is left, ValueError for a key that is no ASCII text of 1 to 64 characters.
        """
        if not (key.isascii() and 1 <= len(key) <= 8 * _KEY) or "\0" in key:
            raise ValueError(f"{key!r} is not an ASCII text of 1 to {8 * _KEY} characters")
        found = self._known.get(key)
        if found is None or self._key(found) != key:
            self._look()
            found = self._known.get(key)
        if found is None and take:
            found = self._known[key] = self._take(key)
        return found

    def keep(self, keys: Collection[str]) -> None:
        """Give back every slot but those of `keys`; for control, once no worker serves a configuration with the others.

        A slot given back is at rest, and is the last to be taken again.
        """
        self._look()
        for key in self._known.keys() - set(keys):
            start = self._known.pop(key) * _SLOT
            self.cells[start + _CELL] = self.cells[start + _SALT] = 0
            self.cells[start] = _GIVEN_BACK

    def _key(self, slot: int) -> str:
        """Return the key of a slot; empty for one that is free."""
        start = slot * _SLOT
        if self.cells[start] in (0, _GIVEN_BACK):
            return ""
        return bytes(self.cells[start : start + _KEY]).rstrip(b"\0").decode()

    def _look(self) -> None:
        """Find out who has which slot."""
        slots = range(len(self.cells) // _SLOT)
        self._known = {key: slot for slot in slots if (key := self._key(slot))}

    def _take(self, key: str) -> int:
        slots = range(len(self.cells) // _SLOT)
        free = [slot for slot in slots if self.cells[slot * _SLOT] in (0, _GIVEN_BACK)]
        if not free:
            raise LiveFull(f"no room for more than {len(slots)} rollouts")
        index = min(free, key=lambda slot: self.cells[slot * _SLOT])  # one that was never taken before others
        start = index * _SLOT
        words = memoryview(key.encode().ljust(8 * _KEY, b"\0")).cast("Q")
        for word in reversed(range(_KEY)):  # the first one last: it is what says that the slot is taken
            self.cells[start + word] = words[word]
        return index

    def place(self, slot: int) -> int:
        """Return the index in `cells` of a slot's cell; its salt is the word after it."""
        return slot * _SLOT + _CELL

    def read(self, slot: int) -> int:
        """Return the slot's cell."""
        return self.cells[slot * _SLOT + _CELL]

    def salt(self, slot: int) -> int:
        """Return the slot's salt."""
        return self.cells[slot * _SLOT + _SALT]

    def write(self, slot: int, cell: int) -> None:
        """Put `cell` in force: every worker obeys it from its next request on."""
        self.cells[slot * _SLOT + _CELL] = cell

    def thresholds(self, slot: int) -> int:
        """Return the word of the latency thresholds."""
        return self.cells[slot * _SLOT + _THRESHOLDS]

    def write_thresholds(self, slot: int, word: int, tolerance: int) -> None:
        """Set the latency thresholds, and what is tolerated, of the epoch that is written next (`core/tallies.py`)."""
        self.cells[slot * _SLOT + _THRESHOLDS] = word
        self.cells[slot * _SLOT + _TOLERANCE] = tolerance

    def write_salt(self, slot: int, salt: int) -> None:
        """Draw all clients anew; only while the weight is 0, else a worker might use the old one a moment longer."""
        self.cells[slot * _SLOT + _SALT] = salt
