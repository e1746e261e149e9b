"""The demo in plain lines: while it runs where there is no terminal, and its summary anywhere."""

from pathlib import Path
from typing import Final

from splitproxy import reports
from splitproxy.demo.figures import Figures, Side
from splitproxy.demo.scenarios import SCENARIOS
from splitproxy.reports import NOTHING


def purpose(canary: float | None, scenario: str) -> str:
    """Return what is going to be seen."""
    if canary is not None:
        return f"{100 - canary:g} % to v1 (primary), {canary:g} % to v2 (canary)"
    return f"a rollout from v1 to v2; {scenario}: {SCENARIOS[scenario]}"


def beginning(proxy: str, admin: str, config: Path, purpose: str) -> str:
    """Return where everything is."""
    return f"proxy   http://{proxy}   {purpose}\nadmin   http://{admin}\nconfig  {config}"


class Lines:
    """Looks as lines: each one of its own, and one for everything that has happened to the rollout since the last."""

    def __init__(self) -> None:
        self._told: set[tuple[str, str]] = set()

    def of(self, figures: Figures) -> list[str]:
        """Return what there is to print of one look."""
        lines = []
        for entry in figures.rollout["history"] if figures.rollout else ():
            if (entry["at"], entry["text"]) not in self._told:
                self._told.add((entry["at"], entry["text"]))
                lines.append(f"        {entry['kind']}: {entry['text']}")
        return [*lines, line(figures)]


def line(figures: Figures) -> str:
    """Return one look as one line."""
    rate = sum(side.rate or 0.0 for side in figures.sides)
    parts = [f"{figures.seconds:4.0f} s", f"{figures.seen.answered} ok", f"{figures.failed} failed", f"{rate:.0f}/s"]
    parts += [
        f"{side.name} {figures.observed(side):.1f} % (p50 {milliseconds(side.p50)}, p99 {milliseconds(side.p99)})"
        for side in figures.sides
    ]
    if figures.rollout:
        parts.append(reports.headline(figures.rollout))
    return "  ".join(parts)


def summary(figures: Figures, reasons: list[str]) -> str:
    """Return how it went."""
    lines = [f"{figures.seen.answered} requests answered in {figures.seconds:.1f} s, {figures.failed} failed."]
    if figures.rollout:
        lines += [
            reports.headline(figures.rollout),
            *([figures.rollout["reason"]] if figures.rollout["reason"] else []),
        ]
        if edit := reports.adoption(figures.rollout):
            lines.append(f"The file adopts it by: {edit}")
    else:
        lines += [_side(figures, side) for side in figures.sides]
    if not reasons:
        lines += [f"failed: {count} times {why}" for why, count in figures.seen.failures.most_common()]
    lines += [f"did not hold: {reason}" for reason in reasons] or ["Everything held."]
    return "\n".join(lines)


def _side(figures: Figures, side: Side) -> str:
    return (
        f"  {side.name} {side.role:8} configured {side.configured:6.2f} %  observed {figures.observed(side):6.2f} %  "
        f"p50 {milliseconds(side.p50)}  p99 {milliseconds(side.p99)}"
    )


NEXT: Final = """\
Next:
  splitproxy demo --scenario errors             a canary that turns bad is rolled back; also slow, crash, flapping
  splitproxy demo --weight 50 --duration 20     a split that stays as it is, without a rollout
  splitproxy init shop.yaml                     a configuration of your own, commented, with a rollout
  splitproxy check config/first.yaml            the smallest one: errors with their lines, the order of routing
  splitproxy run -c config/first.yaml           nine requests of ten to 127.0.0.1:9001, one to :9002"""


def milliseconds(seconds: float | None) -> str:
    """Return a duration as people read it."""
    return NOTHING if seconds is None else f"{seconds * 1000:.1f} ms"


def percent(share: float | None) -> str:
    """Return a share of 1 in percent, never 100 % while one failed."""
    return NOTHING if share is None else reports.share_of_success(share)
