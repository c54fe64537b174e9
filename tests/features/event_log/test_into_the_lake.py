"""Both stores are taken into the lake, and are compacted behind it, while others append."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from features.data.ingest import ingest
from features.data.lake import Lake
from features.data.sources.event_log import EventLogSource, LogPosition, lake_position
from features.event_log import AcceptedEvent, EventLog
from features.event_log.retention import removable_through
from features.event_log.rows import encode, make_row
from qianmian.settings import Settings
from qianmian.workspace import Workspace

MAY = datetime(2026, 5, 1)


def view(day: int) -> AcceptedEvent:
    values = {"source": "shop", "source_user_id": "u1", "ts": MAY + timedelta(days=day), "event_type": "view"}
    return encode(make_row(f"e{day}", values))


def test_a_log_is_read_on_after_it_was_compacted(location: str, log: EventLog, tmp_path: Path) -> None:
    workspace, source = Workspace(tmp_path / "workspace"), EventLogSource(location)
    log.append([view(day) for day in range(20)])
    assert ingest(workspace, source, Settings()).kept == 20
    through = removable_through(log, 20, MAY + timedelta(days=15), 7)
    assert log.compact(through, 30, datetime.now(UTC)).events == 8
    log.append([view(day) for day in range(30)])  # 20 are known
    report = ingest(workspace, source, Settings())
    assert (report.kept, report.duplicates, report.warnings) == (10, 0, ())
    lake = Lake(workspace)
    assert lake.state("events").rows == 30
    assert lake_position(lake) == LogPosition(log.header().log_id, 30)


def test_messages_and_quarantine_do_not_show_the_password_of_a_store() -> None:
    assert EventLogSource("redis://reader:secret@host/3").label == "redis://host:6379/3"


def test_two_logs_of_one_source_add_up(
    log: EventLog, location: str, opened: Callable[..., EventLog], tmp_path: Path
) -> None:
    workspace, elsewhere = Workspace(tmp_path / "workspace"), tmp_path / "elsewhere.db"
    log.append([view(1), view(2)])
    opened(elsewhere).append([view(2), view(3)])
    kept = [ingest(workspace, EventLogSource(place), Settings()).kept for place in (location, elsewhere, location)]
    assert kept == [2, 1, 0]


def test_events_about_items_have_no_customer_and_are_removed_like_others(
    log: EventLog, location: str, tmp_path: Path
) -> None:
    values = {"source": "shop", "source_user_id": "", "item_id": "milk", "available": False}
    events = [
        encode(make_row(f"a{day}", {**values, "event_type": "availability", "ts": MAY + timedelta(days=day)}))
        for day in range(3)
    ]
    log.append([*events, view(1)])
    assert [logged.event for logged in log.get([("shop", "")])] == events
    workspace = Workspace(tmp_path / "workspace")
    report = ingest(workspace, EventLogSource(location), Settings())
    assert (report.read, report.kept, report.duplicates) == (4, 2, 2)
    assert log.compact(4, 30, datetime.now(UTC)).events == 4
    assert [stored.status for stored in log.append(events)] == ["duplicate"] * 3
    found = Lake(workspace).connect().con.execute("SELECT source_user_id FROM customers").fetchall()
    assert found == [("u1",)]
