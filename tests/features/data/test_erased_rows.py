"""Rows of erased users are dropped before anything is written, wherever they come from, and are counted."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from features.data.ingest import ingest, preview
from features.data.lake import Lake
from features.data.pii_key import load_key
from features.data.sources import FileSource
from features.data.sources.event_log import EventLogSource, lake_position
from features.erasure.resolving import find_erased
from features.erasure.tombstones import add_tombstones
from features.event_log import AcceptedEvent, open_log
from features.event_log.rows import encode, make_row
from qianmian.errors import DataError
from qianmian.settings import Settings
from qianmian.workspace import Workspace

NOON = datetime(2026, 5, 1, 12)
NOW = datetime(2026, 6, 1)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    found = Workspace(tmp_path / "a workspace").create()
    add_tombstones(found, load_key(found), [("shop", "gone-1"), ("shop", "visitor-1")])
    return found


def event(user: str, event_id: str, event_type: str = "view", **values: object) -> AcceptedEvent:
    row = {"source": "shop", "source_user_id": user, "ts": NOON, "event_type": event_type, **values}
    return encode(make_row(event_id, row))


def test_accepted_events_of_an_erased_user(workspace):
    events = [
        event("gone-1", "e1"),
        event("gone-1", "e2", "purchase", order_id="o1", item_id="milk", amount=3.0),
        event("gone-1", "e3", "consent", channel="sms", granted=True),
        event("stays", "e4"),
        event("stays", "e5", "login", anonymous_id="visitor-1"),
        AcceptedEvent("shop", "e6", "gone-1", 0, b'{"user": "gone-1"'),
        AcceptedEvent("shop", "e7", "stays", 0, b'{"user": "stays"'),
    ]
    log = open_log(workspace.online / "events.db")
    log.append(events)
    log.close()
    report = ingest(workspace, EventLogSource(workspace.online / "events.db"), Settings(), now=NOW)
    counts = {name: (found.read, found.kept, found.quarantined, found.erased) for name, found in report.tables.items()}
    assert counts == {
        "events": (5, 2, 1, 2),
        "identities": (2, 0, 0, 2),  # the sighting by the account names the visitor too
        "profiles": (1, 0, 0, 1),
        "transactions": (1, 0, 0, 1),
    }
    assert lake_position(Lake(workspace)).seq == len(events)  # they are not read again
    stored = [path.read_bytes() for path in (*workspace.lake.rglob("*.*"), *workspace.quarantine.rglob("*.parquet"))]
    assert not any(b"gone-1" in content or b"visitor-1" in content for content in stored)
    rejected = [
        row for file in workspace.quarantine.rglob("*.parquet") for row in pq.read_table(file)["row"].to_pylist()
    ]
    assert len(rejected) == 1
    assert "stays" in rejected[0]


def test_a_file_with_none_but_erased_users_is_no_mistake(workspace, tmp_path):
    (tmp_path / "orders.csv").write_text("id,number,item,at\ngone-1,o1,milk,2026-05-01\n ,o2,gone-1,someday\n")
    columns = "{source_user_id: id, order_id: number, item_id: item, ts: at}"
    config = tmp_path / "sources.yaml"
    config.write_text(
        f"source: shop\ntimezone: UTC\ntables:\n  transactions:\n    path: orders.csv\n    columns: {columns}\n"
    )
    for read in (preview, ingest):
        found = read(workspace, FileSource(config), Settings(), now=NOW).tables["transactions"]
        assert (found.read, found.kept, found.quarantined, found.erased) == (2, 0, 0, 2)
    assert list(workspace.quarantine.rglob("*.parquet")) == []


def test_the_event_log_tells_of_customers_and_visitors(workspace):
    place = str(workspace.online / "events.db")
    log = open_log(place)
    log.append([event("v1", "e0")])
    ingest(workspace, EventLogSource(place), Settings(), now=NOW)  # the lake knows the visitor, but not yet the login
    log.append(
        [
            event("ann", "e1", "login", anonymous_id="v1"),
            event("ann", "e2", "login", anonymous_id="shared"),
            event("bob", "e3", "login", anonymous_id="shared"),
        ]
    )
    log.close()
    assert find_erased(workspace, "ann", "shop", place).users == (("shop", "ann"), ("shop", "v1"))
    with pytest.raises(DataError, match="no customer"):
        find_erased(workspace, "carl", "shop", place)
    ingest(workspace, EventLogSource(place), Settings(), now=NOW)
    found = find_erased(workspace, "v1", None, None)
    assert found.users == (("shop", "ann"), ("shop", "v1"))
    assert find_erased(workspace, found.one_ids[0], None, place).users == found.users
