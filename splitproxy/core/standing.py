"""Where the comparison of a canary with its primary stands, in numbers and in words."""

from typing import NamedTuple

from splitproxy.core.onset import Counts
from splitproxy.core.promotion import Gate


class Signal(NamedTuple):
    """One signal's evidence."""

    log_e: float
    at: float
    """The ratio that gains most; of latency the primary's quantile whose threshold does."""


class Absolute(NamedTuple):
    """Evidence that a side breaks the absolute limit for errors, each by itself."""

    limit: float
    """The share of failed requests that is allowed."""
    log_canary: float
    log_primary: float
    canary: bool
    """Whether the canary breaks it, at the chance `alpha` of saying so wrongly."""
    both: bool
    """Whether both sides do: a failure they share, for which the canary is not to blame."""


class Standing(NamedTuple):
    """Where the comparison stands."""

    log_e: float
    """The logarithm of the combined e-value."""
    p: float
    """The smallest 1/E so far: a p-value that is valid at any time."""
    errors: Signal
    latency: Signal
    absolute: Absolute | None
    """None: no limit is set."""
    convicted: bool
    """Whether the canary is to be rolled back; stays so once it is."""
    leading: str
    """What speaks most against the canary: `errors`, `latency@p99` or `limit`."""
    counts: Counts
    """Of the whole rollout."""
    recent: Counts
    """Since about the moment from which errors speak against the canary."""
    seconds: int
    """How long ago that was, in ticks."""
    weights: tuple[float, ...]
    """In the order in which they last had bad events or requests."""
    ratio: tuple[float, float | None]
    """How many times likelier bad events are on the canary, each end wrong with chance `alpha`; None: unbounded."""
    gate: Gate
    shares: float
    """The logarithm of the evidence that sides are not drawn as the weights say."""
    shares_alarm: bool
    """Whether sides are not drawn as the weights say: then nothing here is to be trusted."""
    sentence: str
