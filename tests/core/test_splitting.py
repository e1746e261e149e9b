"""Which upstream of a rule a request goes to, and why."""

import itertools
from collections import Counter
from math import sqrt
from random import Random

import pytest
from hypothesis import given, settings, strategies as st

from splitproxy.core.stats import REASONS

COOKIE = {"cookie": "sp_id", "issue": True}
HEADER = {"header": "X-User"}


@pytest.fixture(scope="session")
def split_of(spec):
    """Compile the split of a rule `route/0`."""

    def build(weights, *, route="shop", **more):
        table = spec.table(spec.route(route, spec.rule(to=weights, **more)))
        return table.match(spec.request("GET", "/")).split

    return build


@pytest.fixture(scope="session")
def ask(spec):
    """Make a request."""
    return lambda **more: spec.request("GET", "/?user=ann", **more)


def users(count):
    return [b"user-%d" % number for number in range(count)]


def assignments(split, ask, keys):
    """Return key -> upstream for a split by source address."""
    request = ask()
    return {key: split.choose(request, key, 0.999)[0].upstream for key in keys}


# --- one or none -----------------------------------------------------------------------------------------------------
def test_the_only_upstream_gets_everything(split_of, ask):
    split = split_of({"a": 1})
    assert split.single.upstream == "a"
    assert split.choose(ask(), b"", 0.999) == (split.single, "match")


def test_the_only_upstream_with_a_weight_gets_everything(split_of, ask):
    for weights in ({"a": 0, "b": 0.01, "c": 0}, {"b": 7, "c": 0}):
        split = split_of(weights, key={"sourceAddress": True})
        assert split.single.upstream == "b"
        assert {split.choose(ask(), key, 0.0) for key in users(20)} == {(split.single, "match")}


@pytest.mark.parametrize("weights", [{}, {"a": 0}, {"a": 0, "b": 0}, {"a": 0, "b": 0, "c": 0}])
def test_without_a_weight_nobody_gets_anything(split_of, ask, weights):
    split = split_of(weights, key={"sourceAddress": True})
    assert split.single is None
    assert split.choose(ask(), b"x", 0.5) == (None, "match")
    assert [share for _, share in split.shares()] == [0.0] * len(weights)


def test_there_is_more_to_do_than_take_the_single_one_when_an_override_or_a_cookie_waits(split_of, ask):
    override = {"header": "x-version", "value": "b", "upstream": "b"}
    forced = split_of({"a": 1, "b": 0}, overrides=[override])
    assert forced.single is None
    assert forced.choose(ask(), b"", 0.5)[1] == "match"
    issuing = split_of({"a": 1, "b": 0}, key=COOKIE)
    assert (issuing.single, issuing.issue) == (None, b"sp_id")
    assert issuing.choose(ask(), b"", 0.5, b"fresh")[1] == "match"


# --- roles and series ------------------------------------------------------------------------------------------------
def test_the_first_with_a_weight_is_the_primary_and_the_others_are_canaries(split_of):
    roles = {backend.upstream: backend.role for backend in split_of({"old": 0, "a": 90, "b": 10, "c": 0}).backends}
    assert roles == {"old": "canary", "a": "primary", "b": "canary", "c": "canary"}


def test_a_backend_is_counted_under_route_rule_upstream_and_role(split_of):
    primary, canary = split_of({"a": 90.5, "b": 9.5}).backends
    assert primary.key == ("series", "shop", "0", "a", "primary")
    assert canary.key == ("series", "shop", "0", "b", "canary")
    assert (primary.weight, canary.weight) == (90.5, 9.5)
    assert (primary.series, primary.pool) == (None, None)


def test_a_backend_has_its_own_filters(spec):
    item = {"type": "URLRewrite", "urlRewrite": {"hostname": "b.internal", "path": None}}
    rule = spec.table(spec.route("r", spec.rule(to=[spec.ref("a"), spec.ref("b", 1, [item])]))).match(
        spec.request("GET", "/")
    )
    plain, filtered = rule.split.backends
    assert plain.rewrite is None
    assert filtered.rewrite.hostname == b"b.internal"
    assert rule.rewrite is None
    assert not rule.plain


# --- the order of reasons --------------------------------------------------------------------------------------------
def test_an_override_beats_the_key_and_the_key_beats_chance(split_of, ask):
    split = split_of(
        {"a": 1, "b": 1},
        key=HEADER,
        overrides=[
            {"header": "X-Version", "value": "stable", "upstream": "a"},
            {"cookie": "version", "value": "next", "upstream": "b"},
        ],
    )
    everything = {"headers": {"x-version": "stable", "x-user": "ann"}, "cookies": {"version": "next"}}
    backend, reason = split.choose(ask(**everything), b"", 0.0)
    assert (backend.upstream, reason) == ("a", "override")
    backend, reason = split.choose(ask(cookies={"version": "next"}), b"", 0.999)
    assert (backend.upstream, reason) == ("b", "override")
    assert split.choose(ask(headers={"x-user": "ann", "x-version": "other"}), b"", 0.0)[1] == "key"
    assert split.choose(ask(), b"", 0.0)[1] == "random"


def test_an_override_reaches_an_upstream_without_weight_or_outside_the_rule(split_of, ask):
    overrides = [{"header": "to", "value": name, "upstream": name} for name in ("b", "elsewhere")]
    split = split_of({"a": 1, "b": 0}, overrides=overrides)
    for name in ("b", "elsewhere"):
        backend, reason = split.choose(ask(headers={"to": name}), b"", 0.0)
        assert (backend.upstream, backend.role, reason) == (name, "canary", "override")
    assert [backend.upstream for backend in split.backends] == ["a", "b"]


def test_every_reason_is_one_that_is_counted():
    assert {"override", "key", "random", "match"} <= set(REASONS)


@pytest.mark.parametrize(
    ("key", "given"),
    [
        ({"header": "X-User"}, {"headers": {"x-user": "ann"}}),
        ({"cookie": "sp_id", "issue": False}, {"cookies": {"sp_id": "ann"}}),
        ({"query": "user"}, {}),
    ],
)
def test_the_same_value_is_the_same_key_wherever_it_comes_from(split_of, ask, key, given):
    by_address = split_of({"a": 1, "b": 1}, key={"sourceAddress": True}).choose(ask(), b"ann", 0.0)
    chosen = split_of({"a": 1, "b": 1}, key=key).choose(ask(**given), b"10.0.0.1", 0.0)
    assert (chosen[0].upstream, chosen[1]) == (by_address[0].upstream, "key")


@pytest.mark.parametrize("key", [HEADER, {"cookie": "sp_id", "issue": False}, {"query": "none"}])
def test_without_a_key_chance_decides(split_of, ask, key):
    split = split_of({"a": 1, "b": 1}, key=key)
    empty = ask(headers={"x-user": ""}, cookies={"sp_id": ""})
    for request in (ask(), empty):
        assert {split.choose(request, b"10.0.0.1", point)[1] for point in (0.0, 0.999)} == {"random"}


def test_the_id_just_made_is_the_key_of_a_client_without_the_cookie(split_of, ask):
    split = split_of({"a": 1, "b": 1}, key=COOKIE)
    assert split.issue == b"sp_id"
    for made in users(20):
        first = split.choose(ask(), b"", 0.0, made)
        later = split.choose(ask(cookies={"sp_id": made.decode()}), b"", 0.999, None)
        assert first == later
        assert first[1] == "key"


def test_no_cookie_is_issued_unless_asked_for(split_of):
    assert split_of({"a": 1, "b": 1}, key={"cookie": "sp_id", "issue": False}).issue is None
    assert split_of({"a": 1, "b": 1}, key=HEADER).issue is None
    assert split_of({"a": 1, "b": 1}).issue is None


# --- shares ----------------------------------------------------------------------------------------------------------
def test_shares_are_told_in_percent_in_the_order_of_the_file(split_of):
    shares = split_of({"a": 3, "b": 0, "c": 1}).shares()
    assert [(backend.upstream, share) for backend, share in shares] == [("a", 75.0), ("b", 0.0), ("c", 25.0)]


def test_random_shares_are_exact_to_a_hundredth_of_a_percent(split_of, ask):
    split, request = split_of({"a": 99.99, "b": 0.01}), ask()
    counts = Counter(split.choose(request, b"", number / 10_000)[0].upstream for number in range(10_000))
    assert counts == {"a": 9_999, "b": 1}
    split = split_of({"a": 70, "b": 29.99, "c": 0.01, "d": 0})
    counts = Counter(split.choose(request, b"", (number + 0.5) / 10_000)[0].upstream for number in range(10_000))
    assert counts == {"a": 7_000, "b": 2_999, "c": 1}


@pytest.mark.parametrize("point", [0.0, 1 - 2**-53])
def test_no_point_leads_to_an_upstream_without_weight(split_of, ask, point):
    for weights in ({"a": 0, "b": 1, "c": 1, "d": 0}, {"a": 0, "b": 1e6, "c": 0.01, "d": 0}):
        assert split_of(weights).choose(ask(), b"", point)[0].upstream in {"b", "c"}


weights = st.integers(0, 10_000).map(lambda units: units / 100)


@settings(max_examples=25, deadline=None)
@given(st.lists(weights, min_size=2, max_size=5).filter(lambda given: sum(map(bool, given)) > 1), st.integers(0, 2**32))
def test_observed_shares_are_within_binomial_bounds(split_of, ask, given, seed):
    named = {f"u{number}": weight for number, weight in enumerate(given)}
    chance, count, request = Random(seed), 2_000, ask()
    keyed = split_of(named, key={"sourceAddress": True}, route=f"r{seed}")
    random = split_of(named)
    by_key = Counter(keyed.choose(request, key, 0.0)[0].upstream for key in users(count))
    by_chance = Counter(random.choose(request, b"", chance.random())[0].upstream for _ in range(count))
    for backend, percent in keyed.shares():
        p = percent / 100
        for counts in (by_key, by_chance):
            assert abs(counts[backend.upstream] - count * p) <= 6 * sqrt(count * p * (1 - p)) + 1


# --- stickiness ------------------------------------------------------------------------------------------------------
@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(weights, weights), min_size=2, max_size=4))
def test_a_canary_that_grows_takes_clients_and_gives_none_back(split_of, ask, steps):
    """Whatever the totals: only the ratio counts."""
    steps = sorted((step for step in steps if sum(step)), key=lambda step: step[1] / sum(step))
    before: set[bytes] = set()
    for primary, canary in steps:
        split = split_of({"a": primary, "b": canary}, key={"sourceAddress": True})
        if not primary:
            continue  # then b is the rule's primary
        after = {key for key, upstream in assignments(split, ask, users(300)).items() if upstream == "b"}
        assert before <= after
        before = after


def test_a_canary_step_moves_exactly_the_clients_that_it_must(split_of, ask):
    splits = [split_of({"a": 100 - share, "b": share}, key={"sourceAddress": True}) for share in (1, 5, 20, 50, 99)]
    moved = [assignments(split, ask, users(1_000)) for split in splits]
    for earlier, later in itertools.pairwise(moved):
        assert {(earlier[key], later[key]) for key in earlier} == {("a", "a"), ("a", "b"), ("b", "b")}


@settings(max_examples=25, deadline=None)
@given(st.lists(weights, min_size=3, max_size=5).filter(lambda given: sum(map(bool, given[1:])) > 1), weights)
def test_of_many_only_clients_from_or_to_the_changed_one_move(split_of, ask, given, grown):
    named = {f"u{number}": weight for number, weight in enumerate(given)}
    before = assignments(split_of(named, key={"sourceAddress": True}), ask, users(300))
    after = assignments(split_of(named | {"u0": named["u0"] + grown}, key={"sourceAddress": True}), ask, users(300))
    for key in before:
        assert after[key] in {before[key], "u0"}


def test_each_rule_draws_its_own_clients(split_of, ask):
    one, two = (
        assignments(split_of({"a": 1, "b": 1}, key={"sourceAddress": True}, route=route), ask, users(1_000))
        for route in ("one", "two")
    )
    same = sum(one[key] == two[key] for key in one)
    assert 400 < same < 600


def test_one_upstream_named_twice_gets_both_parts(split_of, spec, ask):
    split = split_of([spec.ref("a", 1), spec.ref("b", 2), spec.ref("a", 1)], key={"sourceAddress": True})
    request = ask()
    counts = Counter(split.backends.index(split.choose(request, key, 0.0)[0]) for key in users(4_000))
    for index, part in enumerate((1_000, 2_000, 1_000)):
        assert abs(counts[index] - part) < 6 * sqrt(1_000)


def test_the_hash_is_the_documented_one(split_of, ask):
    """So that another program, or another version, can tell where a client goes."""
    from hashlib import blake2b
    from math import log

    two, three = {"a": 75, "b": 25}, {"a": 2, "b": 1, "c": 3}
    keys = users(200)
    by_two = assignments(split_of(two, key={"sourceAddress": True}), ask, keys)
    by_three = assignments(split_of(three, key={"sourceAddress": True}), ask, keys)

    def number(data):
        return int.from_bytes(blake2b(b"shop/0\0" + data, digest_size=8).digest(), "big")

    for key in keys:
        assert by_two[key] == ("b" if number(key) / 2**64 < 0.25 else "a")
        scores = {
            name: -log((number(key + b"\0" + name.encode()) + 1) / 2**64) / weight for name, weight in three.items()
        }
        assert by_three[key] == min(scores, key=scores.__getitem__)


# --- without some of them --------------------------------------------------------------------------------------------
def test_the_rest_has_what_those_left_out_had_in_proportion(split_of):
    split = split_of({"a": 50, "b": 30, "c": 20})
    a, b, c = split.backends
    counts = Counter(split.redraw([b], None, (number + 0.5) / 7_000) for number in range(7_000))
    assert counts == {a: 5_000, c: 2_000}
    assert split.redraw([a, c], None, 0.999) is b
    assert split.redraw([a, b, c], None, 0.5) is None


def test_a_weight_of_zero_gets_nothing_then_either(split_of):
    split = split_of({"a": 1, "b": 1, "c": 0})
    assert {split.redraw([split.backends[1]], key, 0.999) for key in (None, b"ann")} == {split.backends[0]}


def test_by_key_only_clients_of_those_left_out_move(split_of, ask):
    split = split_of({"a": 2, "b": 3, "c": 5}, key={"sourceAddress": True})
    gone = split.backends[1]
    before = {key: split.by_hash(key) for key in users(300)}
    after = {key: split.redraw([gone], key, 0.0) for key in before}
    assert {key for key in before if before[key] is not after[key]} == {key for key in before if before[key] is gone}
    assert {after[key] for key in before if before[key] is gone} == {split.backends[0], split.backends[2]}


def test_the_leading_backend_is_the_primary(split_of):
    assert split_of({"a": 0, "b": 1, "c": 1}).leading.upstream == "b"
    assert split_of({"a": 0}).leading is None
