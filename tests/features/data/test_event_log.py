"""Accepted events enter the lake once: each is new, known or in quarantine, and an export of the source counts more."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from features.data.ingest import IngestReport, ingest, preview
from features.data.lake import Lake
from features.data.sources import FileSource
from features.data.sources.event_log import EventLogSource, LogPosition, lake_position
from features.event_log import AcceptedEvent, EventLog, open_log
from features.event_log.retention import removable_through
from features.event_log.rows import encode, make_row
from qianmian.settings import Settings
from qianmian.workspace import Workspace

NOON = datetime(2026, 5, 1, 12)
NOW = datetime(2026, 6, 1)
ORDER = {"order_id": "o1", "line_no": 1, "item_id": "milk", "quantity": 2.0, "amount": 3.0}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "a workspace").create()


def file_of(workspace: Workspace) -> Path:
    return workspace.online / "events.db"


@pytest.fixture
def log(workspace: Workspace) -> EventLog:
    log = open_log(file_of(workspace))
    yield log
    log.close()


def event(event_id: str, event_type: str = "view", **values: Any) -> AcceptedEvent:
    row = {"source": "shop", "source_user_id": "u1", "ts": NOON, "event_type": event_type, **values}
    return encode(make_row(event_id, row))


def read(workspace: Workspace) -> IngestReport:
    return ingest(workspace, EventLogSource(file_of(workspace)), Settings(), now=NOW)


def table(workspace: Workspace, query: str) -> list[tuple[Any, ...]]:
    return Lake(workspace).connect().con.execute(query).fetchall()


def export(workspace: Workspace, rows: Sequence[Mapping[str, Any]], columns: str) -> IngestReport:
    """Ingest an export of the shop's orders."""
    names = list(rows[0])
    lines = [",".join(names), *(",".join(str(row[name]) for name in names) for row in rows)]
    (workspace.root / "orders.csv").write_text("\n".join(lines))
    config = workspace.root / "sources.yaml"
    config.write_text(
        f"source: shop\ntimezone: UTC\ntables:\n  transactions:\n    path: orders.csv\n    columns: {{{columns}}}\n"
    )
    return ingest(workspace, FileSource(config), Settings(), now=NOW)


def test_events_become_rows_once_and_the_position_is_in_the_commit(workspace, log):
    log.append([event("e1"), event("e2", "cart", item_id="milk"), event("e3", "purchase", item_id="milk", amount=2.5)])
    first = read(workspace)
    assert (first.read, first.kept) == (3, 3)
    assert lake_position(Lake(workspace)) == LogPosition(log.header().log_id, 3)
    assert table(workspace, "SELECT event_id, event_type, source, source_user_id, ts, date_only FROM events") == [
        ("e1", "view", "shop", "u1", NOON, False),
        ("e2", "cart", "shop", "u1", NOON, False),
    ]
    assert table(workspace, "SELECT order_id, line_no, item_id, quantity, amount, status FROM transactions") == [
        ("e3", 1, "milk", 1.0, 2.5, "paid")
    ]
    assert table(workspace, "SELECT source, source_user_id FROM customers") == [("shop", "u1")]
    digest = Lake(workspace).digest
    assert read(workspace).read == 0
    assert Lake(workspace).digest == digest


def test_without_a_log_there_is_nothing_to_do_and_no_log_is_made(workspace):
    assert read(workspace).read == 0
    assert not file_of(workspace).exists()


def test_bad_events_go_to_quarantine_and_do_not_stop_the_others(workspace, log):
    late = NOW + timedelta(days=2)
    log.append([event("e1"), AcceptedEvent("shop", "e2", "u1", 0, b"nonsense"), event("e3", ts=late)])
    log.append([event("e4", amount="much"), event("e5", colour="red"), event("e6")])
    report = read(workspace)
    assert (report.read, report.kept, report.quarantined) == (6, 2, 4)
    assert lake_position(Lake(workspace)).seq == 6
    quarantined = pq.read_table(report.tables["events"].quarantine_file).to_pylist()
    assert sorted(json.loads(row["row"]).get("seq", 0) for row in quarantined) == [0, 2, 4, 5]


def test_events_that_are_all_bad_do_not_stop_those_that_come_later(workspace, log):
    log.append([AcceptedEvent("shop", "e1", "u1", 0, b"nonsense")])
    assert read(workspace).quarantined == 1
    log.append([event("e2")])
    assert read(workspace).kept == 1


def test_a_preview_writes_nothing(workspace, log):
    log.append([event("e1"), event("e2")])
    report = preview(workspace, EventLogSource(file_of(workspace)), Settings(), now=NOW)
    assert (report.kept, report.errors) == (2, ())
    assert Lake(workspace).states() == {}
    assert lake_position(Lake(workspace)) is None


@pytest.mark.parametrize(
    "columns",
    [
        "order_id: order, line_no: line, source_user_id: user, ts: at, item_id: item, amount: paid, store_id: store",
        "order_id: order, source_user_id: user, ts: at, item_id: item, amount: paid, store_id: store",
    ],
    ids=["with line numbers", "without"],
)
def test_the_export_of_the_shop_replaces_the_order_that_events_told(workspace, log, columns):
    log.append(
        [event("e1", "purchase", **ORDER), event("e2", "purchase", order_id="o2", line_no=1, item_id="tea", amount=1.0)]
    )
    read(workspace)
    rows = [
        {
            "order": "o1",
            "line": 1,
            "user": "u1",
            "at": "2026-05-01 12:00:07",
            "item": "milk",
            "paid": 2.9,
            "store": "s",
        },
        {
            "order": "o1",
            "line": 2,
            "user": "u1",
            "at": "2026-05-01 12:00:07",
            "item": "salt",
            "paid": 0.5,
            "store": "s",
        },
    ]
    report = export(workspace, rows, columns)
    assert (report.kept, report.quarantined) == (2, 0)
    assert report.tables["transactions"].updated == 1
    wanted = [("o1", 1, "milk", 2.9), ("o1", 2, "salt", 0.5), ("o2", 1, "tea", 1.0)]
    query = "SELECT order_id, line_no, item_id, amount FROM transactions ORDER BY 1, 2"
    assert table(workspace, query) == wanted
    assert export(workspace, rows, columns).kept == 0
    # what events tell later of an order that the shop has told is known
    log.append([event("e3", "purchase", **{**ORDER, "line_no": 5}), event("e4", "purchase", **ORDER)])
    again = read(workspace)
    assert (again.kept, again.duplicates, again.quarantined) == (0, 2, 0)
    assert table(workspace, query) == wanted


def test_events_of_an_order_that_the_shop_has_told_first_are_known(workspace, log):
    rows = [{"order": "o1", "user": "u1", "at": "2026-05-01 12:00:07", "item": "milk", "paid": 2.9}]
    export(workspace, rows, "order_id: order, source_user_id: user, ts: at, item_id: item, amount: paid")
    log.append([event("e1", "purchase", **ORDER), event("e2", "purchase", **{**ORDER, "line_no": 2})])
    log.append([event("e3", "purchase", **{**ORDER, "order_id": "o2"})])
    report = read(workspace)
    assert (report.kept, report.duplicates, report.quarantined) == (1, 2, 0)
    assert table(workspace, "SELECT order_id, amount FROM transactions ORDER BY 1") == [("o1", 2.9), ("o2", 3.0)]


def test_a_refund_that_an_event_tells_changes_the_order(workspace, log):
    log.append([event("e1", "purchase", **ORDER)])
    read(workspace)
    log.append([event("e2", "purchase", status="refunded", **ORDER)])
    report = read(workspace)
    assert (report.kept, report.tables["transactions"].flags["status_changed"]) == (1, 1)
    assert table(workspace, "SELECT order_id, status FROM transactions") == [("o1", "refunded")]


def test_another_log_is_read_from_its_start_and_what_is_known_is_a_duplicate(workspace, log, tmp_path):
    events = [event("e1"), event("e2", "purchase", **ORDER)]
    log.append(events)
    read(workspace)
    other = open_log(tmp_path / "other.db")
    other.append([*events, event("e3")])
    report = ingest(workspace, EventLogSource(tmp_path / "other.db"), Settings(), now=NOW)
    other.close()
    assert (report.kept, report.duplicates) == (1, 2)
    assert lake_position(Lake(workspace)) == LogPosition(other_id(tmp_path / "other.db"), 3)


def other_id(path: Path) -> str:
    log = open_log(path)
    try:
        return log.header().log_id
    finally:
        log.close()


@pytest.mark.parametrize("later", [[], [event("e3")]], ids=["nothing new", "a new event"])
def test_events_that_were_removed_unread_are_reported(workspace, log, later):
    log.append([event("e1"), event("e2")])
    log.compact(2, 30, NOW.replace(tzinfo=UTC))
    log.append(later)
    report = read(workspace)
    assert [(warning.code, warning.rows) for warning in report.warnings] == [("events_missing", 2)]
    assert report.kept == len(later)
    assert read(workspace).warnings == ()


def test_item_ids_of_a_source_with_its_own_goods_get_its_name(workspace, log):
    with duckdb.connect() as connection:
        Lake(workspace).commit(
            connection,
            {"items": "SELECT 'shop:milk' AS item_id, 'shop' AS source UNION ALL SELECT 'tea', 'other'"},
        )
    log.append(
        [event("e1", item_id="milk"), event("e2", item_id="shop:milk"), event("e3", source="other", item_id="tea")]
    )
    read(workspace)
    assert table(workspace, "SELECT item_id FROM events ORDER BY event_id") == [
        ("shop:milk",),
        ("shop:milk",),
        ("tea",),
    ]


@pytest.mark.parametrize(
    ("days", "ingested", "through"),
    [
        ([1, 2, 3, 12], 4, 2),  # as of 10 May with 7 days kept: what is before 3 May
        ([1, 12, 2], 3, 1),  # a later event keeps those behind it
        ([1, 2, 2], 1, 1),
        ([1, 2], 2, 2),
        ([], 0, 0),
    ],
)
def test_what_may_be_removed_is_in_the_lake_and_old(log, days, ingested, through):
    if days:
        log.append([event(f"e{n}", ts=datetime(2026, 5, day)) for n, day in enumerate(days)])
    assert removable_through(log, ingested, datetime(2026, 5, 10), 7) == through
