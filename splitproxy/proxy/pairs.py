"""Pairs of answers: a rollout's copies are compared with what their originals were answered.

Only requests that are copied cost anything. Their exchange becomes one of a kind that tells its pair how the first
attempt went; copies are of a kind that tells as well. When all parties have told, the pair is counted in shared memory
(`core/pairs.py`), and now and then its answers are compared field by field (`core/differences.py`). What differs, and
no more, goes to control: short values, redacted here, over a channel that is never waited for.
"""

from collections.abc import Mapping
from functools import partial
from random import random
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from splitproxy.core import differences, stats
from splitproxy.core.comparison import Comparison
from splitproxy.core.differences import Answer, Reading, printable
from splitproxy.core.fields import Field
from splitproxy.core.pairs import (
    BOTH,
    CANARY,
    CANARY_ALONE,
    COMPARED,
    LOST,
    NO_EVENT,
    PRIMARY,
    TWIN,
    TWIN_ALONE,
    Outcome,
    counted,
)
from splitproxy.core.responses import ResponseHead
from splitproxy.errors import OutOfResources, UpstreamError
from splitproxy.proxy.mirror import Copy, due, start_copy

if TYPE_CHECKING:
    from splitproxy.core.owned import LiveSplit
    from splitproxy.core.routing import Mirror
    from splitproxy.proxy.exchange import Exchange
    from splitproxy.proxy.service import Service
    from splitproxy.proxy.upstream import Connection

    _Exchange = Exchange
else:  # those that become paired start copies themselves, and modules have no circles
    _Exchange = object

MOST_OPEN: Final = 32
"""Pairs of a rollout whose answers one worker keeps for comparison at the same time: what may take long is bounded."""
_SLACK: Final = 0.2
"""Seconds by which a copy's deadline may be off: the wheel's step, and a turn of the loop."""
_SUCCESS: Final = stats.OUTCOMES.index("success")
_SERVER_ERROR: Final = stats.OUTCOMES.index("5xx")
_CLIENT_GONE: Final = stats.OUTCOMES.index("client_gone")


class Told(NamedTuple):
    """What a party has to say."""

    outcome: Outcome
    answer: Answer | None
    """None: there was none, or nobody asked."""


def start_pair(exchange: "Exchange", live: "LiveSplit", head: bytes) -> list[Copy]:
    """Send copies to the canary of a rollout, and to its noise twin if it has one; return them, to be fed a body.

    Which of the two comes first is drawn anew each time, as the second may find caches warm.
    """
    started: list[Copy] = []
    for mirror in live.mirrors:
        comparison = mirror.comparison
        if not due(mirror):
            continue
        if comparison is None:
            copy = start_copy(exchange, mirror, head, Copy)
            started += [] if copy is None else [copy]
            continue
        pair = Pair(exchange, live, mirror, comparison)
        parties = [(CANARY, mirror)] if mirror.twin is None else [(CANARY, mirror), (TWIN, mirror.twin)]
        for party, target in parties if random() < 0.5 else parties[::-1]:
            copy = start_copy(exchange, target, head, partial(PairedCopy, pair, party))
            if copy is None:
                pair.end()
            else:
                started.append(copy)
        if not pair.over:
            exchange.pair = pair
            exchange.__class__ = _paired(type(exchange))
    return started


class Pair:
    """One request's answers, as far as they are known."""

    __slots__ = (
        *("_comparison", "_live", "_parties", "_run", "_service", "_told"),
        *("limit", "over", "request", "sent", "taken"),
    )

    over: bool
    """Whether there is nothing more to be told: it was counted, or will never be."""
    taken: dict[int, "Taken"] | None
    """What has come of each party's answer; None: the answers are not compared."""
    limit: float
    """Seconds that a copy has for its answer; the original is held to the same."""
    sent: float
    """When the original was sent: what was done for the copies before is not held against the primary."""

    def __init__(self, exchange: "Exchange", live: "LiveSplit", mirror: "Mirror", comparison: Comparison) -> None:
        self._service, self._live, self._comparison = exchange.service, live, comparison
        self._run = live.run
        self._parties = 2 if mirror.twin is None else 3
        self._told: dict[int, Told] = {}
        self.limit = mirror.timeout
        self.over = False
        self.sent = 0.0
        self.taken = None
        rule = exchange.rule
        assert rule is not None
        self.request = (rule.name, exchange.request_id)
        if exchange.started >= comparison.due and comparison.open < MOST_OPEN:
            comparison.due = exchange.started + comparison.every
            comparison.open += 1
            self.taken = {}

    def end(self) -> None:
        """Expect nothing more, and let go of the answers."""
        self.over = True
        if self.taken is not None:
            self.taken = None
            self._comparison.open -= 1

    def take(self, party: int, head: ResponseHead, data: bytes | memoryview) -> None:
        """Take the beginning of a party's answer."""
        if self.taken is not None:
            self.taken[party] = Taken(head, self._comparison.terms)
            self.taken[party].add(data)

    def add(self, party: int, pieces: list[bytes]) -> None:
        """Take more of the body of a party's answer."""
        if self.taken is not None and party in self.taken:
            for piece in pieces:
                self.taken[party].add(piece)

    def tell(self, party: int, outcome: Outcome | None) -> None:
        """Take note how it went with a party; None: nothing can be said of it, so the pair is no event."""
        if self.over or party in self._told:
            return
        if outcome is None:
            self.end()
            self._told.clear()
            self._count(NO_EVENT)
            return
        taken = None if self.taken is None or outcome.seconds is None else self.taken.get(party)
        self._told[party] = Told(outcome, None if taken is None else taken.answer())
        if len(self._told) == self._parties:
            self.end()
            if self._live.run == self._run:  # else another run has begun meanwhile, of which this says nothing
                self._join()
            self._told.clear()  # an idle connection keeps its last exchange

    def has_told(self, party: int) -> bool:
        """Return whether it is known how it went with a party, or of no interest."""
        return self.over or party in self._told

    def _count(self, cell: int) -> None:
        comparison, service = self._comparison, self._service
        if comparison.block is None:
            comparison.block = service.region.block(comparison.key)
        service.cells[comparison.block + cell] += 1

    def _join(self) -> None:
        told = self._told
        reference = told[TWIN if TWIN in told else PRIMARY].outcome
        comparison = self._comparison
        for cell in counted(told[CANARY].outcome, reference, comparison.factor, comparison.delay):
            self._count(cell)
        answers = {party: one.answer for party, one in told.items() if one.answer is not None}
        if len(answers) == self._parties:
            self._count(COMPARED)
            self._compare(answers)

    def _compare(self, answers: Mapping[int, Answer]) -> None:
        terms = self._comparison.terms
        readings = {party: Reading(answer, terms) for party, answer in answers.items()}
        primary = readings[PRIMARY]
        mine = differences.differences(primary, readings[CANARY], terms)
        its = differences.differences(primary, readings[TWIN], terms) if TWIN in readings else {}
        if not mine and not its:
            return
        shown, twins = differences.redacted(mine, terms), differences.redacted(its, terms)
        found = []
        for field in sorted(mine.keys() | its.keys()):
            who = BOTH if field in mine and field in its else CANARY_ALONE if field in mine else TWIN_ALONE
            before = (shown.get(field) or twins[field])[0]
            values = [before, *(some.get(field, ("", before))[1] for some in (shown, twins)[: self._parties - 1])]
            found.append([printable(differences.written(field[0])), field[1], who, *map(printable, values)])
        rule, request = self.request
        message: dict[str, Any] = {
            "type": "pair",
            "rollout": self._comparison.rollout,
            "run": self._run,
            "rule": rule,
            "request": printable(request.decode("latin-1")),
            "statuses": [answers[party].status for party in sorted(answers)],
            "differences": found,
        }
        if not self._service.report(message):
            self._count(LOST)


class Taken:
    """An answer as it comes, of which no more is kept than is compared."""

    __slots__ = ("_head", "_pieces", "_size", "_terms")

    def __init__(self, head: ResponseHead, terms: differences.Terms) -> None:
        self._head, self._terms = head, terms
        self._pieces: list[bytes] | None = [] if terms.bodies else None
        self._size = 0

    def add(self, data: bytes | memoryview) -> None:
        """Take some of the body."""
        self._size += len(data)
        if self._size > self._terms.most:
            self._pieces = None
        if self._pieces is not None:
            self._pieces.append(bytes(data))

    def answer(self) -> Answer:
        """Return what is compared."""
        fields: dict[bytes, bytes] = {}
        if self._terms.bodies:
            for name, value in self._head.fields():
                key = name.lower()
                fields[key] = fields[key] + b", " + value if key in fields else value
        body = None if self._pieces is None else b"".join(self._pieces)
        return Answer(self._head.status, fields, self._size, body)


class PairedCopy(Copy):
    """A copy that tells its pair how it went."""

    __slots__ = ("_pair", "_party")

    def __init__(
        self, pair: Pair, party: int, service: "Service", mirror: "Mirror", method: bytes, head: bytes, address: bytes
    ) -> None:
        self._pair, self._party = pair, party
        super().__init__(service, mirror, method, head, address)

    def on_response(self, head: ResponseHead, pieces: list[bytes] | None, trailers: list[Field] | None) -> None:
        """Take the beginning of the answer."""
        if self._pair.taken is not None:
            self._pair.take(self._party, head, b"".join(pieces or ()))
        super().on_response(head, pieces, trailers)

    def on_whole(self, head: ResponseHead, body: bytes) -> None:
        """Take the whole answer."""
        self._pair.take(self._party, head, body)
        super().on_whole(head, body)

    def on_beginning(self, head: ResponseHead, body: memoryview) -> None:
        """Take the beginning of the answer."""
        self._pair.take(self._party, head, body)
        super().on_beginning(head, body)

    def on_body(self, pieces: list[bytes]) -> None:
        """Take more of the answer."""
        self._pair.add(self._party, pieces)

    def _finish(self, outcome: str) -> None:
        """Tell how it went; what was dropped, or cut off before its time, is no event."""
        if not self._over:
            self._pair.tell(self._party, self._told(outcome))
        super()._finish(outcome)

    def _told(self, outcome: str) -> Outcome | None:
        elapsed = perf_counter() - self._started
        if not outcome or (outcome == "upstream_timeout" and elapsed < self._pair.limit - _SLACK):
            return None
        return Outcome(outcome != "success", elapsed if outcome in ("success", "5xx") else None)


# --- the original ----------------------------------------------------------------------------------------------------
class _Paired(_Exchange):
    """An exchange of whose request there are copies. What counts is its first attempt, as everywhere."""

    __slots__ = ()

    def send(self, connection: "Connection") -> None:
        """Send, and take note when."""
        if not self.attempts:
            self.pair.sent = perf_counter()
        super().send(connection)

    def on_response(self, head: ResponseHead, pieces: list[bytes] | None, trailers: list[Field] | None) -> None:
        """Take the beginning of the answer, and relay."""
        if self.attempts == 1 and self.pair.taken is not None:
            self.pair.take(PRIMARY, head, b"".join(pieces or ()))
        super().on_response(head, pieces, trailers)

    def on_beginning(self, head: ResponseHead, body: memoryview) -> None:
        """Take the beginning of the answer, and relay."""
        if self.attempts == 1:
            self.pair.take(PRIMARY, head, body)
        super().on_beginning(head, body)

    def on_body(self, pieces: list[bytes]) -> None:
        """Take more of the answer, and relay."""
        if self.attempts == 1:
            self.pair.add(PRIMARY, pieces)
        super().on_body(pieces)

    def charge_hang(self) -> None:
        """Tell of a connection that was still being opened when the request's time was over, where that is charged."""
        attempts = self.attempts
        super().charge_hang()
        if self.attempts > attempts:
            self.pair.tell(PRIMARY, Outcome(bad=True))

    def on_failure(self, error: UpstreamError | OutOfResources) -> None:
        """Tell of a connection that could not be made, and go on."""
        if self.connection is None and not self.attempts and isinstance(error, UpstreamError):
            self.pair.tell(PRIMARY, Outcome(bad=True))
        super().on_failure(error)

    def _end_attempt(self, outcome: int) -> None:
        """Tell how the first attempt went."""
        if self.attempts == 1:
            self._tell(outcome)
        super()._end_attempt(outcome)

    def _close(self, elapsed: float) -> None:
        """Tell how it went if that is not known yet, and let the client's connection go on."""
        if not self.pair.has_told(PRIMARY):
            if self.error is not None and not isinstance(self.error, UpstreamError):
                self.pair.tell(PRIMARY, None)
            else:
                self._tell(_SERVER_ERROR if self.error or self.status >= 500 else _SUCCESS)
        super()._close(elapsed)

    def _tell(self, outcome: int) -> None:
        """Tell an outcome. What took longer than a copy may take is as bad as a copy that did."""
        elapsed = perf_counter() - self.pair.sent
        if outcome >= _CLIENT_GONE or not self.timed:
            self.pair.tell(PRIMARY, None)
        else:
            bad = outcome != _SUCCESS or elapsed >= self.pair.limit - _SLACK
            self.pair.tell(PRIMARY, Outcome(bad, elapsed if outcome in (_SUCCESS, _SERVER_ERROR) else None))


_KINDS: "Final[dict[type[Exchange], type[Exchange]]]" = {}


def _paired(kind: "type[Exchange]") -> "type[Exchange]":
    """Return the kind that tells, of a kind of exchange. It has no fields of its own, so one may become the other."""
    found = _KINDS.get(kind)
    if found is None:
        found = _KINDS[kind] = type(f"Paired{kind.__name__}", (_Paired, kind), {"__slots__": ()})
    return found
