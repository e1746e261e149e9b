"""Which requests go where, and how they are divided (Gateway API `HTTPRoute`, and splits)."""

from typing import Annotated, Any, Self

from pydantic import ConfigDict, model_serializer, model_validator

from splitproxy.config.addresses import HostPattern
from splitproxy.config.fields import (
    Boolean,
    CookieName,
    CookieValue,
    Duration,
    HeaderName,
    Items,
    Name,
    QueryName,
    Reference,
    Weight,
    whole,
    wrong,
)
from splitproxy.config.filters import BackendFilter, Filter
from splitproxy.config.matches import Match
from splitproxy.config.spec import Spec


class BackendRef(Spec):
    """An upstream and its part of the requests."""

    name: Reference
    """The name of an upstream."""
    weight: Weight = 1
    """Its part of the requests beside the other weights of the rule, to two decimals; 0 takes none."""
    filters: Items[BackendFilter] = ()
    """Filters for requests that go to this upstream; every type at most once."""


def _one_of(keys: tuple[str, ...]) -> dict[str, Any]:
    return {"oneOf": [{"required": [key]} for key in keys]}


class SplitKey(Spec):
    """What identifies a client, so that it stays with its upstream; exactly one source."""

    model_config = ConfigDict(json_schema_extra=_one_of(("cookie", "header", "query", "sourceAddress")))

    cookie: CookieName | None = None
    """A cookie's value."""
    issue: Boolean = False
    """Give a client without the cookie a new one."""
    header: HeaderName | None = None
    """A header's value."""
    query: QueryName | None = None
    """A query parameter's value."""
    source_address: Boolean = False
    """The client's address."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        sources = [self.cookie is not None, self.header is not None, self.query is not None, self.source_address]
        if sum(sources) != 1:
            raise wrong("a key has exactly one of cookie, header, query and sourceAddress")
        if self.issue and self.cookie is None:
            raise wrong("only a cookie can be issued", "leave `issue` out")
        return self

    @model_serializer(mode="plain")
    def _source_alone(self) -> dict[str, Any]:
        if self.cookie is not None:
            return {"cookie": self.cookie, "issue": self.issue}
        if self.header is not None:
            return {"header": self.header}
        return {"sourceAddress": True} if self.query is None else {"query": self.query}


class Override(Spec):
    """Requests that name their upstream, whatever the weights; nothing is remembered."""

    model_config = ConfigDict(json_schema_extra=_one_of(("header", "cookie")))

    header: HeaderName | None = None
    """A header's name."""
    cookie: CookieName | None = None
    """A cookie's name."""
    value: CookieValue
    """The value that it must have."""
    upstream: Reference
    """Where such a request goes."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.header is None) == (self.cookie is None):
            raise wrong("an override has exactly one of header and cookie")
        return self

    @model_serializer(mode="plain")
    def _source_alone(self) -> dict[str, str]:
        source = {"cookie": self.cookie} if self.header is None else {"header": self.header}
        return {**{kind: name for kind, name in source.items() if name}, "value": self.value, "upstream": self.upstream}


class Split(Spec):
    """How requests are divided: overrides first, then the key, then chance."""

    key: SplitKey | None = None
    """What keeps a client with its upstream; chance for each request when left out."""
    overrides: Items[Override] = ()
    """Requests that name their upstream; the first that fits decides."""
    failover: Boolean | None = None
    """Answer from the primary what failed at a canary, if it can be sent again; true when left out where a rollout owns
    the rule, else false."""


class Retry(Spec):
    """Failed attempts that are followed by others at the same upstream; only what is safe to repeat."""

    attempts: Annotated[int, whole(1, 10)] = 2
    """Retries after the first attempt, at most."""
    codes: Items[Annotated[int, whole(400, 599)]] = ()
    """Statuses that are retried, besides failed, broken and late connections."""
    backoff: Duration = 0.025
    """The least time before a retry; up to ten times as much is drawn, more with each."""


class Timeouts(Spec):
    """How long the parts of an exchange may take; 0s is no limit."""

    request: Duration = 0.0
    """The whole exchange, all attempts together."""
    backend_request: Duration = 0.0
    """One attempt, to the last byte of its answer."""
    response_head: Duration = 60.0
    """From the end of the request to the head of the response."""
    stream_idle: Duration = 300.0
    """Silence within a response."""
    tunnel_idle: Duration = 3600.0
    """Silence in both directions of an upgraded connection."""


class Rule(Spec):
    """Requests of a kind, and what is done with them."""

    name: Name | None = None
    """For logs and metrics; its index in the route when left out."""
    matches: Items[Match] = ()
    """A request fits when one of them holds; every request when left out."""
    filters: Items[Filter] = ()
    """What happens on the way; every type at most once, save RequestMirror."""
    backend_refs: Items[BackendRef] = ()
    """Where requests go, by weight; the first with a weight is the primary, the others are canaries."""
    split: Split = Split()
    """How a request's upstream is chosen."""
    timeouts: Timeouts = Timeouts()
    """How long things may take."""
    retry: Retry | None = None
    """What is tried again; nothing when left out."""


class Route(Spec):
    """A set of rules for some hosts."""

    name: Name
    """For logs and metrics; unique."""
    hostnames: Items[HostPattern] = ()
    """`shop.example.com`, or `*.example.com` for everything below; every host when left out."""
    rules: Items[Rule]
    """What is done with their requests; the most specific match wins, then the order of the file."""
