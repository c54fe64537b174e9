"""Accepted events in a real log, as a process sees them that follows it."""

from __future__ import annotations

import logging
import random
import threading
import time
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from features.compute.spec import FeatureSpec
from features.event_log import open_log
from features.event_log.rows import encode, make_row
from features.profiles.snapshot import Snapshot
from qianmian.errors import InvalidRequest
from serving.events import live
from serving.events.live import LiveEvents
from tests.waiting import until

START = datetime(2026, 5, 1)
SECONDS = 20  # that a machine under load may take for what takes milliseconds


def snapshot(*customers: tuple[str, str, str]) -> Snapshot:
    """Profiles that know some user ids, each (one_id, source, user id)."""
    columns = zip(*customers, strict=True) if customers else ([], [], [])
    table = pa.table([pa.array(values, pa.string()) for values in columns], ["one_id", "source", "source_user_id"])
    return Snapshot(pa.table({}), {}, table, START, FeatureSpec((), (), "UTC"), "")


PROFILES = snapshot(("ann", "app", "a1"), ("ann", "shop", "a2"), ("bob", "shop", "b"), ("app twin", "app", "b"))


def event(number: object, user: str = "a1", source: str = "app", **values: object):
    row = {"event_type": "view", "item_id": "milk", "ts": START + timedelta(seconds=int(number)), **values}
    return encode(make_row(f"e{number}", {"source": source, "source_user_id": user, **row}))


def numbers(rows) -> list[str]:
    return [row.event_id for row in rows]


def test_events_of_all_user_ids_of_a_customer(log, following):
    log.append([event(1), event(2, "b", "shop")])
    events = following(log)
    customers = events.of(PROFILES)
    assert (customers.has_any("ann", "a1"), customers.has_any("bob", "b"), customers.has_any("app twin", "b")) == (
        True,
        True,
        False,
    )
    log.append([event(3, "a2", "shop"), event(4)])
    until(lambda: numbers(customers.rows("ann", "a1", None)) == ["e1", "e3", "e4"])
    assert numbers(customers.rows("ann", "a2", "shop")) == ["e1", "e3", "e4"]
    assert numbers(customers.rows("bob", "b", "shop")) == ["e2"]
    assert customers.rows("app twin", "b", "app") == ()
    assert customers.rows("ann", "a1", None)[0].values["ts"] == START + timedelta(seconds=1)


def test_a_user_id_that_no_profile_knows_stands_for_itself(log, following):
    log.append([event(1, "visitor"), event(2, "visitor", "web"), event(3, "other", "web")])
    customers = following(log).of(PROFILES)
    assert customers.has_any(None, "visitor")
    assert not customers.has_any(None, "nobody")
    assert numbers(customers.rows(None, "visitor", "web")) == ["e2"]
    assert numbers(customers.rows(None, "other", None)) == ["e3"]
    assert customers.rows(None, "other", "app") == ()
    with pytest.raises(InvalidRequest, match="more than one source") as error:
        customers.rows(None, "visitor", None)
    assert error.value.field == "user_source"


def test_new_profiles_may_know_a_visitor(log, following):
    log.append([event(1, "visitor", "web"), event(2)])
    events = following(log)
    before, after = events.of(PROFILES), events.of(snapshot(("ann", "app", "a1"), ("ann", "web", "visitor")))
    assert events.of(PROFILES) is before
    assert numbers(before.rows("ann", "a1", None)) == ["e2"]
    assert numbers(after.rows("ann", "a1", None)) == ["e1", "e2"]
    log.append([event(3, "visitor", "web")])
    until(lambda: numbers(after.rows("ann", "a1", None)) == ["e1", "e2", "e3"])
    assert numbers(before.rows(None, "visitor", None)) == ["e1", "e3"]


def test_memory_of_rows_is_bounded(log, following):
    log.append([event(10 * number + one, f"u{number}") for number in range(20) for one in range(3)])
    events = following(log, most=10)
    customers = events.of(PROFILES)
    for _ in range(2):
        for number in range(20):
            assert len(customers.rows(None, f"u{number}", None)) == 3
    assert len(events._read) == 3
    assert sum(len(read.rows) for read in events._read.values()) == events._read_size == 9
    log.append([event(1_000 + number, "many") for number in range(11)])
    until(lambda: len(customers.rows(None, "many", None)) == 11)
    assert len(events._read) == 3


def test_rows_are_read_once(log, following, monkeypatch):
    log.append([event(1)])
    events = following(log)
    customers, read = events.of(PROFILES), []
    get = log.get
    monkeypatch.setattr(log, "get", lambda users, after, most: read.append(after) or get(users, after, most))
    for _ in range(3):
        assert numbers(customers.rows("ann", "a1", None)) == ["e1"]
    log.append([event(2)])
    until(lambda: len(customers.rows("ann", "a1", None)) == 2)
    assert read == [0, 1]


def test_only_the_last_events_of_a_customer_are_read(log, following, monkeypatch):
    monkeypatch.setattr(live, "MOST_EVENTS", 5)
    log.append([event(number) for number in range(8)])
    customers = following(log).of(PROFILES)
    assert numbers(customers.rows("ann", "a1", None)) == ["e3", "e4", "e5", "e6", "e7"]
    log.append([event(8), event(9, "a2", "shop")])
    until(lambda: numbers(customers.rows("ann", "a1", None)) == ["e5", "e6", "e7", "e8", "e9"])
    log.append([event(number) for number in range(10, 20)])
    until(lambda: numbers(customers.rows("ann", "a1", None)) == ["e15", "e16", "e17", "e18", "e19"])


def test_a_lost_log_keeps_what_was_known_and_recovers(tmp_path, following, caplog):
    path = tmp_path / "events.db"
    log = open_log(path)
    log.append([event(1), event(2, "b", "shop")])
    events = following(log)
    customers = events.of(PROFILES)
    assert numbers(customers.rows("ann", "a1", None)) == ["e1"]
    files = [path, *tmp_path.glob("events.db-*")]
    caplog.set_level(logging.INFO, logger="serving")
    for file in files:
        file.rename(tmp_path / f"away-{file.name}")
    until(lambda: events.lost)
    time.sleep(3 * live.RETRY_SECONDS)
    assert numbers(customers.rows("ann", "a1", None)) == ["e1"]
    assert (customers.has_any("bob", "b"), customers.rows("bob", "b", "shop")) == (True, ())
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    for file in files:
        (tmp_path / f"away-{file.name}").rename(file)
    until(lambda: not events.lost)
    assert numbers(customers.rows("bob", "b", "shop")) == ["e2"]
    assert "recovered" in caplog.text
    log.append([event(3)])
    until(lambda: numbers(customers.rows("ann", "a1", None)) == ["e1", "e3"])
    log.close()


def test_another_log_in_its_place_is_followed_from_its_first_event(tmp_path, following):
    path = tmp_path / "events.db"
    log = open_log(path)
    log.append([event(1), event(2), event(3, "b", "shop")])
    events = following(log)
    customers = events.of(PROFILES)
    assert len(customers.rows("ann", "a1", None)) == 2
    for file in (path, *tmp_path.glob("events.db-*")):
        file.unlink()
    other = open_log(path)
    other.append([event(8), event(9)])
    until(lambda: numbers(customers.rows("ann", "a1", None)) == ["e8", "e9"])
    until(lambda: not customers.has_any("bob", "b"))
    other.close()
    log.close()


def test_users_whose_events_are_in_the_lake_are_forgotten(log, following, monkeypatch):
    monkeypatch.setattr(live, "FORGET_SECONDS", 0.0)
    log.append([event(1), event(2, "b", "shop"), event(3, "a2", "shop")])
    events = following(log)
    customers = events.of(PROFILES)
    log.compact(2, 30.0, datetime.now(UTC))
    until(lambda: not customers.has_any("bob", "b"))
    assert customers.users("ann", "a1", None) == (("shop", "a2"),)
    log.append([event(4, "b", "shop")])
    until(lambda: numbers(customers.rows("bob", "b", "shop")) == ["e4"])


def test_any_order_of_appends_duplicates_restarts_and_profiles(log, following):
    """Whatever happens when, a customer has the events that were stored, in the order of their numbers."""
    draws = random.Random(5)
    users = [("app", "a1"), ("shop", "a2"), ("shop", "b"), ("web", "visitor")]
    stored: dict[str, tuple[str, str]] = {}  # event id → user
    sent = []
    events = following(log)
    views = [events.of(PROFILES)]
    for step in range(120):
        kind = draws.choice(["append", "append", "again", "restart", "profiles", "read"])
        if kind == "append":
            batch = [
                event(f"{step}{at}", user, source, ts=START + timedelta(seconds=draws.randint(-500, 500)))
                for at in range(draws.randint(1, 4))
                for source, user in [draws.choice(users)]
            ]
            log.append(batch)
            sent += batch
            stored |= {one.event_id: (one.source, one.source_user_id) for one in batch}
        elif kind == "again" and sent:
            assert {one.status for one in log.append(draws.sample(sent, min(len(sent), 3)))} == {"duplicate"}
        elif kind == "restart":
            events.close()
            events = following(log, most=draws.choice([0, 5, 1_000]))
            views = [events.of(PROFILES)]
        elif kind == "profiles":
            views = [events.of(draws.choice([PROFILES, snapshot(("ann", "app", "a1"), ("ann", "web", "visitor"))]))]
        else:
            views[-1].rows("ann", "a1", None)
    expected = {user: [name for name, of in stored.items() if of == user] for user in users}
    of_ann = [name for name, of in stored.items() if of in users[:2]]
    view = events.of(PROFILES)
    until(lambda: numbers(view.rows("ann", "a1", None)) == of_ann)
    until(lambda: numbers(view.rows("bob", "b", "shop")) == expected["shop", "b"])
    until(lambda: numbers(view.rows(None, "visitor", None)) == expected["web", "visitor"])


def test_threads_read_while_others_append(log, following):
    events = following(log, most=50)
    stop, failures = threading.Event(), []

    def read() -> None:
        before = 0
        try:
            while not stop.is_set():
                found = numbers(events.of(PROFILES).rows("ann", "a1", None))
                assert found == sorted(found, key=lambda name: int(name[1:])), "in order"
                assert len(set(found)) == len(found) >= before, "each once, and none is lost"
                before = len(found)
        except AssertionError as error:
            failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for thread in readers:
        thread.start()
    for number in range(100):
        log.append([event(number), event(1_000 + number, f"visitor{number}")])
    until(lambda: len(events.of(PROFILES).rows("ann", "a1", None)) == 100)
    stop.set()
    for thread in readers:
        thread.join()
    assert not failures


def test_a_log_that_cannot_be_opened_yet_is_opened_later(tmp_path):
    folder = tmp_path / "mounted later"
    events = LiveEvents(lambda: open_log(folder / "events.db"))
    events.start()
    events.wait(SECONDS)
    customers = events.of(PROFILES)
    assert (events.lost, customers.rows("ann", "a1", None)) == (True, ())
    folder.mkdir()
    with_event = open_log(folder / "events.db")
    with_event.append([event(1)])
    until(lambda: numbers(customers.rows("ann", "a1", None)) == ["e1"])
    until(lambda: not events.lost)
    events.close()
    with_event.close()


def test_it_is_lost_until_it_has_read_the_log(tmp_path, monkeypatch):
    """At the start, if that takes long, and when another log has taken its place: answers must not seem up to date."""
    path, go_on, add = tmp_path / "replaced.db", threading.Event(), LiveEvents._add

    def add_later(self: LiveEvents, events) -> None:
        assert go_on.wait(SECONDS)
        add(self, events)

    monkeypatch.setattr(LiveEvents, "_add", add_later)
    log = open_log(path)
    log.append([event(1)])
    events = LiveEvents(lambda: log)
    events.start()
    events.wait(0.1)
    assert events.lost
    go_on.set()
    until(lambda: not events.lost)
    assert numbers(events.of(PROFILES).rows("ann", "a1", None)) == ["e1"]
    go_on.clear()
    for file in tmp_path.glob("replaced.db*"):
        file.unlink()
    other = open_log(path)
    other.append([event(2)])
    until(lambda: not events._last)
    assert events.lost
    go_on.set()
    until(lambda: not events.lost)
    assert numbers(events.of(PROFILES).rows("ann", "a1", None)) == ["e2"]
    events.close()
    other.close()
    log.close()
