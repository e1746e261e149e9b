"""The bets: worked examples, and that no bet can be expected to gain where the canary is no worse."""

import json
import math
import random
from itertools import pairwise, product
from operator import mul

import pytest
from hypothesis import given, settings, strategies as st

from splitproxy.core.sequential import (
    BETTER_RATES,
    PAIRED,
    RATIOS,
    SAFE_RATIOS,
    SHARE_RATIOS,
    WORSE_RATES,
    LabelBet,
    RateBet,
    Schedule,
    label_logs,
    log_sum,
    ratio_bounds,
)
from splitproxy.core.slowness import SHAPES, SLOWER, THRESHOLDS, LatencyBet, Shape, level_logs, shape_logs

EXACT = 1e-6
OFTEN = settings(max_examples=50, deadline=None)
WEIGHTS = st.floats(0.001, 0.999)
RATIO = st.floats(0.05, 50.0)
LEVELS = [(1 - quantile, ratio) for quantile, some in zip(THRESHOLDS, SLOWER, strict=True) for ratio in some]


def told(text, weight=0.05):
    """Return a bet that was told of bad events, `c` the canary's and `p` the primary's."""
    bet = LabelBet(start_mass=1.0)
    for side in text:
        bet.add(side == "c", 1, weight)
    return bet


class TestWorkedExamples:
    @pytest.mark.parametrize(
        ("events", "weight", "log_e"),
        [
            ("c", 0.05, 2.069428),
            ("cc", 0.05, 4.609010),
            ("ccpc", 0.05, 5.690327),
            ("ppppp", 0.05, -1.050514),
            ("c", 1.0, 0.0),
            ("p", 0.0, 0.0),
        ],
    )
    def test_bad_events_from_the_start(self, events, weight, log_e):
        assert told(events, weight).log_e == pytest.approx(log_e, abs=EXACT)

    def test_events_at_several_weights(self):
        bet = LabelBet(start_mass=1.0)
        for weight, canary, both in ((0.01, 1, 1), (0.05, 2, 3), (0.10, 1, 4)):
            bet.add(canary, both, weight)
        assert bet.log_e == pytest.approx(4.416060, abs=EXACT)

    def test_fresh_starts_find_what_begins_late(self):
        bets = LabelBet(schedule=Schedule(10)), LabelBet(start_mass=1.0)
        for canary, both in ((0, 5), (3, 3)):
            for bet in bets:
                bet.tick()
                bet.add(canary, both, 0.05)
        assert [bet.log_e for bet in bets] == pytest.approx((4.454986, 2.849415), abs=EXACT)

    def test_pairs(self):
        bet = LabelBet(start_mass=1.0)
        bet.add(6, 7, PAIRED)
        assert bet.log_e == pytest.approx(1.377569, abs=EXACT)

    @pytest.mark.parametrize(("canary", "both", "log_e"), [(10, 200, 14.514800), (20, 100, -5.678959)])
    def test_promotion(self, canary, both, log_e):
        bet = LabelBet(SAFE_RATIOS, 2.0, start_mass=1.0)
        bet.add(canary, both, 0.10)
        assert bet.log_e == pytest.approx(log_e, abs=EXACT)

    @pytest.mark.parametrize(("bad", "requests", "log_e"), [(3, 20, 4.39), (10, 1000, -4.50567), (30, 1000, 9.627336)])
    def test_a_limit(self, bad, requests, log_e):
        bet = RateBet(start_mass=1.0)
        bet.add(bad, requests, 0.01)
        assert bet.log_e == pytest.approx(log_e, abs=EXACT)

    @pytest.mark.parametrize(
        ("quantile", "ratio", "slow", "log_e"),
        [(0.99, 5.0, (3, 47, 10, 940), 2.515671), (0.5, 1.4, (40, 10, 475, 475), 7.950593)],
    )
    def test_a_threshold_of_latency(self, quantile, ratio, slow, log_e):
        bet = LatencyBet((quantile,), ((ratio,),), (), start_mass=1.0)
        bet.add((slow,), 0.05)
        assert bet.log_e == pytest.approx(log_e, abs=EXACT)

    def test_the_bets_are_those_of_the_study(self):
        assert sum(map(len, SLOWER)) == 32
        assert len(SLOWER) == len(THRESHOLDS)


def share(ratio, weight):
    """Return the canary's share of bad events when they are `ratio` times likelier there."""
    return ratio * weight / (1 + (ratio - 1) * weight)


class TestNobodyCanExpectToGain:
    """By enumerating both outcomes of the draw."""

    @OFTEN
    @given(WEIGHTS, st.floats(1.0, 5.0), st.floats(1.01, 40.0))
    def test_at_what_is_tolerated_the_mean_is_exactly_one(self, weight, tolerated, beyond):
        canary, primary = label_logs(tolerated * beyond, tolerated, weight)
        at = share(tolerated, weight)
        assert at * math.exp(canary) + (1 - at) * math.exp(primary) == pytest.approx(1.0, rel=1e-9)

    @OFTEN
    @given(WEIGHTS, st.floats(1.0, 5.0), st.floats(1.01, 40.0), st.floats(0.0, 1.0))
    def test_below_it_at_most_one(self, weight, tolerated, beyond, part):
        canary, primary = label_logs(tolerated * beyond, tolerated, weight)
        at = share(tolerated * part, weight)
        assert at * math.exp(canary) + (1 - at) * math.exp(primary) <= 1.0 + 1e-9

    @OFTEN
    @given(WEIGHTS, RATIO, st.floats(0.01, 1.0), st.floats(1.0, 20.0))
    def test_nor_with_a_bet_on_the_other_side(self, weight, margin, part, worse):
        canary, primary = label_logs(margin * part, margin, weight)
        at = share(margin * worse, weight)
        assert at * math.exp(canary) + (1 - at) * math.exp(primary) <= 1.0 + 1e-9

    @pytest.mark.parametrize("bet", [LabelBet, lambda: LabelBet(SHARE_RATIOS), lambda: LabelBet(RATIOS, 1.1)])
    @pytest.mark.parametrize("weight", [0.01, 0.05, 0.5])
    def test_a_whole_history_with_fresh_starts(self, bet, weight):
        tolerated = bet()._tolerated
        at, mean = share(tolerated, weight), 0.0
        for sides in product((0, 1), repeat=6):
            wealth = bet()
            for side in sides:
                wealth.tick()
                wealth.add(side, 1, weight)
            mean += math.exp(wealth.log_e) * math.prod(at if side else 1 - at for side in sides)
        assert mean == pytest.approx(1.0, rel=1e-9)

    @OFTEN
    @given(
        WEIGHTS,
        st.sampled_from([(1 - q, r) for q, some in zip(THRESHOLDS, SLOWER, strict=True) for r in some]),
        st.data(),
    )
    def test_latency_at_thresholds_that_are_no_quantiles_at_all(self, weight, bet, data):
        slow, ratio = bet
        primary = data.draw(st.floats(0.0, 1.0))
        canary = data.draw(st.floats(0.0, 1.0)) * primary  # is above the threshold no more often
        above, below, its_above, its_below = map(math.exp, level_logs(slow, ratio, weight))
        mean = weight * (canary * above + (1 - canary) * below)
        mean += (1 - weight) * (primary * its_above + (1 - primary) * its_below)
        assert mean <= 1.0 + 1e-9
        if canary == primary:
            assert mean == pytest.approx(1.0, rel=1e-9)

    @OFTEN
    @given(WEIGHTS, st.sampled_from(SHAPES), st.lists(st.floats(0.01, 1.0), min_size=7, max_size=7), st.data())
    def test_of_a_shape_with_latencies_of_any_other(self, weight, shape, parts, data):
        primary = [part / sum(parts) for part in parts]
        moved = data.draw(st.lists(st.floats(0.0, 1.0), min_size=6, max_size=6))
        canary = list(primary)
        for number, part in enumerate(moved):  # from every place some of it to the place before: no slower
            canary[number] += part * canary[number + 1]
            canary[number + 1] *= 1 - part
        mine, its = shape_logs(shape, weight)
        for latencies, most in ((canary, True), (primary, False)):
            mean = sum(weight * part * math.exp(log) for part, log in zip(latencies, mine, strict=True))
            mean += sum((1 - weight) * part * math.exp(log) for part, log in zip(primary, its, strict=True))
            assert mean <= 1.0 + 1e-9 if most else mean == pytest.approx(1.0, rel=1e-9)

    def test_shapes_never_fall_and_are_about_as_much_as_there_is(self):
        edges = [0.0, *THRESHOLDS, 1.0]
        for shape in SHAPES:
            assert list(shape.ratios) == sorted(shape.ratios)
            parts = [high - low for low, high in pairwise(edges)]
            assert sum(map(mul, parts, shape.ratios)) == pytest.approx(1.0, abs=0.002)

    @OFTEN
    @given(st.floats(0.001, 0.95), st.sampled_from([WORSE_RATES, BETTER_RATES]), st.floats(0.0, 1.0))
    def test_of_a_limit(self, limit, multiples, part):
        worse = multiples is WORSE_RATES
        rate = limit * part if worse else limit + (1 - limit) * part
        means = 0.0
        for bad, chance in ((1, rate), (0, 1 - rate)):
            bet = RateBet(multiples, start_mass=1.0)
            bet.add(bad, 1, limit)
            means += chance * math.exp(bet.log_e)
        assert means <= 1.0 + 1e-9

    @pytest.mark.parametrize("schedule", [Schedule(10), Schedule(10, 0.2), Schedule(0), Schedule(1, 0.5)])
    def test_fresh_starts_never_get_more_than_there_is(self, schedule):
        spent = [schedule.share(tick) for tick in range(1, 5000)]
        assert min(spent) >= 0.0
        assert 0.85 < sum(spent) <= 1.0 + 1e-12
        if schedule.horizon and not schedule.reserve:
            assert sum(spent[: schedule.horizon]) == pytest.approx(1.0)


EVENTS = st.lists(st.tuples(st.booleans(), st.sampled_from([0.01, 0.05, 0.5])), max_size=30)


class TestHowItIsCounted:
    @OFTEN
    @given(EVENTS)
    def test_one_by_one_or_at_once_in_any_order(self, events):
        one, other = LabelBet(), LabelBet()
        for bet in (one, other):
            bet.tick()
        for side, weight in events:
            one.add(side, 1, weight)
        for weight in (0.5, 0.05, 0.01):
            sides = [side for side, at in events if at == weight]
            other.add(sum(sides), len(sides), weight)
        assert one.log_e == pytest.approx(other.log_e, abs=1e-9)

    @OFTEN
    @given(st.lists(st.tuples(*[st.integers(0, 40)] * 4), min_size=6, max_size=6), WEIGHTS)
    def test_so_with_latency(self, slow, weight):
        one, other = LatencyBet(), LatencyBet()
        for bet in (one, other):
            bet.tick()
        one.add(slow, weight)
        for half in (0, 1):
            other.add([tuple((count + half) // 2 for count in counts) for counts in slow], weight)
        assert one.log_e == pytest.approx(other.log_e, abs=1e-9)

    def test_clients_that_keep_their_side_are_weighed_as_errors_are(self):
        bet, like = LatencyBet((0.99,), (RATIOS,), ()), LabelBet()
        bet.add_first([(4, 6)], 0.05)
        like.add(4, 6, 0.05)
        assert bet.log_e == pytest.approx(like.log_e)

    def test_a_shape_is_weighed_by_where_requests_lie(self):
        bet, between = LatencyBet((0.5, 0.9), ((1.5,), (2.0,)), (Shape((0.5, 1.0, 3.5), 1),)), ((5, 3, 2), (60, 30, 10))
        bet.add([(5, 5, 40, 60), (2, 8, 10, 90)], 0.1)
        logs = shape_logs(Shape((0.5, 1.0, 3.5), 1), 0.1)
        wanted = sum(sum(map(mul, counts, side)) for counts, side in zip(between, logs, strict=True))
        staked, held = bet.logs()[2]
        assert held - staked + math.log(2) == pytest.approx(wanted)

    def test_a_side_that_was_not_drawn_says_nothing(self):
        for weight in (0.0, 1.0):
            bet = LabelBet()
            bet.add(5, 9, weight)
            assert bet.log_e == pytest.approx(0.0, abs=1e-12)

    def test_state_survives_json_exactly(self):
        bet = LabelBet()
        for side in "cpc":
            bet.tick()
            bet.add(side == "c", 1, 0.07)
        saved = LabelBet()
        saved.restore(json.loads(json.dumps(bet.plain())))
        for each in (bet, saved):
            each.tick()
            each.add(1, 2, 0.07)
        assert saved.log_e == bet.log_e
        with pytest.raises(ValueError, match="6 bets were saved, 2 are made"):
            LabelBet((2.0, 3.0)).restore(bet.plain())

    def test_neither_ruin_nor_riches_break_it(self):
        bet = LabelBet()
        bet.tick()
        bet.add(0, 10**6, 0.5)
        assert -1.0 < bet.log_e < 0.0  # what was not staked yet is left
        bet.tick()
        bet.add(40, 40, 0.05)
        assert bet.log_e > 100
        bet.add(10**6, 10**6, 0.05)
        assert bet.log_e == pytest.approx(math.log(1e280), abs=5)

    def test_a_limit_that_is_no_probability_is_refused(self):
        with pytest.raises(ValueError, match="between 0 and 1, not with 1"):
            RateBet().add(1, 1, 1.0)


class TestTheInterval:
    @pytest.mark.parametrize(
        ("events", "low", "high"),
        [
            ({}, 0.0, None),
            ({1.0: (9, 9)}, 0.0, None),
            ({0.05: (4, 4)}, 2.54, None),
            ({0.05: (0, 5)}, 0.0, 83.5),
            ({0.05: (500, 10000)}, 0.818, 1.21),
            ({0.05: (250, 5000), 0.5: (2500, 5000)}, 0.895, 1.117),
        ],
    )
    def test_its_ends(self, events, low, high):
        found = ratio_bounds(events, 0.001)
        assert found[0] == pytest.approx(low, rel=0.01)
        assert found[1] == (None if high is None else pytest.approx(high, rel=0.01))

    def test_an_end_is_where_the_evidence_just_suffices(self):
        low, _ = ratio_bounds({0.05: (4, 5)}, 0.001)
        bet = LabelBet([low * ratio for ratio in (1.1, 1.25, *RATIOS)], low, start_mass=1.0)
        bet.add(4, 5, 0.05)
        assert bet.log_e == pytest.approx(math.log(1000), abs=1e-4)

    @OFTEN
    @given(st.integers(0, 60), st.integers(0, 60))
    def test_it_holds_what_was_seen(self, canary, primary):
        low, high = ratio_bounds({0.5: (canary, canary + primary)}, 0.01)
        seen = canary / primary if primary else math.inf
        assert low <= seen
        assert high is None or high >= seen

    def test_it_holds_the_truth_while_it_is_watched(self):
        generator, missed = random.Random(5), 0
        for _ in range(100):
            canary = 0
            for both in range(1, 81):
                canary += generator.random() < share(3.0, 0.1)
                low, high = ratio_bounds({0.1: (canary, both)}, 0.1) if both % 16 == 0 else (0, None)
                if low > 3.0 or (high is not None and high < 3.0):
                    missed += 1
                    break
        assert missed <= 0.2 * 100 + 3 * math.sqrt(100 * 0.2 * 0.8)


class TestShares:
    def test_as_the_weight_says_is_no_alarm_and_anything_else_is_one(self):
        good, bad = LabelBet(SHARE_RATIOS), LabelBet(SHARE_RATIOS)
        for _ in range(60):
            for bet, canary in ((good, 50), (bad, 56)):
                bet.tick()
                bet.add(canary, 1000, 0.05)
        assert good.log_e < 1.0
        assert bad.log_e > math.log(1000)

    def test_too_few_on_the_canary_is_found_too(self):
        bet = LabelBet(SHARE_RATIOS)
        bet.tick()
        bet.add(1000, 24000, 0.05)
        assert bet.log_e > math.log(1000)


def test_the_sum_of_logarithms():
    assert log_sum((math.log(2), math.log(3))) == pytest.approx(math.log(5))
    assert log_sum((-1000.0, -1000.0)) == pytest.approx(-1000 + math.log(2))
