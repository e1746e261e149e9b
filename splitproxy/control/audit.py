"""The audit log: a line for each change that somebody asked for, whoever it was and whatever came of it."""

import json
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

log = logging.getLogger(__name__)


class Audit:
    """Writes lines in the order they come, beside everything else: no full or slow disk holds up a rollback."""

    def __init__(self) -> None:
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="audit")

    def note(self, path: str | None, **entry: Any) -> None:
        """Write `entry`, with the time, to the file `path`, or to the program's log."""
        line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), **entry}
        if path is None:
            log.info("audit: %s", json.dumps(line, ensure_ascii=False), extra={"fields": {"audit": line}})
        else:
            self._writer.submit(_write, path, json.dumps(line, ensure_ascii=False).encode() + b"\n")

    def close(self) -> None:
        """Return when everything is written."""
        self._writer.shutdown()


def _write(path: str, line: bytes) -> None:
    """Append; opened anew for each line, so a file that was rotated away needs no signal."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)
    except OSError as error:
        log.error("the audit log %s takes no line (%s): %s", path, error.strerror, line.decode().strip())
