import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from splitproxy.control import signals as signals_module
from splitproxy.control.signals import Signals
from splitproxy.core import stats

SHOP = (stats.SERIES, "shop", "0", "v1", "primary")
PAY = (stats.SERIES, "pay", "0", "v1", "primary")
ENDPOINT = (stats.ENDPOINT, "v1", "127.0.0.1:9001", "")
OK = stats.CODE + stats.CODES.index("200")
BAD = stats.CODE + stats.CODES.index("503")


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


def count(region, key, cell, by=1):
    region.cells[region.block(key) + cell] += by


def test_totals_add_up_over_workers(regions):
    one, other = regions.worker(0), regions.worker(2)
    count(one, SHOP, OK, 3)
    count(other, SHOP, OK, 4)
    count(other, PAY, OK)
    signals = Signals(regions.descriptor, lambda: [0, 2])
    assert signals.total(SHOP)[OK] == 7
    assert signals.total(PAY)[OK] == 1
    assert set(signals.known()) == {SHOP, PAY, stats.OVERFLOW_KEY}


def test_a_dead_workers_counters_count_and_its_gauges_do_not(regions):
    one, other = regions.worker(0), regions.worker(1)
    for region in (one, other):
        count(region, SHOP, OK, 5)
        count(region, SHOP, stats.IN_FLIGHT, 2)
        count(region, ENDPOINT, stats.ENDPOINT_IDLE, 3)
        count(region, ENDPOINT, stats.ENDPOINT_CONNECTS, 4)
        region.cells[stats.CONNECTIONS] = 10
        region.cells[stats.LAG_NS] = 7
    other.cells[stats.LAG_NS] = 9
    signals = Signals(regions.descriptor, lambda: [0])
    assert (signals.total(SHOP)[OK], signals.total(SHOP)[stats.IN_FLIGHT]) == (10, 2)
    endpoint = signals.total(ENDPOINT)
    assert (endpoint[stats.ENDPOINT_CONNECTS], endpoint[stats.ENDPOINT_IDLE]) == (8, 3)
    assert signals.header_sum(stats.CONNECTIONS, living=True) == 10
    assert signals.header_max(stats.LAG_NS) == 7


def test_a_window_holds_what_was_counted_within_it(regions):
    clock, region = Clock(), regions.worker(0)
    count(region, SHOP, OK, 100)
    signals = Signals(regions.descriptor, lambda: [0], clock)
    for _ in range(30):
        clock.now += 1
        count(region, SHOP, OK, 2)
        count(region, SHOP, BAD, 1)
        signals.sample()
    window = signals.window(SHOP, 10)
    assert (window.seconds, window.requests, window.failures) == (10.0, 30, 10)
    whole = signals.window(SHOP, 60)
    assert (whole.seconds, whole.requests) == (30.0, 90), (
        "what was counted before the first sample belongs to no window"
    )


def test_a_window_of_an_idle_series_is_empty(regions):
    clock, region = Clock(), regions.worker(0)
    count(region, SHOP, OK)
    signals = Signals(regions.descriptor, lambda: [0], clock)
    assert signals.window(SHOP, 10).seconds == 0.0
    clock.now += 1
    signals.sample()
    window = signals.window(SHOP, 10)
    assert (window.seconds, window.requests, window.quantile(0.5)) == (1.0, 0, None)


def test_gauges_never_enter_a_window(regions):
    clock, region = Clock(), regions.worker(0)
    count(region, SHOP, stats.IN_FLIGHT, 5)
    signals = Signals(regions.descriptor, lambda: [0], clock)
    clock.now += 1
    region.cells[region.block(SHOP) + stats.IN_FLIGHT] = 1
    count(region, SHOP, OK)
    signals.sample()
    assert signals.window(SHOP, 10).cells[stats.IN_FLIGHT] == 0
    assert signals.total(SHOP)[stats.IN_FLIGHT] == 1


def test_quantiles_come_from_the_windows_own_requests(regions):
    clock, region = Clock(), regions.worker(0)
    for _ in range(1000):
        count(region, SHOP, stats.REQUEST_HISTOGRAM + stats.bucket(5.0))
    signals = Signals(regions.descriptor, lambda: [0], clock)
    clock.now += 1
    for _ in range(99):
        count(region, SHOP, stats.REQUEST_HISTOGRAM + stats.bucket(0.010))
    count(region, SHOP, stats.REQUEST_HISTOGRAM + stats.bucket(1.0))
    signals.sample()
    window = signals.window(SHOP, 10)
    assert window.quantile(0.5) == pytest.approx(0.010, rel=0.1)
    assert window.quantile(0.999) == pytest.approx(1.0, rel=0.1)


def test_a_replaced_worker_goes_on_where_its_predecessor_ended(regions):
    clock = Clock()
    count(regions.worker(0), SHOP, OK, 3)
    signals = Signals(regions.descriptor, lambda: [0], clock)
    count(regions.worker(0), SHOP, OK, 2)
    clock.now += 1
    signals.sample()
    assert signals.total(SHOP)[OK] == 5
    assert signals.window(SHOP, 10).requests == 2


def test_ten_minutes_are_kept(regions):
    clock, region = Clock(), regions.worker(0)
    signals = Signals(regions.descriptor, lambda: [0], clock)
    for _ in range(700):
        clock.now += 1
        count(region, SHOP, OK)
        signals.sample()
    window = signals.window(SHOP, 3600)
    assert (window.seconds, window.requests) == (600.0, 600)


def test_memory_is_bounded_and_a_shortened_window_says_so(regions, monkeypatch):
    monkeypatch.setattr(signals_module, "_BUDGET", 5 * 210)  # five seconds with one cell of one series each
    clock, region = Clock(), regions.worker(0)
    signals = Signals(regions.descriptor, lambda: [0], clock)
    for _ in range(20):
        clock.now += 1
        count(region, SHOP, OK)
        signals.sample()
    window = signals.window(SHOP, 60)
    assert (window.seconds, window.requests) == (5.0, 5)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 2), st.sampled_from([SHOP, PAY]), st.integers(0, 50)), max_size=4),
        min_size=1,
        max_size=12,
    ),
    st.integers(1, 15),
)
def test_a_window_is_the_difference_of_two_totals(regions, seconds, length):
    clock, workers = Clock(), [regions.worker(slot) for slot in range(3)]
    signals = Signals(regions.descriptor, lambda: range(3), clock)
    totals = [signals.total(SHOP)]
    for second in seconds:
        clock.now += 1
        for slot, key, by in second:
            count(workers[slot], key, OK, by)
            count(workers[slot], key, stats.REQUEST_NS, by << 33)
        signals.sample()
        totals.append(signals.total(SHOP))
    expected = [new - old for new, old in zip(totals[-1], totals[max(0, len(totals) - 1 - length)], strict=True)]
    window = signals.window(SHOP, length)
    assert window.cells == expected
    assert window.seconds == min(length, len(seconds))
