"""What has happened and what happens, told in lines; over connections that are lost."""

import contextlib
import itertools
import json
from argparse import Namespace

import pytest

from splitproxy.cli import events, main, stream
from splitproxy.reports import moment

ENTRY = {"id": 1, "attempt": 1, "at": "2026-03-01T10:00:10.000+00:00", "kind": "weight", "warning": False,
         "text": "sends 5 % to v2", "data": {}}  # fmt: skip
LATER = {**ENTRY, "id": 7, "at": "2026-03-01T10:00:20.000+00:00", "text": "sends 10 % to v2"}
ROLLOUTS = [{"name": "shop", "history": [ENTRY, LATER]}, {"name": "pay", "history": [{**ENTRY, "id": 2}]}]
VERDICT = {"name": "shop", "metric": "request-duration", "outcome": "fail", "reason": "612 ms is above 500 ms"}


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(stream, "_PAUSES", (0.0,))


@pytest.fixture
def past(api):
    for count in (0, 1, 10, 100):
        histories = [{**one, "history": one["history"][-count:] if count else []} for one in ROLLOUTS]
        api.says((200, histories), path=f"/api/v1/rollouts?history={count}")
    return api


def sent(kind, data, number=None):
    head = f"id: {number}\n" if number else ""
    return f"{head}event: {kind}\ndata: {json.dumps(data)}\n\n".encode()


def followed(api, count, **how):
    """Return the first `count` events that are told, and the exit code, where there is one."""
    options = {"name": None, "lines": 10, "follow": True, "all": False, "json": False, **how}
    options = Namespace(admin=f"127.0.0.1:{api.server_address[1]}", **options)
    with contextlib.closing(events._Following(options).events()) as found:
        return list(itertools.islice(found, count))


def test_the_past_of_all_rollouts_is_told_oldest_first(past, capsys):
    assert main(["events"]) == 0
    at, later = moment(ENTRY["at"]), moment(LATER["at"])
    assert capsys.readouterr().out.splitlines() == [
        f"{at}  shop          weight    sends 5 % to v2",
        f"{at}  pay           weight    sends 5 % to v2",
        f"{later}  shop          weight    sends 10 % to v2",
    ]
    assert main(["events", "-n", "1"]) == 0
    assert "10 %" in capsys.readouterr().out
    assert main(["events", "-n", "0"]) == 0
    assert capsys.readouterr() == ("", "")


def test_where_nothing_has_happened_it_says_so(past, capsys, monkeypatch):
    monkeypatch.setattr(events, "ask", lambda *_: (200, []))
    assert main(["events"]) == 0
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("No rollout remembers anything.")
    assert main(["events", "--json"]) == 0
    assert capsys.readouterr() == ("", "")


def test_of_one_rollout_or_of_none_that_there_is(past, capsys):
    assert main(["events", "pay", "--json"]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one["kind"], one["data"]["name"], one["data"]["text"]) for one in told] == [
        ("rollout", "pay", "sends 5 % to v2")
    ]
    assert main(["events", "play"]) == 1
    assert "there is no rollout 'play'" in capsys.readouterr().err


def test_following_tells_the_past_and_what_comes_and_nothing_twice(past):
    news = {**ENTRY, "name": "shop", "text": "sends 25 % to v2", "at": "2026-03-01T10:00:30.000+00:00"}
    past.streams = [
        b": hello\nretry: 1000\n\n"
        + sent("rollout", {**LATER, "name": "shop"}, "a-1")
        + sent("rollout", {"name": "shop", "phase": "Progressing"}, "a-2")
        + sent("verdict", {**VERDICT, "outcome": "pass"}, "a-3")
        + sent("verdict", VERDICT, "a-4")
        + sent("rollout", news, "a-5")
    ]
    told = followed(past, 5)
    assert [event.data.get("text") or event.data["reason"] for event in told] == [
        *("sends 5 % to v2", "sends 5 % to v2", "sends 10 % to v2", "612 ms is above 500 ms", "sends 25 % to v2"),
    ]


def test_a_verdict_is_told_when_it_turns(past):
    outcomes = ("pass", "fail", "fail", "pass", "pass", "inconclusive")
    past.streams = [b"".join(sent("verdict", {**VERDICT, "outcome": outcome}) for outcome in outcomes)]
    assert [event.data["outcome"] for event in followed(past, 3, lines=0)] == ["fail", "pass", "inconclusive"]


def test_who_wants_all_gets_verdicts_that_passed_and_who_wants_one_rollout_that_one(past):
    passed = {**VERDICT, "outcome": "pass"}
    past.streams = [sent("verdict", {**passed, "name": "pay"}) + sent("reload", {}) + sent("verdict", passed)]
    assert followed(past, 1, name="shop", lines=0, all=True)[0].data == passed


def test_after_a_lost_connection_it_goes_on_where_it_was(past, quick, capsys):
    missed = {**LATER, "text": "sends 25 % to v2", "at": "2026-03-01T10:00:30.000+00:00"}
    gap = {"after": "a-4", "text": "events were missed: ask for the present state"}
    past.streams = [
        sent("rollout", {**LATER, "name": "shop"}, "a-4"),
        sent("reload", {"text": "two"}),
        sent("gap", gap, "b-0")
        + sent("rollout", {**missed, "name": "shop"})
        + sent("reload", {"text": "three"}, "b-1"),
    ]
    past.says((200, [{"name": "shop", "history": [ENTRY, LATER, missed]}]), path="/api/v1/rollouts?history=100")
    told = followed(past, 4, lines=0)
    assert [event.data["text"] for event in told] == [missed["text"], "two", gap["text"], "three"]
    assert past.lasts == [None, "a-4", "a-4"]
    admin = f"127.0.0.1:{past.server_address[1]}"
    lost = f"Nothing is heard any more, trying again. The admin API at {admin} ended the stream."
    assert capsys.readouterr().err.splitlines() == [lost, "The proxy answers again."] * 2


def test_where_nobody_answers_at_first_it_does_not_try_again(capsys):
    assert main(["events", "--follow", "--admin", "127.0.0.1:1"]) == 1
    assert "No splitproxy answers at 127.0.0.1:1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "data", "words"),
    [
        ("verdict", VERDICT, "shop          fail      612 ms is above 500 ms"),
        (
            "reload",
            {"result": "failure", "trigger": "api", "generation": 3, "errors": [{"text": "f.yaml:3: no"}]},
            "-             reload    failure (api): generation 3 serves\n  f.yaml:3: no",
        ),
        (
            "endpoint",
            {"upstream": "v2", "address": "127.0.0.1:9002", "healthy": False, "ejected": True, "inUse": False},
            "v2            endpoint  127.0.0.1:9002 is unhealthy, ejected, gets nothing",
        ),
        ("unheard of", {"a": 1}, '-             unheard of  {"a": 1}'),
    ],
)  # fmt: skip
def test_events_in_words(kind, data, words):
    assert events.sentence(stream.Event(kind, data, None)).partition("  ")[2] == words
