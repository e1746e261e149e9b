"""The program's own log, on standard error: text for people at a terminal, one JSON object a line for machines.

`$SPLITPROXY_LOG_FORMAT` (auto, text, json) and `$SPLITPROXY_LOG_LEVEL` (debug, info, warning, error) say what is
written and how, so that every process of the program follows them from its first line on; `splitproxy run` sets them.
"""

import json
import logging
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

FORMAT: Final = "SPLITPROXY_LOG_FORMAT"
LEVEL: Final = "SPLITPROXY_LOG_LEVEL"
FORMATS: Final = ("auto", "text", "json")
LEVELS: Final = ("debug", "info", "warning", "error")


def as_text() -> bool:
    """Return whether lines are for people."""
    chosen = os.environ.get(FORMAT, "auto")
    return chosen == "text" or (chosen != "json" and sys.stderr.isatty())


def wanted(level: str) -> bool:
    """Return whether lines of this level are written."""
    return _number(level) >= _number(os.environ.get(LEVEL, "info"))


def line(at: datetime, level: str, process: str, logger: str, message: str, fields: Mapping[str, Any]) -> str:
    """Return one line, without its end; `fields` are for machines, who would else have to take the message apart."""
    if as_text():
        return f"{at.astimezone():%H:%M:%S} {level.upper()} {message}"
    stamp = at.isoformat(timespec="milliseconds")
    whole = {**fields, "time": stamp, "level": level, "process": process, "logger": logger, "message": message}
    order = ("time", "level", "process", "logger", "message", *fields)
    return json.dumps({key: whole[key] for key in order}, ensure_ascii=False, default=str)


def write(text: str) -> None:
    """Write one line in one piece: all processes share the stream."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def set_up(process: str) -> None:
    """Have what this process logs written as lines of `process`. `extra={"fields": {…}}` adds fields to one."""
    logging.basicConfig(level=_number(os.environ.get(LEVEL, "info")), handlers=[_Lines(process)], force=True)
    logging.captureWarnings(capture=True)


def _number(level: str) -> int:
    """Return a level as `logging` has it; what is not known is as good as info."""
    number = logging.getLevelNamesMapping().get(level.upper())
    return logging.INFO if number is None else number


class _Lines(logging.Handler):
    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process
        self._tracebacks = logging.Formatter()

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        try:
            write(self.format(record))
        except Exception:
            self.handleError(record)

    def format(self, record: logging.LogRecord) -> str:
        """Return its line; at a terminal a traceback follows in lines of its own."""
        at = datetime.fromtimestamp(record.created, UTC)
        fields = dict(getattr(record, "fields", {}))
        message = record.getMessage()
        if record.exc_info:
            traceback = self._tracebacks.formatException(record.exc_info)
            fields["traceback"] = traceback
            if as_text():
                message += f"\n{traceback}"
        return line(at, record.levelname.lower(), self._process, record.name, message, fields)
