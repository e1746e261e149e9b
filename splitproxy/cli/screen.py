"""A terminal that a picture fills, drawn anew again and again, and the keys that are pressed meanwhile."""

import contextlib
import os
import select
import sys
import termios
import tty
from types import TracebackType
from typing import Any, Final

from rich.console import Console, RenderableType
from rich.live import Live

_KEY_BYTES: Final = 16
"""Of one press: arrows and the like send several, which belong to no letter."""


class Screen:
    """A context manager: the terminal is as before when it is left, whatever happened."""

    def __init__(self) -> None:
        for name in ("COLUMNS", "LINES"):  # of a moment that is over: the terminal may be made another size
            os.environ.pop(name, None)
        self._console = Console()
        self._live = Live(console=self._console, auto_refresh=False, screen=True, redirect_stderr=False)
        self._keyboard = sys.stdin.fileno() if sys.stdin.isatty() else None
        self._before: list[Any] | None = None

    def __enter__(self) -> "Screen":
        if self._keyboard is not None:
            self._before = termios.tcgetattr(self._keyboard)
            tty.setcbreak(self._keyboard)
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()
        if self._keyboard is not None and self._before is not None:
            with contextlib.suppress(termios.error):  # the terminal may be gone
                termios.tcsetattr(self._keyboard, termios.TCSADRAIN, self._before)

    @property
    def width(self) -> int:
        """Columns that there are now."""
        return self._console.size.width

    @property
    def height(self) -> int:
        """Lines that there are now."""
        return self._console.size.height

    def show(self, picture: RenderableType) -> None:
        """Draw `picture` in place of the one before."""
        self._live.update(picture, refresh=True)

    def key(self, seconds: float) -> str:
        """Return the letter that is pressed within `seconds`; nothing when none is, or what is pressed is no letter.

        Raises KeyboardInterrupt when there is nobody at the keyboard any more.
        """
        if self._keyboard is None:
            select.select([], [], [], seconds)
            return ""
        if not select.select([self._keyboard], [], [], seconds)[0]:
            return ""
        try:
            pressed = os.read(self._keyboard, _KEY_BYTES)
        except OSError:
            pressed = b""
        if not pressed:
            raise KeyboardInterrupt
        return pressed.decode("ascii", "ignore") if len(pressed) == 1 else ""


def filled() -> bool:
    """Say whether standard output is a terminal that a picture can fill."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "")
