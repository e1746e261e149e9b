import asyncio
import random
import sqlite3

import pytest

from splitproxy.control.rollouts import store as stores, views
from splitproxy.control.rollouts.items import Unsaved
from splitproxy.control.rollouts.store import SCHEMA, Store
from splitproxy.core.live import Traffic
from splitproxy.core.rollout.events import Verb

from .rollouts_world import INTERVAL, Memory, World, rollout


@pytest.fixture
def memory():
    memory = Memory()
    yield memory
    memory.close()


@pytest.fixture
def play(memory, tmp_path):
    """Return a function that runs a scene in a world of its own."""

    def run(scene, *, traffic=True):
        async def whole():
            world = World(memory, tmp_path)
            world.listen("v1", "v2", "v3")
            world.begin()
            if traffic:
                world.start_traffic()
            try:
                async with asyncio.timeout(30):
                    await scene(world)
            finally:
                await world.close()

        asyncio.run(whole())

    return run


def route(upstream, name="shop"):
    return {"name": name, "hostnames": ["shop.test"], "rules": [{"backendRefs": [{"name": upstream}]}]}


def test_a_good_canary_is_promoted_and_the_file_adopts_it(play):
    async def scene(world):
        await world.serve(world.candidate(rollout()))
        await world.until_phase("Succeeded")
        assert [cell.weight for cell in world.cells] == [0, 2000, 5000, 10_000]
        assert world.traffic() == Traffic(10_000, swapped=True)
        view = views.everything(world.one(), [])
        assert (view["primary"], view["canary"], view["canaryWeight"]) == ("v2", "v1", 0.0)
        assert view["adopt"] == {"primary": "v2", "canary": "v1"}
        assert (view["verbs"], view["alarms"]) == (["undo"], [])
        assert world.one().results == {"succeeded": 1, "failed": 0}
        assert all(verdict["outcome"] == "pass" for verdict in view["verdicts"])

        await world.serve(world.candidate(rollout(primary="v2", canary="v1")))
        await world.until(lambda one: not one.state.swapped)
        assert world.traffic() == Traffic()
        assert (views.everything(world.one(), [])["primary"], views.everything(world.one(), [])["adopt"]) == (
            "v2",
            None,
        )

    play(scene)


def test_adoption_and_the_next_revision_may_come_in_one_edit(play):
    async def scene(world):
        await world.serve(world.candidate(rollout()))
        await world.until_phase("Succeeded")
        first = world.one().state.revision
        later = rollout(primary="v2", canary="v1", revision="the next")
        await world.serve(world.candidate(later, routes=[route("v2")]))
        await world.until(lambda one: one.state.revision == "the next" and one.active)
        assert not world.one().state.swapped
        assert world.one().state.promoted == first

    play(scene)


def test_a_bad_canary_is_rolled_back_with_its_numbers(play):
    async def scene(world):
        world.fails["v2"] = 0.5
        await world.serve(world.candidate(rollout()))
        await world.until_phase("Failed")
        assert world.traffic() == Traffic()
        assert max(cell.weight for cell in world.cells) == 2000
        one = world.one()
        assert "2 of 2 failed checks" in one.state.reason
        assert "is below 90 %" in one.state.reason
        assert "primary 100 %" in one.state.reason
        assert views.everything(one, [])["verdicts"][0]["outcome"] == "fail"
        assert {kind for kind, _ in world.events} == {"rollout", "verdict"}
        saved = world.desk.store.newest("shop", 100)
        assert [entry.text for entry in saved][-len(saved) :] == world.texts()[: len(saved)]

    play(scene)


def test_a_hard_limit_rolls_back_between_checks(play):
    metrics = [{"name": "request-success-rate", "thresholdRange": {"min": 90}, "hardRange": {"min": 50}}]

    async def scene(world):
        world.fails["v2"] = 1.0
        await world.serve(world.candidate(rollout(interval="100s", metrics=metrics, minRequests=20)))
        await world.until_phase("Failed", seconds=3.0)
        assert world.traffic() == Traffic()
        assert "hard limit" in world.one().state.reason
        assert world.one().state.failed == 0

    play(scene)


@pytest.mark.parametrize("kill", [False, True])
@pytest.mark.parametrize("forgotten", [False, True])
def test_another_process_goes_on_where_this_one_ended(play, kill, forgotten):
    """`forgotten`: the shared memory went too, as when everything is killed."""

    async def scene(world):
        candidate = world.candidate(rollout(stepWeights=[20, 50, 60], threshold=100))
        world.fails["v2"] = 0.5
        await world.serve(candidate)
        await world.until(lambda one: one.state.failed >= 2)
        world.fails.clear()
        await world.until(lambda one: one.state.step == 1)
        await world.one().act(Verb("pause", "me"))
        before, salt = world.one().state, world.salt
        await world.restart(kill=kill)
        if forgotten:
            area = world.desk.area.cells
            for place in range(len(area)):
                area[place] = 0
        await world.desk.prepare(candidate)
        assert (
            world.traffic() == Traffic(before.weight) == Traffic(5000)
        )  # before any worker asks and before anything is checked
        assert world.salt == salt
        world.desk.commit(candidate)
        world.desk.begin()
        assert world.one().state == before.loaded()
        assert (await world.one().act(Verb("resume", "me"))) is None
        await world.until_phase("Succeeded")
        assert world.texts().count("sends 60 % to v2: step 3 of 3") == 1
        assert world.texts()[0].startswith("Initialized")

    play(scene)


def test_no_step_forward_is_taken_that_cannot_be_saved_and_a_rollback_always(play, caplog):
    async def scene(world):
        await world.serve(world.candidate(rollout(steps=[{"setWeight": 5, "pause": {}}, {"setWeight": 50}])))
        await world.until_phase("Paused")
        store, one = world.desk.store, world.one()
        store._connection.execute("PRAGMA query_only = on")
        with pytest.raises(Unsaved, match="readonly"):
            await one.act(Verb("promote", "me"))
        assert (one.state.phase, one.state.step, world.traffic()) == ("Paused", 0, Traffic(500))
        assert "readonly" in views.everything(one, [])["alarms"][0]
        assert world.desk.alarms()
        assert (await one.act(Verb("abort", "me"))) is None
        assert (one.state.phase, world.traffic()) == ("Failed", Traffic())
        assert "cannot be saved" in caplog.text
        store._connection.execute("PRAGMA query_only = off")
        assert (await one.act(Verb("start", "me"))) is None
        await world.until_phase("Paused")
        assert (one.keeping.alarm, world.desk.alarms()) == ("", [])
        await one.keeping.saved()
        assert [entry.text for entry in store.newest("shop", 1000)] == world.texts()

    play(scene)


def test_a_slow_disk_does_not_hold_a_rollback_up(play, tmp_path):
    async def scene(world):
        await world.serve(world.candidate(rollout(interval="100s", steps=[{"setWeight": 20}, {"setWeight": 50}])))
        await world.until(lambda one: one.state.step == 0)
        one = world.one()
        await one.keeping.saved()
        other = sqlite3.connect(tmp_path / "state.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")  # whoever writes now waits
        promoting = asyncio.create_task(one.act(Verb("promote", "me")))
        await asyncio.sleep(0.05)
        assert (world.traffic(), promoting.done()) == (Traffic(2000), False)
        assert (await one.act(Verb("abort", "me"))) is None
        assert (world.traffic(), one.state.phase) == (Traffic(), "Failed")
        with pytest.raises(Unsaved, match="a rollback comes first"):
            await promoting
        other.execute("ROLLBACK")
        other.close()
        await world.restart()
        await world.serve(world.served, start=True)
        assert (world.traffic(), world.one().state.phase) == (Traffic(), "Failed")

    play(scene)


def test_a_hard_limit_does_not_wait_for_the_disk_either(play, tmp_path):
    metrics = [{"name": "request-success-rate", "thresholdRange": {"min": 50}, "hardRange": {"min": 50}}]

    async def scene(world):
        quick = rollout(metrics=metrics, threshold=1000, stepWeights=list(range(10, 100)))
        await world.serve(world.candidate(quick))
        await world.until(lambda one: one.state.step == 1)
        other = sqlite3.connect(tmp_path / "state.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        world.fails["v2"] = 1.0
        await world.until_phase("Failed", seconds=1.5)
        assert world.traffic() == Traffic()
        assert "hard limit" in world.one().state.reason
        other.execute("ROLLBACK")
        other.close()

    play(scene)


@pytest.mark.slow
def test_no_kill_loses_repeats_or_skips_a_step(play):
    """Control is killed again and again, at any moment; the release comes out as if nothing had happened."""

    async def scene(world):
        chance = random.Random(7)
        weights = list(range(5, 100, 5))
        candidate = world.candidate(rollout(stepWeights=weights))
        await world.serve(candidate)
        for _ in range(60):
            await asyncio.sleep(chance.uniform(0.0, 0.06))
            await world.restart(kill=True)
            await world.serve(candidate, start=True)
        await world.until_phase("Succeeded")
        await world.one().keeping.saved()
        sent = [one.data["weight"] for one in world.desk.store.newest("shop", 1000) if one.kind == "weight"]
        assert sent == [weight * 100 for weight in (*weights, 100)]
        assert [cell.weight for cell in world.cells] == sorted(cell.weight for cell in world.cells)
        assert world.one().state.attempt == 1

    play(scene)


def test_without_a_memory_rollouts_wait_and_the_proxy_serves(play, tmp_path):
    async def scene(world):
        candidate = world.candidate(rollout(), state={"path": str(tmp_path / "absent" / "state.db")})
        await world.serve(candidate)
        await world.until(lambda one: bool(one.keeping.alarm))
        await asyncio.sleep(0.3)
        assert world.traffic() == Traffic()
        assert "unable to open" in world.desk.alarms()[0] or "No such file" in world.desk.alarms()[0]
        (tmp_path / "absent").mkdir()
        await world.until_phase("Succeeded")

    play(scene)


def test_a_state_file_of_a_later_version_halts_all_rollouts(play, tmp_path):
    connection = sqlite3.connect(tmp_path / "state.db")
    connection.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    connection.close()

    async def scene(world):
        await world.serve(world.candidate(rollout()))
        assert "later version" in world.desk.alarms()[0]
        assert "later version" in views.everything(world.one(), [])["alarms"][0]
        with pytest.raises(Unsaved, match="later version"):
            await world.one().act(Verb("start", "me"))

    play(scene)


def test_a_second_program_on_the_same_state_file_does_not_start(play, tmp_path, monkeypatch):
    monkeypatch.setattr(stores, "_CLAIM_SECONDS", 0.1)
    first = Store(tmp_path / "state.db")
    first.load()

    async def scene(world):
        (refusal,) = await world.desk.forgotten(world.candidate(rollout()))
        assert "another process runs the rollouts of this state file" in refusal

    try:
        play(scene)
    finally:
        first.close()


def test_a_program_that_drains_leaves_the_state_file_to_the_next(play, tmp_path):
    async def scene(world):
        await world.serve(world.candidate(rollout(steps=[{"setWeight": 30, "pause": {}}])))
        await world.until_phase("Paused")
        await world.desk.halt("the program is draining")
        second = Store(tmp_path / "state.db")
        assert list(await asyncio.to_thread(second.load)) == ["shop"]
        second.close()

    play(scene)


def test_a_newer_revision_begins_at_nothing_in_the_same_swap(play):
    async def scene(world):
        await world.serve(world.candidate(rollout(steps=[{"setWeight": 30, "pause": {}}])))
        await world.until_phase("Paused")
        first, salt = world.served, world.salt
        newer = world.candidate(rollout(revision="2", steps=[{"setWeight": 30, "pause": {}}]))
        await world.desk.prepare(newer)
        assert world.traffic(newer.releases["rollouts"][0]) == Traffic()
        assert world.traffic(first.releases["rollouts"][0]) == Traffic(3000)  # the old one still serves
        await world.serve(newer)
        await world.until(lambda one: one.state.attempt == 2 and one.state.phase == "Paused")
        assert world.one().state.revision == "2"
        assert world.salt != salt

    play(scene)


def test_a_refused_configuration_leaves_a_rollout_alone(play):
    async def scene(world):
        await world.serve(world.candidate(rollout(steps=[{"setWeight": 30, "pause": {}}])))
        await world.until_phase("Paused")
        await world.desk.prepare(world.candidate(rollout(revision="2"), rollout("pay")))
        world.desk.forget()
        assert list(world.desk.controllers) == ["shop"]
        assert (await world.one().act(Verb("abort", "me"))) is None
        assert world.traffic() == Traffic()
        assert world.one().state.revision == "1"

    play(scene)


def test_without_a_revision_another_set_of_endpoints_starts_a_run(play):
    async def scene(world):
        plain = rollout(revision=None, steps=[{"setWeight": 30, "pause": {}}])
        await world.serve(world.candidate(plain))
        assert world.one().state.phase == "Initialized"
        assert (await world.one().act(Verb("start", "me"))) is None
        await world.until_phase("Paused")
        assert (await world.one().act(Verb("abort", "me"))) is None
        await world.serve(world.candidate(plain, upstreams={"v2": [world.endpoints["v3"]]}))
        await world.until(lambda one: one.state.attempt == 2 and one.state.phase == "Paused")
        await world.restart()
        await world.serve(world.served, start=True)
        await world.serve(world.candidate(plain, upstreams={"v2": [world.endpoints["v3"], world.endpoints["v2"]]}))
        await world.until(lambda one: one.state.attempt == 3)

    play(scene)


def test_an_edit_waits_for_the_next_step_and_survives_a_restart(play):
    async def scene(world):
        await world.serve(world.candidate(rollout(steps=[{"setWeight": 10, "pause": {}}, {"setWeight": 20}])))
        await world.until_phase("Paused")
        edited = world.candidate(rollout(steps=[{"setWeight": 15, "pause": {}}, {"setWeight": 40, "pause": {}}]))
        await world.serve(edited)
        assert world.traffic() == Traffic(1000)
        await world.restart(kill=True)
        await world.serve(edited, start=True)
        assert world.traffic() == Traffic(1000)
        assert (await world.one().act(Verb("resume", "me"))) is None
        await world.until(lambda one: one.state.weight == 1500)
        assert (await world.one().act(Verb("promote", "me"))) is None
        await world.until(lambda one: one.state.weight == 4000)
        assert world.one().rollout["analysis"]["steps"][0]["setWeight"] == 15

    play(scene)


def test_a_dry_run_moves_nothing(play):
    async def scene(world):
        world.desk.store = None
        await world.serve(world.candidate(rollout(dryRun=True, metrics=[])))
        await world.until_phase("Succeeded")
        assert world.cells == [Traffic()]
        assert any("would send 20 %" in text for text in world.texts())

    play(scene)


def test_copies_come_first_and_are_what_is_judged(play):
    async def scene(world):
        await world.serve(world.candidate(rollout(mirror=True, mirrorWeight=50)))
        await world.until_phase("Succeeded")
        assert world.cells[:3] == [Traffic(), Traffic(mirror=5000), Traffic(2000)]

    play(scene)


def test_a_canary_that_cannot_be_reached_is_waited_for(play):
    async def scene(world):
        world.hang_up("v2")
        await world.serve(world.candidate(rollout()))
        await world.until(lambda one: one.state.unreachable_since >= 0)
        assert world.traffic() == Traffic()
        world.come_back("v2")
        await world.until_phase("Succeeded")

    play(scene)


def test_a_canary_that_stays_away_has_failed(play):
    async def scene(world):
        await world.serve(world.candidate(rollout(progressDeadline="1s", steps=[{"setWeight": 20, "pause": {}}])))
        await world.until_phase("Paused")
        world.hang_up("v2")
        await world.until_phase("Failed")
        assert "could not be reached for more than 1 s" in world.one().state.reason

    play(scene)


def test_webhooks_are_asked_in_their_order_and_told_the_numbers(play):
    async def scene(world):
        url = await world.receiver()
        hooks = [
            {"name": name, "type": name, "url": url, "metadata": {"for": name}}
            for name in ("confirm-rollout", "pre-rollout", "rollout", "confirm-promotion", "post-rollout", "event")
        ]
        await world.serve(world.candidate(rollout(stepWeights=[20], webhooks=hooks)))
        await world.until_phase("Succeeded")
        await world.until(lambda _: any(one["type"] == "post-rollout" for one in world.asked))
        decisions = [one for one in world.asked if one["type"] != "event"]
        order = [one["type"] for one in decisions]
        assert order[:3] == ["confirm-rollout", "pre-rollout", "rollout"]
        assert order[-1] == "post-rollout"
        first, check, last = decisions[0], decisions[2], decisions[-1]
        assert (first["name"], first["checksum"], first["phase"]) == ("shop", "1", "Waiting")
        assert first["metadata"] == {"for": "confirm-rollout"}
        assert (check["canaryWeight"], check["step"]) == (20.0, 0)
        assert last["phase"] == "Succeeded"
        told = [one["metadata"]["eventMessage"] for one in world.asked if one["type"] == "event"]
        assert told == world.texts()[: len(told)]

    play(scene)


def test_a_webhook_can_hold_and_roll_back(play):
    async def scene(world):
        url = await world.receiver()
        hooks = [{"name": "judge", "type": "rollout", "url": url}]
        world.says = b'{"action": "hold"}'
        await world.serve(world.candidate(rollout(webhooks=hooks)))
        await world.until(lambda one: "judge holds" in one.state.held)
        assert world.traffic() == Traffic(2000)
        world.says = b'{"action": "rollback"}'
        await world.until_phase("Failed")
        assert "judge (rollout) asked for a rollback" in world.one().state.reason

    play(scene)


def test_a_primary_is_updated_and_traffic_returns_when_it_is_ready(play):
    async def scene(world):
        promotion = {"mode": "handBack", "webhook": {"name": "deploy", "url": await world.receiver()}}
        await world.serve(world.candidate(rollout(promotion=promotion)))
        await world.until_phase("Succeeded")
        assert world.asked[-1]["type"] == "hand-back"
        assert world.asked[-1]["canaryWeight"] == 50.0
        assert world.traffic() == Traffic()
        assert views.everything(world.one(), [])["adopt"] is None

    play(scene)


@pytest.fixture
def often(monkeypatch):
    """Look often at the upstreams of a rollout that is over."""
    monkeypatch.setattr("splitproxy.control.rollouts.asking._WATCH_SECONDS", 0.05)


async def hand_back(world, **more):
    """Return a rollout whose primary v1 is updated by a webhook, and then asked whether it is ready."""
    url = await world.receiver()
    world.endpoints["v1"] = url.rstrip("/")
    webhook = {"name": "deploy", "url": f"{url}deploy"}
    promotion = {"mode": "handBack", "webhook": webhook, "readiness": {"path": "/ready"}, **more.pop("promotion", {})}
    return rollout(promotion=promotion, **more)


def test_no_traffic_returns_to_an_updated_primary_that_is_not_ready(play):
    async def scene(world):
        world.statuses["/ready"] = 503
        await world.serve(world.candidate(await hand_back(world)))
        await world.until(lambda one: one.state.handed_back)
        seen = len(world.cells)
        await world.until(lambda one: "not ready" in one.state.reason)
        await asyncio.sleep(10 * INTERVAL)
        assert world.cells[seen:] == []
        assert world.traffic() == Traffic(5000)
        world.statuses["/ready"] = 200
        await world.until_phase("Succeeded")
        assert world.traffic() == Traffic()

    play(scene)


def test_an_updated_primary_that_fails_while_it_bakes_gives_everything_to_the_canary(play):
    async def scene(world):
        await world.serve(world.candidate(await hand_back(world, promotion={"bakeTime": "1h"})))
        await world.until_phase("Baking")
        assert world.traffic() == Traffic()
        world.fails["v1"] = 0.5
        await world.until_phase("Failed")
        assert world.traffic() == Traffic(10_000)
        one = world.one()
        assert "2 of 2 failed checks" in one.state.reason
        assert "(primary, " in one.state.reason
        assert one.verdicts[0]["primary"] is None

    play(scene)


@pytest.mark.parametrize("restarted", [False, True])
def test_after_a_failed_hand_back_the_next_revision_begins_when_the_primary_is_back(play, often, restarted):
    async def scene(world):
        first = await hand_back(world, progressDeadline="1s")
        world.statuses["/ready"] = 503
        await world.serve(world.candidate(first))
        await world.until_phase("Failed")
        assert world.traffic() == Traffic(10_000)
        second = world.candidate({**first, "revision": "2"})
        await world.serve(second)
        if restarted:
            await world.restart()
            await world.serve(second, start=True)
        await world.until(lambda one: bool(one.refused))
        (alarm,) = views.everything(world.one(), [])["alarms"]
        assert "the new revision begins when v1 is there again" in alarm
        assert world.traffic() == Traffic(10_000)
        world.statuses.clear()
        await world.until(lambda one: one.state.revision == "2" and one.active)
        assert views.everything(world.one(), [])["alarms"] == []
        await world.until_phase("Succeeded")

    play(scene)


def test_other_endpoints_are_a_next_revision_too(play, often):
    async def scene(world):
        first = await hand_back(world, progressDeadline="1s", revision=None)
        world.statuses["/ready"] = 503
        await world.serve(world.candidate(first))
        assert (await world.one().act(Verb("start", "me"))) is None
        await world.until_phase("Failed")
        await world.serve(world.candidate(first, upstreams={"v2": [world.endpoints["v3"]]}))
        await world.until(lambda one: bool(one.refused))
        world.statuses.clear()
        await world.until(lambda one: one.state.attempt == 2 and one.active)

    play(scene)


def test_the_end_of_a_run_is_told_as_it_was_though_another_begins_at_once(play):
    async def scene(world):
        hook = {"name": "done", "type": "post-rollout", "url": await world.receiver()}
        first = await hand_back(world, webhooks=[hook])
        world.statuses["/ready"] = 503
        await world.serve(world.candidate(first))
        await world.until(lambda one: one.state.handed_back)
        await world.serve(world.candidate({**first, "revision": "2"}))
        world.statuses.clear()
        await world.until(lambda one: one.state.revision == "2" and one.state.phase == "Succeeded")
        await world.until(lambda _: sum(one["type"] == "post-rollout" for one in world.asked) == 2)
        told = [one for one in world.asked if one["type"] == "post-rollout"]
        assert [(one["revision"], one["phase"]) for one in told] == [("1", "Succeeded"), ("2", "Succeeded")]

    play(scene)


def test_news_of_an_operators_word_carries_no_verdict(play):
    async def scene(world):
        provider = {"name": "team", "type": "webhook", "address": await world.receiver()}
        alerts = [{"name": "team", "severity": "error", "providerRef": {"name": "team"}}]
        world.fails["v2"] = 0.5
        bad = rollout(threshold=1000, alerts=alerts)
        await world.serve(world.candidate(bad, alertProviders=[provider]))
        await world.until(lambda one: one.state.failed > 0)
        assert (await world.one().act(Verb("abort", "me"))) is None
        await world.until(lambda _: bool(world.asked))
        (news,) = world.asked
        assert "aborted by me" in news["text"]
        assert (news["verdict"], "is below" in news["text"]) == (None, False)

    play(scene)


def test_a_hard_limit_on_a_metric_from_elsewhere_ends_the_run(play):
    async def scene(world):
        url = await world.receiver()
        world.says = b'{"value": 9}'
        metric = {"name": "own", "templateRef": {"name": "own"}, "hardRange": {"max": 5}}
        template = {"name": "own", "provider": {"type": "web", "address": url, "jsonPath": "value"}, "query": "q"}
        await world.serve(world.candidate(rollout(metrics=[metric], threshold=1000), metricTemplates=[template]))
        await world.until_phase("Failed")
        assert "hard limit broken: hard limit: own 9 is above 5" in world.one().state.reason.replace("  ", " ")

    play(scene)


@pytest.mark.parametrize(("share", "phase"), [(0.0, "Succeeded"), (0.5, "Failed")])
def test_a_dry_run_is_judged_by_copies(play, share, phase):
    async def scene(world):
        world.fails["v2"] = share
        await world.serve(world.candidate(rollout(dryRun=True, mirror=True)))
        await world.until_phase(phase)
        assert {(cell.weight, cell.cohorts, cell.swapped) for cell in world.cells} == {(0, 0, False)}
        assert world.traffic() == Traffic()

    play(scene)


def test_a_digest_is_no_revision(play):
    async def scene(world):
        await world.serve(world.candidate(rollout(revision=None, steps=[{"setWeight": 30, "pause": {}}])))
        assert (await world.one().act(Verb("start", "me"))) is None
        await world.until_phase("Paused")
        assert views.everything(world.one(), [])["revision"] is None
        assert not any(world.one().state.revision in text for text in world.texts())

    play(scene)


def test_an_operators_gate(play):
    async def scene(world):
        gate = {"name": "release-manager", "type": "confirm-promotion"}
        await world.serve(world.candidate(rollout(webhooks=[gate])))
        await world.until_phase("WaitingPromotion")
        assert views.everything(world.one(), [])["waitingFor"]["hook"] == "release-manager"
        assert (await world.one().act(Verb("deny", "me"))) is None
        assert (await world.one().act(Verb("approve", "me"))) is None
        await world.until_phase("Succeeded")

    play(scene)


def test_undo_goes_back_at_once(play):
    async def scene(world):
        await world.serve(world.candidate(rollout()))
        await world.until_phase("Succeeded")
        assert (await world.one().act(Verb("undo", "me"))) is None
        assert world.traffic() == Traffic()
        assert world.one().state.phase == "Failed"

    play(scene)


def test_effective_shares_are_those_in_force(play):
    async def scene(world):
        await world.serve(world.candidate(rollout(steps=[{"setWeight": 12.5, "pause": {}}])))
        await world.until_phase("Paused")
        shares = {(share.upstream, share.role): share.percent for share in world.desk.live_shares(world.served.shares)}
        assert shares == {("v1", "primary"): 87.5, ("v2", "canary"): 12.5}
        await world.one().act(Verb("promote", "me", full=True))
        await world.until_phase("Succeeded")
        shares = {(share.upstream, share.role): share.percent for share in world.desk.live_shares(world.served.shares)}
        assert shares == {("v1", "canary"): 0.0, ("v2", "primary"): 100.0}

    play(scene)


PAUSED = rollout(steps=[{"setWeight": 20, "pause": {}}])
OBJECTIONS = [
    ("Paused", (), {}, "cannot be removed: first run `splitproxy abort shop`"),
    ("Paused", ({**PAUSED, "route": "pay"},), {}, "with route: shop, which cannot become pay"),
    ("Paused", ({**PAUSED, "primary": "v3"},), {"routes": [route("v3")]}, "primary: v1, which cannot become v3"),
    ("Paused", ({**PAUSED, "canary": "v3"},), {}, "give v3 a revision of its own"),
    ("Paused", ({key: value for key, value in PAUSED.items() if key != "revision"},), {}, "cannot be left out"),
    ("Paused", (PAUSED,), {"state": {"path": "/elsewhere.db"}}, "cannot take the place of"),
    ("Paused", ({**PAUSED, "revision": "2"},), {}, None),
    ("Paused", ({**PAUSED, "canary": "v3", "revision": "2"},), {}, None),
    ("Succeeded", (rollout(revision="2"),), {}, "first write `primary: v2` and `canary: v1`"),
    ("Succeeded", (rollout(canary="v3"),), {}, "first write `primary: v2` and `canary: v1`"),
    ("Succeeded", (), {}, "route shop would send its traffic back to v1"),
    ("Succeeded", (), {"routes": [route("v2")]}, None),
    ("Succeeded", (rollout(threshold=7),), {}, None),
    ("Succeeded", (rollout(primary="v2", canary="v1", revision="2"),), {"routes": [route("v2")]}, None),
    ("Failed", (), {}, None),
    ("Failed", (rollout(primary="v3"),), {"routes": [route("v3")]}, None),
]


def test_what_an_edit_takes_away_is_there_until_the_step_is_over(play):
    async def scene(world):
        url = await world.receiver()
        world.says = b'{"value": 1}'
        metric = {"name": "own", "templateRef": {"name": "own"}, "thresholdRange": {"max": 2}}
        template = {"name": "own", "provider": {"type": "web", "address": url, "jsonPath": "value"}, "query": "q"}
        provider = {"name": "team", "type": "webhook", "address": url}
        alerts = [{"name": "team", "severity": "info", "providerRef": {"name": "team"}}]
        steps = [{"setWeight": 20, "pause": {}}, {"setWeight": 40}]
        first = rollout(metrics=[metric], alerts=alerts, steps=steps)
        await world.serve(world.candidate(first, metricTemplates=[template], alertProviders=[provider]))
        await world.until_phase("Paused")
        await world.serve(world.candidate(rollout(steps=steps)))
        await world.until(lambda one: one.verdicts[0]["metric"] == "own" and one.verdicts[0]["outcome"] == "pass")
        assert (await world.one().act(Verb("resume", "me"))) is None
        await world.until_phase("Succeeded")
        assert world.one().verdicts[0]["metric"] == "request-success-rate"

    play(scene)


def test_a_defect_costs_one_event_and_not_the_rollout(play, monkeypatch, caplog):
    async def scene(world):
        await world.serve(world.candidate(rollout(steps=[{"setWeight": 20, "pause": {}}])))
        await world.until_phase("Paused")
        with monkeypatch.context() as broken:
            broken.setattr("splitproxy.control.rollouts.controller.advance", None)
            with pytest.raises(TypeError):
                await world.one().act(Verb("resume", "me"))
        assert "a defect" in caplog.text
        assert (await world.one().act(Verb("abort", "me"))) is None

    play(scene)


def test_while_draining_rollouts_stand_still(play):
    async def scene(world):
        await world.serve(world.candidate(rollout(steps=[{"setWeight": 20, "pause": {}}])))
        await world.until_phase("Paused")
        await world.desk.halt("draining")
        with pytest.raises(Unsaved, match="draining"):
            await world.one().act(Verb("abort", "me"))
        assert world.traffic() == Traffic(2000)
        assert views.everything(world.one(), [])["alarms"] == ["draining"]

    play(scene)


@pytest.mark.parametrize(("phase", "rollouts", "changes", "objection"), OBJECTIONS)
def test_what_would_harm_a_rollout_is_refused_with_what_to_do(play, phase, rollouts, changes, objection):
    async def scene(world):
        await world.serve(world.candidate(PAUSED))
        await world.until_phase("Paused")
        if phase == "Succeeded":
            await world.one().act(Verb("promote", "me", full=True))
        if phase == "Failed":
            await world.one().act(Verb("abort", "me"))
        await world.until_phase(phase)
        found = world.desk.objections(world.candidate(*rollouts, **changes))
        assert (objection is None) == (not found), found
        assert objection is None or objection in found[0]

    play(scene)


STARTS = [
    ((rollout(),), {}, None),
    ((rollout(threshold=7),), {}, None),
    ((rollout(primary="v2", canary="v1"),), {}, None),
    ((rollout(primary="v2", canary="v3", revision="9"),), {"routes": [route("v2")]}, None),
    ((rollout(revision="2"),), {}, "first write `primary: v2` and `canary: v1`"),
    ((rollout(canary="v3", revision="9"),), {}, "first write `primary: v2` and `canary: v1`"),
    ((), {}, "route shop would send its traffic back to v1"),
    ((), {"routes": [route("v2")]}, None),
]


@pytest.mark.parametrize(("rollouts", "changes", "objection"), STARTS)
def test_a_program_does_not_start_with_a_file_that_would_throw_traffic_back(play, rollouts, changes, objection):
    async def scene(world):
        await world.serve(world.candidate(rollout()))
        await world.until_phase("Succeeded")
        await world.restart()
        changed = world.candidate(*rollouts, **changes)
        found = await world.desk.forgotten(changed)
        assert (objection is None) == (not found), found
        assert objection is None or objection in found[0]
        if not found:
            await world.serve(changed, start=True)

    play(scene)


def test_a_removal_that_was_accepted_is_no_hindrance_later(play):
    async def scene(world):
        await world.serve(world.candidate(rollout()))
        await world.until_phase("Succeeded")
        await world.serve(world.candidate(routes=[route("v2")]))
        assert world.desk.objections(world.candidate(routes=[route("v1")])) == []
        assert "first write" in world.desk.objections(world.candidate(rollout(canary="v3"), routes=[route("v1")]))[0]
        await world.restart()
        assert await world.desk.forgotten(world.candidate(routes=[route("v1")])) == []
        assert "first write" in (await world.desk.forgotten(world.candidate(rollout(canary="v3"))))[0]
        back = world.candidate(rollout())
        assert await world.desk.forgotten(back) == []
        await world.serve(back, start=True)
        assert world.traffic() == Traffic(10_000, swapped=True)

    play(scene)


def test_upstreams_exchanged_while_nobody_ran_it_end_the_run(play):
    async def scene(world):
        await world.serve(world.candidate(rollout(steps=[{"setWeight": 20, "pause": {}}])))
        await world.until_phase("Paused")
        changed = world.candidate(rollout(canary="v3", steps=[{"setWeight": 20, "pause": {}}]))
        await world.restart()
        await world.serve(changed, start=True)
        assert world.one().state.phase == "Failed"
        assert "no longer leads from v1 to v2" in world.one().state.reason
        assert world.traffic() == Traffic()

    play(scene)


def test_a_rollout_that_was_taken_out_comes_back_as_it_was(play):
    async def scene(world):
        await world.serve(world.candidate(rollout()))
        world.fails["v2"] = 1.0
        await world.until_phase("Failed")
        await world.serve(world.candidate())
        assert world.desk.controllers == {}
        await world.serve(world.candidate(rollout()))
        assert (world.one().state.phase, world.one().state.attempt) == ("Failed", 1)

    play(scene)


def test_the_promoted_revision_in_the_file_ends_the_run_of_a_newer_one(play):
    async def scene(world):
        hand_back = {"mode": "handBack", "webhook": {"name": "deploy", "url": await world.receiver()}}
        await world.serve(world.candidate(rollout(promotion=hand_back)))
        await world.until_phase("Succeeded")
        steps = [{"setWeight": 20, "pause": {}}]
        await world.serve(world.candidate(rollout(revision="2", promotion=hand_back, steps=steps)))
        await world.until_phase("Paused")
        await world.serve(world.candidate(rollout(promotion=hand_back, steps=steps)))
        assert world.traffic() == Traffic()
        await world.until_phase("Failed")
        assert "names the promoted revision 1 again" in world.one().state.reason

    play(scene)
