import asyncio
import contextlib
import hashlib
import hmac
import json
import shutil
import socket
import ssl
import subprocess
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from splitproxy.control import outbound
from splitproxy.control.outbound import Reply
from splitproxy.control.rollouts.hooks import HookResult, Hooks, event

PAYLOAD = {"name": "shop", "namespace": "", "phase": "Progressing", "checksum": "2.1.0", "canaryWeight": 12.5}
DEFAULTS = {
    "name": "gate",
    "type": "rollout",
    "timeout": 5.0,
    "retries": 0,
    "headers": {},
    "secret": None,
    "insecureSkipVerify": False,
    "muteAlert": False,
    "metadata": {},
}


class Receiver:
    """Notes what it is sent and answers as its script says, at the end of the script with the last answer again."""

    def __init__(self, *script):
        self.script, self.got = list(script) or [(200, "")], []
        self.arrived = asyncio.Event()

    async def answer(self, request):
        self.got.append((request.headers, await request.read()))
        self.arrived.set()
        answer = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if callable(answer):
            return await answer(request)
        status, body, *headers = answer
        return web.Response(status=status, body=body, headers=dict(headers))

    @property
    def bodies(self):
        return [json.loads(body) for _, body in self.got]


class Pauses:
    """Stands for `asyncio.sleep`: notes how long it was asked to wait, and lets others run."""

    def __init__(self):
        self.seconds = []

    async def __call__(self, seconds):
        self.seconds.append(seconds)
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def receiving(*scripts):
    """Give hooks that do not really wait, and a receiver with a webhook for each script."""
    receivers = [Receiver(*script) for script in scripts]
    application = web.Application()
    for number, receiver in enumerate(receivers):
        application.router.add_route("*", f"/{number}", receiver.answer)
    async with TestServer(application) as server:
        hooks = Hooks(Pauses())
        try:
            yield hooks, receivers, lambda number=0, **given: hook(str(server.make_url(f"/{number}")), **given)
        finally:
            await hooks.close()


def hook(url, **given):
    return {**DEFAULTS, "url": url, **given}


async def ask(script, **given):
    """Return what one webhook says that answers by this script, the webhook, and the pauses between attempts."""
    async with receiving(script) as (hooks, (receiver,), make):
        return await hooks.ask([make(**given)], PAYLOAD), receiver, hooks._pause.seconds


# --- verdicts --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("status", [200, 201, 202])
async def test_up_to_202_is_a_pass(status):
    result, _, _ = await ask([(status, "fine")])
    assert result[:4] == ("pass", "gate", status, "fine")


@pytest.mark.parametrize("status", [203, 204, 206, 400, 403, 404, 409, 429, 500, 501, 503])
async def test_everything_else_is_a_failure_and_its_body_is_kept(status):
    body = "" if status == 204 else "not today"
    result, receiver, _ = await ask([(status, body)])
    assert result[:4] == ("fail", "gate", status, f"HTTP {status}: {body}" if body else f"HTTP {status}")
    assert len(receiver.got) == 1


@pytest.mark.parametrize("status", [200, 403, 500])
@pytest.mark.parametrize("action", ["hold", "rollback"])
async def test_an_answer_may_say_what_it_means(status, action):
    result, receiver, _ = await ask([(status, json.dumps({"action": action, "why": "traffic peak"}))], retries=3)
    assert (result.outcome, result.status) == (action, status)
    assert "traffic peak" in result.text
    assert len(receiver.got) == 1  # it has been decided, there is nothing to ask again


@pytest.mark.parametrize(
    "body",
    ['{"action": "deploy"}', '{"action": ["hold"]}', '["hold"]', "hold", '{"action"', "{" * 5000, '{"a":' * 9999],
)
async def test_what_else_an_answer_says_changes_nothing(body):
    assert (await ask([(200, body)]))[0].outcome == "pass"
    assert (await ask([(403, body)]))[0].outcome == "fail"


async def test_a_redirect_is_a_failure_and_is_not_followed():
    result, receiver, _ = await ask([(307, "", ("Location", "http://127.0.0.1:1/elsewhere"))])
    assert result.outcome == "fail"
    assert result.text == "HTTP 307: redirects to http://127.0.0.1:1/elsewhere, which is not followed"
    assert len(receiver.got) == 1


async def test_a_text_is_shown_on_one_line_and_clipped():
    result, _, _ = await ask([(500, b"\x1b[31mred\x07\nalert\xff\xe2\x80\xae" + b"x" * 5000)])
    assert result.text.startswith("HTTP 500: [31mred alert\N{REPLACEMENT CHARACTER} xxx")
    assert len(result.text) == 1024
    assert result.text.endswith("…")
    assert result.text.isprintable()


async def test_no_more_of_a_body_is_read_than_is_of_use():
    async def endless(request):
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            for _ in range(10_000):
                await response.write(b"z" * 65_536)
        return response

    result, _, _ = await ask([endless])
    assert (result.outcome, len(result.text)) == ("pass", 1024)


async def test_a_receiver_that_does_not_answer_is_a_failure_in_time():
    async def silence(_request):
        await asyncio.sleep(30)

    result, _, _ = await ask([silence], timeout=0.1)
    assert result[:4] == ("fail", "gate", None, "no answer within 0.1 s")
    assert 0.09 < result.seconds < 5


async def test_a_receiver_that_hangs_up_is_a_failure():
    async def hang_up(request):
        request.transport.abort()

    result, _, _ = await ask([hang_up])
    assert result[:3] == ("fail", "gate", None)
    assert result.text


async def test_nobody_there_is_a_failure_after_all_retries():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        hooks = Hooks(Pauses())
        result = await hooks.ask([hook(f"http://127.0.0.1:{unused.getsockname()[1]}/", retries=2)], PAYLOAD)
        await hooks.close()
    assert result[:3] == ("fail", "gate", None)
    assert result.text.startswith("cannot connect: ")
    assert len(hooks._pause.seconds) == 2


@pytest.fixture
def certified(tmp_path):
    """Return a server's TLS context whose certificate nobody has signed."""
    certificate, key = tmp_path / "certificate", tmp_path / "key"
    subject = ("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, *subject],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")
async def test_a_certificate_is_checked_unless_told_otherwise(certified):
    receiver, application, hooks = Receiver(), web.Application(), Hooks(Pauses())
    application.router.add_post("/", receiver.answer)
    server = TestServer(application, scheme="https")
    await server.start_server(ssl=certified)
    url = str(server.make_url("/"))
    refused = await hooks.ask([hook(url)], PAYLOAD)
    taken = await hooks.ask([hook(url, insecureSkipVerify=True)], PAYLOAD)
    await hooks.close()
    await server.close()
    assert (refused.outcome, taken.outcome) == ("fail", "pass")
    assert "certificate verify failed" in refused.text
    assert len(receiver.got) == 1


async def test_an_address_that_cannot_be_used_is_not_repeated():
    hooks = Hooks(Pauses())
    result = await hooks.ask([hook("http://[secret/")], PAYLOAD)
    await hooks.close()
    assert result[:4] == ("fail", "gate", None, "cannot connect: the address is no URL")


async def test_a_proxy_of_the_environment_is_not_used(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert (await ask([(200, "")]))[0].outcome == "pass"


# --- retries ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_what_may_pass_is_tried_again(status):
    result, receiver, pauses = await ask([(status, "busy"), (status, "busy"), (200, "ok")], retries=5)
    assert (result.outcome, result.text) == ("pass", "ok")
    assert len(receiver.got) == 3
    assert 0.8 <= pauses[0] <= 1.0
    assert 1.6 <= pauses[1] <= 2.0
    assert receiver.got[0][0]["X-Splitproxy-Delivery"] == receiver.got[2][0]["X-Splitproxy-Delivery"]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 501])
async def test_what_will_not_pass_is_not(status):
    _, receiver, pauses = await ask([(status, "no"), (200, "")], retries=5)
    assert (len(receiver.got), pauses) == (1, [])


async def test_the_body_of_the_last_attempt_is_kept():
    result, receiver, _ = await ask([(500, "one"), (503, "two")], retries=1)
    assert (result.outcome, result.text, len(receiver.got)) == ("fail", "HTTP 503: two", 2)


@pytest.mark.parametrize(("asked", "waited"), [("7", 7.0), ("0", 0.0), ("3600", 30.0), ("9" * 400, 30.0)])
async def test_retry_after_is_honoured_up_to_a_limit(asked, waited):
    _, _, pauses = await ask([(503, "", ("Retry-After", asked)), (200, "")], retries=1)
    assert pauses == [waited]


async def test_retry_after_may_be_a_date():
    at = format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True)
    _, _, (pause,) = await ask([(429, "", ("Retry-After", at)), (200, "")], retries=1)
    assert 10 < pause <= 20


async def test_retry_after_that_makes_no_sense_is_not():
    _, _, (pause,) = await ask([(503, "", ("Retry-After", "soon")), (200, "")], retries=1)
    assert 0.8 <= pause <= 1.0


def test_pauses_grow_and_are_bounded():
    pauses = [outbound.wait(attempt, Reply(500)) for attempt in range(100)]
    assert all(0.8 * least <= pause <= least for pause, least in zip(pauses, [1, 2, 4, 8, 16, *[30] * 95], strict=True))


# --- what is sent ----------------------------------------------------------------------------------------------------
async def test_the_payload_is_flaggers_with_ours_beside_it():
    _, receiver, _ = await ask([(200, "")], type="pre-rollout", metadata={"cmd": "smoke"})
    (headers, body) = receiver.got[0]
    assert json.loads(body) == {**PAYLOAD, "type": "pre-rollout", "metadata": {"cmd": "smoke"}}
    assert headers["Content-Type"] == "application/json"
    assert headers["X-Splitproxy-Event"] == "pre-rollout"
    assert len(headers["X-Splitproxy-Delivery"]) == 36
    assert "X-Splitproxy-Signature" not in headers


async def test_metadata_is_left_out_when_there_is_none():
    _, receiver, _ = await ask([(200, "")])
    assert "metadata" not in receiver.bodies[0]


async def test_the_body_is_signed():
    _, receiver, _ = await ask([(200, "")], secret="open sesame ü")
    headers, body = receiver.got[0]
    expected = hmac.new("open sesame ü".encode(), body, hashlib.sha256).hexdigest()
    assert headers["X-Splitproxy-Signature"] == f"sha256={expected}"


async def test_headers_are_sent_and_ours_stand():
    given = {"Authorization": "Bearer t", "content-type": "application/vnd.shop+json", "x-splitproxy-event": "fake"}
    _, receiver, _ = await ask([(200, "")], headers=given)
    headers, _ = receiver.got[0]
    assert headers["Authorization"] == "Bearer t"
    assert headers.getall("Content-Type") == ["application/vnd.shop+json"]
    assert headers.getall("X-Splitproxy-Event") == ["rollout"]


async def test_halves_of_surrogate_pairs_hold_nothing_up():
    _, receiver, _ = await ask([(200, "")], metadata={"text": "a\ud800b"})
    assert receiver.bodies[0]["metadata"] == {"text": "a?b"}


# --- many ------------------------------------------------------------------------------------------------------------
async def test_the_first_that_does_not_pass_ends_it_and_decides():
    async with receiving([(200, "one")], [(403, "two")], [(200, "three")]) as (hooks, receivers, make):
        result = await hooks.ask([make(number, name=f"gate-{number}") for number in range(3)], PAYLOAD)
    assert result[:4] == ("fail", "gate-1", 403, "HTTP 403: two")
    assert [len(receiver.got) for receiver in receivers] == [1, 1, 0]


@pytest.mark.parametrize(
    ("script", "outcome", "asked"),
    [
        ([(403, ""), (403, "")], "fail", 2),
        ([(403, ""), (200, "")], "pass", 2),
        ([(200, ""), (403, "")], "pass", 1),
        ([(403, '{"action": "rollback"}'), (403, "")], "rollback", 1),
    ],
)
async def test_any_rollback_hook_that_passes_wants_a_rollback(script, outcome, asked):
    async with receiving(script) as (hooks, (receiver,), make):
        result = await hooks.ask([make(type="rollback"), make(type="rollback")], PAYLOAD)
    assert (result.outcome, len(receiver.got)) == (outcome, asked)


@pytest.mark.parametrize(("script", "outcome"), [([(500, "a"), (200, "b")], "fail"), ([(200, "")], "pass")])
async def test_every_post_rollout_hook_is_told_whatever_another_says(script, outcome):
    async with receiving(script) as (hooks, (receiver,), make):
        result = await hooks.ask([make(type="post-rollout") for _ in range(3)], PAYLOAD)
    assert (result.outcome, len(receiver.got)) == (outcome, 3)


async def test_a_built_in_gate_is_not_asked():
    async with receiving([(200, "")]) as (hooks, (receiver,), make):
        result = await hooks.ask([{**make(type="confirm-rollout"), "url": None}, make(name="after")], PAYLOAD)
    assert (result.outcome, result.hook, len(receiver.got)) == ("pass", "after", 1)


async def test_nobody_to_ask_is_a_pass():
    async with receiving() as (hooks, _, _):
        assert (await hooks.ask([], PAYLOAD))[:4] == HookResult("pass")[:4]


async def test_asking_can_be_given_up():
    async def silence(_request):
        await asyncio.sleep(30)

    async with receiving([silence]) as (hooks, (receiver,), make):
        asking = asyncio.create_task(hooks.ask([make(timeout=30.0, retries=3)], PAYLOAD))
        await receiver.arrived.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        receiver.script = [(200, "")]
        assert (await hooks.ask([make()], PAYLOAD)).outcome == "pass"


# --- telling ---------------------------------------------------------------------------------------------------------
def test_an_event_is_told_as_flagger_does():
    told = event({**PAYLOAD, "metadata": {"a": "b"}}, "Advance shop", warning=False, at=1_700_000_000.1234)
    assert told == {
        **PAYLOAD,
        "metadata": {"a": "b", "eventMessage": "Advance shop", "eventType": "Normal", "timestamp": "1700000000123"},
    }
    assert event(PAYLOAD, "Halt", warning=True, at=0.0)["metadata"]["eventType"] == "Warning"


async def test_what_is_told_arrives_in_order_and_nobody_waits_for_it():
    async with receiving([(500, "late"), (200, "")]) as (hooks, (receiver,), make):
        began = time.monotonic()
        for number in range(50):
            payload = event(PAYLOAD, f"event {number}", warning=False, at=0.0)
            hooks.tell([make(type="event", retries=1, metadata={"eventMessage": "ours", "team": "shop"})], payload)
        assert time.monotonic() - began < 1
        assert receiver.got == []
        await hooks.drained()
    said = [body["metadata"]["eventMessage"] for body in receiver.bodies]
    assert said == ["event 0", *(f"event {number}" for number in range(50))]
    assert {body["metadata"]["team"] for body in receiver.bodies} == {"shop"}


async def test_a_rollout_whose_receiver_is_stuck_does_not_hold_up_another():
    async def silence(_request):
        await asyncio.sleep(30)

    async with receiving([silence], [(200, "")]) as (hooks, (_, other), make):
        hooks.tell([make(0, type="event")], PAYLOAD)
        hooks.tell([make(1, type="event")], {**PAYLOAD, "name": "search"})
        await asyncio.wait_for(other.arrived.wait(), 5)


async def test_what_waits_is_bounded_and_the_oldest_goes(caplog):
    async with receiving([(200, "")]) as (hooks, (receiver,), make):
        for number in range(300):
            hooks.tell([make(type="event")], {**PAYLOAD, "step": number})
        await hooks.drained()
    assert [body["step"] for body in receiver.bodies] == list(range(44, 300))
    assert "rollout shop: the webhooks are too slow, an event is dropped" in caplog.text


async def test_a_failure_to_tell_is_logged(caplog):
    async with receiving([(500, "broken")]) as (hooks, _, make):
        hooks.tell([make(type="event")], PAYLOAD)
        await hooks.drained()
    assert "rollout shop: webhook gate: HTTP 500: broken" in caplog.text


async def test_closing_waits_as_long_as_it_may():
    async def silence(_request):
        await asyncio.sleep(30)

    async with receiving([(200, ""), silence]) as (hooks, (receiver,), make):
        hooks.tell([make(type="event"), make(type="event"), make(type="event")], PAYLOAD)
        began = time.monotonic()
        await hooks.close(0.2)
        assert 0.1 < time.monotonic() - began < 5
        assert len(receiver.got) == 2
