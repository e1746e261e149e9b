"""The demo as people and scripts run it: it shows what happens, judges it, and leaves nothing behind."""

import fcntl
import json
import os
import random
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections import Counter
from pathlib import Path

import pytest
from running import children

from splitproxy.children import child_environment
from splitproxy.cli import main
from splitproxy.demo import release
from splitproxy.demo.figures import Figures, Side, complaints, plausible, sides, to_dict
from splitproxy.demo.scenarios import ENDS, SCENARIOS, Health, conduct
from splitproxy.demo.traffic import Seens

PATIENCE = 40.0


def session_members(session):
    """Return the command lines of the living processes of a session: children stay in it, whatever their group."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _parent, _group, sid = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(sid) == session and state != "Z":
                found.append((folder / "cmdline").read_text().replace("\0", " "))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


class Demo:
    """`splitproxy demo` in a session of its own, with a folder for temporary files of its own."""

    def __init__(self, folder, *options, **how):
        environment = {**child_environment(), "TMPDIR": str(folder), "TERM": "xterm-256color"}
        environment.pop("NO_COLOR", None)
        command = [sys.executable, "-m", "splitproxy", "demo", *options]
        how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **how}
        self.folder = folder
        self.process = subprocess.Popen(command, env=environment, start_new_session=True, **how)

    def until_lines(self, count):
        return [self.process.stdout.readline().decode() for _ in range(count)]

    def children(self, module):
        return children(self.process.pid, module)

    def ended(self):
        out, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, (out or b"").decode(), (err or b"").decode()

    def nothing_is_left(self):
        end = time.monotonic() + PATIENCE
        while (left := session_members(self.process.pid)) and time.monotonic() < end:
            time.sleep(0.01)
        assert left == []
        assert list(self.folder.iterdir()) == []

    def force_end(self):
        if self.process.poll() is None:
            self.process.kill()
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe:
                pipe.close()
        self.process.wait()


@pytest.fixture
def demo(tmp_path):
    made = []

    def start(*options, **how):
        made.append(Demo(tmp_path, *options, **how))
        return made[-1]

    yield start
    for one in made:
        one.force_end()


@pytest.mark.slow
class TestRunning:
    def test_it_splits_as_told_says_so_in_json_and_leaves_nothing(self, demo):
        running = demo("--json", "--duration", "3", "--weight", "30", "--seed", "7")
        code, out, err = running.ended()
        figures = json.loads(out)
        assert (code, err, figures["reasons"]) == (0, "", [])
        assert figures["held"]
        assert figures["answered"] == sum(side["requests"] for side in figures["sides"].values()) > 300
        assert {role: side["configured"] for role, side in figures["sides"].items()} == {"primary": 70, "canary": 30}
        assert figures["sides"]["primary"]["p50"] < figures["sides"]["canary"]["p50"]
        running.nothing_is_left()

    def test_plain_lines_tell_where_it_is_how_it_goes_and_how_it_went(self, demo):
        running = demo("--headless", "--weight", "10", "--duration", "2")
        code, out, err = running.ended()
        assert (code, err) == (0, "")
        assert re.match(r"proxy   http://127\.0\.0\.1:\d+ .*\nadmin   http://127\.0\.0\.1:\d+\nconfig  /", out)
        assert re.search(r"\n +\d s  \d+ ok  0 failed .* v1 [\d.]+ % .* v2 [\d.]+ %", out)
        assert "Everything held." in out
        assert "Next:" in out
        running.nothing_is_left()

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_a_signal_ends_it_in_order(self, demo, number):
        running = demo("--headless", "--weight", "10", "--duration", "0")
        running.until_lines(5)
        running.process.send_signal(number)
        code, out, err = running.ended()
        assert (code, err) == (0, "")
        assert "Everything held." in out
        running.nothing_is_left()

    def test_a_signal_to_the_whole_group_as_from_a_terminal_does_the_same(self, demo):
        running = demo("--headless", "--weight", "10", "--duration", "0")
        running.until_lines(5)
        os.killpg(running.process.pid, signal.SIGINT)
        assert running.ended()[::2] == (0, "")
        running.nothing_is_left()

    def test_interrupted_while_it_starts_it_leaves_nothing_either(self, demo):
        running = demo("--headless", "--weight", "10", "--duration", "0")
        while len(session_members(running.process.pid)) < 2:  # its first child has been started
            time.sleep(0.01)
        running.process.send_signal(signal.SIGTERM)
        assert running.ended()[::2] == (130, "")
        running.nothing_is_left()

    def test_interrupted_twice_it_waits_for_nobody(self, demo):
        running = demo("--headless", "--weight", "10", "--duration", "0")
        running.until_lines(4)
        for pid in running.children("splitproxy.demo.upstreams"):
            os.kill(pid, signal.SIGSTOP)  # so that requests are under way that nobody answers
        running.until_lines(2)
        running.process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            running.process.wait(0.5)
        running.process.send_signal(signal.SIGINT)
        began = time.monotonic()
        assert running.ended()[0] == 130
        assert time.monotonic() - began < 15, "as long as a drain may take"
        running.nothing_is_left()

    def test_killed_outright_it_takes_its_processes_along(self, demo):
        running = demo("--headless", "--weight", "10", "--duration", "0")
        running.until_lines(4)
        running.process.kill()
        running.process.wait()
        end = time.monotonic() + PATIENCE
        while session_members(running.process.pid):
            assert time.monotonic() < end
            time.sleep(0.01)

    def test_a_proxy_that_dies_is_a_failure_with_its_reason(self, demo):
        running = demo("--headless", "--weight", "10", "--duration", "0")
        running.until_lines(4)
        (proxy,) = running.children("splitproxy.demo.proxy")
        os.kill(proxy, signal.SIGKILL)
        code, out, _ = running.ended()
        assert code == 1
        assert "did not hold: the proxy ended with exit code -9" in out
        running.nothing_is_left()

    def test_its_configuration_may_be_edited_while_it_runs(self, demo):
        running = demo("--headless", "--weight", "10", "--duration", "0")
        config = Path(running.until_lines(3)[2].split()[1])
        config.write_text(config.read_text().replace("weight: 90", "weight: 0").replace("weight: 10", "weight: 1"))
        lines = (running.until_lines(1)[0] for _ in range(30))
        assert any(float(re.search(r"v1 ([\d.]+) %", line)[1]) < 70 for line in lines)
        running.process.send_signal(signal.SIGINT)
        code, out, _ = running.ended()
        assert "configured   0.00 %" in out
        assert code == 0, "a split that was changed on the way is not held against its first weights"
        running.nothing_is_left()


LAUNCHER = "import os, sys; os.open(sys.argv[1], os.O_RDWR); os.execv(sys.executable, [sys.executable, *sys.argv[2:]])"
"""A session leader that opens a terminal has it as its own, so that Ctrl-C reaches it."""


def seen_on_a_terminal(folder, mark, *options):
    """Run the demo on a terminal until `mark` has been drawn, then press Ctrl-C; return what was seen."""
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    command = [sys.executable, "-c", LAUNCHER, os.ttyname(slave), "-m", "splitproxy", "demo", *options]
    environment = {**child_environment(), "TMPDIR": str(folder), "TERM": "xterm-256color"}
    for name in ("COLUMNS", "LINES"):  # they would count for more than the terminal's own size
        environment.pop(name, None)
    process = subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True
    )
    os.close(slave)
    seen, asked, end = b"", False, time.monotonic() + PATIENCE
    try:
        while time.monotonic() < end:
            if not select.select([master], [], [], 0.1)[0]:
                continue
            try:
                seen += os.read(master, 65536)
            except OSError:  # the last one who had the terminal open is gone
                break
            if not asked and seen.count(mark) > 3:
                os.write(master, b"\x03")
                asked = True
        assert asked, re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode())[-3000:]
        code = process.wait(PATIENCE)
    finally:
        process.kill()
        process.wait()
        os.close(master)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode())
    assert code == 0, text
    assert seen.endswith(b"one to :9002\r\n")
    assert session_members(process.pid) == []
    assert list(folder.iterdir()) == []
    return text


@pytest.mark.slow
def test_on_a_terminal_it_draws_the_split_until_ctrl_c(tmp_path):
    text = seen_on_a_terminal(tmp_path, b"since start", "--weight", "10")
    assert re.search(r"canary +configured +█+ +10\.00 %", text)
    assert re.search(r"v1 +observed +█+", text)
    assert re.search(r"\d\d:\d\d:\d\d +/\S* +200 +[\d.]+ ms +primary", text)
    assert "Everything held." in text


@pytest.mark.slow
def test_on_a_terminal_it_draws_the_rollout(tmp_path):
    text = seen_on_a_terminal(tmp_path, "≥ 99 %".encode())
    assert "a canary as good as the primary" in text
    assert re.search(r"shop: Progressing, 5 % to v2, step 1 of 5, failed checks \d of 4", text)
    assert re.search(r"plan +\[5 % for 8 s\] → 10 % for 8 s", text)
    assert re.search(r"request-success-rate +pass +100 % +≥ 99 %", text)
    assert "http://127.0.0.1" in text


@pytest.mark.slow
class TestScenarios:
    def ended(self, demo, *options):
        running = demo("--json", *options)
        code, out, err = running.ended()
        told = json.loads(out)
        assert (code, told["reasons"], err) == (0, [], "")
        running.nothing_is_left()
        return told

    def test_a_good_canary_is_promoted(self, demo):
        told = self.ended(demo, "--hold", "0.5")
        assert told["rollout"]["phase"] == "Succeeded"
        assert told["rollout"]["primary"] == "v2"
        assert told["failed"] == 0

    @pytest.mark.parametrize(
        ("scenario", "why"),
        [
            ("slow", "request-duration|slower on the canary"),
            ("crash", "errors on the canary"),
            ("flapping", "on the canary"),
        ],
    )
    def test_a_bad_canary_is_rolled_back_with_the_reason(self, demo, scenario, why):
        told = self.ended(demo, "--scenario", scenario, "--hold", "1")
        assert told["rollout"]["phase"] == "Failed"
        assert told["rollout"]["canaryWeight"] == 0
        assert re.search(why, told["rollout"]["reason"])
        assert told["seconds"] < 30

    def test_lines_tell_what_happens_and_why(self, demo):
        running = demo("--headless", "--scenario", "errors", "--hold", "1")
        code, out, _ = running.ended()
        assert code == 0, out
        assert re.search(r"\n +phase: .*Progressing", out)
        assert re.search(r"\nshop: Failed, all to v1, .*\n(.*\n)*.*on the canary", out)
        assert "Everything held." in out

    def test_a_duration_of_the_users_own_may_end_before_the_rollout(self, demo):
        running = demo("--json", "--duration", "1")
        code, out, _ = running.ended()
        assert (code, json.loads(out)["held"]) == (0, True)
        running.nothing_is_left()

    def test_interrupted_by_its_user_it_need_not_have_ended(self, demo):
        running = demo("--headless")
        running.until_lines(5)
        running.process.send_signal(signal.SIGINT)
        assert running.ended()[::2] == (0, "")
        running.nothing_is_left()


@pytest.mark.parametrize(
    "option",
    [
        *(("--weight", "101"), ("--weight", "0.001"), ("--duration", "-1"), ("--weight", "nan")),
        *(("--hold", "0"), ("--hold", "nan"), ("--scenario", "none")),
    ],
)
def test_an_impossible_wish_is_a_usage_error(option, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["demo", *option])
    assert caught.value.code == 2
    assert "error: argument" in capsys.readouterr().err


class TestJudgement:
    @staticmethod
    def figures(primary, canary, failures=(), configured=10.0, answered=None):
        both = [
            Side("v1", "primary", 100 - configured, primary, 1.0, 1.0, 0.001, 0.002),
            Side("v2", "canary", configured, canary, None, None, None, None),
        ]
        seen = Seens(answered=primary + canary if answered is None else answered, failures=Counter(dict(failures)))
        return Figures(1.0, both, seen)

    def test_a_share_within_four_standard_errors_holds(self):
        # One standard error of 10 % of 10,000 is 30.
        assert plausible(1000 + 115, 10_000, 0.1)
        assert plausible(1000 - 115, 10_000, 0.1)
        assert not plausible(1000 + 126, 10_000, 0.1)
        assert not plausible(1000 - 126, 10_000, 0.1)

    def test_a_share_of_nothing_or_everything_allows_no_exception(self):
        assert plausible(0, 500, 0.0)
        assert not plausible(1, 500, 0.0)
        assert plausible(500, 500, 1.0)
        assert not plausible(499, 500, 1.0)

    def test_rare_requests_do_not_raise_false_alarms(self):
        assert plausible(3, 200, 0.001)  # once in 900 runs
        assert not plausible(5, 200, 0.001)

    def test_all_well_is_no_complaint(self):
        assert complaints(self.figures(903, 97), 10.0) == []

    def test_each_fault_is_named(self):
        assert complaints(self.figures(903, 97, {"status 502": 2}), 10.0) == ["2 failed: status 502"]
        assert complaints(self.figures(0, 0), 10.0) == ["no request was answered"]
        assert complaints(self.figures(900, 90, answered=1000), 10.0) == [
            "1000 requests were answered, the proxy counted 990"
        ]
        assert complaints(self.figures(500, 500), 10.0) == [
            "v1 got 50.00 % of 1000 requests, too far from 90 %",
            "v2 got 50.00 % of 1000 requests, too far from 10 %",
        ]

    def test_weights_changed_on_the_way_leave_no_share_to_judge(self):
        assert complaints(self.figures(500, 500, configured=90.0), 10.0) == []

    def test_json_has_a_place_for_what_was_not_measured(self):
        assert to_dict(self.figures(1, 0), ["why"])["sides"]["canary"]["p99"] is None

    def test_a_side_is_read_from_the_admin_api(self):
        signals = {"10s": {"rate": 5.0, "successRate": 0.5, "p50": 0.1, "p99": 0.2}}
        backend = {"name": "v2", "role": "canary", "weight": None, "assignments": {"random": 3, "key": 1}}
        answer = [{"rules": [{"backends": [{**backend, "signals": signals}]}]}]
        assert sides(answer) == [Side("v2", "canary", 0.0, 4, 5.0, 0.5, 0.1, 0.2)]


class TestRelease:
    ROLLOUT = json.loads((Path(__file__).parents[1] / "cli" / "rollout.json").read_text())

    def figures(self, failures=(), answered=100, **more):
        seen = Seens(answered=answered, failures=Counter(dict(failures)))
        return Figures(1.0, [], seen, {**self.ROLLOUT, **more})

    def test_each_scenario_has_its_end(self):
        assert {**dict.fromkeys(SCENARIOS, "Failed"), "good": "Succeeded"} == ENDS

    def test_the_right_end_is_no_complaint(self):
        assert release.complaints(self.figures(phase="Succeeded"), "good") == []
        bad = self.figures({"status 500": 9}, phase="Failed", reason="4 failed checks")
        assert release.complaints(bad, "errors") == []

    def test_each_fault_is_named(self):
        assert release.complaints(self.figures({"status 502": 2}, phase="Succeeded"), "good") == [
            "2 requests failed: status 502"
        ]
        assert release.complaints(self.figures(phase="Failed", reason="why"), "good") == [
            "the rollout is Failed (why), and should have become Succeeded"
        ]
        assert release.complaints(self.figures(phase="Failed", reason=""), "slow") == [
            "the rollout failed and does not say why"
        ]
        assert release.complaints(self.figures(phase="Succeeded", answered=0), "good") == ["no request was answered"]
        assert release.complaints(Figures(1.0, [], Seens()), "good") == ["the proxy told nothing of the rollout"]

    def test_only_a_run_that_is_over_has_ended(self):
        ended = {**self.ROLLOUT, "phase": "Failed"}
        assert release.ended(ended)
        assert not release.ended({**ended, "attempt": 0})
        assert not release.ended(self.ROLLOUT)
        assert not release.ended(None)

    def test_a_version_is_one_side_whatever_roles_it_has_had(self):
        def backend(name, role, requests, assigned):
            signals = {"requests": requests, "rate": requests / 10, "attemptSuccessRate": 1.0, "p50": 0.1, "p99": 0.2}
            return {"name": name, "role": role, "assignments": {"random": assigned}, "signals": {"10s": signals}}

        backends = [backend("v1", "primary", 5, 50), backend("v2", "canary", 1, 7), backend("v2", "primary", 9, 20)]
        backends.append(backend("v2", "mirror", 99, 0))
        rollout = {"primary": "v2", "canaryWeight": 0.0}
        assert release.sides([{"rules": [{"backends": backends}]}], rollout) == [
            Side("v1", "canary", 0.0, 50, 0.5, 1.0, 0.1, 0.2),
            Side("v2", "primary", 100.0, 27, 0.9, 1.0, 0.1, 0.2),
        ]


class TestConduct:
    POINTS = tuple(number / 100 for number in range(100))

    def bad(self, scenario, seconds):
        """Return how many of a hundred requests are not treated well."""
        return sum(conduct(scenario, seconds, point) != conduct("good", 0.0, 0.0) for point in self.POINTS)

    @pytest.mark.parametrize(("scenario", "share"), [("good", 0), ("errors", 30), ("slow", 20), ("crash", 100)])
    def test_a_canary_is_good_before_it_turns_bad(self, scenario, share):
        assert [self.bad(scenario, seconds) for seconds in (-8.0, -0.1, 0.0, 100.0)] == [0, 0, share, share]

    def test_a_flapping_one_is_good_most_of_the_time(self):
        assert [self.bad("flapping", seconds) for seconds in (-3.0, 0.0, 0.9, 1.0, 2.9, 3.0)] == [0, 80, 80, 0, 0, 80]

    def test_its_life_begins_with_its_first_request(self):
        health = Health("crash", 8.0, random.Random(1))
        assert [health.at(now).gone for now in (100.0, 107.0, 108.1)] == [False, False, True]
