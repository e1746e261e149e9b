"""The signals' layout: buckets, quantiles, statuses, regions."""

import math
import mmap

import pytest
from hypothesis import given, settings, strategies as st

from splitproxy.core import stats

many = settings(max_examples=150, deadline=None, database=None)
SECONDS = st.floats(0, 99.9, allow_nan=False)


def histogram(values):
    counts = [0] * stats.BUCKETS
    for value in values:
        counts[stats.bucket(value)] += 1
    return counts


def test_bounds_ascend_from_a_tenth_of_a_millisecond_to_100_seconds():
    assert list(stats.BOUNDS) == sorted(set(stats.BOUNDS))
    assert (stats.BOUNDS[0], stats.BOUNDS[-1]) == (0.0001, 100.0)
    assert {0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0} <= set(stats.BOUNDS)


@given(st.floats(0, 1000, allow_nan=False) | st.sampled_from(stats.BOUNDS))
@many
def test_a_value_lies_in_its_bucket_bounds_inclusive_above(value):
    index = stats.bucket(value)
    assert 0 <= index < stats.BUCKETS
    assert index == len(stats.BOUNDS) or value <= stats.BOUNDS[index]
    assert index == 0 or value > stats.BOUNDS[index - 1]


@given(st.lists(SECONDS, min_size=1, max_size=60), st.floats(0, 1))
@many
def test_a_quantile_is_within_its_bucket_of_the_true_one(values, q):
    true = sorted(values)[max(math.ceil(q * len(values)), 1) - 1]
    index = stats.bucket(true)
    low = stats.BOUNDS[index - 1] if index else 0.0
    found = stats.quantile(histogram(values), q)
    assert low - 1e-12 <= found <= stats.BOUNDS[index] + 1e-12


@given(st.lists(SECONDS, min_size=1, max_size=60), st.lists(st.floats(0, 1), min_size=2, max_size=5))
@many
def test_quantiles_ascend(values, places):
    found = [stats.quantile(histogram(values), q) for q in sorted(places)]
    assert found == sorted(found)


@given(st.lists(SECONDS, max_size=40), st.lists(SECONDS, max_size=40))
@many
def test_addition_merges_and_subtraction_makes_a_window(first, second):
    merged = [one + other for one, other in zip(histogram(first), histogram(second), strict=True)]
    assert merged == histogram(first + second)
    window = [after - before for after, before in zip(merged, histogram(first), strict=True)]
    assert stats.quantile(window, 0.9) == stats.quantile(histogram(second), 0.9)


def test_the_quantile_of_nothing_is_unknown_and_beyond_the_last_bound_it_is_that():
    assert stats.quantile([0] * stats.BUCKETS, 0.5) is None
    assert stats.quantile(histogram([500.0]), 0.5) == 100.0


@pytest.mark.parametrize(
    ("status", "label"),
    [
        (200, "200"),
        (404, "404"),
        (499, "499"),
        (299, "2xx"),
        (418, "418"),
        (599, "5xx"),
        (999, "5xx"),
        (199, "1xx"),
        (101, "101"),
    ],
)
def test_a_status_is_counted_by_itself_or_in_its_class(status, label):
    assert stats.CODES[stats.CODE_INDEX[status]] == label


def test_every_status_has_a_cell():
    assert len(stats.CODE_INDEX) == 1000
    assert set(stats.CODE_INDEX) == set(range(len(stats.CODES)))


def test_the_groups_of_a_block_do_not_overlap():
    groups = [
        (stats.CODE, len(stats.CODES)),
        *((cell, 1) for cell in (stats.REQUEST_BYTES, stats.RESPONSE_BYTES, stats.IN_FLIGHT, stats.REQUEST_NS)),
        *((cell, 1) for cell in (stats.ATTEMPT_NS, stats.REPLAYS)),
        (stats.REQUEST_HISTOGRAM, stats.BUCKETS),
        (stats.ATTEMPT_HISTOGRAM, stats.BUCKETS),
        (stats.OUTCOME, len(stats.OUTCOMES)),
        (stats.REASON, len(stats.REASONS)),
        (stats.DROP, len(stats.DROPS)),
    ]
    cells = [cell for start, size in groups for cell in range(start, start + size)]
    assert len(cells) == len(set(cells))
    assert max(cells) < stats.BLOCK


@pytest.fixture
def cells():
    return memoryview(mmap.mmap(-1, stats.REGION_BYTES)).cast("Q")


KEY = (stats.SERIES, "route", "rule", "a", "primary")


def test_a_key_has_one_block_that_a_reader_finds(cells):
    region = stats.Region(cells)
    place = region.block(KEY)
    assert region.block(KEY) == place
    assert region.block((stats.ENDPOINT, "a", "1.2.3.4:80", "")) == place + stats.BLOCK
    assert dict(stats.directory(cells))[KEY] == place
    assert next(key for key, _ in stats.directory(cells)) == stats.OVERFLOW_KEY
    assert len(list(stats.directory(cells, known=2))) == 1


def test_a_worker_that_takes_over_finds_counters_and_no_gauges(cells):
    region = stats.Region(cells)
    place, endpoint = region.block(KEY), region.block((stats.ENDPOINT, "a", "1.2.3.4:80", ""))
    cells[place + stats.CODE] = 7
    cells[place + stats.IN_FLIGHT] = 3
    cells[endpoint + stats.ENDPOINT_ACTIVE] = 2
    cells[endpoint + stats.ENDPOINT_REQUESTS] = 9
    cells[stats.CONNECTIONS] = 5
    again = stats.Region(cells)
    assert again.block(KEY) == place
    assert [cells[place + stats.CODE], cells[endpoint + stats.ENDPOINT_REQUESTS]] == [7, 9]
    assert [cells[place + stats.IN_FLIGHT], cells[endpoint + stats.ENDPOINT_ACTIVE], cells[stats.CONNECTIONS]] == [
        0,
        0,
        0,
    ]


def test_what_finds_no_room_is_counted_in_the_first_block(cells):
    region = stats.Region(cells)
    first = region.block(stats.OVERFLOW_KEY)
    assert region.block((stats.SERIES, "r" * 600, "0", "a", "primary")) == first
    assert cells[stats.OVERFLOWS] == 1
    cells[stats.USED] = stats.MAX_BLOCKS
    assert region.block(KEY) == first
    assert cells[stats.OVERFLOWS] == 2
