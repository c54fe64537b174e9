"""Consents, availabilities and logins of visitors in the lake: merged by their time, once, and never against an export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from features.data.ingest import IngestReport, ingest
from features.data.lake import Lake
from features.data.sources import FileSource
from features.data.sources.event_log import EventLogSource
from features.event_log import AcceptedEvent, EventLog, open_log
from features.event_log.rows import encode, make_row
from qianmian.settings import Settings
from qianmian.workspace import Workspace

NOON = datetime(2026, 5, 1, 12)
NOW = datetime(2026, 6, 1)
HOUR = timedelta(hours=1)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "workspace").create()


@pytest.fixture
def log(workspace: Workspace) -> EventLog:
    log = open_log(workspace.online / "events.db")
    yield log
    log.close()


def event(event_id: str, event_type: str = "view", hours: float = 0, user: str = "ann", **values: Any) -> AcceptedEvent:
    row = {"source": "shop", "source_user_id": user, "ts": NOON + hours * HOUR, "event_type": event_type, **values}
    return encode(make_row(event_id, row))


def consent(event_id: str, granted: bool, hours: float = 0, channel: str = "email", user: str = "ann") -> AcceptedEvent:
    return event(event_id, "consent", hours, user, channel=channel, granted=granted)


def availability(event_id: str, available: bool, hours: float = 0, item: str = "milk") -> AcceptedEvent:
    return event(event_id, "availability", hours, "", item_id=item, available=available)


def login(event_id: str, user: str, visitor: str = "v1", hours: float = 0, **values: Any) -> AcceptedEvent:
    return event(event_id, "login", hours, user, anonymous_id=visitor, **values)


def read(workspace: Workspace, now: datetime = NOW, **identity: Any) -> IngestReport:
    settings = Settings(identity=identity) if identity else Settings()
    return ingest(workspace, EventLogSource(workspace.online / "events.db"), settings, now=now)


def rows(workspace: Workspace, query: str) -> list[tuple[Any, ...]]:
    return Lake(workspace).connect().con.execute(query).fetchall()


def export(
    workspace: Workspace, table: str, given: Sequence[Mapping[str, Any]], now: datetime = NOW, more: str = ""
) -> IngestReport:
    """Ingest an export of the shop, whose columns have the canonical names."""
    names = list(given[0])
    lines = [",".join(names), *(",".join(str(row[name]) for name in names) for row in given)]
    (workspace.root / "export.csv").write_text("\n".join(lines))
    config = workspace.root / "sources.yaml"
    columns = ", ".join(f"{name}: {name}" for name in names)
    config.write_text(
        f"source: shop\ntimezone: UTC\ntables:\n  {table}:\n    path: export.csv\n    columns: {{{columns}}}\n{more}"
    )
    return ingest(workspace, FileSource(config), Settings(), now=now)


# ---- consents --------------------------------------------------------------------------------------------------------


def email_of(workspace: Workspace, user: str = "ann") -> bool | None:
    ((found,),) = rows(workspace, f"SELECT consent_email FROM profiles WHERE source_user_id = '{user}'")
    return found


def test_a_consent_is_a_profile_that_tells_nothing_else(workspace, log):
    log.append([consent("c1", True), consent("c2", False, 1, "sms"), event("e1", hours=-2)])
    report = read(workspace)
    assert (report.read, report.kept, report.duplicates) == (3, 2, 1)  # both consents are one row
    told = "source, source_user_id, consent_email, consent_sms, consent_push, valid_from"
    assert rows(workspace, f"SELECT {told} FROM profiles") == [("shop", "ann", True, False, None, NOON + HOUR)]
    history = rows(workspace, "SELECT valid_from, consent_email, consent_sms FROM profile_history ORDER BY 1")
    assert history == [(NOON, True, None), (NOON + HOUR, True, False)]
    assert read(workspace).read == 0


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_the_last_consent_counts_in_whatever_order_they_come(workspace, log, order):
    told = [consent("c1", True), consent("c2", False, 1), consent("c3", True, 2, "sms")]
    for place in order:
        log.append([told[place]])
        read(workspace)
    assert rows(workspace, "SELECT consent_email, consent_sms, valid_from FROM profiles") == [
        (False, True, NOON + 2 * HOUR)
    ]


def test_the_attributes_of_an_export_stay(workspace, log):
    export(workspace, "profiles", [{"source_user_id": "ann", "city": "Oslo", "gender": "f", "consent_email": "yes"}])
    log.append([consent("c1", False, 24 * 40)])
    read(workspace, now=NOW + timedelta(days=30))
    assert rows(workspace, "SELECT city, gender, consent_email FROM profiles") == [("Oslo", "f", False)]


def test_a_consent_says_nothing_about_the_time_before_it(workspace, log):
    """A profile without a date would make its record one that was always known."""
    log.append([event("e1", hours=-2), consent("c1", True), consent("c2", True, 5, user="bob")])
    read(workspace)
    assert rows(workspace, "SELECT source_user_id, valid_from FROM customers ORDER BY 1") == [
        ("ann", NOON - 2 * HOUR),
        ("bob", NOON + 5 * HOUR),
    ]


def night(number: int) -> datetime:
    return datetime(2026, 5, number, 3)


@pytest.mark.parametrize("late", [False, True], ids=["the event came first", "the export came first"])
def test_a_nightly_export_without_dates_does_not_give_a_withdrawn_consent_back(workspace, log, late):
    """Its source may not know of the withdrawal yet; other columns of the same row are news."""
    row = {"source_user_id": "ann", "points_balance": 1, "consent_email": "yes", "consent_sms": "yes"}
    export(workspace, "profiles", [row], night(1))
    log.append([consent("c1", False)])  # at noon
    if not late:
        read(workspace)
    export(workspace, "profiles", [{**row, "points_balance": 2}], night(2))
    if late:
        read(workspace)
    now = "SELECT points_balance, consent_email, consent_sms FROM profiles"
    assert rows(workspace, now) == [(2.0, False, True)]
    query = "SELECT valid_from, points_balance, consent_email FROM profile_history WHERE valid_from IS NOT NULL"
    history = [(night(1), 1.0, True), (NOON, 1.0, False), (night(2), 2.0, False)]
    assert rows(workspace, f"{query} ORDER BY 1") == history
    again = export(workspace, "profiles", [{**row, "points_balance": 2}], night(3))
    assert (again.kept, again.digest) == (0, Lake(workspace).digest)
    assert rows(workspace, f"{query} ORDER BY 1") == history


def test_an_export_that_knew_the_withdrawal_may_give_the_consent_again(workspace, log):
    def told(number: int, given: str) -> bool | None:
        export(workspace, "profiles", [{"source_user_id": "ann", "consent_email": given}], night(number))
        return email_of(workspace)

    told(1, "yes")
    log.append([consent("c1", False)])
    read(workspace)
    assert [told(2, "yes"), told(3, "no"), told(4, "yes")] == [False, False, True]


def test_a_first_export_after_the_withdrawal_does_not_give_it_back_and_a_dated_one_does(workspace, log):
    log.append([consent("c1", False)])
    read(workspace)
    row = {"source_user_id": "ann", "consent_email": "yes"}
    digests = {export(workspace, "profiles", [row], night(number)).digest for number in (2, 3)}
    assert email_of(workspace) is False
    assert len(digests) == 1
    export(workspace, "profiles", [{**row, "valid_from": "2026-05-01 11:00"}], night(4))
    assert email_of(workspace) is False
    export(workspace, "profiles", [{**row, "valid_from": "2026-05-01 13:00"}], night(5))
    assert email_of(workspace) is True


def test_a_consent_given_by_an_event_stays_until_the_export_says_no_anew(workspace, log):
    row = {"source_user_id": "ann", "points_balance": 1, "consent_email": "no"}
    export(workspace, "profiles", [row], night(1))
    log.append([consent("c1", True)])
    read(workspace)
    export(workspace, "profiles", [row], night(2))  # the same export again
    assert email_of(workspace) is True
    export(workspace, "profiles", [{**row, "points_balance": 2}], night(3))  # a withdrawal counts, repeated or not
    assert email_of(workspace) is False


# ---- availabilities --------------------------------------------------------------------------------------------------


def items(workspace: Workspace) -> list[tuple[Any, ...]]:
    return rows(workspace, "SELECT item_id, category, available, source FROM items ORDER BY 1")


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_the_last_availability_of_an_item_counts(workspace, log, order):
    told = [availability("a1", False), availability("a2", True, 1), availability("a3", False, 0, "bread")]
    for place in order:
        log.append([told[place]])
        read(workspace)
    assert [row[:3] for row in items(workspace)] == [("bread", None, False), ("milk", None, True)]
    assert rows(workspace, "SELECT * FROM customers") == []


def test_an_availability_keeps_the_rest_of_the_catalogue(workspace, log):
    catalogue = [{"item_id": "milk", "category": "dairy"}, {"item_id": "bread", "category": "bakery"}]
    export(workspace, "items", catalogue, night(1))
    log.append([availability("a1", False)])
    assert read(workspace).tables["items"].updated == 1
    wanted = [("bread", "bakery", None, "shop"), ("milk", "dairy", False, "shop")]
    assert items(workspace) == wanted
    export(workspace, "items", catalogue, night(2))  # says nothing about availability
    assert items(workspace) == wanted


@pytest.mark.parametrize(
    ("row", "available"),
    [
        ({"available": "true"}, True),  # without a date it is of the moment of its ingest
        ({"available": "true", "valid_from": "2026-05-01 11:00"}, False),
        ({"available": "true", "valid_from": "2026-05-01 13:00"}, True),
    ],
)
def test_a_later_catalogue_that_tells_it_counts(workspace, log, row, available):
    log.append([availability("a1", False)])
    read(workspace)
    export(workspace, "items", [{"item_id": "milk", **row}], night(2))
    assert items(workspace)[0][2] is available


def test_a_complete_catalogue_offers_what_it_lists_and_withdraws_what_it_lacks_whoever_told_the_availability(
    workspace, log
):
    """An availability describes no item: the item belongs to the catalogue that does."""
    log.append([event("a1", "availability", 0, "", source="till", item_id="milk", available=False)])
    read(workspace)
    catalogue = [{"item_id": item, "category": "food"} for item in ("milk", "bread", "eggs")]
    export(workspace, "items", catalogue, night(2), "    complete: true\n")
    assert items(workspace)[2] == ("milk", "food", True, "shop")
    export(workspace, "items", catalogue[1:], night(3), "    complete: true\n")
    assert items(workspace)[2] == ("milk", "food", False, "shop")


def test_any_source_may_tell_the_availability_of_an_item(workspace, log):
    export(workspace, "items", [{"item_id": "milk", "category": "dairy"}], night(1))
    log.append([event("a1", "availability", 0, "", source="till", item_id="milk", available=False)])
    assert read(workspace).tables["items"].updated == 1
    assert items(workspace) == [("milk", "dairy", False, "shop")]


def test_item_ids_of_a_source_with_its_own_goods_get_its_name(workspace, log):
    export(workspace, "items", [{"item_id": "milk"}], more="    shared: false\n")
    log.append([availability("a1", False), availability("a2", False, 1, "shop:bread")])
    read(workspace)
    assert [row[0] for row in items(workspace)] == ["shop:bread", "shop:milk"]


# ---- visitors --------------------------------------------------------------------------------------------------------


def customers(workspace: Workspace) -> dict[str, str]:
    """User id → one_id at the end of all data."""
    query = "SELECT source_user_id, arg_max(one_id, coalesce(valid_from, '-infinity')) FROM customers GROUP BY 1"
    return dict(rows(workspace, query))


def together(workspace: Workspace) -> set[frozenset[str]]:
    """The user ids of each customer."""
    found = customers(workspace)
    return {frozenset(user for user in found if found[user] == one_id) for one_id in found.values()}


def groups(*users: str) -> set[frozenset[str]]:
    return {frozenset(group.split()) for group in users}


def test_a_login_is_an_event_and_two_sightings(workspace, log):
    log.append([login("e1", "ann")])
    report = read(workspace)
    assert {name: table.kept for name, table in report.tables.items()} == {"events": 1, "identities": 2}
    assert rows(workspace, "SELECT * FROM identities ORDER BY source_user_id") == [
        ("shop", "ann", "anonymous_id", "shop:v1", NOON),
        ("shop", "v1", "anonymous_id", "shop:v1", NOON),
    ]
    assert rows(workspace, "SELECT event_id, source_user_id, event_type FROM events") == [("e1", "ann", "login")]


def test_the_visitor_belongs_to_the_account_from_the_login_on(workspace, log):
    log.append([event("a0", hours=-5), event("v0", hours=-2, user="v1"), event("v2", hours=3, user="v1")])
    read(workspace)
    before = customers(workspace)
    log.append([login("l1", "ann")])
    read(workspace)
    assert customers(workspace) == dict.fromkeys(("ann", "v1"), before["ann"]), "the account is the older record"
    periods = rows(workspace, "SELECT one_id, valid_from FROM customers WHERE source_user_id = 'v1' ORDER BY 2")
    assert periods == [(before["v1"], NOON - 2 * HOUR), (before["ann"], NOON)]


@pytest.mark.parametrize("at_once", [False, True])
def test_a_second_account_undoes_it_for_all(workspace, log, at_once):
    told = [
        event("v0", hours=-2, user="v1"),
        login("l1", "ann"),
        login("l2", "bob", hours=5),
        login("l3", "ann", hours=9),
    ]
    for events in [told] if at_once else [[one] for one in told]:
        log.append(events)
        read(workspace)
    assert together(workspace) == groups("ann", "bob", "v1")
    assert len(set(customers(workspace).values())) == 3


@pytest.mark.parametrize("order", list(permutations(range(3)))[::2])
def test_an_account_is_no_visitor_of_the_next_one(workspace, log, order):
    """An application that names the user before as `anonymous_id` must not make one customer of two."""
    told = [login("l1", "ann"), login("l2", "bob", visitor="ann", hours=2), login("l3", "bob", "v2", 3)]
    for place in order:
        log.append([told[place]])
        read(workspace)
    assert together(workspace) == groups("ann v1", "bob v2")


def test_two_accounts_of_one_person_keep_the_visitor(workspace, log):
    export(
        workspace,
        "identities",
        [{"source_user_id": user, "id_type": "email", "id_value": "ann@x.org"} for user in ("ann", "anna")],
    )
    log.append([event("v0", hours=-2, user="v1"), login("l1", "ann"), login("l2", "anna", hours=5)])
    read(workspace)
    assert together(workspace) == groups("ann anna v1")


def test_a_visitor_who_is_the_first_account_by_other_evidence_does_not_let_a_second_one_in(workspace, log):
    export(
        workspace,
        "identities",
        [{"source_user_id": user, "id_type": "email", "id_value": "ann@x.org"} for user in ("ann", "v1")],
    )
    log.append([event("v0", hours=-2, user="v1"), login("l1", "ann"), login("l2", "bob", hours=5)])
    read(workspace)
    assert together(workspace) == groups("ann v1", "bob")


def test_visitors_of_several_sources_and_devices(workspace, log):
    log.append([event("v0", hours=-2, user=visitor) for visitor in ("v1", "v2")])
    log.append([event("x", source="app", user="v1"), login("l1", "ann"), login("l2", "ann", "v2", 1)])
    log.append([login("l3", "bob", source="app")])
    read(workspace)
    pairs = rows(workspace, "SELECT one_id, list(DISTINCT source || ':' || source_user_id) FROM customers GROUP BY 1")
    found = {frozenset(users) for _, users in pairs}
    assert frozenset({"shop:ann", "shop:v1", "shop:v2"}) in found
    assert frozenset({"app:bob", "app:v1"}) in found


def test_a_visitor_without_events_changes_nothing_about_the_account(workspace, log):
    log.append([event("a0", hours=-5)])
    read(workspace)
    before = customers(workspace)
    log.append([login("l1", "ann", "never seen"), login("l2", "bob", "nor this")])
    read(workspace)
    found = customers(workspace)
    assert found["ann"] == found["never seen"] == before["ann"]
    assert found["bob"] == found["nor this"] != before["ann"]


def test_another_log_with_the_same_events_adds_nothing(workspace, log, tmp_path):
    told = [consent("c1", True), consent("c2", False, 1), availability("a1", False), login("l1", "ann")]
    log.append(told)
    read(workspace)
    digest = Lake(workspace).digest
    other = open_log(tmp_path / "other.db")
    other.append(told)
    other.close()
    report = ingest(workspace, EventLogSource(tmp_path / "other.db"), Settings(), now=NOW)
    assert (report.read, report.kept, report.duplicates) == (6, 0, 6)
    assert Lake(workspace).digest == digest


def test_what_cannot_be_read_goes_to_quarantine_as_one_event(workspace, log):
    log.append(
        [login("l1", "ann", visitor=7), event("c1", "consent", channel="fax", granted=True), consent("c2", True)]
    )
    report = read(workspace)
    assert (report.read, report.kept, report.quarantined) == (3, 1, 2)
