"""The configuration as plain data with every default filled in: what is compiled, sent to workers and shown."""

import os
from collections.abc import Mapping
from typing import Any

from splitproxy.config import walking
from splitproxy.config.filters import RequestMirrorFilter
from splitproxy.config.nodes import Path
from splitproxy.config.ownership import complete_rollouts
from splitproxy.config.root import Config
from splitproxy.config.tracing import settle
from splitproxy.core.stats import MAX_WORKERS

Plain = dict[str, Any]


def plain(config: Config, values: Mapping[Path, str], env: Mapping[str, str]) -> Plain:
    """Return the plain snapshot of a configuration; `values` are the secrets read from files, by their place."""
    tree = config.model_dump(by_alias=True, mode="json", warnings=False)
    for path, value in values.items():
        _at(tree, path[:-1])[path[-1]] = value
    for listener in tree["listeners"]:
        listener["name"] = listener["name"] or listener["address"]
    if tree["workers"] == "auto":
        tree["workers"] = min(len(os.sched_getaffinity(0)), MAX_WORKERS)
    _endpoints(tree, config)
    _rules(tree)
    _mirrors(tree, config)
    tree["tracing"] = settle(tree["tracing"], env)
    tree["state"]["path"] = state_path(config.state.path, env)
    for template in tree["metricTemplates"]:
        template["provider"].setdefault("jsonPath", None)
    complete_rollouts(tree, config)
    _failovers(tree)
    return tree


def state_path(path: str, env: Mapping[str, str]) -> str:
    """Return where state is kept: `path` seen from $STATE_DIRECTORY (the first of it) or from here."""
    return os.path.abspath(os.path.join(env.get("STATE_DIRECTORY", "").partition(":")[0], path))


def _endpoints(tree: Plain, config: Config) -> None:
    for upstream, spec in zip(tree["upstreams"], config.upstreams, strict=True):
        for endpoint, address in zip(upstream["endpoints"], spec.endpoints, strict=True):
            endpoint |= {"host": address.host, "port": address.port}


def _rules(tree: Plain) -> None:
    for route in tree["routes"]:
        for index, rule in enumerate(route["rules"]):
            rule["name"] = rule["name"] or str(index)
            rule["matches"] = rule["matches"] or [_every_request()]
            rule["rollout"] = None


def _failovers(tree: Plain) -> None:
    for route in tree["routes"]:
        for rule in route["rules"]:
            if rule["split"]["failover"] is None:
                rule["split"]["failover"] = rule["rollout"] is not None


def _every_request() -> Plain:
    path = {"type": "PathPrefix", "value": "/"}
    return {"path": path, "method": None, "headers": [], "cookies": [], "queryParams": []}


def _mirrors(tree: Plain, config: Config) -> None:
    for path, rule in walking.rules(config):
        for index, item in enumerate(rule.filters):
            if isinstance(item, RequestMirrorFilter):
                mirror = _at(tree, (*path, "filters", index, "requestMirror"))
                mirror["percent"] = item.request_mirror.share
                del mirror["fraction"]


def _at(tree: Any, path: Path) -> Any:
    for label in path:
        tree = tree[label]
    return tree
