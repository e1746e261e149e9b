"""The demo on a terminal: one picture, drawn anew several times a second."""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from splitproxy import reports
from splitproxy.demo import words
from splitproxy.demo.figures import Figures
from splitproxy.demo.files import ROLLOUT
from splitproxy.demo.traffic import Seen

_COLOURS: Final = {"primary": "cyan", "canary": "yellow"}
_PHASES: Final = {"Succeeded": "green", "Failed": "red"}
_OUTCOMES: Final = {"pass": "green", "fail": "bold red", "inconclusive": "yellow", "error": "red"}
_HISTORY: Final = 8
"""Lines of what has happened."""
_WIDTH: Final = 40
"""Columns of a bar for 100 %."""
_EIGHTHS: Final = " ▏▎▍▌▋▊▉"


class View:
    """A live picture; a context manager that leaves the last one standing."""

    def __init__(self, proxy: str, admin: str, config: Path, purpose: str, console: Console | None = None) -> None:
        self._purpose = purpose
        self._look = f"splitproxy status {ROLLOUT} --watch --admin http://{admin}"
        self._places = (("proxy", f"http://{proxy}"), ("admin", f"http://{admin}"), ("config", str(config)))
        self._live = Live(console=console or Console(), auto_refresh=False, redirect_stdout=False)

    def __enter__(self) -> "View":
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, figures: Figures) -> None:
        """Draw `figures`."""
        self._live.update(self._picture(figures), refresh=True)

    def _picture(self, figures: Figures) -> RenderableType:
        head = Text.assemble(
            ("splitproxy demo", "bold"),
            f"   {figures.seconds:.0f} s   {figures.seen.answered} answered   ",
            (f"{figures.failed} failed", "bold red" if figures.failed else ""),
            ("   Ctrl-C ends", "dim"),
        )
        places = Table.grid(padding=(0, 2))
        for name, place in self._places:
            places.add_row(Text(name, "dim"), Text(place, overflow="fold"))
        if figures.rollout is not None:
            places.add_row(Text("also", "dim"), Text(self._look, overflow="fold"))
        parts: list[RenderableType] = [head, Text(self._purpose, "dim"), places, Text(), split(figures)]
        parts += [Text(), signals(figures), Text()]
        parts.append(recent(figures.seen.recent) if figures.rollout is None else release(figures.rollout))
        return Group(*parts)


def split(figures: Figures) -> Table:
    """Return the bars: configured above observed for each side."""
    table = Table.grid(padding=(0, 2))
    for side in figures.sides:
        colour, observed = _COLOURS.get(side.role, ""), figures.observed(side)
        table.add_row(
            Text(side.role, f"bold {colour}"), "configured", _bar(side.configured, "dim"), _share(side.configured)
        )
        table.add_row(Text(side.name, "dim"), "observed", _bar(observed, colour), _share(observed))
    return table


def signals(figures: Figures) -> Table:
    """Return the table of the last ten seconds."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("last 10 s")
    for name in ("requests/s", "success", "p50", "p99", "since start"):
        table.add_column(name, justify="right")
    for side in figures.sides:
        rate = reports.NOTHING if side.rate is None else f"{side.rate:.1f}"
        table.add_row(
            *(Text(side.role, _COLOURS.get(side.role, "")), rate, words.percent(side.success)),
            *(words.milliseconds(side.p50), words.milliseconds(side.p99), f"{side.assigned}"),
        )
    return table


def release(rollout: reports.Rollout) -> RenderableType:
    """Return where the rollout stands, what its last check said, and what has happened."""
    verdicts = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("last check", "verdict", "value", "limits", "primary", "sample"):
        verdicts.add_column(name)
    for verdict in rollout["verdicts"]:
        metric, outcome, *cells = reports.verdict_row(verdict)
        verdicts.add_row(metric, Text(outcome, _OUTCOMES.get(outcome, "")), *cells[:-1])
    facts = Table.grid(padding=(0, 2))
    for name, text in (
        ("plan", reports.plan(rollout)),
        ("reason", rollout["reason"]),
        ("edit", reports.adoption(rollout)),
    ):
        if text:
            facts.add_row(Text(name, "dim"), text)
    past = [
        Text(line, overflow="ellipsis", no_wrap=True)
        for line in reports.latest(rollout["history"], _HISTORY, "%H:%M:%S")
    ]
    headline = Text(reports.headline(rollout), f"bold {_PHASES.get(rollout['phase'], '')}")
    return Group(headline, facts, verdicts, *past)


def recent(requests: Iterable[Seen]) -> Table:
    """Return the latest requests, the newest last."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("latest", "path", "status", "took", "answered by"):
        table.add_column(name)
    for seen in requests:
        at = time.strftime("%H:%M:%S", time.localtime(seen.at))
        colour = _COLOURS.get(seen.role, "")
        status = Text(str(seen.status), "" if seen.status < 300 else "bold red")
        table.add_row(at, seen.path, status, words.milliseconds(seen.seconds), Text(seen.role, colour))
    return table


def _bar(percent: float, style: str) -> Text:
    whole, eighths = divmod(round(percent / 100 * _WIDTH * 8), 8)
    filled = "█" * whole + (_EIGHTHS[eighths] if eighths else "")
    return Text(filled.ljust(_WIDTH), style)


def _share(percent: float) -> Text:
    return Text(f"{percent:6.2f} %")
