"""The demo on a terminal: one picture, drawn anew several times a second."""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from splitproxy import picture, reports
from splitproxy.demo import words
from splitproxy.demo.figures import Figures
from splitproxy.demo.files import ROLLOUT
from splitproxy.demo.traffic import Seen
from splitproxy.picture import Block, Lines

_HISTORY: Final = 8
"""Lines of what has happened; the last of them stay where there is little room."""
_STAYING: Final = 3
_WIDEST: Final = 40
"""Columns of a bar for 100 %."""
_BESIDE: Final = 32
"""Columns beside a bar."""


class View:
    """A live picture; a context manager that leaves the last one standing."""

    def __init__(self, proxy: str, admin: str, config: Path, purpose: str, console: Console | None = None) -> None:
        self._purpose = purpose
        self._look = f"splitproxy status {ROLLOUT} --watch --admin http://{admin}"
        self._places = (("proxy", f"http://{proxy}"), ("admin", f"http://{admin}"), ("config", str(config)))
        self._console = console or Console()
        self._live = Live(console=self._console, auto_refresh=False, redirect_stdout=False)

    def __enter__(self) -> "View":
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, figures: Figures) -> None:
        """Draw `figures`."""
        self._live.update(self._picture(figures), refresh=True)

    def _picture(self, figures: Figures) -> RenderableType:
        size = self._console.size
        blocks = [Block(0, [self._head(figures)]), Block(8, picture.fact("shows", self._purpose, size.width, 2))]
        # What is needed to look elsewhere stays; where the file is matters less, and the command least.
        blocks += [
            Block(rank, picture.fact(name, place, size.width, 2))
            for rank, (name, place) in zip((3, 3, 6), self._places, strict=True)
        ]
        if figures.rollout is not None:
            blocks.append(Block(7, picture.fact("also", self._look, size.width, 2)))
        blocks += [picture.gap(), Block(1, split(figures, size.width)), picture.gap()]
        blocks += [Block(2, signals(figures, size.width)), picture.gap()]
        if figures.rollout is None:
            blocks.append(Block(9, recent(figures.seen.recent, size.width)))
        else:
            blocks += release(figures.rollout, size.width)
        return picture.fitted(blocks, size.height - 1)

    def _head(self, figures: Figures) -> Text:
        return Text.assemble(
            ("splitproxy demo", "bold"),
            f"   {figures.seconds:.0f} s   {figures.seen.answered} answered   ",
            (f"{figures.failed} failed", "bold red" if figures.failed else ""),
            ("   Ctrl-C ends", "dim"),
            no_wrap=True,
            overflow="ellipsis",
        )


def split(figures: Figures, width: int) -> Lines:
    """Return the bars: configured above observed for each side."""
    long = max(min(_WIDEST, width - _BESIDE), 5)
    lines = []
    for side in figures.sides:
        colour, observed = picture.ROLES.get(side.role, ""), figures.observed(side)
        for name, what, share, styles in (
            (side.role, "configured", side.configured, (f"bold {colour}", "dim")),
            (side.name, "observed", observed, ("dim", colour)),
        ):
            bar = picture.bar(share, long, styles[1])
            lines.append(Text.assemble((f"{name:8.8}", styles[0]), f"  {what:10}  ", bar, f"  {share:6.2f} %"))
    return lines


def signals(figures: Figures, width: int) -> Lines:
    """Return the table of the last ten seconds."""
    rows = [
        (
            *(side.role, reports.NOTHING if side.rate is None else f"{side.rate:.1f}", words.percent(side.success)),
            *(words.milliseconds(side.p50), words.milliseconds(side.p99), f"{side.assigned}"),
        )
        for side in figures.sides
    ]
    heads = ("last 10 s", "requests/s", "success", "p50", "p99", "since start")
    return picture.table(heads, rows, width, right=range(1, 6), leaving=(3,))


def release(rollout: reports.Rollout, width: int) -> list[Block]:
    """Return where the rollout stands, what its last check said, and what has happened."""
    past, evidence = picture.past(rollout, _HISTORY), reports.evidence(rollout)
    # Once it has come to a decision, that is the reason.
    weighed = picture.fact("evidence", evidence, width, 2) if evidence and evidence not in rollout["reason"] else []
    return [
        Block(0, [picture.headline(rollout)]),
        Block(5, picture.plan(rollout, width)),
        Block(1, picture.fact("reason", rollout["reason"], width, 3) if rollout["reason"] else []),
        Block(1, picture.fact("edit", reports.adoption(rollout), width) if rollout["adopt"] else []),
        Block(2, picture.verdicts(rollout, width)),
        Block(4, weighed),
        Block(9, past[:-_STAYING], newest_last=True),
        Block(4, past[-_STAYING:], newest_last=True),
    ]


def recent(requests: Iterable[Seen], width: int) -> Lines:
    """Return the latest requests, the newest last."""
    rows = [
        (
            *(time.strftime("%H:%M:%S", time.localtime(seen.at)), seen.path, str(seen.status)),
            *(words.milliseconds(seen.seconds), seen.role),
        )
        for seen in requests
    ]
    return picture.table(("latest", "path", "status", "took", "answered by"), rows, width)
