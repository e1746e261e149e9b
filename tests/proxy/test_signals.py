"""One outcome per request and one per attempt, however it ends; and the parts the counting is made of."""

import asyncio
import random

import pytest
from hypothesis import given, settings, strategies as st

from splitproxy.core import stats
from splitproxy.proxy.series import Series
from splitproxy.proxy.timers import HORIZON, RESOLUTION, Wheel

GET = b"GET /%b HTTP/1.1\r\nHost: kit.test\r\n\r\n"
POST = b"POST /%b HTTP/1.1\r\nHost: kit.test\r\nContent-Length: 6\r\n\r\nabc"
ENDINGS = {
    b"ok": "success",
    b"fail": "5xx",
    b"reset": "upstream_reset",
    b"close": "upstream_reset",
    b"nonsense": "upstream_protocol_error",
    b"cut": "upstream_reset",
    b"late": "upstream_timeout",
    b"last": "success",
    b"chunks": "success",
}


async def act(peer, endpoint):
    """Do what the target says."""
    while True:
        request = await peer.request()
        endpoint.received.append(request)
        match request.target[1:]:
            case b"ok":
                await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            case b"chunks":
                await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
                await peer.send(b"0\r\n\r\n")
            case b"last":
                await peer.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok")
                return
            case b"fail":
                await peer.send(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")
            case b"reset":
                peer.reset()
                return
            case b"close":
                return
            case b"nonsense":
                await peer.send(b"nonsense\r\n\r\n")
            case b"cut":
                await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok")
                return
            case b"late" | b"gone":
                await peer.reader.read()
                return


async def visit(rig, script):
    """Send what `script` says on one connection; begin another when it ends."""
    client = await rig.client()
    for what in script:
        if client.writer.is_closing() or client.reader.at_eof():
            client = await rig.client()
        await client.send((POST if what == b"half" else GET) % (b"ok" if what == b"half" else what))
        if what in {b"gone", b"half"}:
            await asyncio.sleep(0.01)
            client.reset()
            continue
        try:
            await client.response()
        except (asyncio.IncompleteReadError, ConnectionError):
            client.close()
    client.close()


@pytest.mark.parametrize("seed", range(6))
async def test_whatever_happens_every_request_and_every_attempt_has_one_outcome(rig, seed):
    chance = random.Random(seed)
    await rig.serve(await rig.endpoint(act), timeouts={"responseHead": 0.2})
    words = [*ENDINGS, b"gone", b"half", b"ok", b"chunks"]
    scripts = [[chance.choice(words) for _ in range(8)] for _ in range(6)]
    await asyncio.gather(*(visit(rig, script) for script in scripts))
    await rig.until(lambda: sum(rig.codes().values()) == 48)
    await rig.settle()
    asked = [what for script in scripts for what in script]
    wanted = {}
    for what in asked:
        outcome = ENDINGS.get(what, "client_gone")
        wanted[outcome] = wanted.get(outcome, 0) + 1
    assert rig.outcomes() == wanted, "one attempt each: a replay is not counted, a local error not charged"
    assert sum(rig.codes().values()) == len(asked) == len(rig.lines())
    assert rig.codes().get("499", 0) == asked.count(b"gone") + asked.count(b"half")
    assert rig.reasons() == {"match": 48}
    (block,) = (block for key, block in rig.cells().items() if key[2] == "a")
    durations = block[stats.ATTEMPT_HISTOGRAM : stats.ATTEMPT_HISTOGRAM + stats.BUCKETS]
    assert sum(durations) == 48 - wanted.get("client_gone", 0)
    assert block[stats.IN_FLIGHT] == 0


# --- series ------------------------------------------------------------------------------------------------------
DONE = st.tuples(
    st.sampled_from([200, 204, 301, 404, 500, 503, 299, 999]),
    st.floats(0, 200, allow_nan=False) | st.sampled_from(stats.BOUNDS),
    st.integers(0, 1 << 30),
    st.integers(0, 1 << 30),
    st.sampled_from(stats.REASONS),
)


def _series():
    cells = memoryview(bytearray(8 * stats.BLOCK)).cast("Q")
    return Series(cells, cells.cast("B"), 0), cells


@given(st.lists(DONE, max_size=40))
@settings(max_examples=80, deadline=None, database=None)
def test_a_batch_counts_the_same_as_its_requests_one_by_one(done):
    batched, cells = _series()
    single, wanted = _series()
    for status, seconds, bytes_in, bytes_out, reason in done:
        reason_cell = stats.REASON + stats.REASONS.index(reason)
        batched.done.append((stats.CODE + stats.CODE_INDEX[status], seconds, bytes_in, bytes_out, reason_cell))
        single.request(status, seconds, bytes_in, bytes_out)
        single.attempt(stats.OUTCOMES.index("5xx" if status >= 500 else "success"), seconds)
        single.add(reason_cell)
    batched.write()
    for cell in (stats.REQUEST_NS, stats.ATTEMPT_NS):  # sums of fractions differ by less than one a request
        assert abs(cells[cell] - wanted[cell]) <= len(done) + 1
        cells[cell] = wanted[cell] = 0
    assert cells.tolist() == wanted.tolist()


def test_the_gauge_is_written_with_the_batch():
    series, cells = _series()
    for active in (2, 0):
        series.active = active
        series.write()
        assert cells[stats.IN_FLIGHT] == active


# --- the wheel ---------------------------------------------------------------------------------------------------
class Item:
    """Something with a deadline; notes when it was told."""

    def __init__(self, deadline):
        self.deadline, self.next_look, self.slot, self.told = deadline, 0.0, None, []

    def on_deadline(self, now):
        self.told.append(now)


def _run(wheel, start, end, step=RESOLUTION):
    ticks = int((end - start) / step)
    for number in range(1, ticks + 1):
        wheel.tick(start + number * step)


@given(st.floats(0, 3 * HORIZON), st.floats(1_000, 100_000))
@settings(deadline=None, database=None)
def test_a_deadline_is_noticed_in_time_and_never_early(after, now):
    wheel = Wheel(now)
    item = Item(now + after)
    wheel.watch(item)
    _run(wheel, now, now + after + 4 * RESOLUTION)
    (told,) = item.told
    assert item.deadline <= told <= item.deadline + 2 * RESOLUTION + 1e-6


def test_a_deadline_that_was_put_off_is_kept_without_another_word():
    wheel, item = Wheel(100.0), Item(101.0)
    wheel.watch(item)
    item.deadline = 108.0
    _run(wheel, 100.0, 107.9)
    assert item.told == []
    _run(wheel, 107.9, 108.5)
    assert len(item.told) == 1


def test_a_nearer_deadline_needs_one_more_watch():
    wheel, item = Wheel(100.0), Item(104.0)
    wheel.watch(item)
    item.deadline = 101.0
    assert item.deadline < item.next_look
    wheel.watch(item)
    _run(wheel, 100.0, 101.3)
    assert len(item.told) == 1


def test_what_is_forgotten_is_not_told():
    wheel, item = Wheel(100.0), Item(101.0)
    wheel.watch(item)
    wheel.forget(item)
    wheel.forget(item)
    _run(wheel, 100.0, 110.0)
    assert item.told == []


def test_after_a_long_stall_everything_due_is_told_once():
    wheel = Wheel(100.0)
    items = [Item(100.0 + number / 7) for number in range(100)]
    for item in items:
        wheel.watch(item)
    wheel.tick(200.0)
    wheel.tick(200.1)
    assert [len(item.told) for item in items] == [1] * 100


def test_an_item_may_be_watched_again_from_its_own_deadline():
    wheel, item = Wheel(100.0), Item(101.0)

    def again(now):
        item.told.append(now)
        item.deadline = now + 1.0
        wheel.watch(item)

    item.on_deadline = again
    wheel.watch(item)
    _run(wheel, 100.0, 105.5)
    assert len(item.told) in {3, 4}


def test_a_defect_at_one_deadline_does_not_cost_the_others_theirs():
    wheel, items = Wheel(100.0), [Item(100.5) for _ in range(5)]

    def fail(now):
        raise ZeroDivisionError

    items[2].on_deadline = fail
    for item in items:
        wheel.watch(item)
    with pytest.raises(ExceptionGroup):
        wheel.tick(101.0)
    assert [len(item.told) for item in items] == [1, 1, 0, 1, 1]
