"""What is known of a canary: one verdict for all signals, its words, its gates, and that it survives a restart."""

import json
import math
import random

import pytest
from hypothesis import given, settings, strategies as st

from splitproxy.core.evidence import Batch, Evidence, Terms
from splitproxy.core.onset import Counts
from splitproxy.core.promotion import StageGate
from splitproxy.core.slowness import THRESHOLDS

STRICT = Terms(errors=1.0, latency=1.0)
SHARES = (0.5, 0.25, 0.1, 0.05, 0.01, 0.001)
PREFIX = "errors on the canary alone: 4 of its 52 requests failed, none of 998 on the primary"


def slow(canary, primary, of_canary=50, of_primary=950):
    """Return the counts of a second in which these shares of the requests were above each threshold."""
    counts = []
    for one, other in zip(canary, primary, strict=True):
        above, its_above = round(one * of_canary), round(other * of_primary)
        counts.append((above, of_canary - above, its_above, of_primary - its_above))
    return tuple(counts)


def seconds(evidence, number, **counts):
    """Let so many seconds pass, each with the same counts."""
    for _ in range(number):
        evidence.tick()
        evidence.add(Batch(**{"weight": 0.05, "canary": 50, "primary": 950, **counts}))
    return evidence


def crash(evidence, errors=4):
    """Let the canary fail, one request after the other."""
    evidence.tick()
    evidence.add(Batch(0.05, 48, 998))
    for _ in range(errors):
        evidence.add(Batch(0.05, 1, 0, 1, 0))
    return evidence


class TestVerdict:
    def test_a_crashing_canary_is_convicted_after_four_requests(self):
        assert not crash(Evidence(STRICT), 3).convicted
        assert crash(Evidence(STRICT), 4).convicted

    def test_add_says_so_at_once(self):
        evidence = crash(Evidence(STRICT), 3)
        assert evidence.add(Batch(0.05, 1, 0, 1, 0)) is True
        assert evidence.add(Batch(0.05, 9, 99)) is True  # and stays with it

    def test_least_bad_events_delay_it(self):
        terms = STRICT._replace(min_bad_events=6)
        assert not crash(Evidence(terms), 5).convicted
        assert crash(Evidence(terms), 6).convicted

    def test_a_failure_that_both_sides_share_is_none(self):
        evidence = seconds(Evidence(STRICT, 0.05, limit=0.01), 60, bad_canary=5, bad_primary=95)
        assert not evidence.convicted
        standing = evidence.standing()
        assert standing.absolute.both
        assert standing.log_e < 1.0

    def test_a_limit_that_only_the_canary_breaks(self):
        standing = seconds(Evidence(STRICT, 0.05, limit=0.01), 20, bad_canary=5).standing()
        assert (standing.absolute.canary, standing.absolute.both) == (True, False)

    def test_where_no_primary_is_left_the_limit_acts_alone(self):
        evidence = Evidence(STRICT, 1.0, limit=0.01)
        seconds(evidence, 5, weight=1.0, canary=1000, primary=0, bad_canary=4)
        assert not evidence.convicted
        seconds(evidence, 3, weight=1.0, canary=1000, primary=0, bad_canary=300)
        assert evidence.convicted
        assert evidence.standing().leading == "limit"
        assert evidence.standing().sentence.startswith(
            "errors above the limit of 1 %: 920 of 8,000 requests failed on the canary, with no primary traffic to comp"
        )

    def test_without_a_limit_nothing_acts_alone(self):
        evidence = seconds(Evidence(STRICT, 1.0), 9, weight=1.0, canary=1000, primary=0, bad_canary=500)
        assert not evidence.convicted
        assert evidence.absolute() is None

    def test_an_allowed_share_of_nothing_can_be_broken_too(self):
        evidence = Evidence(STRICT, 1.0, limit=0.0)
        seconds(evidence, 1, weight=1.0, canary=9, primary=0, bad_canary=3)
        assert evidence.absolute().canary

    @pytest.mark.parametrize(
        ("canary", "leading", "most"),
        [
            ((0.5, 0.25, 0.1, 0.08, 0.06, 0.04), "latency@p99.9", 8),
            ((0.7, 0.4, 0.2, 0.1, 0.02, 0.001), "latency@p75", 8),
        ],
    )
    def test_a_slow_canary_is_convicted_of_it(self, canary, leading, most):
        evidence = seconds(Evidence(STRICT), most, slow=slow(canary, SHARES))
        assert evidence.convicted
        assert evidence.standing().leading == leading

    def test_clients_that_keep_their_side_are_slow_once_each(self):
        firsts = tuple((9, 18) if threshold == 0.99 else (0, 0) for threshold in THRESHOLDS)
        evidence = seconds(Evidence(STRICT._replace(sticky=True)), 1, first_slow=firsts)
        assert evidence.convicted
        assert evidence.standing().sentence.startswith(
            "slower on the canary: 9 of its clients met an answer slower than the primary's p99, 9 of the primary's, at"
        )

    def test_what_is_tolerated_is_no_evidence(self):
        generator = random.Random(3)
        evidence = Evidence(Terms(errors=1.5))
        for _ in range(900):
            evidence.tick()
            bad = sum(generator.random() < 1.4 * 0.05 / (1 + 0.4 * 0.05) for _ in range(10))
            evidence.add(Batch(0.05, 50, 950, bad, 10 - bad))
        assert not evidence.convicted


class TestWords:
    def test_a_crash(self):
        standing = crash(Evidence(STRICT), 4).standing()
        assert standing.sentence.startswith(f"{PREFIX}, at weight 5 % (e-value ")
        assert standing.sentence.endswith("anytime p 0.00016, ratio at least 2.5)")
        assert standing.p == pytest.approx(math.exp(-standing.log_e))
        assert standing.counts == standing.recent == Counts(52, 998, 4, 0)
        assert standing.weights == (0.05,)

    def test_a_good_hour_does_not_hide_a_bad_second(self):
        evidence = seconds(Evidence(STRICT), 300, bad_primary=2)
        seconds(evidence, 6, bad_canary=2, bad_primary=1)
        standing = evidence.standing()
        assert standing.convicted
        assert standing.recent == Counts(300, 5700, 12, 6)
        assert standing.ratio[0] < 1.0
        assert standing.sentence.startswith(
            "errors 38x as likely on the canary: 12 of its 300 requests failed, 6 of 5,700 on the primary "
            "in the last 6 s, at weight 5 % (e-value "
        )

    def test_clients(self):
        sentence = crash(Evidence(STRICT._replace(sticky=True)), 4).standing().sentence
        assert "4 of its clients met an error (52 requests), none of the primary's (998 requests), at" in sentence

    def test_latency(self):
        standing = seconds(Evidence(STRICT), 8, slow=slow((0.5, 0.3, 0.1, 0.08, 0.06, 0.04), SHARES)).standing()
        assert standing.sentence.startswith(
            "slower on the canary: 16 of its 400 requests took longer than the primary's p99.9, 8 of 7,600 on the prim"
        )

    def test_nothing_yet(self):
        assert Evidence(STRICT).standing().sentence == "no errors on either side (e-value 1, anytime p 1)"


class TestGate:
    def gate(self, weight, number=30, **counts):
        evidence = Evidence(STRICT, weight)
        canary = round(1000 * weight)
        counts = {"canary": canary, "primary": 1000 - canary, "slow": slow(SHARES, SHARES), **counts}
        return seconds(evidence, number, weight=weight, **counts).gate()

    def test_a_good_canary_passes(self):
        gate = self.gate(0.05)
        assert gate.passed
        assert (gate.missing, gate.seconds, gate.requests) == ("", 0.0, 0)

    def test_without_any_error_too(self):
        assert self.gate(0.05, 6).missing == "errors"
        assert self.gate(0.05, 30).passed

    def test_one_that_is_much_worse_does_not(self):
        gate = self.gate(0.05, bad_canary=1, bad_primary=1)
        assert (gate.passed, gate.missing, gate.seconds) == (False, "errors", None)

    def test_one_that_is_slow_does_not(self):
        gate = self.gate(0.5, slow=slow((0.5, 0.3, 0.1, 0.08, 0.06, 0.04), SHARES, 500, 500))
        assert (gate.passed, gate.missing) == (False, "latency")

    def test_not_before_the_least_time(self):
        gate = self.gate(0.5, 3)
        assert (gate.passed, gate.missing, gate.seconds, gate.requests) == (False, "time", 2.0, 2000)

    def test_the_estimate_comes_true(self):
        before = self.gate(0.01, 8)
        assert not before.passed
        assert self.gate(0.01, 8 + math.ceil(before.seconds)).passed
        assert before.requests == pytest.approx(1000 * before.seconds, abs=1)

    def test_without_traffic_nobody_can_say(self):
        gate = Evidence(STRICT, 0.05).gate()
        assert (gate.passed, gate.seconds, gate.requests) == (False, None, None)

    def test_each_stage_begins_its_own_and_the_case_goes_on(self):
        evidence = crash(Evidence(STRICT, 0.05), 3)
        before = evidence.standing()
        evidence.begin_stage(0.25)
        after = evidence.standing()
        assert after.log_e == before.log_e
        assert (after.gate.log_errors, after.gate.log_latency) == pytest.approx((0.0, 0.0), abs=1e-12)

    def test_most_wrong_promotions(self):
        """A canary at the edge of both margins passes no more often than said."""
        generator, passed = random.Random(7), 0
        for _ in range(100):
            gate = StageGate(0.5, 1.0)
            for number in range(200):
                bad = generator.random() < 0.6  # 1.5 times as likely as on the primary
                gate.add((80, 80), (bad, not bad), (bad, not bad), 0.5)
                if number % 5 == 4 and gate.standing(0.05, 0.0).log_errors >= math.log(20):
                    passed += 1
                    break
        assert passed <= 100 * 0.05 + 3 * math.sqrt(100 * 0.05 * 0.95)


class TestShares:
    def test_alarm(self):
        evidence = Evidence(STRICT)
        for _ in range(30):
            evidence.tick()
            evidence.routed(0.05, 50, 950)
        assert not evidence.standing().shares_alarm
        for _ in range(30):
            evidence.tick()
            evidence.routed(0.05, 70, 930)
        assert evidence.standing().shares_alarm
        assert not evidence.convicted


BATCHES = st.builds(
    Batch,
    weight=st.sampled_from([0.0, 0.01, 0.25, 1.0]),
    canary=st.integers(0, 50),
    primary=st.integers(0, 50),
    bad_canary=st.integers(0, 3),
    bad_primary=st.integers(0, 3),
    slow=st.sampled_from([(), slow(SHARES, SHARES), slow((0.6, 0.4, 0.2, 0.1, 0.1, 0.1), SHARES)]),
    first_slow=st.sampled_from([(), ((1, 2),) * 6]),
    failed_canary=st.sampled_from([None, 9]),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(BATCHES, max_size=6), BATCHES, st.sampled_from([None, 0.01]))
def test_a_restart_changes_nothing(batches, last, limit):
    evidence = Evidence(Terms(), 0.25, limit)
    for batch in batches:
        evidence.tick()
        evidence.add(batch)
        evidence.routed(batch.weight, batch.canary, batch.primary)
    restored = Evidence(Terms())
    restored.restore(json.loads(json.dumps(evidence.plain())))
    for each in (evidence, restored):
        each.tick()
        each.add(last)
    assert restored.standing() == evidence.standing()
    assert restored.plain() == evidence.plain()


@settings(max_examples=40, deadline=None)
@given(st.lists(BATCHES, min_size=1, max_size=6))
def test_how_batches_are_cut_changes_nothing(batches):
    one, other = Evidence(Terms()), Evidence(Terms())
    one.tick()
    other.tick()
    for batch in batches:
        one.add(batch)
    for batch in reversed(batches):
        other.add(batch._replace(bad_canary=0, bad_primary=0))
        other.add(Batch(batch.weight, 0, 0, batch.bad_canary, batch.bad_primary))
    assert one.standing().log_e == pytest.approx(other.standing().log_e, abs=1e-9)
    assert one.standing().counts == other.standing().counts


@settings(max_examples=40, deadline=None)
@given(BATCHES)
def test_the_stake_is_divided_as_said(batch):
    evidence = Evidence(Terms(), 0.25, 0.01)
    evidence.add(batch)
    held = [math.exp(log_e) for log_e in evidence._held.values()]
    assert math.exp(evidence.standing().log_e) == pytest.approx(0.5 * held[0] + 0.4 * held[1] + 0.1 * held[2])


def test_the_weight_that_is_told_is_the_last_one():
    evidence = Evidence(STRICT)
    for weight in (0.5, 0.33, 0.5):
        evidence.tick()
        evidence.add(Batch(weight, 10, 10, 1, 0))
    standing = evidence.standing()
    assert standing.weights == (0.33, 0.5)
    assert "at weight 50 %" in standing.sentence
