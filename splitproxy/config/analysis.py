"""How a canary is let in and judged (Flagger's `analysis`)."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from splitproxy.config.addresses import Hostname
from splitproxy.config.comparing import Compare, Comparison
from splitproxy.config.fields import (
    Age,
    Boolean,
    Checked,
    CookieName,
    Duration,
    HeaderName,
    HeaderValue,
    Items,
    Label,
    Percent,
    QueryName,
    Text,
    lasting,
    text,
    whole,
    wrong,
)
from splitproxy.config.hooks import Alert, Webhook
from splitproxy.config.measuring import Count, Metric, Range, Tolerance
from splitproxy.config.patterns import pattern
from splitproxy.config.problems import clipped
from splitproxy.config.spec import Spec

Checks = Annotated[int, whole(0, 1_000_000)]
Interval = Annotated[float, lasting(1.0)]


# --- cohorts ---------------------------------------------------------------------------------------------------------
_COMPARISONS = ("exact", "prefix", "suffix", "regex")


class StringMatch(Spec):
    """A condition on a text; exactly one."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": [key]} for key in _COMPARISONS]})

    exact: HeaderValue | None = None
    """The whole value."""
    prefix: HeaderValue | None = None
    """How it begins."""
    suffix: HeaderValue | None = None
    """How it ends."""
    regex: HeaderValue | None = None
    """A regular expression (RE2) for the whole value."""

    @field_validator("regex")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        return value if value is None else pattern(value)

    @model_validator(mode="after")
    def _one_comparison(self) -> Self:
        given = [key for key in _COMPARISONS if getattr(self, key) is not None]
        if len(given) != 1:
            raise wrong("a condition has exactly one of exact, prefix, suffix and regex")
        return self

    @property
    def plain(self) -> dict[str, str]:
        """The condition as type and value, in the form of a rule's match."""
        if self.exact is not None:
            return {"type": "Exact", "value": self.exact}
        expression = self.regex or (
            f"{re.escape(self.prefix)}.*" if self.prefix is not None else f".*{re.escape(self.suffix or '')}"
        )
        return {"type": "RegularExpression", "value": expression}


class CohortMatch(Spec):
    """Conditions on a request, all of which must hold."""

    headers: dict[HeaderName, StringMatch] = Field(default_factory=dict)
    """On headers, by name in any case."""
    cookies: dict[CookieName, StringMatch] = Field(default_factory=dict)
    """On cookies, by name."""
    query_params: dict[QueryName, StringMatch] = Field(default_factory=dict)
    """On query parameters, by name, decoded; of a repeated one the first counts."""
    source_labels: dict[str, Text] | None = None
    """Flagger's labels of the asking pod; nobody has them here."""

    @model_validator(mode="after")
    def _asks_something(self) -> Self:
        if not (self.headers or self.cookies or self.query_params or self.source_labels):
            raise wrong("this takes every request", "give headers, cookies or queryParams, or use weights")
        return self

    @property
    def empty(self) -> bool:
        """Whether it asks for labels of pods alone: nobody has those."""
        return not (self.headers or self.cookies or self.query_params)

    @property
    def plain(self) -> dict[str, list[dict[str, str]]]:
        """The conditions in the form of a rule's match."""
        kinds = {"headers": self.headers, "cookies": self.cookies, "queryParams": self.query_params}
        return {
            kind: [{"name": name, **condition.plain} for name, condition in named.items()]
            for kind, named in kinds.items()
        }


class Ring(Spec):
    """A cohort that goes to the canary once the rings before it have passed."""

    match: Items[CohortMatch]
    """Who: requests that fit one of these."""
    iterations: Annotated[int, whole(1, 1_000_000)] = 1
    """Checks that it has to pass before the next ring."""


# --- steps -----------------------------------------------------------------------------------------------------------
class Pause(Spec):
    """A stop; until an operator goes on, when nothing is given."""

    duration: Annotated[float, lasting(0.001)] | None = None
    """For how long."""


class StepMetric(Spec):
    """Limits of one metric for one step."""

    name: Label
    """One of the analysis' metrics."""
    threshold_range: Range
    """What holds instead of its own thresholdRange."""


class Step(Spec):
    """One step of a rollout."""

    set_weight: Percent | None = None
    """The canary's share in percent from here on."""
    hold: Duration = 0.0
    """How long it lasts at least."""
    pause: Pause | None = None
    """`{}` stops until an operator goes on, `{duration: 1h}` for a while."""
    mirror: Percent | None = None
    """Percent of the requests that are copied to the canary meanwhile."""
    iterations: Annotated[int, whole(1, 1_000_000)] = 1
    """Checks that have to pass before the next step."""
    interval: Interval | None = None
    """Between its checks, instead of the analysis' interval."""
    min_requests: Count | None = None
    """Instead of every metric's own."""
    metrics: Items[StepMetric] = ()
    """Other limits while it lasts."""

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        if self.set_weight is None and self.pause is None and self.mirror is None and not self.hold:
            raise wrong("a step does something", "give setWeight, hold, pause or mirror")
        return self


# --- stickiness ------------------------------------------------------------------------------------------------------
def _cookie_path(value: Any) -> str:
    given = str(text(value, "a path such as / is wanted"))
    if not given.startswith("/") or ";" in given or not given.isascii() or not given.isprintable():
        raise wrong(f"a path such as / is wanted, not {clipped(given)}")
    return given


class SessionAffinity(Spec):
    """Clients stay with the version they met first, by a cookie."""

    cookie_name: CookieName
    """The cookie of clients of the canary, and of the primary unless that has one of its own."""
    primary_cookie_name: CookieName | None = None
    """The cookie of clients of the primary."""
    max_age: Age = 86400
    """How long the cookie is kept, in seconds or as a duration; 0 is a day, as in Flagger."""
    domain: Hostname | None = None
    """The cookie's domain; the host that was asked, when left out."""
    path: Annotated[str, Checked(_cookie_path, {"type": "string", "pattern": "^/[^;]*$"})] = "/"
    """The cookie's path."""
    same_site: Literal["Strict", "Lax", "None"] = "Lax"
    """Whether it is sent with requests from other sites."""
    secure: Boolean | None = None
    """Whether it is for TLS alone; left out: where the client came by TLS, or browsers ask for it."""
    http_only: Boolean = True
    """Whether scripts are kept from it."""
    partitioned: Boolean = False
    """Whether it is kept apart for every site that embeds this one."""

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.cookie_name == self.primary_cookie_name:
            raise wrong("cookieName and primaryCookieName are the same", "give the primary's another name, or none")
        if self.secure is False and (self.same_site == "None" or self.partitioned):
            what = "partitioned" if self.partitioned else "sameSite: None"
            raise wrong(f"browsers refuse a cookie with {what} that is not secure", "leave `secure: false` out")
        return self


# --- the whole -------------------------------------------------------------------------------------------------------
class Analysis(Tolerance):
    """How the canary is let in, and what has to hold meanwhile."""

    interval: Interval = 60.0
    """Between checks; at least 1s."""
    threshold: Checks = 1
    """Failed checks that end the rollout, passed ones between them or not; 0 is 1, as in Flagger."""
    iterations: Checks = 0
    """Checks to pass: of a cohort with `match`, else before all traffic goes to the canary (blue/green)."""
    step_weight: Percent = 0
    """The canary's share grows by so many percent with every passed check; 0 is off."""
    max_weight: Percent = 100
    """Where stepWeight ends; 0 is 100, as in Flagger."""
    step_weights: Items[Percent] = ()
    """The canary's shares one after the other, in percent, growing."""
    steps: Items[Step] = ()
    """The same with times, pauses and limits of their own."""
    step_weight_promotion: Percent = 0
    """By how many percent traffic moves per check at the promotion; 0 is all at once."""
    mirror: Boolean = False
    """Try the canary on copied requests first."""
    mirror_weight: Percent = 0
    """Percent of the requests that are copied; 0 is 100, as in Flagger."""
    match: Items[CohortMatch] = ()
    """A cohort that goes to the canary: requests that fit one of these."""
    rings: Items[Ring] = ()
    """Cohorts that go to the canary one after the other, in front of the weights."""
    dry_run: Boolean = False
    """Decide and report, but leave traffic as it is."""
    compare: Comparison = Compare()
    """How the canary is compared with the primary on every request; `false` switches that off."""
    metrics: Items[Metric] = ()
    """What is measured, and its limits."""
    webhooks: Items[Webhook] = ()
    """Who is asked and told, and when."""
    alerts: Items[Alert] = ()
    """Who gets news."""
    session_affinity: SessionAffinity | None = None
    """Keeps clients with the version they met first; every request is drawn anew when left out."""
    primary_ready_threshold: Percent | None = None
    """Flagger's; means nothing here."""
    canary_ready_threshold: Percent | None = None
    """Flagger's; means nothing here."""
