"""What people see in a terminal, and scripts in a pipe, while a real rollout goes on. The terminal is tmux's."""

import contextlib
import json
import re
import resource
import shlex
import shutil
import subprocess
import sys
import threading
import time

import pytest

from splitproxy.children import child_environment

pytestmark = pytest.mark.slow
PATIENCE = 40.0
MOST_CPU_SECONDS = 0.15
"""What `splitproxy status` may cost."""
needs_tmux = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")


class Terminal:
    """A terminal of some size in which a verb runs."""

    def __init__(self, folder, words, width, height, **environment):
        self._socket = str(folder / f"tmux-{time.monotonic_ns()}")
        variables = {**child_environment(), "TERM": "xterm-256color", **environment}
        without = [word for name in ("NO_COLOR", "COLUMNS", "LINES") for word in ("-u", name)]
        settings = [f"{key}={value}" for key, value in variables.items()]
        command = shlex.join(["env", *without, *settings, sys.executable, "-m", "splitproxy", *words])
        code = f'{command}; echo "exit code $?"; sleep {PATIENCE}'
        self._tmux("-f", "/dev/null", "new-session", "-d", "-x", str(width), "-y", str(height), code)

    def _tmux(self, *words):
        done = subprocess.run(["tmux", "-S", self._socket, *words], capture_output=True, text=True, check=True)
        return done.stdout

    def seen(self, *options):
        return self._tmux("capture-pane", "-p", *options)

    def until(self, pattern):
        """Wait until what is seen has `pattern`, and return all of it."""
        end = time.monotonic() + PATIENCE
        while not re.search(pattern, text := self.seen()):
            assert time.monotonic() < end, text
            time.sleep(0.05)
        return text

    def press(self, *keys):
        self._tmux("send-keys", *keys)

    def resize(self, width, height):
        """Make it another size; tmux sometimes takes only one of both at first."""
        end = time.monotonic() + PATIENCE
        while self._tmux("display-message", "-p", "#{pane_width}x#{pane_height}").strip() != f"{width}x{height}":
            assert time.monotonic() < end
            self._tmux("resize-window", "-x", str(width), "-y", str(height))

    def close(self):
        with contextlib.suppress(subprocess.CalledProcessError):
            self._tmux("kill-server")


@pytest.fixture
def terminal(tmp_path):
    made = []

    def start(proxy, *words, size=(80, 24), **environment):
        made.append(Terminal(tmp_path, words, *size, SPLITPROXY_ADMIN=proxy.admin, **environment))
        return made[-1]

    yield start
    for one in made:
        one.close()


@pytest.fixture
def proxy(running, services, clients, free_address, tmp_path):
    """A proxy with a rollout that halts at 20 % and at 60 %, and its clients."""
    analysis = {"interval": "1s", "threshold": 2, "minRequests": 3,
                "metrics": [{"name": "request-success-rate", "thresholdRange": {"min": 99}}],
                "steps": [{"setWeight": 20, "pause": {}}, {"setWeight": 60, "pause": {}}]}  # fmt: skip
    release = {"name": "shop", "route": "shop", "primary": "shop-v1", "canary": "shop-v2", "revision": "1"}
    made = running(
        {
            "listeners": [{"address": "127.0.0.1:0"}],
            "admin": {"address": free_address()},
            "state": {"path": str(tmp_path / "state.db")},
            "upstreams": [{"name": one.name, "endpoints": [f"http://{one.address}"]} for one in services],
            "routes": [{"name": "shop", "rules": [{"backendRefs": [{"name": "shop-v1"}]}]}],
            "rollouts": [{**release, "analysis": analysis}],
        },
        tmp_path,
    )
    clients(made)
    return made


def splitproxy(proxy, *words, **how):
    environment = {**child_environment(), "SPLITPROXY_ADMIN": proxy.admin}
    return subprocess.run(
        [sys.executable, "-m", "splitproxy", *words],
        env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False, **how,
    )  # fmt: skip


@needs_tmux
def test_on_terminals_it_is_watched_and_steered(proxy, terminal):
    small = terminal(proxy, "status", "shop", "--watch")
    text = small.until(r"shop: Paused, 20 % to shop-v2, step 1 of 2(.|\n)*request-success-rate +pass +100 %")
    assert re.search(r"shop-v1 +primary +80 % +[\d.]+ % +\d+\.\d +100 % ", text)
    assert re.search(r"plan +\[20 %, pause\] → 60 %, pause", text)
    assert re.search(r"\d\d:\d\d:\d\d +weight +sends 20 % to shop-v2", text)
    assert re.search(r"r resume +m promote +a abort .* q leaves +\d\d:\d\d:\d\d\n*$", text), "its last line"

    top = terminal(proxy, "top", NO_COLOR="1")
    every = terminal(proxy, "status", "--watch", size=(120, 40), NO_COLOR="1")
    text = top.until(r"shop/0 +shop-v2 +canary +20 % +\d+\.\d +100 %")
    assert re.search(r"shop-v1 +127\.0\.0\.1:\d+ +healthy ", text)
    assert re.search(r"requests/s   last 10 s   by rate", text)
    every.until(r"ROLLOUT +PHASE +(.|\n)*shop +Paused +20 % +1 of 2 ")
    for one in (top, every):
        assert "\x1b[3" not in one.seen("-e").replace("\x1b[39m", ""), "no colour was wanted"
    top.press("C-c")
    top.until("exit code 130")
    every.close()

    small.press("r")
    small.until(r"resume shop\? y: yes")
    small.press("n")
    assert proxy.rollout("shop")["phase"] == "Paused"
    small.until("q leaves")
    small.press("r")
    small.until(r"resume shop\? y: yes")
    small.press("y")
    small.until("shop: Paused, 60 % to shop-v2, step 2 of 2")

    small.resize(120, 40)
    small.until(r"shop-v2 +canary +60 % +[\d.]+ % .*█{10,}")
    (pid,) = proxy.children("splitproxy.control")
    end = time.monotonic() + PATIENCE
    while not re.search(r"As of \d+ s ago\. No splitproxy answers", text := small.seen()):
        assert time.monotonic() < end, text
        with contextlib.suppress(ValueError):  # nobody is there who could be killed
            proxy.kill_control()
    text = small.until(r"^shop: Paused, 60 %")
    assert proxy.children("splitproxy.control") != [pid]
    small.press("q")
    assert small.until("exit code 0").count("shop: Paused, 60 % to shop-v2") == 1, "the shell's own lines are back"


def test_scripts_wait_follow_and_ask_cheaply(proxy):
    environment = {**child_environment(), "SPLITPROXY_ADMIN": proxy.admin}
    command = [sys.executable, "-m", "splitproxy", "events", "--follow", "--json"]
    lines, come = [], threading.Condition()
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as follower:

        def read():
            for line in follower.stdout:
                with come:
                    lines.append(json.loads(line))
                    come.notify_all()

        def told(words):
            return any(words in line["data"].get("text", "") for line in lines)

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        try:
            reached = splitproxy(proxy, "status", "shop", "--wait", "paused", "--timeout", "30s", "--json")
            assert (reached.returncode, json.loads(reached.stdout)["canaryWeight"], reached.stderr) == (0, 20, "")
            with come:
                assert come.wait_for(lambda: told("sends 20 % to shop-v2"), PATIENCE)
            proxy.kill_control()
            proxy.until("shop", lambda rollout: rollout["phase"] == "Paused")
            assert proxy.act("shop", "abort")[0] == 202
            with come:
                assert come.wait_for(lambda: told("Paused -> Failed"), PATIENCE), lines
        finally:
            follower.terminate()
            reader.join(PATIENCE)
        assert "trying again" in follower.stderr.read()

    ended = splitproxy(proxy, "status", "shop", "--wait", "Succeeded")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("It ended otherwise. shop: Failed")
    late = splitproxy(proxy, "status", "shop", "--wait", "Succeeded", "--revision", "2", "--timeout", "0.1s")
    assert late.returncode == 3
    examined = json.loads(splitproxy(proxy, "doctor", "-c", str(proxy.config), "--json").stdout)
    served = [
        one["text"] for one in examined["findings"] if one["text"].endswith("is served by the splitproxy that runs")
    ]
    assert served == [f"{proxy.admin} is served by the splitproxy that runs"], "the listener has a port of its own"

    costs = []
    while len(costs) < 10 and min(costs, default=1.0) > MOST_CPU_SECONDS:  # other programs spoil caches
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert splitproxy(proxy, "status").returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        costs.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(costs) <= MOST_CPU_SECONDS, costs
