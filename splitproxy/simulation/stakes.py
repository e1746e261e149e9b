"""The bets of `core.sequential`, of many rollouts at once: a row for each rollout, a column for each bet."""

from collections.abc import Sequence

import numpy as np

from splitproxy.core.sequential import Schedule
from splitproxy.simulation.traffic import Counts, Floats

_LEAST, _MOST = 1e-250, 1e280


class Stakes:
    """`sequential.Wealth`, of many rollouts whose ticks are the same."""

    def __init__(self, prior: Sequence[float], runs: int, schedule: Schedule, start_mass: float = 0.5) -> None:
        part = np.array(prior)
        self._first = start_mass * part
        self._late = (1.0 - start_mass) * part
        self._schedule = schedule
        self._ticks = 0
        self._unspent = 1.0 - start_mass
        self.held: Floats = np.tile(self._first, (runs, 1))

    def tick(self) -> None:
        """Start anew with this tick's share."""
        self._ticks += 1
        share = self._schedule.share(self._ticks)
        self._unspent -= share * float(self._late.sum())
        self.held += share * self._late

    def gain(self, gains: Floats) -> None:
        """Multiply each bet by its outcome."""
        self.held *= np.exp(np.minimum(gains, 600.0))
        np.minimum(self.held + _LEAST, _MOST, out=self.held)

    def e(self) -> Floats:
        """Return each rollout's e-value."""
        total: Floats = self.held.sum(axis=1) + max(self._unspent, 0.0)
        return total

    def after(self, gains: Floats, rows: Counts | None = None) -> Floats:
        """Return what the e-values of some rollouts would be after gains; these may have more axes before the last."""
        held = self.held if rows is None else self.held[rows]
        held = held.reshape(held.shape[0], *[1] * (gains.ndim - 2), held.shape[-1])
        total: Floats = np.sum(held * np.exp(np.minimum(gains, 600.0)), axis=-1) + max(self._unspent, 0.0)
        return total

    def again(self, rows: Counts) -> None:
        """Let some rollouts begin anew."""
        self.held[rows] = self._first
