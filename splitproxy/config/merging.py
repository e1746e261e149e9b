"""The files of a folder as one configuration."""

from collections.abc import Sequence
from typing import Final

from splitproxy.config.nodes import Node, mapping, sequence
from splitproxy.config.problems import Problem, clipped

LISTS: Final = ("listeners", "upstreams", "routes", "alertProviders", "metricTemplates", "rollouts")
"""Top-level keys whose items stand for themselves: every file may add to them."""


def merge(roots: Sequence[Node]) -> tuple[Node, list[Problem]]:
    """Return one tree of all files; lists follow each other, any other key stands in one file only."""
    if len(roots) == 1:
        return roots[0], []
    children: dict[str, Node] = {}
    problems: list[Problem] = []
    for root in roots:
        assert isinstance(root.children, dict)
        for key, node in root.children.items():
            present = children.get(key)
            if present is None:
                children[key] = node
            elif key in LISTS and isinstance(present.children, list) and isinstance(node.children, list):
                children[key] = sequence([*present.children, *node.children], present)
            else:
                line, column = node.key or (node.line, node.column)
                first = f"{present.source.name}:{(present.key or (present.line, 0))[0] + 1}"
                message = f"the key {clipped(key)} stands in two files; first in {first}"
                hint = "" if key in LISTS else f"only {', '.join(LISTS[:-1])} and {LISTS[-1]} may be spread over files"
                problems.append(node.source.problem(line, column, message, path=key, hint=hint))
    return mapping(children, roots[0]), problems
