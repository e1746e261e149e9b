"""The scenarios that are not a closed loop: constant rate, idle connections, starting, reloading."""

import http.client
import itertools
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from .generators import Load, LoadError, Paced
from .peers import PEERS, SUBJECT, Setup, yaml_for_splitproxy
from .processes import StartError, command_line, cpu_seconds, memory, tree, tree_memory
from .scenarios import Outcome, Row, Sample
from .session import Running, Session

_IDLE_CONNECTIONS = 10_000
_SETTLE = 1.5
"""Seconds a process is left alone before its memory at rest is read."""
_ROLES = {"worker": "splitproxy.proxy.worker", "control": "splitproxy.control"}
"""What a process of splitproxy does -> the module on its command line; the one without is the supervisor."""
_RELOAD_RATE = 500.0
_RELOAD_PATIENCE = 90.0


def duration(session: Session, name: str) -> float:
    """Return about how many seconds a scenario takes."""
    count, rounds = len(session.peers), _rounds(session)
    if name.startswith("reload") and SUBJECT not in session.peers:
        return 0.0
    return {
        "rate-half": count * (1.5 + rounds * (session.seconds + 0.6)),
        "idle": count * (3.5 if session.quick else 9.0),
        "start": count * rounds * ((0.5 if session.quick else _SETTLE) + 1.0),
        "reload-1000": 8.0 + 3.0 * rounds,
        "reload-10000": 25.0 + 15.0 * rounds,
    }[name]


def run(session: Session, outcome: Outcome) -> None:
    """Measure one of them into `outcome`."""
    _SCENARIOS[outcome.name](session, outcome)


def _rounds(session: Session) -> int:
    return max(1, round(session.rounds * 0.6))


def _rate_half(session: Session, outcome: Outcome) -> None:
    """Half of what splitproxy does at most, sent to every peer that can do more than that."""
    with session.serving([(name, Setup()) for name in session.peers]) as found:
        rows = {name: Row(name, "") for name in session.peers}
        outcome.rows.extend(rows.values())
        live: dict[str, Running] = {}
        tops: dict[str, float] = {}
        for name, running in zip(session.peers, found, strict=True):
            if isinstance(running, str):
                rows[name].left_out = running
            else:
                live[name] = running
                known = session.top_rates.get(name)
                tops[name] = known or session.closed_loop(running, "small", 1, 32).rate or 0.0
        if not live:
            return
        rate = tops[SUBJECT if SUBJECT in live else min(tops, key=lambda name: tops[name])] / 2
        outcome.notes.append(f"the rate: {rate:,.0f} requests a second, evenly spaced, over 64 connections")
        if slow := [name for name in live if tops[name] < 1.2 * rate]:
            outcome.notes.append(f"cannot do that rate: {', '.join(slow)}")
        for number in range(_rounds(session)):
            for name in (name for name in live if name not in slow):
                rows[name].samples.append(session.open_loop(live[name], "small", rate, session.seconds))
                session.say(f"{outcome.name}, round {number + 1} of {_rounds(session)}: {name}")
        samples = [sample for row in outcome.rows for sample in row.samples]
        outcome.notes.append(_own_lateness(samples))


def _own_lateness(samples: list[Sample]) -> str:
    """Say how far the client's own lateness blurs what it measured."""
    late = [sample.extra["lateP99"] for sample in samples]
    text = f"the client itself sent late by {1e3 * statistics.median(late):.2f} ms (p99, median of the rounds)"
    blurred = sum(2 * sample.extra["lateP99"] > (sample.p99 or 0.0) for sample in samples)
    return f"{text}; in {blurred} of {len(samples)} measurements that is more than half of the p99 it saw"


def _idle(session: Session, outcome: Outcome) -> None:
    """Resident memory with and without thousands of connections that had one answer and then nothing to say."""
    wanted = 2000 if session.quick else _IDLE_CONNECTIONS
    outcome.notes.append(f"{wanted:,} connections; user-space memory, what the kernel holds for each is not in it")
    for name in session.peers:
        row = Row(name, "")
        outcome.rows.append(row)
        session.say(f"{outcome.name}: {name}")
        try:
            running = session.start(PEERS[name], Setup(connections=wanted + 2000), pinned=False)
        except StartError as error:
            row.left_out = str(error)
            continue
        try:
            if not session.quick:
                session.closed_loop(running, "small", 1, 32)
            row.samples.append(_idle_sample(session, running, wanted))
        except LoadError as error:
            row.left_out = str(error)
        finally:
            running.process.stop()


def _idle_sample(session: Session, running: Running, wanted: int) -> Sample:
    time.sleep(0.5)
    before = tree_memory(running.process.pid)
    with session.idle(running, wanted) as connections:
        time.sleep(0.5)
        after = tree_memory(running.process.pid)
        spent = cpu_seconds(running.process.pid)
        time.sleep(1.0)
        spent = cpu_seconds(running.process.pid) - spent
        still_open = connections.still_open()
    return Sample(
        extra={
            "KiB each": (after - before) / wanted / 1024,
            "MiB before": before / 1048576,
            "MiB with them": after / 1048576,
            "% of a core while idle": 100 * spent,
            "still open": still_open,
        }
    )


def _start(session: Session, outcome: Outcome) -> None:
    """From the start of the process to its first answer, and what its processes hold when nothing happens."""
    rows = {name: Row(name, "") for name in session.peers}
    outcome.rows.extend(rows.values())
    for number, name in itertools.product(range(_rounds(session)), session.peers):
        session.say(f"{outcome.name}, round {number + 1} of {_rounds(session)}: {name}")
        try:
            running = session.start(PEERS[name], Setup(), pinned=False)
        except StartError as error:
            rows[name].left_out = str(error)
            continue
        try:
            extra = {"ms to the first answer": 1e3 * running.ready_after}
            if name == SUBJECT:
                began = time.monotonic()
                _until_ready(running.admin_port, 20)
                extra["ms to /readyz"] = 1e3 * (running.ready_after + time.monotonic() - began)
            time.sleep(0.5 if session.quick else _SETTLE)
            extra["MiB in all"] = tree_memory(running.process.pid) / 1048576
            if name == SUBJECT:
                extra.update(_memory_by_role(running.process.pid))
            rows[name].samples.append(Sample(extra=extra))
        finally:
            running.process.stop()


def _until_ready(admin_port: int, timeout: float) -> None:
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        try:
            if _ask(admin_port, "GET", "/readyz", 2.0) == 200:
                return
        except OSError:
            pass
        time.sleep(0.004)
    raise LoadError(f"/readyz did not answer 200 within {timeout:.0f} s")


def _ask(port: int, method: str, path: str, timeout: float) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        response.read()
        return response.status
    finally:
        connection.close()


def _memory_by_role(root: int) -> dict[str, float]:
    """Return the resident MiB of each of splitproxy's processes, told apart by their command lines."""
    found: dict[str, float] = {}
    for pid in tree(root):
        words = command_line(pid)
        role = next((role for role, module in _ROLES.items() if module in words), "supervisor")
        found[f"{role} MiB"] = max(found.get(f"{role} MiB", 0.0), memory(pid).rss / 1048576)
    return found


def _reload(routes: int) -> Callable[[Session, Outcome], None]:
    def measure(session: Session, outcome: Outcome) -> None:
        if SUBJECT not in session.peers:
            outcome.notes.append(f"measures {SUBJECT} alone, which is not here")
            return
        outcome.notes.append(f"a steady client sends {_RELOAD_RATE:.0f} requests a second meanwhile; nothing is pinned")
        running = session.start(PEERS[SUBJECT], Setup(routes=routes), pinned=False)
        try:
            calm = Row(SUBJECT, "no reload")
            under = Row(SUBJECT, "reload")
            outcome.rows += [calm, under]
            path, _ = session.requests(f"routes/{routes}")
            for number in range(_rounds(session)):
                session.say(f"{outcome.name}, round {number + 1} of {_rounds(session)}")
                with Paced(path, running.port, _RELOAD_RATE, 2.0, 32, ()) as client:
                    calm.samples.append(_reload_sample(client.result()))
                with Paced(path, running.port, _RELOAD_RATE, _RELOAD_PATIENCE, 32, ()) as client:
                    time.sleep(0.5)
                    took = _reload_once(session, running, Setup(routes=routes), 50 + number)
                    time.sleep(0.5)
                    client.stop()
                    under.samples.append(_reload_sample(client.result(), took))
        finally:
            running.process.stop()

    return measure


def _reload_once(session: Session, running: Running, setup: Setup, weight: int) -> float:
    """Change every route's weights, ask for a reload and return the seconds until it is in force."""
    text = yaml_for_splitproxy(running.port, running.admin_port, session.upstreams, setup, weight)
    path = Path(running.folder) / "splitproxy.yaml"
    path.with_suffix(".new").write_text(text)
    os.replace(path.with_suffix(".new"), path)
    began = time.monotonic()
    status = _ask(running.admin_port, "POST", "/-/reload", _RELOAD_PATIENCE)
    if status != 200:
        raise LoadError(f"POST /-/reload answered {status}")
    return time.monotonic() - began


def _reload_sample(load: Load, took: float | None = None) -> Sample:
    extra = {} if took is None else {"reload s": took}
    extra |= {
        "longest wait ms": 1e3 * load.longest,
        "longest gap between answers ms": 1e3 * load.longest_gap,
        "p99 ms": 1e3 * load.p99,
        "client late p99 ms": 1e3 * load.late_p99,
    }
    return Sample(errors=load.errors, extra=extra)


_SCENARIOS: dict[str, Callable[[Session, Outcome], None]] = {
    "rate-half": _rate_half,
    "idle": _idle,
    "start": _start,
    "reload-1000": _reload(1000),
    "reload-10000": _reload(10000),
}
