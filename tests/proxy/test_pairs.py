"""Copies of a rollout beside their originals, on the wire: which pairs count, as what, and what is told of them."""

import asyncio
import json

import pytest

from splitproxy.core import live, pairs
from splitproxy.core.live import Area, Traffic

COMPARE = {
    "latency": 1.0,
    "delay": 0.0,
    "perSecond": 10_000,
    "bodies": "ignore",
    "headers": ["content-type", "x-build"],
    "ignore": [],
    "redact": ["password"],
    "maxBodyBytes": 65_536,
    "noiseTwin": None,
}
CELLS = {
    "pairs": pairs.PAIRS,
    "no event": pairs.NO_EVENT,
    "both bad": pairs.BOTH_BAD,
    "canary bad": pairs.CANARY_BAD,
    "reference bad": pairs.REFERENCE_BAD,
    "compared": pairs.COMPARED,
    "lost": pairs.LOST,
}
LIMIT = 0.6
"""Seconds that a copy has."""


def owned(*, all_methods=False, limit=LIMIT, most=1 << 20, refs=(("a", 1), ("b", 0)), **compare):
    """Return a rule whose primary is `a`, whose canary is `b`, and whose pairs are compared."""
    mirror = {"maxBodyBytes": most, "maxInFlight": 64, "timeout": limit, "allMethods": all_methods}
    owner = {"name": "shop", "live": "key", "primary": "a", "canary": "b", "cohorts": [], "affinity": None}
    backends = [{"name": name, "weight": weight, "filters": []} for name, weight in refs]
    return [{"backendRefs": backends, "rollout": {**owner, "mirror": {**mirror, "compare": {**COMPARE, **compare}}}}]


def answer(status=200, body=b"ok", **fields):
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} Said\r\n{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body


def document(**values):
    return answer(body=json.dumps(values).encode(), content_type="application/json")


def late(seconds, data=None):
    """Return a script that takes its time; without `data` it says nothing then."""

    async def script(peer, endpoint):
        while True:
            endpoint.received.append(await peer.request())
            await asyncio.sleep(seconds)
            if data is None:
                await peer.reader.read()
            await peer.send(data)

    return script


async def resetting(peer, endpoint):
    await peer.request()
    peer.reset()


class Copying:
    """A rollout that copies every request, what was counted of its pairs, and what control was told."""

    def __init__(self, rig):
        self.rig, self.told = rig, []
        rig.area = self.area = Area(memoryview(bytearray(live.LIVE_BYTES)).cast("Q"))
        self.slot = self.area.slot("key", take=True)
        self.area.write_salt(self.slot, 77)
        self.area.write(self.slot, live.encode(Traffic(mirror=10_000), 1))

    async def serve(self, *endpoints, **how):
        more = {key: how.pop(key) for key in ("listener", "tracing") if key in how}
        await self.rig.serve(*endpoints, rules=owned(**how), **more)
        self.rig.service.report = self.hear

    def hear(self, message):
        self.told.append(message)
        return True

    def counts(self):
        """Return what was counted, without latency."""
        block = self.rig.service.region.block(pairs.key("key"))
        cells = self.rig.service.cells
        return {name: cells[block + cell] for name, cell in CELLS.items() if cells[block + cell]}

    def latency(self):
        """Return for each factor how often the canary, and the reference, was slower."""
        at = self.rig.service.region.block(pairs.key("key")) + pairs.LATENCY
        cells = self.rig.service.cells[at : at + 2 * len(pairs.FACTORS)].tolist()
        return list(zip(cells[::2], cells[1::2], strict=True))

    async def until_counted(self, count=1):
        await self.rig.until(lambda: sum(self.counts().get(name, 0) for name in ("pairs", "no event")) >= count)
        return self.counts()


@pytest.fixture
def copying(rig):
    return Copying(rig)


BAD = answer(503)
TOO_LATE = LIMIT + 0.3


@pytest.mark.parametrize(
    ("primary", "canary", "counted"),
    [
        (answer(), answer(), {}),
        (answer(), BAD, {"canary bad": 1}),
        (answer(), answer(404), {}),
        (answer(), resetting, {"canary bad": 1}),
        (answer(), b"nonsense\r\n\r\n", {"canary bad": 1}),
        (answer(), "127.0.0.1:1", {"canary bad": 1}),
        (answer(), late(0), {"canary bad": 1}),
        (BAD, answer(), {"reference bad": 1}),
        (resetting, answer(), {"reference bad": 1}),
        ("127.0.0.1:1", answer(), {"reference bad": 1}),
        (late(TOO_LATE, answer()), answer(), {"reference bad": 1}),
        (BAD, BAD, {"both bad": 1}),
        (late(TOO_LATE, answer()), late(0), {"both bad": 1}),
    ],
)
async def test_a_pair_is_counted_by_who_failed(rig, copying, primary, canary, counted):
    sides = [side if isinstance(side, str) else await rig.endpoint(side) for side in (primary, canary)]
    await copying.serve(*sides)
    await rig.ask()
    found = await copying.until_counted()
    assert {name: count for name, count in found.items() if name != "compared"} == {"pairs": 1, **counted}


async def test_over_tls_requests_are_paired_too(rig, copying, authority):
    await copying.serve(
        await rig.endpoint(), await rig.endpoint(BAD), listener={"tls": authority.listener(["kit.test"])}
    )
    client = await rig.client(tls=authority.client(), name="kit.test")
    await client.ask()
    assert (await copying.until_counted())["canary bad"] == 1


async def test_a_body_of_any_length_is_relayed_as_it_came(rig, copying):
    body = bytes(range(256)) * 4096
    await copying.serve(await rig.endpoint(answer(body=body)), await rig.endpoint(answer(body=body)), bodies="report")
    client = await rig.client()
    for _ in range(3):
        assert (await client.ask()).body == body
    assert await copying.until_counted(3) == {"pairs": 3, "compared": 3}
    assert copying.told == []


# --- no events --------------------------------------------------------------------------------------------------------
async def test_what_is_not_copied_is_no_pair(rig, copying):
    primary, canary = await rig.endpoint(), await rig.endpoint(BAD)
    await copying.serve(primary, canary)
    client = await rig.client()
    await client.ask(method="POST", body=b"abc")
    await client.ask(method="GET", body=b"abc")
    assert await copying.until_counted() == {"pairs": 1, "canary bad": 1, "compared": 1}


async def test_a_copy_that_was_dropped_is_no_event(rig, copying):
    await copying.serve(await rig.endpoint(), await rig.endpoint(BAD), all_methods=True, most=10)
    client = await rig.client()
    await client.send(b"POST / HTTP/1.1\r\nHost: kit.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
    await client.send(b"14\r\n" + b"x" * 20 + b"\r\n0\r\n\r\n")
    await client.response()
    assert await copying.until_counted() == {"no event": 1}


async def test_a_client_that_leaves_makes_it_no_event(rig, copying):
    primary = await rig.endpoint(late(0))
    await copying.serve(primary, await rig.endpoint(BAD))
    client = await rig.client()
    await client.send(b"GET / HTTP/1.1\r\nHost: kit.test\r\n\r\n")
    await rig.until(lambda: primary.received)
    client.reset()
    assert await copying.until_counted() == {"no event": 1}


async def test_an_answer_without_end_is_no_event(rig, copying):
    stream = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"
    await copying.serve(
        await rig.endpoint(stream + b"0\r\n\r\n"), await rig.endpoint(stream), limit=LIMIT, bodies="report"
    )
    await rig.ask()
    assert await copying.until_counted() == {"no event": 1}


async def test_a_copy_that_waited_long_for_its_connection_is_no_event(rig, copying):
    """The deadline strikes when the canary has had the request for a moment only."""
    primary, canary = await rig.endpoint(), await rig.endpoint(late(0))
    await copying.serve(primary, canary)
    pool = rig.service.upstream("b", mirrors=True)
    asked = pool.lease

    def lease(copy, address):
        rig.service.wheel.forget(copy)
        copy.deadline -= LIMIT - 0.15
        rig.service.wheel.watch(copy)
        return asked(copy, address)

    pool.lease = lease
    await rig.ask()
    assert await copying.until_counted() == {"no event": 1}


async def test_a_pair_that_outlasts_its_run_says_nothing_of_the_next(rig, copying):
    await copying.serve(await rig.endpoint(late(0.05, answer())), await rig.endpoint(BAD))
    client = await rig.client()
    for salt in (78, 78):
        asking = asyncio.ensure_future(client.ask())
        await asyncio.sleep(0.02)
        copying.area.write_salt(copying.slot, salt)
        await asking
    assert await copying.until_counted() == {"pairs": 1, "canary bad": 1, "compared": 1}


# --- latency ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("primary", "canary", "found"),
    [
        (0.02, 0.3, [(1, 0), (1, 0), (1, 0)]),
        (0.3, 0.02, [(0, 1), (0, 1), (0, 1)]),
        (0.1, 0.22, [(1, 0)]),
    ],
)
async def test_it_is_counted_by_how_many_times_longer_it_took(rig, copying, primary, canary, found):
    await copying.serve(*[await rig.endpoint(late(one, answer())) for one in (primary, canary)])
    await rig.ask()
    await copying.until_counted()
    assert copying.latency()[: len(found)] == found


async def test_what_is_tolerated_is_taken_off(rig, copying):
    await copying.serve(*[await rig.endpoint(late(one, answer())) for one in (0.1, 0.2)], latency=4.0)
    await rig.ask()
    await copying.until_counted()
    assert copying.latency()[0] == (0, 1)
    assert [mine for mine, _ in copying.latency()] == [0, 0, 0]


# --- answers, field by field ------------------------------------------------------------------------------------------
async def test_a_status_is_told_with_the_request_it_is_of(rig, copying):
    await copying.serve(await rig.endpoint(), await rig.endpoint(answer(404)))
    await rig.ask(x_request_id="abc-1")
    await copying.until_counted()
    assert copying.told == [
        {
            "type": "pair",
            "rollout": "shop",
            "run": 77,
            "rule": "0",
            "request": "abc-1",
            "statuses": [200, 404],
            "differences": [["status", "value", "canary", "200", "404"]],
        }
    ]


async def test_bodies_and_headers_are_compared_when_asked_for(rig, copying):
    primary = document(price=1, user={"password": "hunter2"})
    canary = document(price=2, user={"password": "swordfish"}, debug=True)
    sides = [await rig.endpoint(primary), await rig.endpoint(canary)]
    await copying.serve(*sides)
    await rig.ask()
    await copying.until_counted()
    assert copying.told == []
    await copying.serve(*sides, bodies="report")
    await rig.ask()
    await copying.until_counted(2)
    (message,) = copying.told
    assert message["differences"] == [
        ["$.debug", "extra", "canary", "", "true"],
        ["$.price", "value", "canary", "1", "2"],
        ["$.user.password", "value", "canary", "(redacted)", "(redacted)"],
    ]
    assert "hunter2" not in json.dumps(message)


async def test_bodies_that_come_in_pieces_are_put_together(rig, copying):
    body = json.dumps({"a": "x" * 3000, "b": 1}).encode()
    other = body.replace(b'"b": 1', b'"b": 2')
    half = len(body) // 2
    chunked = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (other[:half], other[half:])) + b"0\r\n\r\n"
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"

    async def trickling(peer, endpoint):
        await peer.request()
        data = answer(body=body, content_type="application/json")
        await peer.send(data[:500])
        await asyncio.sleep(0.02)
        await peer.send(data[500:])
        await peer.reader.read()

    await copying.serve(await rig.endpoint(trickling), await rig.endpoint(head + chunked), bodies="report")
    assert (await rig.ask()).body == body
    await copying.until_counted()
    assert copying.told[0]["differences"] == [["$.b", "value", "canary", "1", "2"]]


async def test_a_noise_twin_tells_what_the_same_version_does_as_well(rig, copying):
    clock = iter(range(100, 200))

    def telling(**more):
        return lambda _: document(at=next(clock), **more)

    sides = [telling(), telling(debug=1), telling()]
    await copying.serve(*[await rig.endpoint(side) for side in sides], noiseTwin="c", bodies="act")
    await rig.ask()
    assert await copying.until_counted() == {"pairs": 1, "compared": 1}
    (message,) = copying.told
    assert message["statuses"] == [200, 200, 200]
    at, debug = (one for one in message["differences"] if one[0].startswith("$"))
    assert at[:3] == ["$.at", "value", "both"]
    assert len(set(at[3:])) == 3
    assert debug == ["$.debug", "extra", "canary", "", "1", ""]
    assert {one[2] for one in message["differences"]} <= {"both", "canary"}


async def test_with_a_twin_it_is_the_reference(rig, copying):
    await copying.serve(
        *[await rig.endpoint(side) for side in (answer(), BAD, BAD)], noiseTwin="c", refs=(("a", 1), ("b", 0))
    )
    await rig.ask()
    assert await copying.until_counted() == {"pairs": 1, "both bad": 1, "compared": 1}
    assert copying.told[0]["differences"] == [["status", "value", "both", "200", "503", "503"]]


async def test_a_twin_that_cannot_take_its_copy_makes_it_no_event(rig, copying):
    sides = [await rig.endpoint(), await rig.endpoint(BAD), "nothing.invalid:80"]
    await copying.serve(*sides, noiseTwin="c")
    assert (await rig.ask()).status == 200
    assert await copying.until_counted() == {"no event": 1}


async def test_no_more_are_compared_than_a_second_allows(rig, copying):
    await copying.serve(await rig.endpoint(), await rig.endpoint(answer(404)), perSecond=1)
    client = await rig.client()
    for _ in range(20):
        await client.ask()
    counts = await copying.until_counted(20)
    assert counts["pairs"] == 20
    assert counts["compared"] <= 3
    assert len(copying.told) == counts["compared"]


async def test_what_control_cannot_be_told_is_counted(rig, copying):
    await copying.serve(await rig.endpoint(), await rig.endpoint(answer(404)))
    rig.service.report = lambda _: False
    await rig.ask()
    assert await copying.until_counted() == {"pairs": 1, "compared": 1, "lost": 1}


async def test_no_more_answers_are_kept_than_are_bounded(rig, copying, monkeypatch):
    monkeypatch.setattr("splitproxy.proxy.pairs.MOST_OPEN", 3)
    go = asyncio.Event()

    async def waiting(peer, endpoint):
        while True:
            endpoint.received.append(await peer.request())
            await go.wait()
            await peer.send(answer())

    primary = await rig.endpoint(waiting)
    await copying.serve(primary, await rig.endpoint(answer(404)), limit=60.0, perSecond=1e9)
    clients = [await rig.client() for _ in range(5)]
    asking = [asyncio.ensure_future(client.ask()) for client in clients]
    await rig.until(lambda: len(primary.received) == len(clients))
    go.set()
    for one in asking:
        await one
    assert await copying.until_counted(5) == {"pairs": 5, "compared": 3}
    await rig.ask()
    assert await copying.until_counted(6) == {"pairs": 6, "compared": 4}


@pytest.mark.parametrize("sampler", ["always_on", "always_off"])
async def test_what_is_traced_is_paired_too(rig, copying, sampler):
    tracing = {"sampler": sampler, "ratio": 1.0, "query": "names"}
    await copying.serve(await rig.endpoint(), await rig.endpoint(BAD), tracing=tracing)
    client = await rig.client()
    for _ in range(2):
        await client.ask()
    assert await copying.until_counted(2) == {"pairs": 2, "canary bad": 2, "compared": 2}


async def test_what_an_upstream_writes_does_nothing_to_a_terminal(rig, copying):
    sides = [document(**{"a\x1b[2J": "x\x9bm"}), document(**{"a\x1b[2J": "y", "k" * 5000: 1})]
    await copying.serve(*[await rig.endpoint(side) for side in sides], bodies="report")
    await rig.ask()
    await copying.until_counted()
    assert copying.told
    texts = [text for one in copying.told[0]["differences"] for text in one]
    assert all(text.isprintable() and len(text) <= 500 for text in texts)
