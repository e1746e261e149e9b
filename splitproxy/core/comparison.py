"""How the answers to a rollout's copies are compared with those to the originals, as a worker needs to know it."""

from collections.abc import Mapping
from typing import Any

from splitproxy.core.differences import SECRETS, Terms, rule
from splitproxy.core.pairs import key


class Comparison:
    """The terms of one rollout, compiled."""

    __slots__ = ("block", "delay", "due", "every", "factor", "key", "open", "rollout", "terms")

    block: int | None
    """Leaf of the worker: where pairs are counted; None before the first."""
    due: float
    """Leaf of the worker: when answers may be compared field by field again."""
    open: int
    """Leaf of the worker: how many pairs of answers are being kept for that."""

    def __init__(self, rollout: str, live: str, plain: Mapping[str, Any]) -> None:
        """`live` is the rollout's key in shared memory, `plain` what the file says with every default filled in."""
        self.rollout = rollout
        self.key = key(live)
        self.factor: float = plain["latency"]
        self.delay: float = plain["delay"]
        """How many times longer, and how many seconds longer, the canary may take."""
        self.every = 1.0 / plain["perSecond"]
        """Seconds between two pairs that are compared field by field."""
        self.terms = Terms(
            plain["bodies"] != "ignore",
            tuple(name.lower() for name in plain["headers"]),
            tuple(map(rule, plain["ignore"])),
            tuple(map(rule, (*SECRETS, *plain["redact"]))),
            plain["maxBodyBytes"],
        )
        self.block = None
        self.due = 0.0
        self.open = 0
