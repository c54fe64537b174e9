"""What `SqliteLog` does in one transaction: storing, compacting and erasing, on a connection of the log."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

from features.erasure.customer import User
from features.event_log.base import ERASED_FORMAT, AcceptedEvent, LoggedEvent, Stored
from features.event_log.erased_users import naming
from features.event_log.identity import IdentifiedEvent
from features.event_log.rows import VISITOR_IN_BODY
from features.event_log.sqlite_file import ERASED_SCHEMA, pragma, read_header

logger = logging.getLogger(__name__)

COMPACTED_AT_ONCE = 1_000  # events or identities of one transaction, some 10 ms
COLUMNS = "seq, source, event_id, source_user_id, ts, body"
IS_ERASED = "SELECT 1 FROM erased WHERE tombstone = ?"


def checkpoint(connection: sqlite3.Connection) -> None:
    """Copy the write-ahead log into the database, so that it begins anew. To be called while `writing`.

    What was committed is durable whether or not this succeeds; a full disk is reported by the next commit.
    """
    try:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    except sqlite3.Error as error:
        logger.warning("event_log=checkpoint_failed error=%s", error)


def store(connection: sqlite3.Connection, batch: Iterable[IdentifiedEvent], last_seq: int) -> list[Stored]:
    """Insert what is new, inside a transaction that holds the write lock."""
    seq = last_seq
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


def remove_events(connection: sqlite3.Connection, through: int, at: int) -> int:
    """Remove the first events up to a number, at most `COMPACTED_AT_ONCE`; returns how many."""
    header = read_header(connection)
    through = min(through, header.last_seq)
    if through < header.first_seq:
        return 0
    first = "SELECT seq FROM events WHERE seq <= ? ORDER BY seq LIMIT ?"
    (last,) = connection.execute(f"SELECT max(seq) FROM ({first})", (through, COMPACTED_AT_ONCE)).fetchone()
    last = through if last is None else last  # all are erased
    done = connection.execute("DELETE FROM events WHERE seq <= ?", (last,)).rowcount
    connection.execute("UPDATE header SET first_seq = ?", (last + 1,))
    connection.execute("INSERT OR REPLACE INTO compactions VALUES (?, ?)", (at, last))
    return done


def forget_identities(connection: sqlite3.Connection, until: int) -> int:
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


def erase_users(connection: sqlite3.Connection, users: Sequence[User], tombstones: Sequence[str]) -> int:
    """Store tombstones, and delete all events that name some users, with their identities; returns how many."""
    if pragma(connection, "user_version") < ERASED_FORMAT:
        for statement in ERASED_SCHEMA:
            connection.execute(statement)
    connection.executemany("INSERT OR IGNORE INTO erased VALUES (?)", [(tombstone,) for tombstone in tombstones])
    connection.execute("UPDATE header SET erasures = (SELECT count(*) FROM erased)")
    of_user = f"SELECT {COLUMNS} FROM events WHERE source = ? AND source_user_id = ?"
    seqs = {row[0] for user in users for row in connection.execute(of_user, user)}
    logins = connection.execute(f"SELECT {COLUMNS} FROM events WHERE instr(body, ?)", (VISITOR_IN_BODY,))
    seqs.update(found.seq for found in naming(logged(logins), users))
    for table in ("events", "identities"):
        connection.executemany(f"DELETE FROM {table} WHERE seq = ?", [(seq,) for seq in seqs])
    return len(seqs)


def logged(rows: Iterable[Sequence[Any]]) -> list[LoggedEvent]:
    """Rows of `COLUMNS` as events."""
    return [LoggedEvent(row[0], AcceptedEvent(*row[1:])) for row in rows]
