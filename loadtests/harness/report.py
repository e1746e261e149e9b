"""Medians, ratios and tables, and what they were measured on."""

import dataclasses
import json
import os
import platform
import re
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from .peers import PEERS, SUBJECT
from .processes import TICK
from .scenarios import SPECIAL, Outcome, Row, Sample
from .session import Session

Figures = list[float]
DASH = "\N{EN DASH}"
TIMES = "\N{MULTIPLICATION SIGN}"


def figures(row: Row, field: str) -> Figures:
    """Return one measurement of a row, round by round; a name that is no field is looked up in `extra`."""
    found = (getattr(sample, field) if field in _FIELDS else sample.extra.get(field) for sample in row.samples)
    return [float(value) for value in found if value is not None]


_FIELDS = {field.name for field in dataclasses.fields(Sample)}


def ratios(subject: Sequence[float], other: Sequence[float]) -> Figures:
    """Return subject/other of each round: neighbours in time, so that a slow minute of the machine cancels out."""
    return [mine / theirs for mine, theirs in zip(subject, other, strict=False) if theirs]


def spread(values: Sequence[float], form: Callable[[float], str]) -> str:
    """Return `median (min to max)`, the median alone where there is no more."""
    if not values:
        return DASH
    middle = form(statistics.median(values))
    return middle if len(values) < 2 else f"{middle} ({form(min(values))}{DASH}{form(max(values))})"


def microseconds(value: float) -> str:
    return f"{value * 1e6:.1f}"


def milliseconds(value: float) -> str:
    return f"{value * 1e3:.2f}"


def mebibytes(value: float) -> str:
    return f"{value / 1048576:.1f}"


def times(values: Sequence[float]) -> str:
    return f"{spread(values, lambda value: f'{value:.2f}')} {TIMES}" if values else DASH


def per_second(value: float) -> str:
    return f"{value:,.0f}"


def percent(value: float) -> str:
    return f"{value * 100:.0f} %"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table: the first column to the left, figures to the right."""
    lines = [list(head), ["---", *("---:" for _ in head[1:])], *(list(row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def load_table(outcome: Outcome) -> str:
    """Return the table of a scenario whose rows are peers under load."""
    variants = list(dict.fromkeys(row.variant for row in outcome.rows))
    head = [
        "peer",
        "CPU µs/request",
        f"{SUBJECT} beside it",
        "requests/s",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "peak MiB",
        "busy",
    ]
    several = len(variants) > 1
    if several:
        head.insert(3, f"beside {variants[0]}")
    lines = []
    for row in outcome.rows:
        if row.left_out or not row.samples:
            continue
        line = [
            f"{row.peer}{f', {row.variant}' if row.variant else ''}",
            spread(figures(row, "cpu_per_request"), microseconds),
            _beside(outcome.row(SUBJECT, row.variant), row),
            spread(figures(row, "rate"), per_second),
            *(spread(figures(row, field), milliseconds).partition(" ")[0] for field in ("p50", "p99", "p999")),
            mebibytes(max(figures(row, "peak_memory"), default=0)),
            percent(statistics.median(figures(row, "busy"))),
        ]
        if several:
            line.insert(3, _beside(row, outcome.row(row.peer, variants[0])))
        lines.append(line)
    return table(head, lines)


def _beside(mine: Row | None, other: Row | None) -> str:
    """Return the ratio of CPU per request of two rows, round by round."""
    if mine is None or other is None or mine is other:
        return ""
    return times(ratios(figures(mine, "cpu_per_request"), figures(other, "cpu_per_request")))


def special_table(outcome: Outcome) -> str:
    """Return the table of a scenario that measured figures of its own: one column for each."""
    fields = list(dict.fromkeys(field for row in outcome.rows for sample in row.samples for field in sample.extra))
    rows = [
        [
            row.peer + (f", {row.variant}" if row.variant else ""),
            *(spread(figures(row, field), _plain) for field in fields),
        ]
        for row in outcome.rows
        if row.samples
    ]
    return table(["peer", *fields], rows)


def _plain(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def section(outcome: Outcome) -> str:
    """Return a scenario's heading, table and notes."""
    plain = outcome.name in SPECIAL and outcome.name != "rate-half"
    body = special_table(outcome) if plain else load_table(outcome)
    notes = [f"- {note}" for note in outcome.notes]
    notes += [f"- {row.peer} {row.variant} left out: {row.left_out}" for row in outcome.rows if row.left_out]
    wrong = [(row, int(sum(figures(row, "errors")))) for row in outcome.rows]
    notes += [f"- **{row.peer} {row.variant}: {count} failed requests**" for row, count in wrong if count]
    return "\n\n".join(part for part in (f"### {outcome.name}\n\n{outcome.title}.", body, "\n".join(notes)) if part)


def sound(outcomes: Iterable[Outcome]) -> bool:
    """Return whether every peer that took part did so to the end and without a failed request."""
    rows = [row for outcome in outcomes for row in outcome.rows]
    failed = any(note.startswith("failed") for outcome in outcomes for note in outcome.notes)
    return not failed and not any(row.left_out or sum(figures(row, "errors")) for row in rows)


def environment(session: Session) -> dict[str, str]:
    """Return what the figures depend on."""
    cpu = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    versions = [f"{name} {PEERS[name].version(program)}" for name, program in session.peers.items()]
    one = len(session.cores) > 1
    pinning = "a one-worker peer has one core, load generator and upstream the others" if one else "none: one core"
    return {
        "processor": f"{cpu[1] if cpu else platform.processor()}, {len(session.cores)} cores for us",
        "load before": " ".join(f"{value:.2f}" for value in os.getloadavg()),
        "kernel": f"{platform.system()} {platform.release()}",
        "peers": "; ".join(versions),
        "left out": "; ".join(f"{name} ({why})" for name, why in session.missing.items()) or "none",
        "rounds": f"{session.rounds} of {session.seconds} s",
        "pinning": pinning,
        "resolution": f"CPU time is read in steps of {TICK * 1e3:.0f} ms for each process and measurement",
    }


def markdown(about: dict[str, str], goals: str, outcomes: Iterable[Outcome]) -> str:
    """Return the whole report: what it was measured on, the goals, every scenario."""
    lines = "\n".join(f"- {name}: {text}" for name, text in about.items())
    parts = [lines, goals and f"### Goals\n\n{goals}", *(section(outcome) for outcome in outcomes)]
    return "\n\n".join(part for part in parts if part) + "\n"


def as_json(about: dict[str, str], outcomes: Iterable[Outcome]) -> str:
    """Return every sample."""
    found = {"environment": about, "scenarios": [dataclasses.asdict(outcome) for outcome in outcomes]}
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"
