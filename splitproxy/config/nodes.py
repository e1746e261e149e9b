"""The tree between YAML's text and the specs: plain values, and where each of them stood."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from splitproxy.config.problems import Nearest, Problem, excerpt, printable

Label = str | int
Path = tuple[Label, ...]
"""Keys and indexes from the root to a value."""


BROKEN: Final = object()
"""The value of a node whose error is already known; it stands in `children` but in no plain value."""


@dataclass(eq=False, slots=True)
class Source:
    """One file's name and text."""

    name: str
    text: str
    _lines: list[str] | None = field(default=None, repr=False)

    def line(self, number: int) -> str:
        """Return one line, counted from 0; empty past the end."""
        if self._lines is None:
            self._lines = self.text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        return self._lines[number] if number < len(self._lines) else ""

    def problem(self, line: int, column: int, message: str, *, path: str = "", hint: str = "") -> Problem:
        """Return a problem at `line` and `column`, both from 0."""
        shown, caret = excerpt(self.line(line), column)
        path, message, hint = (printable(text, "\N{REPLACEMENT CHARACTER}") for text in (path, message, hint))
        return Problem(self.name, line + 1, column + 1, path, message, hint, shown, caret)


class Node:
    """A value and its place (line and column from 0); an inner node also knows its parts."""

    __slots__ = ("children", "column", "index", "key", "line", "size", "source", "text", "value")

    def __init__(self, value: Any, source: Source, line: int, column: int) -> None:
        self.value = value
        """The plain value: what the specs are given."""
        self.children: dict[str, Node] | list[Node] | None = None
        self.source = source
        self.line = line
        self.column = column
        self.text = ""
        """A scalar as it was typed."""
        self.key: tuple[int, int] | None = None
        """Where the key of this value stands, when it is one of a mapping."""
        self.index = 0
        """The place in the list as written: merging files and leaving out broken items move it."""
        self.size = 1
        """Values in this subtree, aliases expanded."""

    def copy(self) -> "Node":
        """Return a node for the same value, that may stand under another key."""
        twin = Node(self.value, self.source, self.line, self.column)
        twin.children, twin.text, twin.size = self.children, self.text, self.size
        return twin


def mapping(children: dict[str, Node], like: Node) -> Node:
    """Return a mapping of `children`, placed where `like` is."""
    value = {key: child.value for key, child in children.items() if child.value is not BROKEN}
    node = Node(value, like.source, like.line, like.column)
    node.children, node.key, node.index = children, like.key, like.index
    return node


def sequence(children: list[Node], like: Node) -> Node:
    """Return a list of `children`, placed where `like` is."""
    node = Node([child.value for child in children], like.source, like.line, like.column)
    node.children, node.key, node.index = children, like.key, like.index
    return node


def spelled(path: Sequence[Label]) -> str:
    """Return a path as people write it: `routes[0].name`."""
    text = ""
    for label in path:
        text += f"[{label}]" if isinstance(label, int) else f".{label}" if text else label
    return text


def descend(root: Node, path: Sequence[Label]) -> Iterator[tuple[Label, Node]]:
    """Yield each label of `path` that leads on, as it was written, with the node it leads to; skip the others.

    Validation's locations hold more than keys (the chosen member of a union, for example), so a label that leads
    nowhere is not an error.
    """
    node = root
    for label in path:
        children = node.children
        if isinstance(children, dict) and isinstance(label, str) and label in children:
            node = children[label]
            yield label, node
        elif isinstance(children, list) and isinstance(label, int) and label < len(children):
            node = children[label]
            yield node.index, node


def select(root: Node, pattern: Sequence[str]) -> Iterator[tuple[Path, Node]]:
    """Yield what a path leads to, `*` standing for every index and key; what has another shape is left out."""
    found: list[tuple[Path, Node]] = [((), root)]
    for label in pattern:
        if label == "*":
            found = [((*path, index), child) for path, node in found for index, child in _parts(node)]
        else:
            found = [
                ((*path, label), node.children[label])
                for path, node in found
                if isinstance(node.children, dict) and label in node.children
            ]
    yield from found


def _parts(node: Node) -> Iterable[tuple[Label, Node]]:
    if isinstance(node.children, dict):
        return node.children.items()
    return enumerate(node.children or ())


def locate(root: Node, path: Sequence[Label]) -> tuple[Node, Path]:
    """Return the deepest node that `path` leads to, and its path as written."""
    node, written = root, []
    for label, found in descend(root, path):
        node = found
        written.append(label)
    return node, tuple(written)


class Findings:
    """The problems found in one tree."""

    def __init__(self, root: Node) -> None:
        self.root = root
        """What the paths of problems refer to."""
        self.problems: list[Problem] = []
        self.nearest = Nearest()

    def add(self, path: Sequence[Label], message: str, hint: str = "", *, key: bool = False, missing: str = "") -> None:
        """Note a problem with the value at `path`, with its `key`, or with a key that is `missing` from it."""
        node, written = locate(self.root, path)
        line, column = node.key if key and node.key is not None else (node.line, node.column)
        shown = spelled((*written, missing) if missing else written)
        self.problems.append(node.source.problem(line, column, message, path=shown, hint=hint))

    def place(self, path: Sequence[Label], beside: Sequence[Label]) -> str:
        """Return where the value at `path` stands, for a message about `beside`: `routes[0].name (line 7)`."""
        node, written = locate(self.root, path)
        other, _ = locate(self.root, beside)
        line = f"line {node.line + 1}" if node.source is other.source else f"{node.source.name}:{node.line + 1}"
        return f"{spelled(written)} ({line})" if written else line
