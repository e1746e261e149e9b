"""Greedy clients of the real program: what they cost, and what is left for others."""

import contextlib
import http.client
import json
import re
import resource
import socket
import socketserver
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from splitproxy.children import child_environment

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
DESCRIPTORS = 256
"""Of each process of the proxy."""
PATIENCE = 20


def test_two_thousand_slow_clients_cost_little_memory():
    command = [sys.executable, "loadtests/slow_clients.py", "--clients", "2000", "--seconds", "1"]
    done = subprocess.run(
        command, cwd=ROOT, env=child_environment(), capture_output=True, text=True, check=False, timeout=50
    )
    found = re.search(r"each: (-?\d+) bytes of memory each", done.stdout)
    assert found, done.stdout + done.stderr
    assert int(found[1]) <= 8192
    assert "(0 cut off)" in done.stdout, "nothing but memory and being served is judged here: the machine is shared"


@pytest.fixture
def cramped(services, free_address, tmp_path):
    """A proxy whose processes may have few descriptors; return its listener, its admin address and its worker."""
    file, admin = tmp_path / "splitproxy.yaml", free_address()
    configuration = {
        "listeners": [{"address": "127.0.0.1:0"}],
        "admin": {"address": admin},
        "limits": {"headerTimeout": "1m"},
        "upstreams": [{"name": "shop", "endpoints": [f"http://{services[0].address}"]}],
        "routes": [{"name": "shop", "rules": [{"backendRefs": [{"name": "shop"}]}]}],
    }
    file.write_text(json.dumps(configuration))
    limited = (
        f"import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_NOFILE, ({DESCRIPTORS}, {DESCRIPTORS}));"
    )
    limited += (
        "sys.argv = ['splitproxy', 'run', '-c', sys.argv[1]]; runpy.run_module('splitproxy', run_name='__main__')"
    )
    command = [sys.executable, "-c", limited, str(file)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=child_environment()) as program:
        try:
            for line in program.stderr:
                if found := re.search(r"ready: listening on (\S+);", line):
                    break
            children = Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text().split()
            worker = next(pid for pid in children if "proxy.worker" in Path(f"/proc/{pid}/cmdline").read_text())
            yield found[1], admin, worker
        finally:
            program.kill()


@contextlib.contextmanager
def connected(address, timeout=PATIENCE):
    host, port = address.rsplit(":", 1)
    made = http.client.HTTPConnection(host, int(port), timeout=timeout)
    try:
        yield made
    finally:
        made.close()


def get(connection, path="/"):
    connection.request("GET", path)
    answer = connection.getresponse()
    answer.read()
    return answer.status


def seconds_of(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


def test_more_clients_than_descriptors_stop_nobody_who_is_inside_and_are_served_in_the_end(cramped):
    listener, admin, worker = cramped
    host, port = listener.rsplit(":", 1)
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert soft > 2 * DESCRIPTORS, "this test needs more descriptors than it leaves to the proxy"
    with connected(listener) as inside, contextlib.ExitStack() as crowd:
        assert get(inside) == 200
        for _ in range(DESCRIPTORS + 50):
            crowd.enter_context(socket.create_connection((host, int(port)), PATIENCE))
        assert get(inside) == 200
        began = seconds_of(worker)
        with connected(listener, 1.5) as late, pytest.raises(TimeoutError):
            get(late)
        assert seconds_of(worker) - began < 0.5, "it waits, it does not spin"
        assert [get(inside) for _ in range(20)] == [200] * 20
        with connected(admin) as operator:
            assert get(operator, "/readyz") == 200
        crowd.close()
        with connected(listener) as late:
            assert get(late) == 200


# --- tunnels of a rollout ------------------------------------------------------------------------------------------
UPGRADE = b"GET /ws HTTP/1.1\r\nHost: shop.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


class Echo(socketserver.ThreadingTCPServer):
    """Switches protocols, says its name, and sends back what comes."""

    daemon_threads = True

    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            while self.rfile.readline() not in (b"\r\n", b""):
                pass
            self.wfile.write(SWITCH + self.server.name)
            self.wfile.flush()
            while data := self.request.recv(4096):
                self.request.sendall(data)

    def __init__(self, name):
        super().__init__(("127.0.0.1", 0), self.Handler)
        self.name = name
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def handle_error(self, *_):
        """Whoever was cut off."""

    def server_close(self):
        self.shutdown()  # its thread would ask a closed socket again and again
        super().server_close()


def tunnel(address):
    """Open a tunnel; return its socket and the name of the one at its other end."""
    host, port = address.rsplit(":", 1)
    made = socket.create_connection((host, int(port)), PATIENCE)
    made.sendall(UPGRADE)
    seen = b""
    while len(seen) <= seen.find(b"\r\n\r\n") + 4 or b"\r\n\r\n" not in seen:
        seen += made.recv(4096)
    return made, seen.rpartition(b"\r\n\r\n")[2]


def lives(made):
    made.sendall(b"abc")
    return made.recv(3) == b"abc"


@pytest.mark.parametrize("tunnels", ["keep", "close"])
def test_an_abort_does_with_the_canarys_tunnels_what_is_configured(running, free_address, tmp_path, tunnels):
    with Echo(b"v1") as old, Echo(b"v2") as new, contextlib.ExitStack() as stack:
        upstreams = {"v1": old, "v2": new}
        analysis = {"interval": "1s", "threshold": 2, "steps": [{"setWeight": 100}, {"pause": {}}], "metrics": []}
        sides = {"route": "shop", "primary": "v1", "canary": "v2", "revision": "1"}
        config = {
            "listeners": [{"address": "127.0.0.1:0"}],
            "admin": {"address": free_address()},
            "state": {"path": str(tmp_path / "state.db")},
            "upstreams": [
                {"name": name, "endpoints": [f"http://127.0.0.1:{server.server_address[1]}"]}
                for name, server in upstreams.items()
            ],
            "routes": [{"name": "shop", "rules": [{"backendRefs": [{"name": "v1"}]}]}],
            "rollouts": [{"name": "shop", **sides, "rollback": {"tunnels": tunnels}, "analysis": analysis}],
        }
        proxy = running(config, tmp_path)
        proxy.until("shop", lambda rollout: rollout["canaryWeight"] == 100)
        canary, name = tunnel(proxy.listener)
        stack.enter_context(canary)
        assert (name, lives(canary)) == (b"v2", True)
        assert proxy.act("shop", "abort")[0] == 202
        began = time.monotonic()
        primary, name = tunnel(proxy.listener)
        stack.enter_context(primary)
        assert name == b"v1"
        if tunnels == "keep":
            time.sleep(1)
            assert lives(canary)
        else:
            assert canary.recv(1) == b""
            assert time.monotonic() - began < 1
        assert lives(primary)
