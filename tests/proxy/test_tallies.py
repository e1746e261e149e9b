"""What a worker counts of requests that were drawn, and what it tells control at once."""

import asyncio

import pytest

from splitproxy.core import live, stats, tallies
from splitproxy.core.live import Area, Traffic
from splitproxy.core.tallies import CANARY, PRIMARY, Aims
from splitproxy.proxy import tallying

BOUNDS = {"maxBodyBytes": 1 << 20, "maxInFlight": 64, "timeout": 5.0, "allMethods": False}
AFFINITY = {
    "cookieName": "release",
    "primaryCookieName": None,
    "maxAge": 600,
    "domain": "",
    "path": "/",
    "sameSite": "Lax",
    "secure": None,
    "httpOnly": True,
    "partitioned": False,
}
BAD = b"HTTP/1.1 500 Oops\r\nContent-Length: 1\r\n\r\n!"
HALF = 5_000
SLOW = stats.bucket(0.05)
AT_50_MS = (SLOW,) * 6


BOTH = {**AFFINITY, "primaryCookieName": "steady"}


def owned(*, failover=False, **more):
    """Return a rule whose primary is `a` and whose canary is `b`."""
    owner = {"name": "shop", "live": "key", "primary": "a", "canary": "b", "cohorts": [], "affinity": None}
    backends = [{"name": name, "weight": int(name == "a"), "filters": []} for name in "ab"]
    rule = {"backendRefs": backends, "rollout": {**owner, "mirror": BOUNDS, **more}}
    return [{**rule, "split": {"key": None, "overrides": [], "failover": failover}}]


class Control:
    """What control does: it writes the cell, reads tallies and is told of results."""

    def __init__(self, rig):
        self.rig = rig
        rig.area = self.area = Area(memoryview(bytearray(live.LIVE_BYTES)).cast("Q"))
        self.slot = self.area.slot("key", take=True)
        self.area.write_salt(self.slot, 1)
        self.epoch, self.told, self.news, self.there = 0, [], asyncio.Event(), True

    def put(self, weight, thresholds=(), tolerance=1.0, delay=0.0):
        self.epoch += 1
        aims = Aims(thresholds, tolerance, delay)
        self.area.write_thresholds(self.slot, tallies.pack(thresholds, self.epoch), aims.word())
        self.area.write(self.slot, live.encode(Traffic(weight), self.epoch))
        self.rig.service.report = self.report

    def report(self, message):
        assert message["type"] == "results"
        if self.there:
            self.told += message["results"]
            self.news.set()
        return self.there

    def cells(self, epoch=0):
        self.rig.service.write_signals()
        region = self.rig.service.region
        place = region.block(tallies.key("shop", epoch or self.epoch))
        return region.cells[place : place + tallies.END].tolist()

    def pair(self, cell, epoch=0):
        return tuple(self.cells(epoch)[cell : cell + 2])

    def beyond(self, side):
        return tallies.slow(self.cells(), side, AT_50_MS)[0]


@pytest.fixture
def control(rig):
    return Control(rig)


async def ask(rig, count, **fields):
    """Ask so often; return how many answers came with each status."""
    client, found = await rig.client(), {}
    for _ in range(count):
        status = (await client.ask(**fields)).status
        found[status] = found.get(status, 0) + 1
    client.close()
    return found


async def test_drawn_requests_are_counted_by_epoch_and_side(rig, control):
    await rig.serve(await rig.endpoint(), await rig.endpoint(), rules=owned())
    control.put(HALF)
    await ask(rig, 60)
    drawn = control.pair(tallies.DRAWN)
    assert sum(drawn) == 60
    assert min(drawn) > 8
    assert control.pair(tallies.FINISHED) == drawn
    control.put(2_500)
    await ask(rig, 20)
    assert sum(control.pair(tallies.DRAWN)) == 20
    assert control.pair(tallies.DRAWN, control.epoch - 1) == drawn
    assert control.pair(tallies.FAILED) == control.pair(tallies.BAD) == (0, 0)
    assert control.told == []
    rig.service.write_signals()
    counted = {role: rig.codes(role=role).get("200", 0) for role in ("canary", "primary")}
    assert sum(counted.values()) == 80, "the signals have them all the same"


@pytest.mark.parametrize("weight", [0, 10_000])
async def test_where_there_is_no_chance_nothing_is_tallied(rig, control, weight):
    await rig.serve(await rig.endpoint(BAD), await rig.endpoint(BAD), rules=owned())
    control.put(weight)
    await ask(rig, 5)
    assert control.told == []
    assert control.cells()[tallies.EPOCH] == 0


@pytest.mark.parametrize("failover", [False, True])
async def test_a_failure_is_told_at_once_and_charged_to_the_first_side(rig, control, failover):
    await rig.serve(await rig.endpoint(), await rig.endpoint(BAD), rules=owned(failover=failover))
    control.put(HALF)
    found = await ask(rig, 40)
    drawn = control.pair(tallies.DRAWN)
    assert found == ({200: 40} if failover else {200: drawn[PRIMARY], 500: drawn[CANARY]})
    assert control.pair(tallies.BAD) == control.pair(tallies.FAILED) == (drawn[CANARY], 0)
    await control.news.wait()
    await rig.until(lambda: len(control.told) >= drawn[CANARY])
    for key, epoch, what, side, client, request, status, outcome, bits in control.told:
        assert (key, epoch, what, side, client, outcome, bits) == ("key", control.epoch, "bad", CANARY, 0, "5xx", 0)
        assert request
        assert status == 500, "what the first side said, whatever the client got"


@pytest.mark.parametrize("failover", [True, False])
@pytest.mark.parametrize("side", ["a", "b"])
async def test_a_side_that_cannot_be_used_makes_the_draw_no_fair_one(rig, control, failover, side):
    health = {"b": {"outlierDetection": None}}
    await rig.serve(await rig.endpoint(), "127.0.0.1:1", rules=owned(failover=failover), health=health)
    control.put(HALF)
    upstream = rig.service.upstream(side)
    await ask(rig, 10)
    before = control.pair(tallies.DRAWN)
    upstream.usable = False
    try:
        await ask(rig, 20)
    finally:
        upstream.usable = True
    assert control.pair(tallies.DRAWN) == before


async def test_latency_is_counted_against_the_thresholds(rig, control):
    async def script(peer, endpoint):
        while True:
            await peer.request()
            await asyncio.sleep(0.12)
            await peer.send(rig.OK)

    await rig.serve(await rig.endpoint(), await rig.endpoint(script), rules=owned())
    control.put(HALF, AT_50_MS)
    await ask(rig, 16)
    drawn = control.pair(tallies.DRAWN)
    assert control.beyond(CANARY) == (drawn[CANARY], 0)
    assert control.beyond(PRIMARY) == (0, drawn[PRIMARY])
    control.put(HALF, AT_50_MS, tolerance=4.0)
    await ask(rig, 12)
    assert control.beyond(CANARY) == (0, control.pair(tallies.DRAWN)[CANARY]), "four times as long is tolerated"
    control.put(HALF, AT_50_MS, delay=0.5)
    await ask(rig, 12)
    assert control.beyond(CANARY) == (0, control.pair(tallies.DRAWN)[CANARY]), "half a second more is tolerated"


async def test_who_hangs_is_slow_before_the_end_and_once(rig, control):
    answer = asyncio.Event()

    async def script(peer, endpoint):
        while True:
            await peer.request()
            await answer.wait()
            await peer.send(rig.OK)

    await rig.serve(await rig.endpoint(script), await rig.endpoint(script), rules=owned())
    control.put(HALF, AT_50_MS)
    clients = [await rig.client() for _ in range(24)]
    asking = [asyncio.create_task(client.ask()) for client in clients]
    await rig.until(lambda: sum(control.beyond(side)[0] for side in (CANARY, PRIMARY)) == 24)
    drawn = control.pair(tallies.DRAWN)
    hanging = [control.beyond(side) for side in (CANARY, PRIMARY)]
    assert hanging == [(drawn[CANARY], 0), (drawn[PRIMARY], 0)]
    clients[0].reset()
    await rig.until(lambda: rig.codes().get("499") == 1)
    answer.set()
    await asyncio.gather(*asking[1:])
    asking[0].cancel()
    for client in clients[1:]:
        client.close()
    await rig.until(lambda: sum(rig.codes().values()) == 24)
    assert [control.beyond(side) for side in (CANARY, PRIMARY)] == hanging, "each counts once, who left included"
    cells = control.cells()
    assert sum(cells[tallies.BEYOND : tallies.HISTOGRAM]) == 6, "only who left is still there"


async def test_each_client_is_told_of_once(rig, control):
    await rig.serve(await rig.endpoint(BAD), await rig.endpoint(BAD), rules=owned(affinity=AFFINITY))
    control.put(HALF)
    for number in range(6):
        await ask(rig, 5, cookie=f"release={number:032x}.{1:016x}")
    await rig.until(lambda: len(control.told) >= 6)
    assert len({told[4] for told in control.told}) == 6
    assert {told[2] for told in control.told} == {"bad"}
    assert sum(control.pair(tallies.FAILED)) == 30
    assert control.pair(tallies.BAD) == (0, 0), "the coin is the client's"
    assert control.pair(tallies.DRAWN) == (0, 0), "none of them is new"


async def test_a_clients_first_slow_request_is_told(rig, control):
    async def script(peer, endpoint):
        while True:
            await peer.request()
            await asyncio.sleep(0.07)
            await peer.send(rig.OK)

    await rig.serve(await rig.endpoint(script), await rig.endpoint(script), rules=owned(affinity=AFFINITY))
    control.put(HALF, AT_50_MS)
    await ask(rig, 3, cookie=f"release={7:032x}.{1:016x}")
    await ask(rig, 1)
    await rig.until(lambda: len(control.told) >= 2)
    assert [(told[2], told[8]) for told in control.told] == [("slow", 0b111111)] * 2
    assert sum(control.pair(tallies.DRAWN)) == 1, "who got a cookie"


async def test_a_result_that_comes_too_late_for_its_epoch_is_dropped(rig, control):
    answer = asyncio.Event()

    async def script(peer, endpoint):
        await peer.request()
        await answer.wait()
        await peer.send(BAD)

    await rig.serve(await rig.endpoint(script), await rig.endpoint(script), rules=owned())
    control.put(HALF)
    late = await rig.client()
    asking = asyncio.create_task(late.ask())
    await rig.until(lambda: sum(control.pair(tallies.DRAWN)))
    for _ in range(tallies.PLACES):
        control.put(HALF)
    others = [await rig.client() for _ in range(2)]
    more = [asyncio.create_task(client.ask()) for client in others]
    await rig.until(lambda: sum(control.pair(tallies.DRAWN)) >= 2)
    answer.set()
    await asyncio.gather(asking, *more)
    for client in (late, *others):
        client.close()
    await rig.until(lambda: sum(rig.codes().values()) == 3)
    assert sum(control.pair(tallies.BAD)) == 2
    assert control.cells()[tallies.DROPPED] >= 1


async def test_a_client_that_a_larger_share_moves_is_no_new_one(rig, control):
    await rig.serve(await rig.endpoint(), await rig.endpoint(), rules=owned(affinity=BOTH))
    control.put(HALF)
    await ask(rig, 20)
    assert sum(control.pair(tallies.DRAWN)) == 20
    control.put(9_900)
    client = await rig.client()
    moved = 0
    for number in range(20):
        answer = await client.ask(cookie=f"steady={number << 64:032x}.{1:016x}")
        moved += b"Set-Cookie: release=" in answer.raw
    client.close()
    assert moved, "it gets the cookie of its new side"
    assert control.pair(tallies.DRAWN) == (0, 0), "its coin was thrown long ago"


async def test_what_a_run_before_has_counted_is_not_taken_for_the_next_one(rig, control):
    await rig.serve(await rig.endpoint(), await rig.endpoint(BAD), rules=owned())
    control.put(HALF)
    await ask(rig, 20)
    before = control.cells()
    assert sum(before[tallies.BAD : tallies.BAD + 2])
    control.area.write(control.slot, 0)
    control.area.write_salt(control.slot, 2)
    control.epoch = 0  # the rollout was away, and its slot with it
    await ask(rig, 1)
    control.put(HALF)
    await ask(rig, 6)
    assert sum(control.pair(tallies.DRAWN)) == 6
    assert control.cells()[tallies.EPOCH] == tallies.stamp(1, 2) != before[tallies.EPOCH]


async def test_a_clients_failure_is_told_when_control_is_there_again(rig, control):
    await rig.serve(await rig.endpoint(BAD), await rig.endpoint(BAD), rules=owned(affinity=AFFINITY))
    control.put(HALF)
    control.there = False
    await ask(rig, 3, cookie=f"release={7:032x}.{1:016x}")
    assert control.told == []
    control.there = True
    await asyncio.wait_for(control.news.wait(), 5)
    await ask(rig, 3, cookie=f"release={7:032x}.{1:016x}")
    assert len(control.told) == 1


async def test_clients_beyond_what_is_told_at_once_are_told_later(rig, control, monkeypatch):
    monkeypatch.setattr(tallying, "_BATCH", 1)
    await rig.serve(await rig.endpoint(BAD), await rig.endpoint(BAD), rules=owned(affinity=AFFINITY))
    control.put(HALF)
    control.there = False
    for number in range(2):
        await ask(rig, 1, cookie=f"release={number:032x}.{1:016x}")
    control.there = True
    await asyncio.wait_for(control.news.wait(), 5)
    await ask(rig, 1, cookie=f"release={1:032x}.{1:016x}")
    await rig.until(lambda: len(control.told) == 2)
    assert len({told[4] for told in control.told}) == 2


async def test_a_further_revision_takes_the_blocks_of_the_one_before(rig, control):
    await rig.serve(await rig.endpoint(), await rig.endpoint(), rules=owned())
    for _ in range(tallies.PLACES):
        control.put(HALF)
        await ask(rig, 1)
    used = rig.service.cells[stats.USED]
    slot = control.area.slot("another", take=True)
    control.area.write_salt(slot, 2)
    control.area.write(slot, live.encode(Traffic(HALF), 3))
    await rig.serve(await rig.endpoint(), await rig.endpoint(), rules=owned(live="another"))
    await ask(rig, 4)
    place = rig.service.region.block(tallies.key("shop", 3))
    rig.service.write_signals()
    assert rig.service.cells[place + tallies.EPOCH] == tallies.stamp(3, 2)
    assert sum(rig.service.cells[place + tallies.DRAWN : place + tallies.DRAWN + 2]) == 4
    region = rig.service.region
    assert [key for key, _ in stats.directory(region.cells, used) if key[0] == tallies.KIND] == []
