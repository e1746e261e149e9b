"""What is kept of one rollout: its history at hand, what is still to be written, and whether the disk takes it."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from splitproxy.control.rollouts.clock import iso, wall
from splitproxy.control.rollouts.store import Entry, Row, Store, StoreError
from splitproxy.core.rollout.events import Record

log = logging.getLogger(__name__)

SHOWN: Final = 1000
"""History entries at hand without the disk."""
VIEWED: Final = 50
"""History entries that are shown unless more are asked for."""
_SAVING_SECONDS: Final = 2.0
"""How long a decision waits for the disk."""


class Keeping:
    """The memory of one rollout. `row` makes what is saved of it from what is true at that moment."""

    def __init__(self, store: Store, name: str, row: Callable[[], Row]) -> None:
        self.history: deque[Entry] = deque(maxlen=SHOWN)
        self.alarm = ""
        """Why the last decision is not on disk; empty: it is."""
        self.sounded = False
        """Whether people have been told of the alarm."""
        self._urgent = False
        self._waiting: asyncio.Future[None] | None = None
        self.saved_at = 0.0
        """The rollout's clock when it was saved last."""
        self._store, self._name, self._row = store, name, row
        self._unsaved: list[Entry] = []
        self._saving: set[asyncio.Task[bool]] = set()

    def entry(self, attempt: int, record: Record) -> Entry:
        """Return the history's form of a record."""
        number, at = self._store.next_id(), iso(wall())
        return Entry(number, self._name, attempt, at, record.kind, record.warning, record.text, dict(record.data))

    def add(self, entries: Iterable[Entry]) -> None:
        """Take entries into the history; they are written with the next save."""
        self.history.extend(entries)
        self._unsaved = [*self._unsaved, *entries][-SHOWN:]

    def save(self) -> None:
        """Write what is true now, and what is left over from before, without waiting for it."""
        self._saving.add(self._begin(self._row(), ()))

    async def saved(self, row: Row | None = None, entries: Iterable[Entry] = ()) -> bool:
        """Write, and say whether it is done; waits neither for ever nor while a rollback waits.

        `row` and `entries` are of a decision that is only made when this succeeds; without them it is what is true now.
        """
        task, loop = self._begin(row or self._row(), entries), asyncio.get_running_loop()
        self._saving.add(task)
        if not self._urgent:
            waiting = self._waiting = loop.create_future()
            task.add_done_callback(lambda _: _release(waiting))
            patience = loop.call_later(_SAVING_SECONDS, _release, waiting)
            try:
                await waiting
            finally:
                patience.cancel()
        return task.done() and task.result()

    @property
    def obstacle(self) -> str:
        """Why what was to be saved first was not done."""
        if self.overtaken:
            return "a rollback comes first"
        return f"it cannot be saved: {self.alarm or 'the disk does not answer'}"

    @property
    def overtaken(self) -> bool:
        """Whether nothing is waited for since a rollback is, and not since the disk is in trouble."""
        return self._urgent and not self.alarm

    def hurry(self, *, urgent: bool) -> None:
        """Say whether a rollback waits: then nothing waits for the disk."""
        self._urgent = urgent
        if urgent and self._waiting:
            _release(self._waiting)

    async def close(self) -> None:
        """Wait until everything that was begun is written, or cannot be."""
        if self._saving:
            await asyncio.wait(self._saving, timeout=_SAVING_SECONDS)

    def _begin(self, row: Row, entries: Iterable[Entry]) -> asyncio.Task[bool]:
        task = asyncio.create_task(self._write(row, [*self._unsaved, *entries]))
        task.add_done_callback(self._saving.discard)
        return task

    async def _write(self, row: Row, pending: list[Entry]) -> bool:
        try:
            await self._store.save(row, pending)
        except StoreError as error:
            self.alarm = str(error)
            return False
        if self.alarm:
            log.info("rollout %s: its state is saved again", self._name)
        self.alarm, self.sounded = "", False
        written = {entry.id for entry in pending}
        self._unsaved = [entry for entry in self._unsaved if entry.id not in written]
        self.saved_at = max(self.saved_at, row.clock)
        return True


def _release(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
