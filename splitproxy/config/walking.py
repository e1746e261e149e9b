"""Ways through a configuration, each item with its path."""

from collections.abc import Iterator

from pydantic.alias_generators import to_camel

from splitproxy.config.access import Token
from splitproxy.config.analysis import Analysis
from splitproxy.config.filters import (
    BackendFilter,
    Filter,
    Header,
    HeaderModifier,
    PathModifier,
    RequestHeaderModifierFilter,
    RequestRedirectFilter,
    ResponseHeaderModifierFilter,
    UrlRewriteFilter,
)
from splitproxy.config.hidden import FileReference
from splitproxy.config.hooks import AlertProvider, Call
from splitproxy.config.measuring import Source
from splitproxy.config.nodes import Path
from splitproxy.config.root import Config
from splitproxy.config.routes import Rule
from splitproxy.config.tracing import Tracing


def rules(config: Config) -> Iterator[tuple[Path, Rule]]:
    """Yield every rule."""
    for route_index, route in enumerate(config.routes):
        for rule_index, rule in enumerate(route.rules):
            yield ("routes", route_index, "rules", rule_index), rule


def filter_lists(config: Config) -> Iterator[tuple[Path, tuple[Filter | BackendFilter, ...]]]:
    """Yield the filters of every rule and every backendRef, where there are any."""
    for path, rule in rules(config):
        if rule.filters:
            yield (*path, "filters"), rule.filters
        for index, reference in enumerate(rule.backend_refs):
            if reference.filters:
                yield (*path, "backendRefs", index, "filters"), reference.filters


def header_modifiers(config: Config) -> Iterator[tuple[Path, HeaderModifier]]:
    """Yield every header modifier."""
    for path, filters in filter_lists(config):
        for index, item in enumerate(filters):
            if isinstance(item, RequestHeaderModifierFilter):
                yield (*path, index, "requestHeaderModifier"), item.request_header_modifier
            elif isinstance(item, ResponseHeaderModifierFilter):
                yield (*path, index, "responseHeaderModifier"), item.response_header_modifier


def headers(config: Config) -> Iterator[tuple[Path, Header]]:
    """Yield every header that a modifier writes."""
    for path, modifier in header_modifiers(config):
        for action, items in (("set", modifier.set), ("add", modifier.add)):
            for index, header in enumerate(items):
                yield (*path, action, index), header


def hidden_files(config: Config) -> Iterator[tuple[Path, FileReference]]:
    """Yield every value that is kept in a file of its own."""
    for path, header in headers(config):
        if isinstance(header.value, FileReference):
            yield (*path, "value"), header.value
    for path, spec in _confidants(config):
        for key, value in spec.__dict__.items():
            place = (*path, to_camel(key))
            if isinstance(value, FileReference):
                yield place, value
            elif key == "headers":
                yield from (((*place, name), one) for name, one in value.items() if isinstance(one, FileReference))


def _confidants(config: Config) -> Iterator[tuple[Path, Call | AlertProvider | Source | Token | Tracing]]:
    """Yield everything that is trusted with a secret, besides headers."""
    for index, token in enumerate(config.admin.tokens):
        yield ("admin", "tokens", index), token
    for index, provider in enumerate(config.alert_providers):
        yield ("alertProviders", index), provider
    for index, template in enumerate(config.metric_templates):
        yield ("metricTemplates", index, "provider"), template.provider
    if config.tracing is not None:
        yield ("tracing",), config.tracing
    for index, rollout in enumerate(config.rollouts):
        if rollout.promotion.webhook is not None:
            yield ("rollouts", index, "promotion", "webhook"), rollout.promotion.webhook
    for path, analysis in analyses(config):
        for index, webhook in enumerate(analysis.webhooks):
            yield (*path, "webhooks", index), webhook


def analyses(config: Config) -> Iterator[tuple[Path, Analysis]]:
    """Yield the analysis of every rollout that has one."""
    for index, rollout in enumerate(config.rollouts):
        if rollout.analysis is not None:
            yield ("rollouts", index, "analysis"), rollout.analysis


def path_modifier(item: Filter | BackendFilter) -> tuple[Path, PathModifier] | None:
    """Return the path modifier of a filter and its path within the filter, if it has one."""
    match item:
        case RequestRedirectFilter(request_redirect=redirect) if redirect.path is not None:
            return ("requestRedirect", "path"), redirect.path
        case UrlRewriteFilter(url_rewrite=rewrite) if rewrite.path is not None:
            return ("urlRewrite", "path"), rewrite.path
        case _:
            return None
