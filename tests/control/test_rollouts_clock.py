from datetime import UTC, datetime

import pytest

from splitproxy.control.rollouts.clock import Clock, in_window
from splitproxy.core.rollout.plan import Window

OFFICE = Window((0, 1, 2, 3, 4), 9 * 60, 17 * 60, "Europe/Berlin")
NIGHT = Window((4,), 22 * 60, 2 * 60, "UTC")
DAY = Window((6,), 0, 0, "UTC")
SPRING = Window((6,), 2 * 60, 4 * 60, "Europe/Berlin")

MOMENTS = [
    # 2026-01-05 is a Monday; Berlin is an hour ahead in winter, two in summer
    ([], "2026-01-05T03:00", True),
    ([OFFICE], "2026-01-05T07:59", False),
    ([OFFICE], "2026-01-05T08:00", True),
    ([OFFICE], "2026-01-05T15:59", True),
    ([OFFICE], "2026-01-05T16:00", False),
    ([OFFICE], "2026-07-06T07:00", True),
    ([OFFICE], "2026-01-04T12:00", False),
    ([NIGHT], "2026-01-09T21:59", False),
    ([NIGHT], "2026-01-09T22:00", True),
    ([NIGHT], "2026-01-10T01:59", True),
    ([NIGHT], "2026-01-10T02:00", False),
    ([NIGHT], "2026-01-09T01:00", False),
    ([DAY], "2026-01-04T00:00", True),
    ([DAY], "2026-01-04T23:59", True),
    ([DAY], "2026-01-05T00:00", False),
    ([OFFICE, NIGHT], "2026-01-09T23:00", True),
    # the clocks go from 2 to 3 on 2026-03-29, and from 3 back to 2 on 2026-10-25
    ([SPRING], "2026-03-29T00:59", False),
    ([SPRING], "2026-03-29T01:00", True),
    ([SPRING], "2026-03-29T02:00", False),
    ([SPRING], "2026-10-25T00:00", True),
    ([SPRING], "2026-10-25T02:59", True),
    ([SPRING], "2026-10-25T03:00", False),
]


@pytest.mark.parametrize(("windows", "at", "within"), MOMENTS)
def test_steps_are_taken_within_the_windows_alone(windows, at, within):
    assert in_window(windows, datetime.fromisoformat(at).replace(tzinfo=UTC)) is within


def test_a_rollouts_clock_goes_on_from_where_it_was_saved():
    now = [1000.0]
    clock = Clock(lambda: now[0], 50.0)
    assert clock.now() == 50.0
    now[0] += 7.5
    assert clock.now() == 57.5
    assert Clock(lambda: 3.0, clock.now()).now() == 57.5  # another process, another machine's clock
