"""`status --watch` on a terminal: a picture that fills it, and keys for what can be done."""

import argparse
import sys
import time
from typing import Any, Final

from rich.console import RenderableType
from rich.text import Text

from splitproxy import picture, reports
from splitproxy.cli import waiting
from splitproxy.cli.acting import refusal, send
from splitproxy.cli.admin_client import Unanswered, ask
from splitproxy.cli.looking import LOOK_SECONDS, Untold, look
from splitproxy.cli.progress import working
from splitproxy.cli.screen import Screen
from splitproxy.cli.sides import Route, Side, sides
from splitproxy.picture import Block, Lines
from splitproxy.reports import Rollout

KEYS: Final = {
    "s": "start",
    "p": "pause",
    "r": "resume",
    "m": "promote",
    "a": "abort",
    "t": "retry",
    "u": "undo",
    "v": "approve",
    "d": "deny",
}
"""Key -> verb."""
_ANSWER_SECONDS: Final = 5.0
_TOLD_SECONDS: Final = 6.0
"""How long it is shown what came of a verb."""
_BAR_LEAST: Final = 8
_WIDE: Final = 100
"""Columns from which on there is room for more than what is needed."""


class Watch:
    """What was last seen, and what is being asked of whoever watches."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._admin, self._name = options.admin, options.name
        self.found: Any = None
        """What the API told last."""
        self._routes: list[Route] = []
        self._trouble, self._seen_at = "", time.monotonic()
        self._asked: str | None = None
        self._told, self._told_at = "", 0.0

    def look(self) -> None:
        """See how it stands; what was seen stays when nobody answers. Raises Untold, and Unanswered at first."""
        try:
            self.found = look(self._admin, self._name, _ANSWER_SECONDS)
            if self._name:
                status, told = ask(self._admin, "GET", f"/api/v1/routes?route={self.found['route']}", _ANSWER_SECONDS)
                self._routes = told if status == 200 else []
        except Unanswered as error:
            if self.found is None:
                raise
            self._trouble = str(error)
        else:
            self._trouble, self._seen_at = "", time.monotonic()

    def press(self, key: str) -> bool:
        """Take a key, and say whether to go on."""
        if self._asked:
            if key == "y":
                self._do(self._asked)
            self._asked = None
            return True
        if self._name and self.found and KEYS.get(key) in self.found["verbs"]:
            self._asked = KEYS[key]
        return key != "q"

    def _do(self, verb: str) -> None:
        try:
            status, told = send(self._admin, self._name, "POST", verb)
            self._told = f"{verb}: done" if status < 300 else refusal(status, told, self._admin, self._name)
        except Unanswered as error:
            self._told = str(error)
        self._told_at = time.monotonic()

    def picture(self, width: int, height: int) -> RenderableType:
        """Return all of it, to fill `width` and `height`."""
        blocks = [Block(0, [self._trouble_line()] if self._trouble else [])]
        if self._name:
            blocks += _one(self.found, sides(self.found, self._routes), width, height)
        else:
            blocks += _all(self.found, width, height - len(blocks[0].lines) - 2)
        drawn = picture.fitted(blocks, height - 1)
        drawn.renderables.extend([Text()] * (height - 1 - len(drawn.renderables)))
        drawn.renderables.append(self._foot())
        return drawn

    def _trouble_line(self) -> Text:
        seconds = time.monotonic() - self._seen_at
        return Text(f"As of {seconds:.0f} s ago. {self._trouble}", "reverse", no_wrap=True, overflow="ellipsis")

    def _foot(self) -> Text:
        foot = Text("", no_wrap=True, overflow="ellipsis")
        if self._asked:
            return foot.append(f"{self._asked} {self._name}? y: yes, any other key: no", "reverse")
        if time.monotonic() - self._told_at < _TOLD_SECONDS:
            return foot.append(self._told, "reverse")
        verbs = self.found["verbs"] if self._name else []
        for key, verb in KEYS.items():
            if verb in verbs:
                foot.append(key, "bold").append(f" {verb}   ", "dim")
        foot.append("q", "bold").append(" leaves", "dim")
        return foot.append(f"   {time.strftime('%H:%M:%S')}", "dim")


def watch(options: argparse.Namespace) -> int:
    """Draw until a key or an outcome of --wait ends it; return the exit code."""
    view, goal = Watch(options), waiting.Goal(options) if options.wait else None
    try:
        with working("Asking"):
            view.look()
        code = _drawn(view, goal)
    except (Unanswered, Untold) as error:
        print(error, file=sys.stderr)
        return waiting.NOT_TOLD if goal else 1
    for rollout in view.found if isinstance(view.found, list) else [view.found]:
        print(waiting.standing(rollout))
    if goal and code:
        print(goal.complaint(code, view.found), file=sys.stderr)
    return code


def _drawn(view: Watch, goal: waiting.Goal | None) -> int:
    """Draw what is seen until a key ends it, or what `goal` waits for; return the exit code. Raises Untold."""
    with Screen() as screen:
        while True:
            code = goal.outcome(view.found) if goal else None
            if code is not None:
                return code
            screen.show(view.picture(screen.width, screen.height))
            if not view.press(screen.key(LOOK_SECONDS)):
                return 0
            view.look()


# --- the parts --------------------------------------------------------------------------------------------------------
def _all(rollouts: list[Rollout], width: int, room: int) -> list[Block]:
    if not rollouts:
        return [Block(0, [Text("There are no rollouts: the configuration has none.")])]
    shown = rollouts if len(rollouts) <= room else rollouts[: room - 1]
    lines = picture.table(reports.HEADS, [reports.row(one) for one in shown], width, whole=(0, 1), leaving=(6, 3, 4))
    left = len(rollouts) - len(shown)
    return [Block(0, lines), Block(0, [Text(f"and {left} more", "dim")] if left else [])]


def _one(rollout: Rollout, both: list[Side], width: int, height: int) -> list[Block]:
    waits, edit, evidence = reports.waits(rollout), reports.adoption(rollout), reports.evidence(rollout)
    urgent = [("waits for", waits), ("to edit", edit), *(("alarm", alarm) for alarm in rollout["alarms"])]
    past = picture.past(rollout, height)
    return [
        Block(0, [picture.headline(rollout)]),
        Block(1, picture.fact("reason", rollout["reason"], width, 3) if rollout["reason"] else []),
        *(Block(1, picture.fact(name, text, width, 2)) for name, text in urgent if text),
        Block(5, picture.plan(rollout, width)),
        Block(6, picture.fact("run", _run(rollout), width)),
        picture.gap(),
        Block(2, _side_by_side(both, width)),
        picture.gap(),
        Block(2, picture.verdicts(rollout, width)),
        Block(
            3, picture.fact("evidence", evidence, width, 3) if evidence and evidence not in rollout["reason"] else []
        ),
        picture.gap(),
        Block(8, past[:-3], newest_last=True),
        Block(4, past[-3:], newest_last=True),
    ]


def _run(rollout: Rollout) -> str:
    parts = [f"{rollout['strategy']} on {rollout['route']}"]
    if rollout["revision"]:
        parts.append(f"revision {rollout['revision']}, attempt {rollout['attempt']}")
    if rollout["nextCheckInSeconds"] is not None:
        parts.append(f"next check in {reports.duration(rollout['nextCheckInSeconds'])}")
    return "; ".join(parts)


def _side_by_side(both: list[Side], width: int) -> Lines:
    """Return the table of the two versions, with bars of their shares where there is room."""
    heads = ("LAST 10 S", "ROLE", "SHARE", "OBSERVED", "REQUESTS/S", "SUCCESS", "P50", "P99")
    rows = [
        (
            *(side.name, side.role, reports.percent(side.share), _percent(side.observed), f"{side.rate:.1f}"),
            *(_success(side.success), _milliseconds(side.p50), _milliseconds(side.p99)),
        )
        for side in both
    ]
    lines = picture.table(heads, rows, width, right=range(2, 8), leaving=(6, 3))
    room = width - len(lines[0].plain) - 2
    if room >= _BAR_LEAST:
        for line, side in zip(lines[1:], both, strict=True):
            line.append("  ").append(picture.bar(side.share, min(room, 40), picture.ROLES[side.role]))
    return lines


def _percent(value: float | None) -> str:
    return reports.NOTHING if value is None else f"{value:.1f} %"


def _success(share: float | None) -> str:
    return reports.NOTHING if share is None else reports.share_of_success(share)


def _milliseconds(seconds: float | None) -> str:
    return reports.NOTHING if seconds is None else reports.amount(seconds * 1000, "ms")
