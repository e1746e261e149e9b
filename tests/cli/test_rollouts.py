"""The verbs that talk to a running proxy about its rollouts, against an API that answers as written down."""

import getpass
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from splitproxy import reports
from splitproxy.children import child_environment
from splitproxy.cli import main

SHOP = json.loads((Path(__file__).parent / "rollout.json").read_text())
"""What `GET /api/v1/rollouts/shop` may answer."""

AT = reports.moment("2026-03-01T10:00:10Z")


class TestStatus:
    def test_all_rollouts_are_a_table(self, api, capsys):
        api.says((200, [SHOP, {**SHOP, "name": "pay", "phase": "Succeeded", "step": 3, "verdicts": []}]),
                 path="/api/v1/rollouts")  # fmt: skip
        assert main(["status"]) == 0
        lines = capsys.readouterr().out.splitlines()
        rows = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines]
        assert rows[0] == list(reports.HEADS)
        assert rows[1] == [
            *("shop", "Progressing", "12.5 %", "2 of 3", "1 of 5"),
            "fail: request-duration 612.4 ms is above 500 ms (canary, 340 requests in 10 s)",
            "pause promote abort",
        ]
        assert rows[2][:4] == ["pay", "Succeeded", "12.5 %", reports.NOTHING]

    def test_an_open_comparison_hides_no_other_verdict(self):
        comparison = {
            "metric": "comparison",
            "outcome": "inconclusive",
            "value": 1.0,
            "unit": "",
            "reason": "no errors",
        }
        good = {"metric": "rate", "outcome": "pass", "value": 100.0, "unit": "%", "reason": ""}
        for verdicts, words in (
            ([good, comparison], "pass: rate 100 %"),
            ([{**good, "outcome": "error", "reason": "no answer"}, comparison], "error: no answer"),
            ([good, {**comparison, "outcome": "fail", "reason": "worse"}], "fail: worse"),
            ([comparison], "inconclusive: no errors"),
        ):
            assert words in reports.row({**SHOP, "verdicts": verdicts})

    def test_none_is_said(self, api, capsys):
        api.says((200, []), path="/api/v1/rollouts")
        assert main(["status"]) == 0
        assert capsys.readouterr().out == "There are no rollouts: the configuration has none.\n"

    def test_one_rollout_has_its_plan_its_signals_with_limits_and_its_history(self, api, capsys):
        api.says((200, SHOP))
        assert main(["status", "shop"]) == 0
        out = capsys.readouterr().out
        assert out.startswith("shop: Progressing, 12.5 % to shop-v2, step 2 of 3, failed checks 1 of 5\n")
        assert "canary: 5 % → [12.5 %] → 50 %" in out
        assert "next check in 7 s" in out
        cells = [[cell for cell in line.split("  ") if cell] for line in out.splitlines()]
        assert ["request-success-rate", "pass", "99.96 %", "≥ 99 %", "100 %", "340"] in [
            [cell.strip() for cell in row[:6]] for row in cells
        ]
        assert "612.4 ms" in out
        assert "≤ 500 ms" in out
        assert out.endswith(f"HISTORY\n{AT}  weight    weight is 12.5 %\n")

    def test_gate_edit_and_alarms_are_shown(self, api, capsys):
        gate = {"gate": "confirm-promotion", "hook": "boss", "since": "2026-03-01T10:00:10Z"}
        edit = {"primary": "shop-v2", "canary": "shop-v1"}
        api.says((200, {**SHOP, "waitingFor": gate, "adopt": edit, "alarms": ["the disk is full"]}))
        assert main(["status", "shop"]) == 0
        out = capsys.readouterr().out
        assert f"waits for  confirm-promotion (boss) since {AT}" in out
        assert "to edit    primary: shop-v2, canary: shop-v1" in out
        assert "alarm      the disk is full" in out

    @pytest.mark.parametrize("words", [[], ["shop"]])
    def test_json_is_what_the_api_answers(self, api, words, capsys):
        api.says((200, SHOP))
        api.says((200, [SHOP]), path="/api/v1/rollouts")
        assert main(["status", *words, "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == (SHOP if words else [SHOP])

    def test_an_unknown_name_ends_in_1_with_the_sentence(self, api, capsys):
        api.says((404, {"error": "there is no rollout shop; there are: pay"}))
        assert main(["status", "shop"]) == 1
        assert capsys.readouterr() == ("", "there is no rollout shop; there are: pay\n")

    def test_a_name_is_quoted(self, api):
        assert main(["status", "a/b c"]) == 1
        assert api.asked[0] == ("GET", "/api/v1/rollouts/a%2Fb%20c", None, None)

    @pytest.mark.parametrize("command", [["status", "shpo"], ["status", "shpo", "--wait", "Paused"], ["pause", "shpo"]])
    def test_a_mistyped_name_is_answered_with_the_nearest(self, api, command, capsys):
        api.says((200, [{"name": "pay"}, {"name": "shop"}]), path="/api/v1/rollouts?history=0")
        for method in ("GET", "POST"):
            path = "/api/v1/rollouts/shpo" + "/pause" * (method == "POST")
            api.says((404, {"error": "there is no rollout 'shpo'"}), method=method, path=path)
        assert main(command) in (1, 4)
        assert capsys.readouterr() == ("", "there is no rollout 'shpo': did you mean shop?\n")
        api.says((200, [{"name": "pay"}, {"name": "cart"}]), path="/api/v1/rollouts?history=0")
        main(command)
        assert capsys.readouterr().err == "there is no rollout 'shpo'; there are pay, cart\n"

    def test_where_nobody_answers_it_says_where_it_looked(self, capsys):
        assert main(["status", "--admin", "http://127.0.0.1:1"]) == 1
        err = capsys.readouterr().err
        assert "No splitproxy answers at http://127.0.0.1:1 (" in err
        assert "--admin or SPLITPROXY_ADMIN" in err

    def test_watching_without_a_terminal_is_a_line_for_each_change(self, api, capsys):
        later = {**SHOP, "canaryWeight": 50.0, "step": 2}
        held, counted = ({**SHOP, "reason": f"holds 5 % for another {n} s", "nextCheckInSeconds": n} for n in (7, 6))
        api.says((200, held), (200, counted), (200, later), (404, {"error": "gone"}))
        assert main(["status", "shop", "--watch"]) == 1
        out, err = capsys.readouterr()
        assert out.splitlines() == [f"{reports.headline(SHOP)}: holds 5 % for another 7 s", reports.headline(later)]
        assert err == "gone\n"

    @pytest.mark.parametrize("options", [["--wait", "Succeeded"], ["shop", "--timeout", "1s"]])
    def test_waiting_needs_a_name_and_a_phase(self, options, capsys):
        assert main(["status", *options]) == 2
        assert "--wait" in capsys.readouterr().err

    @pytest.mark.parametrize("text", ["0", "-1s", "soon", "5d", "nan", "inf", "1m30", "m"])
    def test_an_impossible_timeout_is_a_usage_error(self, text):
        with pytest.raises(SystemExit) as caught:
            main(["status", "shop", "--wait", "Failed", f"--timeout={text}"])
        assert caught.value.code == 2


class TestWaiting:
    def test_it_returns_when_the_phase_is_there(self, api, capsys):
        api.says((200, SHOP), (200, {**SHOP, "phase": "Promoting"}))
        assert main(["status", "shop", "--wait", "Promoting", "Succeeded", "--timeout", "1m"]) == 0
        assert capsys.readouterr().out.startswith("shop: Promoting")
        assert len(api.asked) == 2

    def test_a_proxy_that_starts_again_meanwhile_is_waited_for(self, api, capsys):
        api.says((200, SHOP), (0, None), (200, {**SHOP, "phase": "Succeeded"}))
        assert main(["status", "shop", "--wait", "Succeeded"]) == 0
        assert capsys.readouterr().err == ""

    def test_an_end_of_another_kind_ends_it_in_1(self, api, capsys):
        api.says((200, {**SHOP, "phase": "Failed", "reason": "4 failed checks"}))
        assert main(["status", "shop", "--wait", "Succeeded"]) == 1
        assert capsys.readouterr().err.startswith("It ended otherwise. shop: Failed")

    def test_the_case_of_a_phase_does_not_matter(self, api):
        api.says((200, {**SHOP, "phase": "WaitingPromotion"}))
        assert main(["status", "shop", "--wait", "waitingpromotion"]) == 0

    def test_a_mistyped_phase_is_a_usage_error_with_the_nearest(self, capsys):
        with pytest.raises(SystemExit) as caught:
            main(["status", "shop", "--wait", "suceeded"])
        assert caught.value.code == 2
        assert "did you mean succeeded?" in capsys.readouterr().err

    def test_a_proxy_that_does_not_tell_is_4(self, api, capsys):
        assert main(["status", "shop", "--wait", "Paused", "--admin", "127.0.0.1:1"]) == 4
        api.says((404, {"error": "there is no rollout 'shop'"}))
        assert main(["status", "shop", "--wait", "Paused"]) == 4
        api.says((401, {"error": "unauthorized", "detail": "a token is needed"}))
        assert main(["status", "shop", "--wait", "Paused"]) == 4
        assert capsys.readouterr().err.splitlines()[-1] == "a token is needed"

    @pytest.mark.parametrize(("phase", "code"), [("Paused", 0), ("Failed", 1), ("Baking", 3)])
    def test_json_says_how_it_stands_whatever_came_of_it(self, api, phase, code, capsys):
        api.says((200, {**SHOP, "phase": phase}))
        assert main(["status", "shop", "--wait", "Paused", "--timeout", "0.1s", "--json"]) == code
        assert json.loads(capsys.readouterr().out)["phase"] == phase

    def test_watched_while_it_is_waited_for_each_change_is_a_line(self, api, capsys):
        api.says((200, SHOP), (200, {**SHOP, "phase": "Baking"}), (200, {**SHOP, "phase": "Succeeded"}))
        assert main(["status", "shop", "--watch", "--wait", "succeeded"]) == 0
        assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == [
            "Progressing,",
            "Baking,",
            "Succeeded,",
        ]

    def test_an_end_of_another_revision_is_not_the_one(self, api):
        api.says((200, {**SHOP, "phase": "Failed", "revision": "2.0.0"}), (200, {**SHOP, "phase": "Succeeded"}))
        assert main(["status", "shop", "--wait", "Succeeded", "--revision", "2.1.0"]) == 0

    def test_late_is_3_with_where_it_stands(self, api, capsys):
        api.says((200, SHOP))
        began = time.monotonic()
        assert main(["status", "shop", "--wait", "Succeeded", "--timeout", "0.2s"]) == 3
        assert time.monotonic() - began < 5
        assert "It took longer than 0.2 s. shop: Progressing" in capsys.readouterr().err


class TestActing:
    operator = f"cli:{getpass.getuser()}"

    @pytest.mark.parametrize(
        "verb", ["start", "pause", "resume", "promote", "abort", "retry", "undo", "approve", "deny"]
    )
    def test_a_verb_is_sent_and_the_resulting_state_printed(self, api, verb, capsys):
        api.says((202, {**SHOP, "phase": "Paused", "reason": "paused by an operator"}), method="POST",
                 path=f"/api/v1/rollouts/shop/{verb}")  # fmt: skip
        assert main([verb, "shop"]) == 0
        assert [asked[:3] for asked in api.asked] == [("POST", f"/api/v1/rollouts/shop/{verb}", None)]
        assert capsys.readouterr().out == (
            "shop: Paused, 12.5 % to shop-v2, step 2 of 3, failed checks 1 of 5\n  paused by an operator\n"
        )

    def test_who_acts_is_said(self, api):
        main(["pause", "shop"])
        assert api.asked[0][3].startswith("cli:")

    def test_promote_to_the_end(self, api):
        path = "/api/v1/rollouts/shop/promote"
        api.says((202, SHOP), method="POST", path=path)
        assert main(["promote", "shop", "--full"]) == 0
        assert api.asked[0][:3] == ("POST", path, {"full": True})

    @pytest.mark.parametrize("text", ["12.5", "12.5%", "100", "0", "0.01"])
    def test_a_weight_is_set(self, api, text):
        path = "/api/v1/rollouts/shop/weight"
        api.says((202, SHOP), method="PUT", path=path)
        assert main(["set-weight", "shop", text]) == 0
        assert api.asked[0][:3] == ("PUT", path, {"canaryWeight": float(text.removesuffix("%"))})

    @pytest.mark.parametrize("text", ["101", "-1", "0.001", "half", "nan"])
    def test_a_weight_that_is_none_is_a_usage_error(self, text, capsys):
        with pytest.raises(SystemExit) as caught:
            main(["set-weight", "shop", "--", text])
        assert caught.value.code == 2
        assert "percentage" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("status", "body", "said"),
        [
            (409, {"error": "shop is Succeeded: there is nothing to pause"}, "shop is Succeeded: there is nothing"),
            (409, {"error": "conflict", "detail": "nothing to pause"}, "nothing to pause"),
            (404, {"error": "there is no rollout shop"}, "there is no rollout shop"),
            (500, None, "Refused with status 500."),
        ],
    )
    def test_a_refusal_ends_in_1_with_its_sentence(self, api, status, body, said, capsys):
        api.says((status, body), method="POST", path="/api/v1/rollouts/shop/pause")
        assert main(["pause", "shop"]) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith(said)

    def test_a_name_is_needed(self, capsys):
        with pytest.raises(SystemExit) as caught:
            main(["pause"])
        assert caught.value.code == 2


def test_status_loads_nothing_heavy(api):
    api.says((200, [SHOP]), path="/api/v1/rollouts")
    code = "import sys; from splitproxy.cli import main; main(['status']); print(*sys.modules)"
    environment = {**child_environment(), "SPLITPROXY_ADMIN": f"127.0.0.1:{api.server_address[1]}"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert loaded & {"rich", "asyncio", "pydantic", "aiohttp", "yaml", "re2", "ssl"} <= {"ssl"}
    assert "shop" in done.stdout


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((0, "0 s"), (59.6, "1 min"), (61, "1 min 1 s"), (3600, "1 h"), (4210, "1 h 10 min")),
        *((90000, "1 d 1 h"), (86400, "1 d")),
    ],
)
def test_durations_as_people_write_them(seconds, text):
    assert reports.duration(seconds) == text


def test_moments_are_local(monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert reports.moment("2026-03-01T20:00:10.123+00:00") == "2026-03-02 05:00:10"
        assert reports.moment("2026-03-01T20:00:10Z", "%H:%M") == "05:00"
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "12.5 % to shop-v2"),
        ({"canaryWeight": 0.0}, "all to shop-v1"),
        ({"canaryWeight": 0.0, "mirroring": True}, "all to shop-v1, copies to shop-v2"),
        ({"canaryWeight": 0.0, "cohorts": 1}, "1 cohort to shop-v2"),
        ({"cohorts": 2}, "2 cohorts and 12.5 % to shop-v2"),
    ],
)
def test_who_gets_what(changes, text):
    assert reports.share({**SHOP, **changes}) == text


@pytest.mark.parametrize(
    ("stage", "text"),
    [
        ({}, "0 %"),
        ({"weight": 0.5}, "0.5 %"),
        ({"weight": 25.0, "hold": 120.0}, "25 % for 2 min"),
        ({"weight": 25.0, "pause": 0.0}, "25 %, pause"),
        ({"weight": 25.0, "pause": 5.0}, "25 %, pause 5 s"),
        ({"cohorts": 1, "checks": 10}, "1 cohort, 10 checks"),
        ({"cohorts": 2, "weight": 5.0}, "2 cohorts + 5 %"),
        ({"mirror": 100.0}, "mirror 100 %"),
    ],
)
def test_a_stage_in_short(stage, text):
    assert reports.stage_in_short({**SHOP["steps"][0], "weight": 0.0, **stage}) == text
