"""A proxy and upstreams for the everyday cases, what happens there during a case, and what is seen afterwards."""

import http.client
import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path

from .everyday import Checks
from .processes import ROOT, Process, command_line, cpu_seconds, exchange, free_ports, tree, tree_memory

GROWTH = 10.0
"""By how many percent a proxy's memory may grow from a fifth of the time on."""
GROWTH_AT_ONCE = 50.0
"""The same of a run of seconds, most of which is the start."""
PATIENCE = 30.0
"""Seconds that anything but the load may take."""
RELEASES = {"rollout": ("next", "Succeeded"), "rollback": ("broken", "Failed")}
"""Rollout -> its canary, and how it is to end."""
ENDS = ("Succeeded", "Failed")
VERSIONS = ("now", "next", "broken")
COUNT = b"GET /count HTTP/1.1\r\nHost: %b\r\n\r\n"
"""Upstreams answer it and do not count it."""

Promise = Callable[[int], Checks]
"""Answered requests -> what was seen of what the case is about."""


def configuration(ports: dict[str, int], generation: int, quick: bool, state: Path) -> str:
    """Return the file of one generation: a route for each host of the cases, and two releases."""
    names = (*VERSIONS, "copies")
    upstreams = [f"  - {{name: {name}, endpoints: ['http://127.0.0.1:{ports[name]}']}}" for name in names]
    canary = 10 + generation % 40
    both = f"{{name: now, weight: {100 - canary}}}, {{name: next, weight: {canary}}}"
    told = f"responseHeaderModifier: {{set: [{{name: x-generation, value: '{generation}'}}]}}"
    told = f"{{type: ResponseHeaderModifier, {told}}}"
    copied = (
        f"{told}, {{type: RequestMirror, requestMirror: {{backendRef: {{name: copies}}, percent: 100, methods: all}}}}"
    )
    routes = {
        "shop": (both, told),
        "slow": ("{name: now}", told),
        "release": ("{name: now}", told),
        "broken": ("{name: now}", told),
        "plain": (both, told),
        "copied": (both, copied),
    }
    lines = [
        f"listeners: [{{address: '127.0.0.1:{ports['proxy']}'}}]",
        f"admin: {{address: '127.0.0.1:{ports['admin']}'}}",
    ]
    lines += [f"state: {{path: '{state}'}}", "upstreams:", *upstreams, "routes:"]
    for name, (refs, filters) in routes.items():
        lines += [f"  - name: {name}", f"    hostnames: [{name}.example.com]"]
        lines += ["    rules:", f"      - filters: [{filters}]", f"        backendRefs: [{refs}]"]
    lines.append("rollouts:")
    pace = "interval: 1s, stepWeight: 50" if quick else "interval: 5s, stepWeight: 10"
    for name, route in (("rollout", "release"), ("rollback", "broken")):
        lines += [f"  - {{name: {name}, route: {route}, primary: now, canary: {RELEASES[name][0]},"]
        lines += [f"     analysis: {{{pace}, maxWeight: 50, threshold: 2, minRequests: 5,"]
        lines += ["       sessionAffinity: {cookieName: version},"]
        lines += ["       metrics: [{name: request-success-rate, thresholdRange: {min: 99}}]}}"]
    return "\n".join(lines) + "\n"


class Stage:
    """Three versions of a service, a mirror's target, and splitproxy in front of them."""

    def __init__(self, folder: Path, quick: bool) -> None:
        free = free_ports()
        self._ports = {name: next(free) for name in (*VERSIONS, "copies", "proxy", "admin")}
        self.port = self._ports["proxy"]
        self.folder = folder
        self.quick = quick
        self._file = folder / "splitproxy.yaml"
        self._state = folder / "splitproxy.db"
        script = str(ROOT / "loadtests" / "upstream.py")
        addresses = [f"{name}={self._ports[name]}" for name in (*VERSIONS, "copies")]
        addresses[VERSIONS.index("broken")] += "=503"
        self._upstreams = Process("upstreams", [sys.executable, script, *addresses], folder)
        self._upstreams.wait_until_serving(self._ports["copies"], COUNT % b"copies", PATIENCE)
        self.write(0)
        command = [sys.executable, "-m", "splitproxy", "run", "-c", str(self._file)]
        self._proxy = Process("splitproxy", command, folder)
        self._proxy.wait_until_serving(self.port, COUNT % b"shop.example.com", PATIENCE)
        self._processes = self._lasting()
        self._generation = 0
        self._before: dict[str, float] = {}

    # --- what is done ------------------------------------------------------------------------------------------------
    def write(self, generation: int) -> None:
        """Put the file of a generation where the proxy reads it."""
        new = self._file.with_suffix(".new")
        new.write_text(configuration(self._ports, generation, self.quick, self._state))
        os.replace(new, self._file)

    @contextmanager
    def meanwhile(self, case: str) -> Iterator[Promise]:
        """Do what belongs to a case for as long as the block runs; yield what is to be asked afterwards."""
        self._before = self._counts()
        over = threading.Event()
        doing: dict[str, Callable[[threading.Event], Promise]] = {
            "soak": self._soak,
            "reload": self._reload,
            "rollout": self._release("rollout"),
            "rollback": self._release("rollback"),
            "mirror-on": lambda _: lambda answered: self._mirrored(answered, on=True),
            "mirror-off": lambda _: lambda answered: self._mirrored(answered, on=False),
        }
        with ThreadPoolExecutor(1) as pool:
            promise = pool.submit(doing.get(case, lambda _: lambda _: []), over)
            try:
                yield lambda answered: promise.result(PATIENCE)(answered)
            finally:
                over.set()

    def _soak(self, over: threading.Event) -> Promise:
        sizes = [tree_memory(self._proxy.pid)]
        while not over.wait(0.2 if self.quick else 10.0):
            sizes.append(tree_memory(self._proxy.pid))
        return lambda _: [grown(sizes, GROWTH_AT_ONCE if self.quick else GROWTH)]

    def _reload(self, over: threading.Event) -> Promise:
        first, wrong = self._generation, []
        while not over.wait(0.5 if self.quick else 1.0):
            self._generation += 1
            generation = self._generation
            self.write(generation)
            status, text = ask(self._ports["admin"], "POST", "/-/reload")
            if status != HTTPStatus.OK:
                wrong.append(f"reload {generation} was answered {status}: {text[:200]}")
            elif b"x-generation: %d\r\n" % generation not in self._probe().lower():
                wrong.append(f"a request after reload {generation} was served by what was there before")
        count = self._generation - first
        return lambda _: [(count > 0 and not wrong, f"{count} reloads, {len(wrong)} wrong {wrong or ''}".rstrip())]

    def _release(self, name: str) -> Callable[[threading.Event], Promise]:
        canary, end = RELEASES[name]

        def play(over: threading.Event) -> Promise:
            while not self.since("now") and not over.wait(0.05):
                pass
            status, text = ask(self._ports["admin"], "POST", f"/api/v1/rollouts/{name}/start")
            began, seen, shares = time.monotonic(), {"phase": f"not started: {status} {text[:200]}"}, [0.0]
            while status == HTTPStatus.ACCEPTED and seen["phase"] not in ENDS and not over.wait(0.05):
                seen = json.loads(ask(self._ports["admin"], "GET", f"/api/v1/rollouts/{name}")[1])
                shares.append(float(seen["canaryWeight"]))
            took, served = time.monotonic() - began, self.since(canary)
            text = f"{name}: {seen['phase']} after {took:.1f} s (to be {end} while the load lasts)"
            text += f", {served} requests came to the canary, whose share was {max(shares):g} % at most"
            return lambda _: [(seen["phase"] == end and served > 0, text)]

        return play

    def _mirrored(self, answered: int, on: bool) -> Checks:
        self._settle("copies")
        copies, dropped = self.since("copies"), self.since("dropped")
        wanted = answered if on else 0
        held = copies <= wanted <= copies + dropped and copies >= 0.99 * wanted
        return [(held, f"{wanted} copies to be made: {copies} arrived, {dropped} left out and counted")]

    # --- what is seen ------------------------------------------------------------------------------------------------
    def since(self, name: str) -> int:
        """Return how many requests an upstream has had (or copies were `dropped`) since the case began."""
        now = self._dropped() if name == "dropped" else self._arrived(name)
        return now - int(self._before[name])

    def served(self, answered: int) -> Checks:
        """Compare what clients were answered with what arrived, and see that no process fell over."""
        arrived = sum(self.since(name) for name in VERSIONS[:2])
        gone = self._processes - self._lasting()
        log = self._proxy.output.read_text(errors="replace")
        return [
            (
                arrived == answered,
                f"{answered} answered, {arrived} arrived: none lost behind the proxy, none sent twice",
            ),
            (
                not gone and "Traceback" not in log,
                f"{len(gone)} processes fell over {self._proxy.last_lines(2) if gone else ''}".rstrip(),
            ),
        ]

    def cpu(self) -> float:
        """Return the seconds of CPU time that the proxy has taken since the case began."""
        return cpu_seconds(self._proxy.pid) - self._before["cpu"]

    def _lasting(self) -> set[int]:
        """Return the processes that are to live as long as the proxy does."""
        lasting = ("splitproxy.proxy.worker", "splitproxy.control ")
        return {pid for pid in tree(self._proxy.pid) if any(name in command_line(pid) for name in lasting)}

    def _probe(self) -> bytes:
        return exchange(self.port, COUNT % b"shop.example.com")

    def _counts(self) -> dict[str, float]:
        found: dict[str, float] = {name: self._arrived(name) for name in (*VERSIONS, "copies")}
        return {**found, "dropped": self._dropped(), "cpu": cpu_seconds(self._proxy.pid)}

    def _arrived(self, name: str) -> int:
        return int(exchange(self._ports[name], COUNT % name.encode()).partition(b"\r\n\r\n")[2])

    def _settle(self, name: str) -> None:
        """Wait until no more requests come to an upstream."""
        counts = [-1]
        while counts[-1] != (now := self._arrived(name)):
            counts.append(now)
            time.sleep(0.3)

    def _dropped(self) -> int:
        """Return how many copies the proxy says it left out."""
        _, text = ask(self._ports["admin"], "GET", "/metrics")
        found = re.findall(r"^splitproxy_mirror_dropped_total(?:\{[^}]*\})? ([0-9.e+]+)", text, re.MULTILINE)
        return int(sum(float(value) for value in found))


def grown(sizes: list[int], most: float) -> tuple[bool, str]:
    """Compare what a proxy held at the end with what it held when a fifth of the time had passed."""
    first, last = sizes[len(sizes) // 5], sizes[-1]
    percent = 100.0 * (last / first - 1.0)
    return (
        percent <= most,
        f"memory {first / 1048576:.1f} MiB, at the end {last / 1048576:.1f}: {percent:+.1f} % (at most {most:g})",
    )


def ask(port: int, method: str, path: str) -> tuple[int, str]:
    """Send one request to the admin API."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read().decode(errors="replace")
    finally:
        connection.close()
