"""How a coin's results are written down, and read again."""

import pytest
from hypothesis import given, strategies as st

from splitproxy.core import tallies
from splitproxy.core.stats import BOUNDS, BUCKETS, bucket
from splitproxy.core.tallies import Aims, Coin, pack, passed, slow, tolerated, unpack

thresholds = st.lists(st.integers(0, BUCKETS - 2), min_size=6, max_size=6).map(sorted).map(tuple)


@given(thresholds, st.integers(0, (1 << 28) - 1))
def test_thresholds_are_those_of_their_epoch_alone(some, epoch):
    word = pack(some, epoch)
    assert 0 <= word < 1 << 64
    assert unpack(word, epoch) == some
    assert unpack(word, epoch + 1) == ()
    assert unpack(pack((), epoch), epoch) == ()


@given(st.floats(1, 10), st.floats(0, 60))
def test_what_is_tolerated_reaches_workers(factor, delay):
    word = Aims((), factor, delay).word()
    assert 0 <= word < 1 << 64
    scale, seconds = tolerated(word)
    assert 1 / scale == pytest.approx(factor, abs=0.001)
    assert seconds == pytest.approx(delay, abs=1e-6)
    assert tolerated(0) == (1.0, 0.0), "a slot that was never written tolerates nothing"


@pytest.mark.parametrize(
    ("seconds", "even"),
    [(0.001, -0.004), (0.040, 0.035), (0.055, 0.05), (0.110, 0.1), (2.2, 2.0)],
)
def test_a_duration_is_evened_by_what_takes_more(seconds, even):
    coin = Coin("shop", 1, 0, tallies.CANARY, False, (), 1 / 1.1, 0.005)
    assert coin.even(seconds) == pytest.approx(even)
    assert Coin("shop", 1, 0, tallies.PRIMARY, False, ()).even(seconds) == seconds


@given(thresholds, st.floats(0, 200))
def test_a_duration_is_beyond_the_thresholds_that_its_bucket_is_above(some, seconds):
    assert passed(some, seconds) == sum(bucket(seconds) > one for one in some)


@given(thresholds, st.lists(st.floats(0.00001, 150), max_size=30), st.lists(st.floats(0.00001, 150), max_size=30))
def test_every_request_is_beyond_or_below_each_threshold(some, canary, primary):
    cells = [0] * tallies.END
    for side, seconds in ((tallies.CANARY, canary), (tallies.PRIMARY, primary)):
        for one in seconds:
            cells[tallies.HISTOGRAM + side * BUCKETS + bucket(one)] += 1
    for side, seconds in ((tallies.CANARY, canary), (tallies.PRIMARY, primary)):
        found = slow(cells, side, some)
        assert [beyond + below for beyond, below in found] == [len(seconds)] * 6
        assert [beyond for beyond, _ in found] == [sum(one > BOUNDS[edge] for one in seconds) for edge in some]


def test_epochs_take_turns():
    keys = [tallies.key("shop", epoch) for epoch in range(20)]
    assert len(set(keys)) == tallies.PLACES
    assert keys[0] == keys[tallies.PLACES]


def test_a_stamp_tells_epochs_and_runs_apart():
    last = (1 << 28) - 1
    stamps = {tallies.stamp(epoch, salt) for epoch in (0, 1, 8, last) for salt in (0, 1, 7, (1 << 64) - 1)}
    assert len(stamps) == 16
    assert min(stamps) > 0, "0 is a block that nobody has used"
    assert max(stamps) < 1 << 64
