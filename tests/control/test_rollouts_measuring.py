import asyncio

import pytest

from splitproxy.control.rollouts.measuring import Measuring, Template, counters, keys
from splitproxy.control.signals import Signals
from splitproxy.core import stats
from splitproxy.core.analysis import Measurement
from splitproxy.core.rollout.plan import MetricPlan, Plan, Stage
from splitproxy.core.rollout.state import State

ROLLOUT = {"name": "shop", "route": "shop", "primary": "v1", "canary": "v2", "rules": ["0"]}
RATE = MetricPlan("request-success-rate", "request-success-rate", min=99.0)
SLOW = MetricPlan("request-duration", "request-duration", max=500.0)
LIVE = State(phase="Progressing", step=0, weight=1000)
STAGE = Stage(weight=1000)


def plan(*metrics, stage=STAGE, compare=True):
    return Plan(
        *("shop", "shop", "v1", "v2", "1", "digest"), (stage,), metrics, (), "canary", interval=10.0, compare=compare
    )


class Bench:
    """One rollout's measurements over the memory of two workers, and a clock that is moved by hand."""

    def __init__(self, regions):
        self.now = 100.0
        self.workers = [regions.worker(0), regions.worker(1)]
        self.alive = {0, 1}
        self.signals = Signals(regions.descriptor, lambda: self.alive, lambda: self.now)
        self.where = keys(ROLLOUT, ["0", "forced"])
        self.templates = {}
        self.measuring = self.new()

    def new(self):
        return Measuring(self.signals, lambda: self.now, ROLLOUT, self.where, self.templates)

    def serve(self, upstream, role, worker=0, rule="0", seconds=0.01, **outcomes):
        region = self.workers[worker]
        block = region.block((stats.SERIES, "shop", rule, upstream, role))
        for outcome, count in outcomes.items():
            region.cells[block + stats.OUTCOME + stats.OUTCOMES.index(outcome.removeprefix("_"))] += count
            if outcome not in ("client_gone", "connect_failed"):
                region.cells[block + stats.ATTEMPT_HISTOGRAM + stats.bucket(seconds)] += count
        self.signals.refresh()

    def check(self, of, state=LIVE):
        return self.whole_check(of, state).verdicts

    def whole_check(self, of, state=LIVE, **more):
        return asyncio.run(self.measuring.check(of, state, self.now, **more))


@pytest.fixture
def bench(regions):
    return Bench(regions)


def test_a_check_counts_what_came_since_the_one_before_on_both_sides(bench):
    bench.serve("v2", "canary", success=7)  # before the measuring began to look
    bench.measuring.restart(100.0)
    bench.now = 110.0
    bench.serve("v2", "canary", success=90, _5xx=5, connect_failed=1, upstream_timeout=2, client_gone=50, cancelled=3)
    bench.serve("v2", "canary", worker=1, success=2)
    bench.serve("v1", "primary", success=1000)
    (verdict,) = bench.check(plan(RATE))
    assert (verdict.outcome, verdict.value, verdict.sample, verdict.seconds) == ("fail", 92.0, 100, 10.0)
    assert verdict.primary == 100.0
    bench.now = 120.0
    bench.serve("v2", "canary", success=10)
    (verdict,) = bench.check(plan(RATE))
    assert (verdict.outcome, verdict.value, verdict.sample) == ("pass", 100.0, 10)
    bench.now = 130.0
    assert bench.check(plan(RATE))[0].outcome == "inconclusive"


def test_both_roles_and_forced_traffic_count_for_the_canary(bench):
    bench.now = 110.0
    bench.serve("v2", "canary", success=1)
    bench.serve("v2", "primary", success=2)  # after a swap
    bench.serve("v2", "primary", rule="forced", success=4)
    bench.serve("v2", "canary", rule="of somebody else", success=8)
    bench.serve("v2", "mirror", success=16)
    assert bench.check(plan(RATE))[0].sample == 7


def test_while_only_copies_reach_the_canary_they_are_what_counts(bench):
    bench.now = 110.0
    bench.serve("v2", "mirror", success=16)
    bench.serve("v2", "canary", success=1)
    mirroring = LIVE._replace(weight=0, mirror=10_000)
    assert bench.check(plan(RATE), mirroring)[0].sample == 16
    bench.now = 120.0
    bench.serve("v2", "mirror", success=16)
    bench.serve("v2", "canary", success=1)
    assert bench.check(plan(RATE), mirroring._replace(cohorts=1))[0].sample == 1


def test_durations_are_those_of_first_attempts_at_the_quantile(bench):
    bench.now = 110.0
    bench.serve("v2", "canary", success=98, seconds=0.1)
    bench.serve("v2", "canary", success=2, seconds=1.0)
    slow, median = bench.check(plan(SLOW, SLOW._replace(name="median", quantile=0.5)))
    assert (slow.outcome, slow.unit, slow.sample) == ("fail", "ms", 100)
    assert 950 <= slow.value <= 1000
    assert (median.outcome, 90 <= median.value <= 100) == ("pass", True)


def test_rates_and_gauges(bench):
    bench.now = 110.0
    bench.serve("v2", "canary", success=40, client_gone=10)
    for worker, flying in ((0, 3), (1, 4)):
        region = bench.workers[worker]
        region.cells[region.block((stats.SERIES, "shop", "0", "v2", "canary")) + stats.IN_FLIGHT] = flying
    bench.signals.refresh()
    metrics = (
        MetricPlan("request-rate", "request-rate", min=10.0),
        MetricPlan("requests-in-flight", "requests-in-flight", max=6.0),
    )
    rate, flying = bench.check(plan(*metrics))
    assert (rate.outcome, rate.value) == ("fail", 5.0)
    assert (flying.outcome, flying.value) == ("fail", 7.0)
    bench.alive = {0}
    assert bench.check(plan(*metrics))[1].value == 3.0  # what a dead worker had in flight is over


def test_a_metric_with_an_interval_looks_back_over_it_but_never_before_the_step(bench):
    metrics = plan(RATE._replace(interval=30.0))
    for _ in range(5):
        bench.now += 10.0
        bench.serve("v2", "canary", success=10)
        (verdict,) = bench.check(metrics)
    assert (verdict.sample, verdict.seconds) == (30, 30.0)
    bench.measuring.restart(bench.now)
    bench.now += 10.0
    bench.serve("v2", "canary", success=10)
    (verdict,) = bench.check(metrics)
    assert (verdict.sample, verdict.seconds) == (10, 10.0)


def test_a_window_shorter_than_the_checks_are_apart_has_marks_of_its_own(bench):
    metrics = plan(RATE._replace(interval=5.0))
    for _ in range(100):
        bench.now += 0.1
        bench.serve("v2", "canary", success=1)
        bench.measuring.note(metrics, bench.now)
    (verdict,) = bench.check(metrics)
    assert 4.5 <= verdict.seconds <= 5.5
    assert 45 <= verdict.sample <= 55
    for _ in range(1000):
        bench.now += 0.6
        bench.measuring.note(metrics, bench.now)
    assert len(bench.measuring._marks) < 20


def test_a_step_has_its_own_limits_and_sample(bench):
    bench.now = 110.0
    bench.serve("v2", "canary", success=95, _5xx=5)
    own = Stage(weight=1000, limits=(("request-success-rate", 90.0, None),))
    assert bench.check(plan(RATE, stage=own))[0].outcome == "pass"
    bench.now = 120.0
    bench.serve("v2", "canary", success=95, _5xx=5)
    verdict = bench.check(plan(RATE, stage=Stage(weight=1000, min_requests=101)))[0]
    assert (verdict.outcome, verdict.sample) == ("inconclusive", 100)


def test_what_the_primary_fails_too_says_nothing(bench):
    for compare, outcome in ((True, "inconclusive"), (False, "fail")):
        bench.now += 10.0
        bench.serve("v2", "canary", success=5, _5xx=5)
        bench.serve("v1", "primary", success=50, _5xx=50)
        assert bench.check(plan(RATE, compare=compare))[0].outcome == outcome


def test_a_hard_limit_is_seen_between_checks(bench):
    hard = plan(RATE._replace(hard_min=50.0, min_requests=10))
    bench.now += 0.1
    bench.serve("v2", "canary", _5xx=9)
    assert bench.measuring.look(hard, LIVE, bench.now) is None
    bench.serve("v2", "canary", _5xx=1)
    verdict, side, _ = bench.measuring.look(hard, LIVE, bench.now)
    assert side == "canary"
    assert (verdict.outcome, verdict.sample, verdict.value) == ("fail", 10, 0.0)
    assert bench.measuring.look(plan(RATE), LIVE, bench.now) is None
    bench.measuring.restart(bench.now)
    assert bench.measuring.look(hard, LIVE, bench.now) is None


class Scripted:
    def __init__(self, answer):
        self.answer, self.asked = answer, []

    async def query(self, text):
        self.asked.append(text)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def test_other_providers_are_asked_with_every_name_filled_in(bench):
    provider = Scripted(Measurement(0.4))
    bench.templates["errors"] = Template(provider, "errors{v='{{ canary }}',z='{{ variables.zone }}'}[{{ interval }}]")
    own = MetricPlan(
        "errors", "template", max=1.0, interval=60.0, template="errors", variables=(("zone", "eu"),), min_requests=50
    )
    bench.now = 110.0
    verdict = bench.check(plan(own))[0]
    assert (verdict.outcome, verdict.value, verdict.seconds) == ("pass", 0.4, 60.0)
    assert provider.asked == ["errors{v='v2',z='eu'}[60s]"]
    bench.check(plan(own._replace(interval=0.0)))
    assert provider.asked[-1].endswith("[10s]")


@pytest.mark.parametrize("answer", [RuntimeError("broken"), Measurement(None, error="HTTP 500")])
def test_a_provider_that_fails_is_an_error_and_no_failed_check(bench, answer):
    bench.templates["errors"] = Template(Scripted(answer), "errors")
    verdict = bench.check(plan(MetricPlan("errors", "template", max=1.0, template="errors")))[0]
    assert verdict.outcome == "error"
    assert "broken" in verdict.reason or "HTTP 500" in verdict.reason


def test_a_new_process_measures_from_the_last_check_on(bench):
    bench.now = 110.0
    bench.serve("v2", "canary", success=10)
    bench.check(plan(RATE))
    saved = bench.measuring.saved()
    bench.now = 125.0
    bench.serve("v2", "canary", _5xx=5)  # while nobody ran the rollout
    after = bench.measuring = bench.new()
    after.resume(saved, 100.0, 112.0)
    bench.serve("v2", "canary", success=5)
    verdict = bench.check(plan(RATE))[0]
    assert (verdict.sample, verdict.value, verdict.seconds) == (10, 50.0, 15.0)


def test_marks_of_another_step_or_another_life_are_worth_nothing(bench):
    bench.serve("v2", "canary", success=10)
    bench.now = 110.0
    bench.check(plan(RATE))
    saved = bench.measuring.saved()
    for mark, since in ((saved, 111.0), ({**saved, "canary": [[stats.BUCKETS, 10**9]]}, 100.0)):
        bench.measuring = bench.new()
        bench.measuring.resume(mark, since, 112.0)
        assert bench.check(plan(RATE))[0].sample == 0
    assert "/" in counters(bench.signals._descriptor)


HANDED_BACK = LIVE._replace(phase="Baking", step=1, weight=0, handed_back=True)


def test_an_updated_primary_is_judged_in_the_canarys_place_and_compared_with_nobody(bench):
    provider = Scripted(Measurement(2.0))
    bench.templates["errors"] = Template(provider, "{{ canary }} {{ target }} {{ primary }}")
    foreign = MetricPlan("errors", "template", max=3.0, template="errors")
    bench.now = 110.0
    bench.serve("v1", "primary", success=90, _5xx=10)
    bench.serve("v2", "canary", success=100)
    own, errors = bench.whole_check(plan(RATE, foreign), HANDED_BACK, side="primary").verdicts
    assert (own.outcome, own.value, own.sample, own.primary) == ("fail", 90.0, 100, None)
    assert "(primary, 100 requests in 10 s)" in own.reason
    assert errors.outcome == "pass"
    assert provider.asked == ["v1 v1 v1"]
    hard = plan(RATE._replace(hard_min=95.0))
    bench.now = 111.0
    verdict, side, _ = bench.measuring.look(hard, HANDED_BACK, bench.now)
    assert (side, verdict.value) == ("primary", 90.0)
    assert bench.measuring.look(hard, LIVE._replace(weight=0), bench.now) is None


def test_a_hard_limit_on_a_metric_from_elsewhere_is_judged_by_the_check(bench):
    bench.templates["errors"] = Template(Scripted(Measurement(9.0)), "errors")
    metric = MetricPlan("errors", "template", hard_max=5.0, template="errors")
    found = bench.whole_check(plan(metric))
    assert (found.broken.side, found.broken.verdict.value) == ("canary", 9.0)
    assert "hard limit: errors 9 is above 5" in found.broken.verdict.reason
    assert found.verdicts == (found.broken.verdict,)
    assert bench.whole_check(plan(metric._replace(hard_max=10.0))).broken is None
