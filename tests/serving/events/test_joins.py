"""Visitors join the customer who logs in, whatever comes first, and what is shared belongs to nobody."""

from __future__ import annotations

import itertools
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from features.compute.spec import FeatureSpec
from features.event_log import open_log
from features.event_log.base import AcceptedEvent
from features.event_log.rows import EventRow, encode
from features.profiles.snapshot import Snapshot
from qianmian.errors import InvalidRequest
from serving.events import live
from serving.events.customers import LiveCustomers
from tests.waiting import until

START = datetime(2026, 5, 1)
SECONDS = 20


def snapshot(*customers: tuple[str, str, str]) -> Snapshot:
    """Profiles that know some user ids, each (one_id, source, user id)."""
    table = pa.table(
        [pa.array(values, pa.string()) for values in zip(*customers, strict=True)],
        ["one_id", "source", "source_user_id"],
    )
    return Snapshot(pa.table({}), {}, table, START, FeatureSpec((), (), "UTC"), "")


PROFILES = snapshot(("ann", "web", "a"), ("ann", "app", "a2"), ("bob", "web", "b"), ("alone", "web", "known"))


def event(event_id: str, user: str, kind: str = "view", source: str = "web", **values: object) -> AcceptedEvent:
    row = {"event_id": event_id, "source": source, "source_user_id": user, "event_type": kind, "ts": START, **values}
    return encode(EventRow("events", row, event_id))


def login(event_id: str, user: str, visitor: str, kind: str = "login", **values: object) -> AcceptedEvent:
    return event(event_id, user, kind, anonymous_id=visitor, **values)


def ids(customers, user: str, source: str | None = "web") -> list[str]:
    """The events that a request about a user id reads."""
    return [row.event_id for row in customers.rows(customers.resolve(user, source), user, source)]


@pytest.mark.parametrize("order", itertools.permutations(["before", "login", "after"]))
@pytest.mark.parametrize("user", ["a", "new"])
def test_a_visitor_joins_who_logs_in_whatever_comes_first(log, following, user, order):
    sent = {"before": event("before", "v"), "login": login("login", user, "v"), "after": event("after", "v")}
    customers = following(log).of(PROFILES)
    log.append([event("own", user)])
    for name in order:
        log.append([sent[name]])
    until(lambda: ids(customers, user) == ["own", *order])
    assert ids(customers, "v") == ["own", *order], "a request under the id of the visit is one of the customer"
    assert customers.resolve("v", None) == PROFILES.resolve(user, "web")
    assert customers.has_any(PROFILES.resolve("v"), "v"), "so that no kept list of strangers is the answer"
    again = following(log).of(PROFILES)
    assert ids(again, user) == ids(again, "v") == ["own", *order], "after a restart"


def test_registering_joins_and_other_events_do_not(log, following):
    log.append([event("1", "v"), event("2", "w"), login("3", "a", "v", "register"), login("4", "b", "w", "view")])
    log.append([login("5", "b", "b"), event("6", "x", properties='{"anonymous_id":"w"}')])
    customers = following(log).of(PROFILES)
    assert ids(customers, "a") == ["1", "3"]
    assert (ids(customers, "w"), ids(customers, "b")) == (["2"], ["4", "5"])


def test_an_id_from_which_different_customers_log_in_belongs_to_none(log, following):
    log.append([event("1", "v"), login("2", "a", "v")])
    customers = following(log).of(PROFILES)
    assert ids(customers, "v") == ["1", "2"]
    log.append([login("3", "a2", "v", source="app"), login("4", "a", "v")])
    log.append([login("5", "b", "v")])
    until(lambda: ids(customers, "v") == ["1"])
    assert customers.resolve("v", "web") is None
    assert (ids(customers, "a"), ids(customers, "b")) == (["2", "3", "4"], ["5"])
    log.append([event("6", "v")])
    until(lambda: ids(customers, "v") == ["1", "6"])
    other = following(log).of(PROFILES)
    assert (ids(other, "a"), ids(other, "b"), ids(other, "v")) == (["2", "3", "4"], ["5"], ["1", "6"])


def test_two_user_ids_of_one_customer_do_not_share(log, following):
    log.append([event("1", "v"), login("2", "a", "v"), login("3", "also", "v")])
    events = following(log)
    assert ids(events.of(PROFILES), "v") == ["1"], "these profiles do not know that they are one"
    profiles = snapshot(("ann", "web", "a"), ("ann", "web", "also"))
    assert ids(events.of(profiles), "v") == ids(events.of(profiles), "also") == ["1", "2", "3"]


def test_what_the_profiles_say_of_the_visitor(log, following):
    log.append([event("1", "known"), event("2", "a2", source="app"), login("3", "a", "known")])
    events = following(log)
    customers = events.of(PROFILES)
    assert customers.resolve("known", "web") == customers.resolve("known", None) == "ann"
    assert ids(customers, "a") == ["1", "2", "3"], "a visitor with a profile of its own joins"
    assert ids(events.of(snapshot(("ann", "web", "a"), ("ann", "web", "known"))), "a") == ["1", "3"]
    # profiles that have learnt of the login of another customer before: the id is shared
    shared = events.of(snapshot(("bob", "web", "b"), ("bob", "web", "known"), ("ann", "web", "a")))
    assert shared.resolve("known", "web") is None
    assert shared.has_any("bob", "known"), "so that no kept list of that customer is the answer"
    assert (ids(shared, "known"), ids(shared, "a"), ids(shared, "b")) == (["1"], ["3"], [])


def test_ids_of_visits_in_several_sources(log, following):
    log.append([event("1", "v"), login("2", "a", "v"), event("3", "v", source="app")])
    customers = following(log).of(PROFILES)
    assert ids(customers, "v", "app") == ["3"]
    with pytest.raises(InvalidRequest, match="more than one source"):
        ids(customers, "v", None)
    log.append([login("4", "a2", "v", source="app")])
    until(lambda: customers.resolve("v", None) == "ann")
    assert ids(customers, "v", None) == ["1", "2", "3", "4"]


def test_joins_go_with_the_events_that_are_removed(log, following, monkeypatch):
    monkeypatch.setattr(live, "FORGET_SECONDS", 0.0)
    log.append([event("1", "v"), login("2", "a", "v"), login("3", "new", "w"), event("4", "x"), login("5", "b", "v")])
    customers = following(log).of(PROFILES)
    assert ids(customers, "v") == ["1"]
    log.compact(3, 30.0, datetime.now(UTC))
    until(lambda: customers.resolve("v", "web") == "bob")
    until(lambda: not customers.has_any(None, "w"))
    assert (ids(customers, "b"), ids(customers, "a"), ids(customers, "new")) == (["5"], [], [])
    log.compact(5, 30.0, datetime.now(UTC))
    until(lambda: customers.resolve("v", "web") is None)
    until(lambda: not any(customers.has_any(PROFILES.resolve(user), user) for user in "abvwx"))
    log.append([event("6", "x")])
    until(lambda: ids(customers, "x") == ["6"])
    assert not customers._owners
    assert not customers._joined


def test_joins_of_another_log_take_the_place_of_those_before(tmp_path, following):
    path = tmp_path / "replaced.db"
    log = open_log(path)
    log.append([event("1", "v"), login("2", "a", "v"), event("3", "known"), login("4", "new", "known")])
    customers = following(log).of(PROFILES)
    assert ids(customers, "v") == ["1", "2"]
    assert ids(customers, "known") == ["3", "4"]
    for file in (path, *tmp_path.glob("replaced.db-*")):
        file.unlink()
    other = open_log(path)
    other.append([event("8", "v"), login("9", "b", "v")])
    until(lambda: ids(customers, "v") == ["8", "9"])
    until(lambda: customers.resolve("known", "web") == "alone")
    assert not any(customers.has_any(PROFILES.resolve(user), user) for user in ("a", "new", "known"))
    other.close()
    log.close()


def test_an_event_that_cannot_be_read_joins_nobody(log, following):
    body = b'{"row":["anonymous_id":'
    log.append([AcceptedEvent("web", "1", "a", 0, body), login("2", "b", "v"), event("3", "v")])
    events = following(log)
    until(lambda: ids(events.of(PROFILES), "v") == ["2", "3"])
    assert not events.lost


def test_any_order_gives_what_one_reading_of_the_log_gives(log, following):
    draws, events = random.Random(3), following(log)
    customers = events.of(PROFILES)
    users, visitors = ["a", "b", "new"], ["v", "w", "known", "b"]
    for number in range(60):
        if draws.random() < 0.2:
            log.append([login(str(number), draws.choice(users), draws.choice(visitors))])
        else:
            log.append([event(str(number), draws.choice(users + visitors), ts=START + timedelta(seconds=number))])
    until(lambda: events._tail.after == 60)
    fresh = following(log).of(PROFILES)
    for user in users + visitors:
        until(lambda user=user: ids(customers, user) == ids(fresh, user))
        assert customers.resolve(user, "web") == fresh.resolve(user, "web")


def test_a_visitor_who_has_left_never_gets_the_kept_list_of_its_customer(log, following, monkeypatch):
    """Whatever else of that customer leaves the log: `has_any` is what keeps a request past the kept lists."""
    monkeypatch.setattr(live, "FORGET_SECONDS", 0.0)
    profiles = snapshot(("bob", "web", "b"), ("bob", "web", "known"), ("bob", "web", "also"), ("ann", "web", "a"))
    log.append([event("1", "b"), login("2", "a", "known"), login("3", "a", "also"), login("4", "a", "known")])
    customers = following(log).of(profiles)
    assert ids(customers, "b") == ["1"]
    log.compact(1, 30.0, datetime.now(UTC))
    log.append([event("5", "x")])
    until(lambda: not ids(customers, "b"))
    assert customers.resolve("known", "web") is None, "shared"
    assert customers.has_any("bob", "known")
    log.compact(3, 30.0, datetime.now(UTC))
    until(lambda: customers.resolve("also", "web") == "bob")
    assert customers.has_any("bob", "known"), "another visitor has come back"
    log.compact(4, 30.0, datetime.now(UTC))
    until(lambda: customers.resolve("known", "web") == "bob")
    until(lambda: not customers.has_any("bob", "known"))


def test_a_view_that_is_made_while_another_log_begins_knows_that_one_only(tmp_path, following, monkeypatch):
    """Its user ids were listed before, and are added after all others were removed."""
    path = tmp_path / "replaced.db"
    log = open_log(path)
    log.append([event("1", "v")])
    events, listed, replaced = following(log), threading.Event(), threading.Event()
    add = LiveCustomers.add

    def add_late(view: LiveCustomers, users: list[tuple[str, str]]) -> None:
        if users == [("web", "v")]:
            listed.set()
            replaced.wait(SECONDS)
        add(view, users)

    monkeypatch.setattr(LiveCustomers, "add", add_late)
    with ThreadPoolExecutor(1) as pool:
        making = pool.submit(events.of, PROFILES)
        assert listed.wait(SECONDS)
        for file in (path, *tmp_path.glob("replaced.db-*")):
            file.unlink()
        other = open_log(path)
        other.append([event("2", "w")])
        until(lambda: events._generation)
        time.sleep(0.1)  # for what is done after that
        replaced.set()
        customers = making.result()
    until(lambda: ids(customers, "w") == ["2"])
    until(lambda: not customers.has_any(None, "v"))
    other.close()
    log.close()


@pytest.mark.parametrize("order", itertools.permutations(range(3)))
@pytest.mark.parametrize("account", ["known", "new"])
def test_an_account_is_no_visitor_of_the_next_one(log, following, order, account):
    """An application that names the user before as `anonymous_id` must not give one customer's answers to another."""
    sent = [event("own", account), login("first", account, "v"), login("next", "b", account)]
    customers = following(log).of(PROFILES)
    for place in order:
        log.append([sent[place]])
    until(lambda: set(ids(customers, account)) == {"own", "first"} and ids(customers, "b") == ["next"])
    assert customers.resolve(account, "web") == PROFILES.resolve(account, "web")
    assert customers.resolve("v", "web") == PROFILES.resolve(account, "web")
    again = following(log).of(PROFILES)
    assert set(ids(again, account)) == {"own", "first"}, "after a restart"
    assert ids(again, "b") == ["next"]
