"""What must hold between the parts of a configuration: names, references, filters, loops. Errors only."""

from collections.abc import Iterable

from splitproxy.config import walking
from splitproxy.config.addresses import overlap, reaches
from splitproxy.config.filters import (
    BackendFilter,
    FaultFilter,
    Filter,
    ReplacePrefixMatch,
    RequestMirrorFilter,
    RequestRedirectFilter,
    UrlRewriteFilter,
)
from splitproxy.config.nodes import Findings, Path
from splitproxy.config.problems import clipped
from splitproxy.config.root import Config
from splitproxy.config.routes import Rule
from splitproxy.config.upstreams import Upstream


def check(config: Config, findings: Findings, *, whole: bool) -> None:
    """Report what is wrong between the parts; not `whole`, some are left out for errors, and nothing is missed."""
    _listeners(config, findings, whole)
    _upstreams(config, findings)
    _routes(config, findings, whole)
    for path, rule in walking.rules(config):
        _redirects(path, rule, findings)
        _prefixes(path, rule, findings)
        _timeouts(path, rule, findings)
    for path, filters in walking.filter_lists(config):
        _filters(path, filters, findings)
    for path, modifier in walking.header_modifiers(config):
        names = [
            *((("set", i, "name"), header.name) for i, header in enumerate(modifier.set)),
            *((("add", i, "name"), header.name) for i, header in enumerate(modifier.add)),
            *((("remove", i), name) for i, name in enumerate(modifier.remove)),
        ]
        unique("the header", (((*path, *place), name.lower()) for place, name in names), findings)
    _mirror_loops(config, findings)


def unique(what: str, names: Iterable[tuple[Path, str]], findings: Findings) -> None:
    """Report every name that stands more than once."""
    seen: dict[str, Path] = {}
    for path, name in names:
        first = seen.setdefault(name, path)
        if first is not path:
            findings.add(path, f"{what} {clipped(name)} stands twice; first at {findings.place(first, path)}")


# --- listeners and upstreams -----------------------------------------------------------------------------------------
def _listeners(config: Config, findings: Findings, whole: bool) -> None:
    if not config.listeners and whole:
        hint = "write listeners: [{address: 127.0.0.1:8080}]"
        findings.add((), "there is no listener", hint, missing="listeners")
    # Any number of ports 0 could be bound, but listeners are told apart by what the file says.
    for index, item in enumerate(config.listeners):
        if item.tls is not None and not item.tls.certificates:
            path: Path = ("listeners", index, "tls", "certificates")
            findings.add(path, "a listener with TLS has at least one certificate")
    names = [item.name or (item.address if item.address.endswith(":0") else "") for item in config.listeners]
    unique("the listener", ((("listeners", i, "name"), name) for i, name in enumerate(names) if name), findings)
    bound: list[tuple[Path, str]] = [(("admin", "address"), config.admin.address)]
    if config.probes is not None:
        bound.append((("probes", "address"), config.probes.address))
    places = [*((("listeners", i, "address"), item.address) for i, item in enumerate(config.listeners)), *bound]
    by_port: dict[str, list[tuple[Path, str]]] = {}
    for path, address in places:
        for first, taken in by_port.setdefault(address.rpartition(":")[2], []):
            if overlap(taken, address):
                message = f"{address} and {taken} of {findings.place(first, path)} take the same port"
                findings.add(path, message, "give the admin API another address" if path[0] == "admin" else "")
                break
        else:
            by_port[address.rpartition(":")[2]].append((path, address))


def _upstreams(config: Config, findings: Findings) -> None:
    for index, upstream in enumerate(config.upstreams):
        path: Path = ("upstreams", index, "endpoints")
        if not upstream.endpoints:
            findings.add(path, "an upstream has at least one endpoint")
        unique("the endpoint", (((*path, i), item.url) for i, item in enumerate(upstream.endpoints)), findings)
        encrypted = [endpoint.url.startswith("https:") for endpoint in upstream.endpoints]
        if any(encrypted) and not all(encrypted):
            hint = "make an upstream of each kind"
            findings.add(path, "the endpoints of an upstream are all http:// or all https://", hint)
        elif upstream.tls is not None and encrypted and not any(encrypted):
            message = "tls means nothing here: the endpoints are http://"
            findings.add(("upstreams", index, "tls"), message, "write https:// in their URLs", key=True)
        if upstream.endpoints and not any(endpoint.weight for endpoint in upstream.endpoints):
            findings.add(path, "no endpoint has a weight, so this upstream can serve nothing")


# --- routes and rules ------------------------------------------------------------------------------------------------
def _routes(config: Config, findings: Findings, whole: bool) -> None:
    for index, route in enumerate(config.routes):
        path: Path = ("routes", index)
        hosts = (((*path, "hostnames", i), name) for i, name in enumerate(route.hostnames))
        unique("the host name", hosts, findings)
        if whole:  # a rule without a name has its index as one
            names = (((*path, "rules", i, "name"), rule.name or str(i)) for i, rule in enumerate(route.rules))
            unique("the rule", names, findings)
        if not route.rules and whole:
            findings.add((*path, "rules"), "a route has at least one rule")


def _redirects(path: Path, rule: Rule, findings: Findings) -> None:
    redirect = next((i for i, item in enumerate(rule.filters) if isinstance(item, RequestRedirectFilter)), None)
    if redirect is not None and rule.backend_refs:
        place = findings.place((*path, "filters", redirect), path)
        message = f"backendRefs beside the redirect at {place} mean nothing: a redirect answers by itself"
        findings.add((*path, "backendRefs"), message, "leave one of them out", key=True)


def _prefixes(path: Path, rule: Rule, findings: Findings) -> None:
    """Check Gateway API's rule: the prefix that is replaced must be the one and only match's."""
    alone = not rule.matches or (len(rule.matches) == 1 and rule.matches[0].path.type == "PathPrefix")
    if alone:
        return
    lists: list[tuple[Path, tuple[Filter | BackendFilter, ...]]] = [((*path, "filters"), rule.filters)]
    lists += [((*path, "backendRefs", i, "filters"), ref.filters) for i, ref in enumerate(rule.backend_refs)]
    for place, filters in lists:
        for index, item in enumerate(filters):
            found = walking.path_modifier(item)
            if found is not None and isinstance(found[1], ReplacePrefixMatch):
                message = "ReplacePrefixMatch needs a rule with exactly one match, a PathPrefix"
                hint = "use ReplaceFullPath, or make a rule of each match"
                findings.add((*place, index, *found[0], "type"), message, hint)


def _timeouts(path: Path, rule: Rule, findings: Findings) -> None:
    timeouts = rule.timeouts
    if timeouts.request and timeouts.backend_request > timeouts.request:
        message = f"one attempt may not take longer than the whole request ({timeouts.request:g}s)"
        findings.add((*path, "timeouts", "backendRequest"), message)


def _filters(path: Path, filters: tuple[Filter | BackendFilter, ...], findings: Findings) -> None:
    once = [(index, item.type) for index, item in enumerate(filters) if not isinstance(item, RequestMirrorFilter)]
    unique("the filter", (((*path, index, "type"), name) for index, name in once), findings)
    kinds = {type(item) for item in filters}
    for kind in (UrlRewriteFilter, FaultFilter):
        if RequestRedirectFilter in kinds and kind in kinds:
            index, item = next((i, item) for i, item in enumerate(filters) if isinstance(item, kind))
            message = f"a {item.type} beside a RequestRedirect means nothing"
            findings.add((*path, index), message, "leave one of them out")


# --- loops -----------------------------------------------------------------------------------------------------------
def own_endpoints(config: Config, upstream: Upstream) -> list[tuple[int, str]]:
    """Return the endpoints of `upstream`, by index, that are listeners of this very proxy, with that address."""
    addresses = [item.address for item in config.listeners]
    found = []
    for index, endpoint in enumerate(upstream.endpoints):
        listener = next((one for one in addresses if reaches(one, endpoint.host, endpoint.port)), None)
        if listener is not None:
            found.append((index, listener))
    return found


def _mirror_loops(config: Config, findings: Findings) -> None:
    loops = {item.name: found[0][1] for item in config.upstreams if (found := own_endpoints(config, item))}
    if not loops:
        return
    for path, rule in walking.rules(config):
        for index, item in enumerate(rule.filters):
            if isinstance(item, RequestMirrorFilter) and item.request_mirror.backend_ref.name in loops:
                name = item.request_mirror.backend_ref.name
                message = f"copies would come back: {clipped(name)} has the listener {loops[name]} as an endpoint"
                findings.add((*path, "filters", index, "requestMirror", "backendRef", "name"), message)
