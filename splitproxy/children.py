"""Starting processes of our own, each with a fresh channel, and how soon a dead one is started again."""

import os
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from splitproxy.channel import Channel, pair

_BACK_OFF: Final = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Seconds until the first, second … start in a row; the last one for all further."""
_LONG_LIFE: Final = 10.0
"""A process that lived this long in seconds did not die of its start."""


@dataclass(eq=False)
class Child:
    """A process that was started and not yet reaped."""

    pid: int
    channel: Channel
    slot: int | None
    """A worker's slot; None: control."""
    leaving: bool = False
    """It was asked to end, or will not be replaced."""
    started: float = field(default_factory=time.monotonic)

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return "control" if self.slot is None else f"worker {self.slot}"


class BackOff:
    """Counts deaths in a row, of control (None) and of each slot."""

    def __init__(self) -> None:
        self._deaths: dict[int | None, int] = {}

    def died(self, child: Child) -> tuple[int, float]:
        """Return how often in a row it died, and in how many seconds to start it again."""
        lived = time.monotonic() - child.started
        deaths = 1 if lived > _LONG_LIFE else self._deaths.get(child.slot, 0) + 1
        self._deaths[child.slot] = deaths
        return deaths, _BACK_OFF[min(deaths, len(_BACK_OFF)) - 1]


def start(slot: int | None, program: Sequence[str], stats: int, options: Iterable[str]) -> Child:
    """Start `python program --channel FD --stats FD options`; our end of the channel does not block."""
    ours, theirs = pair()
    ours.setblocking(False)
    inherited = (theirs.fileno(), stats)
    for descriptor in inherited:
        os.set_inheritable(descriptor, True)
    pid = os.posix_spawn(
        sys.executable,
        [sys.executable, "-P", *program, "--channel", str(theirs.fileno()), "--stats", str(stats), *options],
        child_environment(),
        file_actions=[(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)],
        setpgroup=0,  # Ctrl-C in the terminal is for the supervisor alone
        setsigdef=[signal.SIGPIPE],
    )
    os.set_inheritable(stats, False)
    theirs.close()
    return Child(pid, Channel(ours), slot)


def child_environment() -> dict[str, str]:
    """Return the environment in which `python -P -m splitproxy…` finds this very package.

    `-P` keeps the working directory out of the children's path, where a stray `yaml.py` beside the configuration would
    be imported; a checkout that is run in place has to be named instead.
    """
    environment = dict(os.environ)
    root = str(Path(__file__).resolve().parent.parent)
    if root not in map(os.path.realpath, sys.path[1:]):
        known = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = f"{root}{os.pathsep}{known}" if known else root
    return environment
