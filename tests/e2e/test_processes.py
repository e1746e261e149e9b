"""The real program: what may be killed, changed and asked of it while clients are being served."""

import contextlib
import http.client
import http.server
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from running import children

from splitproxy.children import child_environment
from splitproxy.supervisor import DRAIN_SECONDS

pytestmark = pytest.mark.slow
PATIENCE = 20.0


class Upstream(http.server.ThreadingHTTPServer):
    """Answers with its name; `/wait` waits until `release` is set."""

    daemon_threads = True
    request_queue_size = 512

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            if self.path == "/wait":
                self.server.waiting.set()
                self.server.release.wait(PATIENCE)
            self.send_response(200)
            self.send_header("Content-Length", str(len(self.server.name)))
            self.end_headers()
            self.wfile.write(self.server.name.encode())

        def log_message(self, *_):
            pass

    def __init__(self, name):
        super().__init__(("127.0.0.1", 0), self.Handler)
        self.name, self.waiting, self.release = name, threading.Event(), threading.Event()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, *_):
        """Clients of a killed worker leave in the middle."""


class Program:
    """`splitproxy run` in a process of its own; its log lines as they come."""

    def __init__(self, path, *options, module=("-m", "splitproxy", "run")):
        self.path, self.lines, self._come = path, [], threading.Condition()
        self.process = subprocess.Popen(
            [sys.executable, *module, "-c", str(path), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=child_environment(),
        )
        self.pid = self.process.pid
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stderr:
            with self._come:
                self.lines.append(line)
                self._come.notify_all()
        with self._come:
            self.lines.append("the end\n")
            self._come.notify_all()

    def until_said(self, pattern, after=0):
        """Wait for a log line that `pattern` is found in, from the `after`-th on, and return the match."""

        def found():
            return next((match for line in self.lines[after:] if (match := re.search(pattern, line))), None)

        with self._come:
            assert self._come.wait_for(found, PATIENCE), "".join(self.lines)
            return found()

    def ready(self):
        match = self.until_said(r"ready: listening on (\S+); admin http://(\S+); workers \d+; generation \d+")
        self.listener, self.admin = match[1].split(",")[0], match[2]
        return self

    def ended(self):
        """Wait for the end and return the exit code."""
        code = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return code

    def children(self, module):
        return children(self.pid, module)

    @property
    def workers(self):
        return self.children("splitproxy.proxy.worker")

    @property
    def control(self):
        return self.children("splitproxy.control")[0]

    def signal(self, number):
        self.process.send_signal(number)

    def get(self, path="/", address=None):
        return get(address or self.listener, path)

    def ask(self, path, method="GET"):
        status, body = get(self.admin, path, method)
        return status, json.loads(body)

    def until_ready(self, generation):
        return until(lambda: self._is_ready(generation))

    def _is_ready(self, generation):
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.ask("/readyz") == (200, {"status": "ready", "generation": generation})

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(DRAIN_SECONDS + 5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._reader.join(PATIENCE)
        self.process.stdout.close()
        self.process.stderr.close()


def get(address, path="/", method="GET"):
    host, port = address.rsplit(":", 1)
    connection = http.client.HTTPConnection(host, int(port), timeout=PATIENCE)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def until(condition):
    """Wait for something that only looking tells."""
    end = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)
    return found


def alive(pid):
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


@pytest.fixture
def upstreams():
    made = [Upstream("primary"), Upstream("canary")]
    yield made
    for upstream in made:
        upstream.release.set()
        upstream.shutdown()
        upstream.server_close()


@pytest.fixture
def configure(tmp_path, upstreams):
    path = tmp_path / "splitproxy.yaml"

    def write(canary=0, listeners=("127.0.0.1:0",), admin="127.0.0.1:0", more=""):
        primary, other = (upstream.server_address[1] for upstream in upstreams)
        path.write_text(
            f"listeners: {json.dumps([{'address': address} for address in listeners])}\n"
            f"admin: {{address: '{admin}'}}\n"
            "upstreams:\n"
            f"  - {{name: primary, endpoints: ['http://127.0.0.1:{primary}']}}\n"
            f"  - {{name: canary, endpoints: ['http://127.0.0.1:{other}']}}\n"
            "routes:\n"
            "  - name: shop\n"
            "    rules:\n"
            f"      - backendRefs: [{{name: primary, weight: {100 - canary}}}, {{name: canary, weight: {canary}}}]\n"
            f"{more}\n"
        )
        return path

    return write


@pytest.fixture
def started():
    programs = []

    def start(path, *options, **how):
        programs.append(Program(path, *options, **how))
        return programs[-1]

    yield start
    for program in programs:
        program.stop()


class Clients:
    """A few clients, each of a new connection per request, until told to stop; no answer but 200 is forgiven."""

    def __init__(self, address, count=4):
        self.answers, self.failures, self._stop = [], [], threading.Event()
        """When it was asked, and the answer."""
        self._threads = [threading.Thread(target=self._run, args=(address,)) for _ in range(count)]

    def _run(self, address):
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                status, body = get(address)
                (self.answers if status == 200 else self.failures).append((began, body))
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
            self._stop.wait(0.002)

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def go_on(self):
        """Wait until some more requests have been answered."""
        count = len(self.answers)
        until(lambda: len(self.answers) > count + 20)


def free_address():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return f"127.0.0.1:{sock.getsockname()[1]}"


# --- start and end ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_and_ends_with_nothing_left(number, configure, started):
    program = started(configure(), "--workers", "2").ready()
    assert program.get() == (200, "primary")
    children = [*program.workers, program.control]
    assert len(children) == 3
    program.signal(number)
    assert program.ended() == 0
    assert not any(map(alive, children))


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda path: path.write_text("listeners: [{address: nowhere}]\n"), "listeners[0].address"),
        (lambda path: path.unlink(), "splitproxy.yaml: "),
    ],
)
def test_a_bad_file_at_the_start_is_explained_and_ends_it(break_it, message, configure, started):
    path = configure()
    break_it(path)
    program = started(path)
    assert program.ended() == 1
    said = "".join(program.lines)
    assert message in said
    assert "Traceback" not in said


@pytest.mark.parametrize("place", ["listeners", "admin"])
def test_a_taken_port_at_the_start_is_named_and_ends_it(place, configure, started):
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        program = started(configure(**{place: [address] if place == "listeners" else address}))
        assert program.ended() == 1
    said = "".join(program.lines)
    assert f"cannot listen on {address}: the port is in use by another program" in said
    assert "Traceback" not in said


def test_two_programs_never_share_a_port(configure, started):
    first = started(configure()).ready()
    second = started(configure(listeners=[first.listener]))
    assert second.ended() == 1
    assert first.get() == (200, "primary")


def test_workers_that_cannot_start_end_it(configure, started, tmp_path):
    driver = tmp_path / "driver.py"
    driver.write_text(
        "import sys\n"
        "from splitproxy.cli import run\n"
        "from splitproxy.supervisor import Programs, Supervisor\n"
        "control = ['-m', 'splitproxy.control', '-c', sys.argv[2]]\n"
        "sys.exit(Supervisor(Programs(control, ['-c', 'raise SystemExit(3)']), run.say, run.announce).run())\n"
    )
    program = started(configure(), module=(str(driver),))
    assert program.ended() == 1
    assert "worker 0 ended with exit code 3 before it was ready" in "".join(program.lines)


def test_a_stop_while_it_is_still_starting_is_heard(configure, started):
    program = started(configure())
    until(lambda: program.children("splitproxy.control"))
    program.signal(signal.SIGTERM)
    assert program.ended() == 0


def test_requests_under_way_are_finished_while_new_ones_are_refused(configure, started, upstreams):
    program = started(configure()).ready()
    answers = []
    client = threading.Thread(target=lambda: answers.append(program.get("/wait")))
    client.start()
    assert upstreams[0].waiting.wait(PATIENCE)
    assert program.ask("/-/drain", "POST") == (202, {"draining": True})
    program.until_said("draining: 1 worker")
    until(lambda: refused(program.listener))
    status, body = program.ask("/readyz")
    assert (status, body["detail"]) == (503, "draining"), "the admin API answers to the end"
    upstreams[0].release.set()
    client.join()
    assert answers == [(200, "primary")]
    assert program.ended() == 0


def refused(address):
    host, port = address.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), 0.2).close()
    except ConnectionRefusedError:
        return True
    except TimeoutError:
        pass
    return False


def test_a_second_interrupt_ends_it_at_once(configure, started, upstreams):
    program = started(configure()).ready()
    children = [*program.workers, program.control]

    def ask():
        with contextlib.suppress(OSError, http.client.HTTPException):
            program.get("/wait")

    client = threading.Thread(target=ask)
    client.start()
    assert upstreams[0].waiting.wait(PATIENCE)
    program.signal(signal.SIGINT)
    program.until_said("draining")
    program.signal(signal.SIGINT)
    assert program.ended() == 130
    assert not any(map(alive, children))
    client.join()


# --- kill -9 ----------------------------------------------------------------------------------------------------------
def test_a_killed_worker_is_replaced_and_its_queue_is_served(configure, started):
    program = started(configure()).ready()
    (worker,) = program.workers
    os.kill(worker, signal.SIGSTOP)  # so that connections are certain to wait in the queue
    answers = []
    clients = [threading.Thread(target=lambda: answers.append(program.get())) for _ in range(8)]
    for client in clients:
        client.start()
    port = int(program.listener.rsplit(":", 1)[1])
    until(lambda: queued(port) >= 8)
    os.kill(worker, signal.SIGKILL)
    for client in clients:
        client.join()
    assert answers == [(200, "primary")] * 8
    program.until_said(rf"worker 0 \(pid {worker}\) was killed by SIGKILL; started again")
    assert program.until_ready(1)


def queued(port):
    """Return how many connections wait to be accepted."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, queues = line.split()[:5]
        if state == "0A" and int(local.split(":")[1], 16) == port:
            return int(queues.split(":")[1], 16)
    return 0


def test_a_replaced_workers_counters_go_on(configure, started):
    program = started(configure()).ready()
    for _ in range(5):
        program.get()
    until(lambda: requests_total(program) == 5)  # outcomes are gathered for ten milliseconds
    os.kill(program.workers[0], signal.SIGKILL)
    program.until_said("started again")
    program.get()
    until(lambda: requests_total(program) == 6)


def requests_total(program):
    _, text = get(program.admin, "/metrics")
    return sum(
        float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith("splitproxy_requests_total")
    )


def test_workers_serve_on_without_control_and_a_new_one_takes_over(configure, started):
    program = started(configure(admin=free_address())).ready()
    control = program.control
    with Clients(program.listener) as clients:
        clients.go_on()
        os.kill(control, signal.SIGKILL)
        clients.go_on()
        program.until_said(r"control \(pid \d+\) was killed by SIGKILL; started again")
        assert program.until_ready(1)
        assert program.control != control
        configure(canary=100, admin=program.admin)
        assert program.ask("/-/reload", "POST")[1]["generation"] == 2
        assert program.get() == (200, "canary")
    assert clients.failures == []


def test_a_new_control_with_a_broken_file_leaves_the_workers_alone(configure, started):
    admin = free_address()
    program = started(configure(admin=admin)).ready()
    program.path.write_text("routes: {")
    os.kill(program.control, signal.SIGKILL)
    program.until_said("not loaded")
    assert program.until_ready(1)
    _, body = program.ask("/api/v1/config")
    assert body["lastReload"]["result"] == "failure"
    assert body["config"]["routes"][0]["name"] == "shop", "what serves is still known"
    os.kill(program.workers[0], signal.SIGKILL)
    program.until_said("worker 0 .* started again")
    assert program.get() == (200, "primary")
    configure(canary=100, admin=admin)
    assert program.until_ready(2), "the repaired file is noticed"
    assert program.get() == (200, "canary")


def test_nobody_survives_the_supervisor(configure, started):
    program = started(configure(), "--workers", "2").ready()
    children = [*program.workers, program.control]
    os.kill(program.pid, signal.SIGKILL)
    until(lambda: not any(map(alive, children)))
    assert program.ended() == -signal.SIGKILL


# --- reloads ----------------------------------------------------------------------------------------------------------
def by_signal(program):
    program.signal(signal.SIGHUP)


def by_command(program):
    command = [sys.executable, "-m", "splitproxy", "reload", "--admin", f"http://{program.admin}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=child_environment())
    assert done.stdout == "Generation 2 serves.\n"


def by_api(program):
    assert program.ask("/-/reload", "POST")[1]["result"] == "success"


def by_watching(program):
    """Do nothing: the file has changed."""


@pytest.mark.parametrize("trigger", [by_signal, by_command, by_api, by_watching])
def test_a_reload_is_noticed_by_no_request(trigger, configure, started):
    program = started(configure(), "--workers", "2").ready()
    with Clients(program.listener) as clients:
        clients.go_on()
        configure(canary=100)
        trigger(program)
        assert program.until_ready(2)
        ready = time.monotonic()
        clients.go_on()
        until(lambda: any(began > ready for began, _ in clients.answers))
    assert clients.failures == []
    assert {body for _, body in clients.answers} == {"primary", "canary"}
    assert {body for began, body in clients.answers if began > ready} == {"canary"}


def test_no_request_that_begins_after_a_reload_has_returned_uses_the_old_one(configure, started):
    program = started(configure(), "--workers", "3").ready()
    for canary in (100, 0, 100):
        configure(canary=canary)
        assert program.ask("/-/reload", "POST")[0] == 200
        assert {program.get()[1] for _ in range(12)} == {"canary" if canary else "primary"}


def test_a_reload_that_changes_nothing_says_so(configure, started):
    program = started(configure()).ready()
    assert program.ask("/-/reload", "POST")[1]["result"] == "unchanged"
    assert program.until_ready(1)


def test_a_bad_file_is_refused_with_every_error_and_changes_nothing(configure, started):
    program = started(configure()).ready()
    program.path.write_text(program.path.read_text().replace("routes:", "ruotes:").replace("endpoints", "endpionts"))
    command = [sys.executable, "-m", "splitproxy", "reload", "--admin", f"http://{program.admin}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=child_environment())
    assert done.returncode == 1
    assert done.stderr.count("did you mean 'endpoints'") == 2
    assert "did you mean 'routes'" in done.stderr
    assert done.stderr.endswith("Not loaded; generation 1 serves on.\n")
    assert program.get() == (200, "primary")
    assert program.ask("/api/v1/config")[1]["lastReload"]["result"] == "failure"
    assert "splitproxy_config_last_reload_success 0.0" in get(program.admin, "/metrics")[1]


def test_a_folder_is_read_again_when_a_file_appears_in_it(configure, started, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    shutil.copy(configure(), folder / "a.yaml")
    program = started(folder).ready()
    (folder / "b.yaml").write_text(
        "routes: [{name: pay, hostnames: [pay.example.com], rules: [{backendRefs: [{name: canary}]}]}]\n"
    )
    assert program.until_ready(2)
    assert [route["name"] for route in program.ask("/api/v1/routes")[1]] == ["shop", "pay"]


def test_listeners_come_and_go_without_a_lost_connection(configure, started):
    first, second = free_address(), free_address()
    program = started(configure(listeners=[first]), "--workers", "2").ready()
    with Clients(first) as clients:
        clients.go_on()
        configure(listeners=[first, second])
        assert program.ask("/-/reload", "POST")[0] == 200
        assert get(second) == (200, "primary")
        clients.go_on()
    assert clients.failures == []
    with Clients(second) as clients:
        configure(listeners=[second])
        assert program.ask("/-/reload", "POST")[0] == 200
        until(lambda: refused(first))
        clients.go_on()
    assert clients.failures == []


def test_a_listener_that_cannot_be_bound_changes_nothing(configure, started):
    program = started(configure()).ready()
    fresh = free_address()
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        configure(listeners=["127.0.0.1:0", fresh, taken])
        status, body = program.ask("/-/reload", "POST")
    assert status == 422
    assert [error["message"] for error in body["errors"]] == [
        f"cannot listen on {taken}: the port is in use by another program"
    ]
    assert refused(fresh)
    assert program.get() == (200, "primary")


def test_the_admin_api_can_move(configure, started):
    old, new = free_address(), free_address()
    program = started(configure(admin=old)).ready()
    configure(admin=new)
    assert program.ask("/-/reload", "POST")[0] == 200
    assert refused(old)
    program.admin = new
    assert program.until_ready(2)


def test_workers_come_and_go_without_a_lost_connection(configure, started):
    program = started(configure(more="workers: 1")).ready()
    with Clients(program.listener) as clients:
        for count, generation in ((3, 2), (1, 3), (2, 4)):
            configure(more=f"workers: {count}")
            assert program.ask("/-/reload", "POST")[0] == 200
            assert program.until_ready(generation)
            until(lambda count=count: len(program.workers) == count)
            clients.go_on()
    assert clients.failures == []


def test_the_access_log_is_opened_again(configure, started, tmp_path):
    log = tmp_path / "access.log"
    program = started(configure(more=f"accessLog: {{path: {log}, format: json}}")).ready()
    program.get()
    until(lambda: log.exists() and log.read_text().count("\n") == 1)
    log.rename(tmp_path / "access.log.1")
    program.signal(signal.SIGUSR1)
    until(lambda: program.get() and log.exists() and log.read_text())
    assert (tmp_path / "access.log.1").read_text().count("\n") >= 1


def test_probes_have_a_listener_of_their_own(configure, started):
    probes = free_address()
    program = started(configure(more=f"probes: {{address: '{probes}'}}")).ready()
    assert get(probes, "/readyz")[0] == 200
    assert "splitproxy_workers_ready 1.0" in get(probes, "/metrics")[1]
    assert get(probes, "/-/drain", "POST")[0] == 404
    configure()
    assert program.ask("/-/reload", "POST")[0] == 200
    assert refused(probes)


# --- the command line -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("verb", ["reload", "drain"])
def test_a_verb_says_so_when_nothing_listens(verb):
    command = [sys.executable, "-m", "splitproxy", verb, "--admin", f"http://{free_address()}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=child_environment())
    assert done.returncode == 1
    assert "No splitproxy answers at http://127.0.0.1:" in done.stderr
    assert "Traceback" not in done.stderr


def test_drain_by_command(configure, started):
    program = started(configure()).ready()
    command = [sys.executable, "-m", "splitproxy", "drain", "--admin", f"http://{program.admin}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=child_environment())
    assert (done.returncode, done.stdout) == (0, "Draining: requests under way are finished, then it exits.\n")
    assert program.ended() == 0


@pytest.mark.parametrize("count", ["0", "65", "many"])
def test_an_impossible_number_of_workers_is_a_usage_error(count, configure, started):
    program = started(configure(), "--workers", count)
    assert program.ended() == 2
