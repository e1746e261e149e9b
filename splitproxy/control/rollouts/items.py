"""What stands in a rollout's queue: events, and whoever waits for what becomes of them."""

import asyncio
from typing import NamedTuple

from splitproxy.core.rollout.events import Event
from splitproxy.errors import SplitProxyError


class Unsaved(SplitProxyError):
    """What an operator asked for was not done, because it could not be saved."""


class Item(NamedTuple):
    """One event."""

    event: Event
    done: "asyncio.Future[str | None] | None" = None
    """Of an operator's verb: None when it was done, else why not."""


def settle(item: Item, answer: str | Exception | None) -> None:
    """Tell the one who waits for an event, if anybody does, what became of it."""
    if item.done is None or item.done.done():
        return
    if isinstance(answer, Exception):
        item.done.set_exception(answer)
    else:
        item.done.set_result(answer)
