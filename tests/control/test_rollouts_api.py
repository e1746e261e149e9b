import asyncio
import json
from types import SimpleNamespace

import pytest
from aiohttp.test_utils import TestClient, TestServer

from splitproxy.control.admin import admin_application
from splitproxy.control.publish import Publisher
from splitproxy.control.state import State
from splitproxy.core.live import Traffic

from .rollouts_world import Memory, World, rollout

RUNNING = SimpleNamespace(admin="127.0.0.1:9900", allowed_hosts=[], tokens=[], audit_log=None)
PAUSED = rollout(steps=[{"setWeight": 20, "pause": {}}, {"setWeight": 50, "pause": {}}])


class Api:
    """The admin API over a world with one rollout that pauses at 20 %."""

    def __init__(self, client):
        self._client = client

    async def __call__(self, method, path, body=None, **options):
        data = body if isinstance(body, str | None) else json.dumps(body)
        async with self._client.request(method, f"/api/v1/rollouts{path}", data=data, **options) as response:
            assert response.content_type == "application/json", await response.text()
            return response.status, await response.json()


@pytest.fixture
def play(tmp_path):
    memory = Memory()

    def run(scene, spec=PAUSED):
        async def whole():
            world = World(memory, tmp_path)
            world.listen("v1", "v2")
            world.begin()
            world.start_traffic()
            state = State(memory.descriptor, Publisher())
            state.rollouts = world.desk
            state.reloader = SimpleNamespace(running=RUNNING)
            client = TestClient(TestServer(admin_application(state, None, None)))
            try:
                async with client, asyncio.timeout(20):
                    await world.serve(world.candidate(spec))
                    await world.until_phase("Paused")
                    await scene(world, Api(client))
            finally:
                await world.close()

        asyncio.run(whole())

    yield run
    memory.close()


def test_a_rollout_is_shown_with_everything_about_it(play):
    async def scene(world, api):
        status, (one,) = await api("GET", "")
        assert status == 200
        status, same = await api("GET", "/shop")
        assert (status, same["name"], same["phase"]) == (200, one["name"], "Paused")
        assert (one["revision"], one["primary"], one["canary"], one["canaryWeight"]) == ("1", "v1", "v2", 20.0)
        assert (one["failedChecks"], one["iterations"], one["step"], one["mirroring"]) == (0, 0, 0, False)
        assert (one["attempt"], one["threshold"], one["promotionMode"], one["dryRun"]) == (1, 2, "swap", False)
        assert [step["weight"] for step in one["steps"]] == [20.0, 50.0]
        assert one["startedAt"] <= one["phaseSince"]
        assert (one["waitingFor"], one["adopt"], one["alarms"]) == (None, None, [])
        assert set(one["verbs"]) >= {"resume", "promote", "abort", "set-weight"}
        assert one["nextCheckInSeconds"] >= 0
        assert one["verdicts"][0]["metric"] == "request-success-rate"
        assert [entry["kind"] for entry in one["history"]][:2] == ["phase", "phase"]
        assert len((await api("GET", "/shop?history=1"))[1]["history"]) == 1

    play(scene)


def test_verbs_answer_with_the_state_after_them(play):
    async def scene(world, api):
        headers = {"X-Splitproxy-Operator": "cli:ada"}
        status, body = await api("PUT", "/shop/weight", {"canaryWeight": 12.34}, headers=headers)
        assert (status, body["canaryWeight"]) == (202, 12.34)
        assert world.traffic() == Traffic(1234)
        assert any("cli:ada" in entry["text"] for entry in body["history"])
        status, body = await api("POST", "/shop/resume")
        assert (status, body["phase"], body["canaryWeight"]) == (202, "Progressing", 20.0)
        status, body = await api("POST", "/shop/promote", {"full": True})
        assert (status, body["phase"], world.traffic()) == (202, "Finalising", Traffic(10_000))
        status, body = await api("POST", "/shop/abort")
        assert (status, body["phase"], world.traffic()) == (202, "Failed", Traffic())
        status, body = await api("POST", "/shop/retry")
        assert (status, body["attempt"]) == (202, 2)

    play(scene)


REFUSALS = [
    ("GET", "/nothing", None, 404, "there is no rollout 'nothing'"),
    ("POST", "/nothing/abort", None, 404, "there is no rollout 'nothing'"),
    ("POST", "/shop/explode", None, 404, "there is no verb explode: there are start, "),
    ("POST", "/shop/set-weight", None, 404, "there is no verb set-weight"),
    ("POST", "/shop/undo", None, 409, "shop is Paused: undo is for Succeeded"),
    ("POST", "/shop/start", None, 409, "shop is Paused"),
    ("POST", "/shop/promote", "{", 400, "the body is not JSON"),
    ("POST", "/shop/promote", "[]", 400, "the body is not a JSON object"),
    ("POST", "/shop/promote", {"full": 1}, 400, "full is true or false"),
    ("POST", "/shop/abort", {"full": True}, 400, "of promote alone"),
    ("PUT", "/shop/weight", None, 400, "the body is not JSON"),
    ("PUT", "/shop/weight", {}, 400, "P a number of percent"),
    ("PUT", "/shop/weight", {"canaryWeight": True}, 400, "P a number of percent"),
    ("PUT", "/shop/weight", '{"canaryWeight": NaN}', 400, "P a number of percent"),
    ("PUT", "/shop/weight", {"canaryWeight": 0.001}, 400, "more than two decimals"),
    ("PUT", "/shop/weight", {"canaryWeight": 101}, 409, "between 0 % and 100 %"),
    ("PUT", "/shop/weight", {"canaryWeight": -1}, 409, "between 0 % and 100 %"),
    ("GET", "/shop?history=many", None, 400, "history is a number from 0 to 1000"),
    ("GET", "/shop/history?limit=5000", None, 400, "limit is a number from 0 to 1000"),
]


def test_what_cannot_be_done_is_said_in_a_sentence(play):
    async def scene(world, api):
        for method, path, body, status, sentence in REFUSALS:
            found = await api(method, path, body)
            assert found[0] == status, (path, found)
            assert sentence in found[1]["error"]
        assert world.one().state.phase == "Paused"

    play(scene)


def test_history_is_read_in_pages(play):
    async def scene(world, api):
        await world.one().keeping.saved()
        status, first = await api("GET", "/shop/history?limit=2")
        assert (status, len(first)) == (200, 2)
        assert set(first[0]) == {"id", "attempt", "at", "kind", "warning", "text", "data"}
        _, rest = await api("GET", f"/shop/history?after={first[-1]['id']}")
        texts = [entry["text"] for entry in (*first, *rest)]
        assert len(texts) > 2
        assert texts == world.texts()[: len(texts)]  # the rollout goes on meanwhile

    play(scene)


def test_what_cannot_be_saved_is_answered_with_503(play):
    async def scene(world, api):
        world.desk.store._connection.execute("PRAGMA query_only = on")
        status, body = await api("POST", "/shop/promote")
        assert status == 503
        assert "cannot be saved" in body["error"]
        assert "readonly" in (await api("GET", "/shop"))[1]["alarms"][0]
        assert (await api("POST", "/shop/abort"))[0] == 202

    play(scene)
