"""Every process that the supervisor started and has not yet reaped: told, killed, hung up on, and taken leave of."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final

from splitproxy.channel import Message
from splitproxy.children import Child, start
from splitproxy.turns import Turns

_RETIRE_SECONDS: Final = 3.0
"""How long control may take to end once its channel has."""


class Household:
    """The children, by process number."""

    def __init__(self, turns: Turns, say: Callable[[str, str], None], heard: Callable[[Child], None]) -> None:
        """`heard` is called when a child's channel has something to read."""
        self._turns, self._say, self._heard = turns, say, heard
        self.children: dict[int, Child] = {}

    def start(self, slot: int | None, program: Sequence[str], stats: int, *options: str) -> Child:
        """Start control (no slot) or the worker of a slot."""
        child = start(slot, program, stats, options)
        self.children[child.pid] = child
        self._turns.watch(child.channel.sock, partial(self._heard, child))
        return child

    def workers(self) -> list[Child]:
        """Return all workers, those that drain included."""
        return [child for child in self.children.values() if child.slot is not None]

    def send(self, child: Child, message: Message, fds: Sequence[int] = ()) -> None:
        """Send `message` to a child; one that reads nothing is killed."""
        try:
            child.channel.send(message, fds)
        except BlockingIOError:
            self._say("error", f"{child.name} (pid {child.pid}) reads no messages and is killed")
            self.kill(child)
        except OSError:
            pass  # it is dead or hung up; its end is noticed by waitpid

    def kill(self, child: Child) -> None:
        """End a child at once."""
        if child.pid in self.children:  # so it was not reaped, and the pid is still its own
            os.kill(child.pid, signal.SIGKILL)

    def retire(self, control: Child) -> None:
        """Have control end: it does when its channel does."""
        control.leaving = True
        self.hang_up(control)
        self._turns.after(_RETIRE_SECONDS, partial(self.kill, control))

    def hang_up(self, child: Child) -> None:
        """Close the channel to a child."""
        if child.channel.fileno() >= 0:
            self._turns.unwatch(child.channel.sock)
            child.channel.close()

    def reap(self) -> Iterator[tuple[int, Child | None, int]]:
        """Yield every dead process, its child, and its exit code or the negative signal; no child is an adopted one."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            child = self.children.pop(pid, None)
            if child:
                self.hang_up(child)
            yield pid, child, os.waitstatus_to_exitcode(status)
