"""A supervisor's relations to the one before it and the one after it; `handover` has what they say to each other."""

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from splitproxy import handover
from splitproxy.channel import Channel
from splitproxy.children import Child
from splitproxy.listening import Listeners
from splitproxy.systemd import Notifier
from splitproxy.turns import Turns

_FORCE_SECONDS: Final = 30.0
"""How long a successor that is not wanted may take to end."""
SERVING: Final = "Serving"
"""What the service manager shows while all is well."""


@dataclass(frozen=True)
class House:
    """What a succession asks of its supervisor."""

    memory: Callable[[], tuple[int, list[int]]]
    """Return the memory file and the slots that workers write."""
    retire_control: Callable[[], bool]
    """Have control end; say whether there is one. `hand_over` is called at its end."""
    resume: Callable[[], None]
    """Start control again."""
    leave: Callable[[], None]
    """Finish all requests and exit."""


class Succession:
    """At most one predecessor and one successor."""

    def __init__(
        self, turns: Turns, say: Callable[[str, str], None], left: handover.Inheritance | None, notifier: Notifier
    ) -> None:
        """`left` is what the predecessor left."""
        self._turns, self._say, self._notifier = turns, say, notifier
        self._before: Channel | None = None
        self._after: Child | None = None
        self._same_layout = False
        self._serves = False
        self.reserved: list[int] = []
        """Slots that the predecessor's workers still write."""
        if left:
            self._before = left.channel
            turns.watch(left.channel.sock, self._heard_predecessor)
            self.reserved = left.slots if left.memory is not None else []

    @property
    def unproven(self) -> bool:
        """Say whether a predecessor serves and will go on if we fail."""
        return self._before is not None and not self._serves

    @property
    def under_way(self) -> bool:
        """Say whether a successor is being made ready: there is no control of ours meanwhile."""
        return self._after is not None

    # --- after another ------------------------------------------------------------------------------------------------
    def ready(self, listeners: Listeners) -> None:
        """Serve alone from now on."""
        self._serves = True
        held = listeners.own()
        if self._before:
            self._before.send({"type": "ready", "held": held})
        else:
            self._notifier.ready(SERVING)

    def _heard_predecessor(self) -> None:
        assert self._before is not None
        received = self._before.receive()
        if self._serves:  # it has told the service manager, or died
            self._notifier.speak()
            self._notifier.ready(SERVING)
        if received is None:
            self._turns.unwatch(self._before.sock)
            self._before.close()
            self._before, self.reserved = None, []

    # --- before another -----------------------------------------------------------------------------------------------
    def upgrade(self, listeners: Listeners, house: House) -> None:
        """Start the command line anew and let that program take over, once it serves."""
        if not self._serves or self._before or self._after:
            self._say("error", "no upgrade now: this program does not serve yet, or another upgrade is under way")
            return
        if os.getpid() == 1:
            self._say("error", "no upgrade: a container ends with its process 1; start a new container instead")
            return
        self._say("info", "upgrading: the new program starts")
        self._notifier.status("Upgrading")
        self._listeners, self._house = listeners, house
        try:
            self._after = child = handover.start(self._notifier.environment())
        except OSError as error:
            self._say("error", f"not upgraded: the new program cannot be started: {error}")
            return
        self._turns.watch(child.channel.sock, partial(self._heard_successor, child))
        self._turns.after(handover.READY_SECONDS, partial(self._lose_hope, child))

    def _heard_successor(self, child: Child) -> None:
        received = child.channel.receive()
        if received is None:
            self._hang_up(child)  # its end follows, and is noticed by waitpid
            return
        message, _ = received
        if message["type"] == "ready":
            self._notifier.main_process(child.pid)
            try:
                child.channel.send({"type": "yours"})
            except OSError:  # it died right now
                self._notifier.main_process(os.getpid())
                return
            self._notifier.hush()
            for address, slot in message["held"]:
                self._listeners.give_up(address, slot)
            child.leaving = True
            self._say("info", f"upgraded: process {child.pid} serves from now on; this one finishes its requests")
            self._house.leave()
            return
        self._same_layout = message["layout"] == handover.layout()
        # Two controls at a time would contend for the admin address and for the rollouts.
        if not self._house.retire_control():
            self.hand_over()

    def hand_over(self) -> None:
        """Give the successor everything: control has ended."""
        assert self._after is not None
        memory, slots = self._house.memory()
        shared = (memory, slots) if self._same_layout and handover.room(slots) else None
        try:
            handover.give(self._after.channel, self._listeners.give(), self._listeners.opened, shared)
        except OSError as error:
            self._say("error", f"the new program takes nothing over: {error}")
            self.dismiss()

    def _lose_hope(self, child: Child) -> None:
        if self._after is child and not child.leaving:
            self._say("error", f"the new program (pid {child.pid}) was not ready in time and is stopped")
            self.dismiss()

    def dismiss(self) -> None:
        """Have a successor end that does not serve alone yet: what clients have there is finished."""
        if self._after and not self._after.leaving:
            os.kill(self._after.pid, signal.SIGTERM)
            self._turns.after(_FORCE_SECONDS, partial(self._force, self._after))

    def _force(self, child: Child) -> None:
        if self._after is child:
            os.kill(child.pid, signal.SIGKILL)

    def reaped(self, pid: int, code: int, *, stopping: bool) -> None:
        """Note the end of a process that is none of the children; if it was the successor, serve on."""
        child = self._after
        if child is None or child.pid != pid:
            return
        self._hang_up(child)
        self._after = None
        if not (child.leaving or stopping):
            self._say("error", f"not upgraded: the new program ended with exit code {code}; this one serves on")
            self._notifier.ready(SERVING)
            self._house.resume()

    def _hang_up(self, child: Child) -> None:
        if child.channel.fileno() >= 0:
            self._turns.unwatch(child.channel.sock)
            child.channel.close()
