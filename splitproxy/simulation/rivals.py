"""Other controllers' rules, given ideal measurements of the same traffic: no delay, exact windows, applied at once.

Flagger (scheduler.go of 1.x): every `interval` the canary's success rate over `window` has to be `least` or more; the
rollback comes with the tick after the failed checks have reached `threshold`. Argo Rollouts (analysis.go): a
measurement every `interval`; more failures than `failureLimit` abort at once.
"""

from typing import Final, NamedTuple

import numpy as np

from splitproxy.simulation.traffic import Counts, Floats

_NEVER: Final = np.nan
RIVAL_MS: Final = 500.0
"""The limit for p99 in the others' documented examples."""


class Rule(NamedTuple):
    """How another controller decides; times in seconds."""

    name: str
    interval: int
    window: int
    least: float
    """Success rate, 0 to 1."""
    failures: int
    """Failed checks that it takes."""
    next_tick: bool
    """Whether it rolls back one interval after the last of them."""
    duration: bool = False
    """Whether p99 has to be below `RIVAL_MS` too."""


RULES: Final = (
    Rule("Flagger 1m, threshold 5", 60, 60, 0.99, 5, next_tick=True, duration=True),
    Rule("Flagger 10s, threshold 10", 10, 60, 0.99, 10, next_tick=True, duration=True),
    Rule("Flagger 10s, threshold 1 *", 10, 10, 0.99, 1, next_tick=True, duration=True),
    Rule("Argo 5m, 95 %, limit 3", 300, 300, 0.95, 4, next_tick=False),
    Rule("Argo 1m, 99 %, limit 3", 60, 60, 0.99, 4, next_tick=False),
)
"""As documented for Istio; as for NGINX; the fastest that is accepted; Argo's documented example; a stricter one."""


class Watcher:
    """One rule, watching many rollouts."""

    def __init__(self, rule: Rule, runs: int) -> None:
        self.rule = rule
        self.at: Floats = np.full(runs, _NEVER)
        """The second of the rollback."""
        self.bad: Floats = np.full(runs, _NEVER)
        """The canary's failed requests until then."""
        self._failed = np.zeros(runs, dtype=np.int64)
        self._sums: dict[int, tuple[Counts, Counts, Counts]] = {0: (self._failed, self._failed, self._failed)}

    @property
    def undecided(self) -> bool:
        """Whether some rollout was not rolled back yet."""
        return bool(np.isnan(self.at).any())

    def see(self, second: int, requests: Counts, bad: Counts, slow: Counts) -> None:
        """Take the canary's counts since the beginning, as of the end of a second: all, failed, above `RIVAL_MS`."""
        rule = self.rule
        if second % min(rule.interval, 10):
            return
        self._sums[second] = requests.copy(), bad.copy(), slow.copy()
        self._sums.pop(second - rule.window - rule.interval, None)
        if second % rule.interval:
            return
        due = np.isnan(self.at) & (self._failed >= rule.failures) if rule.next_tick else np.zeros(len(bad), dtype=bool)
        before = self._sums.get(second - rule.window, self._sums[min(self._sums)])
        count, failed, above = requests - before[0], bad - before[1], slow - before[2]
        with np.errstate(invalid="ignore", divide="ignore"):
            wrong = (1.0 - failed / count < rule.least) | (count == 0)
            if rule.duration:
                wrong |= above / count > 0.01
        self._failed = self._failed + (wrong & ~due)
        if not rule.next_tick:
            due = np.isnan(self.at) & (self._failed >= rule.failures)
        self.at[due] = second
        self.bad[due] = bad[due]
