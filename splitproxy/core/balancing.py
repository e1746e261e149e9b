"""Which endpoint of an upstream: those in use at all, then round robin, random, least request, hash.

A balancer is made for one list of endpoints and thrown away with it. Chance comes in as `point`, so that equal calls on
equal balancers give equal answers.
"""

from bisect import bisect_right
from collections.abc import Sequence
from hashlib import blake2b
from heapq import heapify, heapreplace
from itertools import accumulate
from math import log
from typing import Final, Generic, Protocol, TypeVar


class Endpoint(Protocol):
    """What balancing needs of an endpoint."""

    @property
    def active(self) -> int:
        """Requests in flight."""

    @property
    def weight(self) -> float:
        """Its part beside the others' weights; 0 takes none."""

    @property
    def name(self) -> bytes:
        """Its identity, the same in every process: what `hash` goes by."""

    @property
    def usable(self) -> bool:
        """Whether its health lets it be used."""


E = TypeVar("E", bound=Endpoint)
E_co = TypeVar("E_co", bound=Endpoint, covariant=True)


class Balancer(Protocol[E_co]):
    """A policy at work on a list of endpoints."""

    def pick(self, point: float, key: bytes) -> E_co:
        """Return an endpoint; `point` is random in [0, 1), `key` identifies the client or is empty."""


class _Only(Generic[E]):
    __slots__ = ("_endpoint",)

    def __init__(self, endpoints: Sequence[E]) -> None:
        self._endpoint = endpoints[0]

    def pick(self, point: float, key: bytes) -> E:
        return self._endpoint


class _RoundRobin(Generic[E]):
    """In turn. Every worker starts at a place of its own, lest all of them begin with the first endpoint."""

    __slots__ = ("_endpoints", "_next")

    def __init__(self, endpoints: Sequence[E]) -> None:
        self._endpoints = tuple(endpoints)
        self._next = -1

    def pick(self, point: float, key: bytes) -> E:
        at = self._next
        if at < 0:
            at = int(point * len(self._endpoints))
        self._next = at + 1 if at + 1 < len(self._endpoints) else 0
        return self._endpoints[at]


class _WeightedRoundRobin(Generic[E]):
    """Earliest deadline first: an endpoint of weight w is due every 1/w, so turns interleave as evenly as they can."""

    __slots__ = ("_endpoints", "_queue")

    def __init__(self, endpoints: Sequence[E]) -> None:
        self._endpoints = tuple(endpoints)
        self._queue: list[tuple[float, int]] = []

    def pick(self, point: float, key: bytes) -> E:
        queue = self._queue
        if not queue:
            queue += [
                # The golden ratio spreads the first deadlines over each endpoint's period, wherever `point` begins.
                ((point + index * 0.618_033_988_749_895) % 1.0 / endpoint.weight, index)
                for index, endpoint in enumerate(self._endpoints)
            ]
            heapify(queue)
        due, index = queue[0]
        endpoint = self._endpoints[index]
        heapreplace(queue, (due + 1.0 / endpoint.weight, index))
        return endpoint


class _Random(Generic[E]):
    __slots__ = ("_bounds", "_endpoints", "_total")

    def __init__(self, endpoints: Sequence[E]) -> None:
        self._endpoints = tuple(endpoints)
        self._bounds = list(accumulate(endpoint.weight for endpoint in endpoints))
        self._total = self._bounds[-1]

    def pick(self, point: float, key: bytes) -> E:
        return self._endpoints[bisect_right(self._bounds, point * self._total)]


class _LeastRequest(Generic[E]):
    """The better of two: one drawn by weight, one of the others; idle endpoints are thus used by weight."""

    __slots__ = ("_bounds", "_endpoints", "_total")

    def __init__(self, endpoints: Sequence[E]) -> None:
        self._endpoints = tuple(endpoints)
        self._bounds = list(accumulate(endpoint.weight for endpoint in endpoints))
        self._total = self._bounds[-1]

    def pick(self, point: float, key: bytes) -> E:
        place = point * self._total
        first = bisect_right(self._bounds, place)
        # What the first draw leaves of `point` is as random as `point` was: it draws the second.
        second = int((place - int(place)) * (len(self._endpoints) - 1))
        one = self._endpoints[first]
        other = self._endpoints[second + 1 if second >= first else second]
        return other if other.active * one.weight < one.active * other.weight else one


_MASK: Final = (1 << 64) - 1
_LOG_RANGE: Final = log(1 << 64)


class _Hash(Generic[E]):
    """Weighted rendezvous: a key stays where it is while its endpoint does, whoever else comes or goes."""

    __slots__ = ("_seeded", "_unkeyed")

    def __init__(self, endpoints: Sequence[E]) -> None:
        self._seeded = [(_number(endpoint.name), endpoint.weight, endpoint) for endpoint in endpoints]
        self._unkeyed = _Random(endpoints)

    def pick(self, point: float, key: bytes) -> E:
        if not key:
            return self._unkeyed.pick(point, key)
        number = _number(key)
        best, least = self._seeded[0][2], float("inf")
        for seed, weight, endpoint in self._seeded:
            score = (_LOG_RANGE - log(_mixed(number ^ seed) + 1)) / weight  # -ln(u) / w with u in (0, 1]
            if score < least:
                best, least = endpoint, score
        return best


def _number(data: bytes) -> int:
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "big")


def _mixed(number: int) -> int:
    """Return a 64-bit number in which every bit of `number` bears on every bit (the finaliser of splitmix64)."""
    number = (number ^ number >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    number = (number ^ number >> 27) * 0x94D049BB133111EB & _MASK
    return number ^ number >> 31


def in_use(endpoints: Sequence[E], panic_percent: float) -> list[E]:
    """Return those of `endpoints` that requests may go to: the usable ones, or all of them in a panic.

    Where usable ones are left, but fewer than `panic_percent` of all, they could not carry the load alone: then health
    counts for nothing. Where not a single one is left there is nothing to spare, and the answer is an empty list.
    """
    usable = [endpoint for endpoint in endpoints if endpoint.usable]
    panic = 0 < len(usable) * 100 < panic_percent * len(endpoints)
    return list(endpoints) if panic else usable


def make(policy: str, endpoints: Sequence[E]) -> Balancer[E]:
    """Return a balancer over those of `endpoints` that have a weight; there is at least one."""
    endpoints = [endpoint for endpoint in endpoints if endpoint.weight > 0]
    if not endpoints:
        raise ValueError("nothing to balance over")
    if len(endpoints) == 1:
        return _Only(endpoints)
    match policy:
        case "roundRobin":
            equal = len({endpoint.weight for endpoint in endpoints}) == 1
            return _RoundRobin(endpoints) if equal else _WeightedRoundRobin(endpoints)
        case "random":
            return _Random(endpoints)
        case "leastRequest":
            return _LeastRequest(endpoints)
        case "hash":
            return _Hash(endpoints)
        case _:
            raise ValueError(f"unknown load balancing policy {policy!r}")
