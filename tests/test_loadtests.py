import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

import pytest

LOADTESTS = Path(__file__).resolve().parent.parent / "loadtests"
sys.path.insert(0, str(LOADTESTS))

import behaviour  # noqa: E402
import everyday as run_everyday  # noqa: E402
import pictures  # noqa: E402
import tracing_cost  # noqa: E402
from harness import drawing, everyday, goals, paced, peers, processes, records, report, requests, stage  # noqa: E402
from harness.scenarios import Outcome, Row, Sample, closed_loop, names  # noqa: E402

from splitproxy.config import load  # noqa: E402

SVG = "{http://www.w3.org/2000/svg}"


def head_of(request: bytes) -> list[bytes]:
    return request.partition(b"\r\n\r\n")[0].split(b"\r\n")


class TestRequests:
    def test_the_same_seed_gives_the_same_requests_and_another_gives_others(self):
        assert requests.generate("small", seed=1) == requests.generate("small", seed=1)
        assert requests.generate("small", seed=1) != requests.generate("small", seed=2)

    def test_no_two_are_alike_and_each_has_a_dozen_fields(self):
        found = requests.generate("small")
        assert len(set(found)) == len(found) == requests.VARIANTS
        assert all(12 <= len(head_of(request)) - 1 <= 14 for request in found)

    def test_the_length_of_a_post_is_the_length_of_its_body(self):
        for request in requests.generate("post"):
            assert b"Content-Length: 10240" in head_of(request)
            assert len(request.partition(b"\r\n\r\n")[2]) == 10240

    def test_they_spread_over_all_routes_by_host_and_by_prefix(self):
        found = [head_of(request) for request in requests.generate("routes", 10)]
        hosts = {lines[1] for lines in found}
        assert hosts == {b"Host: shared.example.com", *(b"Host: shop-%05d.example.com" % n for n in range(0, 10, 2))}
        teams = {lines[0].split(b"/")[1] for lines in found if lines[1] == b"Host: shared.example.com"}
        assert teams == {b"team-%05d" % number for number in range(1, 10, 2)}

    def test_what_is_saved_is_what_both_generators_read(self, tmp_path):
        found = requests.generate("post")
        requests.save(found, tmp_path / "post")
        assert requests.load(tmp_path / "post") == found


def rows(peer: str, *cpu: float, variant: str = "") -> Row:
    return Row(peer, variant, [Sample(cpu_per_request=value, rate=1.0, busy=1.0, peak_memory=1) for value in cpu])


class TestReport:
    def test_a_ratio_is_taken_within_each_round(self):
        assert report.ratios([2.0, 30.0], [1.0, 10.0]) == [2.0, 3.0]

    def test_a_spread_is_the_median_with_the_extremes(self):
        assert report.spread([3.0, 1.0, 2.0], str) == f"2.0 (1.0{report.DASH}3.0)"
        assert report.spread([], str) == report.DASH

    def test_a_peer_that_fell_out_is_named_with_the_reason_and_makes_the_run_unsound(self):
        outcome = Outcome("small-get", "Small", [rows("nginx", 1.0), Row("envoy", "", left_out="did not start")])
        assert "envoy" not in report.load_table(outcome)
        assert "envoy  left out: did not start" in report.section(outcome)
        assert not report.sound([outcome])

    def test_failed_requests_make_the_run_unsound(self):
        assert report.sound([Outcome("small-get", "Small", [rows("nginx", 1.0)])])
        assert not report.sound([Outcome("small-get", "Small", [Row("nginx", "", [Sample(errors=1)])])])

    @pytest.mark.parametrize(("mine", "reached"), [(1.4e-6, "yes"), (1.6e-6, "**no**")])
    def test_a_goal_is_reached_when_the_median_ratio_is_within_it(self, mine, reached):
        outcome = Outcome("small-get", "Small", [rows("splitproxy", mine, mine, 9e-6), rows("nginx", 1e-6, 1e-6, 1e-6)])
        lines = [line for line in goals.summary([outcome]).splitlines() if "beside nginx" in line]
        assert len(lines) == 1
        assert lines[0].endswith(f"| {reached} |")

    def test_growth_is_read_beside_the_first_variant(self):
        found = [rows("splitproxy", 1e-6, variant="routes-1"), rows("splitproxy", 2e-6, variant="routes-10000")]
        text = goals.summary([Outcome("routes", "Routes", found)])
        assert f"2 {report.TIMES} | **no**" in text
        assert f"2.00 {report.TIMES}" in report.load_table(Outcome("routes", "Routes", found))

    def test_every_goal_belongs_to_a_scenario_that_exists(self):
        asked = set()
        for goal in goals.GOALS:
            goal.measure(lambda scenario, _peer, variant: asked.add((scenario, variant)))
        known = {
            (scenario.name, variant.label) for scenario in closed_loop(quick=False) for variant in scenario.variants
        }
        special = {name for name in names(quick=False) if name not in {scenario for scenario, _ in known}}
        assert {pair for pair in asked if pair[0] not in special} <= known


class TestProcesses:
    def test_the_time_of_a_child_that_ended_still_counts(self, tmp_path):
        burn = "import time\nwhile time.process_time() < 0.15: pass"
        script = (
            f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {burn!r}])\nprint('x', flush=True)\ninput()"
        )
        child = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        with child:
            assert child.stdout.readline() == b"x\n"
            assert processes.cpu_seconds(child.pid) >= 0.14
            child.communicate(b"\n")

    def test_memory_that_processes_of_a_tree_share_counts_once(self):
        script = "import os\nheld = bytearray(b'x') * 40_000_000\nos.fork()\nos.write(1, b'x')\nos.read(0, 1)"
        child = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        with child:
            assert child.stdout.read(2) == b"xx"
            assert len(processes.tree(child.pid)) == 2
            assert 40_000_000 < processes.tree_memory(child.pid) < 70_000_000

    def test_stopping_ends_children_that_moved_to_another_group(self, tmp_path):
        script = (
            "import os, subprocess, sys, time, signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
            "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], start_new_session=True)\n"
            "open('pid.new', 'w').write(str(p.pid)); os.rename('pid.new', 'pid'); time.sleep(60)"
        )
        process = processes.Process("stubborn", [sys.executable, "-c", script], tmp_path)
        end = time.monotonic() + 10
        while not (tmp_path / "pid").exists():
            assert time.monotonic() < end
            time.sleep(0.01)
        grandchild = int((tmp_path / "pid").read_text())
        assert set(processes.tree(process.pid)) == {process.pid, grandchild}
        process.stop(patience=0.1)
        while processes.started_at(grandchild) and "zombie" not in Path(f"/proc/{grandchild}/status").read_text():
            assert time.monotonic() < end
            time.sleep(0.01)

    def test_a_command_that_falls_over_says_why(self, tmp_path):
        process = processes.Process("broken", [sys.executable, "-c", "raise SystemExit('no such thing')"], tmp_path)
        with pytest.raises(processes.StartError, match="no such thing"):
            process.wait_until_serving(1, b"", 10)
        process.stop()


@contextmanager
def server(answer):
    """Run `answer(connection)` in a thread for each connection."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept():
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)


class TestPacedClient:
    def test_a_stall_is_charged_to_every_request_that_was_due_meanwhile(self):
        seen = threading.Event()

        def answer(connection):
            with connection:
                while data := connection.recv(65536):
                    if not seen.is_set():
                        seen.set()
                        time.sleep(0.3)
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" * data.count(b"\r\n\r\n"))

        with server(answer) as port:
            client = paced.PacedClient([b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"], port, 100.0, 0.5, 1)
            client.run()
        assert client.errors == 0
        assert len(client.latencies) == 50
        assert sum(latency > 0.1 for latency in client.latencies) >= 18
        assert client.longest_gap >= 0.29

    def test_what_is_not_a_200_and_what_never_comes_are_errors(self):
        turns = iter(
            [b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", b"", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"]
        )

        def answer(connection):
            with connection:
                while connection.recv(65536):
                    said = next(turns)
                    if not said:
                        return
                    connection.sendall(said)

        with server(answer) as port:
            client = paced.PacedClient([b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"], port, 20.0, 0.15, 1)
            client.run()
        assert (len(client.latencies), client.errors) == (1, 2)


@pytest.fixture(scope="module")
def upstream(tmp_path_factory):
    ports = processes.free_ports()
    port = next(ports)
    command = [sys.executable, str(LOADTESTS / "upstream.py"), f"one={port}", f"two={next(ports)}"]
    process = processes.Process("upstream", command, tmp_path_factory.mktemp("upstream"))
    process.wait_until_serving(port, b"GET /count HTTP/1.1\r\nHost: a\r\n\r\n", 20)
    yield port
    process.stop()


CHUNKED = b"POST /a HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 10.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"


class TestUpstream:
    @pytest.mark.parametrize(
        "request_bytes",
        [
            b"GET /a HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n",
            b"POST /a HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 10.0.0.1\r\nContent-Length: 4\r\n\r\nbody",
            CHUNKED + b"4\r\nbody\r\n0\r\n\r\n",
            CHUNKED + b"0\r\nt: v\r\n\r\n",
        ],
        ids=["no body", "length", "chunked", "trailers"],
    )
    def test_it_answers_once_the_request_is_whole_and_goes_on(self, upstream, request_bytes):
        with socket.create_connection(("127.0.0.1", upstream), 5) as connection:
            for _ in range(2):
                for at in range(len(request_bytes)):
                    connection.sendall(request_bytes[at : at + 1])
                said = connection.recv(65536)
                assert said.startswith(b"HTTP/1.1 200 OK\r\n")
                assert b"X-Version: one\r\nX-Seen-For: 10.0.0.1\r\n" in said
                assert said.endswith(b"\r\n\r\none")

    def test_it_counts_requests_of_each_name_apart(self, upstream):
        def count(port):
            return int(processes.exchange(port, b"GET /count HTTP/1.1\r\nHost: a\r\n\r\n").partition(b"\r\n\r\n")[2])

        before = count(upstream)
        processes.exchange(upstream, b"GET /files/64k HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert count(upstream) == before + 1
        assert count(upstream + 1) == 0


def entry(name: str, count: int, failures: int = 0, method: str = "GET") -> dict[str, object]:
    return {"method": method, "name": name, "num_requests": count, "num_failures": failures}


GOOD = [
    entry("share primary", 900),
    entry("share canary", 100),
    entry("regular primary", 50),
    entry("visitor primary", 100),
    entry("mirrored primary", 100),
    entry("visitor 20 primary", 160, method="DRAW"),
    entry("visitor 20 canary", 40, method="DRAW"),
]


class TestBehaviour:
    def test_all_is_well_when_everything_was_kept(self):
        assert behaviour.judge(GOOD, [], 20, copies=100, dropped=0).passed
        assert behaviour.judge(GOOD, [], 20, copies=99, dropped=1).passed

    @pytest.mark.parametrize(
        ("changed", "problems", "copies"),
        [
            ([entry("share", 1, failures=1)], [], 100),
            ([], ["reload 3 answered 500"], 100),
            ([], [], 50),
            ([], [], 101),
            ([entry("share canary", 50)], [], 100),
            ([entry("visitor 50 canary", 90, method="DRAW")], [], 100),
            ([entry("regular", 1, failures=1)], [], 100),
        ],
        ids=["a failure", "a reload", "copies lost", "copies made up", "the share", "the keyed share", "stickiness"],
    )
    def test_one_broken_promise_is_enough(self, changed, problems, copies):
        assert not behaviour.judge([*GOOD, *changed], problems, 20, copies, dropped=0).passed

    def test_nothing_measured_is_not_a_pass(self):
        assert not behaviour.judge([], [], 20, copies=0, dropped=0).passed


def kind(name="page", answered=100, failed=0, p95=20.0, p99=40.0) -> everyday.Kind:
    return everyday.Kind(name, answered, failed, 10.0, p95, p99)


class TestEveryday:
    @pytest.mark.parametrize("case", everyday.CASES.values(), ids=lambda case: case.name)
    def test_every_case_has_users_from_the_start_and_ends(self, case):
        for one in (case, case.quick()):
            assert one.users_at(0.0)
            assert one.users_at(one.seconds * 0.999)
            assert one.users_at(one.seconds) is None
        assert case.quick().seconds <= 5
        assert max(case.quick().users_at(0.0), case.quick().users_at(1.0)) <= 40

    def test_a_spike_comes_and_goes(self):
        spike = everyday.CASES["spike"]
        assert [spike.users_at(second) for second in (0, 23.9, 24, 41.9, 42, 59.9)] == [30, 30, 150, 150, 30, 30]
        assert [spike.quick().users_at(second) for second in (0, 1)] == [8, 38]

    @pytest.mark.parametrize(
        ("kinds", "asked", "held"),
        [
            ([kind()], 100, [True, True, True]),
            ([kind(failed=1)], 101, [False, True, True]),
            ([kind()], 101, [True, False, True]),
            ([kind(p95=101)], 100, [True, True, False]),
            ([kind(p99=201)], 100, [True, True, False]),
            ([kind(), kind("slow", p95=490, p99=590)], 200, [True, True, True, True]),
            ([kind(), kind("slow", p95=501)], 200, [True, True, True, False]),
            ([], 0, [False, True]),
        ],
        ids=["well", "a failure", "one lost", "p95", "p99", "slow as it must be", "slower than that", "nothing asked"],
    )
    def test_each_limit_can_be_broken(self, kinds, asked, held):
        limits = everyday.Limits(failures=0.5, p95=100, p99=200)
        assert [each for each, _ in everyday.judge(kinds, asked, limits, {"slow": 400.0})] == held

    def test_memory_is_compared_with_what_it_was_after_a_fifth_of_the_time(self):
        assert stage.grown([10, 100, 100, 100, 109], 10.0)[0]
        assert not stage.grown([100, 100, 100, 100, 111], 10.0)[0]

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ([], "which case?"),
            (["spkie"], "did you mean spike?"),
            (["steady", "--path", "/x"], "are for --host"),
            (["steady", "--locust", "/nowhere/locust"], "no program /nowhere/locust"),
        ],
    )
    def test_what_cannot_be_done_is_a_usage_error(self, options, said, capsys):
        with pytest.raises(SystemExit) as ended:
            run_everyday.main(options)
        assert ended.value.code == 2
        assert said in capsys.readouterr().err

    def test_the_list_has_them_all(self, capsys):
        assert run_everyday.main(["--list"]) == 0
        assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(everyday.CASES)


def everyday_run(*options):
    """Run the program of the everyday cases."""
    command = [sys.executable, str(LOADTESTS / "everyday.py"), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=140, check=False)


NO_LOCUST = behaviour.locust_command(None) is None
PATIENT = ("--max-p95", "8000", "--max-p99", "9000")
"""How quick it is on a busy machine is nothing to go by."""


@pytest.mark.slow
@pytest.mark.timeout(150)
@pytest.mark.skipif(NO_LOCUST, reason="locust is not installed (extra `load`)")
class TestEverydayUnderLocust:
    CASES = ("spike", "soak", "rollout", "rollback", "reload", "slow-upstream", "mirror-on")
    """The others have the users and the shape of one of these."""

    def test_every_promise_is_kept(self, tmp_path):
        done = everyday_run(*self.CASES, "--quick", "--reports", str(tmp_path), *PATIENT)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "BROKEN" not in done.stdout
        for name in self.CASES:
            figures = json.loads((tmp_path / f"{name}.json").read_text())
            assert all(check["held"] for check in figures["checks"])
            assert figures["asked"] == sum(seen["answered"] for seen in figures["kinds"]) > 0
            assert "<html" in (tmp_path / f"{name}.html").read_text()
        spike = json.loads((tmp_path / "spike.json").read_text())
        soak = json.loads((tmp_path / "soak.json").read_text())
        assert spike["asked"] > 2 * soak["asked"]

    def test_a_limit_that_is_broken_is_the_exit_code(self, upstream):
        done = everyday_run("steady", "--quick", "--host", f"http://127.0.0.1:{upstream}", "--max-p95", "0")
        assert done.returncode == 1
        assert "BROKEN  page: p50" in done.stdout
        assert "held    0 lost" in done.stdout


class TestPictures:
    runs = records.read(pictures.RECORDED)

    def test_those_in_the_documents_are_of_the_runs_that_are_kept(self):
        drawn = pictures.drawn(self.runs)
        assert drawn.keys() == pictures.PICTURES.keys()
        for name, text in drawn.items():
            assert (pictures.IMAGES / name).read_text() == text, "python loadtests/pictures.py draws them again"
            assert f"](images/{name})" in (pictures.ROOT / "docs/performance.md").read_text()
            assert len(text) < 20_000
            ElementTree.fromstring(text)

    def test_every_table_in_the_documents_is_of_a_run_that_is_kept(self):
        document = (pictures.ROOT / "docs/performance.md").read_text()
        last = {outcome.name: report.section(outcome) for run in self.runs for outcome in records.outcomes(run)}
        lines = {line for section in last.values() for line in section.splitlines() if line.startswith("|")}
        assert lines - set(document.splitlines()) == set()

    def test_what_is_kept_reads_back_as_it_was_measured(self):
        measured = [rows("splitproxy", 1.23456789e-5, 2e-5), Row("envoy", "", left_out="did not start")]
        outcome = Outcome("small-get", "Small", measured, ["a note"])
        found = json.loads(report.as_json({"kernel": "x"}, [outcome]))
        (again,) = records.outcomes(json.loads(records.compact({"about": "a test", **found})))
        assert again.rows[0].samples[0].cpu_per_request == 1.23457e-5
        assert (again.rows[1], again.notes) == (outcome.rows[1], ["a note"])

    def test_what_was_measured_later_takes_the_place_of_what_was_before(self):
        def run(value, **more):
            measured = [rows("splitproxy", value), rows("nginx", 1e-6)]
            text = report.as_json({}, [Outcome("small-get", "Small", measured)])
            return {**json.loads(text), **more}

        again = {"scenario": "small-get", "peer": "nginx", "samples": [{"KiB each": 2.0}]}
        (latest,) = records.latest([run(1e-6), run(3e-6, later=[again])])
        assert report.figures(latest.row("splitproxy"), "cpu_per_request") == [3e-6]
        assert report.figures(latest.row("nginx"), "KiB each") == [2.0]
        with pytest.raises(ValueError, match="there is no haproxy"):
            records.latest([run(1e-6, later=[{**again, "peer": "haproxy"}])])

    def test_a_bar_is_as_long_as_its_share_of_the_longest(self):
        text = drawing.bars("T", [("p", [drawing.Bar("a", [10.0]), drawing.Bar("b", [2.0, 5.0, 9.0])], str)], "n")
        widths = [float(rect.get("width")) for rect in ElementTree.fromstring(text).iter(SVG + "rect")][1:]
        assert widths[1] / widths[0] == pytest.approx(0.5, abs=0.01)

    def test_a_goal_that_was_missed_is_said_to_be(self):
        text = drawing.goals("T", [("one", 1.01, "x"), ("two", 1.0, "y")], "n")
        assert text.count("missed<") == 1
        assert "x, missed" in text


def environment_of(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("wrk"), reason="wrk is not installed")
def test_a_run_prints_a_table_and_leaves_no_process(tmp_path):
    command = [sys.executable, str(LOADTESTS / "bench.py"), "--quick", "--rounds", "1"]
    command += ["--scenarios", "small-get", "--peers", "aiohttp", "--json", str(tmp_path / "out.json")]
    mark = f"BENCH_TEST={tmp_path}"
    environment = dict([*os.environ.items(), mark.split("=", 1)])
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert "| aiohttp |" in done.stdout
    sample = json.loads((tmp_path / "out.json").read_text())["scenarios"][0]["rows"][0]["samples"][0]
    assert sample["errors"] == 0
    assert 1e-5 < sample["cpu_per_request"] < 0.1
    assert not [pid for pid in os.listdir("/proc") if pid.isdigit() and mark.encode() in environment_of(pid)]


@pytest.mark.parametrize("setup", [peers.Setup(), peers.Setup(mirror=True), peers.Setup(workers=2, routes=20)])
def test_the_file_for_splitproxy_is_valid_and_says_what_the_others_are_told(tmp_path, setup):
    path = tmp_path / "splitproxy.yaml"
    path.write_text(peers.yaml_for_splitproxy(8080, 9900, peers.Upstreams(9001, 9002, 9003), setup))
    loaded = load(path, {})
    assert loaded.warnings == []
    assert loaded.plain["accessLog"] is None
    assert loaded.plain["workers"] == setup.workers
    assert len(loaded.plain["routes"]) == (setup.routes or 1)
    for route in loaded.plain["routes"]:
        assert [(ref["name"], ref["weight"]) for ref in route["rules"][0]["backendRefs"]] == [
            ("primary", peers.PRIMARY_WEIGHT),
            ("canary", peers.CANARY_WEIGHT),
        ]
        assert len(route["rules"][0]["filters"]) == setup.mirror


def test_the_file_for_locust_is_valid(tmp_path):
    path = tmp_path / "splitproxy.yaml"
    path.write_text(behaviour.configuration(8080, 9900, {"primary": 9001, "canary": 9002, "mirror": 9003}, 1, 20))
    assert load(path, {}).warnings == []


def test_the_file_for_the_everyday_cases_is_valid(tmp_path):
    path = tmp_path / "splitproxy.yaml"
    ports = {name: 9000 + n for n, name in enumerate((*stage.VERSIONS, "copies", "proxy", "admin"))}
    for quick in (True, False):
        path.write_text(stage.configuration(ports, 3, quick, tmp_path / "state.db"))
        loaded = load(path, {})
        assert loaded.warnings == []
    hosts = {host for route in loaded.plain["routes"] for host in route["hostnames"]}
    assert {case.host for case in everyday.CASES.values()} <= hosts


def test_the_cost_of_tracing_is_measured_for_every_kind():
    found = asyncio.run(tracing_cost.measure(rounds=2, count=20))
    assert {kind: len(seconds) for kind, seconds in found.items()} == dict.fromkeys(tracing_cost.KINDS, 2)
    assert min(min(seconds) for seconds in found.values()) > 0
    assert len(list(tracing_cost.lines(found))) == len(tracing_cost.KINDS)


def test_peers_that_cannot_do_a_scenario_are_told_apart():
    able = {name for name, peer in peers.PEERS.items() if peer.suits(peers.Setup(mirror=True))}
    assert able == {"splitproxy", "nginx", "envoy"}
    assert not peers.PEERS["aiohttp"].suits(peers.Setup(routes=10))
