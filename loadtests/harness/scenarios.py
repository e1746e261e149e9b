"""What is measured: the scenarios by name, the variants each has side by side, and how long they take."""

from dataclasses import dataclass, field

from .peers import Setup

SMALL_GET = "small-get"


@dataclass(frozen=True)
class Variant:
    """One way a scenario is set up; its first variant is what the others are compared with."""

    label: str
    setup: Setup = field(default_factory=Setup)
    requests: str = "small"


@dataclass(frozen=True)
class Scenario:
    """A closed-loop measurement of every peer and variant in alternating rounds."""

    name: str
    title: str
    variants: tuple[Variant, ...]
    connections: int = 32
    share_of_rounds: float = 0.6
    pinned: bool = True

    def rounds(self, asked: int) -> int:
        return max(1, round(asked * self.share_of_rounds))


@dataclass(frozen=True)
class Sample:
    """One peer in one round. Times in seconds, memory in bytes; None is what this scenario does not measure."""

    cpu_per_request: float | None = None
    rate: float | None = None
    p50: float | None = None
    p99: float | None = None
    p999: float | None = None
    peak_memory: int | None = None
    busy: float | None = None
    errors: int = 0
    extra: dict[str, float] = field(default_factory=dict)


@dataclass
class Row:
    """One peer in one variant over all rounds; `left_out` says why there are no samples."""

    peer: str
    variant: str
    samples: list[Sample] = field(default_factory=list)
    left_out: str = ""


@dataclass
class Outcome:
    """All rows of one scenario."""

    name: str
    title: str
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def row(self, peer: str, variant: str = "") -> Row | None:
        return next((row for row in self.rows if row.peer == peer and row.variant == variant), None)


def _single(name: str, title: str, requests: str, connections: int = 32, **setup: bool) -> Scenario:
    return Scenario(name, title, (Variant("", Setup(**setup), requests),), connections)


def _routes(*counts: int) -> Scenario:
    title = "Small GET spread over many routes, half told apart by host and half by path prefix"
    return Scenario("routes", title, tuple(Variant(f"routes-{n}", Setup(routes=n), f"routes/{n}") for n in counts))


def closed_loop(quick: bool) -> list[Scenario]:
    """Return the scenarios that wrk drives."""
    small = Scenario(SMALL_GET, "Small browser-like GET", (Variant(""),), share_of_rounds=1.0)
    workers = tuple(Variant(label, Setup(workers=n)) for n, label in ((1, "1 worker"), (2, "2 workers")))
    return [
        small,
        _single("fresh-heads", "Small GET, no two answers with the same head", "fresh"),
        _single("post-10k", "POST of 10 KB", "post"),
        _single("get-64k", "Response of 64 KB", "64k"),
        _single("get-1m", "Response of 1 MB", "1m", connections=8),
        _single("new-connection", "New connection for every request", "closing"),
        _routes(*((1, 1000) if quick else (1, 1000, 10000))),
        _single("mirror-on", "Small GET, every request copied to a third upstream", "small", mirror=True),
        Scenario("workers", "Small GET with one and with two workers, not pinned", workers, 64, pinned=False),
    ]


SPECIAL = {
    "rate-half": "Small GET at a constant rate: half of what splitproxy can do at most",
    "idle": "Memory for idle kept-alive connections",
    "start": "Start to ready, and memory at rest",
    "reload-1000": "Reload of 1,000 routes under steady traffic",
    "reload-10000": "Reload of 10,000 routes under steady traffic",
}
"""Scenarios measured in ways of their own, with their titles."""


def names(quick: bool) -> list[str]:
    """Return the names of all scenarios, in the order they run."""
    special = [name for name in SPECIAL if not (quick and name == "reload-10000")]
    return [scenario.name for scenario in closed_loop(quick)] + special
