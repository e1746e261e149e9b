"""Show under load what a release relies on: shares, stickiness, reloads and mirroring. Exit code 0 is: all held.

    python loadtests/behaviour.py [--seconds 30] [--users 60] [--reloads 20] [--json FILE]

Starts two versions and a mirror target, splitproxy in front of them, and Locust (`pip install "splitproxy[load]"`, or
`--locust` with the path of one installed elsewhere) without its web page; meanwhile the file is changed and reloaded
again and again, the canary's share growing each time. Everything stays on the loopback interface.
"""

import argparse
import importlib.util
import json
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

from harness.processes import (
    ROOT,
    Process,
    StartError,
    end_with_this_process,
    exchange,
    find_program,
    free_ports,
    raise_descriptor_limit,
    stop_all,
)
from harness.session import scratch_folder
from harness.stage import ask

SHARE = 10
"""The canary's percentage where every request is drawn anew; it stays."""
_FIRST, _LAST = 20, 50
"""The canary's percentage for keyed clients, at the start and after the last reload."""
_STANDARD_ERRORS = 4.0


@dataclass
class Verdict:
    """What was checked, each with what was seen."""

    checks: list[tuple[bool, str]] = field(default_factory=list)

    def check(self, held: bool, text: str) -> None:
        self.checks.append((held, text))

    @property
    def passed(self) -> bool:
        return bool(self.checks) and all(held for held, _ in self.checks)


def within(hits: int, expected: float, variance: float) -> bool:
    """Say whether a count is within four standard errors of what it should be."""
    return abs(hits - expected) <= _STANDARD_ERRORS * math.sqrt(variance)


def configuration(port: int, admin: int, upstreams: dict[str, int], generation: int, share: int) -> str:
    """Return the file of one generation; every answer names it and the share of keyed clients in force."""
    endpoints = "".join(
        f"  - {{name: {name}, endpoints: ['http://127.0.0.1:{number}']}}\n" for name, number in upstreams.items()
    )
    names = f"[{{name: x-generation, value: '{generation}'}}, {{name: x-canary-share, value: '{share}'}}]"
    told = f"{{type: ResponseHeaderModifier, responseHeaderModifier: {{set: {names}}}}}"
    copied = "{type: RequestMirror, requestMirror: {backendRef: {name: mirror}, percent: 100, methods: all}}"
    return (
        f"listeners: [{{address: '127.0.0.1:{port}'}}]\nadmin: {{address: '127.0.0.1:{admin}'}}\n"
        f"upstreams:\n{endpoints}routes:\n"
        "  - name: share\n    hostnames: [share.example.com]\n    rules:\n"
        f"      - filters: [{told}]\n"
        f"        backendRefs: [{{name: primary, weight: {100 - SHARE}}}, {{name: canary, weight: {SHARE}}}]\n"
        "  - name: sticky\n    hostnames: [sticky.example.com]\n    rules:\n"
        f"      - filters: [{told}]\n"
        f"        backendRefs: [{{name: primary, weight: {100 - share}}}, {{name: canary, weight: {share}}}]\n"
        "        split: {key: {cookie: sp_id, issue: true}}\n"
        "  - name: mirror\n    hostnames: [mirror.example.com]\n    rules:\n"
        f"      - filters: [{told}, {copied}]\n"
        "        backendRefs: [{name: primary}]\n"
    )


class Stage:
    """The upstreams and the proxy, and the file that is changed while they serve."""

    def __init__(self, folder: Path) -> None:
        ports = free_ports()
        self.port, self.admin = next(ports), next(ports)
        self.upstreams = {name: next(ports) for name in ("primary", "canary", "mirror")}
        self.folder = folder
        self.file = folder / "splitproxy.yaml"
        script = str(ROOT / "loadtests" / "upstream.py")
        addresses = [f"{name}={port}" for name, port in self.upstreams.items()]
        upstream = Process("upstreams", [sys.executable, script, *addresses], folder)
        upstream.wait_until_serving(self.upstreams["mirror"], b"GET /count HTTP/1.1\r\nHost: x\r\n\r\n", 10)
        self.write(0, _FIRST)
        self.proxy = Process("splitproxy", [sys.executable, "-m", "splitproxy", "run", "-c", str(self.file)], folder)
        self.proxy.wait_until_serving(self.port, b"GET / HTTP/1.1\r\nHost: share.example.com\r\n\r\n", 20)

    def write(self, generation: int, share: int) -> None:
        new = self.file.with_suffix(".new")
        new.write_text(configuration(self.port, self.admin, self.upstreams, generation, share))
        os.replace(new, self.file)

    def reload(self, generation: int, share: int) -> str | None:
        """Put another file in force; say what went wrong, if anything did."""
        self.write(generation, share)
        status, text = ask(self.admin, "POST", "/-/reload")
        if status != HTTPStatus.OK:
            return f"reload {generation} answered {status}: {text[:200]}"
        for _ in range(3):
            answer = exchange(self.port, b"GET /probe HTTP/1.1\r\nHost: share.example.com\r\n\r\n")
            if b"x-generation: %d\r\n" % generation not in answer.lower():
                return f"a request after reload {generation} was answered by an older configuration"
        return None

    def mirrored(self) -> int:
        """Return how many requests the mirror target has had."""
        counts = [-1]
        while counts[-1] != (now := self._count()):  # the last copies may still be under way
            counts.append(now)
            time.sleep(0.3)
        return now

    def _count(self) -> int:
        answer = exchange(self.upstreams["mirror"], b"GET /count HTTP/1.1\r\nHost: x\r\n\r\n")
        return int(answer.partition(b"\r\n\r\n")[2])

    def dropped(self) -> int:
        """Return how many copies the proxy says it left out."""
        _, text = ask(self.admin, "GET", "/metrics")
        found = re.findall(r"^splitproxy_mirror_dropped_total(?:\{[^}]*\})? ([0-9.e+]+)", text, re.MULTILINE)
        return int(sum(float(value) for value in found))


def run_locust(locust: list[str], stage: Stage, seconds: int, users: int, reloads: int) -> tuple[Any, list[str]]:
    """Load the stage while its file changes; return Locust's statistics and what went wrong with the reloads."""
    result = stage.folder / "locust"
    options = ["--headless", "--only-summary", "--users", str(users), "--spawn-rate", str(users)]
    options += ["--run-time", f"{seconds}s", "--stop-timeout", "10", "--host", f"http://127.0.0.1:{stage.port}"]
    options += ["--json-file", str(result), "--exit-code-on-error", "0"]
    command = [*locust, "-f", str(ROOT / "loadtests" / "behaviour_users.py"), *options]
    load = Process("locust", command, stage.folder)
    started = time.monotonic()
    problems = []
    for number in range(1, reloads + 1):
        due = started + 2.0 + (seconds - 4.0) * number / (reloads + 1)
        time.sleep(max(0.0, due - time.monotonic()))
        if problem := stage.reload(number, _FIRST + (_LAST - _FIRST) * number // reloads):
            problems.append(problem)
    load.child.wait(seconds + 60)
    found = next((path for path in (result.with_suffix(".json"), result) if path.exists()), None)
    if load.child.returncode or found is None:
        raise StartError(f"locust ended with {load.child.returncode}: {load.last_lines(20)}")
    load.stop()
    return json.loads(found.read_text()), problems


def judge(statistics: list[dict[str, Any]], problems: list[str], reloads: int, copies: int, dropped: int) -> Verdict:
    """Compare what was seen with what was promised."""
    verdict = Verdict()
    answered = {(entry["method"], entry["name"]): int(entry["num_requests"]) for entry in statistics}
    failed = {entry["name"]: int(entry["num_failures"]) for entry in statistics if entry["num_failures"]}
    counted = sum(count for (method, _), count in answered.items() if method != "DRAW")
    verdict.check(
        not failed and counted > 0, f"{counted} requests, {sum(failed.values())} failed {failed or ''}".rstrip()
    )
    verdict.check(not problems, f"{reloads} reloads under load, {len(problems)} wrong {problems or ''}".rstrip())
    drawn = _drawn(answered, "share", lambda _name: SHARE / 100)
    verdict.check(_fair(drawn), f"each request drawn anew: {_in_words(drawn)}")
    visitors = {key: count for key, count in answered.items() if key[0] == "DRAW"}
    keyed = _drawn(visitors, "visitor", lambda name: int(name.split()[1]) / 100)
    verdict.check(_fair(keyed), f"new clients by cookie, share growing: {_in_words(keyed)}")
    wanted = sum(count for (_, name), count in answered.items() if name.startswith("mirrored"))
    held = wanted > 0 and 0.99 * wanted <= copies <= wanted and copies + dropped >= wanted
    verdict.check(held, f"{wanted} requests to copy: {copies} copies arrived, {dropped} left out and counted")
    regulars = sum(count for (_, name), count in answered.items() if name.startswith("regular"))
    moved = failed.get("regular", 0) + failed.get("visitor", 0)
    text = f"{regulars} requests of clients that came back, {moved} on another version than a growing share allows"
    verdict.check(regulars > 0 and not moved, text)
    return verdict


@dataclass(frozen=True)
class Drawn:
    """How often the canary was drawn, and how often it should have been."""

    total: int
    canary: int
    expected: float
    variance: float


def _drawn(answered: dict[tuple[str, str], int], kind: str, share: Callable[[str], float]) -> Drawn:
    total = canary = 0
    expected = variance = 0.0
    for (_, name), count in answered.items():
        words = name.split()
        if words[0] == kind and words[-1] in {"primary", "canary"}:
            total += count
            canary += count if words[-1] == "canary" else 0
            expected += count * share(name)
            variance += count * share(name) * (1 - share(name))
    return Drawn(total, canary, expected, variance)


def _fair(drawn: Drawn) -> bool:
    return drawn.total > 0 and within(drawn.canary, drawn.expected, drawn.variance)


def _in_words(drawn: Drawn) -> str:
    margin = _STANDARD_ERRORS * math.sqrt(drawn.variance)
    return f"{drawn.canary} of {drawn.total} to the canary, {drawn.expected:.0f} ± {margin:.0f} expected"


def locust_command(path: str | None) -> list[str] | None:
    """Return how Locust is started here, None when it is not installed."""
    if path:
        return [path]
    if importlib.util.find_spec("locust"):
        return [sys.executable, "-m", "locust"]
    program = find_program("locust")
    return [program] if program else None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=30, help="length of the load (at least 10)")
    parser.add_argument("--users", type=int, default=60)
    parser.add_argument("--reloads", type=int, default=20)
    parser.add_argument("--locust", metavar="PATH", help="a locust installed elsewhere")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the checks and Locust's statistics there")
    options = parser.parse_args()
    options.seconds = max(10, options.seconds)
    locust = locust_command(options.locust)
    if locust is None:
        print('Locust is not installed: pip install "splitproxy[load]", or --locust PATH', file=sys.stderr)
        return 2
    end_with_this_process()
    raise_descriptor_limit()
    with scratch_folder() as folder:
        try:
            stage = Stage(Path(folder))
            statistics, problems = run_locust(locust, stage, options.seconds, options.users, options.reloads)
            verdict = judge(statistics, problems, options.reloads, stage.mirrored(), stage.dropped())
        except (StartError, OSError, subprocess.SubprocessError) as error:
            print(f"could not be tried: {error}", file=sys.stderr)
            return 1
        finally:
            stop_all()
    for held, text in verdict.checks:
        print(f"{'held  ' if held else 'BROKEN'}  {text}")
    if options.json:
        checks = [{"held": held, "what": text} for held, text in verdict.checks]
        options.json.write_text(json.dumps({"checks": checks, "statistics": statistics}, indent=1) + "\n")
    return 0 if verdict.passed else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        stop_all()
        sys.exit(130)
