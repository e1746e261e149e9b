"""What is sent again after a failure, where to, when, and how often."""

from itertools import product

import pytest
from hypothesis import given, settings, strategies as st

from splitproxy.core.retry import Budget, Failed, Repeats, compile_repeats

many = settings(max_examples=150, deadline=None, database=None)
FACTS = {
    "status": 0,
    "unsent": False,
    "idempotent": True,
    "kept": True,
    "canary": False,
    "moved": False,
    "retries": 0,
}
BOTH = Repeats(failover=True, attempts=2, codes=[429, 503])
RETRY = Repeats(failover=False, attempts=2, codes=[429, 503])
FAILOVER = Repeats(failover=True)
REFUSED = {"unsent": True}
POST = {"idempotent": False}
LARGE = {"kept": False}
CANARY = {"canary": True}


@pytest.mark.parametrize(
    ("rule", "facts", "step"),
    [
        # the canary
        (FAILOVER, {**CANARY}, "failover"),
        (FAILOVER, {**CANARY, **REFUSED}, "failover"),
        (FAILOVER, {**CANARY, "status": 500}, "failover"),
        (FAILOVER, {**CANARY, "status": 599}, "failover"),
        (FAILOVER, {**CANARY, "status": 404}, None),
        (FAILOVER, {**CANARY, "moved": True}, None),
        (FAILOVER, {**CANARY, **POST}, None),
        (FAILOVER, {**CANARY, **LARGE}, None),
        (FAILOVER, {**CANARY, **POST, **REFUSED}, "failover"),
        (FAILOVER, {**CANARY, **LARGE, **REFUSED}, "failover"),
        (FAILOVER, {**CANARY, **POST, **REFUSED, "moved": True}, None),
        (FAILOVER, {"status": 500}, None),
        # the primary, or a rule without failover
        (RETRY, {}, "retry"),
        (RETRY, {**CANARY}, "retry"),
        (RETRY, {**REFUSED}, "retry"),
        (RETRY, {**REFUSED, **POST}, "retry"),
        (RETRY, {**REFUSED, **LARGE}, "retry"),
        (RETRY, {**POST}, None),
        (RETRY, {**LARGE}, None),
        (RETRY, {"status": 503}, "retry"),
        (RETRY, {"status": 429}, "retry"),
        (RETRY, {"status": 500}, None),
        (RETRY, {"status": 503, **POST}, None),
        (RETRY, {"retries": 1}, "retry"),
        (RETRY, {"retries": 2}, None),
        (RETRY, {"retries": 2, **REFUSED}, None),
        # both
        (BOTH, {**CANARY}, "failover"),
        (BOTH, {**CANARY, **POST, **REFUSED}, "failover"),
        (BOTH, {**CANARY, **POST, **REFUSED, "moved": True}, "retry"),
        (BOTH, {**CANARY, "status": 429}, "retry"),
        (BOTH, {"moved": True, "status": 503}, "retry"),
    ],
)
def test_what_follows_a_failure(rule, facts, step):
    assert rule.step(Failed(**{**FACTS, **facts})) == step


def test_what_may_have_been_done_is_never_done_twice():
    """Whatever the rule: unless nothing was sent, only idempotent requests that are still whole are repeated."""
    flags = ("unsent", "idempotent", "kept", "canary", "moved")
    for values in product([False, True], repeat=len(flags)):
        for status in (0, 429, 500, 503):
            failed = Failed(**{**FACTS, **dict(zip(flags, values, strict=True)), "status": status})
            if BOTH.step(failed) is not None:
                assert failed.unsent or (failed.idempotent and failed.kept)


@given(st.floats(0, 10), st.integers(1, 10), st.floats(0, 1, exclude_max=True))
@many
def test_a_back_off_is_never_shorter_than_configured_nor_ten_times_longer(backoff, retry, point):
    wait = Repeats(failover=False, attempts=10, backoff=backoff).wait(retry, point)
    assert backoff <= wait <= backoff * min(2.0**retry, 10.0)


def test_the_range_of_back_offs_grows_from_25_to_250_milliseconds():
    repeats = Repeats(failover=False, attempts=10, backoff=0.025)
    longest = [round(repeats.wait(retry, 1.0), 4) for retry in range(1, 6)]
    assert longest == [0.05, 0.1, 0.2, 0.25, 0.25]
    assert {repeats.wait(retry, 0.0) for retry in range(1, 6)} == {0.025}


# --- the budget ------------------------------------------------------------------------------------------------------
def spend(budget, now, requests, wanted):
    """Ask for `wanted` retries at one moment, each a request more; return how many were allowed."""
    allowed = 0
    for _ in range(wanted):
        allowed += budget.take(now, requests + allowed)
    return allowed


def test_ten_retries_a_second_are_always_allowed():
    budget = Budget()
    assert [spend(budget, float(second), 0, 50) for second in range(5)] == [10] * 5


def test_a_fifth_of_the_requests_of_ten_seconds_may_be_retried():
    budget = Budget()
    spend(budget, 0.0, 0, 1)
    assert spend(budget, 5.0, 1001, 500) == pytest.approx(200, abs=2)
    assert spend(budget, 5.5, 1201, 500) <= 1
    assert spend(budget, 16.0, 2201, 500) == pytest.approx(200, abs=20)


def test_an_hour_of_good_requests_does_not_pay_for_a_storm():
    budget = Budget()
    spend(budget, 0.0, 0, 1)
    requests = 3600 * 100
    allowed = spend(budget, 3600.0, requests, 100_000)
    assert allowed == pytest.approx(0.2 * 100 * 10, abs=12)


@given(st.lists(st.tuples(st.floats(0, 3), st.integers(0, 50), st.integers(0, 30)), max_size=60))
@many
def test_never_more_than_the_greater_bound(steps):
    """Over the whole time: ten in each second begun, or a fifth of the requests, with retries not counted as such."""
    budget, now, asked, spent = Budget(), 0.0, 0, 0
    for wait, requests, wanted in steps:
        now += wait
        asked += requests
        for _ in range(wanted):
            if budget.take(now, asked + spent):
                spent += 1
    assert spent <= 10 * (int(now) + 1) + 0.2 * asked + 1


# --- from the plain rule ---------------------------------------------------------------------------------------------
def test_a_rule_without_either_has_nothing():
    assert compile_repeats({"split": {"failover": False}, "retry": None}) is None
    assert compile_repeats({"split": {}}) is None


def test_a_rule_with_either():
    plain = {"attempts": 3, "codes": [500], "backoff": 0.1}
    made = compile_repeats({"split": {"failover": False}, "retry": plain})
    assert (made.failover, made.attempts, made.codes, made.backoff) == (False, 3, {500}, 0.1)
    made = compile_repeats({"split": {"failover": True}, "retry": None})
    assert (made.failover, made.attempts) == (True, 0)
