"""That something goes on: what takes longer than a second says so on standard error, if that is a terminal."""

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from typing import Final

_QUIET_SECONDS: Final = 1.0
_STEP_SECONDS: Final = 0.2


class Work:
    """What is being done; `text` may be changed meanwhile."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.done = threading.Event()


@contextlib.contextmanager
def working(text: str) -> Iterator[Work]:
    """Say `text`, and for how long already, while the block runs; nothing in its first second, nor elsewhere."""
    work = Work(text)
    if not sys.stderr.isatty():
        yield work
        return
    teller = threading.Thread(target=_tell, args=(work,), daemon=True)
    teller.start()
    try:
        yield work
    finally:
        work.done.set()
        teller.join()


def _tell(work: Work) -> None:
    began = time.monotonic()
    if work.done.wait(_QUIET_SECONDS):
        return
    from rich.console import Console  # takes longer to load than most of what it would tell of
    from rich.text import Text

    console = Console(stderr=True, highlight=False)
    if not console.is_terminal or console.is_dumb_terminal:
        return

    def told() -> Text:
        return Text(f"{work.text[: max(console.width - 12, 10)]}, {time.monotonic() - began:.0f} s")

    with console.status(told()) as status:
        while not work.done.wait(_STEP_SECONDS):
            status.update(told())
