"""Names: each stands for one thing, and every name that is used stands for something.

Looked up in the tree, not in the specs, so that a part with another error still has its names checked.
"""

from collections.abc import Iterator
from typing import Final

from splitproxy.config.checks import unique
from splitproxy.config.nodes import BROKEN, Findings, Node, Path, select
from splitproxy.config.problems import clipped

_RULE: Final = ("routes", "*", "rules", "*")
_NAMED: Final = {
    "upstreams": "upstream",
    "routes": "route",
    "alertProviders": "alertProvider",
    "metricTemplates": "metricTemplate",
    "rollouts": "rollout",
}
"""Lists whose items have a name of their own, and what one of them is called."""
_REFERENCES: Final = {
    "upstreams": (
        (*_RULE, "backendRefs", "*", "name"),
        (*_RULE, "filters", "*", "requestMirror", "backendRef", "name"),
        (*_RULE, "split", "overrides", "*", "upstream"),
        ("rollouts", "*", "primary"),
        ("rollouts", "*", "canary"),
        ("rollouts", "*", "analysis", "compare", "mirror", "noiseTwin"),
    ),
    "routes": (("rollouts", "*", "route"),),
    "alertProviders": (("rollouts", "*", "analysis", "alerts", "*", "providerRef", "name"),),
    "metricTemplates": (("rollouts", "*", "analysis", "metrics", "*", "templateRef", "name"),),
}


def check_names(findings: Findings, *, complete: bool) -> None:
    """Report names that stand twice and, where all names could be read, names that stand for nothing.

    `complete` says whether all files were read to their end.
    """
    root = findings.root
    for key, what in _NAMED.items():
        unique(f"the {what}", _texts(root, (key, "*", "name")), findings)
    if not complete:
        return
    for key, patterns in _REFERENCES.items():
        known = _names(root, key)
        if known is None:
            continue
        for pattern in patterns:
            for path, name in _texts(root, pattern):
                if name not in known:
                    findings.add(path, f"there is no {_NAMED[key]} {clipped(name)}", findings.nearest(name, known))


def _names(root: Node, key: str) -> set[str] | None:
    """Return the names in a list, None when some of them could not be read."""
    found = root.children.get(key) if isinstance(root.children, dict) else None
    if found is not None and not isinstance(found.children, list):
        return None
    names = [node for _, node in select(root, (key, "*", "name"))]
    if any(node.value is BROKEN for node in names):
        return None
    return {node.value if isinstance(node.value, str) else node.text for node in names}


def _texts(root: Node, pattern: tuple[str, ...]) -> Iterator[tuple[Path, str]]:
    return ((path, str(node.value)) for path, node in select(root, pattern) if isinstance(node.value, str))
