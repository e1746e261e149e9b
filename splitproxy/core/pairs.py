"""Pairs of answers to the same request, as workers count them: what the canary made of a copy, beside the original.

The *reference* is the primary, or where there is one the *noise twin*, a second instance of the primary's version that
gets the same copies. `core/pair_evidence.py` says what follows from the counts.

    block = pairs | no events | both bad | canary alone bad | reference alone bad | compared | lost | slower, faster ...
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from splitproxy.core.stats import Key

KIND: Final = "pairs"
PAIRS: Final = 0
NO_EVENT: Final = 1
"""Pairs of which one answer is missing for a reason of ours, or because the client left."""
BOTH_BAD: Final = 2
CANARY_BAD: Final = 3
REFERENCE_BAD: Final = 4
COMPARED: Final = 5
"""Pairs whose answers were compared field by field."""
LOST: Final = 6
"""Pairs with differences that control could not be told of."""
LATENCY: Final = 7
FACTORS: Final = (1.0, 1.5, 3.0)
"""How many times slower an answer is than the other, to be counted: the canary's, then the reference's, for each."""
END: Final = LATENCY + 2 * len(FACTORS)
FINEST: Final = 0.001
"""Seconds by which durations differ at least: below, the proxy's own work is as much."""

PRIMARY: Final = 0
CANARY: Final = 1
TWIN: Final = 2
"""Parties of a pair."""
BOTH: Final = "both"
CANARY_ALONE: Final = "canary"
TWIN_ALONE: Final = "twin"
"""Whose answers differ from the primary's."""


class Outcome(NamedTuple):
    """What a party made of the request."""

    bad: bool
    """5xx, no connection, no whole answer in time."""
    seconds: float | None = None
    """None: its duration says nothing."""


def key(live: str) -> Key:
    """Return the key of the block that counts the pairs of a rollout with this key in shared memory."""
    return (KIND, live)


def counted(canary: Outcome, reference: Outcome, factor: float, delay: float) -> Iterator[int]:
    """Yield the cells in which a pair is counted. The canary may take `factor` times as long, or `delay` seconds more.

    What is tolerated is taken off the canary's duration, before the two are treated alike.
    """
    yield PAIRS
    if canary.bad or reference.bad:
        yield BOTH_BAD if canary.bad and reference.bad else CANARY_BAD if canary.bad else REFERENCE_BAD
    elif canary.seconds is not None and reference.seconds is not None:
        mine, its = max(min(canary.seconds / factor, canary.seconds - delay), 0.0), reference.seconds
        if abs(mine - its) >= FINEST:
            for place, times in enumerate(FACTORS):
                if max(mine, its) > times * min(mine, its):
                    yield LATENCY + 2 * place + (mine < its)
