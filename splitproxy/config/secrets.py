"""Values kept out of the configuration's files, and kept out of what is shown of it."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path as FilePath
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from splitproxy.config import walking
from splitproxy.config.fields import HeaderValue
from splitproxy.config.nodes import Findings, Node, Path, select
from splitproxy.config.problems import printable
from splitproxy.config.reading import read_bytes
from splitproxy.config.root import Config
from splitproxy.config.scalars import Substituted

REDACTED: Final = "***"
_HOOKS: Final = (("rollouts", "*", "analysis", "webhooks", "*"), ("rollouts", "*", "promotion", "webhook"))
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
    *((*hook, "url") for hook in _HOOKS),
    *((*hook, "metadata", "*") for hook in _HOOKS),
)
_ALWAYS: Final = (
    *(("alertProviders", "*", key) for key in ("address", "token", "proxy")),
    ("admin", "tokens", "*", "value"),
    *(("metricTemplates", "*", "provider", key) for key in ("token", "password")),
    ("metricTemplates", "*", "provider", "headers", "*"),
    *(place for hook in _HOOKS for place in ((*hook, "secret"), (*hook, "headers", "*"))),
    ("listeners", "*", "tls", "certificates", "*", "pem"),
    ("upstreams", "*", "tls", "pem"),
    ("tracing", "headers", "*"),
)
"""Places in the plain form whose values are never shown."""
_COHORTS: Final = tuple(
    (*place, kind, "*", comparison)
    for place in (
        ("rollouts", "*", "analysis", "match", "*"),
        ("rollouts", "*", "analysis", "rings", "*", "match", "*"),
    )
    for kind in ("headers", "cookies", "queryParams")
    for comparison in ("exact", "prefix", "suffix", "regex")
)
_VALUE: Final[TypeAdapter[str]] = TypeAdapter(HeaderValue)


class Secrets:
    """The values of `{file: …}`, by their path."""

    def __init__(self) -> None:
        self.values: dict[Path, str] = {}
        self.files: dict[FilePath, bytes] = {}

    def read(self, config: Config, folder: FilePath, findings: Findings) -> None:
        """Read every file that a value is kept in; paths are seen from `folder`."""
        for path, reference in walking.hidden_files(config):
            self._read(path, (*path, "file"), folder / reference.file, findings)

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

    That is what filters write, what matches, overrides and cohorts compare with, and what webhooks are given, wherever
    it is from a file or the environment; and always what lets somebody in: keys, tokens, passwords, where alerts go.
    """
    public: Any = dict(plain)
    for path in secrets.values:
        if public[path[0]] is not None:  # the environment may have put a part out of use
            _replace(public, path, REDACTED)
    for pattern in _PLACES:
        for path, node in select(root, pattern):
            if isinstance(node.value, Substituted):
                _replace(public, path, REDACTED)
    for pattern in _ALWAYS:
        for path in list(_values(public, pattern)):
            _replace(public, path, REDACTED)
    _hide_cohorts(public, root)
    return dict(public)


def _hide_cohorts(public: Any, root: Node) -> None:
    """Hide what cohorts compare with, in a rollout where any of it is from the environment."""
    hidden = {
        path[1] for pattern in _COHORTS for path, node in select(root, pattern) if isinstance(node.value, Substituted)
    }
    for index in hidden:
        rollout = public["rollouts"][index]
        owned = [
            ("routes", place, "rules", number, "rollout")
            for place, route in enumerate(public["routes"])
            for number, rule in enumerate(route["rules"])
            if rule["rollout"] is not None and rule["rollout"]["name"] == rollout["name"]
        ]
        for kind in ("headers", "cookies", "queryParams"):
            patterns = [
                ("rollouts", index, "analysis", "match", "*", kind, "*", "value"),
                ("rollouts", index, "analysis", "cohorts", "*", "*", kind, "*", "value"),
                *((*rule, "cohorts", "*", "*", kind, "*", "value") for rule in owned),
            ]
            for path in [path for pattern in patterns for path in _values(public, pattern)]:
                _replace(public, path, REDACTED)


def _values(tree: Any, pattern: Path) -> Iterator[Path]:
    """Yield the paths of all values in plain data that a path leads to, `*` standing for every key and index."""
    found: list[tuple[Path, Any]] = [((), tree)]
    for label in pattern:
        found = [((*path, key), inner) for path, value in found for key, inner in _parts(value) if label in {"*", key}]
    yield from (path for path, value in found if value)


def _parts(value: Any) -> Iterable[tuple[str | int, Any]]:
    if isinstance(value, dict):
        return value.items()
    return enumerate(value) if isinstance(value, list) else ()


def _replace(tree: Any, path: Path, value: str) -> None:
    """Put `value` at `path`, copying every container on the way."""
    for label in path[:-1]:
        tree[label] = tree[label].copy()
        tree = tree[label]
    tree[path[-1]] = value
