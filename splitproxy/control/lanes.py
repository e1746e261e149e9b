"""Work in the background: in order within a lane, lanes apart from each other, so many items in each at most."""

import asyncio
import collections
import logging
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

log = logging.getLogger(__name__)

Item = TypeVar("Item")


class Lanes(Generic[Item]):
    """Calls `work(lane, item)` for what is put in; a lane has a task while there is something in it."""

    def __init__(self, work: Callable[[str, Item], Awaitable[None]], most: int) -> None:
        self._work = work
        self._most = most
        self._lanes: dict[str, collections.deque[Item]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def put(self, lane: str, item: Item) -> bool:
        """Add an item; False: the lane was full, and its oldest item was dropped for it."""
        waiting = self._lanes.get(lane)
        if waiting is None:
            waiting = self._lanes[lane] = collections.deque(maxlen=self._most)
            task = asyncio.create_task(self._drive(lane, waiting))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        full = len(waiting) == self._most
        waiting.append(item)
        return not full

    async def drained(self) -> None:
        """Wait until there is nothing left to do."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self, patience: float) -> None:
        """Give what is under way as many seconds, then stop it and drop the rest."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=patience)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _drive(self, lane: str, waiting: collections.deque[Item]) -> None:
        while waiting:
            try:
                await self._work(lane, waiting.popleft())
            except Exception:
                # A defect; what else is in the lane is still wanted.
                log.exception("background work of %s failed", lane)
        del self._lanes[lane]
