"""Which requests are recorded as spans, and where those go: the block `tracing`, and OpenTelemetry's own variables."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Final, Literal, Self, TypeVar, get_args
from urllib.parse import unquote, urlsplit

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from splitproxy.config.addresses import WebUrl, web_url
from splitproxy.config.fields import Checked, HeaderValue, Label, Text, named, typed, wrong
from splitproxy.config.hidden import HiddenValue
from splitproxy.config.hooks import Patience, SentHeader
from splitproxy.config.nodes import Findings
from splitproxy.config.problems import clipped
from splitproxy.config.spec import Spec
from splitproxy.core.filters import Plain

Sampler = Literal[
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
]
_PATH: Final = "/v1/traces"
"""Where a receiver of OTLP takes spans (OTLP/HTTP)."""
_DEFAULTS: Final[Plain] = {
    "endpoint": f"http://localhost:4318{_PATH}",
    "timeout": 10.0,
    "sampler": "parentbased_always_on",
    "ratio": 1.0,
    "serviceName": "splitproxy",
}
"""OpenTelemetry's, but for the name."""

T = TypeVar("T")


def _ratio(value: Any) -> float:
    given = typed(value)
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 <= given <= 1:
        raise wrong(f"a number from 0 to 1 is wanted, not {named(given)}", _ratio_hint(given))
    return float(given)


def _ratio_hint(given: Any) -> str:
    percent = given.removesuffix("%").strip() if isinstance(given, str) else given
    try:
        share = float(percent) / 100
    except (TypeError, ValueError):
        return ""
    return f"write {share:g} for {share * 100:g} %" if 0 < share <= 1 else ""


Ratio = Annotated[float, Checked(_ratio, {"type": "number", "minimum": 0, "maximum": 1})]


class Tracing(Spec):
    """Spans of requests, sent to a receiver of OTLP/HTTP; what is left out, OpenTelemetry's variables may say."""

    endpoint: WebUrl | None = None
    """Its URL, $OTEL_EXPORTER_OTLP_ENDPOINT or http://localhost:4318; without a path /v1/traces is added."""
    headers: dict[SentHeader, HiddenValue] = Field(default_factory=dict)
    """Headers to send with spans; a value may be `{file: path}`."""
    timeout: Patience | None = None
    """Time for the receiver to answer, 10s when left out."""
    sampler: Sampler | None = None
    """Which requests are recorded: one of OpenTelemetry's samplers; parentbased_traceidratio where there is a ratio."""
    ratio: Ratio | None = None
    """The share of traces that are recorded, from 0 to 1."""
    service_name: Label | None = None
    """What the proxy is called in traces; splitproxy when left out."""
    resource: dict[Label, Text] = Field(default_factory=dict)
    """Further attributes of the proxy itself, such as deployment.environment.name."""
    query: Literal["names", "full", "none"] = "names"
    """What is told of a request's query: its parameters without their values, all of it, or nothing."""

    @model_validator(mode="after")
    def _ratio_is_used(self) -> Self:
        if self.ratio is not None and self.sampler is not None and not self.sampler.endswith("traceidratio"):
            raise wrong(f"a ratio means nothing with {self.sampler}", "use traceidratio or parentbased_traceidratio")
        return self


def settle(block: Plain | None, env: Mapping[str, str]) -> Plain | None:
    """Return the plain block with what the file leaves out, as variables or defaults say; None: nothing is traced.

    It is on where the file has the block, or a variable names a receiver; and off where a variable says so.
    """
    said = _Variables(env)
    if said.off or (block is None and said.endpoint is None):
        return None
    given = {key: value for key, value in (block or {"query": "names"}).items() if value not in (None, {})}
    if "endpoint" in given and urlsplit(given["endpoint"]).path in {"", "/"}:
        given["endpoint"] = given["endpoint"].rstrip("/") + _PATH
    if "ratio" in given:
        given.setdefault("sampler", "parentbased_traceidratio")
    sampling = {} if "sampler" in given else said.sampling
    found = {"endpoint": said.endpoint, "timeout": said.timeout, "serviceName": said.name, **sampling}
    return {
        **_DEFAULTS,
        **{key: value for key, value in found.items() if value is not None},
        **given,
        "headers": _merged(said.headers, given.get("headers", {})),
        "resource": {**said.resource, **given.get("resource", {})},
    }


def _merged(said: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """Return headers of the environment, which are in lower case, and of the file: of both with a name the latter."""
    names = {name.lower() for name in given}
    return {**{name: value for name, value in said.items() if name not in names}, **given}


def advise_tracing(block: Tracing | None, env: Mapping[str, str], findings: Findings) -> None:
    """Report variables that are not understood: they are for all programs of a machine, so they are no errors."""
    said = _Variables(env)
    if not said.off and (block is not None or said.endpoint is not None):
        for problem in said.problems:
            findings.add((), problem, missing="" if block is None else "tracing")


class _Variables:
    """What OpenTelemetry's variables say (its specification of them, and of the OTLP exporter); empty is unset."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env
        self.problems: list[str] = []
        exporter = self._text("OTEL_TRACES_EXPORTER")
        self.off = self._text("OTEL_SDK_DISABLED").lower() == "true" or exporter == "none"
        """Whether nothing is to be traced, whatever the file says."""
        if exporter not in {"", "otlp", "none"}:
            self._ignored("OTEL_TRACES_EXPORTER", exporter, "otlp is all there is")
        protocol = self._text("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or self._text("OTEL_EXPORTER_OTLP_PROTOCOL")
        if protocol not in {"", "http/json"}:
            self._ignored("OTEL_EXPORTER_OTLP_PROTOCOL", protocol, "spans go out as http/json")
        base = self._read("OTEL_EXPORTER_OTLP_ENDPOINT", web_url)
        own = self._read("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", web_url)
        self.endpoint = own or (None if base is None else base.rstrip("/") + _PATH)
        self.timeout = self._first("TIMEOUT", _milliseconds)
        self.headers: dict[str, str] = self._first("HEADERS", _headers) or {}
        resource = self._read("OTEL_RESOURCE_ATTRIBUTES", lambda text: dict(_pairs(text))) or {}
        own_name = resource.pop("service.name", "")
        self.name = self._text("OTEL_SERVICE_NAME") or own_name or None
        self.resource = resource
        self.sampling = self._sampling()

    def _text(self, name: str) -> str:
        return self._env.get(name, "").strip()

    def _ignored(self, name: str, text: str, why: str) -> None:
        self.problems.append(f"the variable {name} is ignored: {why}, not {clipped(text)}")

    def _read(self, name: str, parse: Callable[[str], T]) -> T | None:
        """Return what a variable says; what it should not say is left out and reported."""
        text = self._text(name)
        if not text:
            return None
        try:
            return parse(text)
        except ValueError as error:
            secret = name.endswith("HEADERS")
            self._ignored(name, "what it says" if secret else text, _words(error))
            return None

    def _first(self, what: str, parse: Callable[[str], T]) -> T | None:
        """Return what the variable for traces says, else the one for all signals."""
        own = self._read(f"OTEL_EXPORTER_OTLP_TRACES_{what}", parse)
        return self._read(f"OTEL_EXPORTER_OTLP_{what}", parse) if own is None else own

    def _sampling(self) -> Plain:
        sampler = self._text("OTEL_TRACES_SAMPLER")
        if not sampler:
            return {}
        if sampler not in get_args(Sampler):
            self._ignored("OTEL_TRACES_SAMPLER", sampler, f"one of {', '.join(get_args(Sampler))} is wanted")
            return {}
        ratio = self._read("OTEL_TRACES_SAMPLER_ARG", _share) if sampler.endswith("traceidratio") else None
        return {"sampler": sampler, "ratio": 1.0 if ratio is None else ratio}


def _words(error: ValueError) -> str:
    return error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)


def _milliseconds(text: str) -> float:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 10**9:
        raise ValueError("whole milliseconds are wanted")
    return int(text) / 1000


def _share(text: str) -> float:
    share = float(text) if text[:1].isdigit() or text[:1] == "." else math.nan
    if not 0 <= share <= 1:
        raise ValueError("a number from 0 to 1 is wanted")
    return share


_HEADERS: Final[TypeAdapter[dict[str, str]]] = TypeAdapter(dict[SentHeader, HeaderValue])


def _headers(text: str) -> dict[str, str]:
    return _HEADERS.validate_python({name.lower(): value for name, value in _pairs(text)})


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    """Yield the members of a list such as `a=1,b=2`, percent-decoded (W3C Baggage). Raises ValueError."""
    for member in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = member.partition("=")
        if not equals or not name.strip():
            raise ValueError("a list such as name=value,other=value is wanted")
        yield unquote(name.strip()), unquote(value.strip())
