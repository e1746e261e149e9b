"""The tree against the specs: a `Config`, or what is wrong in plain words and in the right place."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from pydantic import ValidationError

from splitproxy.config.merging import LISTS
from splitproxy.config.nodes import BROKEN, Findings, Label, Node, locate, mapping, sequence
from splitproxy.config.problems import clipped
from splitproxy.config.root import Config
from splitproxy.config.schema import keys_at


def shape(findings: Findings) -> Config:
    """Return the configuration; parts with errors are reported and left out of it and of `findings.root`."""
    for _ in range(3):
        root = findings.root
        try:
            return Config.model_validate(root.value)
        except ValidationError as error:
            details = error.errors(include_url=False)
        unknown = [detail["loc"] for detail in details if detail["type"] == "extra_forbidden"]
        meant = {place: findings.nearest.word(str(place[-1]), keys_at(place[:-1])) for place in unknown}
        misspelt = {(*place[:-1], word) for place, word in meant.items()}
        for detail in details:
            place = detail["loc"]
            if place in meant:
                hint = _FOREIGN.get(_kinds(place)) or (f"did you mean '{meant[place]}'?" if meant[place] else "")
                findings.add(place, f"unknown key {clipped(place[-1])}", hint, key=True)
            elif place not in misspelt:  # a key that is missing because it is misspelt is one mistake
                _report(detail, root, findings)
        findings.root = _without(root, [detail["loc"] for detail in details])
    findings.root = mapping({}, findings.root)
    return Config()


def _without(root: Node, places: Iterable[Sequence[Label]]) -> Node:
    """Return the tree without the rules, list items or top-level keys that `places` lie in."""
    keys: set[Label] = set()
    items: set[tuple[Label, Label]] = set()
    rules: dict[Label, set[Label]] = {}
    for place in places:
        match place:
            case ("routes", int(route), "rules", int(rule), *_):
                rules.setdefault(route, set()).add(rule)
            case (str(key), int(item), *_) if key in LISTS:
                items.add((key, item))
            case _:
                keys.add(place[0])
    assert isinstance(root.children, dict)
    kept: dict[str, Node] = {}
    for key, node in root.children.items():
        if key in keys or node.value is BROKEN:
            continue
        if key in LISTS and isinstance(node.children, list):
            numbered = [(i, child) for i, child in enumerate(node.children) if (key, i) not in items]
            spoilt = rules if key == "routes" else {}
            parts = [_without_rules(child, spoilt[i]) if i in spoilt else child for i, child in numbered]
            kept[key] = sequence(parts, node)
        else:
            kept[key] = node
    return mapping(kept, root)


def _without_rules(route: Node, spoilt: set[Label]) -> Node:
    assert isinstance(route.children, dict)
    rules = route.children["rules"]
    assert isinstance(rules.children, list)
    kept = sequence([rule for index, rule in enumerate(rules.children) if index not in spoilt], rules)
    return mapping({**route.children, "rules": kept}, route)


# --- messages --------------------------------------------------------------------------------------------------------
_ANALYSIS: Final = ("rollouts", "analysis")
_FOREIGN: Final[Mapping[tuple[str, ...], str]] = {
    (*_ANALYSIS, "metrics", "query"): "make it a metricTemplate, and name that in templateRef",
    ("rollouts", "progressDeadlineSeconds"): "write progressDeadline, with a unit: 600s",
    ("rollouts", "canaryAnalysis"): "write analysis",
    ("rollouts", "suspend"): "use `splitproxy pause`",
    ("rollouts", "targetRef"): "name the upstreams, primary and canary",
    ("rollouts", "service"): "name a route; what stood here is written there",
}
"""Keys of Flagger and others that have another place or name here."""
_QUOTED: Final = re.compile(r"'([^']*)'|\b([0-9]+)\b")


def _kinds(place: Sequence[Label]) -> tuple[str, ...]:
    return tuple(label for label in place if isinstance(label, str))


def _report(detail: Mapping[str, Any], root: Node, findings: Findings) -> None:
    kind, place, context = detail["type"], detail["loc"], detail.get("ctx", {})
    node, _ = locate(root, place)
    match kind:
        case "wrong":
            findings.add(place, context["message"], hint=context["hint"])
        case "wanted_text":
            findings.add(place, *_not_text(context["wanted"], node))
        case "missing" | "union_tag_not_found":
            name = "type" if kind == "union_tag_not_found" else str(place[-1])
            if isinstance(node.children, dict) and name not in node.children:
                findings.add(place, f"the key '{name}' is missing", missing=name)
        case "union_tag_invalid":
            findings.add((*place, "type"), *_not_one_of(context["expected_tags"], context["tag"], findings))
        case "literal_error":
            findings.add(place, *_not_one_of(context["expected"], detail["input"], findings))
        case "tuple_type":
            hint = "begin each item with '- '" if isinstance(node.children, dict) else f'write ["{node.text[:80]}"]'
            findings.add(place, f"a list is wanted, not {_kind(node)}", hint=hint)
        case "model_type" | "model_attributes_type" | "dict_type":
            findings.add(place, f"a mapping of keys and values is wanted, not {_kind(node)}")
        case _:
            findings.add(place, str(detail["msg"]))


def _kind(node: Node) -> str:
    if isinstance(node.children, dict):
        return "a mapping"
    return "a list" if isinstance(node.children, list) else clipped(node.text)


def _not_text(wanted: str, node: Node) -> tuple[str, str]:
    if node.children is not None:
        return f"{wanted}, not {_kind(node)}", ""
    what = "true or false" if isinstance(node.value, bool) else "a number"
    return f"{wanted}; YAML reads {node.text} as {what}", f'write "{node.text}"'


def _not_one_of(expected: str, given: object, findings: Findings) -> tuple[str, str]:
    choices = [text or number for text, number in _QUOTED.findall(expected) if text or number]
    listed = f"{', '.join(choices[:-1])} or {choices[-1]}"
    hint = findings.nearest(given, choices) if isinstance(given, str) else ""
    shown = clipped(given) if isinstance(given, str | int | float) else "that"
    return f"{listed} is wanted, not {shown}", hint
