"""What takes longer than a second says so, on a terminal alone."""

import io
import sys
import time

import pytest

from splitproxy.cli import progress


class Stream(io.StringIO):
    """Standard error that is, or is not, a terminal."""

    def __init__(self, terminal):
        super().__init__()
        self.terminal = terminal

    def isatty(self):
        return self.terminal


@pytest.mark.parametrize(
    ("terminal", "quiet", "lasting", "said"),
    [(True, 0.05, 0.6, True), (True, 5.0, 0.05, False), (False, 0.0, 0.1, False)],
)
def test_it_is_said_after_a_while_and_taken_back(monkeypatch, terminal, quiet, lasting, said):
    monkeypatch.setattr(progress, "_QUIET_SECONDS", quiet)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", stream := Stream(terminal))
    with progress.working("Reading [a] file") as work:
        end = time.monotonic() + lasting if not said else time.monotonic() + 20
        while time.monotonic() < end and not (said and "Reading [a] file, " in stream.getvalue()):
            time.sleep(0.01)
        work.text = "later"
    assert ("Reading [a] file, " in stream.getvalue()) is said
    if said:
        assert stream.getvalue().endswith("\x1b[?25h") or "\x1b[2K" in stream.getvalue(), "the line is cleared"


def test_an_error_goes_through(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Stream(terminal=True))
    with pytest.raises(ValueError, match="no"), progress.working("Reading"):
        raise ValueError("no")
