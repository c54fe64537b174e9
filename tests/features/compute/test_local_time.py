"""Days and hours in the time zone of the workspace, worked out by hand: over changes of the clock, and for mere dates."""

from __future__ import annotations

from datetime import date, datetime, timedelta

import numpy as np
import pytest

from features.compute.algebra import Condition, Feature
from features.compute.builder import Builder
from features.compute.online import OnlineState, values
from features.compute.online.build import build_state
from features.compute.online.recent import ViewRows
from features.definitions import FEATURES
from features.profiles.building import build_snapshot, ensure_snapshot
from qianmian.errors import ArtifactError, ConfigError
from qianmian.settings import Settings
from qianmian.times import microseconds

# (moment in UTC, only a date) → day and hour there
CALENDAR = {
    "America/New_York": [
        (datetime(2024, 3, 10, 6, 59, 59), False, date(2024, 3, 10), 1),  # summer time begins at 02:00
        (datetime(2024, 3, 10, 7, 0, 0), False, date(2024, 3, 10), 3),
        (datetime(2024, 11, 3, 5, 30, 0), False, date(2024, 11, 3), 1),  # 01:30 comes twice
        (datetime(2024, 11, 3, 6, 30, 0), False, date(2024, 11, 3), 1),
        (datetime(2024, 1, 1, 4, 59, 59), False, date(2023, 12, 31), 23),
        (datetime(2024, 7, 1, 4, 0, 0), False, date(2024, 7, 1), 0),
        (datetime(2024, 7, 1, 4, 0, 0), True, date(2024, 7, 1), None),  # a date written in New York,
        (datetime(2024, 7, 1, 0, 0, 0), True, date(2024, 7, 1), None),  # one in UTC,
        (datetime(2024, 6, 30, 16, 0, 0), True, date(2024, 7, 1), None),  # in Shanghai,
        (datetime(2024, 6, 30, 12, 0, 0), True, date(2024, 7, 1), None),  # in Auckland,
        (datetime(2024, 12, 31, 11, 0, 0), True, date(2025, 1, 1), None),  # in Auckland in its summer,
        (datetime(2024, 7, 1, 10, 0, 0), True, date(2024, 7, 1), None),  # and in Honolulu
    ],
    "Asia/Kolkata": [
        (datetime(2024, 2, 29, 18, 29, 59), False, date(2024, 2, 29), 23),
        (datetime(2024, 2, 29, 18, 30, 0), False, date(2024, 3, 1), 0),
        (datetime(2024, 2, 29, 18, 30, 0), True, date(2024, 3, 1), None),
    ],
    "Australia/Lord_Howe": [  # summer time is half an hour
        (datetime(2024, 4, 6, 14, 59, 59), False, date(2024, 4, 7), 1),
        (datetime(2024, 4, 6, 15, 0, 0), False, date(2024, 4, 7), 1),
        (datetime(2024, 4, 6, 15, 30, 0), False, date(2024, 4, 7), 2),
        (datetime(2024, 10, 5, 15, 30, 0), False, date(2024, 10, 6), 2),
    ],
    "America/Santiago": [  # summer time begins at midnight, so that the day begins at one o'clock
        (datetime(2024, 9, 8, 3, 59, 59), False, date(2024, 9, 7), 23),
        (datetime(2024, 9, 8, 4, 0, 0), False, date(2024, 9, 8), 1),
        (datetime(2024, 9, 8, 4, 0, 0), True, date(2024, 9, 8), None),
    ],
    "Pacific/Kiritimati": [(datetime(2024, 6, 30, 10, 0, 0), True, date(2024, 7, 1), None)],
    "Pacific/Pago_Pago": [(datetime(2024, 7, 1, 11, 0, 0), True, date(2024, 7, 1), None)],
    "UTC": [
        (datetime(2024, 1, 1, 23, 59, 59), False, date(2024, 1, 1), 23),
        (datetime(2024, 1, 1), True, date(2024, 1, 1), None),
        (datetime(1969, 12, 31, 23, 0, 0), False, date(1969, 12, 31), 23),
    ],
}
ALL_MOMENTS = sorted({(moment, only) for rows in CALENDAR.values() for moment, only, _, _ in rows})


def expected(day, hour):
    return {"day": day, "hour": hour, "weekday": day.weekday(), "week": day - timedelta(days=day.weekday())}


def event(number, ts, date_only, user="u", **more):
    row = {"source": "s", "source_user_id": user, "event_id": f"e{number}", "event_type": "view", "ts": ts}
    return {**row, "date_only": date_only, **more}


@pytest.fixture(scope="module")
def lake(lake_of):
    return lake_of({"events": [event(number, *row) for number, row in enumerate(ALL_MOMENTS)]})


def online_calendar(moments, date_only, zone):
    """What the online execution gives for the same rows, as in the engine."""
    columns = {"ts": np.array([microseconds(ts) for ts in moments]), "date_only": np.array(date_only, dtype=np.float64)}
    order = np.argsort(columns["ts"], kind="stable")
    rows = ViewRows({name: column[order] for name, column in columns.items()}, zone)
    found = {name: rows.column(name)[np.argsort(order)] for name in ("day", "hour", "weekday", "week")}
    epoch = date(1970, 1, 1)
    return [
        {
            "day": epoch + timedelta(days=int(found["day"][k])),
            "hour": None if np.isnan(found["hour"][k]) else int(found["hour"][k]),
            "weekday": int(found["weekday"][k]),
            "week": epoch + timedelta(days=int(found["week"][k])),
        }
        for k in range(len(moments))
    ]


@pytest.mark.parametrize("zone", CALENDAR)
def test_the_calendar_is_that_of_the_zone(lake, zone):
    cases = CALENDAR[zone]
    views = Builder(lake, FEATURES, timezone=zone).views(datetime(2026, 1, 1))
    columns = ("ts", "date_only", "day", "hour", "weekday", "week")
    built = {(row["ts"], row["date_only"]): row for row in views["events"].select(*columns).to_pyarrow().to_pylist()}
    for moment, date_only, day, hour in cases:
        row = built[moment, date_only]
        assert {name: row[name] for name in columns[2:]} == expected(day, hour), (moment, date_only)
    found = online_calendar([case[0] for case in cases], [case[1] for case in cases], zone)
    assert found == [expected(day, hour) for _, _, day, hour in cases]


@pytest.mark.parametrize("zone", ["Europe/London", "America/Santiago", "Africa/Casablanca", "Asia/Kathmandu"])
def test_the_engine_and_the_online_values_agree_through_a_year(lake_of, zone):
    moments = [datetime(2023, 12, 30) + timedelta(minutes=5_003 * number) for number in range(120)]
    lake = lake_of({"events": [event(number, ts, number % 3 == 0) for number, ts in enumerate(moments)]})
    views = Builder(lake, FEATURES, timezone=zone).views(datetime(2026, 1, 1))
    names = ("day", "hour", "weekday", "week")
    built = views["events"].order_by("ts").select(*names).to_pyarrow().to_pylist()
    assert built == online_calendar(moments, [number % 3 == 0 for number in range(120)], zone)


# ---- features and tags without hours ---------------------------------------------------------------------------------


def order(user, number, ts, date_only=None):
    row = {"source": "s", "source_user_id": user, "order_id": f"{user}{number}", "line_no": 1, "ts": ts}
    return {**row, "date_only": date_only, "item_id": "i", "quantity": 1.0, "amount": 2.0, "status": "paid"}


MORNING = datetime(2024, 1, 10, 8)
NIGHT = Feature(
    "night", "orders", "share", where=(Condition("hour", "<", 6),), default=-1.0, unit="0..1", description="d"
)
HOURS = Feature("hours", "orders", "distinct", "hour", description="d")
DAYS = Feature("days", "orders", "distinct", "day", description="d")
ORDERS = Feature("n", "orders", "count", description="d")
MIXED = [
    order("a", 1, MORNING),
    order("a", 2, MORNING - timedelta(hours=6)),
    order("a", 3, datetime(2024, 1, 11), True),  # 00:00 is no hour of the night
    order("a", 4, datetime(2024, 1, 12), True),
    order("b", 1, datetime(2024, 1, 11), True),
]


def test_a_share_of_hours_is_one_of_the_rows_that_have_an_hour(lake_of, tmp_path):
    as_of = datetime(2024, 1, 20)
    builder = Builder(lake_of({"transactions": MIXED}), FEATURES)
    features = (NIGHT, HOURS, DAYS, ORDERS)
    built = {row["user_id"]: row for row in builder.build(as_of, features).table.to_pylist()}
    assert [built["a"][feature.name] for feature in features] == [0.5, 2.0, 3.0, 4.0]
    assert [built["b"][feature.name] for feature in features] == [-1.0, 0.0, 1.0, 1.0]
    build_state(builder, datetime(2024, 1, 11), features).save(tmp_path / "state")
    state = OnlineState.load(tmp_path / "state")
    for row in built.values():
        later = [line for line in MIXED if line["source_user_id"] == row["user_id"] and line["ts"] >= state.as_of]
        online = values(state.customer(row["one_id"]), as_of, {"transactions": later})
        assert online == {feature.name: row[feature.name] for feature in features}


def test_tags_of_hours_are_unknown_where_no_row_has_an_hour(lake_of):
    lake = lake_of({"transactions": MIXED})
    snapshot = build_snapshot(Builder(lake, FEATURES), datetime(2024, 1, 20), Settings())
    tags = dict(zip(snapshot.table["user_id"].to_pylist(), snapshot.tags["active_hours"], strict=True))
    assert tags["b"] is None
    assert tags["a"] in ("night", "morning")
    assert set(snapshot.tags["favourite_weekday"]) == {"wednesday", "thursday"}


def test_a_table_of_dates_supports_no_hours_and_no_sessions(lake_of):
    """Nor does one whose only clock times come later."""
    events = [event(1, datetime(2024, 1, 1), True), event(2, datetime(2024, 1, 2, 15), False)]
    builder = Builder(lake_of({"events": events, "transactions": MIXED}), FEATURES)
    hours = {"night_event_share_91d", "event_hour_entropy_91d", "sessions_91d", "events_per_session"}
    before, after = (builder.build(datetime(2024, 1, day)).unsupported for day in (2, 3))
    assert hours <= set(before)
    assert hours & set(after) == set()
    assert "event_days_91d" not in before
    named = [event(1, datetime(2024, 1, 1), True, session_id="x")]
    assert "sessions_91d" not in Builder(lake_of({"events": named}), FEATURES).build(datetime(2024, 1, 2)).unsupported


def test_an_order_has_the_hour_of_its_first_line(lake_of):
    lines = [
        {**order("a", 1, MORNING), "line_no": 2},
        {**order("a", 1, MORNING - timedelta(hours=8), True)},
        {**order("b", 1, MORNING, True), "line_no": 2},
        {**order("b", 1, MORNING)},  # at the same moment, the one with a clock time counts
    ]
    views = Builder(lake_of({"transactions": lines}), FEATURES).views(datetime(2024, 1, 20))
    rows = views["orders"].select("order_id", "date_only", "hour").order_by("order_id").to_pyarrow().to_pylist()
    assert [(row["date_only"], row["hour"]) for row in rows] == [(True, None), (False, 8)]


# ---- a model and its zone --------------------------------------------------------------------------------------------


def test_profiles_of_another_zone_are_built_again_and_not_mixed_with_a_model(lake_of):
    lake = lake_of({"transactions": [order("a", 1, datetime(2024, 1, 10, 2)), order("a", 2, MORNING)]})
    as_of = datetime(2024, 1, 20)
    utc = ensure_snapshot(lake.workspace, as_of, Settings())
    york = ensure_snapshot(lake.workspace, as_of, Settings(timezone="America/New_York"))
    assert (utc.table["order_days_28d"][0].as_py(), york.table["order_days_28d"][0].as_py()) == (1.0, 2.0)
    assert ensure_snapshot(lake.workspace, as_of, Settings(timezone="America/New_York")).spec == york.spec
    assert utc.spec.hash != york.spec.hash
    assert york.spec.select(["order_days_28d"]).timezone == "America/New_York"
    with pytest.raises(ArtifactError, match="another time zone.*America/New_York") as caught:
        york.encoded(utc.spec)
    assert "timezone: UTC" in caught.value.hint
    with pytest.raises(ArtifactError):
        Builder(lake, FEATURES).build(as_of).matrix(york.spec)
    # a model that reads neither days nor hours means the same in every zone
    amounts = utc.spec.select(["amount_total", "orders_total"])
    np.testing.assert_array_equal(york.encoded(amounts).values, utc.encoded(amounts).values)


def test_a_zone_the_engine_does_not_know_is_named(lake):
    with pytest.raises(ConfigError, match="Mars/Olympus"):
        Builder(lake, FEATURES, timezone="Mars/Olympus")
