"""The comparison of a running rollout: what it takes from the tallies, and what follows."""

import asyncio

import pytest

from splitproxy.control.rollouts import views, weighing
from splitproxy.control.rollouts.items import Unsaved
from splitproxy.core import tallies
from splitproxy.core.rollout.events import Reachable, Verb
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


def test_a_restart_of_the_whole_program_keeps_what_is_known(play, tmp_path):
    async def scene(world):
        one = await begun(world)
        world.drew(PRIMARY, 50)
        world.drew(CANARY, 5, bad=2)
        world.tell(CANARY)
        one.weighing._stand(one.clock.now())
        before = one.weighing.standing
        assert await one.keeping.saved()
        fresh = Memory()
        try:
            world.memory = fresh
            await world.restart()
            await world.serve(world.served, start=True)
            again = world.one().weighing
            again.look()
            again._stand(0.0)
            assert again.standing.counts == before.counts, "alpha is for the rollout, not for the life of a process"
            assert again.standing.log_e == pytest.approx(before.log_e, abs=0.01)
            world.drew(PRIMARY, 9)
            world.drew(CANARY, 9, bad=9)
            world.tell(CANARY)
            await world.until_phase("Failed")
        finally:
            fresh.close()

    play(scene)


def test_what_an_earlier_run_left_in_the_tallies_is_not_held_against_a_later_one(play):
    async def scene(world):
        one = await begun(world)
        world.drew(PRIMARY, 50)
        world.drew(CANARY, 9, bad=9)
        world.tell(CANARY)
        await world.until_phase("Failed")
        other = rollout(**STEADY, revision="2")
        await world.serve(world.candidate(other))
        await world.until(lambda one: one.state.revision == "2" and one.state.weight == 2000)
        compare = {"warmup": "0s", "tolerate": {"errors": 1.0, "latency": 1.0, "delay": "0s"}}
        await world.serve(world.candidate(rollout(**STEADY, compare=compare)))
        await world.until(lambda one: one.state.revision == "1" and one.state.weight == 2000)
        one = world.one()
        one.weighing.look()
        one.weighing._stand(0.0)
        assert one.weighing.standing.counts.bad_canary == 0
        assert not one.weighing.standing.convicted

    play(scene)


def test_clients_known_by_a_header_are_compared_in_latency_too(play):
    async def scene(world):
        one = await begun(world)
        for side, count in ((PRIMARY, 80), (CANARY, 20)):
            world.drew(side, count, new=0)
        world.tell(CANARY)
        assert one.weighing.drawn, "the comparison can tell who is to blame"
        assert one.weighing.view() is None or one.weighing.view()["counts"]["canary"] == 20
        for client in range(30):
            world.tell(CANARY, client=100 + client, what="slow", bits=0b111111, outcome="success")
        await world.until_phase("Failed")
        assert "slow" in one.state.reason or "latency" in one.weighing.standing.leading

    play(scene)


def test_a_hold_of_one_run_does_not_outlive_it(play):
    metrics = [{"name": "request-success-rate", "hardRange": {"min": 80}, "minRequests": 5}]

    async def scene(world):
        one = await begun(world, metrics=metrics)
        world.drew(CANARY, 2)
        world.drew(PRIMARY, 8)
        world.fails = {"v1": 1.0, "v2": 1.0}
        world.start_traffic()
        await world.until(lambda one: bool(one.state.held))
        for _ in range(10):
            world.drew(CANARY, 1, bad=1)
        world.tell(CANARY)
        await world.until_phase("Failed")
        world.fails = {}
        await one.act(Verb("retry", "a test"))
        await world.until(lambda one: one.state.attempt == 2 and one.state.weight == 2000)
        assert not one.limits.hold

    play(scene)


def test_a_conviction_that_was_not_decided_on_is_put_again_after_a_restart(play):
    async def scene(world):
        one = await begun(world)
        one.put = lambda event: None  # the process dies before the event is decided on
        world.drew(PRIMARY, 50)
        world.drew(CANARY, 9, bad=9)
        world.tell(CANARY)
        assert one.weighing._evidence.convicted
        assert await one.keeping.saved()
        await world.restart(kill=True)
        await world.serve(world.served, start=True)
        await world.until_phase("Failed")

    play(scene)


def test_a_slow_request_that_is_moved_while_it_is_read_counts_once(play):
    async def scene(world):
        one = await begun(world)
        world.primed()
        one.weighing.aim()
        place, cells = world.tally(), world.memory.region.cells
        world.drew(PRIMARY, 10)
        world.drew(CANARY, 10)
        world.signals.refresh()
        beyond = place + tallies.BEYOND + CANARY * len(tallies.QUANTILES)
        for present in (1, 0, 1, 0, 1):
            cells[beyond] = present
            one.weighing._latency_at = -1.0
            one.weighing.look()
        assert one.weighing._evidence._slow[0][0] == 1

    play(scene)


def test_who_has_failed_is_remembered_however_many_clients_were_slow(play, monkeypatch):
    monkeypatch.setattr(weighing, "_KEPT_CLIENTS", 10)

    async def scene(world):
        one = await begun(world, sessionAffinity={"cookieName": "release"})
        world.drew(PRIMARY, 80)
        world.drew(CANARY, 20)
        for client in range(12):
            world.tell(PRIMARY, client=100 + client, what="slow", bits=1, outcome="success")
        world.tell(CANARY, client=7)
        assert await one.keeping.saved()
        await world.restart(kill=True)
        await world.serve(world.served, start=True)
        world.tell(CANARY, client=7)
        assert world.one().weighing._evidence._counts.bad_canary == 1

    play(scene)


def test_results_of_no_epoch_of_the_run_are_no_examples(play):
    async def scene(world):
        one = await begun(world)
        world.desk.heard([[world.key, world.epoch() + 99, "bad", CANARY, 0, "another-run", 500, "5xx", 0]])
        assert not one.weighing.examples["canary"]

    play(scene)


def test_an_edit_of_what_is_tolerated_waits_for_the_next_run(play):
    async def scene(world):
        one = await begun(world)
        world.drew(PRIMARY, 50)
        world.drew(CANARY, 5, bad=1)
        world.tell(CANARY)
        before = one.weighing._evidence._errors.plain()
        edited = {"alpha": 0.01, "warmup": "0s", "tolerate": {"errors": 3.0, "latency": 2.0, "delay": "1s"}}
        await world.serve(world.candidate(rollout(**STEADY, compare=edited)))
        one.put(Reachable(canary=False))
        await world.until(lambda one: one.plan.terms.alpha == 0.01)
        assert one.weighing.aims.tolerance == 1.0
        assert one.weighing._evidence.terms.alpha == 0.01, "how sure it has to be is for those who run it to say"
        assert one.weighing._evidence.terms.errors == 1.0
        assert one.weighing._evidence._errors.plain()["held"] == before["held"]
        assert sum("from the next run on" in text for text in world.texts()) == 1
        await world.restart()
        await world.serve(world.served, start=True)
        assert world.one().weighing._evidence.terms.errors == 1.0
        assert world.one().weighing.aims.tolerance == 1.0
        await world.one().act(Verb("abort", "a test"))
        await world.one().act(Verb("retry", "a test"))
        assert world.one().weighing.aims.tolerance == 2.0

    play(scene)


def test_a_defect_in_one_rollout_does_not_stop_the_others(play, caplog):
    async def scene(world):
        world.listen("w1", "w2")
        routes = [
            {"name": name, "hostnames": [f"{name}.test"], "rules": [{"backendRefs": [{"name": primary}]}]}
            for name, primary in (("shop", "v1"), ("other", "w1"))
        ]
        pair = rollout(**STEADY), rollout("other", primary="w1", canary="w2", **STEADY)
        await world.serve(world.candidate(*pair, routes=routes))
        await world.until(lambda _: all(one.state.weight == 2000 for one in world.desk.controllers.values()))
        looked = asyncio.Event()

        def broken():
            raise ZeroDivisionError

        world.one("shop").look, world.one("other").look = broken, looked.set
        await asyncio.wait_for(looked.wait(), 5)
        assert "shop" in caplog.text

    play(scene)


def test_a_conviction_that_overtakes_a_step_is_no_trouble_with_the_disk(play):
    async def scene(world):
        one = await begun(world)
        sent, saving, answers, save = [], asyncio.Event(), asyncio.Event(), one.keeping._store.save
        one.parts.news.send = lambda plain, alert, context: sent.append(alert.text)

        async def save_later(row, entries):
            saving.set()
            await answers.wait()
            await save(row, entries)

        one.keeping._store.save = save_later
        step = asyncio.create_task(one.act(Verb("promote", "a test")))
        await saving.wait()
        world.drew(PRIMARY, 50)
        world.drew(CANARY, 9, bad=9)
        world.tell(CANARY)
        with pytest.raises(Unsaved, match="a rollback comes first"):
            await step
        answers.set()
        await world.until_phase("Failed")
        assert world.traffic().weight == 0
        assert not any("cannot be saved" in text for text in sent)

    play(scene)


def test_what_comes_after_a_conviction_does_not_change_its_words(play):
    async def scene(world):
        one = await begun(world)
        sent = []
        one.parts.news.send = lambda plain, alert, context: sent.append((alert, context))
        world.drew(PRIMARY, 50)
        for _ in range(3):  # two workers tell in the same moment
            world.drew(CANARY, 6, bad=6)
            world.tell(CANARY)
        await world.until_phase("Failed")
        ((alert, context),) = [(alert, context) for alert, context in sent if alert.key == "rolled-back"]
        assert context["evidence"]["sentence"] in alert.text
        assert "6 of its 6 requests" in alert.text or "6 of 6" in alert.text

    play(scene)


def test_a_conviction_while_nothing_is_sent_counts_when_something_is(play):
    async def scene(world):
        one = await begun(world)
        world.drew(PRIMARY, 50)
        world.drew(CANARY, 9)
        world.tell(CANARY)
        await one.act(Verb("pause", "a test"))
        assert await one.act(Verb("set-weight", "a test", weight=0)) is None
        world.drew(CANARY, 0, bad=9, tally=world.memory.region.block(tallies.key("shop", 1)))
        world.desk.heard([[world.key, 1, "bad", CANARY, 0, "request-1", 500, "5xx", 0]])
        await one.keeping.saved()
        assert one.weighing._evidence.convicted
        assert one.state.phase == "Paused"
        await one.act(Verb("set-weight", "a test", weight=1000))
        await world.until_phase("Failed")

    play(scene)
