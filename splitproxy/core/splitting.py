"""Which upstream of a rule a request goes to: override, then key, then chance.

The hash of a key is BLAKE2b with an 8-byte digest over `salt`, a zero byte and the key, read as a big-endian number h;
the salt is `route/rule`. Of two upstreams the canary owns the segment [0, share) of h / 2^64 and the primary the rest,
so a share that grows moves clients to the canary and never one back. Of more than two, each upstream continues the hash
with a zero byte and its name (its n-th entry in the rule, n > 1, with `name#n`), giving u; the least -ln(u) / weight
wins, so a change of one weight moves only clients from or to that upstream.

The split of a rule that a rollout owns is compiled as it is at rest: all that its primary and its canary have goes to
the primary. What the rollout makes of it, `core/owned.py` adds.
"""

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator
from copy import copy
from hashlib import blake2b
from itertools import accumulate
from math import log
from typing import Any, Final

from splitproxy.core.comparison import Comparison
from splitproxy.core.filters import (
    NO_FILTERS,
    Fault,
    Filters,
    HeaderModifier,
    Plain,
    Redirect,
    Rewrite,
    compile_filters,
)
from splitproxy.core.matching import RequestView
from splitproxy.core.stats import SERIES, Key
from splitproxy.core.tallies import Coin

UNITS: Final = 100
"""Weights have two decimals: they are counted in hundredths, hence exactly."""
_RANGE: Final = 1 << 64
_LOG_RANGE: Final = log(_RANGE)


class Backend:
    """One upstream's place in a rule: its weight, its filters, and where its signals are counted."""

    __slots__ = (
        *("coin", "fault", "key", "plain", "pool", "redirect", "request_modifier", "response_modifier", "rewrite"),
        *("role", "series", "units", "upstream"),
    )

    upstream: str
    units: int
    """Weight in hundredths."""
    role: str
    """primary | canary | mirror; none where a rollout owns the rule and this is neither its primary nor its canary."""
    key: Key
    request_modifier: HeaderModifier | None
    response_modifier: HeaderModifier | None
    rewrite: Rewrite | None
    redirect: Redirect | None
    fault: Fault | None
    series: Any
    """Leaf, filled by the worker when first used: where its signals are counted; None before."""
    pool: Any
    """Leaf, filled by the worker: what its connections come from; None before."""
    coin: Coin | None
    """How requests came to this side, where their results are compared with those of the other; None: they are not."""
    plain: "Backend"
    """The same without a coin; itself where it has none."""

    def __init__(
        self, series: tuple[str, str], upstream: str, role: str, units: int, filters: Filters = NO_FILTERS
    ) -> None:
        self.upstream, self.units, self.role = upstream, units, role
        self.key = (SERIES, *series, upstream, role)
        self.request_modifier, self.response_modifier, self.rewrite, self.redirect, _, self.fault = filters
        self.series = None
        self.pool = None
        self.coin = None
        self.plain = self

    def drawn(self, coin: Coin) -> "Backend":
        """Return this backend for requests that come to it by `coin`."""
        other = copy(self)
        other.series, other.pool, other.coin = None, None, coin
        return other

    def __repr__(self) -> str:
        return f"<Backend {'/'.join(self.key[1:])} weight={self.weight:g}>"

    @property
    def weight(self) -> float:
        """The weight as configured."""
        return self.units / UNITS


class Mirror:
    """Where copies of a rule's requests go, and how many."""

    __slots__ = (
        *("all_methods", "backend", "comparison", "max_body_bytes", "max_in_flight", "percent", "timeout", "twin"),
    )

    percent: float
    """Of the requests; a leaf where a rollout says how many."""
    comparison: Comparison | None
    """How the copies' answers are compared with those of the originals; None: they are not."""
    twin: "Mirror | None"
    """Where the noise twin gets copies of the same requests; None: there is none."""

    def __init__(self, series: tuple[str, str], plain: Plain) -> None:
        self.backend = Backend(series, plain["backendRef"]["name"], "mirror", 0)
        self.percent = plain["percent"]
        self.max_body_bytes: int = plain["maxBodyBytes"]
        self.max_in_flight: int = plain["maxInFlight"]
        self.timeout: float = plain["timeout"]
        self.all_methods: bool = plain["methods"] == "all"
        self.comparison = self.twin = None


Choice = tuple[Backend | None, str]
"""The backend chosen (None: the rule has no usable weight) and the reason, one of `stats.REASONS`."""
Reader = Callable[[RequestView, bytes], bytes | None]
"""Takes a value out of a request; the second argument is the client's address."""
Override = tuple[Reader, bytes, Backend]
"""A request with this value goes to this backend."""
NOBODY: Final[Choice] = (None, "match")


class Split:
    """The backends of a rule and how requests are divided among them."""

    __slots__ = (
        *("_bounds", "_fixed", "_hasher", "_key", "_limit", "_ordered", "_rendezvous"),
        *("backends", "issue", "overrides", "single"),
    )

    backends: tuple[Backend, ...]
    """In the order of the file, those without weight included."""
    single: Backend | None
    """The only backend `choose` could return, with no cookie to issue: then there is no need to call it."""
    issue: bytes | None
    """Name of the cookie to give to a client that comes without it; its new value is `fresh` in `choose`."""
    overrides: tuple[Override, ...]

    def __init__(
        self,
        backends: tuple[Backend, ...],
        salt: bytes,
        key: Reader | None = None,
        issue: bytes | None = None,
        overrides: tuple[Override, ...] = (),
        *,
        owned: bool = False,
    ) -> None:
        """`owned`: by a rollout, so that no backend is the only one for good."""
        self.backends, self.issue, self._key = backends, issue, key
        self.overrides = overrides
        usable = [backend for backend in backends if backend.units]
        self._fixed = None if len(usable) > 1 else (usable[0], "match") if usable else NOBODY
        only = len(usable) == 1 and not overrides and issue is None and not owned
        self.single = usable[0] if only else None
        # Of two backends the one that is not the primary has the first segment.
        self._ordered = backends[::-1] if len(backends) == 2 and backends[0].role == "primary" else backends
        total = sum(backend.units for backend in backends)
        self._bounds = tuple(bound / total for bound in accumulate(b.units for b in self._ordered)) if total else ()
        self._hasher = blake2b(salt + b"\0", digest_size=8) if key is not None else None
        # h * total < units * 2^64 as one comparison, exact: rounded up.
        self._limit = -(-self._ordered[0].units * _RANGE // total) if total else 0
        self._rendezvous = () if len(backends) == 2 else tuple(_contenders(backends))

    def choose(self, request: RequestView, address: bytes, point: float, fresh: bytes | None = None) -> Choice:
        """Return where this request goes, and why.

        `address` is the client's, `point` random in [0, 1), `fresh` the id just made for a client without the cookie.
        """
        for read, value, backend in self.overrides:
            if read(request, address) == value:
                return backend, "override"
        if self._fixed is not None:
            return self._fixed
        if self._hasher is not None and (key := self.key(request, address) or fresh):
            return self.by_hash(key), "key"
        return self._ordered[bisect_right(self._bounds, point)], "random"

    def key(self, request: RequestView, address: bytes) -> bytes | None:
        """Return what identifies the client to this split; None or empty: nothing does."""
        return None if self._key is None else self._key(request, address)

    def cookie(self, fresh: bytes) -> bytes:
        """Return the Set-Cookie line that gives a client the id `fresh`, where one is to be issued."""
        assert self.issue is not None
        return b"Set-Cookie: %b=%b; Path=/; HttpOnly; SameSite=Lax\r\n" % (self.issue, fresh)

    def by_hash(self, key: bytes) -> Backend:
        """Return where the client with this key goes, when more than one backend has a weight."""
        assert self._hasher is not None
        hasher = self._hasher.copy()
        hasher.update(key)
        if not self._rendezvous:
            return self._ordered[0 if int.from_bytes(hasher.digest(), "big") < self._limit else 1]
        return self._nearest(hasher)

    def _nearest(self, hasher: blake2b, left_out: Collection[Backend] = ()) -> Backend:
        best, least = self._ordered[0], float("inf")
        for label, backend in self._rendezvous:
            if backend in left_out:
                continue
            own = hasher.copy()
            own.update(label)
            number = int.from_bytes(own.digest(), "big") + 1
            score = (_LOG_RANGE - log(number)) / backend.units  # -ln(u) / weight with u in (0, 1]
            if score < least:
                best, least = backend, score
        return best

    @property
    def leading(self) -> Backend | None:
        """The primary; None: no backend has a weight."""
        return next((backend for backend in self.backends if backend.role == "primary"), None)

    def redraw(self, left_out: Collection[Backend], key: bytes | None, point: float) -> Backend | None:
        """Return where a request goes while `left_out` are not to be had; None: nobody is left.

        Only clients of those that are left out move, and the others have their shares in proportion.
        """
        left = [backend for backend in self._ordered if backend.units and backend not in left_out]
        if len(left) < 2:
            return left[0] if left else None
        if key and self._hasher is not None:
            hasher = self._hasher.copy()
            hasher.update(key)
            return self._nearest(hasher, left_out)
        bounds = tuple(accumulate(backend.units for backend in left))
        return left[bisect_right(bounds, point * bounds[-1])]

    def shares(self) -> list[tuple[Backend, float]]:
        """Return each backend's configured share in percent."""
        total = sum(backend.units for backend in self.backends)
        return [(backend, 100.0 * backend.units / total if total else 0.0) for backend in self.backends]


def _contenders(backends: tuple[Backend, ...]) -> Iterator[tuple[bytes, Backend]]:
    """Yield each backend that has a weight, with what its hash goes on with."""
    seen: dict[str, int] = {}
    for backend in backends:
        count = seen[backend.upstream] = seen.get(backend.upstream, 0) + 1
        if backend.units:
            name = backend.upstream if count == 1 else f"{backend.upstream}#{count}"
            yield b"\0" + name.encode(), backend


def compile_split(series: tuple[str, str], plain: Plain, prefix: str) -> Split:
    """Compile `backendRefs` and `split` of the plain rule `plain`, at rest where a rollout owns it.

    `series` is (route, rule).
    """
    owner = plain.get("rollout")
    backends = tuple(
        Backend(series, ref["name"], role, units, compile_filters(ref["filters"], prefix))
        for ref, (role, units) in zip(plain["backendRefs"], _parts(plain["backendRefs"], owner), strict=True)
    )
    split = plain["split"]
    key = split["key"]
    by_name = {backend.upstream: backend for backend in reversed(backends)}
    overrides = []
    for item in split["overrides"]:
        name = item["upstream"]
        if name not in by_name:  # reached by the override alone, never by weight
            by_name[name] = Backend(series, name, "none" if owner else "canary", 0)
        overrides.append((_reader(item), item["value"].encode(), by_name[name]))
    return Split(
        backends,
        "/".join(series).encode(),
        None if key is None else _reader(key),
        key["cookie"].encode() if key is not None and key.get("issue") else None,
        tuple(overrides),
        owned=owner is not None,
    )


def _parts(refs: list[Plain], owner: Plain | None) -> Iterator[tuple[str, int]]:
    """Yield role and weight of each backendRef."""
    weights = [round(ref["weight"] * UNITS) for ref in refs]
    if owner is None:
        role = "primary"
        for units in weights:
            yield (role, units) if units else ("canary", 0)
            if units:
                role = "canary"
        return
    roles = {owner["canary"]: "canary", owner["primary"]: "primary"}
    pair = sum(units for ref, units in zip(refs, weights, strict=True) if ref["name"] in roles)
    for ref, units in zip(refs, weights, strict=True):
        role = roles.get(ref["name"], "none")
        if role == "primary":
            yield role, pair
            pair = 0  # one named twice has all of it in its first place
        else:
            yield role, 0 if role == "canary" else units


def _reader(plain: Plain) -> Reader:
    """Return what takes the value out of a request that `plain` (a key or an override) names."""
    if "cookie" in plain:
        cookie = plain["cookie"].encode()
        return lambda request, _: request.cookie(cookie)
    if "header" in plain:
        field = plain["header"].lower().encode()
        return lambda request, _: request.field(field)
    if "query" in plain:
        param = plain["query"].encode()
        return lambda request, _: request.param(param)
    return lambda _, address: address
