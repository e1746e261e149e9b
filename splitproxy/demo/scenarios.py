"""What may go wrong with the demo's canary, and when."""

import random
from typing import Final, NamedTuple

GOOD: Final = "good"
SCENARIOS: Final = {
    GOOD: "a canary as good as the primary: promoted in about a minute",
    "errors": "three of ten answers become errors: rolled back",
    "slow": "one of five answers takes half a second longer: rolled back",
    "crash": "it no longer takes connections: rolled back",
    "flapping": "bad for a second, good for two, over and over: rolled back, for failed checks add up",
}
"""Name -> what happens."""
ENDS: Final = {name: "Succeeded" if name == GOOD else "Failed" for name in SCENARIOS}
"""Name -> the phase in which the rollout has to end."""

_FLAP_SECONDS: Final = 3.0
_SLOW_SECONDS: Final = 0.5


class Conduct(NamedTuple):
    """How the canary treats one request."""

    status: int = 200
    extra: float = 0.0
    """Seconds it takes longer than usual."""
    gone: bool = False
    """It does not answer at all, nor ever again."""


def conduct(scenario: str, seconds: float, point: float) -> Conduct:
    """Return how a request is treated that comes `seconds` after it turned bad, below 0: before.

    `point` is chance, from 0 to below 1.
    """
    if seconds < 0:
        return Conduct()
    if scenario == "flapping":
        return Conduct(status=500) if seconds % _FLAP_SECONDS < 1.0 and point < 0.8 else Conduct()
    if scenario == "errors" and point < 0.3:
        return Conduct(status=500)
    if scenario == "slow" and point < 0.2:
        return Conduct(extra=_SLOW_SECONDS)
    return Conduct(gone=scenario == "crash")


class Health:
    """The conduct of one version over its life: good at first, and as `scenario` says from its `onset` on."""

    def __init__(self, scenario: str, onset: float, chance: random.Random) -> None:
        """`onset` is in seconds from the first request."""
        self._scenario, self._onset, self._chance = scenario, onset, chance
        self._first: float | None = None

    def at(self, now: float) -> Conduct:
        """Return how a request that comes now is treated."""
        if self._first is None:
            self._first = now
        return conduct(self._scenario, now - self._first - self._onset, self._chance.random())
