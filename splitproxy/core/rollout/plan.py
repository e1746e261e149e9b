"""What a rollout is to do: the compiled form of one entry of `rollouts`.

Shares are counted in hundredths of a percent (`live.EVERYTHING` is all requests), times in seconds.
"""

from typing import NamedTuple

from splitproxy.core.evidence import Terms
from splitproxy.core.live import EVERYTHING
from splitproxy.core.pair_evidence import PairTerms


class Stage(NamedTuple):
    """One step of the plan: who is sent to the canary while it lasts, and what must be seen before the next."""

    weight: int = 0
    """The canary's share of ordinary requests."""
    cohorts: int = 0
    """How many of the cohorts, from the first, go to the canary whatever the weight."""
    mirror: int = 0
    """The share of requests copied to the canary."""
    checks: int = 1
    """Passed checks needed to leave it (Flagger's `iterations`)."""
    hold: float = 0.0
    """Least duration."""
    pause: float | None = None
    """None: none; 0: until an operator goes on; else as long as this."""
    gate: str = ""
    """What is asked before it is entered: one of `gates.WAITING`, or nothing."""
    interval: float = 0.0
    """Between its checks; 0: the plan's."""
    min_requests: int = 0
    """Overrides the metrics' where not 0."""
    limits: tuple[tuple[str, float | None, float | None], ...] = ()
    """(metric, min, max) that hold instead of the metric's own."""


class MetricPlan(NamedTuple):
    """One measurement and the limits it has to keep; both bounds are good values themselves."""

    name: str
    kind: str
    """request-success-rate | request-duration | request-rate | requests-in-flight | template."""
    min: float | None = None
    max: float | None = None
    hard_min: float | None = None
    """Below it there is a rollback at once, between checks too."""
    hard_max: float | None = None
    interval: float = 0.0
    """Length of the window; 0: since the check before."""
    quantile: float = 0.99
    """Of a request-duration."""
    min_requests: int = 1
    no_data: str = "hold"
    """hold | pass | fail."""
    failure_limit: int | None = None
    """More failures of this metric than that, and the rollout fails (Argo); None: only `threshold` counts."""
    consecutive_error_limit: int = 4
    """More errors in a row than that, and the rollout fails (Argo)."""
    inconclusive_limit: int | None = None
    """More inconclusive measurements than that, and the rollout pauses (Argo); None: it holds as long as it takes."""
    template: str = ""
    """Name of the metricTemplate of a `template`."""
    variables: tuple[tuple[str, str], ...] = ()


class HookPlan(NamedTuple):
    """One webhook; how it is sent (url, headers, ...) is the sender's business and stands in the plain form."""

    name: str
    type: str
    """One of Flagger's types, or `hand-back`: the promotion's own."""
    builtin: bool = False
    """A gate without URL: opened and closed by operators alone."""
    mute_alert: bool = False


class Window(NamedTuple):
    """A span of the week in which a rollout may begin and advance; minutes of the day, local to `zone`."""

    days: tuple[int, ...]
    """0 is Monday."""
    start: int
    end: int
    """Not above `start`: it ends on the next day."""
    zone: str


class Plan(NamedTuple):
    """A rollout as configured."""

    name: str
    route: str
    primary: str
    canary: str
    revision: str | None
    identity: str
    """Digest of the canary's endpoints: stands for the revision where none is given."""
    stages: tuple[Stage, ...]
    metrics: tuple[MetricPlan, ...]
    hooks: tuple[HookPlan, ...]
    strategy: str
    """canary | ab-testing | blue-green."""
    interval: float = 60.0
    threshold: int = 1
    """Failed checks that end it: Flagger's, cumulative."""
    compare: bool = True
    """Whether a check that the primary fails too in the same window is inconclusive, and evidence is gathered."""
    terms: Terms = Terms()
    """What the comparison keeps to."""
    copies: PairTerms = PairTerms()
    """What the comparison of copies keeps to."""
    promotion_step: int = 0
    """`stepWeightPromotion`; 0: all at once."""
    mode: str = "swap"
    """swap | handBack."""
    bake: float = 0.0
    progress_deadline: float = 600.0
    skip_analysis: bool = False
    dry_run: bool = False
    windows: tuple[Window, ...] = ()
    cohorts: int = 0
    """How many cohorts there are."""

    def by_evidence(self, stage: Stage) -> bool:
        """Return whether it is the comparison that ends a stage: its two sides have traffic, and the plan says so."""
        return self.compare and self.terms.pace == "evidence" and 0 < stage.weight < EVERYTHING and not self.dry_run

    def target(self) -> str:
        """Return what stands for the canary's version: the revision, or the digest of its endpoints."""
        return self.identity if self.revision is None else self.revision

    def version(self, revision: str) -> str:
        """Return how people are told of a revision: a digest of endpoints is too long to be read."""
        digest = self.revision is None and (revision == self.identity or len(revision) == len(self.identity))
        return f"endpoints {revision[:8]}" if digest else revision
