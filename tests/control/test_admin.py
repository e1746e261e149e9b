import json
import os
from types import SimpleNamespace

import pytest
from aiohttp.test_utils import TestClient, TestServer

from splitproxy.control import admin
from splitproxy.control.admin import admin_application, probes_application
from splitproxy.control.loader import lines
from splitproxy.control.loading import Candidate, Memfd
from splitproxy.control.publish import Snapshot
from splitproxy.control.reload import Report
from splitproxy.control.state import State
from splitproxy.core import stats

SHOP = (stats.SERIES, "shop", "0", "v1", "primary")
HEAD = {
    "listeners": ["127.0.0.1:8080"],
    "workers": 2,
    "admin": "127.0.0.1:9900",
    "allowed_hosts": ["admin.example.com"],
    "probes": None,
    "shares": [["shop", "0", "v1", "primary", 90.0], ["shop", "0", "v2", "canary", 10.0]],
    "warnings": ["routes[0]: a warning"],
    "checksum": "abc",
    "sources": ["splitproxy.yaml"],
}
PLAIN = {
    "upstreams": [
        {"name": "v1", "loadBalancing": "roundRobin", "endpoints": [{"url": "http://127.0.0.1:9001", "weight": 1}]},
        {"name": "v2", "loadBalancing": "random", "endpoints": []},
    ],
    "routes": [
        {"name": "shop", "hostnames": ["shop.example.com"], "rules": [{"name": "0", "matches": []}]},
        {"name": "pay", "hostnames": [], "rules": []},
    ],
}


class Stage:
    """A control process's state with nothing but two scripted workers behind it."""

    def __init__(self, regions, publisher):
        description = Memfd.create("description")
        os.write(description.fileno(), b"".join(lines(HEAD, PLAIN, {"secret": "***"})))
        self.running = Candidate.described_by(description, 3, Memfd.create("snapshot"))
        self.reports, self.drained = [Report("success", "start", 3, 0.1)], 0
        publisher.current, publisher.expected = Snapshot(3, self.running.snapshot), 2
        self.publisher, self.state = publisher, State(regions.descriptor, publisher)
        self.state.rollouts = SimpleNamespace(controllers={}, live_shares=lambda shares: shares)
        self.state.reloader = SimpleNamespace(
            running=self.running, last=self.reports[0], counts={"success": 1, "unchanged": 0, "failure": 0}
        )

    async def reload(self):
        return self.reports[-1]

    def drain(self):
        self.drained += 1

    def client(self, application=None):
        return TestClient(TestServer(application or admin_application(self.state, self.reload, self.drain)))


@pytest.fixture
def stage(regions, publisher):
    return Stage(regions, publisher)


async def answer(client, path, method="GET", **options):
    async with client.request(method, path, **options) as response:
        assert response.content_type == "application/json", await response.text()
        return response.status, await response.json()


async def test_healthz_answers_while_the_process_lives(stage):
    async with stage.client() as client:
        status, body = await answer(client, "/healthz")
        assert (status, body["status"]) == (200, "ok")


async def test_readyz_says_why_not(stage, scripted_worker, wait_until):
    async with stage.client() as client:
        assert await answer(client, "/readyz") == (
            503,
            {"error": "not_ready", "detail": "0 of 2 workers serve generation 3"},
        )
        scripted_worker(0, serves=3)
        old = scripted_worker(1, serves=2, silent=True)
        await old.until_told(("prepare", 3))
        assert await answer(client, "/readyz") == (
            503,
            {"error": "not_ready", "detail": "worker 1 serves generation 2, not 3"},
        )
        old.link.send({"type": "committed", "generation": 3})
        await wait_until(stage.publisher, lambda: len(stage.publisher.serving()) == 2)
        assert await answer(client, "/readyz") == (200, {"status": "ready", "generation": 3})
        stage.state.draining = True
        assert await answer(client, "/readyz") == (503, {"error": "not_ready", "detail": "draining"})
        stage.state.draining, stage.publisher.current = False, None
        assert (await answer(client, "/readyz"))[1]["detail"] == "the configuration has not been loaded yet"


async def test_the_configuration_is_shown_in_its_public_form(stage, scripted_worker):
    scripted_worker(0, serves=3)
    stage.state.reloader.last = Report("failure", "file", 3, 0.2, [{"message": "no", "text": "a.yaml:1: no"}])
    async with stage.client() as client:
        status, body = await answer(client, "/api/v1/config")
    assert status == 200
    assert body["config"] == {"secret": "***"}
    assert (body["generation"], body["checksum"], body["warnings"]) == (3, "abc", ["routes[0]: a warning"])
    assert body["lastReload"]["result"] == "failure"
    assert body["lastReload"]["errors"] == [{"message": "no", "text": "a.yaml:1: no"}]
    assert [worker["slot"] for worker in body["workers"]] == [0]


async def test_upstreams_show_every_address_with_its_connections(stage, regions, scripted_worker):
    scripted_worker(0, serves=3)
    region = regions.worker(0)
    for key in ((stats.ENDPOINT, "v1", "127.0.0.1:9001", ""), (stats.ENDPOINT, "v1", "127.0.0.1:9001", "mirror")):
        region.cells[region.block(key) + stats.ENDPOINT_IDLE] = 4
        region.cells[region.block(key) + stats.ENDPOINT_CONNECT_FAILURES] = 2
        region.cells[region.block(key) + stats.ENDPOINT_NAMED] = 1
    async with stage.client() as client:
        _, body = await answer(client, "/api/v1/upstreams")
    assert [upstream["name"] for upstream in body] == ["v1", "v2"]
    assert body[0]["endpoints"] == [{"url": "http://127.0.0.1:9001", "weight": 1}]
    own, mirrors = body[0]["addresses"]
    assert (own["address"], own["mirror"], own["idle"], own["connectFailures"]) == ("127.0.0.1:9001", False, 4, 2)
    assert (mirrors["mirror"], mirrors["idle"]) == (True, 4)
    assert body[1]["addresses"] == []


async def test_routes_show_weights_and_signals_per_upstream(stage, regions, scripted_worker):
    scripted_worker(0, serves=3)
    region = regions.worker(0)
    shop, mirror = region.block(SHOP), region.block((*SHOP[:3], "v3", "mirror"))
    region.cells[shop + stats.REASON + stats.REASONS.index("random")] = 8
    region.cells[mirror + stats.OUTCOME] = 5
    stage.state.signals.sample()
    region.cells[shop + stats.CODE + stats.CODES.index("200")] = 3
    region.cells[shop + stats.CODE + stats.CODES.index("500")] = 1
    region.cells[shop + stats.REQUEST_HISTOGRAM + stats.bucket(0.02)] = 4
    for outcome, count in (("success", 3), ("connect_failed", 2), ("client_gone", 7)):
        region.cells[shop + stats.OUTCOME + stats.OUTCOMES.index(outcome)] = count
    stage.state.signals.sample()
    async with stage.client() as client:
        _, body = await answer(client, "/api/v1/routes")
        _, one = await answer(client, "/api/v1/routes?route=pay")
    assert [route["name"] for route in body] == ["shop", "pay"]
    assert [route["name"] for route in one] == ["pay"]
    primary, canary, copies = body[0]["rules"][0]["backends"]
    assert (primary["name"], primary["role"], primary["weight"]) == ("v1", "primary", 90.0)
    assert primary["assignments"] == {"random": 8}
    assert primary["signals"]["10s"]["requests"] == 4
    assert primary["signals"]["60s"]["errorRate"] == 0.25
    assert (primary["signals"]["10s"]["attempts"], primary["signals"]["10s"]["attemptSuccessRate"]) == (5, 0.6)
    assert 0.0175 <= primary["signals"]["10s"]["p99"] <= 0.02
    assert (canary["weight"], canary["signals"]["10s"]["errorRate"]) == (10.0, None)
    assert (copies["role"], copies["weight"], copies["attempts"]) == ("mirror", None, {"success": 5})


async def test_before_the_first_configuration_nothing_is_shown(stage):
    stage.state.reloader.running = stage.state.reloader.last = None
    async with stage.client() as client:
        assert (await answer(client, "/api/v1/routes"))[0] == 503
        assert (await answer(client, "/healthz"))[0] == 200


async def test_a_reload_answers_with_the_generation_or_with_every_error(stage):
    async with stage.client() as client:
        status, body = await answer(client, "/-/reload", "POST")
        assert (status, body["result"], body["generation"]) == (200, "success", 3)
        stage.reports.append(
            Report("failure", "api", 3, 0.1, [{"message": "a", "text": "A"}, {"message": "b", "text": "B"}])
        )
        status, body = await answer(client, "/-/reload", "POST")
        assert (status, body["error"], body["detail"], body["generation"]) == (422, "invalid_configuration", "A\nB", 3)
        assert [error["message"] for error in body["errors"]] == ["a", "b"]


async def test_a_drain_is_accepted(stage):
    async with stage.client() as client:
        assert await answer(client, "/-/drain", "POST") == (202, {"draining": True})
    assert stage.drained == 1


async def test_changes_are_asked_for_by_post_alone(stage):
    async with stage.client() as client:
        for path in ("/-/reload", "/-/drain"):
            status, body = await answer(client, path)
            assert (status, body["error"]) == (405, "method_not_allowed")
    assert stage.drained == 0


@pytest.mark.parametrize("path", ["/", "/healthz", "/metrics", "/api/v1/config", "/-/drain", "/nowhere"])
async def test_every_path_is_guarded(stage, path):
    async with stage.client() as client:
        method = "POST" if path == "/-/drain" else "GET"
        assert (await answer(client, path, method, headers={"Host": "evil.example"}))[0] == 421
        assert (await answer(client, path, method, headers={"Origin": "http://evil.example"}))[0] == 403
    assert stage.drained == 0


async def test_a_listed_name_is_served(stage):
    async with stage.client() as client:
        assert (await answer(client, "/healthz", headers={"Host": "admin.example.com"}))[0] == 200


async def test_an_unknown_path_is_answered_in_json(stage):
    async with stage.client() as client:
        status, body = await answer(client, "/nowhere")
        assert (status, body) == (404, {"error": "not_found", "detail": "GET /nowhere: Not Found"})


async def test_a_defect_is_answered_in_json_and_logged(stage, monkeypatch, caplog):
    monkeypatch.setattr(admin.views, "routes", lambda *_: 1 / 0)
    async with stage.client() as client:
        status, body = await answer(client, "/api/v1/routes")
    assert (status, body["error"]) == (500, "internal_error")
    assert "ZeroDivisionError" in caplog.text


async def test_the_start_page_is_the_dashboard(stage):
    async with stage.client() as client:
        async with client.get("/") as response:
            page = await response.text()
            assert (response.status, response.content_type) == (200, "text/html")
            policy = response.headers["Content-Security-Policy"]
            assert response.headers["Content-Encoding"] == "gzip"
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        for path, kind in (("main.js", "text/javascript"), ("style.css", "text/css"), ("icon.svg", "image/svg+xml")):
            assert f"/assets/{path}" in page
            async with client.get(f"/assets/{path}", headers={"Accept-Encoding": "identity"}) as response:
                assert (response.status, response.content_type) == (200, kind)
                assert "Content-Encoding" not in response.headers
        assert (await answer(client, "/assets/../admin.py"))[0] == 404


async def test_the_configuration_in_brief_leaves_out_what_the_files_say(stage):
    async with stage.client() as client:
        _, body = await answer(client, "/api/v1/config?brief=1")
    assert "config" not in body
    assert (body["generation"], body["listeners"]) == (3, ["127.0.0.1:8080"])


@pytest.mark.parametrize(
    ("query", "names", "total"),
    [
        ("", ["shop", "pay"], 2),
        ("?limit=1", ["shop"], 2),
        ("?contains=EXAMPLE", ["shop"], 1),
        ("?contains=pa&limit=5", ["pay"], 1),
        ("?contains=nothing", [], 0),
    ],
)
async def test_of_many_routes_some_are_found(stage, query, names, total):
    async with stage.client() as client, client.get(f"/api/v1/routes{query}") as response:
        assert [route["name"] for route in await response.json()] == names
        assert response.headers["X-Total-Count"] == str(total)


async def test_a_limit_is_a_number(stage):
    async with stage.client() as client:
        assert (await answer(client, "/api/v1/routes?limit=-1"))[0] == 400


async def test_metrics_come_in_the_format_asked_for(stage):
    async with stage.client() as client:
        async with client.get("/metrics") as response:
            assert response.headers["Content-Type"].startswith("text/plain; version=")
            assert "splitproxy_config_generation 3.0" in await response.text()
        async with client.get("/metrics", headers={"Accept": "application/openmetrics-text"}) as response:
            assert response.headers["Content-Type"].startswith("application/openmetrics-text")
            assert (await response.text()).endswith("# EOF\n")


async def test_probes_tell_and_change_nothing(stage):
    async with stage.client(probes_application(stage.state)) as client:
        elsewhere = {"Host": "10.1.2.3:9901"}  # a kubelet asks by the pod's address
        assert (await answer(client, "/healthz", headers=elsewhere))[0] == 200
        assert (await answer(client, "/readyz", headers=elsewhere))[0] == 503
        async with client.get("/metrics", headers=elsewhere) as response:
            assert response.status == 200
        for path in ("/", "/api/v1/config", "/api/v1/routes"):
            assert (await answer(client, path))[0] == 404
        for path in ("/-/reload", "/-/drain"):
            assert (await answer(client, path, "POST"))[0] == 404
    assert stage.drained == 0


async def test_events_tell_of_every_reload(stage):
    async with stage.client() as client, client.get("/api/v1/events") as response:
        assert response.content_type == "text/event-stream"
        stage.state.events.publish("reload", {"result": "success", "generation": 4})
        received = [await response.content.readline() for _ in range(6)]
    assert received[:2] == [b"retry: 1000\n", b"\n"]
    assert received[2].startswith(b"id: ")
    assert received[3] == b"event: reload\n"
    assert json.loads(received[4].removeprefix(b"data: ")) == {"result": "success", "generation": 4}
    assert received[5] == b"\n"


async def told(client, after):
    """Return the kinds and generations of the first event told to somebody who comes back."""
    async with client.get("/api/v1/events", headers={"Last-Event-ID": after}) as response:
        while not (line := await response.content.readline()).startswith(b"event: "):
            pass
        return line.split()[1].decode(), json.loads((await response.content.readline()).removeprefix(b"data: "))


async def test_who_comes_back_is_told_what_it_missed_or_that_it_cannot_be(stage):
    events = stage.state.events
    with events.subscribe() as queue:
        for number in range(300):
            events.publish("reload", {"generation": number})
        ids = [queue.get_nowait().id for _ in range(queue.qsize())]
    async with stage.client() as client:
        assert await told(client, ids[200]) == ("reload", {"generation": 201})
        for lost in (
            ids[10],
            "another-5",
            f"{ids[0].partition('-')[0]}-999",
            "no number",
            f"{ids[3]}x",
            "\u00b2-\u00b2",
        ):
            assert (await told(client, lost))[0] == "gap"


async def test_signals_come_to_those_alone_who_want_them(stage):
    events = stage.state.events
    with events.subscribe() as plain:
        assert not events.wanted.is_set()
        with events.subscribe(signals=True) as wanting:
            assert events.wanted.is_set()
            events.publish_signals({"at": 1.0})
        assert not events.wanted.is_set()
    assert plain.empty()
    assert wanting.get_nowait() == ("signals", {"at": 1.0}, "")


async def test_a_listener_that_does_not_read_loses_events_not_the_others(stage):
    events = stage.state.events
    with events.subscribe() as slow, events.subscribe() as quick:
        for number in range(2000):
            events.publish("reload", {"generation": number})
            quick.get_nowait()
        assert slow.qsize() < 2000
    events.publish("reload", {})
    assert quick.empty(), "who has left is told nothing"
