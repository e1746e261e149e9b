"""Loads in a process of their own (`loader`), as control sees them.

Parsing and checking 10,000 routes takes seconds of pure Python and hundreds of megabytes; so neither holds up the admin
API nor stays behind. At the start one also runs beside control's own imports, so nothing heavy is imported here.
"""

import json
import mmap
import os
import select
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from splitproxy.errors import SplitProxyError

_LOAD_SECONDS: Final = 120.0


class LoadError(SplitProxyError):
    """The configuration was refused; `args[0]` lists every error: its `message`, its place, all of it as `text`."""


class Memfd:
    """A memfd that is closed with the last reference to it: answers may still be made from what serves no more."""

    def __init__(self, descriptor: int) -> None:
        """Take over `descriptor`."""
        self._descriptor = descriptor

    @classmethod
    def create(cls, name: str) -> "Memfd":
        """Return a new one that can be sealed."""
        return cls(os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))

    def __del__(self) -> None:
        os.close(self._descriptor)

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._descriptor


class Share(NamedTuple):
    """What an upstream gets of a rule's requests."""

    route: str
    rule: str
    upstream: str
    role: str
    percent: float


class Token(NamedTuple):
    """What lets somebody ask the admin API."""

    name: str
    role: str
    digest: str
    """SHA-256 of the token, in hex."""


@dataclass(frozen=True)
class Candidate:
    """A valid configuration, before and after it is served."""

    generation: int
    snapshot: Memfd
    """A sealed memfd of what workers compile."""
    described: Memfd
    """A sealed memfd with all that follows: a control process that starts anew knows by it what serves.

    Three lines of JSON: what is always at hand, the plain snapshot, and what of it may be shown. The latter two are
    large where there are many routes, and read when somebody asks.
    """
    listeners: list[str]
    """Addresses, as asked for."""
    workers: int
    admin: str
    """Where the admin API listens."""
    allowed_hosts: list[str]
    """The names it answers to, beside its address and loopback."""
    probes: str | None
    """Where the probes listen."""
    shares: list[Share]
    warnings: list[str]
    checksum: str
    sources: list[str]
    """Every file it was made from."""
    tokens: list[Token] = field(default_factory=list)
    """Who may ask the admin API; with none, everybody may."""
    audit_log: str | None = None
    """The file that changes are noted in; None: the program's log."""
    max_series: int = 50_000
    """Time series in one answer of /metrics."""
    drain: tuple[float, float] = (0.0, 25.0)
    """Seconds for which listeners stay open once a drain has begun, and for requests from then on, 0 without limit."""
    tracing: dict[str, Any] | None = None
    """The plain `tracing`; None: nothing is traced."""
    releases: dict[str, Any] = field(default_factory=dict)
    """What rollouts are run by: the plain `rollouts`, `alertProviders`, `metricTemplates` and `state`; the `endpoints`
    of the rollouts' upstreams (name -> URLs) and the names of the `rules` of their routes (route -> names)."""
    health: dict[str, Any] = field(default_factory=dict)
    """`watched`: the upstreams whose endpoints are probed or may be ejected. `failovers`: route and rule of those that
    leave out a canary without an endpoint, and whether a rollout owns them."""

    @classmethod
    def described_by(cls, described: Memfd, generation: int, snapshot: Memfd) -> "Candidate":
        """Return what `described` says. Raises LoadError."""
        head = _line(described, 0)
        if "errors" in head:
            raise LoadError(head["errors"])
        head["shares"] = [Share(*share) for share in head["shares"]]
        head["tokens"] = [Token(*token) for token in head.get("tokens", ())]
        return cls(generation=generation, snapshot=snapshot, described=described, **head)

    def plain(self) -> dict[str, Any]:
        """Return the plain snapshot."""
        return _line(self.described, 1)

    def public(self) -> dict[str, Any]:
        """Return the configuration as it may be shown."""
        return _line(self.described, 2)


class Loading:
    """A load under way."""

    def __init__(self, path: str, workers: str | None, generation: int) -> None:
        """Start to load `path`; `workers` overrides the file."""
        self._generation = generation
        self._snapshot = Memfd.create("splitproxy-snapshot")
        self._described = Memfd.create("splitproxy-description")
        results = (self._snapshot.fileno(), self._described.fileno())
        numbers = map(str, (generation, *results))
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "splitproxy.control.loader", *numbers, path, workers or ""],
            stdin=subprocess.DEVNULL,
            pass_fds=results,
        )

    def candidate(self) -> Candidate:
        """Wait for the end and return what was loaded; for a thread. Raises LoadError."""
        in_time = _ends(self._process, _LOAD_SECONDS)
        if not in_time:
            self._process.kill()
        code = self._process.wait()
        if not in_time:
            raise LoadError([_problem(f"loading took longer than {_LOAD_SECONDS:g} s")])
        if code:
            raise LoadError([_problem(f"the loader ended with exit code {code}")])
        return Candidate.described_by(self._described, self._generation, self._snapshot)

    def stop(self) -> None:
        """Have it end at once; `candidate` raises LoadError then."""
        self._process.kill()


def _line(memfd: Memfd, number: int) -> dict[str, Any]:
    with mmap.mmap(memfd.fileno(), 0, prot=mmap.PROT_READ) as text:
        text.seek(0)
        for _ in range(number):
            text.readline()
        line: dict[str, Any] = json.loads(text.readline())
        return line


def _ends(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Wait for the end of `process`, at most `seconds`; `Popen.wait` would look only now and then."""
    descriptor = os.pidfd_open(process.pid)
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    try:
        return bool(poll.poll(seconds * 1000))
    finally:
        os.close(descriptor)


def _problem(text: str) -> dict[str, Any]:
    return {"message": text, "text": text}
