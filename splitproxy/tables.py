"""Tables as aligned text that fits a width: the widest columns give way first, and the least needed ones leave."""

import textwrap
from collections.abc import Collection, Sequence
from typing import Final

GAP: Final = "  "
_LEAST: Final = 10
"""Letters that a column keeps where it gives way; and its head's."""
_LONGEST_WORD: Final = 30
"""Letters of a word that is not broken while there is another way."""

Row = Sequence[str]


def aligned(rows: Sequence[Row], right: Collection[int] = ()) -> list[list[str]]:
    """Return `rows`, the heads first, with all cells of a column of one width; those of `right` to its right."""
    return _padded(rows, _widths(rows), right)


def wrapped(rows: Sequence[Row], width: int) -> list[list[str]]:
    """Return `rows`, the heads first, as lines of aligned cells that fit `width` letters together with their gaps.

    What is too long goes on in further lines. What cannot be helped is too wide.
    """
    longest = [max(_longest_word(cell) for cell in column) for column in zip(*rows, strict=True)]
    widths = _shrunk(rows, width, [min(one, _LONGEST_WORD) for one in longest])
    if _total(widths) > width:
        widths = _shrunk(rows, width)
    return _padded([line for row in rows for line in _folded(row, widths)], widths, ())


def fitted(
    rows: Sequence[Row],
    width: int,
    *,
    right: Collection[int] = (),
    whole: Collection[int] = (),
    leaving: Sequence[int] = (),
) -> list[list[str]]:
    """Return `rows`, the heads first, as aligned cells that fit `width` letters together with their gaps.

    What is too long is cut and ends with an ellipsis, if it can be not in the columns of `whole` (by number). Those of
    `leaving` are left out, in that order, while the others cannot give way far enough. What cannot be helped is too
    wide.
    """
    kept = list(range(len(rows[0])))
    keep = [_LONGEST_WORD if number in whole else _LEAST for number in kept]
    widths = _shrunk(rows, width, keep)
    for gone in leaving:
        if _total(widths) <= width:
            break
        kept.remove(gone)
        chosen = [[row[number] for number in kept] for row in rows]
        widths = _shrunk(chosen, width, [keep[number] for number in kept])
    lines = [_cut([row[number] for number in kept], widths) for row in rows]
    return _padded(lines, widths, {place for place, number in enumerate(kept) if number in right})


def folded(text: str, width: int) -> list[str]:
    """Return `text` in lines of at most `width` letters, at least one."""
    lines = textwrap.wrap(_joined(text), width, break_on_hyphens=False) or [""]
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]


def _widths(rows: Sequence[Row]) -> list[int]:
    return [max(map(len, column)) for column in zip(*rows, strict=True)]


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + len(GAP) * (len(widths) - 1)


def _shrunk(rows: Sequence[Row], width: int, keep: Sequence[int] | None = None) -> list[int]:
    """Return widths that fit, the widest made narrower; too wide ones where each is down to its head and `keep`."""
    widths = _widths(rows)
    keep = keep or [_LEAST] * len(widths)
    least = [min(one, max(len(head), kept)) for one, head, kept in zip(widths, rows[0], keep, strict=True)]
    for _ in range(_total(widths) - width):
        able = [place for place, one in enumerate(widths) if one > least[place]]
        if not able:
            break
        widths[max(able, key=widths.__getitem__)] -= 1
    return widths


def _longest_word(text: str) -> int:
    return max(map(len, _joined(text).split(" ")))


def _joined(text: str) -> str:
    """Return `text` with numbers that keep to their percent signs."""
    return text.replace(" %", "\N{NO-BREAK SPACE}%")


def _cut(row: Row, widths: Sequence[int]) -> list[str]:
    return [cell if len(cell) <= width else cell[: width - 1] + "…" for cell, width in zip(row, widths, strict=True)]


def _folded(row: Row, widths: Sequence[int]) -> list[list[str]]:
    pieces = [folded(cell, width) for cell, width in zip(row, widths, strict=True)]
    count = max(map(len, pieces))
    return [[piece[line] if line < len(piece) else "" for piece in pieces] for line in range(count)]


def _padded(rows: Sequence[Row], widths: Sequence[int], right: Collection[int]) -> list[list[str]]:
    return [
        [
            cell.rjust(width) if place in right else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in rows
    ]
