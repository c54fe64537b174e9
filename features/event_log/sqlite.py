"""The event log in a SQLite file: the default, for any number of processes on one host."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from features.event_log.base import (
    MAX_WAITING,
    Compacted,
    LoggedEvent,
    LogHeader,
    Stored,
    TailPage,
)
from features.event_log.erased_users import Hasher
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
from features.event_log.sqlite_steps import (
    COLUMNS,
    IS_ERASED,
    checkpoint,
    erase_users,
    forget_identities,
    logged,
    remove_events,
    store,
)
from qianmian.errors import StorageError
from qianmian.times import SECONDS_PER_DAY

PAUSE_SECONDS = 0.003  # between them, in which other writers get the lock
READERS_MS = 250  # that an attempt to empty the write-ahead log waits for readers, and other writers for it
MOST_READERS_SECONDS = 30.0  # until that has failed
ERASED = Stored("erased", 0)


class SqliteLog(GroupCommitLog):
    """Events in a SQLite database with a write-ahead log that is synchronised at each commit.

    A process has one writing connection, used by the thread of its `GroupCommit`, and one for reading. Both are opened
    again after an error, and if the file has been replaced.

    Parameters
    ----------
    path : Path or str
        The file, or a URL `sqlite://` before its path; created if it is missing. Beside it SQLite keeps `-wal` and
        `-shm`, and this class `-lock`.
    hasher : Hasher, optional
        Makes tombstones; see `open_log`.
    max_waiting : int, default 20_000
        Events that may wait in this process.
    timeout_s : float, default 5
        How long a transaction waits for other processes.
    """

    def __init__(
        self,
        path: Path | str,
        hasher: Hasher | None = None,
        *,
        max_waiting: int = MAX_WAITING,
        timeout_s: float = 5.0,
    ) -> None:
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
        super().__init__(hasher, max_waiting)

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
                    stored = self._store(connection, batch)
                self._pages_written += 5 + len(batch)  # about; only the indexes are written at random places
                if self._pages_written > CHECKPOINT_PAGES:
                    checkpoint(connection)
                    self._pages_written = 0
        except BaseException:
            self._close_writer()
            raise
        return stored

    def _store(self, connection: sqlite3.Connection, batch: list[IdentifiedEvent]) -> list[Stored]:
        """Store what is new and names no erased user, inside a transaction that holds the write lock."""
        header = read_header(connection)
        if not header.erasures:
            return store(connection, batch, header.last_seq)
        is_erased = [
            any(connection.execute(IS_ERASED, (tombstone,)).fetchone() for tombstone in tombstones)
            for tombstones in self._tombstones(batch)
        ]
        allowed = [event for event, erased in zip(batch, is_erased, strict=True) if not erased]
        stored = iter(store(connection, allowed, header.last_seq))
        return [ERASED if erased else next(stored) for erased in is_erased]

    def _writing_connection(self) -> sqlite3.Connection:
        if self._writer is not None and file_number(self.path) != self._writer_file:
            raise StorageError("the event log was replaced while it was open", where=str(self.path), hint="send again")
        if self._writer is None:
            create(self.path)
            self._writer = connect(self.path, self._timeout_s)
            self._writer_file = file_number(self.path)
            checkpoint(self._writer)  # after a full disk, the next commit then fits into what the log already takes
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
            return TailPage(read_header(connection), logged(rows))

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
        return logged(rows if most is None else rows[max(0, len(rows) - most) :])

    def erased(self) -> frozenset[str]:
        """The tombstones of all users that were erased."""
        with self._reading() as connection, transaction(connection, "DEFERRED"):
            if not read_header(connection).erasures:
                return frozenset()
            return frozenset(tombstone for (tombstone,) in connection.execute("SELECT tombstone FROM erased"))

    # ---- removing ----------------------------------------------------------------------------------------------------

    def compact(self, through: int, keep_identities_days: float, now: datetime) -> Compacted:
        """Remove events up to a number, and the identities of events that were removed long enough ago."""
        at = int(now.timestamp())
        until = at - int(keep_identities_days * SECONDS_PER_DAY)
        with self._own_connection() as connection:
            events = self._repeat(connection, remove_events, through, at)
            identities = self._repeat(connection, forget_identities, until)
        return Compacted(events, identities)

    def _repeat(self, connection: sqlite3.Connection, step: Callable[..., int], *arguments: int) -> int:
        """Do a step in transactions of its own until it finds nothing more to do; the sum of what it did."""
        total = 0
        while True:
            with writing(self.path, self._timeout_s):
                with transaction(connection, "IMMEDIATE"):
                    done = step(connection, *arguments)
                checkpoint(connection)
            if not done:
                return total
            total += done
            time.sleep(PAUSE_SECONDS)

    def erase(self, users: Sequence[tuple[str, str]], tombstones: Sequence[str]) -> int:
        """Remove the events of some users; rewrite the file, so that no deleted byte is left; empty the other file.

        Pages keep copies of rows that were moved, so that overwriting what is deleted (`secure_delete`) is not enough.
        Other writers wait while the file is rewritten, and fail after `timeout_s`.
        """
        with self._own_connection() as connection:
            connection.execute("PRAGMA secure_delete = ON")
            with writing(self.path, self._timeout_s), transaction(connection, "IMMEDIATE"):
                removed = erase_users(connection, users, tombstones)
            with writing(self.path, self._timeout_s):
                connection.execute("VACUUM")
            self._empty_write_ahead_log(connection)
        return removed

    def _empty_write_ahead_log(self, connection: sqlite3.Connection) -> None:
        """Copy the write-ahead log into the database and cut it to no length, as soon as no reader needs it."""
        connection.execute(f"PRAGMA busy_timeout = {READERS_MS}")
        deadline = time.monotonic() + MOST_READERS_SECONDS
        while True:
            with writing(self.path, self._timeout_s):
                (busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if not busy:
                return
            if time.monotonic() > deadline:
                raise StorageError(
                    f"a program has been reading the event log for {MOST_READERS_SECONDS:g} s",
                    where=str(self.path),
                    hint="end it, and erase again: what was erased is still in the file beside the log",
                )
            time.sleep(PAUSE_SECONDS)

    @contextmanager
    def _own_connection(self) -> Iterator[sqlite3.Connection]:
        """A connection for work that is done by the calling thread."""
        with storage_errors(self.path), closing(connect(self.path, self._timeout_s)) as connection:
            yield connection
