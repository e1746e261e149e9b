"""Small pictures of figures as SVG: bars with their spread, lines, goals. No library, no script, no font."""

import math
import statistics
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 760
INK, PALE, PAPER = "#1a202c", "#4a5568", "#fbfcfd"
COLOURS = {
    "splitproxy": "#0072b2",
    "nginx": "#009e73",
    "haproxy": "#e69f00",
    "envoy": "#cc79a7",
    "aiohttp": "#8a8f98",
}
"""Told apart by every kind of sight (Okabe and Ito); names stand beside them all the same."""
_BAR, _GAP = 16, 7
_NAME, _FIGURE = 78, 142
"""Width left of bars for names, and right of them for figures."""


@dataclass(frozen=True)
class Bar:
    """One bar: the median of its values, and a whisker from the least to the greatest."""

    name: str
    values: Sequence[float]
    colour: str = ""

    @property
    def middle(self) -> float:
        return statistics.median(self.values)


def panel_height(count: int) -> int:
    """Return the height of a panel with so many bars."""
    return 30 + count * (_BAR + _GAP) + 12


def panel(left: float, top: float, width: float, title: str, bars: Sequence[Bar], form: Callable[[float], str]) -> str:
    """Return bars one below the other under a title; all begin at nought and share a scale."""
    most = max(max(bar.values) for bar in bars)
    across = (width - _NAME - _FIGURE) / most
    parts = [text(left, top + 14, title, weight=600)]
    for number, bar in enumerate(bars):
        y = top + 30 + number * (_BAR + _GAP)
        x = left + _NAME
        parts.append(text(x - 8, y + 12, bar.name, anchor="end"))
        colour = bar.colour or COLOURS.get(bar.name, PALE)
        parts.append(f'<rect x="{x:.1f}" y="{y}" width="{bar.middle * across:.1f}" height="{_BAR}" fill="{colour}"/>')
        end = bar.middle
        if len(bar.values) > 1:
            low, end = min(bar.values), max(bar.values)
            whisker = f"M{x + low * across:.1f} {y + 8}H{x + end * across:.1f}"
            parts.append(f'<path d="{whisker}" stroke="{INK}" stroke-width="1.5"/>')
        parts.append(text(x + end * across + 7, y + 12, spread(bar.values, form)))
    return "\n".join(parts)


def spread(values: Sequence[float], form: Callable[[float], str]) -> str:
    """Return the median, with the extremes where there are several."""
    middle = form(statistics.median(values))
    return middle if len(values) < 2 else f"{middle} ({form(min(values))} to {form(max(values))})"


def bars(title: str, panels: Sequence[tuple[str, Sequence[Bar], Callable[[float], str]]], note: str) -> str:
    """Return a picture of several panels, two beside each other where there are more than one."""
    columns = 1 if len(panels) == 1 else 2
    width = (WIDTH - 48 - 24 * (columns - 1)) / columns
    parts, top = [], 56
    for at in range(0, len(panels), columns):
        row = panels[at : at + columns]
        for column, (name, shown, form) in enumerate(row):
            parts.append(panel(24 + column * (width + 24), top, width, name, shown, form))
        top += max(panel_height(len(shown)) for _, shown, _ in row)
    return picture(title, parts, top + 26, note)


@dataclass(frozen=True)
class Line:
    """A line through points, named at its end."""

    name: str
    points: Sequence[tuple[float, float]]


def lines(title: str, shown: Sequence[Line], unit: str, note: str) -> str:
    """Return lines over a logarithmic abscissa whose ticks are the points themselves."""
    height, left, right, top = 250, 70, WIDTH - 110, 84
    steps = [x for x, _ in shown[0].points]
    most = _round_up(max(y for line in shown for _, y in line.points))
    span = math.log10(steps[-1] / steps[0])

    def place(x: float, y: float) -> tuple[float, float]:
        return left + (right - left) * math.log10(x / steps[0]) / span, top + height * (1 - y / most)

    parts = []
    for number in range(5):
        y = top + height * number / 4
        parts.append(f'<path d="M{left} {y:.1f}H{right}" stroke="#d5dbe3"/>')
        parts.append(text(left - 8, y + 4, f"{most * (4 - number) / 4:g}", anchor="end"))
    parts.append(text(24, top - 22, unit))
    parts += [text(place(x, 0)[0], top + height + 20, f"{x:,.0f}", anchor="middle") for x in steps]
    for line in shown:
        colour = COLOURS.get(line.name, PALE)
        places = [place(x, y) for x, y in line.points]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        parts.append(f'<path d="M{path}" stroke="{colour}" stroke-width="2.5" fill="none"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>' for x, y in places]
        parts.append(text(places[-1][0] + 10, places[-1][1] + 4, f"{line.name} {line.points[-1][1]:.0f}"))
    return picture(title, parts, top + height + 56, note)


def _round_up(value: float) -> float:
    """Return the next number that four steps divide well."""
    power = 10 ** math.floor(math.log10(value))
    return float(next(step * power for step in (1, 1.2, 1.6, 2, 2.4, 2.8, 3.2, 4, 6, 8, 10) if step * power >= value))


def goals(title: str, shown: Sequence[tuple[str, float, str]], note: str) -> str:
    """Return what was measured as a part of what was allowed: name, ratio, and the figures in words.

    The line is the goal; what reaches beyond it is hatched and said to be missed.
    """
    left, right, top = 316, 572, 72
    across = (right - left) / 1.6
    goal = left + across
    parts = [
        '<defs><pattern id="missed" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
        '<rect width="6" height="6" fill="#f3d9d4"/><rect width="3" height="6" fill="#c0392b"/></pattern></defs>'
    ]
    for number, (name, ratio, words) in enumerate(shown):
        y = top + number * (_BAR + 10)
        parts.append(text(left - 10, y + 12, name, anchor="end"))
        fill = "url(#missed)" if ratio > 1 else COLOURS["splitproxy"]
        reach = min(ratio, 1.6) * across
        parts.append(f'<rect x="{left}" y="{y}" width="{reach:.1f}" height="{_BAR}" fill="{fill}"/>')
        parts.append(text(right + 8, y + 12, f"{words}{', missed' if ratio > 1 else ''}"))
    bottom = top + len(shown) * (_BAR + 10)
    parts.append(f'<path d="M{goal:.1f} {top - 8}V{bottom}" stroke="{INK}" stroke-width="1.5"/>')
    parts.append(text(goal, top - 13, "goal", anchor="middle"))
    return picture(title, parts, bottom + 40, note)


def text(x: float, y: float, said: str, anchor: str = "start", weight: int = 400) -> str:
    more = f' text-anchor="{anchor}"' if anchor != "start" else ""
    more += f' font-weight="{weight}"' if weight != 400 else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{more}>{escape(said)}</text>'


def picture(title: str, parts: Sequence[str], height: float, note: str) -> str:
    """Return the whole: a title above, a note below, and both for those who cannot see it."""
    said = textwrap.wrap(note, 112)
    height += 16 * (len(said) - 1)
    body = "\n".join(parts)
    notes = [
        f'<text x="24" y="{height - 14 - 16 * after:.0f}" font-size="12" fill="{PALE}">{escape(line)}</text>'
        for after, line in enumerate(reversed(said))
    ]
    below = "\n".join(reversed(notes))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" role="img" '
        f'aria-label="{escape(title)}" font-family="system-ui, sans-serif" font-size="13" fill="{INK}">\n'
        f"<title>{escape(title)}</title><desc>{escape(note)}</desc>\n"
        f'<rect width="{WIDTH}" height="{height:.0f}" rx="10" fill="{PAPER}"/>\n'
        f'<text x="24" y="32" font-size="17" font-weight="600">{escape(title)}</text>\n{body}\n'
        f"{below}\n</svg>\n"
    )
