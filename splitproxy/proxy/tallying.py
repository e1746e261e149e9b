"""Results of requests whose side was drawn by chance, counted for the comparison and told to control.

All of it hangs on the backend that a live split returns for such a request: its series is a `Tallied`, which counts
what every series counts and, for the epoch of the coin, its side. So the shortest way of a request is the same with
and without. What is bad, or a client's first slow request, is told to control at once.
"""

from bisect import bisect_left
from collections.abc import Iterable
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

from splitproxy.core import stats, tallies
from splitproxy.core.tallies import Coin, passed
from splitproxy.proxy.ending import Ending
from splitproxy.proxy.series import Series

if TYPE_CHECKING:
    from splitproxy.core.routing import Rule
    from splitproxy.core.splitting import Backend
    from splitproxy.proxy.exchange import Exchange
    from splitproxy.proxy.service import Service

News = list[Any]
"""[rollout's key, epoch, "bad" | "slow", side, client or 0, request id, status or 0, outcome, thresholds as bits]."""
_LEAST: Final = stats.OUTCOMES.index("5xx")
_SUCCESS: Final = stats.OUTCOMES.index("success")
_GONE: Final = stats.OUTCOMES.index("client_gone")
_BATCH: Final = 256
"""News that are told together at most; further ones of the same moment are lost, counts never are."""
_AGAIN_AFTER: Final = 0.1
"""Seconds until news are told again that control did not take: it may be starting."""
_TELL_AFTER: Final = 0.01
"""Seconds that news wait for others after the first."""
_MOST_CLIENTS: Final = 100_000
"""Clients of a rollout of whom a worker knows what it has told; of further ones nothing is told."""


class Book:
    """The tally of one rollout's epoch in one worker."""

    __slots__ = ("_base", "_cells", "_stamp", "beyond", "coin", "known", "thresholds")

    def __init__(self, cells: stats.Cells, base: int, coin: Coin, known: dict[int, int]) -> None:
        """`known` has of each client what was told of it, as bits, since the rollout's clients were drawn."""
        self._cells, self._base, self._stamp = cells, base, tallies.stamp(coin.epoch, coin.salt)
        self.coin, self.thresholds, self.known = coin, coin.thresholds, known
        self.beyond: dict[Ending, int] = {}
        """Requests in flight that are beyond thresholds, and how many."""
        if cells[base + tallies.EPOCH] != self._stamp:
            cells[base + tallies.EPOCH] = 0
            for cell in range(base + 1, base + tallies.END):
                cells[cell] = 0
            cells[base + tallies.EPOCH] = self._stamp

    @property
    def open(self) -> bool:
        """Whether the block still is this epoch's."""
        return bool(self._cells[self._base + tallies.EPOCH] == self._stamp)

    def add(self, cell: int, count: int = 1) -> None:
        """Add to one cell; what comes too late is counted as dropped."""
        if not self.open:
            cell = tallies.DROPPED
        self._cells[self._base + cell] += count

    def finish(self, side: int, durations: Iterable[float], coin: Coin) -> None:
        """Count durations that are to be compared, less what is tolerated (`Coin.even`, written out)."""
        if not self.open:
            return
        cells, start, bounds = self._cells, self._base + tallies.HISTOGRAM + side * stats.BUCKETS, stats.BOUNDS
        scale, delay = coin.scale, coin.delay
        for seconds in durations:
            scaled, shortened = seconds * scale, seconds - delay
            cells[start + bisect_left(bounds, min(scaled, shortened))] += 1

    def move(self, side: int, first: int, last: int, count: int) -> None:
        """Count a request in flight beyond the thresholds from `first` to before `last`, or no more."""
        if self.open:
            start = self._base + tallies.BEYOND + side * len(tallies.QUANTILES)
            for cell in range(start + first, start + last):
                self._cells[cell] += count


class Tallied(Series):
    """The series of a backend that requests come to by a coin."""

    __slots__ = ("__weakref__", "_desk", "book", "coin", "drawn", "pools", "side", "sticky")

    def __init__(
        self, cells: stats.Cells, octets: memoryview, block: int, book: Book, coin: Coin, desk: "Tallies"
    ) -> None:
        super().__init__(cells, octets, block)
        self.book, self._desk = book, desk
        self.coin, self.side, self.sticky = coin, coin.side, coin.client
        self.pools: tuple[Any, ...] = ()
        """Those of both sides, set by who opens it."""
        self.drawn = 0
        """Draws that are not written yet."""

    def write(self) -> None:
        """Write the batch, to the tally too. Nothing in a batch has failed, and no client's request is in one."""
        book, side = self.book, self.side
        if self.drawn:
            book.add(tallies.DRAWN + side, self.drawn)
            self.drawn = 0
        if self.done:
            book.add(tallies.FINISHED + side, len(self.done))
            book.finish(side, [one[1] for one in self.done], self.coin)
        super().write()

    def attempt(self, outcome: int, seconds: float | None, exchange: Ending | None = None) -> None:
        """Count the outcome of a first attempt at once, and tell of it where that matters."""
        super().attempt(outcome, seconds)
        if exchange is None:
            return
        bad = _LEAST <= outcome < _GONE
        book, side = self.book, self.side
        if outcome < _GONE:
            book.add(tallies.FINISHED + side)
            book.add(tallies.FAILED + side, int(bad))
        if self.sticky:
            self._follow(outcome, exchange, bad=bad)
            return
        beyond = book.beyond.pop(exchange, 0)
        if seconds is not None:
            book.move(side, 0, beyond, -1)
            book.finish(side, (seconds,), self.coin)
        elif outcome == _GONE and exchange.timed:
            book.move(side, beyond, passed(book.thresholds, self.coin.even(_age(exchange))), 1)
        if bad:
            book.add(tallies.BAD + side)
            self._desk.tell(book.coin, "bad", self, exchange, outcome, 0)

    def _follow(self, outcome: int, exchange: Ending, *, bad: bool) -> None:
        """Tell of a client's first bad request, and of its first beyond each threshold."""
        book, known = self.book, self.book.known
        client: int = exchange.client
        slow = 0
        if outcome <= _GONE and exchange.timed:
            slow = (1 << passed(book.thresholds, self.coin.even(_age(exchange)))) - 1
        told = known.get(client, 0)
        fresh = (slow << 1 | bad) & ~told
        if not fresh or (not told and len(known) >= _MOST_CLIENTS):
            return
        # What could not be told is told with the client's next one: a client is counted by nothing else.
        if fresh & 1 and self._desk.tell(book.coin, "bad", self, exchange, outcome, client):
            told |= 1
        if fresh > 1 and self._desk.tell(book.coin, "slow", self, exchange, outcome, client, fresh >> 1):
            told |= fresh & ~1
        if told:
            known[client] = told

    def grow_old(self, exchange: Ending, now: float) -> None:
        """Notice that a request in flight is beyond further thresholds."""
        if not exchange.timed or exchange.connection is None or exchange.attempts != 1:
            return
        if self.sticky:
            self._follow(_SUCCESS, exchange, bad=False)
            return
        age = self.coin.even(now - (exchange.attempt_started or exchange.started))
        count, before = passed(self.book.thresholds, age), self.book.beyond.get(exchange, 0)
        if count > before:
            self.book.move(self.side, before, count, 1)
            self.book.beyond[exchange] = count
            # From here on it is finished with `attempt`, which takes it out again.
            exchange.attempt_started = exchange.attempt_started or exchange.started


def _age(exchange: Ending) -> float:
    return perf_counter() - (exchange.attempt_started or exchange.started)


class Tallies:
    """The books of a worker, one for each rollout's epoch under way, and what control is to be told."""

    def __init__(self, service: "Service") -> None:
        self._service = service
        self._books: dict[str, Book] = {}
        self._open_series: WeakSet[Tallied] = WeakSet()
        """Those that may get requests, or have some in flight: what holds them otherwise."""
        self._news: list[News] = []
        self._telling = False

    def fair(self, exchange: "Exchange", rule: "Rule", backend: "Backend") -> "Backend":
        """Return `backend`, that a coin has chosen, ready to be used; without its coin where it was no fair one.

        It is fair if both sides could have been used: else the draw is about who is there, not about who is better.
        """
        series = backend.series
        if series is None:
            series = self._open(rule, backend)
            if series is None:
                return backend.plain
        one, other = series.pools
        if not (one.usable and other.usable):
            return backend.plain
        if series.sticky:
            assert rule.live is not None
            exchange.client = rule.live.client
            exchange.attempt_started = exchange.started  # the way that ends with `Series.attempt`
            if not exchange.issued or exchange.reason == "session":  # known before, at most with a cookie of this side
                return backend
        series.drawn += 1
        return backend

    def _open(self, rule: "Rule", backend: "Backend") -> Tallied | None:
        """Make the series of a backend with a coin; None: the region is full."""
        service, coin, live = self._service, backend.coin, rule.live
        assert coin is not None
        assert live is not None
        place = service.region.block(tallies.key(live.name, coin.epoch))
        if place == service.region.block(stats.OVERFLOW_KEY):
            return None
        book = self._books.get(live.name)
        if book is None or (book.coin.epoch, book.coin.salt) != (coin.epoch, coin.salt):
            known = {} if book is None or book.coin.salt != coin.salt else book.known
            book = self._books[live.name] = Book(service.cells, place, coin, known)
        backend.pool = service.upstream(backend.upstream)
        series: Tallied = service.tallied(backend.key, book, coin)
        series.pools = tuple(service.upstream(side.upstream) for side in live.pair(swapped=False))
        backend.series = series
        self._open_series.add(series)
        return series

    def look(self) -> None:
        """Notice what is in flight beyond thresholds; ten times a second, while anything is compared."""
        if not any(series.active for series in self._open_series):
            return
        now = perf_counter()
        for downstream in self._service.connections:
            exchange = downstream.exchange
            if isinstance(exchange, Ending) and isinstance(exchange.series, Tallied):
                exchange.series.grow_old(exchange, now)

    # --- control -----------------------------------------------------------------------------------------------------
    def tell(
        self, coin: Coin, what: str, series: Tallied, exchange: Ending, outcome: int, client: int, bits: int = 0
    ) -> bool:
        """Tell control of a result: at once if it is the first for a while, else with the next ones.

        Return whether it is, or will be when control is there again; False: too many others wait.
        """
        room = len(self._news) < _BATCH
        if room:
            said = (series.side, client, exchange.request_id.decode("latin-1"), exchange.status)
            self._news.append([coin.rollout, coin.epoch, what, *said, stats.OUTCOMES[outcome], bits])
        if not self._telling:
            self._telling = True
            self._service.loop.call_soon(self._send)
        return room

    def _send(self) -> None:
        self._telling = bool(self._news)
        if self._telling:
            told = self._service.report({"type": "results", "results": self._news})
            if told:
                self._news = []
            self._service.loop.call_later(_TELL_AFTER if told else _AGAIN_AFTER, self._send)
