"""Tokens, roles and the audit log of the admin API."""

import base64
import hashlib
import json
import os
from types import SimpleNamespace

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from splitproxy.control.access import Caller, caller
from splitproxy.control.audit import Audit
from splitproxy.control.guard import BEARER, guard
from splitproxy.control.loading import Token

READ, OPERATE = "reader-0123456789", "operator-0123456789"
TOKENS = [
    Token(name, role, hashlib.sha256(value.encode()).hexdigest())
    for name, role, value in (("ann", "read", READ), ("bob", "operator", OPERATE))
]


def basic(user, password):
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize(
    ("authorization", "method", "path", "expected"),
    [
        (f"Bearer {READ}", "GET", "/api/v1/config", "ann"),
        (f"bearer  {READ} ", "GET", "/metrics", "ann"),
        (basic("whoever", READ), "GET", "/api/v1/routes", "ann"),
        (f"Bearer {OPERATE}", "GET", "/api/v1/routes", "bob"),
        (f"Bearer {OPERATE}", "POST", "/-/reload", "bob"),
        (basic("", OPERATE), "PUT", "/api/v1/rollouts/shop/weight", "bob"),
        (f"Bearer {READ}", "POST", "/-/reload", 403),
        (f"Bearer {READ}", "DELETE", "/anything", 403),
        (basic("ann", READ), "PUT", "/api/v1/rollouts/shop/weight", 403),
        (None, "GET", "/metrics", 401),
        (None, "GET", "/api/v1/config", 401),
        (None, "POST", "/healthz", 401),
        (None, "POST", "/-/drain", 401),
        ("", "GET", "/metrics", 401),
        ("Bearer", "GET", "/metrics", 401),
        ("Bearer x", "GET", "/metrics", 401),
        (f"Bearer {READ}x", "GET", "/metrics", 401),
        (f"Bearer {READ[:-1]}", "GET", "/metrics", 401),
        (f"Token {READ}", "GET", "/metrics", 401),
        (READ, "GET", "/metrics", 401),
        ("Basic ???", "GET", "/metrics", 401),
        ("Basic \u00e9", "GET", "/metrics", 401),
        ("Bearer \udcff", "GET", "/metrics", 401),
        (None, "GET", "/healthz", None),
        (None, "HEAD", "/readyz", None),
        (None, "GET", "/", None),
        (None, "GET", "/assets/main.js", None),
        (None, "POST", "/", 401),
        (None, "POST", "/assets/main.js", 401),
    ],
)
def test_a_token_says_who_asks_and_its_role_what_may_be_done(authorization, method, path, expected):
    found = caller(TOKENS, authorization, method, path)
    assert (found.name if isinstance(found, Caller) else found.status) == expected


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_without_tokens_everybody_may_do_everything(method):
    assert caller([], None, method, "/-/drain") == Caller()


class Stage:
    """The guard before a handler that answers with who asked, and an audit log in a file."""

    def __init__(self, file, tokens=TOKENS):
        self.file, self.audit = file, Audit()
        self.running = SimpleNamespace(admin="127.0.0.1:9900", allowed_hosts=[], tokens=tokens, audit_log=str(file))

    async def ask(self, method, path, **headers):
        async def handler(request):
            if request.path == "/refuse":
                return web.json_response({"error": "not legal in this phase"}, status=409)
            return web.json_response({"who": BEARER.get()})

        application = web.Application(middlewares=[guard(lambda: self.running, self.audit)])
        application.add_routes([web.route("*", "/{path:.*}", handler)])
        async with TestClient(TestServer(application)) as client:
            headers = {name.replace("_", "-"): value for name, value in headers.items()}
            async with client.request(method, path, headers=headers) as response:
                return response.status, response.headers, await response.json()

    def lines(self):
        self.audit.close()
        return [json.loads(line) for line in self.file.read_text().splitlines()] if self.file.exists() else []


@pytest.fixture
def stage(tmp_path):
    return Stage(tmp_path / "audit.log")


async def test_a_change_is_noted_with_who_asked_and_what_came_of_it(stage):
    assert (await stage.ask("POST", "/-/reload", Authorization=f"Bearer {OPERATE}"))[2] == {"who": "bob"}
    headers = {"Authorization": f"Bearer {OPERATE}", "X_Splitproxy_Operator": "cli:root"}
    assert (await stage.ask("PUT", "/refuse", **headers))[0] == 409
    assert (await stage.ask("POST", "/-/drain", Authorization=f"Bearer {READ}"))[0] == 403
    assert (await stage.ask("POST", "/-/drain"))[0] == 401
    assert (await stage.ask("POST", "/-/drain", Host="evil.example"))[0] == 421
    await stage.ask("GET", "/api/v1/config", Authorization=f"Bearer {READ}")
    lines = stage.lines()
    assert [(line["who"], line["role"], line["action"], line["status"], line["result"]) for line in lines] == [
        ("bob", "operator", "POST /-/reload", 200, "done"),
        ("bob", "operator", "PUT /refuse", 409, "refused"),
        (None, "none", "POST /-/drain", 403, "refused"),
        (None, "none", "POST /-/drain", 401, "refused"),
        (None, "none", "POST /-/drain", 421, "refused"),
    ]
    assert lines[1]["claims"] == "cli:root"
    assert lines[1]["reason"] == "not legal in this phase"
    assert {line["from"] for line in lines} == {"127.0.0.1"}
    text = stage.file.read_text()
    assert READ not in text
    assert OPERATE not in text
    assert os.stat(stage.file).st_mode & 0o777 == 0o600


async def test_what_is_asked_cannot_forge_a_line(stage):
    await stage.ask("POST", "/a%0A%7B%22who%22%3A%22bob%22%7D", Authorization=f"Bearer {OPERATE}")
    (line,) = stage.lines()
    assert line["action"] == 'POST /a {"who":"bob"}'


async def test_a_browser_is_asked_for_a_password(stage):
    status, headers, body = await stage.ask("GET", "/metrics")
    assert (status, body["error"]) == (401, "unauthorized")
    assert headers["WWW-Authenticate"].startswith("Basic ")
    stage.audit.close()


async def test_before_any_tokens_are_known_nothing_is_open(stage):
    stage.running = None
    assert (await stage.ask("GET", "/healthz"))[0] == 200
    assert (await stage.ask("GET", "/api/v1/config"))[0] == 503
    assert (await stage.ask("POST", "/-/drain", Authorization=f"Bearer {OPERATE}"))[0] == 503
    stage.audit.close()


async def test_a_disk_that_takes_no_line_refuses_no_change(tmp_path, caplog):
    stage = Stage(tmp_path / "missing" / "audit.log")
    assert (await stage.ask("POST", "/-/reload", Authorization=f"Bearer {OPERATE}"))[0] == 200
    stage.audit.close()
    assert "takes no line (No such file or directory)" in caplog.text


async def test_without_a_file_lines_go_to_the_log(stage, caplog):
    caplog.set_level("INFO")
    stage.running.audit_log = None
    await stage.ask("POST", "/-/reload", Authorization=f"Bearer {OPERATE}")
    stage.audit.close()
    assert '"who": "bob"' in caplog.text
