"""The life of the processes: how they end, who follows whom, what a service manager is told. With the real program."""

import contextlib
import http.client
import json
import os
import re
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

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
PATIENCE = 30.0
RUN = ("-m", "splitproxy", "run")
ACTIVATED = """
import os, sys
os.dup2(int(sys.argv.pop(1)), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="web")
os.execv(sys.executable, [sys.executable, "-m", "splitproxy", "run", *sys.argv[1:]])
"""
QUICK_VIGIL = """
import sys
from splitproxy import supervisor, vigil
from splitproxy.cli import main
supervisor.LOOK_SECONDS, vigil.STANDING_LOOKS = 1.0, 5
sys.exit(main(["run", *sys.argv[1:]]))
"""


class Upstream:
    """Answers `ok` at once; `/wait` once `release` is set; `/slow` with a head, half a body and, on release, the rest;
    `/tunnel` with 101 and then whatever it gets."""

    def __init__(self):
        self.release, self.asked = threading.Event(), threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._serve, args=(self._socket.accept()[0],), daemon=True).start()

    def _serve(self, sock):
        with sock, contextlib.suppress(OSError), sock.makefile("rb") as lines:
            while first := lines.readline():
                while lines.readline().strip():
                    pass
                self._answer(sock, first.split()[1], lines)

    def _answer(self, sock, path, lines):
        if path == b"/tunnel":
            sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
            while data := lines.read1(100):
                sock.sendall(data)
            return
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
        if path == b"/wait":
            self.asked.set()
            self.release.wait(PATIENCE)
        elif path == b"/slow":
            sock.sendall(head + b"o")
            self.asked.set()
            self.release.wait(PATIENCE)
            head = b""
        sock.sendall(head + (b"ok" if head else b"k"))

    def close(self):
        self.release.set()
        self._socket.shutdown(socket.SHUT_RDWR)  # or its thread waits in `accept` for ever
        self._socket.close()


class Program:
    """A process and its log lines, which its successors write too."""

    def __init__(self, config, command=RUN, environment=(), fds=()):
        self.lines, self._come = [], threading.Condition()
        self.process = subprocess.Popen(
            [sys.executable, *command, "-c", str(config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**child_environment(), **dict(environment)},
            pass_fds=fds,
            start_new_session=True,
        )
        self.pid = self.process.pid
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stderr:
            with self._come:
                self.lines.append(line)
                self._come.notify_all()

    @property
    def log(self):
        return "".join(self.lines)

    def until_said(self, pattern, after=0):
        def found():
            return next((match for line in self.lines[after:] if (match := re.search(pattern, line))), None)

        with self._come:
            assert self._come.wait_for(found, PATIENCE), self.log
            return found()

    def ready(self):
        match = self.until_said(r"ready: listening on (\S+); admin http://(\S+); workers")
        self.listener, self.admin = match[1], match[2]
        return self

    def signal(self, number):
        os.kill(self.pid, number)

    def upgraded(self):
        """Wait for the end of the first process; its successor is the program from now on."""
        self.pid = int(self.until_said(r"upgraded: process (\d+) serves from now on")[1])
        assert self.process.wait(PATIENCE) == 0

    def children(self, module):
        return children(self.pid, module)

    def stop(self):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)
        until(lambda: not alive(self.pid) or self.process.poll() is not None)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join(PATIENCE)
        self.process.stderr.close()


class Load:
    """Clients that count every request that is not answered with 200: some on kept connections, some on new ones.

    A kept connection is given up when it is told so (`Connection: close`), and never asks again on another.
    """

    def __init__(self, address, count=6):
        self.answers, self.failures, self._address, self._stop = 0, [], address, threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(i % 2 == 0,), daemon=True) for i in range(count)]

    def _run(self, kept):
        made = None
        while not self._stop.wait(0.003):
            try:
                made = made or connected(self._address)
                made.request("GET", "/")
                answer = made.getresponse()
                assert (answer.status, answer.read()) == (200, b"ok")
                self.answers += 1
                if answer.will_close or not kept:
                    made.close()
                    made = None
            except (OSError, http.client.HTTPException, AssertionError) as error:
                self.failures.append(repr(error))
                made = None
        if made:
            made.close()

    def go_on(self, count=100):
        wanted = self.answers + count
        until(lambda: self.answers >= wanted or self.failures)

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        self.go_on()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE)


class Manager:
    """A service manager's notification socket."""

    def __init__(self, path):
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(path)
        self._socket.settimeout(PATIENCE)
        self.told = []

    def until_told(self, wanted):
        """Wait for a message that begins with `wanted` and return it."""
        while True:
            self.told.append(self._socket.recv(4096).decode())
            if self.told[-1].startswith(wanted):
                return self.told[-1]

    def close(self):
        self._socket.close()


def connected(address):
    host, port = address.rsplit(":", 1)
    return http.client.HTTPConnection(host, int(port), timeout=PATIENCE)


def ask(address, path="/", method="GET", headers=()):
    connection = connected(address)
    try:
        connection.request(method, path, headers=dict(headers))
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def until(condition):
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


def refused(address):
    host, port = address.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), PATIENCE).close()
    except OSError:
        return True
    return False


def free_address():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return f"127.0.0.1:{sock.getsockname()[1]}"


def requests_counted(program):
    return sum(
        float(line.split()[-1])
        for line in ask(program.admin, "/metrics")[1].splitlines()
        if line.startswith("splitproxy_requests_total{")
    )


@pytest.fixture
def upstream():
    made = Upstream()
    yield made
    made.close()


@pytest.fixture
def configure(tmp_path, upstream):
    file = tmp_path / "splitproxy.yaml"
    admin = free_address()

    def write(listener="127.0.0.1:0", workers=2, **more):
        config = {
            "listeners": [{"address": listener}],
            "admin": {"address": admin},
            "workers": workers,
            "upstreams": [{"name": "shop", "endpoints": [f"http://{upstream.address}"]}],
            "routes": [{"name": "shop", "rules": [{"backendRefs": [{"name": "shop"}]}]}],
        }
        file.write_text(json.dumps({**config, **more}))
        return file

    return write


@pytest.fixture
def started():
    made = []

    def start(*arguments, **options):
        made.append(Program(*arguments, **options))
        return made[-1]

    yield start
    for program in made:
        program.stop()


@pytest.fixture
def manager(tmp_path):
    made = Manager(str(tmp_path / "notify"))
    yield made
    made.close()


# --- the end ----------------------------------------------------------------------------------------------------------
def test_readiness_goes_first_then_after_the_delay_the_listeners(configure, started):
    program = started(configure(drain={"delay": "3s"})).ready()
    idle = connected(program.listener)

    def told():
        idle.request("GET", "/")
        answer = idle.getresponse()
        assert answer.read() == b"ok"
        return answer.getheader("Connection")

    assert told() is None
    program.signal(signal.SIGTERM)
    until(lambda: ask(program.admin, "/readyz")[0] == 503)
    until(lambda: told() == "close")
    assert ask(program.listener) == (200, "ok")
    assert program.process.wait(PATIENCE) == 0
    assert "listeners are closed in 3 s" in program.log
    assert refused(program.listener)


def test_no_kept_connection_is_closed_on_a_request(configure, started):
    program = started(configure(drain={"delay": "1s"})).ready()
    with Load(program.listener, 8) as load:
        program.signal(signal.SIGTERM)
        program.until_said("listeners are closed in 1 s")
        load.go_on(50)
        assert load.failures == []
    assert program.process.wait(PATIENCE) == 0


@pytest.mark.parametrize("path", ["/wait", "/slow"])
def test_what_takes_too_long_is_cut_so_that_it_does_not_look_whole(path, configure, started, upstream):
    program = started(configure(drain={"timeout": "1s"})).ready()
    client = connected(program.listener)
    client.request("GET", path)
    assert upstream.asked.wait(PATIENCE)
    began = time.monotonic()
    program.signal(signal.SIGTERM)
    with pytest.raises((ConnectionResetError, http.client.IncompleteRead)):
        client.getresponse().read()
    assert program.process.wait(PATIENCE) == 0
    assert time.monotonic() - began < 10
    client.close()


def test_a_tunnel_ends_at_the_deadline_with_a_close(configure, started):
    program = started(configure(drain={"timeout": "2s"})).ready()
    host, port = program.listener.rsplit(":", 1)
    with socket.create_connection((host, int(port)), PATIENCE) as client:
        client.sendall(b"GET /tunnel HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
        head = b""
        while b"\r\n\r\n" not in head:
            head += client.recv(4096)
        program.signal(signal.SIGTERM)
        program.until_said("draining: ")
        client.sendall(b"still")
        assert client.recv(4096) == b"still"
        assert client.recv(4096) == b""
    assert program.process.wait(PATIENCE) == 0


def test_nobody_survives_the_supervisor_under_load(configure, started):
    program = started(configure()).ready()
    everybody = [*program.children("splitproxy.proxy.worker"), *program.children("splitproxy.control")]
    assert len(everybody) == 3
    with Load(program.listener):
        os.kill(program.pid, signal.SIGKILL)
        began = time.monotonic()
        until(lambda: not any(map(alive, everybody)))
        assert time.monotonic() - began < 5
    until(lambda: refused(program.listener))


def test_a_worker_that_stands_still_is_replaced(configure, started):
    program = started(configure(), ("-c", QUICK_VIGIL)).ready()
    (standing, other) = program.children("splitproxy.proxy.worker")
    os.kill(standing, signal.SIGSTOP)
    program.until_said(rf"\(pid {standing}\) has stood still and is killed")
    until(lambda: len(program.children("splitproxy.proxy.worker")) == 2 and not alive(standing))
    assert other in program.children("splitproxy.proxy.worker")
    for _ in range(20):
        assert ask(program.listener) == (200, "ok")


def test_control_that_stands_still_is_replaced_and_nobody_waits_for_that(configure, started):
    program = started(configure(), ("-c", QUICK_VIGIL)).ready()
    (standing,) = program.children("splitproxy.control")
    os.kill(standing, signal.SIGSTOP)
    assert ask(program.listener) == (200, "ok")
    program.until_said(rf"control \(pid {standing}\) has stood still and is killed")
    until(lambda: program.children("splitproxy.control") not in ([], [standing]))
    assert ask(program.listener) == (200, "ok")


# --- a service manager ------------------------------------------------------------------------------------------------
def test_a_service_manager_is_told_how_things_stand(configure, started, manager, tmp_path):
    environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "400000"}
    program = started(configure(), environment=environment)
    manager.until_told("READY=1\nSTATUS=")
    program.ready()
    manager.until_told("WATCHDOG=1")
    program.signal(signal.SIGHUP)
    assert re.search(r"\nMONOTONIC_USEC=\d+\n", manager.until_told("RELOADING=1"))
    assert "unchanged: generation 1 serves" in manager.until_told("READY=1")
    configure(workers=0)
    program.signal(signal.SIGHUP)
    manager.until_told("RELOADING=1")
    assert "failure: generation 1 serves" in manager.until_told("READY=1")
    for child in (*program.children("splitproxy.proxy.worker"), *program.children("splitproxy.control")):
        assert b"NOTIFY_SOCKET" not in Path(f"/proc/{child}/environ").read_bytes()
    program.signal(signal.SIGTERM)
    manager.until_told("STOPPING=1")
    assert program.process.wait(PATIENCE) == 0


def test_sockets_of_a_service_manager_are_used_and_left_open(configure, started):
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        command = ("-c", ACTIVATED, str(listening.fileno()))
        file = configure(listener=address)
        early = connected(address)
        early.connect()  # before anybody serves: it waits in the queue
        first = started(file, command, fds=(listening.fileno(),)).ready()
        early.request("GET", "/")
        assert early.getresponse().read() == b"ok"
        early.close()
        with Load(first.listener) as load:
            first.signal(signal.SIGTERM)
            assert first.process.wait(PATIENCE) == 0
            second = started(file, command, fds=(listening.fileno(),)).ready()
            load.go_on()
            assert load.failures == []
        # Another worker, and one less, share the same socket.
        for workers in (3, 1):
            configure(listener=address, workers=workers)
            assert ask(second.admin, "/-/reload", "POST")[0] == 200
            until(lambda workers=workers: len(second.children("splitproxy.proxy.worker")) == workers)
            assert ask(address) == (200, "ok")


# --- an upgrade -------------------------------------------------------------------------------------------------------
def test_an_upgrade_is_noticed_by_no_request(configure, started, manager, tmp_path):
    program = started(configure(), environment={"NOTIFY_SOCKET": str(tmp_path / "notify")}).ready()
    first = program.pid
    with Load(program.listener, 8) as load:
        program.signal(signal.SIGUSR2)
        program.upgraded()
        load.go_on()
        assert load.failures == []
    until(lambda: requests_counted(program) == load.answers)  # of both programs, to the last one
    assert program.pid != first
    assert f"MAINPID={program.pid}" in [manager.until_told("MAINPID="), *manager.told]
    assert manager.until_told("READY=1")
    assert "STOPPING=1" not in "".join(manager.told)
    assert len(program.children("splitproxy.proxy.worker")) == 2
    program.signal(signal.SIGUSR2)  # and once more
    program.until_said(rf"upgraded: process (?!{program.pid}\b)\d+ serves")
    old = program.pid
    program.pid = int(re.findall(r"upgraded: process (\d+) serves", program.log)[-1])
    until(lambda: not alive(old))
    assert ask(program.listener) == (200, "ok")


def test_an_upgrade_with_other_workers_and_listeners_loses_nothing(configure, started):
    address = free_address()
    program = started(configure(listener=address, workers=3)).ready()
    configure(listener=address, workers=1)
    with Load(address, 8) as load:
        program.signal(signal.SIGUSR2)
        program.upgraded()
        load.go_on()
        assert load.failures == []
    assert len(program.children("splitproxy.proxy.worker")) == 1


def test_a_request_under_way_is_finished_by_the_old_program(configure, started, upstream):
    program = started(configure()).ready()
    answers = []
    client = threading.Thread(target=lambda: answers.append(ask(program.listener, "/slow")))
    client.start()
    assert upstream.asked.wait(PATIENCE)
    program.signal(signal.SIGUSR2)
    program.until_said("upgraded: process")
    assert ask(program.listener) == (200, "ok")
    upstream.release.set()
    client.join(PATIENCE)
    assert answers == [(200, "ok")]
    program.upgraded()


@pytest.mark.parametrize("broken", ["configuration", "program"])
def test_an_upgrade_that_fails_leaves_everything_as_it_was(broken, configure, started, tmp_path):
    sitecustomize = tmp_path / "site" / "sitecustomize.py"
    sitecustomize.parent.mkdir()
    python_path = f"{sitecustomize.parent}{os.pathsep}{child_environment().get('PYTHONPATH', '')}"
    program = started(configure(), environment={"PYTHONPATH": python_path}).ready()
    workers = program.children("splitproxy.proxy.worker")
    with Load(program.listener) as load:
        if broken == "configuration":
            configure(workers=0)
        else:
            sitecustomize.write_text("import os\nif 'SPLITPROXY_HANDOVER' in os.environ: os._exit(3)\n")
        program.signal(signal.SIGUSR2)
        program.until_said("not upgraded: the new program ended")
        load.go_on()
        assert load.failures == []
    assert program.children("splitproxy.proxy.worker") == workers
    sitecustomize.write_text("")
    configure()
    until(lambda: program.children("splitproxy.control") and not refused(program.admin))
    until(lambda: ask(program.admin, "/readyz")[0] == 200)
    program.signal(signal.SIGUSR2)
    program.upgraded()
    assert ask(program.listener) == (200, "ok")


# --- the admin API ----------------------------------------------------------------------------------------------------
def test_with_tokens_only_operators_change_anything_and_all_of_it_is_noted(configure, started, tmp_path):
    audit = tmp_path / "audit.log"
    reader, operator = "reader-0123456789", "operator-0123456789"
    tokens = [
        {"name": "ann", "value": reader},
        {"name": "bob", "role": "operator", "value": operator},
    ]
    file = configure()
    config = json.loads(file.read_text())
    config["admin"] |= {"tokens": tokens, "auditLog": str(audit)}
    file.write_text(json.dumps(config))
    program = started(file).ready()
    paths = ("/healthz", "/readyz", "/", "/metrics", "/api/v1/config")  # the page itself tells nothing
    assert [ask(program.admin, path)[0] for path in paths] == [200, 200, 200, 401, 401]
    assert ask(program.admin, "/metrics", headers={"Authorization": f"Bearer {reader}"})[0] == 200

    def drain(token):
        command = [sys.executable, "-m", "splitproxy", "drain", "--admin", program.admin]
        environment = {**child_environment(), "SPLITPROXY_TOKEN": token}
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)

    assert "may only read" in drain(reader).stderr
    assert drain(operator).returncode == 0
    assert program.process.wait(PATIENCE) == 0
    lines = [json.loads(line) for line in audit.read_text().splitlines()]
    assert [(line["who"], line["status"]) for line in lines] == [(None, 403), ("bob", 202)]
    assert reader not in program.log + audit.read_text()
    assert operator not in program.log + audit.read_text()
