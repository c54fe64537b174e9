"""The SQLite file of an event log: its layout, its connections, its lock, and what its errors mean.

Writing processes take turns by a lock file beside the database, for two reasons. SQLite's own wait for its lock sleeps
up to 100 ms at a time; and versions before 3.51.3 can damage a database if one connection checkpoints the write-ahead
log while another commits (sqlite.org/wal.html#walresetbug). Here both happen under the lock only.
"""

from __future__ import annotations

import errno
import os
import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from features.data.locking import try_lock
from features.event_log.base import ERASED_FORMAT, FORMAT, LogHeader
from qianmian.errors import StorageError, StorageFull

APPLICATION_ID = 0x514D454C  # "QMEL", which `file` shows
LOCK_POLL_SECONDS = 0.0003
CHECKPOINT_PAGES = 8_000  # of 4 KiB
# the second: the file by which processes share the index of the write-ahead log could not grow
NO_ROOM = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE)
# errors of the system, where SQLite has not met them first
AS_SQLITE = {
    errno.ENOSPC: sqlite3.SQLITE_FULL,
    errno.EDQUOT: sqlite3.SQLITE_FULL,
    errno.EACCES: sqlite3.SQLITE_READONLY,
    errno.EPERM: sqlite3.SQLITE_READONLY,
    errno.EROFS: sqlite3.SQLITE_READONLY,
    errno.ENOENT: sqlite3.SQLITE_CANTOPEN,
}
HINTS = {
    sqlite3.SQLITE_BUSY: "find the process that holds the lock of the file",
    sqlite3.SQLITE_READONLY: "let this user write to the folder, the file and those beside it",
    sqlite3.SQLITE_CANTOPEN: "create the folder, and let this user write to it",
    sqlite3.SQLITE_CORRUPT: "move the file away, and let the senders send again what the lake lacks",
    sqlite3.SQLITE_NOTADB: "move the file away, and let the senders send again what the lake lacks",
}

# `identities` holds those of the present events too, so that one look-up finds both; its rows are in the order of time,
# which makes forgetting the oldest a range. An index ends with the rowid: events of a user are read in their order.
SCHEMA = """
CREATE TABLE header (log_id TEXT NOT NULL, created_at TEXT NOT NULL,
    first_seq INTEGER NOT NULL, last_seq INTEGER NOT NULL);
CREATE TABLE events (seq INTEGER PRIMARY KEY, source TEXT NOT NULL, event_id TEXT NOT NULL,
    source_user_id TEXT NOT NULL, ts INTEGER NOT NULL, body BLOB NOT NULL);
CREATE INDEX events_of_user ON events (source, source_user_id);
CREATE TABLE identities (seq INTEGER PRIMARY KEY, identity BLOB NOT NULL, content BLOB NOT NULL);
CREATE UNIQUE INDEX identity ON identities (identity);
CREATE TABLE compactions (at INTEGER PRIMARY KEY, through INTEGER NOT NULL);
"""
READ_HEADER = "SELECT log_id, created_at, first_seq, last_seq FROM header"
READ_ERASED_HEADER = "SELECT log_id, created_at, first_seq, last_seq, erasures FROM header"
# made by the first erasure, so that programs that know nothing of erased users go on with logs that have none
ERASED_SCHEMA = (
    "CREATE TABLE erased (tombstone TEXT PRIMARY KEY) WITHOUT ROWID",
    "ALTER TABLE header ADD COLUMN erasures INTEGER NOT NULL DEFAULT 0",
    f"PRAGMA user_version = {ERASED_FORMAT}",
)


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn the errors of SQLite and of the operating system into `StorageError` or `StorageFull`."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        of_system = AS_SQLITE.get(getattr(error, "errno", None) or 0, 0)
        code: int = getattr(error, "sqlite_errorcode", of_system)
        if code in NO_ROOM:
            raise StorageFull("the event log has no room", where=str(path), hint="make room on its disk") from error
        hint = HINTS.get(code & 0xFF)  # the other bits say more precisely where
        raise StorageError(f"the event log failed: {error}", where=str(path), hint=hint) from error


@contextmanager
def writing(path: Path, timeout_s: float) -> Iterator[None]:
    """Be the only process (and thread) that writes to the file, inside the `with` block.

    Raises
    ------
    StorageError
        Others held the lock for `timeout_s`.
    """
    with path.with_name(path.name + "-lock").open("a") as handle:  # freed when it is closed or the process ends
        deadline = time.monotonic() + timeout_s
        while not try_lock(handle):
            if time.monotonic() > deadline:
                raise StorageError(
                    f"the event log was locked for {timeout_s:g} s",
                    where=str(path),
                    hint="find the process that holds its lock",
                )
            time.sleep(LOCK_POLL_SECONDS)
        yield


def connect(path: Path, timeout_s: float) -> sqlite3.Connection:
    """Open a log that exists, and check its format."""
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",
        uri=True,
        timeout=timeout_s,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        connection.execute("PRAGMA synchronous = FULL")  # a commit returns after the log was written to the disk
        connection.execute("PRAGMA wal_autocheckpoint = 0")  # see the first lines of this file
        connection.execute("PRAGMA cache_size = -16384")  # KiB: the index of identities is read at random
        connection.execute(f"PRAGMA journal_size_limit = {64 << 20}")
        application, version = (pragma(connection, name) for name in ("application_id", "user_version"))
        if application != APPLICATION_ID or not FORMAT <= version <= ERASED_FORMAT:
            newer = application == APPLICATION_ID and version > ERASED_FORMAT
            raise StorageError(
                "the event log was written by a newer version" if newer else "the file is not an event log",
                where=str(path),
                got=f"format {version}" if newer else None,
                allowed=f"at most format {ERASED_FORMAT}" if newer else None,
                hint="install that version of qianmian" if newer else "move it away",
            )
    except BaseException:
        connection.close()
        raise
    return connection


def pragma(connection: sqlite3.Connection, name: str) -> int:
    """Value of a pragma that is a number."""
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def create(path: Path) -> None:
    """Create the log unless it exists. To be called while `writing`."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        if pragma(connection, "application_id") or pragma(connection, "schema_version"):
            return
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.executescript(
            f"BEGIN IMMEDIATE; {SCHEMA} INSERT INTO header VALUES "
            f"('{secrets.token_hex(8)}', strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), 1, 0);"
            f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT}; COMMIT"
        )
    finally:
        connection.close()


def read_header(connection: sqlite3.Connection) -> LogHeader:
    """The header, as of the transaction that the connection is in."""
    version = pragma(connection, "user_version")
    query = READ_HEADER if version < ERASED_FORMAT else READ_ERASED_HEADER
    return LogHeader(version, *connection.execute(query).fetchone())


def file_number(path: Path) -> int:
    """Inode of the file, by which a file that was removed or replaced is noticed; an error if there is none."""
    return os.stat(path).st_ino


@contextmanager
def transaction(connection: sqlite3.Connection, kind: str) -> Iterator[None]:
    """`DEFERRED` for reading one state, `IMMEDIATE` for writing; rolled back if the block raises."""
    connection.execute(f"BEGIN {kind}")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
