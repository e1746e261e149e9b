"""Live shares in shared memory: what a cell says, and where it stands."""

import mmap
from hashlib import blake2b

import pytest
from hypothesis import given, strategies as st

from splitproxy.core import live
from splitproxy.core.live import Area, Traffic
from splitproxy.errors import LiveFull

shares = st.integers(0, live.EVERYTHING)
traffics = st.builds(Traffic, shares, shares, st.integers(0, live.MAX_COHORTS), st.booleans())
keys = st.text("0123456789abcdef", min_size=1, max_size=64)


def empty(slots=live.SLOTS):
    return memoryview(bytearray(slots * 128)).cast("Q")


# --- cells -----------------------------------------------------------------------------------------------------------
@given(traffics, st.integers(0, (1 << 28) - 1))
def test_a_cell_says_what_it_was_made_of(traffic, epoch):
    cell = live.encode(traffic, epoch)
    assert live.decode(cell) == traffic
    assert live.epoch(cell) == epoch
    assert 0 <= cell < 1 << 64


def test_the_layout_is_the_documented_one():
    assert live.encode(Traffic(1, 2, 3, True), 4) == 4 << 36 | 1 << 35 | 3 << 28 | 2 << 14 | 1


def test_epochs_start_again_and_touch_nothing_else():
    assert live.encode(Traffic(5), (1 << 28) + 7) == live.encode(Traffic(5), 7)


def test_a_cell_that_was_never_written_sends_nothing_to_the_canary():
    assert live.decode(0) == Traffic(weight=0, mirror=0, cohorts=0, swapped=False)


@pytest.mark.parametrize(
    ("traffic", "text"),
    [
        (Traffic(weight=10_001), "weight 10001 is not within 0 and 10000"),
        (Traffic(weight=-1), "weight -1 is not within 0 and 10000"),
        (Traffic(mirror=10_001), "mirror 10001 is not within 0 and 10000"),
        (Traffic(cohorts=128), "cohorts 128 is not within 0 and 127"),
    ],
)
def test_what_does_not_fit_is_refused(traffic, text):
    with pytest.raises(ValueError, match=text):
        live.encode(traffic, 0)


def test_the_salt_is_the_documented_digest():
    digest = blake2b(b"shop\x002.1.0\x003", digest_size=8).digest()
    assert live.salt("shop", "2.1.0", 3) == int.from_bytes(digest, "big")
    assert len({live.salt("shop", "2.1.0", attempt) for attempt in range(100)}) == 100
    assert live.salt("shop", "2.1.0", 31) != live.salt("shop", "2.1.03", 1)


# --- the area --------------------------------------------------------------------------------------------------------
def test_the_area_lies_behind_all_regions_on_whole_pages():
    assert live.LIVE_OFFSET % mmap.ALLOCATIONGRANULARITY == 0
    assert live.LIVE_BYTES % mmap.PAGESIZE == 0
    assert live.LIVE_BYTES == live.SLOTS * 128


@given(st.lists(keys, max_size=20), st.lists(keys, max_size=5))
def test_every_key_has_one_slot_wherever_it_is_looked_for(taken, others):
    cells = empty(32)
    control, worker = Area(cells), Area(cells.toreadonly())
    slots = {key: control.slot(key, take=True) for key in taken}
    assert sorted(slots.values()) == list(range(len(slots)))
    for area in (control, worker, Area(cells)):
        assert {key: area.slot(key, take=False) for key in taken} == slots
        for key in others:
            assert area.slot(key, take=False) == slots.get(key)


def test_cell_and_salt_of_a_slot_are_seen_by_all():
    cells = empty(4)
    control, worker = Area(cells), Area(cells.toreadonly())
    assert (control.slot("a", take=True), control.slot("b", take=True)) == (0, 1)
    assert (worker.read(1), worker.salt(1)) == (0, 0)
    control.write(1, 7)
    control.write_salt(1, 2**64 - 1)
    slot = worker.slot("b", take=False)
    assert (worker.read(slot), worker.salt(slot)) == (7, 2**64 - 1)
    assert (worker.cells[worker.place(slot)], worker.cells[worker.place(slot) + 1]) == (7, 2**64 - 1)
    assert (worker.read(0), worker.salt(0)) == (0, 0)


def test_whoever_comes_later_finds_everything_as_it_was():
    cells = empty(4)
    before = Area(cells)
    before.write(before.slot("a", take=True), 7)
    after = Area(cells)
    assert after.read(after.slot("a", take=True)) == 7
    assert after.slot("b", take=True) == before.slot("b", take=False) == 1


def test_a_full_area_says_so_and_still_finds_its_keys():
    area = Area(empty(2))
    slots = [area.slot(key, take=True) for key in ("a", "f" * 64)]
    with pytest.raises(LiveFull, match="no room for more than 2"):
        area.slot("c", take=True)
    assert [area.slot(key, take=True) for key in ("a", "f" * 64)] == slots
    assert area.slot("c", take=False) is None


@pytest.mark.parametrize("key", ["", "ü", "f" * 65, "a\0"])
def test_a_key_that_is_no_short_ascii_text_is_refused(key):
    with pytest.raises(ValueError, match="is not an ASCII text of 1 to 64 characters"):
        Area(empty(2)).slot(key, take=True)


def test_a_slot_that_was_given_back_is_at_rest_and_taken_last():
    control = Area(empty())
    worker = Area(control.cells)
    old = control.slot("old", take=True)
    control.slot("kept", take=True)
    assert worker.slot("old", take=False) == old
    control.write_salt(old, 9)
    control.write(old, 7)
    control.keep({"kept"})
    assert (control.read(old), control.salt(old)) == (0, 0)
    assert worker.slot("old", take=False) is None
    rest = [control.slot(f"new-{number}", take=True) for number in range(live.SLOTS - 1)]
    assert rest[-1] == old
    assert len(set(rest)) == live.SLOTS - 1
    assert worker.slot(f"new-{live.SLOTS - 2}", take=False) == old
    with pytest.raises(LiveFull):
        control.slot("one more", take=True)
