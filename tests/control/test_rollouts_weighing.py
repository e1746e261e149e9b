"""The comparison of a running rollout: what it takes from the tallies, and what follows."""

import asyncio

import pytest

from splitproxy.control.rollouts import views
from splitproxy.core import tallies
from splitproxy.core.rollout.events import Verb
from splitproxy.core.tallies import CANARY, PRIMARY

from .rollouts_world import Memory, World, rollout

STEADY = {"interval": "1h", "threshold": 100}


@pytest.fixture
def play(tmp_path):
    """Return a function that runs a scene in a world of its own, in which nobody asks anything by itself."""
    memory = Memory()

    def run(scene):
        async def whole():
            world = World(memory, tmp_path)
            world.listen("v1", "v2")
            world.begin()
            try:
                async with asyncio.timeout(20):
                    await scene(world)
            finally:
                await world.close()

        asyncio.run(whole())

    yield run
    memory.close()


async def begun(world, **more):
    """Serve a rollout whose checks are far apart, and wait until its first step sends 20 %."""
    compare = {"warmup": "0s", "tolerate": {"errors": 1.0, "latency": 1.0, "delay": "0s"}, **more.pop("compare", {})}
    await world.serve(world.candidate(rollout(**{**STEADY, **more}, compare=compare)))
    await world.until(lambda one: one.state.weight == 2000)
    return world.one()


def test_a_failure_is_weighed_when_it_happens(play):
    async def scene(world):
        one = await begun(world)
        world.drew(PRIMARY, 100)
        weights = []
        for _ in range(10):
            world.drew(CANARY, 2, bad=1)
            world.tell(CANARY)
            weights.append(world.traffic().weight)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            if not world.traffic().weight:
                break
        assert 3 <= len(weights) <= 6, "not before three, and not long after"
        await world.until_phase("Failed")
        assert "errors" in one.state.reason
        assert "e-value" in one.state.reason
        kinds = {entry.kind: entry for entry in one.keeping.history}
        numbers = kinds["evidence"].data
        assert numbers["counts"]["bad_canary"] == len(weights)
        assert numbers["logE"] >= numbers["needed"] == 3.0
        assert numbers["weights"] == [0.2]
        assert numbers["examples"]["canary"][0] == {
            "requestId": "request-1",
            "status": 500,
            "outcome": "5xx",
            "at": pytest.approx(one.clock.now(), abs=5),
        }
        (compared,) = [
            verdict for verdict in views.everything(one, [])["verdicts"] if verdict["metric"] == "comparison"
        ]
        assert compared["outcome"] == "fail"
        assert compared["value"] >= compared["max"] == 1000.0

    play(scene)


def test_what_both_sides_do_is_held_against_nobody(play):
    async def scene(world):
        one = await begun(world)
        for _ in range(60):
            world.drew(CANARY, 20, bad=2)
            world.drew(PRIMARY, 80, bad=8)
            world.tell(CANARY)
        assert one.weighing.view() is None or one.weighing.view()["logE"] < 1
        assert world.traffic().weight == 2000

    play(scene)


def test_a_late_result_belongs_to_the_weight_it_was_drawn_with(play):
    async def scene(world):
        one = await begun(world, stepWeights=[20, 50])
        first = world.tally()
        world.drew(CANARY, 1)
        world.drew(PRIMARY, 1)
        await world.desk.controllers["shop"].act(Verb("promote", "a test"))
        await world.until(lambda one: one.state.weight == 5000)
        cells = world.memory.region.cells
        cells[first + tallies.BAD + CANARY] += 2
        cells[first + tallies.FINISHED + CANARY] += 2
        world.drew(CANARY, 1, bad=1)
        world.drew(PRIMARY, 1)
        world.tell(CANARY)
        assert set(one.weighing._evidence._events) >= {0.2, 0.5}
        assert one.weighing._evidence._events[0.2][0] == 2
        assert one.weighing._evidence._events[0.5][0] == 1

    play(scene)


@pytest.mark.parametrize("kill", [False, True])
def test_a_new_control_process_goes_on_with_the_evidence(play, kill):
    async def scene(world):
        one = await begun(world)
        world.drew(PRIMARY, 50)
        world.drew(CANARY, 5, bad=2)
        world.tell(CANARY)
        one.weighing._stand(one.clock.now())
        before = one.weighing.standing
        assert await one.keeping.saved()
        await world.restart(kill=kill)
        await world.serve(world.served, start=True)
        again = world.one().weighing
        again.look()
        again._stand(0.0)
        assert again.standing.counts == before.counts, "nothing is counted twice, and nothing is lost"
        assert again.standing.log_e == before.log_e
        assert [one["requestId"] for one in again.examples["canary"]] == ["request-1"]
        world.drew(CANARY, 9, bad=9)
        world.tell(CANARY)
        await world.until_phase("Failed")

    play(scene)


def test_a_client_counts_once_whoever_tells_of_it(play):
    async def scene(world):
        one = await begun(world, sessionAffinity={"cookieName": "release"})
        world.drew(PRIMARY, 20)
        world.drew(CANARY, 5)
        for _ in range(20):
            world.tell(CANARY, client=7)
        assert world.traffic().weight == 2000, "one client's failures are one failure"
        for client in range(8, 14):
            world.tell(CANARY, client=client)
        await world.until_phase("Failed")
        assert one.weighing.standing.counts.bad_canary <= 7

    play(scene)


def test_slow_clients_are_weighed_once_for_each_threshold(play):
    async def scene(world):
        one = await begun(world, sessionAffinity={"cookieName": "release"})
        world.drew(PRIMARY, 20)
        world.drew(CANARY, 5)
        world.tell(CANARY)
        for client in range(30):
            for _ in range(3):
                world.tell(CANARY, client=100 + client, what="slow", bits=0b111111, outcome="success")
        await world.until_phase("Failed")
        assert "latency" in one.weighing.standing.leading or "slow" in one.state.reason

    play(scene)


def test_thresholds_come_from_the_primarys_past_and_begin_an_epoch(play):
    async def scene(world):
        one = await begun(world)
        assert one.weighing.thresholds == ()
        epoch = world.epoch()
        world.primed()
        one.weighing.aim()
        assert len(one.weighing.thresholds) == len(tallies.QUANTILES)
        assert world.epoch() == epoch + 1
        assert world.thresholds() == one.weighing.thresholds
        one.weighing.aim()
        assert world.epoch() == epoch + 1, "the same thresholds are no news"
        world.drew(PRIMARY, 400, seconds=0.01)
        one.weighing.look()
        world.drew(CANARY, 40, seconds=0.5)
        one.weighing._latency_at = -1.0
        one.weighing.look()
        await world.until_phase("Failed")
        assert one.weighing.standing.leading.startswith("latency@")

    play(scene)


def test_shares_that_contradict_the_weights_raise_an_alarm(play):
    async def scene(world):
        one = await begun(world, compare={"pace": "evidence", "minDwell": "0s"})
        sent = []
        one.parts.news.send = lambda plain, alert, context: sent.append(alert)
        for _ in range(30):
            world.drew(CANARY, 60)
            world.drew(PRIMARY, 40)
            world.signals.refresh()
            one.weighing.look()
        one.weighing._stand(0.0)
        one.weighing._stand(1.0)
        assert [alert.key for alert in sent] == ["shares"]
        assert "contradict the weights" in sent[0].text
        assert not one.state.proven
        assert one.weighing.view()["sharesAlarm"]

    play(scene)


def test_a_step_is_taken_when_it_is_shown_to_be_safe(play):
    async def scene(world):
        one = await begun(world, compare={"pace": "evidence", "minDwell": "0s"}, interval="2s")
        world.start_traffic()
        world.primed()
        one.weighing.aim()
        async with asyncio.timeout(8):
            while world.traffic().weight == 2000:
                world.drew(CANARY, 200, bad=1)
                world.drew(PRIMARY, 800, bad=4)
                await asyncio.sleep(0.05)
        assert world.traffic().weight == 5000
        assert any("evidence" in entry.kind for entry in one.keeping.history)

    play(scene)


def test_a_hard_limit_waits_for_the_comparison_where_there_is_one(play):
    metrics = [{"name": "request-success-rate", "hardRange": {"min": 80}, "minRequests": 5}]

    async def scene(world):
        one = await begun(world, metrics=metrics)
        sent = []
        one.parts.news.send = lambda plain, alert, context: sent.append(alert.text)
        world.drew(CANARY, 2)
        world.drew(PRIMARY, 8)
        world.fails = {"v1": 1.0, "v2": 1.0}
        world.start_traffic()
        await world.until(lambda one: "both sides fail" in one.state.held)
        assert world.traffic().weight == 2000
        while not any("both sides fail" in text for text in sent):  # noqa: ASYNC110 - nobody tells of an alert
            await asyncio.sleep(0.01)
        for _ in range(10):
            world.drew(CANARY, 1, bad=1)
        world.tell(CANARY)
        await world.until_phase("Failed")

    play(scene)


def test_without_anything_to_compare_a_hard_limit_acts_alone(play):
    metrics = [{"name": "request-success-rate", "hardRange": {"min": 80}, "minRequests": 5}]

    async def scene(world):
        await begun(world, metrics=metrics)
        world.fails = {"v1": 1.0, "v2": 1.0}
        world.start_traffic()
        await world.until_phase("Failed")
        assert "hard limit" in world.one().state.reason

    play(scene)
