"""What tests ask the kernel about running processes."""

import contextlib
from pathlib import Path


def children(pid, module):
    """Return the processes that `pid` started as `python -m module`; one that ends meanwhile is left out."""
    found = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if module in Path(f"/proc/{child}/cmdline").read_text().split("\0"):
                    found.append(int(child))
    return found
