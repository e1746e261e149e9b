"""A program that traces: a request is one trace from its client to its upstream, and nobody waits for the receiver."""

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

PATIENCE = 40.0
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CONTEXT = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "vendor=1"}


def until(found, seconds=PATIENCE):
    """Return what `found` returns as soon as that is true; it is asked again and again."""
    end = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.02)
    return value


class Server(http.server.ThreadingHTTPServer):
    """A server in threads of its own that keeps what it is asked."""

    daemon_threads = True

    def __init__(self):
        self.asked = []
        self.answers = threading.Event()
        self.answers.set()
        super().__init__(("127.0.0.1", 0), self.Handler)
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.server.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            self.server.answers.wait(PATIENCE)
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def do_GET(self):
            self.do_POST()

        def log_message(self, *_):
            pass

    def handle_error(self, *_):
        """Whoever asked is gone."""

    @property
    def spans(self):
        """Return all spans that came."""
        bodies = [json.loads(body) for _, _, body in list(self.asked)]
        return [span for body in bodies for span in body["resourceSpans"][0]["scopeSpans"][0]["spans"]]


class Program:
    def __init__(self, folder, upstream, receiver):
        with socket.socket() as one, socket.socket() as other, socket.socket() as dead:
            for sock in (one, other, dead):
                sock.bind(("127.0.0.1", 0))
            self.address, self.admin, nobody = (f"127.0.0.1:{sock.getsockname()[1]}" for sock in (one, other, dead))
        self.log = folder / "access.log"
        file = folder / "proxy.yaml"
        file.write_text(
            f"""
            listeners: [{{address: '{self.address}'}}]
            admin: {{address: '{self.admin}'}}
            accessLog: {{path: {self.log}}}
            state: {{path: {folder / "state.db"}}}
            tracing: {{ratio: 0}}
            upstreams:
              - {{name: a, endpoints: ['http://127.0.0.1:{upstream.server_port}']}}
              - name: b
                endpoints: ['http://{nobody}']
                healthCheck: {{path: /, interval: 100ms, unhealthyThreshold: 1}}
            routes:
              - {{name: shop, rules: [{{backendRefs: [{{name: a}}, {{name: b, weight: 0}}]}}]}}
            """
        )
        self._said = folder / "log"
        variables = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{receiver.server_port}",
            "OTEL_SERVICE_NAME": "edge",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "20000",
        }
        with self._said.open("w") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "splitproxy", "run", "-c", str(file), "--log-format", "json"],
                stderr=said,
                env={**child_environment(), **variables},
                start_new_session=True,
            )
        until(lambda: "ready: " in self._said.read_text())

    def get(self, path="/", **headers):
        """Return the status of the answer, and how long it took."""
        began = time.monotonic()
        connection = http.client.HTTPConnection(self.address, timeout=PATIENCE)
        connection.request("GET", path, headers=headers)
        status = connection.getresponse().status
        connection.close()
        return status, time.monotonic() - began

    def metric(self, line):
        connection = http.client.HTTPConnection(self.admin, timeout=PATIENCE)
        connection.request("GET", "/metrics")
        found = re.search(re.escape(line) + r" (\S+)", connection.getresponse().read().decode())
        connection.close()
        return float(found[1])

    def lines(self):
        """Return the program's log, line by line."""
        return [json.loads(line) for line in self._said.read_text().splitlines()]


@pytest.fixture(scope="module")
def upstream():
    server = Server()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def receiver():
    server = Server()
    yield server
    server.answers.set()
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def program(tmp_path_factory, upstream, receiver):
    program = Program(tmp_path_factory.mktemp("traced"), upstream, receiver)
    yield program
    program.process.send_signal(signal.SIGINT)
    assert program.process.wait(PATIENCE) == 0


def attributes(span):
    return {one["key"]: next(iter(one["value"].values())) for one in span["attributes"]}


def test_a_request_is_one_trace_from_the_client_to_the_upstream(program, upstream, receiver):
    assert program.get("/a?b=c", **CONTEXT)[0] == 200
    server, client = until(lambda: [span for span in receiver.spans if span["traceId"] == TRACE])
    path, headers, _ = upstream.asked[-1]
    assert path == "/a?b=c"
    assert headers["traceparent"] == f"00-{TRACE}-{client['spanId']}-01"
    assert headers["tracestate"] == server["traceState"] == "vendor=1"
    assert (server["parentSpanId"], client["parentSpanId"]) == (SPAN, server["spanId"])
    assert (server["name"], attributes(server)["splitproxy.upstream"]) == ("GET shop", "a")
    described = json.loads(receiver.asked[0][2])["resourceSpans"][0]["resource"]
    assert attributes(described)["service.name"] == "edge"
    (line,) = until(lambda: [json.loads(line) for line in program.log.read_text().splitlines()])
    assert (line["traceId"], line["spanId"]) == (TRACE, server["spanId"])


def test_what_the_ratio_leaves_out_is_told_as_not_recorded(program, upstream):
    assert program.get("/left-out")[0] == 200
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-00", upstream.asked[-1][1]["traceparent"])


def test_a_receiver_that_hangs_holds_up_nobody(program, receiver):
    receiver.answers.clear()
    before, known = program.metric('splitproxy_spans_total{result="exported"}'), len(receiver.asked)
    program.get("/hangs", **CONTEXT)
    until(lambda: len(receiver.asked) > known)
    answers = [program.get("/meanwhile", **CONTEXT) for _ in range(100)]
    assert {status for status, _ in answers} == {200}
    assert max(seconds for _, seconds in answers) < 5, "and not the receiver's 20 s"
    receiver.answers.set()
    until(lambda: program.metric('splitproxy_spans_total{result="exported"}') == before + 2 * 101)


def test_spans_go_on_after_control_was_replaced(program, receiver):
    (control,) = children(program.process.pid, "splitproxy.control")
    os.kill(control, signal.SIGKILL)
    program.get("/while-it-is-away", **CONTEXT)
    until(lambda: any(attributes(span).get("url.path") == "/while-it-is-away" for span in receiver.spans))


def test_every_process_logs_lines_for_machines(program):
    lines = until(lambda: [line for line in program.lines() if line["logger"] == "splitproxy.health"])
    line = lines[0]
    assert (line["process"], line["level"], line["upstream"]) == ("worker 0", "warning", "b")
    assert line["endpoint"] in line["message"]
    said = program.lines()
    assert {line["process"] for line in said} == {"supervisor", "control", "worker 0"}
    assert all(list(line)[:5] == ["time", "level", "process", "logger", "message"] for line in said)
    (loaded,) = [line for line in said if line.get("generation") == 1 and line["level"] == "info"][:1]
    assert loaded["trigger"] == "start"
