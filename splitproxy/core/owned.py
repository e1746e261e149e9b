"""The split of a rule that a rollout owns: the canary's share is read from shared memory for every request.

The primary and the canary have together what the file gives to both; the live weight divides that. Other upstreams of
the rule keep their share, and as a share by key also their clients, whatever the rollout does.

Order: override, cohort (`match`), session, key, chance. The hash of a key or of a session's id is that of a split
(`core/splitting.py`), salted with the run's salt as 8 octets: of a whole of 2^64 the canary has the segment from 0 on,
then comes the primary, then for sessions and by chance every other upstream in the order of the file. By key it is
first decided among the other upstreams and the pair, as if there were no rollout.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from hashlib import blake2b
from itertools import accumulate
from typing import Final

from splitproxy.core.affinity import Affinity
from splitproxy.core.comparison import Comparison
from splitproxy.core.filters import Plain, compile_filters
from splitproxy.core.live import EVERYTHING, Area, decode, epoch
from splitproxy.core.matching import Conditions, RequestView, Test
from splitproxy.core.splitting import NOBODY, Backend, Choice, Mirror, Split
from splitproxy.core.tallies import CANARY, PRIMARY, Coin, tolerated, unpack

_RANGE: Final = 1 << 64
_AT_REST: Final = (0, 0, 0, 0)
"""What the slot of a rollout would say that has none."""
_NEVER: Final = -1
"""No cell is like it."""

Placement = tuple[Backend | None, str, bytes]
"""The backend chosen (None: nobody has a weight), the reason, and Set-Cookie lines for the client."""


class _Force:
    """What one cell and one salt mean for one split."""

    __slots__ = (
        *("affinity", "bounds", "canary", "cell", "clients", "cohorts", "fixed", "hasher", "latest", "limit", "limits"),
        *("mark", "ordered", "primary", "salt", "traffic"),
    )

    def __init__(self, split: "LiveSplit", cell: int, salt: int) -> None:
        self.cell, self.salt = cell, salt
        self.traffic = traffic = decode(cell)
        self.canary, self.primary = split.pair(swapped=traffic.swapped)
        self.cohorts: tuple[Test, ...] = tuple(test for cohort in split.cohorts[: traffic.cohorts] for test in cohort)
        parts = [
            (self.canary, split.units * traffic.weight),
            (self.primary, split.units * (EVERYTHING - traffic.weight)),
            *((backend, backend.units * EVERYTHING) for backend in split.others),
        ]
        self.ordered = tuple(backend for backend, _ in parts)
        self.clients = self.ordered
        self.latest = 0
        ends = tuple(accumulate(units for _, units in parts))
        total = ends[-1]
        self.bounds = tuple(end / total for end in ends) if total else ()
        # h * total < end * 2^64 as one comparison, exact: rounded up.
        self.limits = tuple(-(-end * _RANGE // total) for end in ends) if total else ()
        self.limit = -(-traffic.weight * _RANGE // EVERYTHING)
        usable = [backend for backend, units in parts if units]
        self.fixed: Choice | None = None if len(usable) > 1 else (usable[0], "match") if usable else NOBODY
        resting = not traffic.cohorts and traffic.weight == (EVERYTHING if traffic.swapped else 0)
        self.affinity = split.affinity if total and not resting else None
        octets = salt.to_bytes(8, "big")
        self.mark = octets.hex().encode()
        self.hasher = blake2b(octets + b"\0", digest_size=8)
        if 0 < traffic.weight < EVERYTHING and split.units and not traffic.swapped:
            self._toss(split.coins(cell, salt))

    def _toss(self, coins: tuple[Coin, Coin]) -> None:
        """Let requests come to the two sides by coin: each request's own, or its client's."""
        pair = (self.canary, self.primary)
        rest = self.ordered[len(pair) :]
        self.ordered = (*map(Backend.drawn, pair, coins), *rest)
        self.clients = (*(one.drawn(coin._replace(client=True)) for one, coin in zip(pair, coins, strict=True)), *rest)

    def number(self, data: bytes) -> int:
        """Return the hash of a key or an id."""
        hasher = self.hasher.copy()
        hasher.update(data)
        self.latest = int.from_bytes(hasher.digest(), "big")
        return self.latest

    def by_id(self, client: bytes) -> Backend:
        """Return where the client with this session id goes."""
        return self.clients[bisect_right(self.limits, self.number(client))]

    def kept(self, affinity: Affinity, request: RequestView) -> Placement | None:
        """Place a client by its session; None: it has none."""
        found = affinity.found(request, self.mark)
        if found is None:
            return None
        backend = self.by_id(found[0])
        return backend, "session", affinity.kept(request, *found, self.mark, canary=backend.plain is self.canary)

    def begun(self, affinity: Affinity, client: bytes) -> Placement:
        """Place a client that has just got this id."""
        backend = self.by_id(client)
        issued = affinity.issued(client, self.mark, canary=backend.plain is self.canary)
        return backend, "random" if self.fixed is None else "match", issued


class LiveSplit:
    """A split with a live share. It follows the cell; `rest`, the split as it is at rest, never changes."""

    __slots__ = (
        *("_answer", "_area", "_at", "_cells", "_key", "_mirror", "_now", "_pairs", "_recalling", "_settled", "_twins"),
        *("_unfiltered", "affinity", "cohorts", "mirrors", "name", "others", "plain", "primary", "rest", "units"),
    )

    mirrors: tuple[Mirror, ...]
    """What gets copies of requests that go to `primary`, at present."""
    primary: Backend
    """The leaf in force of the upstream that the file calls the primary."""
    plain: bool
    """As `Rule.plain`, at present."""

    def __init__(
        self,
        rest: Split,
        twins: dict[Backend, Backend],
        owner: Plain,
        mirror: Mirror,
        conditions: Conditions,
        area: Area | None,
        *,
        unfiltered: bool,
    ) -> None:
        """Make the split of a rule whose plain `rollout` is `owner`.

        `twins` has for each backend of the pair the one it is while the roles are exchanged. Without an `area`, or a
        slot in it, the rollout is at rest. `unfiltered`: the rule has no filter of its own.
        """
        self.rest, self.name = rest, owner["name"]
        self._twins = twins
        primary = next(backend for backend in rest.backends if backend.upstream == owner["primary"])
        canary = next(backend for backend in rest.backends if backend.upstream == owner["canary"])
        self._pairs = ((canary, primary), (twins[canary], twins[primary]))
        self.units = primary.units
        """What primary and canary have together, in hundredths."""
        self.others = tuple(backend for backend in rest.backends if backend.role == "none" and backend.units)
        """The other upstreams that have a weight."""
        self.affinity = None if owner["affinity"] is None else Affinity(owner["affinity"])
        self.cohorts = tuple(tuple(_test(plain, conditions) for plain in cohort) for cohort in owner["cohorts"])
        """The tests of each; one that a request passes makes it a member."""
        self._mirror, self._unfiltered = mirror, unfiltered
        self._recalling = owner.get("tunnels") == "close"
        self._area, self._key = area, owner["live"]
        slot = None if area is None else area.slot(owner["live"], take=False)
        self._cells: Sequence[int] | memoryview = _AT_REST
        self._at = 0
        if area is not None and slot is not None:
            self._cells, self._at = area.cells, area.place(slot)
        self._answer: Placement = (None, "match", b"")
        self._settled = _NEVER
        """The cell under which every request gets `_answer`."""
        self._follow(self._cells[self._at], self._cells[self._at + 1])

    def pair(self, *, swapped: bool) -> tuple[Backend, Backend]:
        """Return the canary and the primary of the file, each with the role it has."""
        return self._pairs[swapped]

    @property
    def leading(self) -> Backend:
        """The leaf in force of the upstream that has the role of the primary at present."""
        now = self._now
        return now.canary if now.traffic.swapped else now.primary

    # --- the comparison ----------------------------------------------------------------------------------------------
    def coins(self, cell: int, salt: int) -> tuple[Coin, Coin]:
        """Return what requests come to the canary and to the primary by, while `cell` and `salt` are in force."""
        cells, at, number = self._cells, self._at, epoch(cell)
        thresholds = unpack(cells[at + 2], number)
        return (
            Coin(self._key, number, salt, CANARY, False, thresholds, *tolerated(cells[at + 3])),
            Coin(self._key, number, salt, PRIMARY, False, thresholds),
        )

    @property
    def client(self) -> int:
        """The hash of the client that was placed last, where its side hangs on it."""
        return self._now.latest

    @property
    def run(self) -> int:
        """What tells this run of the rollout from others: its salt."""
        return self._cells[self._at + 1]

    # --- what outlasts a share ---------------------------------------------------------------------------------------
    def recalls(self, backend: Backend) -> bool:
        """Return whether an upgraded connection to `backend` that begins now ends when the canary loses its share."""
        return self._recalling and backend.upstream == self._pairs[False][0].upstream and not self.withdrawn

    @property
    def withdrawn(self) -> bool:
        """Whether no request goes to the canary by its share or as a cohort's."""
        traffic = decode(self._cells[self._at])
        return not traffic.weight and not traffic.cohorts

    @property
    def present(self) -> bool:
        """Whether the cell that is followed still is this rollout's."""
        slot = None if self._area is None else self._area.slot(self._key, take=False)
        return self._area is not None and slot is not None and self._area.place(slot) == self._at

    # --- requests ----------------------------------------------------------------------------------------------------
    def membership(self, request: RequestView) -> int | None:
        """Return the first cohort, counted from 0, that the request belongs to; None: none."""
        for number, cohort in enumerate(self.cohorts):
            if any(test(request) for test in cohort):
                return number
        return None

    def _follow(self, cell: int, salt: int) -> _Force:
        """Take over what the cell says now."""
        self._now = now = _Force(self, cell, salt)
        self.primary = now.primary
        traffic = now.traffic
        copied = 0 if traffic.swapped else traffic.mirror
        self._mirror.percent = 100.0 * copied / EVERYTHING
        self.mirrors = (self._mirror,) if copied else ()
        self.plain = self._unfiltered and not copied
        same_for_all = now.fixed is not None and not now.cohorts and now.affinity is None
        if same_for_all and not self.rest.overrides and self.rest.issue is None:
            assert now.fixed is not None
            self._answer, self._settled = (*now.fixed, b""), cell
        else:
            self._settled = _NEVER
        return now

    def place(self, request: RequestView, address: bytes, point: float, mint: Callable[[], bytes]) -> Placement:
        """Return where this request goes, why, and what the client is given.

        `address` is the client's, `point` random in [0, 1), `mint` makes a client id: 32 hexadecimal digits.
        """
        cells, at = self._cells, self._at
        cell = cells[at]
        if cell == self._settled:
            return self._answer
        now = self._now
        if cell != now.cell or cells[at + 1] != now.salt:
            now = self._follow(cell, cells[at + 1])
        for read, value, backend in self.rest.overrides:
            if read(request, address) == value:
                return self._twins.get(backend, backend) if now.traffic.swapped else backend, "override", b""
        for test in now.cohorts:
            if test(request):
                return now.canary, "match", b""
        if now.affinity is not None:
            kept = now.kept(now.affinity, request)
            if kept is not None:
                return kept
        return self._drawn(now, request, address, point, mint)

    def _drawn(
        self, now: _Force, request: RequestView, address: bytes, point: float, mint: Callable[[], bytes]
    ) -> Placement:
        """Place a client that nothing forces and no session holds."""
        rest, issued, key = self.rest, b"", self.rest.key(request, address)
        if rest.issue is not None and request.cookie(rest.issue) is None:
            key = mint()
            issued = rest.cookie(key)
        if key:
            return (*(now.fixed or (self._by_key(now, key), "key")), issued)
        if now.affinity is not None and now.traffic.weight:
            return now.begun(now.affinity, mint())
        if now.fixed is not None:
            return (*now.fixed, b"")
        return now.ordered[bisect_right(now.bounds, point)], "random", b""

    def _by_key(self, now: _Force, key: bytes) -> Backend:
        if self.others:
            backend = self.rest.by_hash(key)
            if backend.role == "none":
                return backend
        return now.clients[now.number(key) >= now.limit]


def _test(plain: Plain, conditions: Conditions) -> Test:
    """Compile one alternative of a cohort."""
    whole = {"method": None, "headers": [], "cookies": [], "queryParams": [], **plain}
    return conditions.compile(whole)[0] or (lambda _: True)


def compile_live(
    series: tuple[str, str], plain: Plain, prefix: str, rest: Split, conditions: Conditions, area: Area | None
) -> LiveSplit | None:
    """Compile what a rollout makes of `rest`, the split of the plain rule `plain`; None: no rollout owns the rule."""
    owner = plain.get("rollout")
    if owner is None:
        return None
    exchanged = {"primary": "canary", "canary": "primary"}
    twins = {
        backend: Backend(
            series, backend.upstream, exchanged[backend.role], backend.units, compile_filters(ref["filters"], prefix)
        )
        for backend, ref in zip(rest.backends, plain["backendRefs"], strict=True)
        if backend.role in exchanged
    }
    bounds = owner["mirror"]
    mirror = {**bounds, "backendRef": {"name": owner["canary"]}, "percent": 0.0}
    mirror["methods"] = "all" if bounds["allMethods"] else "safe"
    unfiltered = not plain["filters"] and not any(ref["filters"] for ref in plain["backendRefs"])
    copies = Mirror(series, mirror)
    compare = bounds.get("compare")
    if compare is not None:
        copies.comparison = Comparison(owner["name"], owner["live"], compare)
        if compare["noiseTwin"] is not None:
            copies.twin = Mirror(series, {**mirror, "backendRef": {"name": compare["noiseTwin"]}, "percent": 100.0})
    return LiveSplit(rest, twins, owner, copies, conditions, area, unfiltered=unfiltered)
