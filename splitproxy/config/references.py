"""Names: each stands for one thing, and every name that is used stands for something.

Looked up in the tree, not in the specs, so that a part with another error still has its names checked.
"""

from collections.abc import Iterator
from typing import Final

from splitproxy.config.checks import unique
from splitproxy.config.nodes import BROKEN, Findings, Node, Path, select
from splitproxy.config.problems import clipped

_RULE: Final = ("routes", "*", "rules", "*")
_REFERENCES: Final = (
    (*_RULE, "backendRefs", "*", "name"),
    (*_RULE, "filters", "*", "requestMirror", "backendRef", "name"),
    (*_RULE, "split", "overrides", "*", "upstream"),
)


def check_names(findings: Findings, *, complete: bool) -> None:
    """Report names that stand twice and, where all names could be read, upstreams that do not exist.

    `complete` says whether all files were read to their end.
    """
    root = findings.root
    unique("the upstream", _texts(root, ("upstreams", "*", "name")), findings)
    unique("the route", _texts(root, ("routes", "*", "name")), findings)
    upstreams = root.children.get("upstreams") if isinstance(root.children, dict) else None
    if not complete or (upstreams is not None and not isinstance(upstreams.children, list)):
        return
    names = [node for _, node in select(root, ("upstreams", "*", "name"))]
    if any(node.value is BROKEN for node in names):
        return
    known = {node.value if isinstance(node.value, str) else node.text for node in names}
    for pattern in _REFERENCES:
        for path, name in _texts(root, pattern):
            if name not in known:
                findings.add(path, f"there is no upstream {clipped(name)}", findings.nearest(name, known))


def _texts(root: Node, pattern: tuple[str, ...]) -> Iterator[tuple[Path, str]]:
    return ((path, str(node.value)) for path, node in select(root, pattern) if isinstance(node.value, str))
