"""Deadlines, cheaply: one coarse wheel for all connections of a worker, no timer per request.

Setting a deadline is one assignment, `item.deadline = t`. The wheel looks at each item when it might be due, and at
least every `HORIZON` seconds; only a deadline nearer than the item's next look needs `watch`.
"""

from typing import Final, Protocol

RESOLUTION: Final = 0.1
"""Seconds: a deadline is noticed at most this much late."""
_SLOTS: Final = 50
HORIZON: Final = RESOLUTION * _SLOTS


class Timed(Protocol):
    """What a wheel can watch."""

    deadline: float
    next_look: float
    slot: "set[Timed] | None"

    def on_deadline(self, now: float) -> None:
        """Do what is due; called with `deadline <= now`."""


class Wheel:
    """A ring of slots, one for each `RESOLUTION` of the coming `HORIZON`."""

    __slots__ = ("_at", "_ring", "now")

    def __init__(self, now: float) -> None:
        self.now = now
        """The time of the last tick: coarse, but free to read."""
        self._at = int(now / RESOLUTION)
        self._ring: list[set[Timed]] = [set() for _ in range(_SLOTS + 1)]

    def watch(self, item: Timed) -> None:
        """Look at `item` when its deadline may have come; replaces an earlier look."""
        if item.slot is not None:
            item.slot.discard(item)
        steps = min(max(int(item.deadline / RESOLUTION) + 1 - self._at, 1), _SLOTS)
        slot = self._ring[(self._at + steps) % len(self._ring)]
        slot.add(item)
        item.slot = slot
        item.next_look = min(item.deadline, (self._at + steps) * RESOLUTION)

    def forget(self, item: Timed) -> None:
        """Never look at `item` again."""
        if item.slot is not None:
            item.slot.discard(item)
            item.slot = None
        item.next_look = 0.0

    def tick(self, now: float) -> None:
        """Advance to `now`: call `on_deadline` of what is due, look again later at the rest.

        Raises ExceptionGroup, after all have been called, of what they raised.
        """
        self.now = now
        errors: list[Exception] = []
        target = int(now / RESOLUTION)
        # After a long stall one turn of the ring has seen every slot.
        for _ in range(min(target - self._at, len(self._ring))):
            self._at += 1
            index = self._at % len(self._ring)
            due, self._ring[index] = self._ring[index], set()
            for item in due:
                item.slot = None
            for item in due:
                if item.deadline > now and item.slot is None:
                    self.watch(item)
            for item in due:
                if item.deadline <= now:
                    self._call(item, now, errors)
        self._at = max(self._at, target)
        if errors:
            raise ExceptionGroup("at a deadline", errors)

    @staticmethod
    def _call(item: Timed, now: float, errors: list[Exception]) -> None:
        try:
            item.on_deadline(now)
        except Exception as error:  # a defect in one must not cost the others their deadlines
            errors.append(error)
