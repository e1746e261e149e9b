"""A worker that stands still is noticed, one that is slow or new is not."""

import os
from types import SimpleNamespace

import pytest

from splitproxy.core.stats import REGION_BYTES, TICKS
from splitproxy.vigil import STANDING_LOOKS, Vigil


@pytest.fixture
def memory():
    descriptor = os.memfd_create("stats")
    os.ftruncate(descriptor, 2 * REGION_BYTES)
    yield descriptor
    os.close(descriptor)


def tick(memory, slot, count):
    os.pwrite(memory, count.to_bytes(8, "little"), slot * REGION_BYTES + 8 * TICKS)


def test_only_who_has_not_ticked_for_several_looks_stands_still(memory):
    vigil, moving, standing = Vigil(memory), SimpleNamespace(pid=1, slot=0), SimpleNamespace(pid=2, slot=1)
    found = []
    for look in range(STANDING_LOOKS + 1):
        tick(memory, 0, look)
        found.append([worker.pid for worker in vigil.look([moving, standing])])
    assert found == [[]] * STANDING_LOOKS + [[2]]


def test_control_that_has_spoken_and_says_nothing_more_stands_still(memory):
    vigil, control = Vigil(memory), SimpleNamespace(pid=3, slot=None)
    for _ in range(2 * STANDING_LOOKS):
        assert list(vigil.look([control])) == [], "it is still starting"
    found = []
    for look in range(2 * STANDING_LOOKS):
        if look < STANDING_LOOKS:
            vigil.heard(control)
        found += vigil.look([control])
    assert found == [control], "at the last look"


def test_a_replacement_begins_anew(memory):
    vigil = Vigil(memory)
    for _ in range(STANDING_LOOKS):
        assert list(vigil.look([SimpleNamespace(pid=1, slot=0)])) == []
    for _ in range(STANDING_LOOKS):
        assert list(vigil.look([SimpleNamespace(pid=2, slot=0)])) == []


def test_one_tick_in_between_is_enough(memory):
    vigil, worker = Vigil(memory), SimpleNamespace(pid=1, slot=0)
    for look in range(4 * STANDING_LOOKS):
        if look % (STANDING_LOOKS - 1) == 0:
            tick(memory, 0, look + 1)
        assert list(vigil.look([worker])) == []
