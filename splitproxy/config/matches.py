"""Which requests a rule takes (Gateway API `HTTPRouteMatch`, and cookies)."""

from typing import Literal

from pydantic import ValidationInfo, field_validator

from splitproxy.config.fields import (
    CookieName,
    CookieValue,
    HeaderName,
    HeaderValue,
    Items,
    QueryName,
    QueryValue,
    Text,
)
from splitproxy.config.paths import path_value
from splitproxy.config.patterns import pattern
from splitproxy.config.spec import Spec

MatchType = Literal["Exact", "RegularExpression"]
Method = Literal["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"]


class PathMatch(Spec):
    """A condition on the path, which is normalised before."""

    type: Literal["Exact", "PathPrefix", "RegularExpression"] = "PathPrefix"
    """`PathPrefix` goes by elements: `/a` takes `/a` and `/a/b`, not `/ab`; `RegularExpression` fits the whole path."""
    value: Text = "/"
    """The path, the prefix or the expression (RE2)."""

    @field_validator("value")
    @classmethod
    def _fits_its_type(cls, value: str, info: ValidationInfo) -> str:
        kind = info.data.get("type")
        if kind is None:
            return value
        return pattern(value) if kind == "RegularExpression" else path_value(value)


class ValueMatch(Spec):
    """A condition on a named value."""

    name: str
    """Whose value."""
    type: MatchType = "Exact"
    """`Exact`, or `RegularExpression` (RE2) for the whole value."""

    @field_validator("value", check_fields=False)
    @classmethod
    def _compiles(cls, value: str, info: ValidationInfo) -> str:
        return pattern(value) if info.data.get("type") == "RegularExpression" else value


class HeaderMatch(ValueMatch):
    """A condition on a header; repeated headers count as one, joined by commas."""

    name: HeaderName
    """In any case."""
    value: HeaderValue
    """Case counts."""


class CookieMatch(ValueMatch):
    """A condition on a cookie."""

    name: CookieName
    """Case counts."""
    value: CookieValue
    """Case counts."""


class QueryParamMatch(ValueMatch):
    """A condition on a query parameter, decoded; of a repeated one the first counts."""

    name: QueryName
    """Case counts."""
    value: QueryValue
    """Case counts."""


class Match(Spec):
    """Conditions that must all hold."""

    path: PathMatch = PathMatch()
    """On the path; every path when left out."""
    method: Method | None = None
    """The method; any when left out."""
    headers: Items[HeaderMatch] = ()
    """On headers, all of them; a name counts once."""
    cookies: Items[CookieMatch] = ()
    """On cookies, all of them; a name counts once."""
    query_params: Items[QueryParamMatch] = ()
    """On query parameters, all of them; a name counts once."""
