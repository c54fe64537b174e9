"""The event log in a SQLite file: the default, for any number of processes on one host."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from features.event_log.base import (
    MAX_WAITING,
    AcceptedEvent,
    Compacted,
    LoggedEvent,
    LogHeader,
    Stored,
    TailPage,
)
from features.event_log.file_changes import FileChanges
from features.event_log.group_commit import GroupCommitLog
from features.event_log.identity import IdentifiedEvent
from features.event_log.sqlite_file import (
    CHECKPOINT_PAGES,
    connect,
    create,
    file_number,
    pragma,
    read_header,
    storage_errors,
    transaction,
    writing,
)
from qianmian.errors import StorageError
from qianmian.times import SECONDS_PER_DAY

logger = logging.getLogger(__name__)

COMPACTED_AT_ONCE = 1_000  # events or identities of one transaction, some 10 ms
PAUSE_SECONDS = 0.003  # between them, in which other writers get the lock
COLUMNS = "seq, source, event_id, source_user_id, ts, body"


class SqliteLog(GroupCommitLog):
    """Events in a SQLite database with a write-ahead log that is synchronised at each commit.

    A process has one writing connection, used by the thread of its `GroupCommit`, and one for reading. Both are opened
    again after an error, and if the file has been replaced.

    Parameters
    ----------
    path : Path or str
        The file, or a URL `sqlite://` before its path; created if it is missing. Beside it SQLite keeps `-wal` and
        `-shm`, and this class `-lock`.
    max_waiting : int, default 20_000
        Events that may wait in this process.
    timeout_s : float, default 5
        How long a transaction waits for other processes.
    """

    def __init__(self, path: Path | str, *, max_waiting: int = MAX_WAITING, timeout_s: float = 5.0) -> None:
        self.path = Path(str(path).removeprefix("sqlite://"))
        self._timeout_s = timeout_s
        self._reader: sqlite3.Connection | None = None
        self._reader_file = self._readers_opened = 0
        self._reader_lock = threading.Lock()
        self._changes: FileChanges | None = None
        self._watched = 0  # value of `_readers_opened` when `_changes` was made
        self._waiting = threading.Lock()
        self._writer: sqlite3.Connection | None = None
        self._writer_file = self._pages_written = 0
        with storage_errors(self.path), writing(self.path, timeout_s):
            create(self.path)
            connect(self.path, timeout_s).close()  # checks it
        super().__init__(max_waiting)

    def _disconnect(self) -> None:
        self._close_writer()
        with self._reader_lock:
            self._close_reader()
        with self._waiting:
            self._close_changes()

    # ---- writing: the thread of the group commit only ----------------------------------------------------------------

    def _commit(self, batch: list[IdentifiedEvent]) -> list[Stored]:
        try:
            with storage_errors(self.path), writing(self.path, self._timeout_s):
                connection = self._writing_connection()
                with transaction(connection, "IMMEDIATE"):
                    stored = _store(connection, batch)
                self._pages_written += 5 + len(batch)  # about; only the indexes are written at random places
                if self._pages_written > CHECKPOINT_PAGES:
                    _checkpoint(connection)
                    self._pages_written = 0
        except BaseException:
            self._close_writer()
            raise
        return stored

    def _writing_connection(self) -> sqlite3.Connection:
        if self._writer is not None and file_number(self.path) != self._writer_file:
            raise StorageError("the event log was replaced while it was open", where=str(self.path), hint="send again")
        if self._writer is None:
            create(self.path)
            self._writer = connect(self.path, self._timeout_s)
            self._writer_file = file_number(self.path)
            _checkpoint(self._writer)  # after a full disk, the next commit then fits into what the log already takes
        return self._writer

    def _close_writer(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    # ---- reading: any thread -----------------------------------------------------------------------------------------

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._reader_lock:
            try:
                with storage_errors(self.path):
                    if self._reader is None or file_number(self.path) != self._reader_file:
                        self._close_reader()
                        self._reader = connect(self.path, self._timeout_s)
                        self._reader_file = file_number(self.path)
                        self._readers_opened += 1
                    yield self._reader
            except StorageError:
                self._close_reader()
                raise

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def version(self) -> int:
        """SQLite counts for each connection the commits of all others; a new connection begins a new range."""
        with self._reading() as connection:
            return self._readers_opened << 32 | pragma(connection, "data_version")

    def wait(self, after: int, seconds: float) -> None:
        """Return when a process has left `writing` since the last call: its lock file is closed after the commit.

        The write to the write-ahead log is no sign, because a reader that it wakes up comes before the commit.
        """
        with self._waiting, storage_errors(self.path):
            if self._changes is None or self._watched != self._readers_opened:  # the folder may be another one too
                self._close_changes()
                self._watched, self._changes = self._readers_opened, FileChanges(self.path)
                return  # what was written before is not told
            self._changes.wait(seconds)

    def _close_changes(self) -> None:
        if self._changes is not None:
            self._changes.close()
            self._changes = None

    def header(self) -> LogHeader:
        """State of the log."""
        with self._reading() as connection:
            return read_header(connection)

    def tail(self, after: int, limit: int) -> TailPage:
        """The first `limit` events after a number, and the header of the same state."""
        with self._reading() as connection, transaction(connection, "DEFERRED"):
            rows = connection.execute(
                f"SELECT {COLUMNS} FROM events WHERE seq > ? ORDER BY seq LIMIT ?", (after, limit)
            ).fetchall()
            return TailPage(read_header(connection), _logged(rows))

    def get(self, users: Sequence[tuple[str, str]], after: int = 0, most: int | None = None) -> list[LoggedEvent]:
        """Events of some users after a number, in order; the last ones, if there are more than `most`."""
        of_user = "source = ? AND source_user_id = ? AND seq > ?"
        query = f"SELECT {COLUMNS} FROM events WHERE {of_user} ORDER BY seq DESC LIMIT ?"
        limit = -1 if most is None else most
        rows: list[Any] = []
        with self._reading() as connection:
            for source, source_user_id in dict.fromkeys(users):
                rows += connection.execute(query, (source, source_user_id, after, limit))
        rows.sort()  # by seq, which comes first and is unique
        return _logged(rows if most is None else rows[max(0, len(rows) - most) :])

    # ---- compaction --------------------------------------------------------------------------------------------------

    def compact(self, through: int, keep_identities_days: float, now: datetime) -> Compacted:
        """Remove events up to a number, and the identities of events that were removed long enough ago."""
        at = int(now.timestamp())
        until = at - int(keep_identities_days * SECONDS_PER_DAY)
        with storage_errors(self.path):
            connection = connect(self.path, self._timeout_s)
            try:
                events = self._repeat(connection, _remove_events, through, at)
                identities = self._repeat(connection, _forget_identities, until)
            finally:
                connection.close()
        return Compacted(events, identities)

    def _repeat(self, connection: sqlite3.Connection, step: Callable[..., int], *arguments: int) -> int:
        """Do a step in transactions of its own until it finds nothing more to do; the sum of what it did."""
        total = 0
        while True:
            with writing(self.path, self._timeout_s):
                with transaction(connection, "IMMEDIATE"):
                    done = step(connection, *arguments)
                _checkpoint(connection)
            if not done:
                return total
            total += done
            time.sleep(PAUSE_SECONDS)


def _checkpoint(connection: sqlite3.Connection) -> None:
    """Copy the write-ahead log into the database, so that it begins anew. To be called while `writing`.

    What was committed is durable whether or not this succeeds; a full disk is reported by the next commit.
    """
    try:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    except sqlite3.Error as error:
        logger.warning("event_log=checkpoint_failed error=%s", error)


def _store(connection: sqlite3.Connection, batch: Iterable[IdentifiedEvent]) -> list[Stored]:
    """Insert what is new, inside a transaction that holds the write lock."""
    last_seq = seq = read_header(connection).last_seq
    stored: list[Stored] = []
    new: list[tuple[Any, ...]] = []
    known_here: dict[bytes, tuple[int, bytes]] = {}
    for event, identity, content in batch:
        known = known_here.get(identity)
        if known is None:
            known = connection.execute("SELECT seq, content FROM identities WHERE identity = ?", (identity,)).fetchone()
        if known is None:
            seq += 1
            known_here[identity] = (seq, content)
            new.append((seq, identity, content, *event))
            stored.append(Stored("new", seq))
        else:
            stored.append(Stored("duplicate" if known[1] == content else "conflict", known[0]))
    if seq > last_seq:
        connection.executemany("INSERT INTO identities VALUES (?, ?, ?)", [row[:3] for row in new])
        connection.executemany(
            f"INSERT INTO events ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)", [(row[0], *row[3:]) for row in new]
        )
        connection.execute("UPDATE header SET last_seq = ?", (seq,))
    return stored


def _remove_events(connection: sqlite3.Connection, through: int, at: int) -> int:
    header = read_header(connection)
    last = min(through, header.last_seq, header.first_seq + COMPACTED_AT_ONCE - 1)
    if last < header.first_seq:
        return 0
    connection.execute("DELETE FROM events WHERE seq <= ?", (last,))
    connection.execute("UPDATE header SET first_seq = ?", (last + 1,))
    connection.execute("INSERT OR REPLACE INTO compactions VALUES (?, ?)", (at, last))
    return last + 1 - header.first_seq


def _forget_identities(connection: sqlite3.Connection, until: int) -> int:
    """Of the events that compactions at or before `until` have removed."""
    (through,) = connection.execute("SELECT max(through) FROM compactions WHERE at <= ?", (until,)).fetchone()
    if through is None:
        return 0
    done = connection.execute(
        "DELETE FROM identities WHERE seq IN (SELECT seq FROM identities WHERE seq <= ? ORDER BY seq LIMIT ?)",
        (through, COMPACTED_AT_ONCE),
    ).rowcount
    if not done:
        connection.execute("DELETE FROM compactions WHERE at <= ?", (until,))
    return done


def _logged(rows: Iterable[Sequence[Any]]) -> list[LoggedEvent]:
    return [LoggedEvent(row[0], AcceptedEvent(*row[1:])) for row in rows]
