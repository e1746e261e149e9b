"""A rule that a rollout owns, on the wire: the live share, its cohorts, sessions and copies."""

import pytest

from splitproxy.core import live
from splitproxy.core.live import Area, Traffic

pytestmark = pytest.mark.on_loop("uvloop", "asyncio")
AFFINITY = {
    "cookieName": "release",
    "primaryCookieName": "stable",
    "maxAge": 600,
    "domain": "",
    "path": "/",
    "sameSite": "Lax",
    "secure": None,
    "httpOnly": True,
    "partitioned": False,
}
BOUNDS = {"maxBodyBytes": 1 << 20, "maxInFlight": 64, "timeout": 5.0, "allMethods": False}
SALT = 0x0123456789ABCDEF
INSIDERS = [[{"headers": [{"name": "X-Cohort", "type": "Exact", "value": "insider"}]}]]
BODIES = {name: b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n" + name.encode() for name in "ab"}


def owned(*, affinity=None, cohorts=(), mirror=BOUNDS, refs=("a", "b"), **rule):
    """Return a rule whose primary is `a` and whose canary is `b`."""
    owner = {"name": "shop", "live": "key", "primary": "a", "canary": "b", "cohorts": list(cohorts)}
    backends = [{"name": name, "weight": int(name == "a"), "filters": []} for name in refs]
    return [{"backendRefs": backends, "rollout": {**owner, "affinity": affinity, "mirror": mirror}, **rule}]


class Share:
    """What control does: it writes the cell."""

    def __init__(self, rig):
        rig.area = self.area = Area(memoryview(bytearray(live.LIVE_BYTES)).cast("Q"))
        self.slot = self.area.slot("key", take=True)
        self.area.write_salt(self.slot, SALT)
        self.epoch = 0

    def put(self, weight=0, **more):
        self.epoch += 1
        self.area.write(self.slot, live.encode(Traffic(weight, **more), self.epoch))


@pytest.fixture
def share(rig):
    """The live share of the rollout."""
    return Share(rig)


@pytest.fixture
def pair(rig):
    """Start primary and canary; each answers with its name."""

    async def start():
        return [await rig.endpoint(BODIES[name]) for name in "ab"]

    return start


async def test_the_very_next_request_obeys_the_cell(rig, share, pair):
    await rig.serve(*await pair(), rules=owned())
    client = await rig.client()
    for weight, body in ((0, b"a"), (10_000, b"b"), (0, b"a"), (10_000, b"b"), (0, b"a")):
        share.put(weight)
        assert (await client.ask()).body == body
    client.close()
    await rig.until(lambda: rig.codes(upstream="a", role="primary") == {"200": 3})
    assert rig.codes(upstream="b", role="canary") == {"200": 2}
    assert rig.reasons() == {"match": 5}


async def test_a_share_in_between_is_drawn_by_chance(rig, share, pair):
    await rig.serve(*await pair(), rules=owned())
    share.put(5_000)
    client = await rig.client()
    bodies = [(await client.ask()).body for _ in range(200)]
    assert 60 < bodies.count(b"b") < 140
    await rig.until(lambda: rig.reasons() == {"random": 200})
    assert rig.codes(upstream="b", role="canary") == {"200": bodies.count(b"b")}


async def test_swapped_requests_count_under_the_exchanged_role(rig, share, pair):
    await rig.serve(*await pair(), rules=owned())
    client = await rig.client()
    for weight in (10_000, 0):
        share.put(weight, swapped=True)
        await client.ask()
    await rig.until(lambda: rig.reasons() == {"match": 2})
    assert rig.codes(upstream="b", role="primary") == rig.codes(upstream="a", role="canary") == {"200": 1}


async def test_the_share_outlives_a_reload(rig, share, pair):
    endpoints = await pair()
    await rig.serve(*endpoints, rules=owned())
    share.put(10_000)
    client = await rig.client()
    assert (await client.ask()).body == b"b"
    await rig.serve(*endpoints, rules=owned(), timeouts={"request": 9.0})
    assert (await client.ask()).body == b"b"
    share.put(0)
    assert (await client.ask()).body == b"a"


async def test_a_cohort_goes_to_the_canary_while_it_is_let_in(rig, share, pair):
    _, canary = endpoints = await pair()
    await rig.serve(*endpoints, rules=owned(cohorts=INSIDERS))
    client = await rig.client()
    answers = []
    for cohorts in (0, 1, 0):
        share.put(cohorts=cohorts)
        answers += [(await client.ask(x_cohort=cohort)).body for cohort in ("insider", "other")]
    assert b"".join(answers) == b"aabaaa"
    assert canary.received[0].get(b"x-cohort") == b"insider"


async def test_a_client_keeps_its_side_by_cookie(rig, share, pair):
    primary, canary = endpoints = await pair()
    await rig.serve(*endpoints, rules=owned(affinity=AFFINITY))
    client = await rig.client()
    assert (await client.ask()).get(b"set-cookie") is None
    share.put(1)
    first = await client.ask()
    given, _, attributes = first.get(b"set-cookie").partition(b"; ")
    assert first.body == b"a"
    assert attributes == b"Path=/; Max-Age=600; HttpOnly; SameSite=Lax"
    name, _, value = given.partition(b"=")
    assert name == b"stable"
    assert value.endswith(b".%016x" % SALT)
    kept = await client.ask(cookie=f"x=1; {given.decode()}")
    assert (kept.body, kept.get(b"set-cookie")) == (b"a", None)
    assert primary.received[-1].get(b"cookie") == b"x=1; " + given
    share.put(10_000)
    moved = await client.ask(cookie=given.decode())
    assert (moved.body, moved.all(b"set-cookie")) == (b"b", [b"release=%b; %b" % (value, attributes)])
    assert canary.received[-1].get(b"cookie") == given
    await rig.until(lambda: sum(rig.reasons().values()) == 4)
    assert rig.reasons() == {"match": 1, "random": 1, "session": 2}
    assert [line["reason"] for line in rig.log()] == ["match", "random", "session", "session"]


async def test_a_cookie_is_void_after_a_rollback(rig, share, pair):
    await rig.serve(*await pair(), rules=owned(affinity=AFFINITY))
    client = await rig.client()
    share.put(10_000)
    cookie = (await client.ask()).get(b"set-cookie").partition(b"; ")[0].decode()
    share.put(0)
    after = await client.ask(cookie=cookie)
    assert (after.body, after.get(b"set-cookie")) == (b"a", None)
    share.area.write_salt(share.slot, SALT + 1)
    share.put(1)
    again = await client.ask(cookie=cookie)
    assert (again.body, again.get(b"set-cookie").partition(b".")[2][:16]) == (b"a", b"%016x" % (SALT + 1))


# --- copies ----------------------------------------------------------------------------------------------------------
async def test_safe_requests_are_copied_to_the_canary_while_the_cell_says_so(rig, share, pair):
    primary, canary = endpoints = await pair()
    await rig.serve(*endpoints, rules=owned())
    client = await rig.client()
    await client.ask("/before")
    share.put(mirror=10_000)
    assert (await client.ask("/copied?x=1", cookie="c=d")).body == b"a"
    assert (await client.ask("/sent", "POST", body=b"abc")).body == b"a"
    await rig.until(lambda: rig.outcomes(upstream="b", role="mirror"))
    share.put(0)
    await client.ask("/after")
    assert [request.target for request in canary.received] == [b"/copied?x=1"]
    assert canary.received[0].get(b"x-splitproxy-mirror") == b"b"
    assert canary.received[0].get(b"cookie") == b"c=d"
    assert [request.target for request in primary.received] == [b"/before", b"/copied?x=1", b"/sent", b"/after"]
    assert rig.outcomes(upstream="b", role="mirror") == {"success": 1}
    assert rig.drops(upstream="b", role="mirror") == {"method": 1}
    assert rig.outcomes(role="canary") == {}


async def test_bodies_are_copied_where_all_methods_are(rig, share, pair):
    _, canary = endpoints = await pair()
    await rig.serve(*endpoints, rules=owned(mirror={**BOUNDS, "allMethods": True, "maxBodyBytes": 10}))
    share.put(mirror=10_000)
    client = await rig.client()
    for body in (b"abc", b"a" * 11):
        await client.ask("/", "POST", body=body)
    await rig.until(lambda: rig.outcomes(upstream="b", role="mirror"))
    assert [request.body for request in canary.received] == [b"abc"]
    assert rig.drops(upstream="b", role="mirror") == {"body_too_large": 1}


async def test_what_goes_to_the_canary_is_not_copied_to_it_as_well(rig, share, pair):
    _, canary = endpoints = await pair()
    await rig.serve(*endpoints, rules=owned(cohorts=INSIDERS))
    share.put(mirror=10_000, cohorts=1)
    client = await rig.client()
    assert (await client.ask("/live", x_cohort="insider")).body == b"b"
    assert (await client.ask("/copied")).body == b"a"
    await rig.until(lambda: rig.outcomes(upstream="b", role="mirror"))
    assert sorted(request.target for request in canary.received) == [b"/copied", b"/live"]
    assert rig.outcomes(upstream="b", role="mirror") == rig.outcomes(upstream="b", role="canary") == {"success": 1}


async def test_the_share_of_copies_is_drawn_by_chance(rig, share, pair):
    _, canary = endpoints = await pair()
    await rig.serve(*endpoints, rules=owned())
    share.put(mirror=3_000)
    client = await rig.client()
    for _ in range(200):
        await client.ask()
    await rig.until(lambda: sum(rig.outcomes(role="mirror").values()) == len(canary.received))
    assert 25 < len(canary.received) < 100


async def test_copies_of_the_file_and_of_the_rollout_stand_beside_each_other(rig, share, pair):
    _, canary = endpoints = await pair()
    audit = await rig.endpoint()
    own = {"backendRef": {"name": "c"}, "percent": 100.0, "methods": "safe", **BOUNDS}
    filters = [{"type": "RequestMirror", "requestMirror": own}]
    await rig.serve(*endpoints, audit, rules=owned(filters=filters))
    client = await rig.client()
    await client.ask("/one")
    share.put(mirror=10_000)
    await client.ask("/two")
    await rig.until(lambda: sum(rig.outcomes(role="mirror").values()) == 3)
    assert [request.target for request in canary.received] == [b"/two"]
    assert sorted(request.target for request in audit.received) == [b"/one", b"/two"]


async def test_filters_of_a_backend_go_with_it_under_both_roles(rig, share, pair):
    endpoints = await pair()
    item = {"name": "x-version", "value": "two"}
    modifier = {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [item], "add": [], "remove": []}}
    rules = owned()
    rules[0]["backendRefs"][1]["filters"] = [modifier]
    await rig.serve(*endpoints, rules=rules)
    client = await rig.client()
    for swapped in (False, True):
        seen = []
        for weight in (0, 10_000):
            share.put(weight, swapped=swapped)
            seen.append((await client.ask()).get(b"x-version"))
        assert seen == [None, b"two"]


@pytest.mark.parametrize("trusted", [True, False])
@pytest.mark.parametrize(("secure", "key"), [(None, None), (False, None), (True, None), (False, "sp_id")])
async def test_a_session_is_secure_over_tls_unless_the_file_says_otherwise(
    rig, authority, share, pair, secure, key, trusted
):
    split = {"key": key and {"cookie": key, "issue": True}, "overrides": []}
    listener = {"trustedProxies": ["127.0.0.1/32"]} if trusted else {"tls": authority.listener(["shop.test"])}
    rules = owned(affinity={**AFFINITY, "secure": secure}, split=split)
    await rig.serve(*await pair(), rules=rules, listener=listener)
    share.put(5_000)
    encrypted = {} if trusted else {"tls": authority.client(), "name": "shop.test"}
    line = (await rig.ask(connection=encrypted, x_forwarded_proto="https")).get(b"set-cookie")
    assert line.startswith(b"sp_id=" if key else (b"release=", b"stable="))
    # A cookie of the split's key has no setting of its own.
    assert line.count(b"; Secure") == (0 if secure is False and not key else 1)
