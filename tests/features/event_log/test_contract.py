"""The contract that every store keeps."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from features.event_log import EVENT_LOGS, Tail, open_log
from features.event_log.base import Compacted, Stored
from features.event_log.tail import ReaderBehind
from qianmian.errors import DataError, StorageError, UsageError

NOW = datetime(2026, 5, 1, tzinfo=UTC)


def test_events_come_back_in_order_and_whole(log, event):
    events = [event(n, ts=100 - n, source_user_id=f"u{n % 3}", body=b'{"n": %d}' % n) for n in range(10)]
    assert log.append(events) == [Stored("new", n + 1) for n in range(10)]
    page = log.tail(0, 100)
    assert [logged.seq for logged in page.events] == list(range(1, 11))
    assert [logged.event for logged in page.events] == events
    assert (page.header.first_seq, page.header.last_seq) == (1, 10)
    assert [logged.seq for logged in log.tail(4, 3).events] == [5, 6, 7]
    assert log.tail(10, 100).events == []
    assert log.append([]) == []


def test_duplicates_and_conflicts(log, event):
    first, other = event(1), event(1, body=b"[]")
    answers = [Stored("new", 1), Stored("duplicate", 1), Stored("conflict", 1), Stored("new", 2)]
    assert log.append([first, first, other, event(2)]) == answers
    assert log.append([first, other, event(1, ts=5), event(1, source_user_id="u2")]) == [
        Stored("duplicate", 1),
        *[Stored("conflict", 1)] * 3,
    ]
    assert log.append([event(1, source="till")]) == [Stored("new", 3)]  # an id of another source
    assert log.append([event(3, source="a", event_id="bc"), event(3, source="ab", event_id="c")])[1].status == "new"
    assert [logged.event.body for logged in log.tail(0, 10).events][0] == b"{}"


def test_a_restart_keeps_everything(location, event):
    log = open_log(location)
    log.append([event(1), event(2)])
    before = log.header()
    log.close()
    with pytest.raises(StorageError, match="closed"):
        log.append([event(3)])
    log = open_log(location)
    assert log.header() == before
    assert log.append([event(2), event(3)]) == [Stored("duplicate", 2), Stored("new", 3)]
    log.close()


def test_events_of_users(log, event):
    log.append([event(n, source="ab"[n % 2], source_user_id=f"u{n % 5}") for n in range(40)])
    found = log.get([("a", "u0"), ("b", "u1"), ("a", "nobody"), ("a", "u0")])
    assert [logged.seq for logged in found] == sorted([1, 11, 21, 31, 2, 12, 22, 32])
    assert [logged.event.source_user_id for logged in found[:2]] == ["u0", "u1"]
    assert [logged.seq for logged in log.get([("a", "u0")], after=11)] == [21, 31]
    assert log.get([]) == []


def test_the_last_events_of_users(log, event):
    log.append([event(n, source_user_id=f"u{n % 3}") for n in range(30)])
    users = [("shop", "u0"), ("shop", "u1")]
    everything = log.get(users)
    for most in (0, 1, 3, 19, 20, 1_000):
        assert log.get(users, most=most) == everything[len(everything) - min(most, 20) :]
    assert [logged.seq for logged in log.get(users, after=20, most=3)] == [26, 28, 29]
    assert log.get(users, after=27, most=5) == everything[-2:]


@pytest.mark.parametrize(
    "text", ["é", "e\u0301", "用户😀", " a ", "'; DROP TABLE events; --", "{x}:*", "\n\x01\x7f", "", "x" * 5_000]
)
def test_ids_are_any_text(log, event, text):
    """Two spellings of é are two ids: nothing is normalised."""
    sent = event(0, source=text, event_id=text, source_user_id=text)
    assert log.append([sent, event(1), sent]) == [Stored("new", 1), Stored("new", 2), Stored("duplicate", 1)]
    assert [logged.event for logged in log.get([(text, text)])] == [sent]
    assert log.tail(0, 1).events[0].event == sent


@pytest.mark.parametrize("body", [b"", b"\0\xff\0", b"7" * (1 << 20)], ids=["none", "bytes", "1 MiB"])
def test_bodies_are_any_bytes(log, event, body):
    log.append([event(1, body=body), event(2, ts=-(1 << 63)), event(3, ts=(1 << 63) - 1)])
    events = [logged.event for logged in log.tail(0, 3).events]
    assert events == [event(1, body=body), event(2, ts=-(1 << 63)), event(3, ts=(1 << 63) - 1)]


@pytest.mark.parametrize(
    "values",
    [
        {"source": 1},
        {"event_id": None},
        {"source_user_id": "a\0b"},
        {"event_id": "\ud800"},
        {"ts": 1.0},
        {"ts": True},
        {"ts": 1 << 63},
        {"body": "{}"},
        {"body": bytearray(b"{}")},
        {"body": b"7" * ((1 << 20) + 1)},
    ],
    ids=str,
)
def test_what_no_store_can_write_is_refused_before_it_waits(log, event, values):
    with pytest.raises(DataError, match="an event cannot be stored") as caught:
        log.append([event(1), event(2, **values)])
    assert caught.value.field in values
    assert log.tail(0, 10).events == []


def test_concurrent_callers_store_each_event_once(location, opened, event):
    """Two logs stand for two processes here; test_processes.py has real ones."""
    logs = [opened(location), opened(location)]

    def send(worker):
        return [logs[worker % 2].append([event(n), event(f"{worker}-{n}")]) for n in range(30)]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(send, range(8)))
    shared = [answer[0] for call in answers for answer in call]
    assert sum(answer.status == "new" for answer in shared) == 30
    assert {answer.status for answer in shared} == {"new", "duplicate"}
    assert all(answer[1].status == "new" for call in answers for answer in call)
    logged = logs[0].tail(0, 1_000).events
    assert [one.seq for one in logged] == list(range(1, 30 + 240 + 1))
    seqs = {one.event.event_id: one.seq for one in logged}
    assert all(seqs[f"e{n}"] == call[n][0].seq for call in answers for n in range(30))


def test_coroutines_wait_for_the_same_commits(log, event):
    async def send():
        calls = [log.append_async([event(n), event("same")]) for n in range(200)]
        return await asyncio.gather(*calls)

    answers = asyncio.run(send())
    assert [answer[0].status for answer in answers] == ["new"] * 200
    assert sum(answer[1].status == "new" for answer in answers) == 1
    assert log.header().last_seq == 201


def test_a_cancelled_coroutine_disturbs_nobody(log, event):
    async def send():
        task = asyncio.create_task(log.append_async([event(1)]))
        await asyncio.sleep(0)
        task.cancel()
        return await log.append_async([event(2)])

    assert asyncio.run(send())[0].status == "new"
    assert log.append([event(3)])[0].status == "new"


def test_the_version_changes_with_every_commit(location, opened, event):
    log, other = opened(location), opened(location)
    seen = log.version()
    assert log.version() == seen
    for writer in (log, other):
        writer.append([event(writer is log)])
        assert log.version() != seen
        seen = log.version()
        assert log.version() == seen


def test_a_tail_reads_on_where_it_was(log, event):
    tail = Tail(log, 0)
    assert tail.changed()
    assert tail.read() == []
    assert not tail.changed()
    log.append([event(n) for n in range(5)])
    assert tail.changed()
    assert [len(tail.read(limit=2)) for _ in range(2)] == [2, 2]
    assert tail.changed()  # the limit was reached: there may be more
    assert [logged.seq for logged in tail.read(limit=2)] == [5]
    assert not tail.changed()


def test_a_tail_never_skips_an_event(location, opened, event):
    reader, writers = opened(location), [opened(location), opened(location)]
    threads = [
        threading.Thread(target=lambda w=w: [writers[w % 2].append([event(f"{w}-{n}")]) for n in range(60)])
        for w in range(6)
    ]
    for thread in threads:
        thread.start()
    tail, seen = Tail(reader, 0), []
    while any(thread.is_alive() for thread in threads) or tail.changed():
        if tail.changed():
            seen += tail.read(limit=7)
    assert [logged.seq for logged in seen] == list(range(1, 361))


def test_compaction_removes_events_and_keeps_identities(log, event):
    sent = [event(n, source_user_id=f"u{n % 2}") for n in range(11)]
    log.append(sent[:10])
    assert log.compact(6, 30, NOW) == Compacted(events=6, identities=0)
    header = log.header()
    assert (header.first_seq, header.last_seq) == (7, 10)
    assert [logged.seq for logged in log.tail(0, 100).events] == [7, 8, 9, 10]
    assert [logged.seq for logged in log.get([("shop", "u0")])] == [7, 9]
    assert log.append([sent[0], sent[1]._replace(body=b"[]"), sent[8]]) == [
        Stored("duplicate", 1),
        Stored("conflict", 2),
        Stored("duplicate", 9),
    ]
    assert log.compact(6, 30, NOW) == Compacted(0, 0)
    assert log.compact(100, 30, NOW + timedelta(days=1)) == Compacted(4, 0)
    assert log.append([sent[10]]) == [Stored("new", 11)]  # numbers go on
    assert log.compact(0, 30, NOW + timedelta(days=30)) == Compacted(events=0, identities=6)
    assert [answer.status for answer in log.append([sent[0], sent[6]])] == ["new", "duplicate"]
    assert log.compact(0, 30, NOW + timedelta(days=31)) == Compacted(events=0, identities=4)
    assert [logged.seq for logged in log.tail(0, 100).events] == [11, 12]


def test_an_emptied_log_goes_on_after_a_restart(location, event):
    log = open_log(location)
    log.append([event(1), event(2)])
    log.compact(2, 0, NOW)
    assert (log.header().first_seq, log.header().last_seq) == (3, 2)
    log.close()
    log = open_log(location)
    assert log.append([event(3)]) == [Stored("new", 3)]
    log.close()


def test_compaction_takes_many_steps(log, event, monkeypatch):
    for module in ("sqlite_steps", "redis_log"):
        monkeypatch.setattr(f"features.event_log.{module}.COMPACTED_AT_ONCE", 7)
    log.append([event(n) for n in range(50)])
    assert log.compact(45, 0, NOW) == Compacted(45, 45)
    assert log.header().first_seq == 46


def test_a_reader_learns_that_it_is_behind(log, event):
    log.append([event(n) for n in range(10)])
    behind, beyond = Tail(log, 3), Tail(log, 11)
    known = Tail(log, 6)
    log.compact(6, 30, NOW)
    assert [logged.seq for logged in known.read()] == [7, 8, 9, 10]
    for tail in (behind, beyond, Tail(log, 8, log_id="another")):
        with pytest.raises(ReaderBehind, match="are not there"):
            tail.read()


def test_the_scheme_names_the_store(tmp_path, event):
    assert list(EVENT_LOGS) == ["sqlite", "redis", "rediss"]
    log = open_log(f"sqlite://{tmp_path}/events.db")
    log.append([event(1)])
    log.close()
    log = open_log(tmp_path / "events.db")
    assert log.header().last_seq == 1
    log.close()
    with pytest.raises(UsageError, match="unknown event log .*'kafka'"):
        open_log("kafka://broker/events")


def test_a_reader_waits_until_another_has_appended(location, opened, event):
    reader, writer = opened(location), opened(location)
    tail = Tail(reader, 0)
    assert tail.read() == []
    for number in (1, 2):
        started = time.monotonic()
        tail.wait(0.05)  # there is nothing
        timer = threading.Timer(0.1, writer.append, [[event(number)]])
        timer.start()
        while not tail.changed() and time.monotonic() - started < 30:
            tail.wait(30)
        assert time.monotonic() - started < 20
        assert [logged.seq for logged in tail.read()] == [number]
        timer.join()
