"""What people watch: the points of both sides of a rollout, and the spread of their latencies."""

import asyncio
import contextlib
from itertools import pairwise
from types import SimpleNamespace

import pytest
from hypothesis import given, settings, strategies as st

from splitproxy.control.events import Events
from splitproxy.control.rollouts import trends
from splitproxy.control.rollouts.measuring import Keys
from splitproxy.control.signals import Signals
from splitproxy.core import stats

OLD = (stats.SERIES, "shop", "0", "v1", "primary")
NEW = (stats.SERIES, "shop", "0", "v2", "canary")
COPY = (stats.SERIES, "shop", "0", "v2", "mirror")
KEYS = Keys((NEW,), (COPY,), (OLD,))
ROLLOUT = {"name": "shop", "primary": "v1", "canary": "v2"}
SECOND = st.dictionaries(st.sampled_from(stats.OUTCOMES), st.integers(1, 50), max_size=3)


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


class Scene:
    """One worker's counters, sampled once a second."""

    def __init__(self, regions):
        self.clock, self.region = Clock(), regions.worker(0)
        for key in (OLD, NEW, COPY):
            self.region.block(key)
        self.signals = Signals(regions.descriptor, lambda: [0], self.clock)

    def second(self, key, outcomes, seconds=0.01):
        """Count attempts, all of the same duration, and let a second pass."""
        place = self.region.block(key)
        for outcome, count in outcomes.items():
            self.region.cells[place + stats.OUTCOME + stats.OUTCOMES.index(outcome)] += count
            self.region.cells[place + stats.ATTEMPT_HISTOGRAM + stats.bucket(seconds)] += count
        self.clock.now += 1
        self.signals.sample()


@pytest.fixture
def scene(regions):
    return Scene(regions)


def test_a_point_is_about_the_seconds_before_it(scene):
    for number in range(20):
        scene.second(NEW, {"success": 8, "5xx": 2} if number == 10 else {"success": 10})
    found = trends.points(scene.signals, [NEW], 20)
    assert len(found) == 20
    assert [point[2] for point in found] == [100.0] * 10 + [96.0] * 5 + [100.0] * 5
    assert {point[1] for point in found} == {10.0}
    assert all(b[0] - a[0] == pytest.approx(1.0, abs=0.11) for a, b in pairwise(found))
    assert all(0.009 < value <= 0.01 for value in found[-1][3:])
    assert trends.points(scene.signals, [NEW], 0) == []


def test_without_attempts_there_is_no_share_and_no_latency(scene):
    scene.second(OLD, {"success": 1})
    scene.second(OLD, {"client_gone": 3})
    assert trends.points(scene.signals, [NEW], 1)[0][1:] == [0.0, None, None, None, None]
    at_old = trends.points(scene.signals, [OLD], 1)[0]
    assert at_old[1:3] == [2.0, 100.0], "who left says nothing of success"


def test_a_trend_has_both_upstreams_and_the_copies_apart(scene):
    scene.second(OLD, {"success": 4}, seconds=0.2)
    scene.second(COPY, {"success": 3}, seconds=0.05)
    scene.second(NEW, {"success": 1}, seconds=0.05)
    found = trends.trend(scene.signals, ROLLOUT, KEYS, 600)
    assert found["points"].keys() == {"v1", "v2"}
    assert [len(points) for points in found["points"].values()] == [3, 3]
    counts = found["latency"]["counts"]
    assert counts == {"v1": [[stats.bucket(0.2), 4]], "v2": [[stats.bucket(0.05), 1]]}
    assert found["latency"]["copies"] == [[stats.bucket(0.05), 3]]
    assert [point[1] for point in found["copies"]] == [0.0, 1.5, 1.0]
    assert found["latency"]["bounds"][stats.bucket(0.2)] == 0.2


def test_the_spread_is_of_the_last_minute(scene):
    scene.second(OLD, {"success": 100})
    for _ in range(60):
        scene.second(OLD, {"success": 1})
    assert trends.spread(scene.signals, [OLD]) == [[stats.bucket(0.01), 60]]


@settings(max_examples=40, deadline=None)
@given(st.lists(SECOND, min_size=1, max_size=15))
def test_what_slides_is_what_was_counted_last(seconds):
    sliding = trends.Sliding()
    for counted in seconds:
        sliding.add({stats.OUTCOME + stats.OUTCOMES.index(name): count for name, count in counted.items()})
    kept = seconds[-trends.POINT_SECONDS :]
    assert sliding.point(0.0)[1] == pytest.approx(sum(sum(one.values()) for one in kept) / len(kept), abs=0.006)


async def test_the_pulse_beats_only_while_somebody_listens(scene, monkeypatch):
    monkeypatch.setattr(trends, "_PULSE_SECONDS", 0.01)
    one = SimpleNamespace(plan=SimpleNamespace(name="shop"), rollout=ROLLOUT, facts=SimpleNamespace(keys=KEYS))
    state = SimpleNamespace(events=Events(), signals=scene.signals, rollouts=SimpleNamespace(controllers={"shop": one}))
    beating = asyncio.ensure_future(trends.keep_pulsing(state))
    scene.second(NEW, {"success": 2})
    with state.events.subscribe(signals=True) as queue:
        event = await asyncio.wait_for(queue.get(), 10)
    assert event.kind == "signals"
    assert event.data["rollouts"]["shop"]["v2"][1:3] == [2.0, 100.0]
    assert event.data["copies"]["shop"][1:3] == [0.0, None]
    beating.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await beating
