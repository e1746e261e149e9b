"""The real program against the shared conformance kit: raw bytes, faults, slow clients, upgrades, reloads under load.

The kit is found by `SPLITPROXY_SHARED`, or in the folder `shared` beside the repository. The score is kept in
`docs/conformance.md`; no case that passes today may fail tomorrow.
"""

import contextlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from splitproxy.children import child_environment

REPOSITORY = Path(__file__).parents[2]
SHARED = Path(os.environ.get("SPLITPROXY_SHARED", REPOSITORY.parent / "shared"))
KIT = SHARED / "conformance"
PARTS = 4
"""Proxies side by side for one run: nearly all of the time is waiting."""
WHOLE = 0
SEEDS = [int(seed) for seed in os.environ.get("SPLITPROXY_SEEDS", "1").split(",")]
"""A run for each, in which every request comes in three pieces, cut as chance has it."""
RUNS = [WHOLE, *SEEDS]
PATIENCE = 60.0
KNOWN_FAILURES: frozenset[str] = frozenset()
"""Ids of cases that do not pass yet."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(240),
    pytest.mark.skipif(not (KIT / "reliab.py").exists(), reason="the conformance kit is not here (SPLITPROXY_SHARED)"),
]


def free_port():
    """Return a port below those of outgoing connections, one of which could take it before the kit does."""
    while True:
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", random.randrange(10_000, 30_000)))
            return sock.getsockname()[1]


class Program:
    """`splitproxy run` in front of one upstream port, configured as the kit's README asks."""

    def __init__(self, folder):
        folder.mkdir()
        self.upstream = free_port()
        self.path = folder / "splitproxy.yaml"
        self.path.write_text(
            "listeners: [{address: '127.0.0.1:0'}]\n"
            "admin: {address: '127.0.0.1:0'}\n"
            "limits: {headerTimeout: 3s, bodyIdleTimeout: 3s, keepAliveTimeout: 5s}\n"
            f"upstreams: [{{name: kit, endpoints: ['http://127.0.0.1:{self.upstream}']}}]\n"
            "routes: [{name: kit, rules: [{backendRefs: [{name: kit, weight: 1}], timeouts: {responseHead: 3s}}]}]\n"
        )
        command = [sys.executable, "-m", "splitproxy", "run", "-c", str(self.path)]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=child_environment())
        self.address, self.log = "", []
        self._ready = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stderr:
            self.log.append(line)
            if found := re.search(r"ready: listening on (\S+);", line):
                self.address = found[1]
                self._ready.set()

    def ready(self):
        assert self._ready.wait(PATIENCE), "".join(self.log)
        return self

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reader.join(PATIENCE)
        self.process.stderr.close()


@pytest.fixture
def programs(tmp_path):
    """Return a function that starts so many programs."""
    with contextlib.ExitStack() as stack:

        def start(count):
            started = []
            for number in range(count):
                started.append(Program(tmp_path / str(number)))
                stack.callback(started[-1].stop)
            return [program.ready() for program in started]

        yield start


def cases():
    return [case for path in sorted((KIT / "cases").glob("*.json")) for case in json.loads(path.read_text())]


def run_part(program, part, seed):
    """Start the kit's runner on some of the cases."""
    folder = program.path.parent
    path = folder / "cases.json"
    path.write_text(json.dumps(part))
    command = [sys.executable, str(KIT / "reliab.py"), "run", "--target", program.address, "--cases", str(path), "-q"]
    options = ["--upstream-port", str(program.upstream), "--out", str(folder / "results.json")]
    cut = [] if seed == WHOLE else ["--split", "3", "--seed", str(seed)]
    return subprocess.Popen([*command, *options, *cut], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def results_of(program):
    return {row["id"]: row for row in json.loads((program.path.parent / "results.json").read_text())["results"]}


def score_in_docs():
    text = (REPOSITORY / "docs" / "conformance.md").read_text()
    found = re.search(r"^\| \*\*all\*\* \| (\d+) \| \*\*(\d+)\*\* \|", text, re.MULTILINE)
    return int(found[2]), int(found[1])


@pytest.mark.parametrize("seeds", [RUNS[at : at + 2] for at in range(0, len(RUNS), 2)], ids=str)
def test_no_case_that_passed_fails(programs, seeds):
    every = cases()
    started = programs(PARTS * len(seeds))
    parts = [(seed, every[n::PARTS]) for seed in seeds for n in range(PARTS)]
    runs = [run_part(program, part, seed) for program, (seed, part) in zip(started, parts, strict=True)]
    for run in runs:
        output, _ = run.communicate(timeout=200)
        assert run.returncode == 0, output
    for n, seed in enumerate(seeds):
        results = {key: row for program in started[PARTS * n :][:PARTS] for key, row in results_of(program).items()}
        failed = {key: row["why"] for key, row in results.items() if not row["pass"]}
        assert {key: why for key, why in failed.items() if key not in KNOWN_FAILURES} == {}, f"seed {seed}"
        assert not KNOWN_FAILURES - failed.keys(), "a case passes now: take it off the list"
        assert (len(results) - len(failed), len(results)) == score_in_docs(), "docs/conformance.md says otherwise"
    for program in started:
        assert "Traceback" not in "".join(program.log)


def test_reloads_under_load_lose_and_repeat_nothing(programs):
    (program,) = programs(1)
    touch = f"printf '# once more\\n' >> '{program.path}'; kill -HUP {program.process.pid}"
    command = [sys.executable, str(KIT / "stress.py"), "reload", "--target", program.address]
    options = ["--upstream-port", str(program.upstream), "--requests", "6000", "--conns", "16", "--every", "0.3"]
    done = subprocess.run([*command, *options, "--cmd", touch], capture_output=True, text=True, timeout=120, check=True)
    assert re.search(r"\b[1-9]\d* commands", done.stdout), done.stdout
    counts = dict(re.findall(r"(\S+) (\d+)(?= |$|\n)", done.stdout.splitlines()[1]))
    assert counts.pop("answered") == "6000", done.stdout
    assert set(counts.values()) == {"0"}, done.stdout
