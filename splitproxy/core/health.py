"""Whether one endpoint may be used: what probes say of it, and what its answers to requests say.

Two judgements that do not know each other, and either of which takes the endpoint out. Probes find it *healthy* or not,
and change their mind only after several in a row. Attempts that fail one after the other *eject* it for a time that
grows from one ejection to the next; nobody asks it anything meanwhile, the time alone brings it back.

An endpoint that comes back gets its share little by little where the upstream has a slow start.
"""

from typing import Final, NamedTuple

FIRST_SHARE: Final = 0.1
"""What an endpoint that comes back gets of its weight at first."""


class HealthCheck(NamedTuple):
    """How an upstream's endpoints are probed; times in seconds."""

    path: str
    host: str
    """For the Host field; empty: the endpoint's own address."""
    statuses: tuple[tuple[int, int], ...]
    """Those of a good answer, each as first and last of a range."""
    interval: float
    timeout: float
    healthy_threshold: int
    """Good answers in a row that make an unhealthy endpoint healthy."""
    unhealthy_threshold: int
    """Failed probes in a row that make a healthy endpoint unhealthy."""

    def accepts(self, status: int) -> bool:
        """Return whether an answer with this status is a good one."""
        return any(first <= status <= last for first, last in self.statuses)


class OutlierDetection(NamedTuple):
    """When an upstream's endpoints are ejected, and for how long; times in seconds."""

    consecutive_errors: int
    interval: float
    """Time without an ejection that makes the next one shorter by one step."""
    base_ejection_time: float
    """The first ejection, and by how much each further one is longer."""
    max_ejection_time: float
    max_ejection_percent: float
    """Of the upstream's endpoints, ejected at one time."""

    def allows(self, ejected: int, endpoints: int) -> bool:
        """Return whether one more may be ejected: one of two or more always may, unless the percentage is 0."""
        if not self.max_ejection_percent:
            return False
        most = int(endpoints * self.max_ejection_percent / 100)
        return ejected < max(most, 1 if endpoints > 1 else 0)


class Row:
    """An endpoint's failures in a row, without a word from those that succeed."""

    __slots__ = ("_answered", "_errors")

    def __init__(self) -> None:
        self._answered = self._errors = 0

    def failed(self, answered: int) -> int:
        """Take a failed attempt; return how many there are in a row now.

        `answered` counts all attempts so far that did not fail: if it has grown since the last failure, the errors are
        not consecutive. It may seem less for a moment, while a failed answer's body is still under way.
        """
        if answered > self._answered:
            self._answered, self._errors = answered, 0
        self._errors += 1
        return self._errors

    def clear(self) -> None:
        """Begin anew."""
        self._errors = 0


class Health:
    """The health of one endpoint as one worker sees it. A fresh one is healthy until proven otherwise."""

    __slots__ = ("_against", "_back", "_calm_since", "_times", "ejected_until", "healthy")

    healthy: bool
    """What probes say."""
    ejected_until: float
    """The end of the ejection under way; 0: none is."""

    def __init__(self, joined: float | None = None) -> None:
        """`joined`: when it was added to an upstream that had others already; it begins slowly like one come back."""
        self.healthy = True
        self.ejected_until = 0.0
        self._against = 0
        """Probes in a row that say the opposite of `healthy`."""
        self._times = 0
        """Steps that the last ejection was long."""
        self._calm_since = 0.0
        self._back = joined

    @property
    def usable(self) -> bool:
        """Whether neither probes nor errors take it out."""
        return self.healthy and not self.ejected_until

    def probed(self, good: bool, check: HealthCheck, now: float) -> bool:
        """Take the result of a probe; return whether `healthy` has changed."""
        if good == self.healthy:
            self._against = 0
            return False
        self._against += 1
        if self._against < (check.healthy_threshold if good else check.unhealthy_threshold):
            return False
        self.healthy, self._against = good, 0
        if good:
            self._back = now
        return True

    def unprobed(self) -> bool:
        """Forget what probes said, because there are none any more; return whether `healthy` has changed."""
        self._against = 0
        changed, self.healthy = not self.healthy, True
        return changed

    def eject(self, outliers: OutlierDetection, now: float) -> float:
        """Begin an ejection; return how long it is."""
        calm = int((now - self._calm_since) / outliers.interval)
        self._times = max(self._times - calm, 0) + 1
        seconds = min(self._times * outliers.base_ejection_time, outliers.max_ejection_time)
        self.ejected_until = now + seconds
        return seconds

    def returned(self, now: float) -> bool:
        """End an ejection whose time is over; return whether there was one."""
        if not self.ejected_until or now < self.ejected_until:
            return False
        self.pardon(now)
        return True

    def pardon(self, now: float) -> bool:
        """End an ejection at once; return whether there was one."""
        ejected = self.ejected_until > 0
        if ejected:
            self.ejected_until = 0.0
            self._back = self._calm_since = now
        return ejected

    def share(self, slow_start: float, now: float) -> float:
        """Return how much of its weight it gets: all, or less within `slow_start` seconds of its return."""
        if self._back is None:
            return 1.0
        grown = (now - self._back) / slow_start if slow_start else 1.0
        if grown >= 1.0:
            self._back = None
        return min(max(grown, FIRST_SHARE), 1.0)
