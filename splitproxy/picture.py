"""A rollout as a picture on a terminal (rich): as much as fits, what matters most stays longest."""

from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

from rich.console import Group
from rich.text import Text

from splitproxy import reports, tables

ROLES: Final = {"primary": "cyan", "canary": "yellow"}
WORDS: Final = {
    **dict.fromkeys(("pass", "Succeeded", "healthy"), "green"),
    **dict.fromkeys(("fail", "Failed", "error", "unhealthy", "ejected"), "bold red"),
    **dict.fromkeys(("inconclusive", "Paused", "panic"), "yellow"),
    **ROLES,
}
"""Words that have a colour of their own where they are all of a cell; none is told by its colour alone."""
NAME_WIDTH: Final = 12
"""Columns of the name before a fact, with the gap behind it."""
_EIGHTHS: Final = " ▏▎▍▌▋▊▉"
_CLOCK: Final = "%H:%M:%S"

Lines = list[Text]


class Block(NamedTuple):
    """Lines that belong together."""

    rank: int
    """Where there is too little room, blocks of the highest rank lose their lines first."""
    lines: Lines
    newest_last: bool = False
    """Whether the first line is the least needed; else the last is."""


def fitted(blocks: Sequence[Block], height: int) -> Group:
    """Return the lines of `blocks`, in their order, as many as `height` has room for."""
    over = sum(len(block.lines) for block in blocks) - height
    kept = {place: block.lines for place, block in enumerate(blocks)}
    for place, block in sorted(enumerate(blocks), key=lambda pair: -pair[1].rank):
        cut = min(max(over, 0), len(block.lines))
        over -= cut
        kept[place] = block.lines[cut:] if block.newest_last else block.lines[: len(block.lines) - cut]
    return Group(*(line for lines in kept.values() for line in lines))


def gap(rank: int = 90) -> Block:
    """Return an empty line, which is among the first to go."""
    return Block(rank, [Text()])


def fact(name: str, text: str | Text, width: int, most: int = 1) -> Lines:
    """Return `text` behind its name, in at most `most` lines of `width`; what is longer ends with an ellipsis."""
    whole = text if isinstance(text, Text) else Text(text)
    room = max(width - NAME_WIDTH, 10)
    lines = _folded(whole, room)
    if len(lines) > most:
        lines = [*lines[: most - 1], Text(" ").join(lines[most - 1 :])]
        lines[-1].truncate(room, overflow="ellipsis")
    heads = [Text(name.ljust(NAME_WIDTH), "dim"), *[Text(" " * NAME_WIDTH)] * (len(lines) - 1)]
    return [Text.assemble(head, line, no_wrap=True) for head, line in zip(heads, lines, strict=True)]


def _folded(text: Text, width: int) -> Lines:
    """Return `text` in lines of at most `width`, cut between words where that can be."""
    breaks, begin, plain = [], 0, text.plain
    while len(plain) - begin > width:
        space = plain.rfind(" ", begin, begin + width + 1)
        begin = space + 1 if space > begin else begin + width
        breaks.append(begin)
    lines = list(text.divide(breaks))
    for line in lines:
        line.rstrip()
    return lines


def table(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    width: int,
    *,
    right: Collection[int] = (),
    whole: Collection[int] = (),
    leaving: Sequence[int] = (),
) -> Lines:
    """Return a table of `width`, its heads first; see `tables.fitted`."""
    head, *lines = tables.fitted([heads, *rows], width, right=right, whole=whole, leaving=leaving)
    return [
        Text(tables.GAP.join(head), "dim", no_wrap=True),
        *(
            Text(tables.GAP, no_wrap=True).join(Text(cell, WORDS.get(cell.strip(), "")) for cell in line)
            for line in lines
        ),
    ]


def bar(percent: float, width: int, style: str) -> Text:
    """Return a bar that is `width` long at 100 %."""
    whole, eighths = divmod(round(percent / 100 * width * 8), 8)
    filled = "█" * whole + (_EIGHTHS[eighths] if eighths else "")
    return Text(filled.ljust(width), style)


# --- of a rollout -----------------------------------------------------------------------------------------------------
def headline(rollout: reports.Rollout) -> Text:
    """Return where it stands, in one line."""
    return Text(reports.headline(rollout), f"bold {WORDS.get(rollout['phase'], '')}", no_wrap=True, overflow="ellipsis")


def plan(rollout: reports.Rollout, width: int, most: int = 2) -> Lines:
    """Return its stages in a line or two, the present one in brackets; stages long past give way to it."""
    parts = reports.plan_parts(rollout)
    present = rollout["step"] if 0 <= rollout["step"] < len(parts) else 0
    room = max(width - NAME_WIDTH, 10) * most - 10
    first = 0
    while first < present and len(" → ".join(parts[first : present + 2])) > room:
        first += 1
    text = Text("… → " if first else "")
    for number, part in enumerate(parts[first:], first):
        text.append(" → " if number > first else "")
        text.append(part, "bold" if number == rollout["step"] else "dim" if number < rollout["step"] else "")
    return fact("plan", text, width, most) if parts else []


def verdicts(rollout: reports.Rollout, width: int) -> Lines:
    """Return what its last check said, below it the reasons of what did not pass; nothing before the first check.

    What the rollout's own reason or its evidence says is left to them.
    """
    found = rollout["verdicts"]
    if not found:
        return []
    rows = [reports.verdict_row(verdict)[:-1] for verdict in found]
    lines = table(reports.VERDICT_HEADS[:-1], rows, width, right=(2, 3, 4, 5), whole=(0,), leaving=(5, 4))
    said = (rollout["reason"], reports.evidence(rollout))
    for verdict in found:
        if verdict["outcome"] != "pass" and not any(verdict["reason"] in text for text in said):
            lines += fact("  why", verdict["reason"], width, 2)
    return lines


def past(rollout: reports.Rollout, most: int) -> Lines:
    """Return the last of what has happened to it, the newest last; what repeats itself is one line."""
    return [
        Text(line, "yellow" if warning else "", no_wrap=True, overflow="ellipsis")
        for line, warning in reports.summed(rollout["history"], _CLOCK)[-most:]
    ]
