"""Time as a rollout knows it: a clock that only grows, and the hours in which it may take steps."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from splitproxy.core.rollout.plan import Window


class Clock:
    """A rollout's clock in seconds: it goes on from where it was saved and stands still while nobody runs it."""

    def __init__(self, monotonic: Callable[[], float], saved: float = 0.0) -> None:
        self._monotonic = monotonic
        self._zero = monotonic() - saved

    def now(self) -> float:
        """Return the seconds that the rollout has been run for."""
        return self._monotonic() - self._zero


def wall() -> datetime:
    """Return the time that people read."""
    return datetime.now(UTC)


def iso(at: datetime) -> str:
    """Return `at` for JSON, to the millisecond."""
    return at.isoformat(timespec="milliseconds")


def in_window(windows: Iterable[Window], at: datetime) -> bool:
    """Say whether steps may be taken `at` this moment: in any of the windows, or always where there are none.

    A window is one of the clock on the wall: where an hour is skipped or comes twice, so does the window's.
    """
    windows = tuple(windows)
    return not windows or any(_within(window, at.astimezone(ZoneInfo(window.zone))) for window in windows)


def _within(window: Window, local: datetime) -> bool:
    minute, today = local.hour * 60 + local.minute, local.weekday()
    if window.start < window.end:
        return today in window.days and window.start <= minute < window.end
    if today in window.days and minute >= window.start:
        return True
    return (today - 1) % 7 in window.days and minute < window.end
