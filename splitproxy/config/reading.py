"""One YAML file into a tree of nodes: strict, bounded, and going on after an error wherever the text still makes sense.

libyaml's scanner does the reading; building the tree from its events by hand is what makes duplicate keys, nulls, depth
and the growth of aliases visible. A value that is wrong in itself becomes `BROKEN`, so that nothing downstream
complains about it a second time.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NoReturn

import yaml

from splitproxy.config.nodes import BROKEN, Node, Source, spelled
from splitproxy.config.problems import Problem, clipped
from splitproxy.config.scalars import Substituted, UnsetVariable, resolve, substitute

MAX_BYTES: Final = 32 << 20
"""Of one file; ten thousand routes take 2 to 10 MiB."""
_MAX_DEPTH: Final = 64
_MAX_EXPANDED: Final = 250_000
"""Values that aliases may add: far above honest use, far below a bomb."""

# What YAML 1.2 calls printable, less the line breaks that YAML 1.1 knew besides and the byte order mark.
_FORBIDDEN: Final = re.compile(
    "[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)
_STR_TAGS: Final = (None, "!", "tag:yaml.org,2002:str")


class _Stopped(Exception):
    """The rest of the file cannot be read; the reason is among the problems."""


def read_bytes(path: Path) -> bytes | str:
    """Return the bytes of a file, or why it cannot be read."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return "there is no such file"
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return f"cannot be read: {reason}"
    return data if len(data) <= MAX_BYTES else f"is larger than {MAX_BYTES >> 20} MiB"


def decode(name: str, data: bytes) -> Source | Problem:
    """Return the text of a file, which is UTF-8, or the first place where it is not."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return Problem(name, 0, 0, "", "is UTF-16", hint="save it as UTF-8")
    try:
        text = data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8")
        source = Source(name, before)
        line, column = before.count("\n"), len(before) - before.rfind("\n") - 1
        message = f"byte 0x{data[error.start]:02x} is not UTF-8"
        return source.problem(line, column, message, hint="save the file as UTF-8")
    source = Source(name, text)
    found = _FORBIDDEN.search(text)
    if found is None:
        return source
    line, column = text.count("\n", 0, found.start()), found.start() - text.rfind("\n", 0, found.start()) - 1
    message = f"the character U+{ord(found[0]):04X} may not stand in a file"
    return source.problem(line, column, message, hint="take it out, or write its escape in double quotes")


def parse(
    source: Source, environment: Mapping[str, str], used: dict[str, str | None]
) -> tuple[Node | None, list[Problem]]:
    """Return the tree of one file, None when it has none, with what is wrong with it as YAML.

    `used` collects the environment variables that were looked up.
    """
    builder = _Builder(source, environment, used)
    try:
        builder.build()
    except _Stopped:
        return None, builder.problems
    except yaml.MarkedYAMLError as error:
        builder.problems.append(_syntax(source, error))
        return None, builder.problems
    except yaml.YAMLError as error:
        builder.problems.append(Problem(source.name, 0, 0, "", f"is not YAML: {clipped(error)}"))
        return None, builder.problems
    return builder.root, builder.problems


# What libyaml says, what people say, what to do, and whether the beginning of the construct is the place to show.
_WORDS: Final = (
    ("mapping values are not allowed", "a second ': ' where there can be one", "put quotes around the value", False),
    ("cannot start any token", "this character cannot begin a value", "put quotes around the value", False),
    ("found unexpected end of stream", "a quote that is not closed", "", True),
    ("did not find expected ',' or", "a bracket that is not closed, or a comma is missing", "", False),
    ("did not find expected key", "a key was expected here", "check the indentation here and above", False),
    ("could not find expected ':'", "a ':' after a key was expected", "check this line and the ones above", False),
    ("expected '-' indicator", "a '- ' was expected here", "check the indentation of this list", False),
)


def _syntax(source: Source, error: yaml.MarkedYAMLError) -> Problem:
    said = error.problem or ""
    words, hint, at_start = next((entry[1:] for entry in _WORDS if entry[0] in said), (said, "", False))
    mark = error.context_mark if at_start and error.context_mark else error.problem_mark
    line, column = (mark.line, mark.column) if mark else (0, 0)
    before = source.line(line)[: column + 1]
    if "\t" in before:
        hint = "indent with spaces, not with tabs"
    elif before.endswith("${"):
        hint = 'within { } and [ ] a variable needs quotes: "${NAME}"'
    elif error.context_mark and "bracket" in words:
        hint = f"the bracket stands on line {error.context_mark.line + 1}"
    return source.problem(line, column, f"not YAML: {words}", hint=hint)


class _Frame:
    """A mapping or a list that is still open."""

    __slots__ = ("anchor", "key", "mapping", "node", "position", "sequence")

    def __init__(self, node: Node, anchor: str | None, *, is_mapping: bool) -> None:
        self.node = node
        self.anchor = anchor
        self.mapping: dict[str, Node] | None = {} if is_mapping else None
        self.sequence: list[Node] = []
        self.position = 0
        self.key: _Key | None = None
        node.value = {} if is_mapping else []
        node.children = self.sequence if self.mapping is None else self.mapping


class _Key:
    """A key whose value comes next; `text` is None when the value must be thrown away."""

    __slots__ = ("place", "text")

    def __init__(self, text: str | None, place: tuple[int, int]) -> None:
        self.text = text
        self.place = place


class _Builder:
    def __init__(self, source: Source, environment: Mapping[str, str], used: dict[str, str | None]) -> None:
        self.source = source
        self.problems: list[Problem] = []
        self.root: Node | None = None
        self._environment = environment
        self._used = used
        self._open: list[_Frame] = []
        self._anchors: dict[str, Node] = {}
        self._expanded = 0
        self._documents = 0

    def build(self) -> None:
        """Read all events; raises yaml's errors and `_Stopped`."""
        next_event = yaml.CSafeLoader(self.source.text).get_event
        take = {
            yaml.ScalarEvent: self._scalar,
            yaml.MappingStartEvent: self._start,
            yaml.SequenceStartEvent: self._start,
            yaml.MappingEndEvent: self._end,
            yaml.SequenceEndEvent: self._end,
            yaml.AliasEvent: self._alias,
            yaml.DocumentStartEvent: self._document,
        }
        while (event := next_event()) is not None:
            step = take.get(type(event))
            if step is not None:
                step(event)

    def _document(self, event: Any) -> None:
        self._documents += 1
        if self._documents > 1:
            self._stop(event, "a second document in one file", "a folder may hold many files, a file one document")

    def _scalar(self, event: Any) -> None:
        frame = self._open[-1] if self._open else None
        if frame is not None and frame.mapping is not None and frame.key is None:
            frame.key = self._key(frame, event)
            return
        mark, text = event.start_mark, event.value
        node = Node(text, self.source, mark.line, mark.column)
        node.text = text
        if event.tag not in _STR_TAGS:
            node.value = self._broken(event, f"the tag {clipped(event.tag)} has no meaning here", "leave the tag out")
        elif "${" in text:
            node.value = self._substituted(event)
        elif event.implicit[0]:
            node.value = resolve(text)
            if node.value is None:
                what = "null is not a value here" if text else "the value is missing"
                node.value = self._broken(event, what, "give a value, or leave the key out to get its default")
        self._add(node, event.anchor)

    def _substituted(self, event: Any) -> Any:
        try:
            return Substituted(substitute(event.value, self._environment, self._used))
        except UnsetVariable as error:
            return self._broken(event, *error.args)

    def _key(self, frame: _Frame, event: Any) -> _Key:
        assert frame.mapping is not None
        mark, text = event.start_mark, event.value
        place = (mark.line, mark.column)
        if text not in frame.mapping and not (text == "<<" and event.implicit[0]):
            return _Key(text, place)
        frame.key = _Key(text, place)  # for the path of the problem
        if text in frame.mapping:
            first = frame.mapping[text].key
            line = first[0] + 1 if first else 0
            self._broken(event, f"the key {clipped(text)} stands twice in this mapping; first on line {line}")
        else:
            self._broken(event, "merge keys ('<<') are not part of YAML 1.2", "write the keys out, or use an alias")
        return _Key(None, place)

    def _start(self, event: Any) -> None:
        mark = event.start_mark
        if len(self._open) >= _MAX_DEPTH:
            self._stop(event, f"nested more than {_MAX_DEPTH} deep")
        frame = self._open[-1] if self._open else None
        if frame is not None and frame.mapping is not None and frame.key is None:
            self._stop(event, "a key must be plain text", "a '{' or '[' within text needs quotes around the text")
        if event.tag is not None:
            self._broken(event, f"the tag {clipped(event.tag)} has no meaning here", "leave the tag out")
        node = Node(None, self.source, mark.line, mark.column)
        self._open.append(_Frame(node, event.anchor, is_mapping=isinstance(event, yaml.MappingStartEvent)))

    def _end(self, event: Any) -> None:
        frame = self._open.pop()
        self._add(frame.node, frame.anchor)

    def _alias(self, event: Any) -> None:
        frame = self._open[-1] if self._open else None
        target = self._anchors.get(event.anchor)
        if frame is not None and frame.mapping is not None and frame.key is None:
            self._stop(event, "a key must be plain text, not an alias", "put quotes around a text that begins with '*'")
        if target is None:
            hint = "put quotes around a text that begins with '*'"
            node = Node(None, self.source, event.start_mark.line, event.start_mark.column)
            node.value = self._broken(event, f"the alias *{event.anchor} has no anchor before it", hint)
            self._add(node, None)
            return
        self._expanded += target.size
        if self._expanded > _MAX_EXPANDED:
            self._stop(event, f"aliases add more than {_MAX_EXPANDED:,} values to this file")
        self._add(target.copy(), None)

    def _add(self, node: Node, anchor: str | None) -> None:
        if anchor is not None:
            self._anchors[anchor] = node
        if not self._open:
            self.root = node
            return
        frame = self._open[-1]
        if frame.mapping is None:
            node.index = frame.position
            frame.position += 1
            if node.value is BROKEN:
                return
            frame.sequence.append(node)
            frame.node.value.append(node.value)
        elif frame.key is not None:
            text, node.key = frame.key.text, frame.key.place
            frame.key = None
            if text is None:
                return
            frame.mapping[text] = node
            if node.value is not BROKEN:
                frame.node.value[text] = node.value
        frame.node.size += node.size

    def _broken(self, event: Any, message: str, hint: str = "") -> object:
        mark = event.start_mark
        self.problems.append(self.source.problem(mark.line, mark.column, message, path=self._path(), hint=hint))
        return BROKEN

    def _stop(self, event: Any, message: str, hint: str = "") -> NoReturn:
        self._broken(event, message, hint)
        raise _Stopped

    def _path(self) -> str:
        path: list[str | int] = []
        for frame in self._open:
            if frame.mapping is None:
                path.append(frame.position)
            elif frame.key is not None and frame.key.text is not None:
                path.append(frame.key.text)
        return spelled(path)
