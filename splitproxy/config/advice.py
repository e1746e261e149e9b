"""What is allowed but hardly meant: warnings."""

from ipaddress import ip_address

from splitproxy.config import walking
from splitproxy.config.addresses import split_address
from splitproxy.config.checks import own_endpoints
from splitproxy.config.filters import RequestMirrorFilter, RequestRedirectFilter
from splitproxy.config.nodes import Findings, Path
from splitproxy.config.ownership import owned
from splitproxy.config.problems import clipped
from splitproxy.config.root import Config
from splitproxy.config.routes import Rule
from splitproxy.config.shadows import shadows


def advise(config: Config, findings: Findings) -> None:
    """Report what is allowed but hardly meant."""
    if not config.routes:
        findings.add((), "there is no route, so every request is answered with 404", missing="routes")
    if config.admin.insecure and not ip_address(split_address(config.admin.address)[0]).is_loopback:
        message = "anybody who reaches this address from another machine can reload, drain and promote"
        findings.add(("admin", "insecure"), message, "use tokens, or 127.0.0.1")
    _unused(config, findings)
    _believing(config, findings)
    for index, upstream in enumerate(config.upstreams):
        for place, listener in own_endpoints(config, upstream):
            message = f"this is the listener {listener} of this very proxy: requests may go round in circles"
            findings.add(("upstreams", index, "endpoints", place), message)
    routes = {route.name: route.rules for route in config.routes}
    ours = {(rollout.route, i) for rollout in config.rollouts for i in owned(rollout, routes[rollout.route])}
    for path, rule in walking.rules(config):
        _weights(path, rule, findings)
        _repeated_names(path, rule, findings)
        if (config.routes[int(path[1])].name, path[3]) not in ours:
            _failover(path, rule, findings)
    for later, earlier, hosts in shadows(config):
        where = f" for {', '.join(hosts[:3])}{' …' if len(hosts) > 3 else ''}" if hosts else ""
        message = f"this can never match{where}: {findings.place(earlier, later)} takes all its requests"
        findings.add(later, message)


def _unused(config: Config, findings: Findings) -> None:
    used = {name for rollout in config.rollouts for name in (rollout.primary, rollout.canary)}
    used.update(twin for _, analysis in walking.analyses(config) if (twin := analysis.compare.mirror.noise_twin))
    for _, rule in walking.rules(config):
        used.update(reference.name for reference in rule.backend_refs)
        used.update(override.upstream for override in rule.split.overrides)
        mirrors = (item for item in rule.filters if isinstance(item, RequestMirrorFilter))
        used.update(item.request_mirror.backend_ref.name for item in mirrors)
    for index, upstream in enumerate(config.upstreams):
        if upstream.name not in used:
            findings.add(("upstreams", index, "name"), f"no rule uses the upstream {clipped(upstream.name)}")


def _believing(config: Config, findings: Findings) -> None:
    for index, listener in enumerate(config.listeners):
        if listener.proxy_protocol and not listener.trusted_proxies:
            message = "whoever reaches this listener can claim any address in a PROXY header"
            hint = "name the load balancers in trustedProxies"
            findings.add(("listeners", index, "proxyProtocol"), message, hint)
        for place, network in enumerate(listener.trusted_proxies):
            if network in {"0.0.0.0/0", "::/0"}:
                message = "everybody is believed, so anybody can claim any address"
                findings.add(("listeners", index, "trustedProxies", place), message, "name the proxies' networks")
    for index, upstream in enumerate(config.upstreams):
        if upstream.tls is not None and upstream.tls.insecure_skip_verify:
            message = "any certificate is accepted: who is on the way to the endpoints can read and change all"
            hint = "give the authority's certificate as caFile"
            findings.add(("upstreams", index, "tls", "insecureSkipVerify"), message, hint)


def _weights(path: Path, rule: Rule, findings: Findings) -> None:
    if any(reference.weight for reference in rule.backend_refs):
        return
    if any(isinstance(item, RequestRedirectFilter) for item in rule.filters):
        return
    what = "all weights of this rule are zero" if rule.backend_refs else "this rule has no backendRefs"
    place = (*path, "backendRefs") if rule.backend_refs else path
    findings.add(place, f"{what}: its requests are answered with 500", key=bool(rule.backend_refs))


def _failover(path: Path, rule: Rule, findings: Findings) -> None:
    names = {ref.name for ref in rule.backend_refs} | {override.upstream for override in rule.split.overrides}
    if rule.split.failover and len(names) < 2:
        findings.add((*path, "split", "failover"), "this rule has one upstream: there is nothing to fail over to")


def _repeated_names(path: Path, rule: Rule, findings: Findings) -> None:
    for index, match in enumerate(rule.matches):
        lists = (("headers", match.headers), ("cookies", match.cookies), ("queryParams", match.query_params))
        for key, items in lists:
            seen: set[str] = set()
            for place, item in enumerate(items):
                name = item.name.lower() if key == "headers" else item.name
                if name in seen:
                    message = f"{clipped(item.name)} stands twice in this match: only the first counts"
                    findings.add((*path, "matches", index, key, place), message)
                seen.add(name)
