"""What is measured of a canary, and what it has to keep to."""

from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, model_validator

from splitproxy.config.addresses import WebUrl
from splitproxy.config.fields import (
    Boolean,
    Checked,
    Duration,
    Label,
    Lines,
    Name,
    Number,
    Quantile,
    Text,
    text,
    whole,
    wrong,
)
from splitproxy.config.hidden import HiddenValue
from splitproxy.config.hooks import NamespacedRef, Patience, SentHeader
from splitproxy.config.spec import Spec
from splitproxy.core import jsonpath

OWN_METRICS: Final = ("request-success-rate", "request-duration", "request-rate", "requests-in-flight")
"""Measured by the proxy itself: percent, milliseconds, requests per second, requests."""

NoData = Literal["hold", "pass", "fail"]
Count = Annotated[int, whole(0, 1_000_000_000)]
Tolerated = Annotated[int, whole(1, 1_000_000)]


class Range(Spec):
    """Bounds, both of them good values themselves; at least one."""

    min: Number | None = None
    """The least good value."""
    max: Number | None = None
    """The greatest good value."""

    @model_validator(mode="after")
    def _holds_something(self) -> Self:
        if self.min is None and self.max is None:
            raise wrong("a range has a min, a max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise wrong(f"nothing lies in it: the min {self.min} is above the max {self.max}")
        return self


class Tolerance(Spec):
    """What stands beside an analysis and, for one metric alone, beside that."""

    min_requests: Count | None = None
    """Fewer requests in the window, and the check is inconclusive; 1 when left out, 0 is off."""
    no_data: NoData | None = None
    """What a check without any data says: `hold` (the default) waits, `pass` and `fail` count."""
    failure_limit: Tolerated | None = None
    """More failures of one metric than that end the rollout; no such limit when left out."""
    consecutive_error_limit: Tolerated | None = None
    """More failed measurements of one metric in a row than that end the rollout; 4 when left out."""
    inconclusive_limit: Tolerated | None = None
    """More inconclusive measurements of one metric than that pause the rollout; no such limit when left out."""


class Metric(Tolerance):
    """One measurement and its limits."""

    name: Label
    """request-success-rate (%), request-duration (ms), request-rate (/s), requests-in-flight; else with templateRef."""
    interval: Duration = 0.0
    """The window, that never reaches back before the present step; 0s: since the check before."""
    threshold_range: Range | None = None
    """A value outside fails the check."""
    hard_range: Range | None = None
    """A value outside ends the rollout at once, between checks too."""
    threshold: Number | None = None
    """Flagger's old form of thresholdRange: the min of a request-success-rate, else the max."""
    quantile: Quantile | None = None
    """Of a request-duration; 0.99 when left out."""
    template_ref: NamespacedRef | None = None
    """One of metricTemplates: where this is measured."""
    template_variables: dict[Name, Lines] = Field(default_factory=dict)
    """What `{{ variables.x }}` stands for in the template's query."""


# --- measurements from elsewhere -------------------------------------------------------------------------------------
class Source(Spec):
    """A service that is asked for measurements."""

    address: WebUrl
    """Its URL."""
    headers: dict[SentHeader, HiddenValue] = Field(default_factory=dict)
    """Headers to send; a value may be `{file: path}`."""
    token: HiddenValue | None = None
    """Sent as a bearer token; may be `{file: path}`."""
    username: Text | None = None
    """For basic authentication, together with `password`."""
    password: HiddenValue | None = None
    """May be `{file: path}`."""
    insecure_skip_verify: Boolean = False
    """Take any certificate."""
    timeout: Patience = 5.0
    """Time for an answer."""

    @model_validator(mode="after")
    def _one_credential(self) -> Self:
        if (self.username is None) != (self.password is None):
            raise wrong("username and password go together", "give both or neither")
        if self.username is not None and self.token is not None:
            raise wrong("a token and a username are two ways to say who asks", "keep one of them")
        return self


def _json_path(value: Any) -> str:
    given = str(text(value, "a path such as $.data[0].value is wanted"))
    try:
        jsonpath.parse(given)
    except ValueError as error:
        raise wrong(f"not a path of a JSON document: {error}", "write it as $.data[0].value") from None
    return given


class PrometheusSource(Source):
    """Prometheus, or what speaks like it."""

    type: Literal["prometheus"]
    """prometheus or web."""


class WebSource(Source):
    """Any service that answers GET with JSON."""

    type: Literal["web"]
    """prometheus or web."""
    json_path: Annotated[str, Checked(_json_path, {"type": "string"})] = "$"
    """Where the number stands in the answer, such as `$.data[0].value`; the whole answer when left out."""


class MetricTemplate(Spec):
    """A measurement from elsewhere."""

    name: Name
    """By which metrics refer to it."""
    provider: Annotated[PrometheusSource | WebSource, Field(discriminator="type")]
    """Who is asked."""
    query: Lines = ""
    """PromQL for one number, or for `web` what follows the address; may hold `{{ canary }}`, `{{ interval }}`, …"""
