"""A comparison in one plain sentence with its numbers, for logs, alerts and people who read them at night."""

from math import exp

from splitproxy.core.onset import Counts
from splitproxy.core.slowness import Slow

_E_SHOWN = 20.0
"""Natural logarithm beyond which an e-value is shown as a power of ten."""


def error_words(counts: Counts, *, clients: bool) -> str:
    """Return how errors compare: `errors 77x as likely on the canary: 4 of its 52 requests failed, 1 of 998 …`."""
    if not counts.bad_canary and not counts.bad_primary:
        return "no errors on either side"
    canary, primary = f"{counts.bad_canary or 'none'} of its", f"{counts.bad_primary or 'none'} of"
    if clients:
        both = (
            f"{canary} clients met an error ({counts.canary:,} requests), "
            f"{primary} the primary's ({counts.primary:,} requests)"
        )
    else:
        both = f"{canary} {counts.canary:,} requests failed, {primary} {counts.primary:,} on the primary"
    if not counts.bad_primary:
        return f"errors on the canary alone: {both}"
    if not counts.canary or not counts.primary:
        return f"errors: {both}"
    likelier = counts.bad_canary / counts.canary * counts.primary / counts.bad_primary
    return f"errors {_times(likelier)} as likely on the canary: {both}"


def slow_words(quantile: float, slow: Slow, *, clients: bool) -> str:
    """Return how latency compares at one of the primary's quantiles."""
    above, below, its_above, its_below = slow
    name = quantile_name(quantile)
    if clients:
        return (
            f"slower on the canary: {above:,} of its clients met an answer slower than the primary's {name}, "
            f"{its_above:,} of the primary's"
        )
    return (
        f"slower on the canary: {above:,} of its {above + below:,} requests took longer than the primary's {name}, "
        f"{its_above:,} of {its_above + its_below:,} on the primary"
    )


def limit_words(counts: Counts, limit: float) -> str:
    """Return how the canary keeps an absolute limit where nobody is left to compare it with."""
    failed = f"{counts.bad_canary:,} of {counts.canary:,} requests failed"
    return f"errors above the limit of {_percent(limit)}: {failed} on the canary, with no primary traffic to compare"


def evidence_words(log_e: float, p: float, low: float, tolerated: float) -> str:
    """Return the numbers that stand in brackets behind a comparison."""
    words = f"e-value {_e_value(log_e)}, anytime p {p:.2g}"
    return f"{words}, ratio at least {low:.2g}" if low > tolerated else words


def quantile_name(quantile: float) -> str:
    """Return a quantile's name: p50, p99.9."""
    return f"p{quantile * 100:.4g}"


def place_words(weight: float, seconds: int) -> str:
    """Return at which weight and since when, to be put behind a comparison; 0 seconds: since the beginning."""
    since = f" in the last {seconds:,} s" if seconds else ""
    return f"{since}, at weight {_percent(weight)}" if 0.0 < weight < 1.0 else since


def _times(ratio: float) -> str:
    return f"{ratio:.2g}x" if ratio < 10 else f"{ratio:,.0f}x"


def _percent(share: float) -> str:
    return f"{share * 100:.4g} %"


def _e_value(log_e: float) -> str:
    if log_e > _E_SHOWN:
        return f"1e{log_e / 2.302585093:.0f}"
    value = exp(log_e)
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
