"""Traffic through the real program: several workers that answer alike, splits, mirrors, the log and its rotation."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from splitproxy.children import child_environment

pytestmark = pytest.mark.slow
PATIENCE = 20.0


class Upstream(ThreadingHTTPServer):
    daemon_threads = True

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.server.seen.append((self.path, self.headers))
            self.send_response(200)
            self.send_header("Content-Length", str(len(self.server.name)))
            self.end_headers()
            self.wfile.write(self.server.name.encode())

        def log_message(self, *_):
            pass

    def __init__(self, name):
        super().__init__(("127.0.0.1", 0), self.Handler)
        self.name, self.seen = name, []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, *_):
        """A worker that ends closes its connections."""


def until(condition):
    end = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
    return found


@pytest.fixture
def upstreams():
    made = {name: Upstream(name) for name in ("stable", "next", "shadow")}
    yield made
    for upstream in made.values():
        upstream.shutdown()
        upstream.server_close()


@pytest.fixture
def proxy(tmp_path, upstreams):
    """The program with two workers; `.address`, `.pid`, `.log` (a path)."""

    class Proxy:
        log = tmp_path / "access.log"

        def get(self, path="/", **headers):
            host, port = self.address.split(":")
            connection = http.client.HTTPConnection(host, int(port), timeout=PATIENCE)
            try:
                connection.request(
                    "GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()}
                )
                response = connection.getresponse()
                return response.read().decode(), response.headers
            finally:
                connection.close()

        def lines(self):
            return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []

    path = tmp_path / "splitproxy.yaml"
    endpoints = "\n".join(
        f"  - {{name: {name}, endpoints: ['http://127.0.0.1:{upstream.server_address[1]}']}}"
        for name, upstream in upstreams.items()
    )
    path.write_text(
        "listeners: [{address: '127.0.0.1:0'}]\nadmin: {address: '127.0.0.1:0'}\nworkers: 2\n"
        f"accessLog: {{path: '{Proxy.log}', format: json}}\nupstreams:\n{endpoints}\nroutes:\n"
        "  - name: shop\n    rules:\n"
        "      - matches: [{path: {value: /keyed}}]\n"
        "        split: {key: {cookie: sp_id, issue: true}}\n"
        "        backendRefs: [{name: stable, weight: 50}, {name: next, weight: 50}]\n"
        "      - backendRefs: [{name: stable, weight: 80}, {name: next, weight: 20}]\n"
        "        split: {overrides: [{header: x-version, value: next, upstream: next}]}\n"
        "        filters: [{type: RequestMirror, requestMirror: {backendRef: {name: shadow}}}]\n"
    )
    command = [sys.executable, "-m", "splitproxy", "run", "-c", str(path)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=child_environment())
    proxy = Proxy()
    proxy.pid = process.pid
    for line in process.stderr:
        if found := re.search(r"ready: listening on (\S+);", line):
            proxy.address = found[1]
            break
    reader = threading.Thread(target=process.stderr.read, daemon=True)
    reader.start()
    yield proxy
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 0
    reader.join(PATIENCE)
    process.stderr.close()


def test_traffic_is_split_mirrored_and_logged(proxy, upstreams):
    got = [proxy.get("/a")[0] for _ in range(200)]
    assert 10 < got.count("next") < 80, "20 % within 7 standard deviations"
    assert {proxy.get(x_version="next")[0] for _ in range(10)} == {"next"}
    until(lambda: len(upstreams["shadow"].seen) == 210)
    assert all(headers["X-Splitproxy-Mirror"] == "shadow" for _, headers in upstreams["shadow"].seen)
    until(lambda: len(proxy.lines()) == 210)
    lines = proxy.lines()
    assert [line["reason"] for line in lines].count("override") == 10
    assert [line["upstream"] for line in lines].count("next") == got.count("next") + 10
    assert len({line["requestId"] for line in lines}) == 210, "unique among all workers"
    assert len({line["requestId"][:12] for line in lines}) == 2, "both workers took part"


def test_a_client_gets_the_same_answer_in_every_worker(proxy):
    for _ in range(10):
        name, headers = proxy.get("/keyed")
        cookie = re.fullmatch(r"(sp_id=[0-9a-f]{32}); Path=/; HttpOnly; SameSite=Lax", headers["Set-Cookie"])[1]
        assert {proxy.get("/keyed", cookie=cookie)[0] for _ in range(8)} == {name}


def test_after_usr1_all_workers_write_to_the_new_file(proxy):
    for _ in range(20):
        proxy.get("/before")
    until(lambda: len(proxy.lines()) == 20)
    rotated = proxy.log.with_suffix(".1")
    proxy.log.rename(rotated)
    os.kill(proxy.pid, signal.SIGUSR1)
    until(proxy.log.exists)
    for _ in range(20):
        proxy.get("/after")
    until(lambda: len(proxy.lines()) + len(rotated.read_text().splitlines()) == 40)
    assert {line["target"] for line in proxy.lines()} == {"/after"}
