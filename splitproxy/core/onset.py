"""Since when something speaks against the canary: only for telling people, never for deciding.

Page's cumulative sums (1954): each bet's gains are added up and start anew whenever the sum falls to nothing; what was
counted since then is what the bet lives on. Totals of a whole rollout would hide an hour's good beginning behind them.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Counts(NamedTuple):
    """Finished requests and bad events of both sides."""

    canary: int = 0
    primary: int = 0
    bad_canary: int = 0
    bad_primary: int = 0

    def plus(self, other: "Counts") -> "Counts":
        """Return the sum."""
        return Counts(*[one + another for one, another in zip(self, other, strict=True)])

    def minus(self, other: Sequence[int]) -> "Counts":
        """Return what came on top of `other`."""
        return Counts(*[one - another for one, another in zip(self, other, strict=True)])


Mark = tuple[int, ...]
"""What had been counted at a moment."""


class Onset:
    """For each bet, the moment since which it gains."""

    __slots__ = ("_levels", "_marks", "_ticks")

    def __init__(self, bets: int, nothing: Mark) -> None:
        self._levels = [0.0] * bets
        self._marks = [nothing] * bets
        self._ticks = [0] * bets

    def step(self, gains: Sequence[float], marks: Sequence[Mark], tick: int) -> None:
        """Take each bet's gain, and from what on to count if it begins to gain with it: a mark and its tick."""
        levels = self._levels
        self._marks = [mark if level else now for level, mark, now in zip(levels, self._marks, marks, strict=True)]
        self._ticks = [old if level else tick for level, old in zip(levels, self._ticks, strict=True)]
        self._levels = [
            total if (total := level + gain) > 0.0 else 0.0 for level, gain in zip(levels, gains, strict=True)
        ]

    def since(self, number: int) -> tuple[Mark, int]:
        """Return what had been counted when a bet began to gain, and the tick."""
        return self._marks[number], self._ticks[number]

    def plain(self) -> dict[str, Any]:
        """Return the state, safe for JSON and exact."""
        return {"levels": [*self._levels], "marks": [[*mark] for mark in self._marks], "ticks": [*self._ticks]}

    def restore(self, plain: Mapping[str, Any]) -> None:
        """Take up a state of `plain()`."""
        self._levels = [*map(float, plain["levels"])]
        self._marks = [tuple(map(int, mark)) for mark in plain["marks"]]
        self._ticks = [*map(int, plain["ticks"])]
