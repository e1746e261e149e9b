"""The everyday cases of a load test: how many users when, what is asked of the answers. Knows nothing of Locust.

Times are fractions of a case's length and users fractions of its users, so that one shape serves a minute as well as
an hour.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

QUICK_SECONDS = 2.0
QUICK_USERS = 0.25
PACE = 0.1
"""Seconds from one request of a user to the next."""
SLOW_MILLISECONDS = 400
"""How long the slow upstream takes."""


@dataclass(frozen=True)
class Limits:
    """What a run may show at most.

    Failed requests in percent, percentiles of every kind of request in milliseconds, requests that never ended.
    """

    failures: float = 0.0
    p95: float = 250.0
    p99: float = 500.0
    lost: int = 0


@dataclass(frozen=True)
class Case:
    """One case. `shape` is read as: until this fraction of the time, this fraction of the users.

    `kinds` names the requests that its users send; see `locustfile.py`.
    """

    name: str
    title: str
    host: str
    kinds: tuple[str, ...] = ("page", "order")
    seconds: float = 60.0
    users: int = 40
    shape: tuple[tuple[float, float], ...] = ((1.0, 1.0),)
    limits: Limits = Limits()
    quick_seconds: float = QUICK_SECONDS

    def quick(self) -> "Case":
        """Return the same in a few seconds and with few users."""
        return replace(self, seconds=self.quick_seconds, users=max(4, round(self.users * QUICK_USERS)))

    def users_at(self, passed: float) -> int | None:
        """Return how many users there are after so many seconds, None when it is over."""
        share = next((users for until, users in self.shape if passed < until * self.seconds), None)
        return None if share is None else max(1, round(share * self.users))


CASES = {
    case.name: case
    for case in (
        Case("steady", "the same load throughout", "shop.example.com"),
        Case(
            "spike",
            "little load, five times as much at once, and little again",
            "shop.example.com",
            users=150,
            shape=((0.4, 0.2), (0.7, 1.0), (1.0, 0.2)),
        ),
        Case("soak", "little load for half an hour; memory may not grow", "shop.example.com", seconds=1800, users=20),
        Case(
            "rollout",
            "a canary grows step by step and is promoted",
            "release.example.com",
            ("page", "order", "session"),
            quick_seconds=5.0,
        ),
        Case(
            "rollback",
            "a canary that fails is sent home; clients see nothing of it",
            "broken.example.com",
            ("page",),
            quick_seconds=5.0,
        ),
        Case("reload", "the file changes and is read again, once a second", "shop.example.com"),
        Case(
            "slow-upstream",
            "one of two services takes its time; the other is as quick as ever",
            "shop.example.com",
            ("page", "slow"),
        ),
        Case("mirror-off", "what mirror-on is compared with", "plain.example.com", seconds=30),
        Case("mirror-on", "every request is copied to a third upstream", "copied.example.com", seconds=30),
    )
}


@dataclass(frozen=True)
class Kind:
    """What clients saw of one kind of request. Percentiles in milliseconds."""

    name: str
    answered: int
    failed: int
    p50: float
    p95: float
    p99: float


Checks = list[tuple[bool, str]]
"""Whether it held, and what was seen."""


def judge(kinds: Iterable[Kind], asked: int, limits: Limits, floors: Mapping[str, float]) -> Checks:
    """Compare what clients saw with the limits. `floors` are the milliseconds that a kind of request must take.

    Nothing asked is not a pass.
    """
    kinds = list(kinds)
    ended = sum(kind.answered + kind.failed for kind in kinds)
    failed = sum(kind.failed for kind in kinds)
    share = 100.0 * failed / ended if ended else 0.0
    checks: Checks = [
        (ended > 0 and share <= limits.failures, f"{ended} requests, {failed} failed (at most {limits.failures:g} %)"),
        (asked - ended <= limits.lost, f"{asked - ended} lost: asked and never ended (at most {limits.lost})"),
    ]
    for kind in kinds:
        floor = floors.get(kind.name, 0.0)
        held = kind.p95 - floor <= limits.p95 and kind.p99 - floor <= limits.p99
        most = f"at most {floor + limits.p95:g} and {floor + limits.p99:g}"
        checks.append((held, f"{kind.name}: p50 {kind.p50:g} ms, p95 {kind.p95:g} ms, p99 {kind.p99:g} ms ({most})"))
    return checks


def in_words(checks: Checks) -> str:
    return "\n".join(f"  {'held  ' if held else 'BROKEN'}  {text}" for held, text in checks)
