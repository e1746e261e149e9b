"""Values kept out of the configuration's files, and kept out of what is shown of it."""

from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from splitproxy.config import walking
from splitproxy.config.fields import HeaderValue
from splitproxy.config.filters import FileReference
from splitproxy.config.nodes import Findings, Node, Path, select
from splitproxy.config.problems import printable
from splitproxy.config.reading import read_bytes
from splitproxy.config.root import Config
from splitproxy.config.scalars import Substituted

REDACTED: Final = "***"
_RULE: Final = ("routes", "*", "rules", "*")
_FILTERS: Final = ((*_RULE, "filters", "*"), (*_RULE, "backendRefs", "*", "filters", "*"))
_PLACES: Final = (
    *(
        (*filters, modifier, action, "*", "value")
        for filters in _FILTERS
        for modifier in ("requestHeaderModifier", "responseHeaderModifier")
        for action in ("set", "add")
    ),
    *((*_RULE, "matches", "*", kind, "*", "value") for kind in ("headers", "cookies", "queryParams")),
    (*_RULE, "split", "overrides", "*", "value"),
)
_VALUE: Final[TypeAdapter[str]] = TypeAdapter(HeaderValue)


class Secrets:
    """The values of `{file: …}`, by the path of the header they belong to."""

    def __init__(self) -> None:
        self.values: dict[Path, str] = {}
        self.files: dict[FilePath, bytes] = {}

    def read(self, config: Config, folder: FilePath, findings: Findings) -> None:
        """Read every file that a header's value refers to; paths are seen from `folder`."""
        for path, header in walking.headers(config):
            if isinstance(header.value, FileReference):
                place = (*path, "value", "file")
                self._read(path, place, folder / header.value.file, findings)

    def _read(self, path: Path, place: Path, file: FilePath, findings: Findings) -> None:
        name = f"'{printable(str(file), '?')}'"
        if file not in self.files:
            data = read_bytes(file)
            if isinstance(data, str):
                findings.add(place, f"{name}: {data}")
                return
            self.files[file] = data
        text = self.files[file].decode("utf-8", "replace").removesuffix("\n").removesuffix("\r")
        try:
            self.values[path] = _VALUE.validate_python(text)
        except ValidationError as error:
            findings.add(place, f"in {name}: {error.errors()[0]['msg']}")


def redacted(plain: Mapping[str, Any], secrets: Secrets, root: Node) -> dict[str, Any]:
    """Return `plain` with every value that may be a secret hidden; what is unchanged is shared.

    That is what filters write, and what matches and overrides compare with, wherever it is from a file or the
    environment.
    """
    public: Any = dict(plain)
    for path in secrets.values:
        _replace(public, (*path, "value"), REDACTED)
    for pattern in _PLACES:
        for path, node in select(root, pattern):
            if isinstance(node.value, Substituted):
                _replace(public, path, REDACTED)
    return dict(public)


def _replace(tree: Any, path: Path, value: str) -> None:
    """Put `value` at `path`, copying every container on the way."""
    for label in path[:-1]:
        tree[label] = tree[label].copy()
        tree = tree[label]
    tree[path[-1]] = value
