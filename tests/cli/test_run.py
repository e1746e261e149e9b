"""What `splitproxy run` says: whole lines, whoever else writes to the same pipe."""

import io
import json

import pytest

from splitproxy.cli import run
from splitproxy.demo import proxy


class Pipe(io.StringIO):
    """Notes every write, as one that is not buffered passes it on."""

    def __init__(self):
        super().__init__()
        self.writes = []

    def write(self, text):
        self.writes.append(text)
        return len(text)


@pytest.mark.parametrize(
    ("stream", "say"), [("stderr", lambda: run.say("info", "ready")), ("stdout", lambda: proxy._tell("said", "ready"))]
)
def test_a_line_is_written_in_one_piece(monkeypatch, stream, say):
    pipe = Pipe()
    monkeypatch.setattr(f"sys.{stream}", pipe)
    say()
    (line,) = pipe.writes
    assert line.endswith("}\n")
    assert "ready" in json.loads(line).values()
