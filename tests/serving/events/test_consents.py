"""Consents of accepted events in profiles: at once, and never one that was withdrawn."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from features.compute.builder import Builder
from features.data.ingest import ingest
from features.data.lake import Lake
from features.data.sources.event_log import EventLogSource
from features.definitions import FEATURES
from features.event_log import open_log
from features.event_log.base import LoggedEvent, LogPosition
from features.event_log.rows import EventRow, encode
from features.profiles.building import build_snapshot
from features.profiles.snapshot import Snapshot
from qianmian.settings import Settings
from qianmian.workspace import Workspace
from serving.endpoints import ENDPOINTS
from serving.events.consents import LiveConsents

AS_OF = datetime(2024, 8, 1)
NOW = datetime(2024, 8, 3)
SECONDS = 20
LOG = "the log"


def consent(granted: bool, hours: float, channel: str = "email", user: str = "u1", source: str = "app") -> EventRow:
    values = {"source": source, "source_user_id": user, "ts": AS_OF + timedelta(hours=hours)}
    return EventRow("profiles", {**values, f"consent_{channel}": granted}, f"{granted}{hours}{channel}{user}")


def told(snapshot: Snapshot, *rows: EventRow, known_through: int = 0, log_id: str | None = LOG) -> dict[str, bool]:
    live = LiveConsents()
    live.add([LoggedEvent(seq, encode(row)) for seq, row in enumerate(rows, 1)], log_id)
    users = {(row.values["source"], row.values["source_user_id"]) for row in rows}
    return live.of(users, replace(snapshot, as_of=AS_OF, event_log=LogPosition(LOG, known_through)))


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([(True, 1)], True),
        ([(True, 1), (False, 2)], False),
        ([(False, 2), (True, 1)], False),  # late
        ([(False, 1), (True, 2)], True),
        ([(False, 2), (True, 2)], False),  # at the same time the withdrawal
        ([(True, 2), (False, 2)], False),
        ([(True, -1)], None),  # the lake may know a later withdrawal
        ([(False, -1)], False),
        ([(False, -2), (True, -1)], None),
        ([(False, -1), (True, 1)], True),
    ],
)
def test_the_newest_counts_and_a_grant_that_came_late_does_not(champions, events, expected):
    assert told(champions.customers, *(consent(*one) for one in events)).get("consent_email") is expected


def test_what_the_lake_had_is_left_to_the_profile(champions):
    profiles, withdrawn = champions.customers, consent(False, -1)
    assert told(profiles, withdrawn, known_through=1) == {}
    assert told(profiles, withdrawn, known_through=1, log_id="another log") == {"consent_email": False}
    assert told(profiles, withdrawn, known_through=1, log_id=None) == {"consent_email": False}
    assert told(profiles, consent(False, 1), known_through=1) == {"consent_email": False}, "not before their as_of"
    rows = [consent(True, 1), consent(False, 2, "sms"), consent(False, -3, "push")]
    assert told(profiles, *rows) == {"consent_email": True, "consent_sms": False, "consent_push": False}


def test_consents_of_removed_events_and_of_another_log_are_forgotten(champions):
    live = LiveConsents()
    live.add([LoggedEvent(seq, encode(consent(seq > 1, seq))) for seq in (1, 2)], LOG)
    live.forget(2)
    assert live.of([("app", "u1")], replace(champions.customers, as_of=AS_OF)) == {"consent_email": True}
    live.forget(3)
    assert live.of([("app", "u1")], champions.customers) == {}
    live.add([LoggedEvent(3, encode(consent(False, 3)))], LOG)
    live.clear()
    assert live.of([("app", "u1")], champions.customers) == {}


def test_a_profile_shows_consents_at_once(champions, buyers, log, following):
    events = following(log)
    served = replace(champions, events=events)
    endpoint = ENDPOINTS["/profile"]
    user = buyers[0]
    one_id = served.customers.resolve(user)
    (source,) = {
        row["source"]
        for row in served.customers.customers.to_pylist()
        if (row["one_id"], row["source_user_id"]) == (one_id, user)
    }
    request = endpoint.request.model_validate({"user_id": user, "user_source": source})

    def basic() -> dict:
        body = endpoint.respond(served, request, NOW)
        endpoint.response.model_validate(body)
        return body["tags"]["basic"]

    before = basic()
    told_in_turn = [("email", True), ("email", False), ("sms", False), ("push", True)]
    for number, (channel, granted) in enumerate(told_in_turn):
        log.append([encode(consent(granted, number, channel, user, source))])
        deadline = time.monotonic() + SECONDS
        while True:
            entry = basic().get(f"consent_{channel}", {})
            if (entry.get("value"), entry.get("as_of")) == (granted, "2024-08-03T00:00:00Z"):
                break
            assert time.monotonic() < deadline
            time.sleep(0.002)
        assert entry == {"value": granted, "as_of": "2024-08-03T00:00:00Z", "stale": False, "source": "profiles"} | {
            "checked": entry["checked"]
        }
    names = {f"consent_{channel}" for channel in ("email", "sms", "push")}
    assert {name: entry for name, entry in basic().items() if name not in names} == {
        name: entry for name, entry in before.items() if name not in names
    }
    log.append([encode(consent(True, 1, "email", "nobody knows", source))])
    stranger = endpoint.request.model_validate({"user_id": "nobody knows"})
    body = endpoint.respond(served, stranger, NOW)
    assert (body["known"], body["tags"]["basic"]) == (False, {})
    events.close()  # the thread would find the log again
    events.lost = True
    entry = basic()["consent_email"]
    assert (entry["value"], entry["stale"]) == (False, True), "what is known stays, and a withdrawal may be unknown"


def test_profiles_say_what_their_lake_had_of_the_log(workspace, tmp_path):
    mine = Workspace(tmp_path / "shop")
    path = tmp_path / "events.db"
    log = open_log(path)
    row = {"event_id": "1", "source": "app", "source_user_id": "u1", "ts": AS_OF - timedelta(days=1)}
    log.append([encode(EventRow("events", {**row, "event_type": "view"}, "1"))])
    line = {"order_id": "o", "line_no": 1, "item_id": "milk", "quantity": 1.0, "amount": 2.0, "status": "paid"}
    del row["event_id"]
    log.append([encode(EventRow("transactions", {**row, **line}, "2"))])
    ingest(mine, EventLogSource(path), Settings())
    log.append([encode(EventRow("events", {**row, "event_id": "3", "event_type": "view"}, "3"))])
    built = build_snapshot(Builder(Lake(mine), FEATURES), AS_OF, Settings())
    assert built.event_log == LogPosition(log.header().log_id, 2)
    built.save(tmp_path / "profiles")
    assert Snapshot.load(tmp_path / "profiles").event_log == built.event_log
    log.close()
    assert build_snapshot(Builder(Lake(workspace), FEATURES), AS_OF, Settings()).event_log is None
