"""Whether a request whose attempt failed is sent again, where to, when, and how often an upstream may be asked so.

Two reasons, in this order: *failover*, from the canary to the primary, once and never back; and *retry*, to the same
upstream, by the rule's policy (Gateway API, HTTPRouteRetry) and within its budget (GEP-3388). Neither is begun once the
head of an answer was relayed. Only what is safe is repeated: a request of which nothing was sent, or an idempotent one
(RFC 9110 §9.2.2) whose body is small and still known.
"""

from collections import deque
from collections.abc import Iterable
from typing import Any, Final, Literal, NamedTuple

KEPT_BYTES: Final = 65_536
"""The longest body that is kept to be sent again."""
SERVER_ERRORS: Final = 500
"""The first status that counts as the endpoint's failure."""

INTERVAL: Final = 10.0
"""Seconds over which a budget is reckoned."""
SHARE: Final = 0.2
"""Retries for each request, over `INTERVAL`."""
LEAST: Final = 10
"""Retries a second that are always allowed."""
_STEP: Final = 1.0
"""Seconds of a step, by which a budget remembers."""
_GROWTH: Final = 10.0
"""The longest back-off, as a multiple of the shortest: 250 ms for 25 ms."""


class Failed(NamedTuple):
    """An attempt that failed, and what led to it."""

    status: int
    """Of the answer; 0: there was none."""
    unsent: bool
    """Whether no connection was made, so that nothing can have been done."""
    idempotent: bool
    """The request's method (RFC 9110 §9.2.2)."""
    kept: bool
    """Whether the request has no body, or one of at most `KEPT_BYTES` that is still known."""
    canary: bool
    """Whether the upstream is a canary, and there is a primary."""
    moved: bool
    """Whether the request has failed over already."""
    retries: int
    """Made so far."""


Step = Literal["failover", "retry"]


class Repeats:
    """What a rule says about repeating."""

    __slots__ = ("attempts", "backoff", "codes", "failover")

    def __init__(self, *, failover: bool, attempts: int = 0, codes: Iterable[int] = (), backoff: float = 0.0) -> None:
        """`attempts` are the retries after the first attempt, 0 for none; `backoff` in seconds."""
        self.failover = failover
        self.attempts = attempts
        self.codes = frozenset(codes)
        self.backoff = backoff

    def step(self, failed: Failed) -> Step | None:
        """Return what follows the failed attempt; None: its outcome is the request's."""
        safe = failed.unsent or (failed.idempotent and failed.kept)
        broken = not failed.status or failed.status >= SERVER_ERRORS
        if self.failover and failed.canary and not failed.moved and broken and safe:
            return "failover"
        if failed.retries >= self.attempts:
            return None
        return "retry" if safe and (not failed.status or failed.status in self.codes) else None

    def wait(self, retry: int, point: float) -> float:
        """Return the seconds to wait before a retry, the first being 1; `point` is random in [0, 1).

        `backoff` is the least (Gateway API), what is drawn beyond it doubles with each retry, up to ten times as much.
        """
        return self.backoff * (1.0 + point * (min(2.0**retry, _GROWTH) - 1.0))


class Budget:
    """Bounds one upstream's retries: 20 % of its requests over ten seconds, or ten a second where that is more.

    Nothing is done for a request that succeeds: the number of all requests so far is looked at when one has failed.
    """

    __slots__ = ("_begun", "_latest", "_marks", "_spent")

    def __init__(self) -> None:
        self._latest: deque[float] = deque(maxlen=LEAST)
        """When the latest retries were made."""
        self._marks: deque[tuple[float, int, int]] = deque()
        """(time, requests, retries) at the beginning and at the end of each step in which there was a failure.

        The first is the last one that is older than the interval, the last is brought up to date each time.
        """
        self._begun = 0.0
        """When the present step began."""
        self._spent = 0

    def take(self, now: float, requests: int) -> bool:
        """Return whether a retry is allowed at `now`, and count it; `requests` so far, retries among them."""
        marks = self._marks
        while len(marks) > 2 and marks[1][0] <= now - INTERVAL:
            marks.popleft()
        if not marks or now - self._begun >= _STEP:
            self._begun = now
            marks.extend([(now, requests, self._spent)] * 2)
        allowed = len(self._latest) < LEAST or now - self._latest[0] >= 1.0 or self._within(now, requests)
        if allowed:
            self._spent += 1
            self._latest.append(now)
        marks[-1] = (now, requests + allowed, self._spent)
        return allowed

    def _within(self, now: float, requests: int) -> bool:
        """Return whether the retries of the interval are less than their share of its requests."""
        (then, first, spent), (until, asked, made) = self._marks[0], self._marks[1]
        begin = now - INTERVAL
        # A first mark older than the interval: what came between it and the next is taken to have come evenly.
        part = (begin - then) / (until - then) if then < begin < until else 0.0
        retries = self._spent - spent - part * (made - spent)
        return retries < SHARE * (requests - first - part * (asked - first) - retries)


def compile_repeats(plain: dict[str, Any]) -> Repeats | None:
    """Compile `retry` and `split.failover` of a plain rule; None: nothing is ever repeated."""
    failover, retry = bool(plain["split"].get("failover")), plain.get("retry")
    if retry is not None:
        return Repeats(failover=failover, **retry)
    return Repeats(failover=True) if failover else None
