"""How few requests any test could need: Wald's bound, by the information that a bad event's side carries."""

from math import log


def least_requests(alpha: float, weight: float, errors: float, canary_errors: float, tolerated: float) -> float:
    """Return how many requests of both sides a test with error probability `alpha` needs on average at the least.

    The null is that bad events are `tolerated` times likelier on the canary at most. Wald 1945: ln(1/alpha) divided by
    the divergence between the true side of a bad event and the null's, times how often there is one.
    """
    bad = weight * canary_errors + (1.0 - weight) * errors
    true = weight * canary_errors / bad
    null = tolerated * weight / (1.0 + (tolerated - 1.0) * weight)
    divergence = true * log(true / null)
    if true < 1.0:
        divergence += (1.0 - true) * log((1.0 - true) / (1.0 - null))
    return log(1.0 / alpha) / divergence / bad
