"""Has the configuration changed on disk? Asked once a second, answered by content.

Paths are resolved at every look, so an editor's rename, a write in place and the swap of a ConfigMap's `..data` link
are all the same to it; inotify is not, on many network and container file systems. A change counts once two looks
agree: a YAML file that is half written often parses, with routes missing.
"""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_SUFFIXES: Final = (".yaml", ".yml")
"""Of the files of a folder that make up a configuration, as the loader has it."""

Look = dict[str, str]
"""File -> digest of its content, or why it cannot be read."""


class Watch:
    """Remembers what was loaded and what was seen last."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._sources: list[str] = []
        self._digests: dict[str, tuple[tuple[object, ...], str]] = {}
        """File -> what `stat` said when it was read, and its digest."""
        self._loaded: Look = {}
        self._last: Look = {}

    def follow(self, sources: Iterable[str]) -> None:
        """Watch these files beside the configuration's own path: included secrets and the like."""
        self._sources = list(sources)
        seen = self._look()
        # A file that is new here was read a moment ago. One that was known keeps what it was before the load: a change
        # in between is noticed.
        self._loaded = {file: self._loaded.get(file, digest) for file, digest in seen.items()}

    def look(self) -> None:
        """Take what is there now as loaded."""
        self._loaded = self._last = self._look()

    def changed(self) -> bool:
        """Look again and say whether something else than what was loaded has been there twice."""
        before, self._last = self._last, self._look()
        return self._last != self._loaded and self._last == before

    def _look(self) -> Look:
        return {file: self._digest(file) for file in self._files()}

    def _files(self) -> list[str]:
        files = set(self._sources)
        if self._path.is_dir():
            found = (file for file in self._path.iterdir() if file.suffix in _SUFFIXES)
            files.update(str(file) for file in found if not file.name.startswith("."))
        else:
            files.add(str(self._path))
        return sorted(files)

    def _digest(self, file: str) -> str:
        try:
            real = os.path.realpath(file)
            facts = os.stat(real)
            identity = (real, facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
            known = self._digests.get(file)
            if known and known[0] == identity:
                return known[1]
            digest = hashlib.sha256(Path(real).read_bytes()).hexdigest()
        except OSError as error:
            return f"unreadable: {error.strerror}"
        self._digests[file] = (identity, digest)
        return digest
