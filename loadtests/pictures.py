"""Draw what the benchmark measured: the pictures of docs/performance.md.

    python loadtests/pictures.py                                    # the runs that are kept, into docs/images
    python loadtests/pictures.py --keep figures.json --about "…"    # keep a run of `bench.py --json` as well

Runs are kept in loadtests/recorded, named by their day. Of each scenario the last one is drawn.
"""

import argparse
import datetime
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from harness import drawing, goals, records
from harness.peers import PEERS, SUBJECT
from harness.processes import ROOT
from harness.report import figures
from harness.scenarios import Outcome, Row

RECORDED = ROOT / "loadtests" / "recorded"
IMAGES = ROOT / "docs" / "images"
COSTS = {
    "small-get": "Small GET",
    "fresh-heads": "Small GET, every response head a new one",
    "post-10k": "POST of 10 KB",
    "new-connection": "A new connection for every request",
    "get-64k": "Response of 64 KB",
    "get-1m": "Response of 1 MB",
    "mirror-on": "Every request copied to a third upstream",
}
"""Scenarios whose CPU time is drawn, with their titles there."""
MEDIAN = "Bars are medians, whiskers the least and greatest of the rounds; less is better."

Outcomes = dict[str, Outcome]


def bars_of(outcome: Outcome, field: str, times: float = 1.0) -> list[drawing.Bar]:
    """Return a bar for every peer that was measured, in the order of the peers."""
    rows = [row for peer in PEERS for row in outcome.rows if row.peer == peer and figures(row, field)]
    return [drawing.Bar(row.peer, [value * times for value in figures(row, field)]) for row in rows]


def cost(found: Outcomes) -> str:
    panels = [
        (title, bars_of(found[name], "cpu_per_request", 1e6), lambda value: f"{value:.0f}")
        for name, title in COSTS.items()
        if name in found
    ]
    return drawing.bars("CPU time for each request, in microseconds", panels, MEDIAN)


def routes(found: Outcomes) -> str:
    by_peer: dict[str, list[tuple[float, float]]] = {}
    for row in found["routes"].rows:
        if values := figures(row, "cpu_per_request"):
            count = float(row.variant.removeprefix("routes-"))
            by_peer.setdefault(row.peer, []).append((count, statistics.median(values) * 1e6))
    shown = [drawing.Line(peer, sorted(points)) for peer, points in by_peer.items()]
    note = "Medians; requests are spread over all routes, half told apart by host and half by prefix."
    return drawing.lines("CPU time for each request by the number of routes", shown, "microseconds", note)


def latency(found: Outcomes) -> str:
    outcome = found["rate-half"]
    percentiles = (("p50", "Half of all requests within"), ("p99", "99 of 100 within"))
    panels = [
        (f"{title}, milliseconds", bars_of(outcome, field, 1e3), lambda value: f"{value:.2f}")
        for field, title in percentiles
    ]
    note = ". ".join(f"{each[0].upper()}{each[1:]}" for each in outcome.notes) + f". {MEDIAN}"
    return drawing.bars("Latency at a constant rate", panels, note)


def idle(found: Outcomes) -> str:
    shown = bars_of(found["idle"], "KiB each")
    note = "10,000 kept-alive connections; what the kernel holds is not in it. Less is better."
    panels = [("KiB", shown, lambda value: f"{value:.3g}")]
    return drawing.bars("Memory for each idle connection", panels, note)


def reached(found: Outcomes) -> str:
    def rows(scenario: str, peer: str, variant: str) -> Row | None:
        return found[scenario].row(peer, variant) if scenario in found else None

    shown = []
    for goal in goals.GOALS:
        if values := goal.measure(rows):
            middle = statistics.median(values)
            words = f"{middle:,.3g}" if middle < 100 else f"{middle:,.0f}"
            shown.append((goal.what, middle / goal.limit, f"{words} of {goal.limit:,g} {goal.unit}"))
    note = f"Medians of {SUBJECT}, as parts of what each goal allows at most."
    return drawing.goals("What was set out to be reached, and what was", shown, note)


PICTURES: dict[str, tuple[Callable[[Outcomes], str], Sequence[str]]] = {
    "bench-cpu.svg": (cost, ("small-get",)),
    "bench-routes.svg": (routes, ("routes",)),
    "bench-latency.svg": (latency, ("rate-half",)),
    "bench-idle.svg": (idle, ("idle",)),
    "bench-goals.svg": (reached, ()),
}
"""File -> how it is drawn, and the scenarios without which it cannot be."""


def drawn(runs: list[records.Record]) -> dict[str, str]:
    """Return the text of every picture that these runs have the figures for."""
    found = {outcome.name: outcome for outcome in records.latest(runs)}
    return {name: draw(found) for name, (draw, needs) in PICTURES.items() if found.keys() >= set(needs)}


def keep(source: Path, about: str) -> Path:
    """Keep a run of the benchmark under today's date."""
    found = json.loads(source.read_text())
    day = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    number = next(number for number in range(1, 100) if not (RECORDED / f"{day}.{number}.json").exists())
    path = RECORDED / f"{day}.{number}.json"
    path.write_text(records.compact({"about": about, **found}))
    return path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, metavar="FILE", help="keep this run (of `bench.py --json`) too")
    parser.add_argument("--about", default="", help="with --keep: what run it was, how it was started")
    parser.add_argument("--to", type=Path, default=IMAGES, metavar="FOLDER", help="where to (default: docs/images)")
    options = parser.parse_args()
    if options.keep:
        if not options.about:
            parser.error("--keep needs --about: what run it was")
        print(f"kept as {keep(options.keep, options.about).relative_to(ROOT)}")
    options.to.mkdir(parents=True, exist_ok=True)
    for name, drawing_text in drawn(records.read(RECORDED)).items():
        (options.to / name).write_text(drawing_text)
        print(options.to / name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
