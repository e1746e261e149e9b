"""Rollouts that are played: who is rolled back, how soon, and how seldom wrongly."""

import math

import pytest

np = pytest.importorskip("numpy")

from splitproxy.core.evidence import Terms  # noqa: E402
from splitproxy.simulation.bound import least_requests  # noqa: E402
from splitproxy.simulation.many import play  # noqa: E402
from splitproxy.simulation.playing import BY_ERRORS, BY_LATENCY, BY_LIMITS  # noqa: E402
from splitproxy.simulation.policy import Policy, Step  # noqa: E402
from splitproxy.simulation.rivals import RULES, Rule, Watcher  # noqa: E402
from splitproxy.simulation.summary import columns, upper_bound  # noqa: E402
from splitproxy.simulation.traffic import Traffic, chances, shares  # noqa: E402

STRICT = Terms(errors=1.0, latency=1.0, delay=0.0, warmup=0.0)
HELD = Policy((Step(0.05, 10**9, 10**9, 3600, by_evidence=False),), STRICT)


def ramp(alpha, seconds=10):
    steps = tuple(Step(weight, seconds, 1, seconds, by_evidence=False) for weight in (0.01, 0.05, 0.1, 0.25, 0.5))
    return Policy(steps, STRICT._replace(alpha=alpha, horizon=5 * seconds))


@pytest.mark.parametrize(
    "traffic",
    [
        Traffic(errors=0.01, seconds=50),
        Traffic(errors=0.005, drift=10.0, seconds=50),
        Traffic(errors=0.005, bursts=True, seconds=50),
        Traffic(errors=0.005, sticky=True, seconds=50),
    ],
    ids=["steady", "drift", "bursts", "sticky"],
)
def test_a_canary_like_the_primary_is_rolled_back_no_more_often_than_said(traffic):
    runs, alpha = 300, 0.05
    played = play(ramp(alpha), traffic, runs, 3)
    assert np.isfinite(played.rolled_back).sum() <= runs * alpha + 3 * math.sqrt(runs * alpha * (1 - alpha))
    assert (np.isfinite(played.rolled_back) ^ np.isfinite(played.promoted)).all()


@pytest.mark.parametrize(
    ("kind", "size", "cause", "bad", "seconds"),
    [
        ("errors", 0.5, BY_ERRORS, 4, 0.2),
        ("errors", 0.05, BY_ERRORS, 5, 2.0),
        ("tail", 2.0, BY_LATENCY, 2, 6.0),
    ],
)
def test_a_bad_canary_is_found_soon(kind, size, cause, bad, seconds):
    played = play(HELD, Traffic(kind=kind, size=size, seconds=60), 150, 3)
    assert np.median(played.rolled_back) <= seconds
    assert np.median(played.bad) <= bad
    assert (played.cause == cause).all()
    assert (played.canary_requests <= played.requests).all()
    assert played.requests == pytest.approx(played.rolled_back * 1000, rel=0.5, abs=60)


def test_one_that_turns_bad_late_is_found_from_then_on():
    played = play(HELD, Traffic(kind="errors", size=0.5, onset=20, seconds=30), 100, 3)
    (own,) = columns(played, (), 20, wrong=True)
    assert (own.rolled_back, own.early) == (100, 0)
    assert own.seconds.median < 1.0
    assert own.bad.median <= 8


def test_evidence_takes_steps_sooner_and_limits_roll_back_without_a_comparison():
    steps = tuple(Step(weight, 0, 1, 60, by_evidence=True) for weight in (0.05, 0.5))
    fast = play(Policy(steps, STRICT), Traffic(seconds=120), 50, 3)
    assert np.nanmedian(fast.promoted) < 60
    alone = Policy((Step(0.05, 60, 5, 10, by_evidence=False),), STRICT, compare=False, threshold=2, success=0.99)
    found = play(alone, Traffic(kind="errors", size=0.05, seconds=60), 50, 3)
    assert (found.cause == BY_LIMITS).all()
    assert {*found.rolled_back} == {20.0}


def test_the_same_seed_gives_the_same_on_any_number_of_processes(monkeypatch):
    from splitproxy.simulation import many

    monkeypatch.setattr(many, "CHUNK", 20)
    traffic, told = Traffic(kind="errors", size=0.05, seconds=10), []
    one, other = (play(HELD, traffic, 40, 9, progress=told.append) for _ in range(2))
    assert [*one.rolled_back] == [*other.rolled_back]
    assert told == [20, 40, 20, 40]
    assert [*one.rolled_back] != [*play(HELD, traffic, 40, 10).rolled_back]


class TestRivals:
    @pytest.mark.parametrize(
        ("rule", "bad", "second"),
        [
            (RULES[0], 0.05, 360),  # five failed checks, and the rollback one interval later
            (RULES[2], 0.05, 20),
            (RULES[3], 0.06, 1200),
            (RULES[4], 0.05, 240),
            (RULES[0], 0.005, math.nan),
        ],
    )
    def test_their_rules(self, rule, bad, second):
        watcher = Watcher(rule, 1)
        for now in range(1, 1300):
            watcher.see(now, np.array([100 * now]), np.array([int(100 * bad * now)]), np.array([0]))
        assert [*watcher.at] == pytest.approx([second], nan_ok=True)

    def test_no_data_is_a_failed_check_and_a_slow_p99_too(self):
        for requests, slow in ((0, 0), (100, 2)):
            watcher = Watcher(Rule("x", 10, 10, 0.99, 1, next_tick=True, duration=True), 1)
            for now in range(1, 31):
                watcher.see(now, np.array([requests * now]), np.array([0]), np.array([slow * now]))
            assert [*watcher.at] == [20.0]


class TestTraffic:
    def test_latency_is_as_in_the_study(self):
        primary, tail, good = shares(Traffic(kind="tail", size=2.0), 1.0, 0.0)
        exceeding = np.cumsum(tail[::-1])[::-1][1:]
        assert primary == pytest.approx([0.5, 0.25, 0.15, 0.05, 0.04, 0.009, 0.001], abs=1e-6)
        assert exceeding == pytest.approx([0.5, 0.25, 0.1, 0.082, 0.05, 0.023], abs=0.002)
        assert good == pytest.approx(primary)
        _, slower, _ = shares(Traffic(kind="latency", size=1.1), 1.0, 0.0)
        wanted = [0.576, 0.314, 0.138, 0.073, 0.016, 0.0019]
        assert np.cumsum(slower[::-1])[::-1][1:] == pytest.approx(wanted, rel=0.03)

    def test_what_is_tolerated_makes_the_canary_look_faster(self):
        primary, canary, _ = shares(Traffic(kind="latency", size=1.1), 1.1, 0.0)
        assert canary == pytest.approx(primary)
        _, canary, good = shares(Traffic(kind="latency", size=1.1), 1.0, 0.05)
        assert canary[0] > 0.8 > primary[0], "50 ms more are tolerated of a median of 50 ms"
        assert good[0] > canary[0]

    def test_errors_grow_and_come_on_top(self):
        traffic = Traffic(errors=0.001, drift=10.0, kind="errors", size=0.05, onset=5, seconds=10)
        assert chances(traffic, 0) == (1000.0, 0.001, 0.001)
        assert chances(traffic, 10).errors == pytest.approx(0.01)
        assert chances(traffic, 5).canary_errors == pytest.approx(0.05 + 0.001 * 10**0.5)


def test_the_least_requests_that_any_test_needs():
    divergence = 0.75 * math.log(1.5) - 0.25 * math.log(2)
    assert least_requests(0.01, 0.5, 0.1, 0.3, 1.0) == pytest.approx(math.log(100) / 0.2 / divergence)
    assert least_requests(0.01, 0.05, 0.0, 0.5, 1.0) == pytest.approx(math.log(100) / math.log(20) / 0.025)


@pytest.mark.parametrize(
    ("events", "trials", "bound"), [(0, 1000, 0.00299), (1, 1000, 0.00473), (5, 20000, 0.000526), (7, 7, 1.0)]
)
def test_the_exact_bound_of_a_chance(events, trials, bound):
    assert upper_bound(events, trials) == pytest.approx(bound, rel=0.002)
