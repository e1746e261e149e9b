"""Clients that keep their side: few send most requests, and some meet a fault of both versions again and again."""

from typing import Final

import numpy as np

from splitproxy.simulation.traffic import Counts, Flags, Floats
from splitproxy.simulation.weighing import Counted

CLIENTS: Final = 2000
EXPONENT: Final = 1.1
"""Of how requests are shared out among clients: the n-th has 1/n**EXPONENT times as many as the first."""
TROUBLED: Final = 0.02
"""Part of the clients that meet a fault of both versions."""
TROUBLE_EVERY: Final = 300.0
"""Seconds until a troubled client's trouble begins, on average."""
TROUBLE_SECONDS: Final = 20
"""For so long each of its requests fails, one a second."""


class Clients:
    """The clients of many rollouts. A client is the canary's where its number in 0..1 is below the weight."""

    def __init__(self, random: np.random.Generator, runs: int) -> None:
        self._random = random
        self._numbers = random.random((runs, CLIENTS))
        part = 1.0 / np.arange(1, CLIENTS + 1) ** EXPONENT
        self._part = part / part.sum()
        self._upto = np.cumsum(self._part)
        self._seen = np.zeros((runs, CLIENTS), dtype=bool)
        self._troubled = max(1, round(TROUBLED * CLIENTS))
        self._who = np.sort(random.permuted(np.tile(np.arange(CLIENTS), (runs, 1)), axis=1)[:, : self._troubled])
        self._weight = np.full(runs, -1.0)
        self._is_canary = np.zeros((runs, CLIENTS), dtype=bool)
        self._share = np.zeros(runs)
        """Of the canary's clients, among all requests."""
        self._trouble = np.zeros(self._who.shape, dtype=np.int64)

    def draw(self, rate: Floats, errors: Floats, canary_errors: Floats, weight: Floats) -> Counted:
        """Return what a second brings; a client's bad events count once, all its failures as failures."""
        random, runs = self._random, len(rate)
        self._follow(weight)
        is_canary, share = self._is_canary, self._share
        canary, primary = random.poisson(rate * share), random.poisson(rate * (1.0 - share))
        row, client = self._failures(rate, errors, canary_errors, is_canary)
        side = is_canary[row, client]
        failed = np.bincount(row[side], minlength=runs), np.bincount(row[~side], minlength=runs)
        fresh = ~self._seen[row, client]
        once = np.unique(row[fresh] * CLIENTS + client[fresh])
        row, client = once // CLIENTS, once % CLIENTS
        self._seen[row, client] = True
        side = is_canary[row, client]
        bad = np.bincount(row[side], minlength=runs), np.bincount(row[~side], minlength=runs)
        canary, primary = np.maximum(canary, failed[0]), np.maximum(primary, failed[1])
        return Counted(canary, primary, *bad, failed=failed)

    def _follow(self, weight: Floats) -> None:
        """Divide clients anew where the weight has changed."""
        rows = np.nonzero(weight != self._weight)[0]
        if rows.size:
            self._is_canary[rows] = self._numbers[rows] < weight[rows, None]
            self._share[rows] = (self._is_canary[rows] * self._part).sum(axis=1)
            self._weight = weight.copy()

    def _failures(self, rate: Floats, errors: Floats, canary_errors: Floats, is_canary: Flags) -> tuple[Counts, Counts]:
        """Return who fails: rollouts, and their clients."""
        random = self._random
        most = np.maximum(errors, canary_errors)
        count = random.poisson(rate * most)
        row = np.repeat(np.arange(len(rate)), count)
        client = np.minimum(np.searchsorted(self._upto, random.random(row.size)), CLIENTS - 1)
        chance = np.where(is_canary[row, client], canary_errors[row], errors[row])
        fails = random.random(row.size) * most[row] < chance
        starts = random.random(self._trouble.shape) < 1.0 / TROUBLE_EVERY
        self._trouble = np.where(starts, TROUBLE_SECONDS, np.maximum(self._trouble - 1, 0))
        troubled = np.nonzero(self._trouble)
        return (
            np.concatenate((row[fails], troubled[0])),
            np.concatenate((client[fails], self._who[troubled])),
        )
