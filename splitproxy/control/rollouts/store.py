"""Where rollouts survive a restart: SQLite, one writer, every decision in one transaction with its history.

A decision that is not on disk must not be lost on the way: what could not be written stays with its rollout and goes
with the next attempt. Saving never holds up the event loop, and several rollouts' decisions share one fsync.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import sqlite3
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final, NamedTuple

from splitproxy.errors import SplitProxyError

SCHEMA: Final = 1
"""What this program writes; `PRAGMA user_version` of the file."""
_MIGRATIONS: Final = (
    """
    CREATE TABLE rollouts (
        name TEXT PRIMARY KEY, state TEXT NOT NULL, plan TEXT NOT NULL, clock REAL NOT NULL, evidence TEXT NOT NULL,
        started_at TEXT, phase_at TEXT NOT NULL, saved_at TEXT NOT NULL
    ) STRICT;
    CREATE TABLE history (
        id INTEGER PRIMARY KEY, rollout TEXT NOT NULL, attempt INTEGER NOT NULL, at TEXT NOT NULL, kind TEXT NOT NULL,
        warning INTEGER NOT NULL, text TEXT NOT NULL, data TEXT NOT NULL
    ) STRICT;
    CREATE INDEX history_of_rollout ON history (rollout, id);
    """,
)
"""From each version to the next."""
KEPT: Final = 10_000
"""The newest history entries that are kept of each rollout."""
_PRUNING: Final = 100
"""Entries of a rollout between looks at how many there are."""
_BUSY_SECONDS: Final = 2.0
_CLAIM_SECONDS: Final = 5.0
"""How long is waited for another process to let go of the file: one that was replaced may take a moment to end."""


class StoreError(SplitProxyError):
    """The state cannot be read or written; says where and why."""


class NewerStore(StoreError):
    """The file was written by a later version of this program, which alone knows what it means."""


class StoreTaken(StoreError):
    """Another process runs the rollouts of the file: two would undo each other's decisions."""


class Row(NamedTuple):
    """One rollout as saved."""

    name: str
    state: dict[str, Any]
    """As `to_plain` of the machine makes it."""
    plan: str
    """The plain rollout in force, as JSON."""
    clock: float
    """The rollout's own clock."""
    evidence: dict[str, Any]
    """Where measuring stands: the counters that the last check consumed, the last verdicts."""
    started_at: str | None
    """When the run began, ISO; None: there was none."""
    phase_at: str
    """Since when the phase, ISO."""
    saved_at: str = ""


class Entry(NamedTuple):
    """One line of a rollout's history."""

    id: int
    """Grows over all rollouts."""
    rollout: str
    attempt: int
    at: str
    """ISO, UTC."""
    kind: str
    warning: bool
    text: str
    data: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        fields = self._asdict()
        del fields["rollout"]
        return fields


_Work = tuple[Callable[[sqlite3.Connection], None], "Future[None]"]


class Store:
    """A state file. Writing goes through one thread; reading opens the file anew."""

    def __init__(self, path: Path) -> None:
        """Name the file; nothing is read or written yet."""
        self.path = path
        self.alarm = ""
        """Why the last write failed; empty: it did not."""
        self._connection: sqlite3.Connection | None = None
        self._claim: int | None = None
        """The descriptor by which this process has the file for itself."""
        self._queue: SimpleQueue[_Work | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._ids = 0
        self._added: Counter[str] = Counter()
        """Entries of each rollout that were written since those too many were removed."""
        self._shift = 0
        """What is added to the numbers of entries: the file was opened late and has entries of an earlier life."""

    # --- opening -----------------------------------------------------------------------------------------------------
    def load(self) -> dict[str, Row]:
        """Open the file, bring it up to date, start the writer and return every rollout; for a thread.

        Raises NewerStore and StoreTaken, after which nothing may be written, and StoreError, after which writing is
        tried each time.
        """
        try:
            connection, self._ids = self._open()
            rows = self._read_all(connection)
        except (NewerStore, StoreTaken):
            self.release()
            raise
        except StoreError as error:
            self.alarm = str(error)
            self._start()
            raise
        self._connection = connection
        self._start()
        return rows

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._write, name="store", daemon=True)
        self._thread.start()

    def _open(self) -> tuple[sqlite3.Connection, int]:
        """Open the file and return the connection and the number of the last history entry."""
        connection = None
        try:
            self._take()
            # The writer's thread alone uses it, once `load` has returned.
            connection = sqlite3.connect(
                self.path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            _prepare(connection, self.path)
            return connection, connection.execute("SELECT max(id) FROM history").fetchone()[0] or 0
        except (sqlite3.Error, OSError) as error:
            raise StoreError(_words(self.path, error)) from error
        finally:
            if connection and sys.exc_info()[0]:
                connection.close()

    def _take(self) -> None:
        """Have the file for this process alone; the kernel lets go of it at the process's end. Raises StoreTaken."""
        if self._claim is not None:
            return
        # It holds the secrets of webhooks: nobody else may read it.
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        end = time.monotonic() + _CLAIM_SECONDS
        try:
            while not _locked(descriptor):
                if time.monotonic() >= end:
                    raise StoreTaken(
                        f"{self.path}: another process runs the rollouts of this state file: stop that one, or name"
                        " another file in state.path"
                    )
                time.sleep(0.05)
        except BaseException:
            os.close(descriptor)
            raise
        self._claim = descriptor

    def release(self) -> None:
        """Let another process have the file: nothing is written from here any more."""
        if self._claim is not None:
            fcntl.flock(self._claim, fcntl.LOCK_UN)

    def _read_all(self, connection: sqlite3.Connection) -> dict[str, Row]:
        try:
            found = connection.execute(
                "SELECT name, state, plan, clock, evidence, started_at, phase_at, saved_at FROM rollouts"
            ).fetchall()
            return {row[0]: _row(*row) for row in found}
        except (sqlite3.Error, ValueError) as error:
            raise StoreError(_words(self.path, error)) from error

    # --- writing -----------------------------------------------------------------------------------------------------
    def next_id(self) -> int:
        """Return the number of the next history entry; for the event loop's thread alone."""
        self._ids += 1
        return self._ids

    async def save(self, row: Row, entries: list[Entry]) -> None:
        """Write a rollout and the history of the decision that led there, all or nothing. Raises StoreError."""
        future: Future[None] = Future()
        self._queue.put((lambda connection: self._save(connection, row, entries), future))
        await asyncio.wrap_future(future)

    def close(self) -> None:
        """Write what is queued and close the file."""
        if self._thread:
            self._queue.put(None)
            self._thread.join()
            self._thread = None
        if self._connection:
            self._connection.close()
            self._connection = None
        if self._claim is not None:  # not before: closing a descriptor of the file ends the locks of SQLite on it
            os.close(self._claim)
            self._claim = None

    def _write(self) -> None:
        while True:
            batch = [self._queue.get()]
            while not self._queue.empty():
                batch.append(self._queue.get())
            works = [work for work in batch if work is not None]
            if works:
                self._commit(works)
            if None in batch:
                return

    def _save(self, connection: sqlite3.Connection, row: Row, entries: list[Entry]) -> None:
        _save(connection, row, entries, self._shift)
        self._added[row.name] += len(entries)
        if self._added[row.name] >= _PRUNING:
            _prune(connection, row.name)
            self._added[row.name] = 0

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection, self._shift = self._open()
        return self._connection

    def _commit(self, works: list[_Work]) -> None:
        """Write everything in one transaction and tell everybody how it went."""
        try:
            connection = self._connected()
            try:
                connection.execute("BEGIN IMMEDIATE")
                for work, _ in works:
                    work(connection)
                connection.execute("COMMIT")
            except Exception:
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise
        except Exception as error:
            # Whatever it was: a writer that ends would leave everybody waiting.
            failure = error if isinstance(error, StoreError) else StoreError(_words(self.path, error))
            self.alarm = str(failure)
            for _, future in works:
                _settle(future, failure)
        else:
            self.alarm = ""
            for _, future in works:
                _settle(future, None)

    # --- reading -----------------------------------------------------------------------------------------------------
    def history(self, rollout: str, *, after: int = 0, limit: int = 100) -> list[Entry]:
        """Return entries after the one numbered `after`, oldest first; for a thread. Raises StoreError."""
        return self._history("AND id > ? ORDER BY id LIMIT ?", rollout, after, limit)

    def newest(self, rollout: str, limit: int) -> list[Entry]:
        """Return the last `limit` entries, newest last; for a thread. Raises StoreError."""
        return self._history("ORDER BY id DESC LIMIT ?", rollout, limit)[::-1]

    def _history(self, rest: str, *values: Any) -> list[Entry]:
        query = f"SELECT id, rollout, attempt, at, kind, warning, text, data FROM history WHERE rollout = ? {rest}"
        try:
            with contextlib.closing(self._reader()) as connection:
                return [_entry(row) for row in connection.execute(query, values)]
        except (sqlite3.Error, ValueError) as error:
            raise StoreError(_words(self.path, error)) from error

    def _reader(self) -> sqlite3.Connection:
        # Read-write, for the shared memory of the write-ahead log; it only ever selects.
        return sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=rw", uri=True, timeout=_BUSY_SECONDS)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Set up durability and bring the schema up to date. Raises NewerStore."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA:
        raise NewerStore(
            f"{path}: written by a later version (schema {version}, this program knows {SCHEMA}): start that version,"
            " or name another file in state.path"
        )
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    for number, script in enumerate(_MIGRATIONS[version:], version + 1):
        connection.executescript(f"BEGIN IMMEDIATE; {script} PRAGMA user_version = {number}; COMMIT;")


def _save(connection: sqlite3.Connection, row: Row, entries: list[Entry], shift: int) -> None:
    connection.execute(
        "INSERT INTO rollouts VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET state = excluded.state,"
        " plan = excluded.plan, clock = excluded.clock, evidence = excluded.evidence, started_at = excluded.started_at,"
        " phase_at = excluded.phase_at, saved_at = excluded.saved_at",
        (
            *(row.name, json.dumps(row.state), row.plan, row.clock, json.dumps(row.evidence)),
            *(row.started_at, row.phase_at, row.saved_at),
        ),
    )
    connection.executemany(
        # An entry that was written by a commit whose answer was lost is written once all the same.
        "INSERT OR IGNORE INTO history VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [(entry.id + shift, *entry[1:5], int(entry.warning), entry.text, json.dumps(entry.data)) for entry in entries],
    )


def _prune(connection: sqlite3.Connection, rollout: str) -> None:
    """Remove what is older than the newest entries of a rollout."""
    connection.execute(
        "DELETE FROM history WHERE rollout = ? AND id <="
        " (SELECT id FROM history WHERE rollout = ? ORDER BY id DESC LIMIT 1 OFFSET ?)",
        (rollout, rollout, KEPT),
    )


def _row(name: str, state: str, plan: str, clock: float, evidence: str, *rest: Any) -> Row:
    return Row(name, json.loads(state), plan, clock, json.loads(evidence), *rest)


def _entry(row: tuple[Any, ...]) -> Entry:
    number, rollout, attempt, at, kind, warning, text, data = row
    return Entry(number, rollout, attempt, at, kind, bool(warning), text, json.loads(data))


def _settle(future: "Future[None]", error: StoreError | None) -> None:
    if not future.set_running_or_notify_cancel():
        return  # nobody waits any more
    if error:
        future.set_exception(error)
    else:
        future.set_result(None)


def _words(path: Path, error: Exception) -> str:
    return f"{path}: {(isinstance(error, OSError) and error.strerror) or error}"
