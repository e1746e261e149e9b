import math

import pytest
from hypothesis import given, strategies as st

from splitproxy.core.analysis import ERROR, FAIL, INCONCLUSIVE, PASS, Measurement, breach, judge
from splitproxy.core.rollout.plan import MetricPlan

RATE = MetricPlan("request-success-rate", "request-success-rate", min=99.0)
SLOW = MetricPlan("request-duration", "request-duration", max=500.0)
BOTH = MetricPlan("load", "request-rate", min=1.0, max=10.0)
OWN = MetricPlan("checkout-errors", "template", max=1.0, template="checkout-errors")
GOOD, BAD = Measurement(99.9, 340, 10.0), Measurement(91.2, 340, 10.0)
NOTHING = Measurement(None, 0, 10.0)

CHECKS = [
    # metric, canary, primary, outcome, reason
    (RATE, GOOD, None, PASS, "request-success-rate 99.9 % is within its limits (canary, 340 requests in 10 s)"),
    (RATE, Measurement(99.0, 9, 1.0), None, PASS, "request-success-rate 99 % is within its limits"),
    (RATE, BAD, GOOD, FAIL, "91.2 % is below 99 % (canary, 340 requests in 10 s; primary 99.9 %)"),
    (RATE, BAD, BAD, INCONCLUSIVE, "both sides fail: request-success-rate 91.2 % is below 99 %"),
    (RATE, BAD, Measurement(50.0, 4, 10.0), FAIL, "primary 50 %"),  # too few requests to excuse anything
    (RATE, BAD, NOTHING, FAIL, "is below 99 % (canary, 340 requests in 10 s)"),
    (RATE, BAD, Measurement(None, error="broken"), FAIL, "is below 99 %"),
    (RATE, Measurement(98.999, 1000, 10.0), None, FAIL, "98.999 % is below 99 %"),
    (RATE, Measurement(0.0, 4, 10.0), None, INCONCLUSIVE, "needs 5 requests (canary, 4 requests in 10 s)"),
    (RATE, Measurement(0.0, 1, 10.0), None, INCONCLUSIVE, "(canary, 1 request in 10 s)"),
    (RATE, NOTHING, GOOD, INCONCLUSIVE, "has no data (canary, 0 requests in 10 s; noData is hold; primary 99.9 %)"),
    (RATE._replace(no_data="pass"), NOTHING, None, PASS, "noData is pass"),
    (RATE._replace(no_data="fail"), NOTHING, BAD, FAIL, "noData is fail"),
    (RATE, Measurement(math.nan, 400, 10.0), None, INCONCLUSIVE, "has no data"),
    (RATE, Measurement(None, error="timed out after 5 s"), None, ERROR, "could not be measured: timed out after 5 s"),
    (SLOW, Measurement(500.0, 50, 60.0), None, PASS, "request-duration 500 ms is within"),
    (SLOW, Measurement(1515.2, 50, 120.0), None, FAIL, "1515.2 ms is above 500 ms (canary, 50 requests in 120 s)"),
    (SLOW, Measurement(600.0, 50, 60.0), Measurement(700.0, 90, 60.0), INCONCLUSIVE, "primary 700 ms)"),
    (BOTH, Measurement(0.5, 1, 10.0), Measurement(0.1, 99, 10.0), FAIL, "load 0.5 /s is below 1 /s"),
    (BOTH, Measurement(10.01, 1, 10.0), None, FAIL, "load 10.01 /s is above 10 /s"),
    (OWN, Measurement(0.4, 0, 60.0), None, PASS, "checkout-errors 0.4 is within its limits (canary, in 60 s)"),
    (OWN, Measurement(math.inf, 0, 60.0), None, FAIL, "checkout-errors inf is above 1"),
]


@pytest.mark.parametrize(("metric", "canary", "primary", "outcome", "reason"), CHECKS)
def test_a_check_says_what_the_numbers_say(metric, canary, primary, outcome, reason):
    verdict = judge(metric, canary, primary, compare=True, limits=None, min_requests=5)
    assert verdict.outcome == outcome
    assert reason in verdict.reason
    assert (verdict.metric, verdict.min, verdict.max) == (metric.name, metric.min, metric.max)
    assert (verdict.sample, verdict.seconds) == (canary.sample, canary.seconds)


def test_without_the_comparison_the_primary_excuses_nothing():
    verdict = judge(RATE, BAD, BAD, compare=False, limits=None, min_requests=5)
    assert (verdict.outcome, verdict.primary, verdict.unit) == (FAIL, 91.2, "%")


def test_a_step_has_limits_of_its_own():
    verdict = judge(RATE, BAD, None, compare=True, limits=(90.0, None), min_requests=5)
    assert (verdict.outcome, verdict.min) == (PASS, 90.0)


HARD = RATE._replace(hard_min=50.0)
BREACHES = [
    (HARD, Measurement(49.9, 20, 0.5), "hard limit: request-success-rate 49.9 % is below 50 % (canary, 20 requests"),
    (HARD, Measurement(50.0, 20, 0.5), None),
    (HARD, Measurement(0.0, 4, 0.5), None),
    (HARD, NOTHING, None),
    (HARD, Measurement(None, error="no"), None),
    (RATE, Measurement(0.0, 20, 0.5), None),
    (SLOW._replace(hard_max=900.0), Measurement(901.0, 20, 0.5), "901 ms is above 900 ms"),
]


@pytest.mark.parametrize(("metric", "canary", "reason"), BREACHES)
def test_a_hard_limit_is_broken_by_numbers_alone(metric, canary, reason):
    verdict = breach(metric, canary, min_requests=5)
    if reason is None:
        assert verdict is None
    else:
        assert (verdict.outcome, verdict.min, verdict.max) == (FAIL, metric.hard_min, metric.hard_max)
        assert reason in verdict.reason


values = st.none() | st.floats()


@given(
    values, st.integers(0, 100), values, st.integers(0, 100), st.booleans(), st.sampled_from(["hold", "pass", "fail"])
)
def test_any_numbers_give_one_verdict_with_a_reason(value, sample, other, others, compare, no_data):
    metric = MetricPlan("m", "request-success-rate", min=10.0, max=20.0, no_data=no_data)
    verdict = judge(
        metric, Measurement(value, sample), Measurement(other, others), compare=compare, limits=None, min_requests=5
    )
    good = value is not None and 10.0 <= value <= 20.0
    assert verdict.reason.endswith(")")
    if verdict.outcome == PASS:
        assert (good and sample >= 5) or no_data == "pass"
    if verdict.outcome == FAIL:
        assert not good
    if no_data == "hold" and sample < 5:
        assert verdict.outcome == INCONCLUSIVE
