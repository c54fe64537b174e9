"""What every store keeps when users are erased: nothing of them is left, and none of them comes back."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from features.data.pii_key import PiiKey
from features.erasure.customer import ErasedCustomer
from features.erasure.hasher import TombstoneHasher
from features.erasure.tombstones import tombstone
from features.event_log import Tail, open_log
from features.event_log.base import Compacted, Stored
from features.event_log.erasing import erase_events
from features.event_log.redis_log import COPY, PREFIX, RedisLog
from features.event_log.rows import EventRow, encode
from features.event_log.sqlite import SqliteLog
from qianmian.errors import NotReady, StorageError, UsageError
from qianmian.workspace import Workspace

KEY = "a key of the workspace"
GONE = ("shop", "gone-7f3a91c2e5b804d6")  # a user id that no other bytes look like
NOW = datetime(2026, 5, 1, tzinfo=UTC)
ERASING = Path(__file__).with_name("erasing.py")
ROOT = ERASING.parents[3]


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("QIANMIAN_PII_KEY", KEY)


@pytest.fixture
def log(location, opened):
    return opened(location, TombstoneHasher())


@pytest.fixture
def files(location, request):
    """Reads all bytes that the store keeps on the disk."""
    folder = Path(location).parent if "://" not in location else request.getfixturevalue("redis_server").folder
    return lambda: b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def hashes(*users: tuple[str, str]) -> list[str]:
    return [tombstone(PiiKey.of(KEY), *user) for user in users]


def login(number: int, user: str, visitor: str):
    moment = datetime(2026, 5, 1, 12)
    values = {"source": "shop", "source_user_id": user, "ts": moment, "event_type": "login", "anonymous_id": visitor}
    return encode(EventRow("events", values, f"login{number}"))


def test_an_erased_user_is_gone_and_cannot_come_back(log, event, files):
    sent = [event(n, source_user_id=GONE[1] if n % 3 else "stays", body=b'{"of": "%d"}' % n) for n in range(30)]
    log.append([*sent, event(99, source="till", source_user_id=GONE[1])])  # another source: another user
    log.append([login(1, "stays", GONE[1]), login(2, "stays", "visit-1")])
    assert GONE[1].encode() in files()
    before = log.version()
    assert log.erase([GONE, ("till", GONE[1])], hashes(GONE, ("till", GONE[1]))) == 22
    assert log.version() != before
    assert GONE[1].encode() not in files()
    assert (log.header().format, log.header().erasures, log.header().last_seq) == (2, 2, 33)
    assert log.erased() == set(hashes(GONE, ("till", GONE[1])))
    assert log.get([GONE]) == []
    assert [logged.seq for logged in log.get([("shop", "stays")])] == [*range(1, 31, 3), 33]
    assert [logged.seq for logged in log.tail(0, 100).events] == [*range(1, 31, 3), 33]
    # sent again, in one batch with others; a duplicate of what was erased is erased, not a duplicate
    again = log.append([sent[1], sent[0], event("new"), event("x", source_user_id=GONE[1]), login(3, "u9", GONE[1])])
    assert again == [Stored("erased", 0), Stored("duplicate", 1), Stored("new", 34), *[Stored("erased", 0)] * 2]
    assert log.erase([GONE], hashes(GONE)) == 0
    assert log.header().erasures == 2
    assert GONE[1].encode() not in files()


def test_a_log_with_erased_users_needs_the_key_for_appending(location, opened, event, monkeypatch):
    without = opened(location)
    assert without.append([event(1)])[0].status == "new"
    opened(location, TombstoneHasher()).erase([GONE], hashes(GONE))
    for log in (without, opened(location)):  # opened before the first tombstone, and after it
        with pytest.raises(StorageError, match="without the key"):
            log.append([event(2)])
        assert [logged.seq for logged in log.tail(0, 10).events] == [1]  # it can be read
    keyed = opened(location, TombstoneHasher())
    monkeypatch.delenv("QIANMIAN_PII_KEY")
    with pytest.raises(NotReady, match="the key that recognises them is missing"):
        keyed.append([event(2)])
    monkeypatch.setenv("QIANMIAN_PII_KEY", "short")
    with pytest.raises(UsageError, match="too short"):
        keyed.append([event(2)])
    monkeypatch.setenv("QIANMIAN_PII_KEY", KEY)
    assert keyed.append([event(2), event(3, source_user_id=GONE[1])]) == [Stored("new", 2), Stored("erased", 0)]


def test_the_hasher_makes_the_tombstones_of_the_workspace(tmp_path, monkeypatch):
    users = [("shop", "u-17"), ("", "用户😀"), GONE]
    monkeypatch.delenv("QIANMIAN_PII_KEY")
    workspace = Workspace(tmp_path).create()
    hasher = TombstoneHasher(workspace)
    with pytest.raises(NotReady) as caught:
        hasher(*GONE)
    assert "secrets/pii.key" in caught.value.hint
    (tmp_path / "secrets").mkdir(exist_ok=True)
    (tmp_path / "secrets" / "pii.key").write_text(KEY)  # made by the first erasure
    assert [hasher(*user) for user in users] == hashes(*users)


def test_a_customer_is_taken_out_of_the_log_of_a_workspace(tmp_path, location, event, monkeypatch):
    workspace = Workspace(tmp_path / "shop").create()
    if "://" in location:
        monkeypatch.setenv("QIANMIAN_ONLINE_STORE", location)
    customer = ErasedCustomer((GONE, ("till", "t-1")), ("ud6142523bee7eefa",))
    assert erase_events(workspace, customer).removed == 0  # a log that is made by it refuses what comes later
    place = location if "://" in location else workspace.online / "events.db"
    with closing(open_log(place, TombstoneHasher(workspace))) as log:
        assert log.append([event(1, source_user_id=GONE[1]), event(2)]) == [Stored("erased", 0), Stored("new", 1)]
    stays = ErasedCustomer((("shop", "u1"), ("shop", "")), ())
    assert [erase_events(workspace, stays).removed for _ in range(2)] == [1, 0]


def test_readers_go_on_over_gaps(log, event, monkeypatch):
    for module in ("sqlite_steps", "redis_log"):
        monkeypatch.setattr(f"features.event_log.{module}.COMPACTED_AT_ONCE", 4)
    log.append([event(n, source_user_id="stays" if n in (2, 13) else GONE[1]) for n in range(20)])
    reader, behind = Tail(log, 5), Tail(log, 0)
    log.erase([GONE], hashes(GONE))
    assert [logged.seq for logged in behind.read(limit=1)] == [3]
    assert behind.changed()
    assert [logged.seq for logged in behind.read(limit=10)] == [14]
    assert (behind.after, behind.erasures, behind.changed()) == (20, 1, False)
    assert [logged.seq for logged in reader.read()] == [14]
    assert reader.after == 20
    assert log.append([event("next")]) == [Stored("new", 21)]
    assert log.compact(12, 0, NOW) == Compacted(1, 1)
    assert (log.header().first_seq, [logged.seq for logged in log.tail(0, 9).events]) == (13, [14, 21])
    assert log.compact(20, 0, NOW) == Compacted(1, 1)
    assert (log.header().first_seq, [logged.seq for logged in log.tail(0, 9).events]) == (21, [21])


def test_all_events_of_a_log_can_be_erased(log, event, files):
    log.append([event(n, source_user_id=GONE[1]) for n in range(5)])
    assert log.erase([GONE], hashes(GONE)) == 5
    assert log.tail(0, 10).events == []
    assert GONE[1].encode() not in files()
    assert log.append([event("next")]) == [Stored("new", 6)]
    assert [logged.seq for logged in log.tail(0, 10).events] == [6]


def test_rows_that_were_moved_or_compacted_before_leave_no_bytes(log, event, files):
    """Deleting neighbours moves rows within the file, and compaction does not overwrite what it deletes."""
    choose = random.Random(3)
    users = [f"{choose.getrandbits(64):x}" for _ in range(30)]
    numbers = iter(range(10_000))

    def send(count):
        log.append(
            [event(next(numbers), source_user_id=user, body=b"x" * 50) for user in choose.choices(users, k=count)]
        )

    for _ in range(3):
        send(400)
        log.compact(log.header().last_seq - 150, 1, NOW)
    for user in users[:2]:
        log.erase([("shop", user)], hashes(("shop", user)))
        assert user.encode() not in files()
    assert sum(user.encode() in files() for user in users) > 20


def start(location: str, *words: object) -> subprocess.Popen[str]:
    environment = {"PYTHONPATH": str(ROOT), "QIANMIAN_PII_KEY": KEY}
    command = [sys.executable, str(ERASING), location, *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment)


def test_two_processes_append_while_a_third_erases(location, log, event, files):
    """Whatever was appended before is removed, and what comes after is refused: there is no moment between."""
    appending = [start(location, "append", GONE[1], name) for name in "ab"]
    assert all(process.stdout.readline() == "new\n" for process in appending)
    tail, seen, ended = Tail(log, 0), [], threading.Event()

    def follow():
        while not ended.is_set() or tail.changed():
            seen.extend(logged.seq for logged in tail.read(50))

    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(follow)
        time.sleep(0.2)
        erasing = start(location, "erase", GONE[1])
        assert erasing.wait(60) == 0
        left = files()
        for process in appending:
            lines = process.communicate(timeout=60)[0].splitlines()
            assert process.returncode == 0
            assert lines[-1] == "erased"
            assert lines == sorted(lines, key=["new", "erased"].index), "none is stored after one was refused"
        ended.set()
        following.result()
    assert GONE[1].encode() not in left
    assert GONE[1].encode() not in files()
    assert {logged.event.source_user_id for logged in log.tail(0, 10_000).events} == {"stays"}
    assert seen == sorted(seen)
    assert set(seen) >= {logged.seq for logged in log.tail(0, 10_000).events}


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_an_erasure_that_is_killed_is_done_again(location, log, event, files, part):
    log.append([event(n, source_user_id=GONE[1] if n % 2 else "stays", body=b"x" * 400) for n in range(2_000)])
    begun = time.monotonic()
    process = start(location, "erase-often", GONE[1])
    assert process.stdout.readline() == "begun\n"
    time.sleep(part * 0.1)
    process.kill()
    process.wait()
    assert time.monotonic() - begun < 60
    log.erase([GONE], hashes(GONE))
    assert GONE[1].encode() not in files()
    assert len(log.tail(0, 10_000).events) == 1_000
    assert log.append([event("again", source_user_id=GONE[1]), event("other")])[0] == Stored("erased", 0)


# ---- one store only --------------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path):
    return tmp_path / "events.db"


def test_a_reader_does_not_block_an_erasure_for_ever(path, event, monkeypatch):
    monkeypatch.setattr("features.event_log.sqlite.MOST_READERS_SECONDS", 0.5)
    log = SqliteLog(path, TombstoneHasher())
    log.append([event(n, source_user_id=GONE[1]) for n in range(50)])
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM events").fetchone() == (50,)
    with pytest.raises(StorageError, match="a program has been reading") as caught:
        log.erase([GONE], hashes(GONE))
    assert "erase again" in caught.value.hint
    assert log.append([event("x", source_user_id=GONE[1]), event("y")]) == [Stored("erased", 0), Stored("new", 51)]
    reader.close()
    log.erase([GONE], hashes(GONE))
    assert all(GONE[1].encode() not in found.read_bytes() for found in path.parent.iterdir())
    log.close()


def test_programs_of_before_refuse_only_a_log_with_erased_users(path, event):
    log = SqliteLog(path, TombstoneHasher())
    log.append([event(1)])
    other = sqlite3.connect(path)
    assert other.execute("PRAGMA user_version").fetchone() == (1,)
    log.erase([GONE], hashes(GONE))
    assert other.execute("PRAGMA user_version").fetchone() == (2,)
    assert other.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    other.close()
    log.close()


def test_an_erasure_that_began_before_another_does_not_end(redis_server, event, monkeypatch):
    """Its copy of the stream may have what the other one removes."""
    redis_server.client.flushall()
    first, second = (RedisLog(redis_server.url, TombstoneHasher()) for _ in range(2))
    first.append([event(n, source_user_id=GONE[1] if n % 2 else "stays") for n in range(10)])
    other, remove = ("shop", "stays"), RedisLog._erase_events

    def slow(self, *arguments):
        yield from remove(self, *arguments)
        if self is first:
            second.erase([other], hashes(other))

    with monkeypatch.context() as patched:
        patched.setattr(RedisLog, "_erase_events", slow)
        with pytest.raises(StorageError, match="another erasure has begun"):
            first.erase([GONE], hashes(GONE))
    assert first.erase([GONE], hashes(GONE)) == 0
    assert first.tail(0, 10).events == []
    assert not redis_server.client.exists(COPY)
    assert all(name.startswith(PREFIX.encode()) for name in redis_server.client.scan_iter())  # one slot of a cluster
    first.close()
    second.close()
