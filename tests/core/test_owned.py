"""The split of a rule that a rollout owns: who goes to the canary under a live share, why, and with which cookie."""

import itertools
from collections import Counter
from hashlib import blake2b
from math import sqrt
from random import Random

import pytest
from hypothesis import given, settings, strategies as st

from splitproxy.core import live
from splitproxy.core.live import Area, Traffic
from splitproxy.core.routing import TableBuilder

COOKIE = {
    "cookieName": "release",
    "primaryCookieName": None,
    "maxAge": 86400,
    "domain": "",
    "path": "/",
    "sameSite": "Lax",
    "secure": None,
    "httpOnly": True,
    "partitioned": False,
}
BOTH = {**COOKIE, "primaryCookieName": "stable"}
MIRROR = {"maxBodyBytes": 1 << 20, "maxInFlight": 64, "timeout": 5.0, "allMethods": False}
BY_ADDRESS = {"sourceAddress": True}
REST = Traffic()
units = st.integers(0, 10_000)
salts = st.integers(0, 2**64 - 1)


class Run:
    """A rule `route/0` with upstreams a (primary) and b (canary) under a live share, as one worker has it."""

    def __init__(self, spec, weights, *, area=None, route="shop", cohorts=(), affinity=None, owner=(), **more):
        self.spec = spec
        self.area = area if area is not None else Area(memoryview(bytearray(live.LIVE_BYTES)).cast("Q"))
        owner = {"name": "shop", "live": "key", "primary": "a", "canary": "b", "cohorts": list(cohorts), **dict(owner)}
        rule = {**spec.rule(to=weights, **more), "rollout": {**owner, "affinity": affinity, "mirror": MIRROR}}
        self.plain = spec.route(route, rule)
        self.slot = self.area.slot("key", take=True)
        self.compile()
        self.epoch = 0
        self.minted = 0

    def compile(self, area=None):
        builder = TableBuilder(area or self.area)
        builder.add_route(self.plain)
        self.rule = builder.finish().match(self.spec.request("GET", "/"))
        self.split = self.rule.live

    def put(self, weight=0, *, salt=None, **more):
        if salt is not None:
            self.area.write_salt(self.slot, salt)
        self.epoch += 1
        self.area.write(self.slot, live.encode(Traffic(weight, **more), self.epoch))
        return self

    def mint(self):
        self.minted += 1
        return blake2b(b"%d" % self.minted, digest_size=16).hexdigest().encode()

    def place(self, address=b"", point=0.999, *, target="/?user=ann", **request):
        return self.split.place(self.spec.request("GET", target, **request), address, point, self.mint)

    def assigned(self, keys):
        return {key: self.place(key)[0].upstream for key in keys}


@pytest.fixture(scope="session")
def run_of(spec):
    """Compile a rule that a rollout owns, with an area of its own."""
    return lambda weights=None, **more: Run(spec, weights or {"a": 1, "b": 0}, **more)


def users(count):
    return [b"user-%d" % number for number in range(count)]


def ids(count):
    return [blake2b(b"%d" % number, digest_size=16).hexdigest() for number in range(count)]


def said(placement):
    """Return upstream, role and reason."""
    backend, reason, _ = placement
    return backend.upstream, backend.role, reason


# --- at rest ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("weights", [{"a": 1, "b": 0}, {"a": 90, "b": 10}, {"a": 0, "b": 3}, {"b": 1, "a": 2}])
@pytest.mark.parametrize("more", [{}, {"key": BY_ADDRESS}, {"affinity": COOKIE}, {"cohorts": [[{}]]}])
def test_at_rest_the_primary_gets_everything_whatever_the_file_gives_the_canary(run_of, weights, more):
    run = run_of(weights, **more)
    assert {run.place(key, point) for key in users(5) for point in (0.0, 0.999)} == {(run.split.primary, "match", b"")}
    assert said(run.place()) == ("a", "primary", "match")
    assert run.rule.split.single is None
    assert [(one.upstream, share) for one, share in run.rule.split.shares() if share] == [("a", 100.0)]


def test_without_a_slot_or_an_area_a_rollout_is_at_rest_until_compiled_again(run_of):
    run = run_of().put(10_000)
    other = Area(memoryview(bytearray(1024)).cast("Q"))
    run.compile(other)
    assert said(run.place()) == ("a", "primary", "match")
    other.write(other.slot("key", take=True), live.encode(Traffic(10_000), 1))
    assert said(run.place()) == ("a", "primary", "match")
    run.compile(other)
    assert said(run.place()) == ("b", "canary", "match")


def test_at_rest_an_override_still_leads_where_it_says(run_of):
    run = run_of(overrides=[{"header": "x-version", "value": "b", "upstream": "b"}])
    for _ in range(2):
        assert said(run.place()) == ("a", "primary", "match")
        assert said(run.place(headers={"x-version": "b"})) == ("b", "canary", "override")


@pytest.mark.parametrize("more", [{}, {"affinity": COOKIE}, {"key": BY_ADDRESS}])
def test_weights_that_are_all_zero_are_nobodys_whatever_the_share(run_of, more):
    run = run_of({"a": 0, "b": 0}, **more)
    for weight in (0, 5_000, 10_000):
        assert run.put(weight).place(b"ann") == (None, "match", b"")


def test_the_very_next_request_obeys_the_cell(run_of):
    run = run_of()
    for weight, upstream in itertools.islice(itertools.cycle([(0, "a"), (10_000, "b"), (1, "a")]), 12):
        assert run.put(weight).place()[0].upstream == upstream


# --- shares ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("weight", [1, 50, 3_333, 9_999])
def test_the_share_by_chance_is_exact_to_a_hundredth_of_a_percent(run_of, weight):
    run = run_of({"a": 3, "b": 7}).put(weight)
    places = [run.place(point=(number + 0.5) / 10_000) for number in range(10_000)]
    assert Counter(map(said, places)) == {
        ("b", "canary", "random"): weight,
        ("a", "primary", "random"): 10_000 - weight,
    }


@settings(max_examples=25, deadline=None)
@given(units, salts)
def test_shares_by_key_and_by_session_are_within_binomial_bounds(run_of, weight, salt):
    count, p = 2_000, weight / 10_000
    keyed = run_of(key=BY_ADDRESS).put(weight, salt=salt)
    sticky = run_of(affinity=COOKIE).put(weight, salt=salt)
    for counts in (
        Counter(keyed.assigned(users(count)).values()),
        Counter(sticky.place()[0].upstream for _ in range(count)),
    ):
        assert abs(counts["b"] - count * p) <= 6 * sqrt(count * p * (1 - p)) + 1


def test_a_hundredth_of_a_percent_is_one_client_in_ten_thousand(run_of):
    run = run_of(key=BY_ADDRESS).put(1, salt=7)
    found = Counter(run.assigned(users(100_000)).values())["b"]
    assert abs(found - 10) <= 6 * sqrt(10)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 100), min_size=3, max_size=5), units, st.integers(0, 2**32))
def test_other_upstreams_keep_their_share(run_of, given_weights, weight, seed):
    named = dict(zip("abcde", given_weights, strict=False))
    total = sum(given_weights)
    others = {name: value for name, value in named.items() if name not in "ab" and value}
    if not total or not others:
        return
    run, chance, count = run_of(named).put(weight), Random(seed), 1_000
    counts = Counter(run.place(point=chance.random())[0].upstream for _ in range(count))
    pair = named["a"] + named["b"]
    expected = {"a": pair * (1 - weight / 10_000), "b": pair * weight / 10_000, **others}
    for name, value in expected.items():
        p = value / total
        assert abs(counts[name] - count * p) <= 6 * sqrt(count * p * (1 - p)) + 1


# --- stickiness ------------------------------------------------------------------------------------------------------
@settings(max_examples=25, deadline=None)
@given(st.lists(units, min_size=2, max_size=5), salts, st.booleans())
def test_a_share_that_grows_takes_clients_and_gives_none_back(run_of, steps, salt, more):
    weights = {"a": 2, "b": 0, "c": 1, "d": 1} if more else None
    keyed = run_of(weights, key=BY_ADDRESS).put(salt=salt)
    sticky = run_of(weights, affinity=COOKIE).put(salt=salt)
    cookies = [f"{client}.{salt:016x}" for client in ids(100)]
    before: set[str | bytes] = set()
    for weight in sorted(steps):
        keyed.put(weight)
        sticky.put(weight, cohorts=1)
        after = {key for key in users(100) if keyed.place(key)[0].upstream == "b"}
        after |= {cookie for cookie in cookies if sticky.place(cookies={"release": cookie})[0].upstream == "b"}
        assert before <= after
        before = after


@settings(max_examples=20, deadline=None)
@given(units, units, salts, salts)
def test_clients_of_other_upstreams_stay_whatever_the_rollout_does(run_of, one, two, salt, other):
    run = run_of({"c": 1, "a": 1, "b": 1}, key=BY_ADDRESS)
    before = run.put(one, salt=salt).assigned(users(100))
    after = run.put(two, salt=other).assigned(users(100))
    assert {key for key in before if before[key] == "c"} == {key for key in after if after[key] == "c"}
    assert {said(run.put(two).place(key)) for key in users(100)} <= {
        ("a", "primary", "key"),
        ("b", "canary", "key"),
        ("c", "none", "key"),
    }


@settings(max_examples=20, deadline=None)
@given(units, salts, st.booleans())
def test_every_worker_gives_the_same_answer_and_so_does_the_next_configuration(run_of, weight, salt, swapped):
    control = run_of(key=BY_ADDRESS, affinity=BOTH)
    workers = [run_of(area=Area(control.area.cells.toreadonly()), key=BY_ADDRESS, affinity=BOTH) for _ in range(2)]
    control.put(weight, salt=salt, swapped=swapped)
    cookie = {"release": f"{ids(1)[0]}.{salt:016x}"}
    answers = [[said(run.place(key)) for key in users(50)] + [said(run.place(cookies=cookie))] for run in workers]
    workers[0].compile()
    answers.append([said(workers[0].place(key)) for key in users(50)] + [said(workers[0].place(cookies=cookie))])
    assert answers[0] == answers[1] == answers[2]


def test_the_hash_is_the_documented_one(run_of):
    run = run_of(key=BY_ADDRESS).put(2_500, salt=live.salt("shop", "2.1.0", 1))
    salt = live.salt("shop", "2.1.0", 1).to_bytes(8, "big")
    for key, upstream in run.assigned(users(200)).items():
        number = int.from_bytes(blake2b(salt + b"\0" + key, digest_size=8).digest(), "big")
        assert upstream == ("b" if number / 2**64 < 0.25 else "a")


def test_a_new_run_draws_its_own_clients(run_of):
    run = run_of(key=BY_ADDRESS)
    drawn = []
    for attempt in (1, 2):
        run.put(0, salt=live.salt("shop", "2.1.0", attempt))
        drawn.append(run.put(5_000).assigned(users(1_000)))
    same = sum(drawn[0][key] == drawn[1][key] for key in drawn[0])
    assert 400 < same < 600


def test_a_salt_counts_from_when_it_is_written_even_if_the_cell_comes_back_as_it_was(run_of):
    run = run_of(key=BY_ADDRESS).put(5_000, salt=1)
    before = run.assigned(users(200))
    run.area.write_salt(run.slot, 2)
    assert run.assigned(users(200)) != before


# --- roles -----------------------------------------------------------------------------------------------------------
@settings(max_examples=20, deadline=None)
@given(units, salts)
def test_swapped_exchanges_the_roles_and_moves_nobody(run_of, weight, salt):
    run = run_of({"a": 1, "b": 0, "c": 1}, key=BY_ADDRESS).put(weight, salt=salt)
    before = {key: run.place(key)[0] for key in users(50)}
    run.put(weight, swapped=True)
    exchanged = {"primary": "canary", "canary": "primary", "none": "none"}
    for key, backend in before.items():
        now = run.place(key)[0]
        assert (now.upstream, now.role) == (backend.upstream, exchanged[backend.role])
        assert now.key == ("series", "shop", "0", now.upstream, now.role)


def test_after_the_swap_all_is_as_quiet_as_before_it(run_of):
    run = run_of(affinity=COOKIE).put(10_000, swapped=True)
    assert run.place() == (run.split.pair(swapped=True)[0], "match", b"")
    assert said(run.place()) == ("b", "primary", "match")


def test_the_leaves_have_the_filters_of_their_backend_under_both_roles(run_of, spec):
    item = {"type": "URLRewrite", "urlRewrite": {"hostname": "b.internal", "path": None}}
    run = run_of([spec.ref("a"), spec.ref("b", 0, [item])])
    for swapped in (False, True):
        canary, primary = run.split.pair(swapped=swapped)
        assert canary.rewrite.hostname == b"b.internal"
        assert primary.rewrite is None
    assert not run.split.plain


def test_a_primary_named_twice_has_all_of_its_weight_in_its_first_place(run_of, spec):
    run = run_of([spec.ref("a", 1), spec.ref("c", 2), spec.ref("a", 1), spec.ref("b", 0)])
    assert [share for _, share in run.rule.split.shares()] == [50.0, 50.0, 0.0, 0.0]
    run.put(10_000)
    assert {run.place(point=number / 10)[0].upstream for number in range(10)} == {"b", "c"}


# --- the order of reasons --------------------------------------------------------------------------------------------
def test_override_cohort_session_key_and_chance_in_this_order(run_of, spec):
    run = run_of(
        key={"header": "x-user"},
        overrides=[{"header": "x-version", "value": version, "upstream": version} for version in ("a", "b", "c")],
        cohorts=[[{"headers": spec.values({"x-cohort": "insider"})}]],
        affinity=COOKIE,
    ).put(1, salt=0, cohorts=1)
    insider, version, ann = {"x-cohort": "insider"}, {"x-version": "a"}, {"x-user": "ann"}
    cookies = {"release": f"{ids(1)[0]}.{0:016x}"}
    assert said(run.place(headers=insider | version, cookies=cookies)) == ("a", "primary", "override")
    assert said(run.place(headers=insider | ann, cookies=cookies)) == ("b", "canary", "match")
    assert said(run.place(headers=ann, cookies=cookies)) == ("a", "primary", "session")
    assert said(run.place(headers=ann)) == ("a", "primary", "key")
    assert said(run.place()) == ("a", "primary", "random")
    run.put(1, swapped=True)
    assert said(run.place(headers={"x-version": "b"})) == ("b", "primary", "override")
    assert said(run.place(headers={"x-version": "c"})) == ("c", "none", "override")


def test_cohorts_are_let_in_one_after_the_other(run_of, spec):
    rings = [
        [{"headers": spec.values({"x-ring": "staff"})}, {"cookies": spec.values({"ring": "~st.ff"})}],
        [{"queryParams": spec.values({"ring": "early"}), "headers": spec.values({"x-ring": "early"})}],
        [{}],
    ]
    run = run_of(cohorts=rings)
    requests = [
        {"headers": {"x-ring": "staff"}},
        {"cookies": {"ring": "stuff"}},
        {"headers": {"x-ring": "early"}, "target": "/?ring=early"},
        {"headers": {"x-ring": "early"}},
    ]
    admitted = ["aaaa", "bbaa", "bbba", "bbbb"]
    for cohorts, upstreams in enumerate(admitted):
        run.put(cohorts=cohorts)
        assert "".join(run.place(**request)[0].upstream for request in requests) == upstreams
        assert {run.place(**request)[1:] for request in requests} == {("match", b"")}
    numbers = [run.split.membership(spec.request("GET", "/", headers=one.get("headers"))) for one in requests]
    assert numbers == [0, 2, 2, 2]


def test_a_key_cookie_is_issued_as_ever(run_of):
    run = run_of(key={"cookie": "sp_id", "issue": True})
    for weight, reason in ((0, "match"), (5_000, "key"), (10_000, "match")):
        run.put(weight)
        _, first, issued = [run.place() for _ in range(2)][-1]
        client = issued.removeprefix(b"Set-Cookie: sp_id=").partition(b";")[0].decode()
        assert (first, len(client)) == (reason, 32)
        assert run.place(cookies={"sp_id": client})[1:] == (reason, b"")
    assert run.put(5_000).place(cookies={"sp_id": "x"}) == run.place(cookies={"sp_id": "x"}, point=0.0)


# --- sessions --------------------------------------------------------------------------------------------------------
def given_cookie(placement):
    """Return name and value of the cookie that a client is given."""
    name, _, value = placement[2].removeprefix(b"Set-Cookie: ").partition(b";")[0].partition(b"=")
    return {name.decode(): value.decode()}


@pytest.mark.parametrize("affinity", [COOKIE, BOTH])
def test_a_client_keeps_its_side_and_gets_its_cookie_once(run_of, affinity):
    run = run_of(affinity=affinity).put(5_000, salt=9)
    sides = Counter()
    for _ in range(200):
        first = run.place()
        cookies = given_cookie(first)
        name = "release" if affinity is COOKIE or first[0].upstream == "b" else "stable"
        assert list(cookies) == [name]
        assert cookies[name].endswith(".0000000000000009")
        assert first[1] == "random"
        assert run.place(cookies=cookies) == (first[0], "session", b"")
        sides[first[0].upstream] += 1
    assert 60 < sides["a"] < 140


@given(st.lists(units, min_size=1, max_size=6), salts)
@settings(max_examples=30, deadline=None)
def test_the_canarys_share_of_all_clients_is_the_weight_and_does_not_drift(run_of, weights, salt):
    """However often they come back; Flagger's would collect them at the canary."""
    run, clients = run_of(affinity=BOTH).put(salt=salt), [{} for _ in range(300)]
    for weight in weights:
        run.put(weight, cohorts=1)
        for _ in range(3):
            at_canary = 0
            for cookies in clients:
                placement = run.place(cookies=cookies)
                if placement[2]:
                    cookies |= given_cookie(placement)
                at_canary += placement[0].upstream == "b"
            p = weight / 10_000
            assert abs(at_canary - 300 * p) <= 6 * sqrt(300 * p * (1 - p)) + 1


def test_a_client_that_a_grown_share_moves_gets_the_other_cookie_with_its_own_id(run_of):
    run = run_of(affinity=BOTH).put(1, salt=9)
    cookies = given_cookie(run.place())
    assert list(cookies) == ["stable"]
    moved = run.put(10_000).place(cookies=cookies)
    assert said(moved) == ("b", "canary", "session")
    assert given_cookie(moved) == {"release": cookies["stable"]}
    both = cookies | given_cookie(moved)
    assert run.place(cookies=both) == (moved[0], "session", b"")
    back = run.put(1).place(cookies=both)
    assert said(back) == ("a", "primary", "session")
    assert back[2] == b""
    assert given_cookie(run.place(cookies={"release": both["release"]})) == {"stable": both["release"]}


def test_the_canarys_cookie_is_read_first(run_of):
    run = run_of(affinity=BOTH).put(5_000, salt=9)
    sides = {run.place(cookies={"release": f"{one}.{9:016x}"})[0].upstream: f"{one}.{9:016x}" for one in ids(50)}
    assert run.place(cookies={"release": sides["b"], "stable": sides["a"]})[0].upstream == "b"
    backend, reason, lines = run.place(cookies={"release": "stale", "stable": sides["a"]})
    assert (backend.plain, reason, lines) == (run.split.primary, "session", b"")


@pytest.mark.parametrize(
    "value",
    [
        "",
        "0" * 32,
        "0" * 32 + "." + f"{8:016x}",
        "0" * 32 + "-" + f"{9:016x}",
        "0" * 31 + "." + f"{9:016x}",
        "0" * 33 + "." + f"{9:016x}",
        "G" * 32 + "." + f"{9:016x}",
        "\r\n" * 16 + "." + f"{9:016x}",
        "0" * 32 + "." + f"{9:016x}" + "0",
    ],
)
def test_a_cookie_that_is_not_of_this_run_is_as_good_as_none(run_of, value):
    for affinity in (COOKIE, BOTH):
        run = run_of(affinity=affinity).put(5_000, salt=9)
        for name in ("release", "stable"):
            placement = run.place(cookies={name: value})
            assert placement[1] == "random"
            assert given_cookie(placement) not in ({name: value}, {})


def test_a_cookie_is_void_after_a_rollback_and_in_the_next_run(run_of):
    run = run_of(affinity=COOKIE).put(9_999, salt=9)
    cookies = given_cookie(run.place())
    assert run.place(cookies=cookies)[1] == "session"
    assert run.put(0).place(cookies=cookies) == (run.split.primary, "match", b"")
    run.put(0, salt=10)
    again = run.put(9_999).place(cookies=cookies)
    assert again[1] == "random"
    assert given_cookie(again)["release"].endswith(f".{10:016x}")


def test_no_cookie_is_given_before_live_traffic_nor_to_those_who_are_forced(run_of, spec):
    run = run_of(affinity=COOKIE, cohorts=[[{"headers": spec.values({"x-cohort": "insider"})}]])
    assert run.put(cohorts=1).place() == (run.split.primary, "match", b"")
    assert run.put(mirror=10_000).place() == (run.split.primary, "match", b"")
    assert run.put(5_000, cohorts=1).place(headers={"x-cohort": "insider"})[1:] == ("match", b"")
    keyed = run_of(affinity=COOKIE, key=BY_ADDRESS).put(5_000)
    assert keyed.place(b"ann")[1:] == ("key", b"")


@pytest.mark.parametrize(
    ("changes", "attributes"),
    [
        ({}, "Path=/; Max-Age=86400; HttpOnly; SameSite=Lax"),
        ({"maxAge": 60, "path": "/shop", "httpOnly": False}, "Path=/shop; Max-Age=60; SameSite=Lax"),
        (
            {"domain": "example.com", "sameSite": "None", "secure": True, "partitioned": True},
            "Path=/; Max-Age=86400; Domain=example.com; HttpOnly; Secure; Partitioned; SameSite=None",
        ),
        ({"path": None, "sameSite": None}, "Path=/; Max-Age=86400; HttpOnly; SameSite=Lax"),
    ],
)
def test_the_cookie_has_the_attributes_of_the_file(run_of, changes, attributes):
    run = run_of(affinity={**COOKIE, **changes}).put(10_000, salt=9)
    run.minted = 0
    first = blake2b(b"1", digest_size=16).hexdigest()
    assert run.place()[2].decode() == f"Set-Cookie: release={first}.{9:016x}; {attributes}\r\n"


# --- copies ----------------------------------------------------------------------------------------------------------
def test_a_mirror_share_is_in_force_while_the_cell_says_so(run_of):
    run = run_of()
    run.place()
    assert (run.split.mirrors, run.split.plain) == ((), True)
    run.put(mirror=2_550).place()
    (mirror,) = run.split.mirrors
    assert (mirror.percent, mirror.backend.upstream, mirror.backend.role) == (25.5, "b", "mirror")
    assert (mirror.all_methods, mirror.max_body_bytes, mirror.max_in_flight, mirror.timeout) == (False, 1 << 20, 64, 5)
    assert not run.split.plain
    run.put(500, mirror=10_000).place()
    assert run.split.mirrors[0].percent == 100.0
    run.put(10_000, mirror=10_000, swapped=True).place()
    assert (run.split.mirrors, run.split.plain) == ((), True)


def test_a_rule_with_filters_of_its_own_is_never_plain(run_of):
    item = {"type": "URLRewrite", "urlRewrite": {"hostname": "b.internal", "path": None}}
    run = run_of(filters=[item])
    for mirror in (0, 1, 0):
        run.put(mirror=mirror).place()
        assert not run.split.plain
        assert not run.rule.plain


# --- what outlasts a share -------------------------------------------------------------------------------------------
def test_only_what_goes_to_a_canary_with_a_share_is_called_back_and_only_where_that_is_configured(run_of):
    for tunnels in ("keep", "close"):
        run = run_of(owner={"tunnels": tunnels})
        canary, primary = run.split.pair(swapped=False)
        promoted, _ = run.split.pair(swapped=True)
        assert not run.split.recalls(canary), "before it has a share"
        run.put(1)
        assert run.split.recalls(canary) is (tunnels == "close")
        assert run.split.recalls(promoted) is (tunnels == "close"), "once it is the primary, too"
        assert not run.split.recalls(primary)


@pytest.mark.parametrize(
    ("traffic", "withdrawn"),
    [
        (REST, True),
        (Traffic(weight=1), False),
        (Traffic(cohorts=1), False),
        (Traffic(mirror=10_000), True),
        (Traffic(weight=10_000, swapped=True), False),
    ],
)
def test_a_canary_is_withdrawn_when_nothing_but_copies_goes_there(run_of, traffic, withdrawn):
    run = run_of().put(**traffic._asdict())
    assert run.split.withdrawn is withdrawn


def test_a_slot_given_back_is_no_longer_the_rollouts(run_of):
    run = run_of().put(1)
    assert run.split.present
    run.area.keep([])
    assert not run.split.present
    run.area.slot("other", take=True)
    assert not run.split.present
    run.compile(Area(memoryview(bytearray(live.LIVE_BYTES)).cast("Q")))
    assert not run.split.present, "it never had one"
