"""Which endpoint of an upstream."""

from collections import Counter
from dataclasses import dataclass
from math import sqrt
from random import Random

import pytest
from hypothesis import given, settings, strategies as st

from splitproxy.core.balancing import make

POLICIES = ("roundRobin", "random", "leastRequest", "hash")


@dataclass
class Endpoint:
    name: bytes
    weight: float = 1
    active: int = 0


def endpoints(*weights):
    return [Endpoint(b"10.0.0.%d:80" % number, weight) for number, weight in enumerate(weights)]


def turns(balancer, count, seed=1):
    """Return how often each endpoint comes in `count` picks."""
    chance = Random(seed)
    return Counter(balancer.pick(chance.random(), b"key-%d" % number).name[-4:-3] for number in range(count))


@pytest.mark.parametrize("policy", POLICIES)
def test_the_only_endpoint_is_always_picked(policy):
    (only,) = listed = endpoints(3)
    balancer = make(policy, listed)
    assert {id(balancer.pick(point, key)) for point in (0.0, 0.99) for key in (b"", b"k")} == {id(only)}


@pytest.mark.parametrize("policy", POLICIES)
def test_an_endpoint_without_weight_is_never_picked(policy):
    assert set(turns(make(policy, endpoints(0, 1, 0, 2)), 200)) == {b"1", b"3"}


@pytest.mark.parametrize("weights", [(), (0,), (0, 0)])
def test_there_must_be_something_to_balance_over(weights):
    with pytest.raises(ValueError, match="nothing"):
        make("random", endpoints(*weights))


def test_an_unknown_policy_is_an_error():
    with pytest.raises(ValueError, match="maglev"):
        make("maglev", endpoints(1, 1))


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=20, deadline=None)
@given(weights=st.lists(st.sampled_from((0.5, 1, 2, 3.25, 10)), min_size=2, max_size=5), seed=st.integers(0, 2**32))
def test_idle_endpoints_are_used_by_weight(policy, weights, seed):
    count, total = 2_000, sum(weights)
    counts = turns(make(policy, endpoints(*weights)), count, seed)
    for number, weight in enumerate(weights):
        p = weight / total
        assert abs(counts[b"%d" % number] - count * p) <= 6 * sqrt(count * p * (1 - p)) + 1


# --- round robin -----------------------------------------------------------------------------------------------------
def test_equal_endpoints_take_turns():
    listed = endpoints(1, 1, 1)
    balancer = make("roundRobin", listed)
    picked = [balancer.pick(0.0, b"").name for _ in range(6)]
    assert picked == [endpoint.name for endpoint in listed] * 2


def test_where_turns_begin_is_a_matter_of_chance():
    first = {make("roundRobin", endpoints(1, 1, 1, 1)).pick(point, b"").name for point in (0.1, 0.3, 0.6, 0.9)}
    assert len(first) == 4
    first = {make("roundRobin", endpoints(1, 2)).pick(number / 10, b"").name for number in range(10)}
    assert len(first) == 2


@pytest.mark.parametrize("point", [0.0, 0.37, 0.99])
def test_weighted_turns_are_exact_and_interleaved(point):
    balancer = make("roundRobin", endpoints(5, 1, 2))
    picked = [balancer.pick(point, b"").name[-4:-3] for _ in range(80)]
    for start in range(0, 80, 8):
        counts = Counter(picked[start : start + 8])
        assert all(abs(counts[name] - wanted) <= 1 for name, wanted in ((b"0", 5), (b"1", 1), (b"2", 2)))
    assert Counter(picked) == {b"0": 50, b"1": 10, b"2": 20}
    assert b"0" * 4 not in b"".join(picked)


# --- least request ---------------------------------------------------------------------------------------------------
def test_of_two_the_less_busy_one_is_picked():
    listed = endpoints(1, 1)
    balancer = make("leastRequest", listed)
    listed[0].active = 5
    assert {balancer.pick(number / 100, b"").name for number in range(100)} == {listed[1].name}


def test_busy_is_seen_beside_the_weight():
    listed = endpoints(10, 1)
    listed[0].active, listed[1].active = 9, 1
    balancer = make("leastRequest", listed)
    assert {balancer.pick(number / 100, b"").name for number in range(100)} == {listed[0].name}


def test_the_two_are_drawn_from_all_pairs_alike():
    listed = endpoints(1, 1, 1, 1)
    for number, endpoint in enumerate(listed):
        endpoint.active = number
    balancer = make("leastRequest", listed)
    counts = Counter(balancer.pick((number + 0.5) / 12_000, b"").active for number in range(12_000))
    assert counts == {0: 6_000, 1: 4_000, 2: 2_000}, "each of six pairs as often, the busiest of all never"


def test_load_spreads_better_than_by_chance():
    def busiest(policy):
        listed, chance = endpoints(*[1] * 10), Random(7)
        balancer = make(policy, listed)
        for _ in range(1_000):
            balancer.pick(chance.random(), b"").active += 1
        return max(endpoint.active for endpoint in listed)

    assert busiest("leastRequest") <= 103 < busiest("random")


# --- hash ------------------------------------------------------------------------------------------------------------
def placed(listed, count=500):
    balancer = make("hash", listed)
    return {number: balancer.pick(0.5, b"client-%d" % number).name for number in range(count)}


def test_a_key_stays_with_its_endpoint_in_every_process_and_order():
    listed = endpoints(1, 2, 3)
    assert placed(listed) == placed(listed[::-1]) == placed(endpoints(1, 2, 3))


def test_only_the_keys_of_a_lost_endpoint_move():
    before, after = placed(endpoints(1, 2, 3, 1)), placed(endpoints(1, 2, 3))
    lost = b"10.0.0.3:80"
    assert any(name == lost for name in before.values())
    assert all(after[key] == name for key, name in before.items() if name != lost)


def test_without_a_key_chance_decides():
    balancer = make("hash", endpoints(1, 1))
    assert len({balancer.pick(point, b"").name for point in (0.1, 0.9)}) == 2
