"""Whether files at a place are kept, as the kernel tells by what is mounted there."""

import re
from pathlib import Path
from typing import Final, NamedTuple

_TABLE: Final = Path("/proc/self/mountinfo")
_OCTAL: Final = re.compile(r"\\([0-7]{3})")
_IN_MEMORY: Final = frozenset({"tmpfs", "ramfs"})
_LAYERS: Final = frozenset({"overlay", "aufs"})
"""What the root of a container is mounted as: its image, and above it a layer that goes when it does."""
_EMPTY_DIR: Final = "/volumes/kubernetes.io~empty-dir/"


class Mount(NamedTuple):
    """One line of the table (proc(5))."""

    root: str
    """Which folder of the file system is seen."""
    point: str
    """Where it is seen."""
    kind: str
    """The file system's type."""


def loss(path: Path, table: Path = _TABLE) -> str | None:
    """Return when a file at `path`, which need not exist, is lost; None: it is kept, or nothing is known.

    What is known is said for sure: a file system in memory, a container's own layer, Kubernetes' emptyDir. Other places
    may be as short-lived.
    """
    try:
        lines = table.read_text().splitlines()
    except OSError:
        return None
    mount = covering(path.resolve(), [parsed(line) for line in lines])
    if mount is None:
        return None
    if mount.kind in _IN_MEMORY:
        return f"it is in memory ({mount.point} is a {mount.kind}): the next start of the machine or pod loses it"
    if _EMPTY_DIR in f"{mount.root}/":
        return f"it is in an emptyDir ({mount.point}): the next pod begins without it"
    if mount.kind in _LAYERS:
        return f"it is in the container's own layer ({mount.kind} at {mount.point}): the next one begins without it"
    return None


def covering(path: Path, mounts: list[Mount]) -> Mount | None:
    """Return the mount that `path` is on: the one deepest in the tree, of several at one place the last."""
    above = {str(folder) for folder in (path, *path.parents)}
    found = [mount for mount in reversed(mounts) if mount.point in above]
    return max(found, key=lambda mount: len(mount.point), default=None)


def parsed(line: str) -> Mount:
    """Return what a line of the table says. Its fifth field is the place; the type stands behind a lone hyphen."""
    front, _, back = line.partition(" - ")
    root, point = (_OCTAL.sub(lambda found: chr(int(found[1], 8)), text) for text in front.split(" ")[3:5])
    return Mount(root, point, back.split(" ", 1)[0])
