"""One program after another without a lost connection: a new supervisor takes over the old one's listening sockets.

They talk over a channel that the old one makes (`splitproxy.channel`), whose end the new one finds in its environment:

    new -> old   {"type": "hello", "layout": text}: it runs; `layout` says how it understands the shared memory
    old -> new   {"type": "sockets", "address": asked, "slots": [...]} + [a socket for each], for every listener
                 {"type": "opened", "names": [...]} + [a socket for each]: those of the service manager
                 {"type": "memory", "slots": [...]} + [memfd]: counters and live shares, with the slots that are taken;
                 only where the layout is the same and leaves room
                 {"type": "all"}: control of the old program has ended, so the new one can be started
    new -> old   {"type": "ready", "held": [[asked, slot], ...]}: all its workers serve, and go on with these sockets
    old -> new   {"type": "yours"}: the service manager has been told of the new process

Until `ready` the old workers serve. If the new program ends before it, or is not ready in time, the old one starts its
control again and nothing has happened. A socket that both have is closed by neither: what its queue holds is accepted
by whoever looks first.
"""

import hashlib
import os
import socket
import sys
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Final

from splitproxy.channel import Channel, pair
from splitproxy.children import Child
from splitproxy.core import live, pairs, stats, tallies
from splitproxy.errors import SplitProxyError

VARIABLE: Final = "SPLITPROXY_HANDOVER"
"""Names the descriptor of the channel to the predecessor."""
READY_SECONDS: Final = 60.0
"""How long a new program may take to serve, before the old one gives it up."""
_INHERIT_SECONDS: Final = 20.0


class HandoverError(SplitProxyError):
    """The predecessor did not hand over everything."""


def layout() -> str:
    """Return a digest of how this program lays out the shared memory: any change of a constant changes it."""
    constants = [
        (module.__name__, name, value)
        for module in (stats, live, tallies, pairs)
        for name, value in sorted(vars(module).items())
        if name.isupper() and isinstance(value, int | str | tuple)
    ]
    return hashlib.sha256(repr(constants).encode()).hexdigest()


# --- the old program -----------------------------------------------------------------------------------------------
def start(environment: Mapping[str, str]) -> Child:
    """Start the same command line anew, with `environment` added to ours, and return the process and our channel."""
    ours, theirs = pair()
    ours.setblocking(False)
    os.set_inheritable(theirs.fileno(), True)
    added = {**environment, VARIABLE: str(theirs.fileno())}
    pid = os.posix_spawn(sys.executable, sys.orig_argv, {**os.environ, **added})
    theirs.close()
    return Child(pid, Channel(ours), None)


def give(
    channel: Channel,
    listeners: Iterable[tuple[str, dict[int, socket.socket]]],
    opened: list[tuple[str, socket.socket]],
    memory: tuple[int, list[int]] | None,
) -> None:
    """Send all that a successor goes on with; `memory` is the memory file and the slots taken. Raises OSError."""
    for address, sockets in listeners:
        channel.send(
            {"type": "sockets", "address": address, "slots": list(sockets)},
            [sock.fileno() for sock in sockets.values()],
        )
    if opened:
        names = [name for name, _ in opened]
        channel.send({"type": "opened", "names": names}, [sock.fileno() for _, sock in opened])
    if memory:
        channel.send({"type": "memory", "slots": memory[1]}, [memory[0]])
    channel.send({"type": "all"})


def room(slots: list[int]) -> bool:
    """Say whether as many workers again find free slots beside `slots`."""
    return 2 * len(slots) <= stats.MAX_WORKERS


# --- the new program -----------------------------------------------------------------------------------------------
@dataclass
class Inheritance:
    """What a predecessor left."""

    channel: Channel
    listeners: dict[str, dict[int, socket.socket]] = field(default_factory=dict)
    opened: list[tuple[str, socket.socket]] = field(default_factory=list)
    memory: int | None = None
    slots: list[int] = field(default_factory=list)
    """Slots of `memory` that the predecessor's workers still write."""


def inherit(environment: MutableMapping[str, str]) -> Inheritance | None:
    """Receive everything from the predecessor that `environment` names, and forget it there; None without one.

    Raises HandoverError.
    """
    descriptor = environment.pop(VARIABLE, None)
    if descriptor is None:
        return None
    found = Inheritance(Channel.from_fd(int(descriptor)))
    os.set_inheritable(found.channel.fileno(), False)
    found.channel.sock.settimeout(_INHERIT_SECONDS)
    try:
        found.channel.send({"type": "hello", "layout": layout()})
        while _received(found, found.channel.receive()):
            pass
    except OSError as error:
        found.channel.close()
        raise HandoverError(f"the program before this one did not hand over: {error}") from error
    found.channel.sock.setblocking(False)
    return found


def _received(found: Inheritance, received: tuple[dict[str, Any], list[int]] | None) -> bool:
    """Take one message in; say whether more are to come."""
    if received is None:
        raise ConnectionResetError("it ended meanwhile")
    message, descriptors = received
    match message["type"]:
        case "sockets":
            sockets = (socket.socket(fileno=descriptor) for descriptor in descriptors)
            found.listeners[message["address"]] = dict(zip(message["slots"], sockets, strict=True))
        case "opened":
            sockets = (socket.socket(fileno=descriptor) for descriptor in descriptors)
            found.opened = list(zip(message["names"], sockets, strict=True))
        case "memory":
            (found.memory,) = descriptors
            found.slots = message["slots"]
        case "all":
            return False
        case unknown:
            raise AssertionError(unknown)
    return True
