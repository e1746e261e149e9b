"""How endpoints stand in the eyes of all workers, and what follows from it: events, and shares that are not to be had.

Each worker judges for itself (`proxy/probing.py`, `proxy/pool.py`) and says so in its region.
"""

import asyncio
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from splitproxy.control.loading import Share
from splitproxy.control.signals import Signals
from splitproxy.core import stats
from splitproxy.core.stats import Key

if TYPE_CHECKING:
    from splitproxy.control.state import State

_LOOK_SECONDS = 1.0
_FIRST, _LAST = stats.ENDPOINT_NAMED, stats.ENDPOINT_PANIC


class Standing(NamedTuple):
    """How many workers say it of one endpoint; in the order of the cells."""

    named: int
    """It is one of the upstream's."""
    unhealthy: int
    ejected: int
    in_use: int
    """Requests may go to it."""
    panic: int
    """They may only because too few others are left."""

    @property
    def healthy(self) -> bool:
        """Whether no worker's probes say otherwise."""
        return not self.unhealthy

    def to_dict(self) -> dict[str, Any]:
        """Return it as the API shows it; `workers` says how many are of that opinion."""
        return {
            "healthy": self.healthy,
            "ejected": self.ejected > 0,
            "inUse": self.in_use > 0,
            "panic": self.panic > 0,
            "workers": {"all": self.named, "unhealthy": self.unhealthy, "ejected": self.ejected, "inUse": self.in_use},
        }


def standing(signals: Signals, key: Key) -> Standing:
    """Return how the endpoint of `key` stands; nobody names it: it is there no more."""
    return Standing(*(signals.gauge((key,), cell) for cell in range(_FIRST, _LAST + 1)))


def standings(signals: Signals, upstreams: Collection[str] | None = None) -> dict[tuple[str, str], Standing]:
    """Return (upstream, address) -> its standing for every endpoint that there is, or for those of `upstreams`."""
    found = {(key[1], key[2]): standing(signals, key) for key in signals.endpoints(upstreams) if not key[3]}
    return {place: one for place, one in found.items() if one.named}


def usable(signals: Signals, upstream: str) -> bool:
    """Return whether requests may go to any endpoint of `upstream`, or nobody has said anything about it yet."""
    found = standings(signals, (upstream,))
    return not found or any(one.in_use for one in found.values())


# --- shares ----------------------------------------------------------------------------------------------------------
def in_force(shares: list[Share], failovers: Iterable[Iterable[Any]], signals: Signals) -> list[Share]:
    """Return `shares` as they are while canaries without an endpoint in use are left out of their draws.

    `failovers` are the rules where that is done, each as route, rule and whether a rollout owns it: there the primary
    has the canary's share, elsewhere all others have it in proportion.
    """
    owned = {(route, rule): owns for route, rule, owns in failovers}
    canaries = {share.upstream for share in shares if share.role == "canary" and share[:2] in owned}
    if not canaries:
        return shares
    served = {upstream for (upstream, _), one in standings(signals, canaries).items() if one.in_use}
    lost: dict[tuple[str, str], float] = {}
    for share in shares:
        if share.role == "canary" and share[:2] in owned and share.upstream not in served:
            lost[share[:2]] = lost.get(share[:2], 0.0) + share.percent
    return [_without(share, lost, owned, served) for share in shares] if lost else shares


def _without(
    share: Share, lost: Mapping[tuple[str, str], float], owned: Mapping[tuple[str, str], bool], served: set[str]
) -> Share:
    gone = lost.get(share[:2])
    if not gone:
        return share
    if share.role == "canary" and share.upstream not in served:
        return share._replace(percent=0.0)
    if owned[share[:2]]:
        return share._replace(percent=share.percent + gone) if share.role == "primary" else share
    return share._replace(percent=share.percent * 100.0 / (100.0 - gone))


# --- events ----------------------------------------------------------------------------------------------------------
def changes(
    before: Mapping[tuple[str, str], Standing], after: Mapping[tuple[str, str], Standing]
) -> list[dict[str, Any]]:
    """Return an event for each endpoint that is there before and after and stands otherwise."""
    return [
        {"upstream": upstream, "address": address, **one.to_dict()}
        for (upstream, address), one in after.items()
        if (known := before.get((upstream, address))) is not None and _shown(known) != _shown(one)
    ]


def _shown(one: Standing) -> tuple[bool, bool, bool]:
    return one.healthy, one.ejected > 0, one.in_use > 0


async def follow(state: "State") -> None:
    """Publish an `endpoint` event whenever one of an upstream that is watched stands otherwise; for ever."""
    before: dict[tuple[str, str], Standing] = {}
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        watched = state.running.health.get("watched", ()) if state.running else ()
        if not watched or not state.publisher.serving():
            continue
        after = standings(state.signals, watched)
        for event in changes(before, after):
            state.events.publish("endpoint", event)
        before = after
