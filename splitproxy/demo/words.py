"""The demo in plain lines: while it runs where there is no terminal, and its summary anywhere."""

from pathlib import Path
from typing import Final

from splitproxy.demo.figures import Figures, Side

NOTHING: Final = "\N{EN DASH}"
"""What stands where nothing was measured."""


def beginning(proxy: str, admin: str, config: Path, canary: float) -> str:
    """Return where everything is."""
    return (
        f"proxy   http://{proxy}   {100 - canary:g} % to v1 (primary), {canary:g} % to v2 (canary)\n"
        f"admin   http://{admin}\n"
        f"config  {config}"
    )


def line(figures: Figures) -> str:
    """Return one look as one line."""
    rate = sum(side.rate or 0.0 for side in figures.sides)
    parts = [f"{figures.seconds:4.0f} s", f"{figures.seen.answered} ok", f"{figures.failed} failed", f"{rate:.0f}/s"]
    parts += [
        f"{side.name} {figures.observed(side):.1f} % (p50 {milliseconds(side.p50)}, p99 {milliseconds(side.p99)})"
        for side in figures.sides
    ]
    return "  ".join(parts)


def summary(figures: Figures, reasons: list[str]) -> str:
    """Return how it went."""
    lines = [f"{figures.seen.answered} requests answered in {figures.seconds:.1f} s, {figures.failed} failed."]
    lines += [_side(figures, side) for side in figures.sides]
    lines += [f"did not hold: {reason}" for reason in reasons] or ["Everything held."]
    return "\n".join(lines)


def _side(figures: Figures, side: Side) -> str:
    return (
        f"  {side.name} {side.role:8} configured {side.configured:6.2f} %  observed {figures.observed(side):6.2f} %  "
        f"p50 {milliseconds(side.p50)}  p99 {milliseconds(side.p99)}"
    )


NEXT: Final = """\
Next:
  splitproxy demo --weight 50 --duration 20     another split
  splitproxy check config/first.yaml            a configuration of your own begins like this one
  splitproxy run -c config/first.yaml           nine requests of ten to 127.0.0.1:9001, one to :9002"""


def milliseconds(seconds: float | None) -> str:
    """Return a duration as people read it."""
    return NOTHING if seconds is None else f"{seconds * 1000:.1f} ms"


def percent(share: float | None) -> str:
    """Return a share of 1 in percent, never 100 % while one failed."""
    if share is None:
        return NOTHING
    return "100 %" if share == 1 else f"{min(100 * share, 99.99):.2f} %"
