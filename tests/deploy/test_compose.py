"""The example for Docker Compose: its file is valid, and what it runs is run here, without Docker, under Prometheus."""

import contextlib
import http.client
import itertools
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from pathlib import Path

import pytest
import yaml

from splitproxy.children import child_environment

PATIENCE = 40.0
TOKEN = "only-for-this-machine"
SUCCESS = """
    sum(rate(istio_requests_total{reporter="destination", destination_workload_namespace="default",
                                  destination_workload=~"shop-v2", response_code!~"5.*"}[1m]))
    / sum(rate(istio_requests_total{reporter="destination", destination_workload_namespace="default",
                                    destination_workload=~"shop-v2"}[1m])) * 100
"""
DURATION = """
    histogram_quantile(0.99, sum(rate(istio_request_duration_milliseconds_bucket{reporter="destination",
        destination_workload_namespace="default", destination_workload=~"shop-v2"}[1m])) by (le))
"""
NGINX = """
    sum(rate(nginx_ingress_controller_requests{namespace="default", ingress="shop", canary!="", status!~"5.*"}[1m]))
    / sum(rate(nginx_ingress_controller_requests{namespace="default", ingress="shop", canary!=""}[1m])) * 100
"""
LINKERD = 'sum(rate(response_total{namespace="default", deployment="shop-v2", classification="success"}[1m]))'


@pytest.fixture
def folder(deploy):
    return deploy / "compose"


@pytest.fixture
def compose(folder):
    return yaml.safe_load((folder / "docker-compose.yaml").read_text())


def test_the_file_is_what_the_specification_wants(folder, compose):
    compose_spec = pytest.importorskip("compose_spec", reason="compose-spec is not installed (extra deploy)")
    read = compose_spec.PyCompose.from_yaml(yaml.safe_dump(compose))  # merges (<<) done
    read.validate()
    mistyped = yaml.safe_dump(compose).replace("stop_grace_period", "stop_grace")
    with pytest.raises(ValueError, match="stop_grace"):
        compose_spec.PyCompose.from_yaml(mistyped)


def test_every_file_that_is_mounted_is_there(folder, compose):
    volumes = [volume for service in compose["services"].values() for volume in service.get("volumes", ())]
    sources = {volume.split(":")[0] for volume in volumes}
    assert {source for source in sources if not source.startswith(".")} == compose["volumes"].keys()
    assert [source for source in sources if source.startswith(".") and not (folder / source).exists()] == []
    build = folder / compose["services"]["splitproxy"]["build"]
    assert (build / "Dockerfile").is_file()


def test_images_are_of_a_fixed_version(compose):
    images = {service["image"] for service in compose["services"].values() if "build" not in service}
    assert [image for image in images if not re.fullmatch(r"[\w./-]+:v?\d+\.\d+[\w.-]*", image)] == []


def test_only_the_shop_is_open_to_other_machines(compose):
    ports = [port for service in compose["services"].values() for port in service.get("ports", ())]
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == ["8080:8080"]


def test_it_is_one_container_that_keeps_its_state_and_has_time_to_end(folder, compose):
    service = compose["services"]["splitproxy"]
    assert service["deploy"] == {"replicas": 1}
    assert "state:/var/lib/splitproxy" in service["volumes"]
    dockerfile = (folder / service["build"] / "Dockerfile").read_text()
    assert "STATE_DIRECTORY=/var/lib/splitproxy" in dockerfile
    assert service["stop_grace_period"] == "30s"  # the defaults of drain are 0 s and 25 s
    assert "drain" not in yaml.safe_load((folder / "splitproxy.yaml").read_text())


# --- run -------------------------------------------------------------------------------------------------------------
def ports(count):
    """Return free ports; they are free a moment later too, as a rule."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def get(port, path, headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("GET", path, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def until(holds, what=""):
    """Wait until `holds()` and return what it returns; what is asked may not be there yet."""
    end, found = time.monotonic() + PATIENCE, None
    while time.monotonic() < end:
        with contextlib.suppress(OSError, http.client.HTTPException):
            found = holds()
            if found:
                return found
        time.sleep(0.1)
    raise AssertionError(f"not within {PATIENCE} s: {what or holds}; the last was {found}")


class Stage:
    """The processes of docker-compose.yaml, each with its own command and environment, at other ports."""

    def __init__(self, folder, compose, place):
        self.folder, self.services, self.place, self.started = folder, compose["services"], place, []
        self.proxy, self.admin, self.probes, *shops, self.prometheus = ports(6)
        self.addresses = {
            "0.0.0.0:8080": f"127.0.0.1:{self.proxy}",
            "0.0.0.0:9900": f"127.0.0.1:{self.admin}",
            "0.0.0.0:9901": f"127.0.0.1:{self.probes}",
            "shop-v1:8000": f"127.0.0.1:{shops[0]}",
            "shop-v2:8000": f"127.0.0.1:{shops[1]}",
            "splitproxy:8080": f"127.0.0.1:{self.proxy}",
            "splitproxy:9901": f"127.0.0.1:{self.probes}",
        }
        for name, port in zip(("shop-v1", "shop-v2"), shops, strict=True):
            self.start(name, {"PORT": str(port)})

    def moved(self, text):
        """Return `text` with the addresses of here."""
        for old, new in self.addresses.items():
            text = text.replace(old, new)
        return text

    def start(self, name, more=None):
        """Start a service as its container would, but for the paths."""
        service = self.services[name]
        environment = {
            key: re.sub(r"\$\{\w+:-(.*)\}", r"\1", value) for key, value in service.get("environment", {}).items()
        }
        command = [self.moved(word) for word in service["command"]]
        if name == "splitproxy":
            command = [sys.executable, "-m", "splitproxy", *command]
        command = [
            word.replace("/etc/splitproxy", str(self.place)).replace("/shop.py", str(self.folder / "shop.py"))
            for word in command
        ]
        command[0] = sys.executable
        log = (self.place / f"{name}.log").open("wb")
        variables = {**child_environment(), **environment, **(more or {})}
        self.started.append(subprocess.Popen(command, stdout=log, stderr=log, env=variables))
        log.close()

    def watch(self, prometheus):
        """Start Prometheus with the example's file and rules."""
        data = tempfile.mkdtemp(dir=self.place)
        file = prometheus / "prometheus.yaml"
        text = self.moved(file.read_text()).replace("interval: 5s", "interval: 1s")
        text = re.sub(r"- (recording|alerts|compatibility/\*)\.yaml", rf"- {prometheus}/\1.yaml", text)
        own = self.place / "prometheus.yaml"
        own.write_text(text)
        options = (
            f"--config.file={own}",
            f"--storage.tsdb.path={data}",
            f"--web.listen-address=127.0.0.1:{self.prometheus}",
        )
        with (self.place / "prometheus.log").open("wb") as log:
            self.started.append(
                subprocess.Popen(["prometheus", "--enable-feature=exemplar-storage", *options], stdout=log, stderr=log)
            )

    def query(self, expression, path="query"):
        """Return the result of a query to Prometheus."""
        status, body = get(self.prometheus, f"/api/v1/{path}?{urllib.parse.urlencode({'query': expression})}")
        said = json.loads(body)
        assert status == 200, (expression, said)
        return said["data"]["result"]

    def exemplars(self, name):
        """Return the exemplars of a metric."""
        window = urllib.parse.urlencode({"query": name, "start": 0, "end": 1 << 33})
        status, body = get(self.prometheus, f"/api/v1/query_exemplars?{window}")
        assert status == 200, body
        return [one for series in json.loads(body)["data"] for one in series["exemplars"]]

    def value(self, expression):
        """Return the one number that a query gives, None without any."""
        result = self.query(expression)
        return float(result[0]["value"][1]) if result else None

    def rollout(self):
        status, body = get(self.admin, "/api/v1/rollouts/shop", {"Authorization": f"Bearer {TOKEN}"})
        assert status == 200, body
        return json.loads(body)

    def stop(self):
        for process in self.started:
            process.terminate()
        codes = [process.wait(PATIENCE) for process in self.started]
        return dict(zip(("shop-v1", "shop-v2", "splitproxy"), codes, strict=False))


@contextlib.contextmanager
def visited(port, count=4):
    """Have a few visitors, more than the example's, so that checks are soon done."""
    stop = threading.Event()

    def visit():
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        while not stop.wait(0.01):
            connection.request("GET", "/")
            connection.getresponse().read()
        connection.close()

    threads = [threading.Thread(target=visit) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(PATIENCE)


@pytest.fixture
def stage(folder, compose, tmp_path):
    made = Stage(folder, compose, tmp_path)
    yield made
    for process in made.started:
        if process.poll() is None:
            process.kill()
        process.wait()


@pytest.fixture
def forgetful():
    """Return a folder in memory."""
    if not Path("/dev/shm").is_mount():
        pytest.skip("/dev/shm is no file system of its own")
    path = tempfile.mkdtemp(dir="/dev/shm")
    yield path
    shutil.rmtree(path)


def panels(deploy):
    """Return title -> queries of the dashboard, its variables filled in."""
    dashboard = json.loads((deploy / "grafana/splitproxy.json").read_text())
    for panel in dashboard["panels"]:
        queries = [re.sub(r"\$__\w+", "30s", target["expr"]) for target in panel.get("targets", ())]
        yield panel["title"], [re.sub(r"\$(job|route|rollout)", ".*", query) for query in queries]


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.skipif(not shutil.which("prometheus"), reason="prometheus is not installed")
def test_the_release_runs_and_everybody_can_watch_it(stage, folder, deploy, forgetful):
    text = stage.moved((folder / "splitproxy.yaml").read_text()).replace("interval: 10s", "interval: 1s")
    text += "tracing: {endpoint: 'http://127.0.0.1:9', sampler: always_on}\n"  # nobody listens, but traces there are
    (stage.place / "splitproxy.yaml").write_text(text)
    stage.start("splitproxy", {"STATE_DIRECTORY": forgetful})
    until(lambda: get(stage.probes, "/readyz")[0] == 200, "ready")
    stage.watch(deploy / "prometheus")
    stage.start("visitors")
    with visited(stage.proxy):
        until(lambda: stage.rollout()["phase"] == "Succeeded", "the release")
        # What Flagger asks of Istio, Linkerd and ingress-nginx.
        assert until(lambda: stage.value(SUCCESS) == 100.0)
        assert 0 < until(lambda: stage.value(DURATION)) < 1000
        assert until(lambda: stage.value(NGINX) == 100.0)
        assert until(lambda: stage.value(LINKERD) > 0)
        assert until(lambda: stage.value('flagger_canary_status{name="shop", namespace="default"}') == 1)
        assert until(lambda: stage.value('sum(flagger_canary_successes_total{name="shop"})') == 1)
        until(lambda: stage.query("version:splitproxy_request_duration_seconds:p99"))
        exemplars = until(lambda: stage.exemplars("splitproxy_request_duration_seconds_bucket"))
        empty = {title for title, queries in panels(deploy) for query in queries if not stage.query(query)}
    assert all(re.fullmatch("[0-9a-f]{32}", one["labels"]["trace_id"]) for one in exemplars)
    _, body = get(stage.prometheus, "/api/v1/rules")
    rules = list(itertools.chain(*(group["rules"] for group in json.loads(body)["data"]["groups"])))
    assert {rule["health"] for rule in rules} == {"ok"}, [rule for rule in rules if rule["health"] != "ok"]
    # Nothing failed, so nothing was retried; the canary is the primary by now; nothing is lost.
    assert empty == {"Why attempts failed", "Retries, failovers, mirrors", "What was lost of logs and metrics"}
    log = (stage.place / "splitproxy.log").read_text()
    assert "rollouts are remembered in" in log
    assert "it is in memory (/dev/shm is a tmpfs)" in log
    assert os.path.exists(f"{forgetful}/splitproxy.db")
    assert stage.stop()["splitproxy"] == 0
