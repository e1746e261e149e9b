"""The program's own log: for people at a terminal, for machines elsewhere, and one line in one piece."""

import io
import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from splitproxy import logs
from splitproxy.children import child_environment
from splitproxy.proxy import access_log

ROOT = Path(__file__).parent.parent


class Stream(io.StringIO):
    """Notes every write."""

    def __init__(self, *, terminal):
        super().__init__()
        self.writes, self.terminal = [], terminal

    def isatty(self):
        return self.terminal

    def write(self, text):
        self.writes.append(text)
        return len(text)


@pytest.fixture
def log(monkeypatch):
    """Return a function that logs as a process does and returns the lines; what was set up before comes back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def write(say, *, terminal=False, chosen=None, least=None):
        stream = Stream(terminal=terminal)
        monkeypatch.setattr("sys.stderr", stream)
        for name, value in ((logs.FORMAT, chosen), (logs.LEVEL, least)):
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, value)
        logs.set_up("worker 3")
        say(logging.getLogger("splitproxy.health"))
        return stream.writes

    yield write
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)


def warn(logger):
    logger.warning("%s is unhealthy", "a:1", extra={"fields": {"endpoint": "a:1", "upstream": "a"}})


def test_machines_get_one_object_a_line(log):
    (text,) = log(warn)
    line = json.loads(text)
    assert text.endswith("}\n")
    assert list(line) == ["time", "level", "process", "logger", "message", "endpoint", "upstream"]
    assert line.pop("time")[-6:] == "+00:00"
    assert line == {
        "level": "warning",
        "process": "worker 3",
        "logger": "splitproxy.health",
        "message": "a:1 is unhealthy",
        "endpoint": "a:1",
        "upstream": "a",
    }


def test_people_get_text(log):
    (text,) = log(warn, terminal=True)
    time, level, message = text.removesuffix("\n").split(" ", 2)
    assert (len(time), level, message) == (len("12:00:00"), "WARNING", "a:1 is unhealthy")


@pytest.mark.parametrize(
    ("terminal", "chosen", "json_lines"),
    [(False, "text", False), (True, "json", True), (False, "auto", True), (True, "auto", False), (False, "odd", True)],
)
def test_the_variable_decides_where_it_says_anything(log, terminal, chosen, json_lines):
    (text,) = log(warn, terminal=terminal, chosen=chosen)
    assert text.startswith("{") == json_lines


@pytest.mark.parametrize(("least", "count"), [(None, 3), ("debug", 4), ("warning", 2), ("error", 1), ("odd", 3)])
def test_what_is_below_the_level_is_left_out(log, least, count):
    def say(logger):
        for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
            logger.log(level, "x")

    assert len(log(say, least=least)) == count
    assert [logs.wanted(level) for level in logs.LEVELS].count(True) == count


@pytest.mark.parametrize("terminal", [False, True])
def test_a_traceback_comes_in_the_same_piece(log, terminal):
    def say(logger):
        try:
            raise ValueError("no\nway")
        except ValueError:
            logger.exception("a defect")

    (text,) = log(say, terminal=terminal)
    assert "ValueError: no" in text
    assert text.count("\n") == 1 or terminal
    if not terminal:
        line = json.loads(text)
        assert line["message"] == "a defect"
        assert line["traceback"].startswith("Traceback")


def test_no_field_takes_the_place_of_what_every_line_has(log):
    (text,) = log(lambda logger: logger.info("said", extra={"fields": {"level": "none", "odd": {1, 2}}}))
    line = json.loads(text)
    assert (line["level"], line["message"], line["odd"]) == ("info", "said", "{1, 2}")


def test_a_message_cannot_forge_a_line(log):
    (text,) = log(lambda logger: logger.info('x"}\n{"level": "error"}'))
    assert text.count("\n") == 1
    assert json.loads(text)["level"] == "info"


def test_every_field_of_the_access_log_is_documented_in_its_order():
    section = (ROOT / "docs" / "logs.md").read_text().partition("## Access log")[2].partition("## Rotation")[0]
    documented = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert documented == [*re.findall(r'"(\w+)":', access_log._JSON), "traceId", "spanId"]


def test_a_variable_that_says_nonsense_is_refused():
    done = subprocess.run(
        [sys.executable, "-m", "splitproxy", "run", "-c", os.devnull],
        env={**child_environment(), logs.LEVEL: "loud"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr == f"error: ${logs.LEVEL} is one of debug, info, warning, error, not 'loud'\n"
