"""`splitproxy top` on a terminal: two tables that fill it."""

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Final

from rich.console import RenderableType
from rich.text import Text

from splitproxy import picture
from splitproxy.cli import flows
from splitproxy.cli.admin_client import Unanswered
from splitproxy.cli.looking import Untold
from splitproxy.cli.progress import working
from splitproxy.cli.screen import Screen
from splitproxy.picture import Block, Lines

_ANSWER_SECONDS: Final = 10.0


class _Top:
    """What was seen, and how it is sorted."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._seen: flows.Flows | None = None
        self._rates: list[float | None] = []
        self._trouble, self._answered = "", time.monotonic()

    def look(self) -> None:
        """See what flows; what was seen stays when nobody answers. Raises Untold, and Unanswered at first."""
        try:
            now = flows.look(self._options, _ANSWER_SECONDS)
        except Unanswered as error:
            if self._seen is None:
                raise
            self._trouble = str(error)
        else:
            self._rates, self._seen = flows.rates(self._seen, now), now
            self._trouble, self._answered = "", time.monotonic()

    def press(self, key: str) -> bool:
        """Take a key, and say whether to go on."""
        if key == "s":
            place = flows.SORTS.index(self._options.sort)
            self._options.sort = flows.SORTS[(place + 1) % len(flows.SORTS)]
        return key != "q"

    def picture(self, width: int, height: int) -> RenderableType:
        """Return both tables, in what room there is."""
        seen = self._seen
        assert seen is not None  # the first look was answered
        addresses = [flows.address_row(one, rate) for one, rate in zip(seen.addresses, self._rates, strict=True)]
        fits = _fitting(addresses, max((height - 3) // 3, 3))
        whole, leaving = flows.ADDRESS_WHOLE, flows.ADDRESS_LEAVING
        below = _with_rest(
            addresses,
            picture.table(
                flows.ADDRESS_HEADS, addresses[:fits], width, right=range(3, 8), whole=whole, leaving=leaving
            ),
        )
        rows = [flows.flow_row(flow) for flow in seen.flows]
        fits, leaving = _fitting(rows, height - 3 - len(below)), flows.FLOW_LEAVING
        lines = picture.table(flows.FLOW_HEADS, rows[:fits], width, right=range(3, 9), leaving=leaving)
        above = Block(0, _with_rest(rows, lines))
        return picture.fitted([Block(0, [self._head(seen)]), above, picture.gap(), Block(1, below)], height)

    def _head(self, seen: flows.Flows) -> Text:
        if self._trouble:
            text = f"As of {time.monotonic() - self._answered:.0f} s ago. {self._trouble}"
            return Text(text, "reverse", no_wrap=True, overflow="ellipsis")
        return Text.assemble(
            (f"{seen.rate:.1f} requests/s", "bold"),
            f"   last {self._options.window[:-1]} s   by {self._options.sort}   ",
            *(("s", "bold"), (" sorts  ", "dim"), ("q", "bold"), (" leaves   ", "dim")),
            (f"{seen.at.astimezone():%H:%M:%S}", "dim"),
            no_wrap=True,
            overflow="ellipsis",
        )


def _fitting(rows: Sequence[Sequence[str]], room: int) -> int:
    """Return how many rows are shown in `room` lines, heads and the line that tells of the rest included."""
    return len(rows) if len(rows) < room else max(room - 2, 1)


def _with_rest(rows: Sequence[Sequence[str]], lines: Lines) -> Lines:
    """Return the lines of a table of `rows`, and how many of them are not shown."""
    left = len(rows) - len(lines) + 1
    return [*lines, Text(f"and {left} more", "dim")] if left else lines


def watch(options: argparse.Namespace) -> int:
    """Draw until a key ends it and return 0; 1 when the proxy does not tell."""
    top = _Top(options)
    try:
        began = time.monotonic()
        with working("Asking"):
            top.look()
        with Screen() as screen:
            while True:
                screen.show(top.picture(screen.width, screen.height))
                if not top.press(screen.key(flows.pause(options.interval, time.monotonic() - began))):
                    return 0
                began = time.monotonic()
                top.look()
    except (Unanswered, Untold) as error:
        print(error, file=sys.stderr)
        return 1
