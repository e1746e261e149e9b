"""From a path to a configuration, or to every reason why there is none."""

import gc
import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from splitproxy.config.access import check_admin
from splitproxy.config.advice import advise
from splitproxy.config.certificates import Certificates
from splitproxy.config.checks import check
from splitproxy.config.merging import merge
from splitproxy.config.nodes import Findings, Node, Source
from splitproxy.config.plain import plain
from splitproxy.config.problems import Problem
from splitproxy.config.reading import decode, parse, read_bytes
from splitproxy.config.references import check_names
from splitproxy.config.rollout_advice import advise_rollouts
from splitproxy.config.rollout_checks import check_rollouts
from splitproxy.config.root import Config
from splitproxy.config.secrets import Secrets, redacted
from splitproxy.config.tracing import advise_tracing
from splitproxy.config.translation import shape
from splitproxy.errors import ConfigError

_SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration that is fit to serve."""

    config: Config
    """The specs; values kept in files of their own are still references."""
    plain: dict[str, Any]
    """Plain data, every default filled in; holds secrets."""
    public: dict[str, Any]
    """The same with secrets hidden, for people."""
    warnings: list[Problem]
    checksum: str
    """SHA-256 in hex over all files read and all environment values used."""
    sources: tuple[Path, ...]
    """Every file read, those that values were taken from included."""


def load(path: Path, env: Mapping[str, str]) -> Loaded:
    """Read the file or folder at `path`; `env` replaces `${…}`, and its STATE_DIRECTORY says where state is kept.

    OpenTelemetry's variables in it may say what `tracing` leaves out. Raises `ConfigError` with all problems.
    """
    collecting = gc.isenabled()
    gc.disable()  # ten thousand routes make a million objects, none of them garbage: collecting would double the time
    try:
        return _load(path, env)
    finally:
        if collecting:
            gc.enable()


def _load(path: Path, env: Mapping[str, str]) -> Loaded:
    reading = _Reading(path, env)
    root = reading.read()
    if root is None:
        raise ConfigError(_ordered(reading.problems, reading.files))
    findings = Findings(root)
    check_names(findings, complete=not reading.incomplete)
    config = shape(findings)
    whole = not findings.problems and not reading.problems
    check(config, findings, whole=whole)
    check_rollouts(config, findings, whole=whole)
    secrets = Secrets()
    secrets.read(config, reading.folder, findings)
    check_admin(config.admin, secrets.values, findings)
    certificates = Certificates()
    certificates.read(config, reading.folder, findings)
    problems = reading.problems + findings.problems
    if problems:
        raise ConfigError(_ordered(problems, reading.files))
    advise(config, findings)
    advise_rollouts(config, findings)
    advise_tracing(config.tracing, env, findings)
    certificates.advise(findings)
    complete = plain(config, secrets.values, env)
    certificates.fill(complete)
    kept = {**secrets.files, **certificates.files}
    return Loaded(
        config,
        complete,
        redacted(complete, secrets, root),
        _ordered(findings.problems, reading.files),
        _checksum({**reading.files, **kept}, reading.used),
        (*reading.files, *(file for file in kept if file not in reading.files)),
    )


class _Reading:
    """All files of a configuration, read as far as they can be."""

    def __init__(self, path: Path, environment: Mapping[str, str]) -> None:
        self.folder = path.parent
        """Where secrets are looked for."""
        self.files: dict[Path, bytes] = {}
        self.used: dict[str, str | None] = {}
        self.problems: list[Problem] = []
        self.incomplete = False
        """Whether some file could not be read to its end, so that names may be missing."""
        self._path = path
        self._environment = environment

    def read(self) -> Node | None:
        """Return the tree of all files, None when there is none."""
        roots = [root for file in self._found(self._path) if (root := self._file(file)) is not None]
        if not roots:
            return None
        root, problems = merge(roots)
        self.problems += problems
        return root

    def _found(self, path: Path) -> list[Path]:
        try:
            if not path.is_dir():
                return [path]
            self.folder = path
            files = [file for file in path.iterdir() if file.suffix in _SUFFIXES and not file.name.startswith(".")]
        except OSError as error:
            self._unread(Problem(str(path), 0, 0, "", f"cannot be read: {error.strerror}"))
            return []
        if not files:
            self.problems.append(Problem(str(path), 0, 0, "", "the folder holds no .yaml or .yml file"))
        return sorted(files)

    def _file(self, file: Path) -> Node | None:
        data = read_bytes(file)
        if isinstance(data, str):
            self._unread(Problem(str(file), 0, 0, "", data))
            return None
        self.files[file] = data
        source = decode(str(file), data)
        if isinstance(source, Problem):
            self._unread(source)
            return None
        root, problems = parse(source, self._environment, self.used)
        self.problems += problems
        if root is None:
            self.incomplete = True
            if not problems:
                hint = "give an unused file another ending"
                self._unread(Problem(str(file), 0, 0, "", "the file is empty", hint))
            return None
        return self._mapping(root, source)

    def _mapping(self, root: Node, source: Source) -> Node | None:
        if isinstance(root.children, dict):
            return root
        self._unread(source.problem(root.line, root.column, "a file is a mapping of keys, such as 'listeners:'"))
        return None

    def _unread(self, problem: Problem) -> None:
        self.incomplete = True
        self.problems.append(problem)


def _ordered(problems: list[Problem], files: Mapping[Path, bytes]) -> list[Problem]:
    order = {str(file): index for index, file in enumerate(files)}
    return sorted(set(problems), key=lambda found: (order.get(found.file, -1), found.line, found.column, found.message))


def _checksum(files: Mapping[Path, bytes], used: Mapping[str, str | None]) -> str:
    digest = sha256()
    for file, data in files.items():
        digest.update(b"%b\0%d\0%b" % (file.name.encode("utf-8", "surrogateescape"), len(data), data))
    digest.update(json.dumps(sorted(used.items())).encode())
    return digest.hexdigest()
