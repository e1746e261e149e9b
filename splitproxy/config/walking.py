"""Ways through a configuration, each item with its path."""

from collections.abc import Iterator

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
from splitproxy.config.nodes import Path
from splitproxy.config.root import Config
from splitproxy.config.routes import Rule


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


def path_modifier(item: Filter | BackendFilter) -> tuple[Path, PathModifier] | None:
    """Return the path modifier of a filter and its path within the filter, if it has one."""
    match item:
        case RequestRedirectFilter(request_redirect=redirect) if redirect.path is not None:
            return ("requestRedirect", "path"), redirect.path
        case UrlRewriteFilter(url_rewrite=rewrite) if rewrite.path is not None:
            return ("urlRewrite", "path"), rewrite.path
        case _:
            return None
