"""A running proxy with rollouts, and everybody whom it talks to: upstreams, clients, hooks, operators."""

import contextlib
import http.client
import http.server
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from running import children

from splitproxy.children import child_environment
from splitproxy.supervisor import DRAIN_SECONDS

PATIENCE = 40.0
"""No wait of these tests is longer."""


class Server(http.server.ThreadingHTTPServer):
    """A server on a free port, in threads of its own."""

    daemon_threads = True
    request_queue_size = 512

    def __init__(self, handler):
        super().__init__(("127.0.0.1", 0), handler)
        self.address = f"127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def handle_error(self, *_):
        """Clients of a killed process leave in the middle."""


class Service(Server):
    """One version of a service: answers with its name and `status`, and counts what it is asked."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.server.asked += 1
            self.send_response(self.server.status)
            self.send_header("Content-Length", str(len(self.server.name)))
            self.end_headers()
            self.wfile.write(self.server.name.encode())

        def log_message(self, *_):
            pass

    def __init__(self, name):
        self.name, self.status, self.asked = name, 200, 0
        super().__init__(self.Handler)


class Receiver(Server):
    """Takes webhooks and alerts: keeps them, and answers each path with the status that `statuses` has for it."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status = self.server.note(self.path, json.loads(body))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    def __init__(self):
        self.statuses, self.calls, self._come = {}, [], threading.Condition()
        super().__init__(self.Handler)

    def note(self, path, body):
        with self._come:
            self.calls.append((path, body))
            self._come.notify_all()
        return self.statuses.get(path, 200)

    def until_called(self, path, holds=lambda body: True):
        """Wait for a call of `path` with a body that `holds`, and return the body."""

        def found():
            return next((body for called, body in self.calls if called == path and holds(body)), None)

        with self._come:
            assert self._come.wait_for(found, PATIENCE), self.calls
            return found()


class Proxy:
    """`splitproxy run`, watched by its events."""

    def __init__(self, config, admin):
        self.config, self.admin, self.lines = config, admin, []
        self._come, self._closed = threading.Condition(), threading.Event()
        self._changes, self._stream = 0, None
        self.process = subprocess.Popen(
            [sys.executable, "-m", "splitproxy", "run", "-c", str(config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=child_environment(),
            start_new_session=True,
        )
        self._threads = [threading.Thread(target=target, daemon=True) for target in (self._read, self._listen)]
        for thread in self._threads:
            thread.start()
        self.listener = self._until_said(r"listening on ([^\s,;]+)")

    def _read(self):
        for line in self.process.stderr:
            with self._come:
                self.lines.append(line)
                self._come.notify_all()
        self.process.wait()
        with self._come:
            self._come.notify_all()

    def _until_said(self, pattern):
        def found():
            return next((match[1] for line in self.lines if (match := re.search(pattern, line))), None)

        with self._come:
            assert self._come.wait_for(lambda: found() or self.process.poll() is not None, PATIENCE), self.log
            assert found(), self.log
            return found()

    @property
    def log(self):
        return "".join(self.lines)

    def _listen(self):
        """Count events, over as many connections as it takes: control may be killed meanwhile."""
        while not self._closed.is_set():
            with contextlib.suppress(OSError, http.client.HTTPException), connection(self.admin) as admin:
                admin.request("GET", "/api/v1/events")
                self._stream = admin.sock
                stream = admin.getresponse()
                self._changed()
                while line := stream.readline():
                    if line.startswith(b"event: "):
                        self._changed()
            self._closed.wait(0.05)

    def _changed(self):
        with self._come:
            self._changes += 1
            self._come.notify_all()

    def connected(self):
        """Return a context with a connection to the listener."""
        return connection(self.listener)

    def ask(self, path, method="GET", body=None, headers=None):
        content = None if body is None else json.dumps(body)
        with connection(self.admin) as admin:
            admin.request(method, path, content, headers or {})
            answer = admin.getresponse()
            return answer.status, json.loads(answer.read())

    def rollout(self, name):
        status, body = self.ask(f"/api/v1/rollouts/{name}?history=1000")
        assert status == 200, body
        return body

    def act(self, name, verb, body=None):
        return self.ask(f"/api/v1/rollouts/{name}/{verb}", "POST", body)

    def until(self, name, holds):
        """Look at a rollout after every event until it `holds`, and return it."""
        end, latest = time.monotonic() + PATIENCE, None
        while True:
            seen = self._changes
            with contextlib.suppress(OSError, http.client.HTTPException):
                latest = self.rollout(name)
                if holds(latest):
                    return latest
            assert time.monotonic() < end, f"{json.dumps(latest, indent=1)}\n{self.log}"
            with self._come:
                self._come.wait_for(lambda seen=seen: self._changes != seen, 0.5)

    def until_phase(self, name, *phases):
        return self.until(name, lambda rollout: rollout["phase"] in phases and rollout["attempt"] > 0)

    def reload(self, config):
        """Change the file and have it applied; return the status and the answer."""
        self.config.write_text(json.dumps(config))
        return self.ask("/-/reload", "POST")

    def children(self, module):
        return children(self.process.pid, module)

    def kill_control(self):
        """Kill control with -9."""
        (pid,) = self.children("splitproxy.control")
        os.kill(pid, signal.SIGKILL)

    def kill_everything(self):
        """Kill every process with -9, as a machine that loses its power would."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self):
        self._closed.set()
        with contextlib.suppress(OSError, AttributeError):
            self._stream.shutdown(socket.SHUT_RDWR)  # a listener that stays would have the end wait for it
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(DRAIN_SECONDS + 5)
            except subprocess.TimeoutExpired:
                self.kill_everything()
        self._threads[0].join(PATIENCE)
        self.process.stderr.close()


class Clients:
    """A few clients of one host, on connections that are kept, until told to stop."""

    def __init__(self, address, host, headers=(), count=3):
        self.answers, self._come, self._stop = [], threading.Condition(), threading.Event()
        """Status and body of each, oldest first."""
        self._asked = []
        """When each was asked for."""
        self._headers = {"Host": host, **dict(headers)}
        self._threads = [threading.Thread(target=self._run, args=(address,), daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _run(self, address):
        while not self._stop.is_set():
            with contextlib.suppress(OSError, http.client.HTTPException), connection(address) as proxy:
                while not self._stop.is_set():
                    asked = time.monotonic()
                    proxy.request("GET", "/", headers=self._headers)
                    answer = proxy.getresponse()
                    told = answer.status, answer.read().decode()
                    with self._come:
                        self.answers.append(told)
                        self._asked.append(asked)
                        self._come.notify_all()
                    self._stop.wait(0.01)
            self._stop.wait(0.02)

    def next(self, count=40):
        """Return the next `count` answers, without those that were under way when this was asked."""
        now, first = time.monotonic(), len(self.answers)

        def later():
            pairs = zip(self.answers[first:], self._asked[first:], strict=True)
            return [told for told, asked in pairs if asked >= now]

        with self._come:
            assert self._come.wait_for(lambda: len(later()) >= count, PATIENCE)
            return later()[:count]

    def names(self, count=40):
        """Return who answers now: name -> how many of the next `count` requests."""
        bodies = [body for _, body in self.next(count)]
        return {name: bodies.count(name) for name in dict.fromkeys(bodies)}

    def stop(self):
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE)


@contextlib.contextmanager
def connection(address):
    host, port = address.rsplit(":", 1)
    made = http.client.HTTPConnection(host, int(port), timeout=PATIENCE)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def services():
    made = Service("shop-v1"), Service("shop-v2")
    yield made
    for service in made:
        service.shutdown()
        service.server_close()


@pytest.fixture
def receiver():
    made = Receiver()
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture
def running():
    """Return a function that starts a proxy with a configuration (plain data)."""
    made = []

    def run(config, folder):
        file = folder / "splitproxy.yaml"
        file.write_text(json.dumps(config))
        made.append(Proxy(file, config["admin"]["address"]))
        return made[-1]

    yield run
    for proxy in made:
        proxy.stop()


@pytest.fixture
def clients():
    """Return a function that starts clients of a proxy."""
    made = []

    def start(proxy, host="shop.example.com", **how):
        made.append(Clients(proxy.listener, host, **how))
        return made[-1]

    yield start
    for one in made:
        one.stop()


@pytest.fixture
def free_address():
    """Return a function that finds an address that is free at the moment."""

    def find():
        with socket.create_server(("127.0.0.1", 0)) as sock:
            return f"127.0.0.1:{sock.getsockname()[1]}"

    return find
