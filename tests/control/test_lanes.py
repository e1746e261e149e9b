import asyncio

from splitproxy.control.lanes import Lanes


async def test_order_is_kept_within_a_lane_and_lanes_are_apart():
    done, gate, three = [], asyncio.Event(), asyncio.Event()

    async def work(lane, item):
        if lane == "slow":
            await gate.wait()
        done.append((lane, item))
        if len(done) == 3:
            three.set()

    lanes = Lanes(work, 10)
    for item in range(3):
        assert lanes.put("slow", item)
        assert lanes.put("quick", item)
    await three.wait()
    assert done == [("quick", 0), ("quick", 1), ("quick", 2)]
    gate.set()
    await lanes.drained()
    assert done[3:] == [("slow", 0), ("slow", 1), ("slow", 2)]
    assert lanes.put("quick", 3)
    await lanes.drained()
    assert done[-1] == ("quick", 3)


async def test_a_full_lane_drops_its_oldest_item_and_says_so():
    done = []

    async def work(_lane, item):
        done.append(item)

    lanes = Lanes(work, 2)
    assert [lanes.put("a", item) for item in range(4)] == [True, True, False, False]
    await lanes.drained()
    assert done == [2, 3]


async def test_a_defect_costs_the_other_items_nothing(caplog):
    done = []

    async def work(_lane, item):
        done.append(1 / item)

    lanes = Lanes(work, 10)
    for item in (1, 0, 2):
        lanes.put("a", item)
    await lanes.drained()
    assert done == [1.0, 0.5]
    assert "background work of a failed" in caplog.text
    assert "ZeroDivisionError" in caplog.text


async def test_closing_stops_what_takes_longer_than_the_patience():
    done = []

    async def work(_lane, item):
        await asyncio.sleep(item)
        done.append(item)

    lanes = Lanes(work, 10)
    lanes.put("quick", 0)
    lanes.put("slow", 30)
    await lanes.close(0.1)
    assert done == [0]
    await lanes.close(0.1)  # there is nothing left
