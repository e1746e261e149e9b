"""How many connections there may be: of one listener by its limit, of the worker by its descriptors."""

import errno
import sys
from collections.abc import Callable
from typing import Final

from splitproxy.errors import TooManyConnections

_MOST_ANSWERED: Final = 512
"""Clients turned away at one time that get an answer; a flood beyond them is closed without a word."""
_KEPT: Final = 4
"""One of so many descriptors is not for clients, but for connections to endpoints and for files."""
OUR_LACK: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})
"""Why a connection could not be made without any fault of the other side."""


class Crowd:
    """The clients of one listener in this worker."""

    __slots__ = ("complain", "inside", "leaving", "limit")

    leaving: "Crowd"
    """Those turned away whose connections are not closed yet."""

    def __init__(self, complain: Callable[[Exception], None], limit: int = 0) -> None:
        """`complain` is told of every client that is turned away; a `limit` of 0 is none."""
        self.complain = complain
        self.inside = 0
        """Open connections."""
        self.limit = limit or sys.maxsize
        """How many of them there may be."""

    def set_limit(self, limit: int) -> None:
        """Let in so many from now on, 0 is any number; who is inside stays."""
        self.limit = limit or sys.maxsize

    def turn_away(self) -> TooManyConnections | None:
        """Count the last one that came as leaving; return what it is told, None: nothing."""
        self.inside -= 1
        self.leaving.inside += 1
        error = TooManyConnections(f"the listener has {self.limit} connections, which is its limit")
        self.complain(error)
        return error if self.leaving.inside <= self.leaving.limit else None


def new_crowd(complain: Callable[[Exception], None]) -> Crowd:
    """Return the crowd of a listener without a limit."""
    crowd = Crowd(complain)
    crowd.leaving = Crowd(complain, _MOST_ANSWERED)
    return crowd


def room(descriptors: int) -> int:
    """Return how many of a process's descriptors may be in use when one more client is accepted; -1 is no limit."""
    return sys.maxsize if descriptors < 0 else descriptors - descriptors // _KEPT
