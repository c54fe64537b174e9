"""What happens to the log in a file: no room, no permission, damage, another format, a lock that is held."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from features.event_log import open_log
from features.event_log.sqlite import SqliteLog
from features.event_log.sqlite_file import writing
from qianmian.errors import Overloaded, StorageError, StorageFull

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "events.db"


@pytest.fixture
def log(path):
    log = SqliteLog(path, timeout_s=0.3)
    yield log
    log.close()


def statuses(answers):
    return [answer.status for answer in answers]


def test_a_full_disk_refuses_whole_batches_until_there_is_room(log, event):
    """`max_page_count` makes SQLite report what it reports for a full disk, at the same place."""
    log.append([event(0)])
    log._writer.execute("PRAGMA max_page_count = 1")  # lowered to the present size
    with pytest.raises(StorageFull, match="no room") as caught:
        log.append([event(n, body=b"x" * 5_000) for n in range(50)])
    assert caught.value.http_status == 507
    assert [logged.event for logged in log.tail(0, 100).events] == [event(0)]
    # the connection was opened again, and with it the limit is gone
    assert statuses(log.append([event(n, body=b"x" * 5_000) for n in range(50)])) == ["conflict", *["new"] * 49]
    assert log.header().last_seq == 50


def test_every_caller_of_a_failed_batch_is_told(log, event):
    log.append([event(0)])

    def refused(n):
        with pytest.raises(StorageError) as caught:
            log.append([event(n)])
        return caught.value.message

    with writing(log.path, 1), ThreadPoolExecutor(8) as pool:
        assert list(pool.map(refused, range(1, 9))) == ["the event log was locked for 0.3 s"] * 8
    assert statuses(log.append([event(n) for n in range(9)])) == ["duplicate", *["new"] * 8]


def test_a_lock_of_another_program(log, path, event):
    """The command-line shell of SQLite knows nothing of the lock file."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageError, match="database is locked") as caught:
        log.append([event(1)])
    assert "holds the lock" in caught.value.hint
    other.execute("ROLLBACK")
    other.close()
    assert statuses(log.append([event(1)])) == ["new"]


def test_too_many_waiting_events_are_refused(path, event):
    log = SqliteLog(path, max_waiting=10)
    with writing(path, 1):
        first = threading.Thread(target=log.append, args=([event(n) for n in range(50)],))  # alone: any number
        first.start()
        while not log._group._waiting:
            time.sleep(0.001)
        with pytest.raises(Overloaded, match="50 events wait .* of at most 10") as caught:
            log.append([event(99)])
        assert caught.value.http_status == 429
    first.join()
    assert log.append([event(99)])[0].seq == 51
    log.close()


def test_closing_stores_what_waits(path, event):
    log = SqliteLog(path)
    with writing(path, 1):
        waiting = threading.Thread(target=log.append, args=([event(1)],))
        waiting.start()
        while not log._group._waiting:
            time.sleep(0.001)
        closing = threading.Thread(target=log.close)
        closing.start()
    closing.join()
    waiting.join()
    log = SqliteLog(path)
    assert log.header().last_seq == 1
    log.close()


def test_a_read_only_file_is_refused_and_accepted_again():
    """In a process that is not root, whom no permission stops; so not in pytest's folder, which is root's."""
    code = """
import os, sys
from features.event_log import AcceptedEvent, open_log
from qianmian.errors import StorageError
path = sys.argv[1]
first, second = (AcceptedEvent("shop", name, "u1", 0, b"{}") for name in ("e1", "e2"))
log = open_log(path)
log.append([first])
log.close()
os.chmod(path, 0o444)
log = open_log(path)
for mode in (0o644, 0o444):
    os.chmod(path + "-lock", mode)
    try:
        log.append([second])
        sys.exit("accepted")
    except StorageError as error:
        assert error.http_status == 503, error
        assert error.hint == "let this user write to the folder, the file and those beside it", error
for name in os.listdir(os.path.dirname(path)):  # SQLite gives those beside it the mode of the file
    os.chmod(os.path.join(os.path.dirname(path), name), 0o644)
assert log.append([first, second])[1].status == "new"
"""
    with tempfile.TemporaryDirectory() as folder:
        as_user: list[str] = []
        if os.geteuid() == 0:
            os.chown(folder, 65534, 65534)
            as_user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        done = subprocess.run(
            [*as_user, sys.executable, "-c", code, f"{folder}/events.db"],
            cwd=ROOT,
            env={"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr


def test_a_damaged_file_is_reported(path, event):
    log = SqliteLog(path)
    log.append([event(n) for n in range(2_000)])
    log.close()
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)  # all but the first page, which names the tables
    path.write_bytes(content)
    log = SqliteLog(path)
    with pytest.raises(StorageError, match="malformed") as caught:
        log.append([event(1)])
    assert "move the file away" in caught.value.hint
    log.close()
    path.write_bytes(b"no database " * 1_000)
    with pytest.raises(StorageError, match="not a database"):
        open_log(path)
    with pytest.raises(StorageError, match="directory") as caught:
        open_log(path.parent / "missing" / "events.db")
    assert "create the folder" in caught.value.hint


def test_other_formats_are_refused(path):
    open_log(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 3")
    connection.close()
    with pytest.raises(StorageError, match=r"newer version .*got 'format 3'; allowed: at most format 2"):
        open_log(path)
    path.unlink()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE customers (id)")
    connection.close()
    with pytest.raises(StorageError, match="not an event log"):
        open_log(path)


def test_a_file_that_is_removed_fails_once_and_is_made_again(log, path, event):
    log.append([event(1), event(2)])
    first = log.header().log_id
    for name in ("events.db", "events.db-wal", "events.db-shm"):
        (path.parent / name).unlink()
    for call in (log.version, log.header, lambda: log.append([event(3)])):
        with pytest.raises(StorageError):
            call()
    assert log.append([event(3)])[0].seq == 1
    assert log.header().log_id != first


def test_a_commit_is_synchronised_and_the_write_ahead_log_is_copied(log, path, event, monkeypatch):
    log.append([event(0)])
    assert log._writer.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    assert log._writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    monkeypatch.setattr("features.event_log.sqlite.CHECKPOINT_PAGES", 10)
    for n in range(200):
        log.append([event(n, body=b"x" * 4_000)])
    assert path.stat().st_size > 800_000
    assert (path.parent / "events.db-wal").stat().st_size < 400_000


def test_compaction_leaves_room_for_new_events(log, path, event):
    now = datetime(2026, 5, 1, tzinfo=UTC)
    sizes = []
    for turn in range(4):
        log.append([event(f"{turn}-{n}", body=b"x" * 1_000) for n in range(1_000)])
        log.compact(log.header().last_seq, 0, now)
        sizes.append(path.stat().st_size)
    assert max(sizes[1:]) < 1.3 * sizes[0]
    assert log._writer.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_reads_use_an_index(log):
    query = (
        "EXPLAIN QUERY PLAN SELECT seq FROM events WHERE source = '' AND source_user_id = '' AND seq > 5 ORDER BY seq"
    )
    with log._reading() as connection:
        (plan,) = [line[3] for line in connection.execute(query)]
    assert "INDEX events_of_user (source=? AND source_user_id=? AND rowid>?)" in plan
