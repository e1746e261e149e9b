"""What happens to a request or response on its way (Gateway API `HTTPRouteFilter`)."""

from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from splitproxy.config.addresses import Hostname
from splitproxy.config.fields import (
    Duration,
    HeaderName,
    Items,
    Percent,
    Reference,
    size,
    typed,
    whole,
    wrong,
)
from splitproxy.config.hidden import HiddenValue
from splitproxy.config.paths import ReplacementPath
from splitproxy.config.problems import clipped
from splitproxy.config.spec import Spec

FRAMING: Final = frozenset(
    ("connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade")
)
"""Headers of the connection, or that frame the body."""


def _changeable(name: str) -> str:
    if name.lower() in FRAMING:
        raise wrong(f"{clipped(name)} belongs to the connection or frames the body: the proxy itself writes it")
    if name.lower() == "host":
        raise wrong("Host is not changed by a header filter", "use a URLRewrite with `hostname`")
    return name


ChangeableHeader = Annotated[HeaderName, AfterValidator(_changeable)]


class Header(Spec):
    """A header to write."""

    name: ChangeableHeader
    """Any case; sent as written."""
    value: HiddenValue
    """Text, or `{file: path}` for a secret."""


class HeaderModifier(Spec):
    """Changes to headers; a name may stand in one of them, once."""

    set: Items[Header] = ()
    """Written in place of what is there."""
    add: Items[Header] = ()
    """Appended to what is there."""
    remove: Items[ChangeableHeader] = ()
    """Taken out."""


class ReplaceFullPath(Spec):
    """Put a path in the place of the whole one."""

    type: Literal["ReplaceFullPath"]
    """ReplaceFullPath or ReplacePrefixMatch."""
    replace_full_path: ReplacementPath
    """The new path; the query stays."""


class ReplacePrefixMatch(Spec):
    """Put a path in the place of the matched prefix; the rule then has exactly one match, a PathPrefix."""

    type: Literal["ReplacePrefixMatch"]
    """ReplaceFullPath or ReplacePrefixMatch."""
    replace_prefix_match: ReplacementPath
    """What stands where the prefix was; empty takes it away."""


PathModifier = Annotated[ReplaceFullPath | ReplacePrefixMatch, Field(discriminator="type")]


class Redirect(Spec):
    """Where to send the client instead; what is left out stays as the client asked for it."""

    scheme: Literal["http", "https"] | None = None
    """The new scheme."""
    hostname: Hostname | None = None
    """The new host."""
    path: PathModifier | None = None
    """The new path."""
    port: Annotated[int, whole(1, 65535)] | None = None
    """The new port; else that of the new scheme, else the one that was asked for."""
    status_code: Annotated[Literal[301, 302, 303, 307, 308], BeforeValidator(typed)] = 302
    """301, 302, 303, 307 or 308."""

    @model_validator(mode="after")
    def _leads_elsewhere(self) -> Self:
        if self.scheme is None and self.hostname is None and self.path is None and self.port is None:
            raise wrong("this redirects every request to where it is", "give a scheme, hostname, path or port")
        return self


class Rewrite(Spec):
    """What the upstream gets instead of the client's host and path."""

    hostname: Hostname | None = None
    """The new Host."""
    path: PathModifier | None = None
    """The new path."""

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if self.hostname is None and self.path is None:
            raise wrong("this rewrites nothing", "give a hostname or a path")
        return self


class MirrorTarget(Spec):
    """The upstream that gets the copies."""

    name: Reference
    """The name of an upstream."""


class Fraction(Spec):
    """A part of the requests, as a fraction."""

    numerator: Annotated[int, whole(0, 1_000_000_000)]
    """How many of `denominator` requests."""
    denominator: Annotated[int, whole(1, 1_000_000_000)] = 100
    """Of how many."""

    @model_validator(mode="after")
    def _at_most_one(self) -> Self:
        if self.numerator > self.denominator:
            raise wrong("a fraction is at most 1: the numerator is greater than the denominator")
        return self


class Mirror(Spec):
    """Copies of requests to another upstream, whose answers nobody waits for."""

    backend_ref: MirrorTarget
    """Which upstream."""
    percent: Percent | None = None
    """Percent of the requests that are copied; all when neither this nor `fraction` is given."""
    fraction: Fraction | None = None
    """The same as a fraction."""
    max_body_bytes: Annotated[int, size(1, 1 << 30)] = 1048576
    """Bytes of a body that are copied; a request with more is not."""
    max_in_flight: Annotated[int, whole(1, 100_000)] = 64
    """Copies under way at one time in one worker; more are dropped and counted."""
    timeout: Duration = 5.0
    """Time for a copy to be answered. 0s is no limit."""
    methods: Literal["safe", "all"] = "safe"
    """`safe` copies GET, HEAD, OPTIONS and TRACE alone: others may change something twice."""

    @model_validator(mode="after")
    def _one_share(self) -> Self:
        if self.percent is not None and self.fraction is not None:
            raise wrong("percent and fraction say the same thing twice", "keep one of them")
        return self

    @property
    def share(self) -> float:
        """Percent of the requests that are copied."""
        if self.fraction is not None:
            return 100.0 * self.fraction.numerator / self.fraction.denominator
        return 100.0 if self.percent is None else float(self.percent)


class FaultDelay(Spec):
    """Requests that are made to wait."""

    percent: Percent = 100
    """Percent of the requests."""
    duration: Duration
    """How long; it comes before the timeouts of an attempt, and within `timeouts.request`."""


class FaultAbort(Spec):
    """Requests that are answered at once with an error."""

    percent: Percent = 100
    """Percent of the requests."""
    status: Annotated[int, whole(400, 599)]
    """What they are answered with."""


class Fault(Spec):
    """Errors and delays on purpose, to see what becomes of them; each is drawn by itself."""

    delay: FaultDelay | None = None
    """Some wait."""
    abort: FaultAbort | None = None
    """Some fail."""

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        if self.delay is None and self.abort is None:
            raise wrong("this fault does nothing", "give a delay or an abort")
        return self


class RequestHeaderModifierFilter(Spec):
    """Change the request's headers."""

    type: Literal["RequestHeaderModifier"]
    """Which filter this is."""
    request_header_modifier: HeaderModifier
    """The changes."""


class ResponseHeaderModifierFilter(Spec):
    """Change the response's headers."""

    type: Literal["ResponseHeaderModifier"]
    """Which filter this is."""
    response_header_modifier: HeaderModifier
    """The changes."""


class RequestMirrorFilter(Spec):
    """Copy requests to another upstream."""

    type: Literal["RequestMirror"]
    """Which filter this is."""
    request_mirror: Mirror
    """Which, where and how many."""


class RequestRedirectFilter(Spec):
    """Answer with a redirect."""

    type: Literal["RequestRedirect"]
    """Which filter this is."""
    request_redirect: Redirect
    """Where to."""


class UrlRewriteFilter(Spec):
    """Change host or path on the way to the upstream."""

    type: Literal["URLRewrite"]
    """Which filter this is."""
    url_rewrite: Rewrite
    """The changes."""


class FaultFilter(Spec):
    """Delay or abort some requests: of a rule as the proxy's own doing, of a backendRef as if its upstream had."""

    type: Literal["Fault"]
    """Which filter this is."""
    fault: Fault
    """How many, and how."""


BackendFilter = Annotated[
    RequestHeaderModifierFilter | ResponseHeaderModifierFilter | RequestRedirectFilter | UrlRewriteFilter | FaultFilter,
    Field(discriminator="type"),
]
Filter = Annotated[
    RequestHeaderModifierFilter
    | ResponseHeaderModifierFilter
    | RequestMirrorFilter
    | RequestRedirectFilter
    | UrlRewriteFilter
    | FaultFilter,
    Field(discriminator="type"),
]
