"""Upgraded connections that end when a rollout takes its canary's share away, where it is configured so.

A share is one cell of shared memory. Only those cells are looked at, once a tick, whose rollouts have such connections.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from splitproxy.core.owned import LiveSplit
    from splitproxy.core.routing import Rule
    from splitproxy.core.splitting import Backend
    from splitproxy.proxy.tunnel import Tunnel


class Recalls:
    """The tunnels of a worker that lead to canaries and may be called back."""

    __slots__ = ("_gone", "tunnels")

    def __init__(self) -> None:
        self.tunnels: dict[LiveSplit, set[Tunnel]] = {}
        """Under the split that led them there, be it of a snapshot that is no longer in force."""
        self._gone: set[LiveSplit] = set()
        """Splits whose canary had nothing at the last look."""

    def take(self, tunnel: "Tunnel", rule: "Rule", backend: "Backend") -> None:
        """Take note of a tunnel to `backend`, if it is one that may be called back."""
        split = rule.live
        if split is not None and split.recalls(backend):
            tunnel.recall = self.tunnels.setdefault(split, set())
            tunnel.recall.add(tunnel)

    def look(self) -> None:
        """Close the tunnels of every canary that has lost its share.

        Two looks must agree: a slot that is given back has an empty cell a moment before it has no owner.
        """
        gone = {split for split in self.tunnels if split.withdrawn}
        for split in gone & self._gone:
            tunnels = self.tunnels.pop(split)
            if split.present:  # else the rollout is no longer what it was: a change of the file is no rollback
                for tunnel in list(tunnels):
                    tunnel.close()
        for split in [split for split, tunnels in self.tunnels.items() if not tunnels]:
            del self.tunnels[split]
        self._gone = gone
