"""What is counted of requests whose side was drawn by chance, apart for each weight epoch, so that it can be compared.

A *coin* says with which probability a request went to the canary, and to which side it came. Its results are counted in
a *tally*: a block of the worker's region for each rollout and epoch, of which the last `PLACES` are kept. A result that
comes when its epoch's block serves another epoch is dropped, whichever side it is of: that loses a little power and
nothing else, as the choice does not depend on the side.

    tally = stamp | dropped | drawn | finished | failed | bad | in flight beyond each threshold | histograms

Latency is counted against *thresholds*, quantiles of the primary that control has put into the rollout's slot before
the epoch began. They are fixed for the epoch, so that nothing counts twice: a request still in flight when a threshold
passes is beyond it from then on (censoring), at its end it moves to the histogram.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from splitproxy.core.stats import BLOCK, BOUNDS, BUCKETS, Key

KIND: Final = "tally"
PLACES: Final = 8
"""Epochs of a rollout that are counted at the same time."""
QUANTILES: Final = (0.5, 0.75, 0.9, 0.95, 0.99, 0.999)
"""Of the primary's durations: where the thresholds lie."""
_COUNT: Final = len(QUANTILES)
_NONE: Final = 255
"""The index of a threshold that there is not."""
_OCTET: Final = 8
_EPOCH_AT: Final = _OCTET * _COUNT
_EPOCH_BITS: Final = 16
PER_MILLE: Final = 1000
"""What a tolerance is counted in."""
_MICRO: Final = 1_000_000
_DELAY_AT: Final = 32
_STAMP_AT: Final = 32

EPOCH: Final = 0
"""What `stamp` returns; 0: none yet."""
DROPPED: Final = 1
"""Results that came too late for their epoch's block."""
DRAWN: Final = 2
"""Requests, or clients that are new."""
FINISHED: Final = 4
FAILED: Final = 6
BAD: Final = 8
"""Pairs of cells, as those above: the canary's, then the primary's. Failures of requests that were drawn themselves;
those of a client's are told to control, so that each client counts once."""
BEYOND: Final = 10
"""In flight, or lost sight of, beyond each threshold; the canary's, then the primary's."""
HISTOGRAM: Final = BEYOND + 2 * _COUNT
"""Finished ones by duration; the canary's divided by what is tolerated."""
HEAD: Final = HISTOGRAM
"""Cells in front of the histograms."""
END: Final = HISTOGRAM + 2 * BUCKETS
assert END <= BLOCK, END

CANARY: Final = 0
PRIMARY: Final = 1


class Coin(NamedTuple):
    """How a request came to its side."""

    rollout: str
    """The rollout's key in shared memory."""
    epoch: int
    """Of the weight that was in force."""
    salt: int
    """Of the run: with another one, clients are drawn anew."""
    side: int
    """CANARY or PRIMARY."""
    client: bool
    """Whether a client was drawn, whose further requests follow it, and not the request alone."""
    thresholds: tuple[int, ...]
    """Buckets above which a request is slow, one for each of QUANTILES; empty: latency is not compared."""
    scale: float = 1.0
    delay: float = 0.0
    """What is tolerated of this side: see `Coin.even`."""

    def even(self, seconds: float) -> float:
        """Return a duration less what is tolerated: divided by a factor or shortened by a delay, whatever takes more.

        Both are monotone, so what is compared is whether the canary is slower than the primary would be with either.
        """
        return min(seconds * self.scale, seconds - self.delay)


class Aims(NamedTuple):
    """What workers measure latency against."""

    thresholds: tuple[int, ...] = ()
    """Buckets; empty, or one for each of QUANTILES."""
    tolerance: float = 1.0
    """How many times longer the canary may take."""
    delay: float = 0.0
    """By how many seconds longer it may take in any case."""

    def word(self) -> int:
        """Return the 64 bits by which workers are told what is tolerated: per mille, and microseconds."""
        return round(self.delay * _MICRO) << _DELAY_AT | round(self.tolerance * PER_MILLE)


def tolerated(word: int) -> tuple[float, float]:
    """Return scale and delay of a canary's coin, of what `Aims.word` has written; 0: nothing was."""
    return PER_MILLE / ((word & (1 << _DELAY_AT) - 1) or PER_MILLE), (word >> _DELAY_AT) / _MICRO


def key(rollout: str, epoch: int) -> Key:
    """Return the key of the block that counts an epoch; `rollout` is the name, so that its runs share the blocks."""
    return (KIND, rollout, str(epoch % PLACES))


def stamp(epoch: int, salt: int) -> int:
    """Return what says whose a block is; epochs alone begin anew when a rollout was away, but each run has its salt."""
    return (salt & (1 << _STAMP_AT) - 1) << _STAMP_AT | epoch + 1


def pack(thresholds: Sequence[int], epoch: int) -> int:
    """Return the word for `thresholds` of an epoch; none, or one for each of QUANTILES."""
    word = (epoch & (1 << _EPOCH_BITS) - 1) << _EPOCH_AT
    for place in range(_COUNT):
        word |= (thresholds[place] if thresholds else _NONE) << _OCTET * place
    return word


def unpack(word: int, epoch: int) -> tuple[int, ...]:
    """Return the thresholds that `word` has for the epoch; empty: it has none, or is of another epoch."""
    if word >> _EPOCH_AT != epoch & (1 << _EPOCH_BITS) - 1:
        return ()
    found = tuple(word >> _OCTET * place & _NONE for place in range(_COUNT))
    return () if _NONE in found else found


def passed(thresholds: Sequence[int], seconds: float) -> int:
    """Return how many of the thresholds, which ascend, a duration is beyond."""
    count = 0
    for bucket in thresholds:
        if seconds <= BOUNDS[bucket]:
            break
        count += 1
    return count


def slow(cells: Sequence[int], side: int, thresholds: Sequence[int]) -> list[tuple[int, int]]:
    """Return for each threshold how many requests of a side were beyond it, and how many finished below."""
    start = HISTOGRAM + side * BUCKETS
    histogram = cells[start : start + BUCKETS]
    total = sum(histogram)
    found = []
    for place, bucket in enumerate(thresholds):
        below = sum(histogram[: bucket + 1])
        found.append((total - below + cells[BEYOND + side * _COUNT + place], below))
    return found
