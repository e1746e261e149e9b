import asyncio
import contextlib
import json
from pathlib import Path

import jsonschema
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import given, settings, strategies as st

from splitproxy.control import notifiers
from splitproxy.control.notifiers.message import compose
from splitproxy.control.outbound import Reply, encoded
from splitproxy.control.rollouts.news import News
from splitproxy.core.rollout.events import Alert

FORMS = {path.stem: json.loads(path.read_text()) for path in (Path(__file__).parent / "receivers").glob("*.json")}
WORKFLOW = "https://prod-01.westeurope.logic.azure.com/workflows/0123/triggers/manual/paths/invoke"
ADDRESSES = {
    "slack": "https://hooks.slack.com/services/T0/B0/x",
    "msteams": WORKFLOW,
    "messagecard": "https://shop.webhook.office.com/webhookb2/x",
    "discord": "https://discord.com/api/webhooks/1/x",
    "rocket": "https://chat.example.com/hooks/x",
    "gchat": "https://chat.googleapis.com/v1/spaces/x/messages?key=k&token=t",
    "webhook": "https://example.com/news",
}
KINDS = sorted(ADDRESSES)
ROLLED_BACK = Alert("error", "Failed checks threshold reached 5: rolled back to shop-v1", "rollback")
VERDICT = {
    "metric": "request-success-rate",
    "outcome": "fail",
    "value": 91.234567,
    "min": 99.0,
    "max": None,
    "sample": 340,
    "seconds": 10.0,
    "primary": 99.9,
    "unit": "%",
    "reason": "request-success-rate 91.2 % is below 99 % (canary, 340 requests in 10 s; primary 99.9 %)",
}
CONTEXT = {
    "phase": "Failed",
    "revision": "2.1.0",
    "attempt": 3,
    "canaryWeight": 0.0,
    "at": "2026-01-02T03:04:05Z",
    "next": "nothing until the next revision or `splitproxy retry shop`",
    "verdicts": [{**VERDICT, "metric": "request-duration", "outcome": "pass"}, VERDICT],
}
PARTS = (
    *("Failed checks threshold reached 5", "request-success-rate", "91.2", "99", "340 requests in 10 s", "99.9"),
    *("Canary weight: 0 %", "splitproxy retry shop"),
)
"""What every text has to say."""


def provider(kind, address="", **given):
    return {
        "name": "on-call",
        "type": "msteams" if kind == "messagecard" else kind,
        "address": address or ADDRESSES[kind],
        "channel": "shop",
        "username": "splitproxy",
        "proxy": None,
        "token": None,
        **given,
    }


def rollout(*alerts, name="shop"):
    wanted = alerts or ({"name": "team", "severity": "info", "provider": "on-call"},)
    return {
        "name": name,
        "route": "shop",
        "primary": "shop-v1",
        "canary": "shop-v2",
        "analysis": {"alerts": [{"name": "team", **alert} for alert in wanted]},
    }


def body(kind, message, **given):
    return json.loads(notifiers.request(provider(kind, **given), message).body)


def check(kind, content):
    """Check a body against what its receiver has published."""
    jsonschema.Draft202012Validator(FORMS[kind]).validate(content)
    if kind == "discord":
        (embed,) = content["embeds"]
        fields = sum(len(field["name"]) + len(field["value"]) for field in embed["fields"])
        assert len(embed["title"]) + len(embed["description"]) + fields <= 6000
    size = len(json.dumps(content, ensure_ascii=False).encode("utf-8"))
    assert size <= {"msteams": 28_000, "messagecard": 28_000, "gchat": 32_000}.get(kind, 100_000)


def texts(value):
    """Yield every string in a document."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from texts(inner)


# --- forms -----------------------------------------------------------------------------------------------------------
def test_every_form_is_one_of_a_receiver():
    jsonschema.validators.Draft202012Validator.check_schema({"allOf": list(FORMS.values())})
    assert sorted(FORMS) == KINDS


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("severity", ["info", "warn", "error"])
def test_a_message_is_of_the_receivers_form_and_says_all_of_it(kind, severity):
    message = compose("1", rollout(), ROLLED_BACK._replace(severity=severity), CONTEXT)
    content = body(kind, message)
    check(kind, content)
    said = max((text.replace("\\", "") for text in texts(content) if "Failed checks" in text), key=len)
    for part in PARTS:
        assert part in said


@pytest.mark.parametrize("kind", KINDS)
def test_severities_look_different(kind):
    looks = {
        json.dumps(body(kind, compose("1", rollout(), ROLLED_BACK._replace(severity=severity), CONTEXT)))
        for severity in ("info", "warn", "error")
    }
    assert len(looks) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_message_about_next_to_nothing_is_of_the_form_too(kind):
    content = body(kind, compose("1", rollout(), Alert("info", "New revision", "new"), {}), channel="", username="x")
    check(kind, content)
    assert any("New revision." in text for text in texts(content))


ANY_TEXT = st.text(st.characters(), min_size=1, max_size=40)
LONG = st.builds(lambda text, times: text * times, ANY_TEXT, st.sampled_from([1, 100, 400]))


@pytest.mark.parametrize("kind", KINDS)
@given(text=LONG, name=LONG, reason=LONG, future=LONG)
@settings(max_examples=60, deadline=None)
def test_no_text_is_too_long_or_too_strange(kind, text, name, reason, future):
    verdict = {**VERDICT, "metric": name, "reason": reason, "unit": name}
    context = {**CONTEXT, "phase": name, "revision": name, "next": future, "verdicts": [verdict]}
    message = compose("1", rollout(name=name), Alert("warn", text, "key"), context)
    if kind != "webhook":
        check(kind, body(kind, message, username=f"Discord{name}"[:60]))
    assert len(message.text) <= 3000
    assert not {character for character in message.text if ord(character) < 32 or 0xD800 <= ord(character) < 0xE000}


def test_markup_of_the_receiver_is_disarmed():
    alert = Alert("warn", "a < b & <!channel> *x* _y_ @everyone <users/all>", "key")
    message = compose("1", rollout(), alert, {})
    assert "&lt;!channel&gt;" in body("slack", message)["attachments"][0]["text"]
    embed = body("discord", message)
    assert r"\*x\* \_y\_ \@everyone" in embed["embeds"][0]["description"]
    assert embed["allowed_mentions"] == {"parse": []}
    assert (
        "&lt;users/all&gt;"
        in body("gchat", message)["cardsV2"][0]["card"]["sections"][0]["widgets"][0]["textParagraph"]["text"]
    )


def test_a_clipped_text_ends_between_characters_of_its_receiver():
    message = compose("1", rollout(), Alert("warn", "&" * 4000, "key"), {})
    slack = body("slack", message)["attachments"][0]["text"]
    assert (len(slack), slack[-6:]) == (2996, "&amp;…")
    cards = body("msteams", compose("1", rollout(), Alert("warn", "ü€" * 2000, "key"), {}))
    text = cards["attachments"][0]["content"]["body"][1]["text"]
    assert 3995 <= len(text.encode()) <= 4000
    assert text.endswith("…")


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        (WORKFLOW, "msteams"),
        ("https://x.environment.api.powerplatform.com/powerautomate/automations/direct/workflows/1", "msteams"),
        ("http://127.0.0.1:9301/hook", "msteams"),
        ("https://webhook.office.com.example.com/", "msteams"),
        ("https://example.com/webhook.office.com", "msteams"),
        ("https://shop.webhook.office.com/webhookb2/1", "messagecard"),
        ("https://outlook.office.com/webhook/1", "messagecard"),
        ("https://outlook.office365.com/webhook/1", "messagecard"),
    ],
)
def test_the_address_decides_which_card_teams_gets(address, kind):
    check(kind, body("msteams", compose("1", rollout(), ROLLED_BACK, CONTEXT), address=address))


@pytest.mark.parametrize("suffix", ["", "/", "/slack", "/slack/"])
def test_discord_gets_its_own_form_at_its_own_address(suffix):
    request = notifiers.request(
        provider("discord", f"{ADDRESSES['discord']}{suffix}"), compose("1", rollout(), ROLLED_BACK, CONTEXT)
    )
    assert request.url == ADDRESSES["discord"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_is_sent_and_the_proxy_used(kind):
    message = compose("1", rollout(), ROLLED_BACK, CONTEXT)
    with_all = notifiers.request(provider(kind, token="t", proxy="http://127.0.0.1:3128"), message)
    assert (with_all.headers["Authorization"], with_all.proxy) == ("Bearer t", "http://127.0.0.1:3128")
    without = notifiers.request(provider(kind), message)
    assert ("Authorization" in without.headers, without.proxy) == (False, None)


async def test_a_proxy_is_asked_for_the_receiver():
    asked = asyncio.get_running_loop().create_future()

    async def serve(reader, writer):
        asked.set_result(await reader.readuntil(b"\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        proxy = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        news = News([provider("slack", "http://hooks.example.com/x", proxy=proxy)])
        news.send(rollout(), ROLLED_BACK, CONTEXT)
        await news.drained()
        await news.close()
    assert await asked == b"POST http://hooks.example.com/x HTTP/1.1\r\n"


async def test_a_proxy_that_refuses_is_named_and_its_password_is_not(caplog):
    async def refuse(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    async def pause(_seconds):
        await asyncio.sleep(0)

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        proxy = f"http://user:password@127.0.0.1:{server.sockets[0].getsockname()[1]}"
        news = News([provider("slack", proxy=proxy)], pause)
        news.send(rollout(), ROLLED_BACK, CONTEXT)
        await news.drained()
        await news.close()
    assert "cannot connect: the proxy answers HTTP 407" in caplog.text
    assert "password" not in caplog.text


def test_after_a_swap_the_roles_are_those_of_now():
    message = compose("1", rollout(), ROLLED_BACK, {**CONTEXT, "primary": "shop-v2", "canary": "shop-v1"})
    assert dict(message.facts)["Primary"] == "shop-v2"
    assert message.content["canary"] == "shop-v1"


def test_programs_get_plain_values():
    content = body("webhook", compose("the-id", rollout(), ROLLED_BACK, CONTEXT))
    assert content["id"] == "the-id"
    assert content["verdict"] == VERDICT
    assert [content[key] for key in ("canaryWeight", "attempt", "at")] == [0.0, 3, "2026-01-02T03:04:05Z"]


@pytest.mark.parametrize(
    ("kind", "reply", "why"),
    [
        ("slack", Reply(200, "ok"), None),
        ("slack", Reply(200, '{"ok": true}'), None),
        ("slack", Reply(200, '{"ok": false, "error": "channel_not_found"}'), "Slack says: channel_not_found"),
        ("msteams", Reply(202, ""), None),
        ("discord", Reply(204, ""), None),
        ("discord", Reply(400, '{"embeds": ["0"]}'), 'HTTP 400: {"embeds": ["0"]}'),
        ("rocket", Reply(None, "no answer within 10 s"), "no answer within 10 s"),
    ],
)
def test_what_a_receiver_answers_is_understood(kind, reply, why):
    assert notifiers.refusal(provider(kind), reply) == why


# --- sending ---------------------------------------------------------------------------------------------------------
class Receiver:
    """Stands for a receiver: refuses what is not of its form, else answers as its script says."""

    def __init__(self, kind, script):
        self.kind, self.script, self.got = kind, list(script), []
        self.arrived = asyncio.Event()

    async def answer(self, request):
        content = await request.json()
        check(self.kind, content)
        self.got.append(content)
        self.arrived.set()
        answer = self.script.pop(0) if self.script else 200
        if answer == "silence":
            await asyncio.sleep(30)
        if answer == "hang up":
            request.transport.abort()
        return web.Response(status=answer if isinstance(answer, int) else 200)


@contextlib.asynccontextmanager
async def sending(**scripts):
    """Give News that does not really wait, with a receiver of each kind, named after its kind."""
    receivers = {kind: Receiver(kind, script) for kind, script in scripts.items()}
    application = web.Application()
    for kind, receiver in receivers.items():
        application.router.add_post(f"/{kind}", receiver.answer)

    async def pause(_seconds):
        await asyncio.sleep(0)

    async with TestServer(application) as server:
        places = [provider(kind, str(server.make_url(f"/{kind}")), name=kind) for kind in receivers]
        news = News(places, pause)
        try:
            yield news, receivers
        finally:
            await news.close()


def to(kind, severity="info"):
    return {"severity": severity, "provider": kind}


async def test_every_receiver_gets_what_it_understands():
    kinds = [kind for kind in KINDS if kind != "messagecard"]
    async with sending(**{kind: [] for kind in kinds}) as (news, receivers):
        news.send(rollout(*map(to, kinds)), ROLLED_BACK, CONTEXT)
        await news.drained()
    assert {kind: len(receiver.got) for kind, receiver in receivers.items()} == dict.fromkeys(kinds, 1)


@pytest.mark.parametrize(
    ("severity", "heard"),
    [
        ("", ["info", "warn", "error"]),
        ("info", ["info", "warn", "error"]),
        ("warn", ["warn", "error"]),
        ("error", ["error"]),
    ],
)
async def test_an_entry_hears_its_severity_and_what_is_worse(severity, heard):
    async with sending(webhook=[]) as (news, receivers):
        for said in ("info", "warn", "error"):
            news.send(rollout(to("webhook", severity)), Alert(said, "text", said), CONTEXT)
        await news.drained()
    assert [content["severity"] for content in receivers["webhook"].got] == heard


async def test_a_receiver_that_is_named_twice_hears_it_once():
    async with sending(webhook=[]) as (news, receivers):
        news.send(rollout(to("webhook"), to("webhook", "error")), ROLLED_BACK, CONTEXT)
        await news.drained()
    assert len(receivers["webhook"].got) == 1


async def test_the_same_is_not_told_twice_in_one_run():
    waiting, other = Alert("warn", "is waiting for approval", "gate"), Alert("info", "goes on", "on")
    async with sending(webhook=[]) as (news, receivers):
        for number in range(5):
            news.send(rollout(to("webhook")), waiting._replace(text=f"waiting {number}"), CONTEXT)
        news.send(rollout(to("webhook"), name="search"), waiting, CONTEXT)
        news.send(rollout(to("webhook")), other, CONTEXT)
        news.send(rollout(to("webhook")), waiting, CONTEXT)
        news.send(rollout(to("webhook")), waiting, {**CONTEXT, "attempt": 4})
        await news.drained()
    got = receivers["webhook"].got
    assert [(content["rollout"], content["key"], content["attempt"]) for content in got] == [
        ("shop", "gate", 3),
        ("search", "gate", 3),
        ("shop", "on", 3),
        ("shop", "gate", 3),
        ("shop", "gate", 4),
    ]
    assert len({content["id"] for content in got}) == len(got)


@pytest.mark.parametrize(
    ("script", "arrivals"),
    [
        ([503, 200], 2),
        ([429, 500, 200], 3),
        ([503, 503, 503, 200], 3),  # given up
        ([400, 200], 1),  # will not pass
        (["hang up", 200], 1),  # may have arrived: nobody is told the same twice
    ],
)
async def test_news_are_sent_again_only_if_they_surely_did_not_arrive(script, arrivals, caplog):
    async with sending(slack=script) as (news, receivers):
        news.send(rollout(to("slack")), ROLLED_BACK, CONTEXT)
        await news.drained()
    assert len(receivers["slack"].got) == arrivals
    assert ("did not take the news of rollout shop" in caplog.text) == (script[arrivals - 1] != 200)


async def test_a_receiver_that_is_not_there_is_tried_three_times(caplog):
    pauses = []

    async def pause(seconds):
        pauses.append(seconds)

    news = News([provider("slack", "http://127.0.0.1:1/")], pause)
    news.send(rollout(), ROLLED_BACK, CONTEXT)
    await news.drained()
    await news.close()
    assert len(pauses) == 2
    assert "alert provider on-call did not take the news of rollout shop: cannot connect: " in caplog.text


async def test_a_receiver_that_is_stuck_does_not_hold_up_another():
    async with sending(slack=["silence"], webhook=[]) as (news, receivers):
        news.send(rollout(to("slack"), to("webhook")), ROLLED_BACK, CONTEXT)
        await asyncio.wait_for(receivers["webhook"].arrived.wait(), 5)


async def test_what_waits_is_bounded_and_the_newest_stays(caplog):
    async with sending(webhook=[]) as (news, receivers):
        for number in range(130):
            news.send(rollout(to("webhook")), Alert("info", "text", str(number)), CONTEXT)
        await news.drained()
    assert [content["key"] for content in receivers["webhook"].got] == [str(number) for number in range(30, 130)]
    assert "alert provider webhook is too slow, a message is dropped" in caplog.text


async def test_a_receiver_that_the_file_has_dropped_is_told_no_more(caplog):
    async with sending(webhook=[]) as (news, receivers):
        news.configure([])
        news.send(rollout(to("webhook")), ROLLED_BACK, CONTEXT)
        await news.drained()
        assert receivers["webhook"].got == []
    assert "rollout shop: alert provider webhook is gone from the configuration" in caplog.text


def test_a_half_of_a_surrogate_pair_can_be_sent():
    assert encoded({"text": "a\ud800b"}) == b'{"text":"a?b"}'
