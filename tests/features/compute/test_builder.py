"""The builder against a plain computation over rows, on made-up histories at made-up moments."""

from __future__ import annotations

from datetime import timedelta
from itertools import product
from typing import get_args

import duckdb
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.compute.algebra import TWO_WINDOW_AGGREGATES, Aggregate, Feature
from features.compute.builder import Builder
from features.compute.engines import duckdb as engine_module
from features.compute.views import PreparedTables
from features.definitions import FEATURES
from features.profiles.building import build_snapshot
from features.training_data import training_set
from qianmian.errors import DataError
from qianmian.settings import Settings
from tests.examples import examples
from tests.features.plain import (
    BEGIN,
    EVENT,
    FEATURE_POOL,
    ITEMS,
    LINE,
    MILKS,
    MOMENTS,
    PROFILE,
    SOURCES,
    TOUCH,
    USERS,
    WINDOWS,
    ZONES,
    catalogue,
    histories,
    known,
    numbered,
    reference_value,
    unique,
)

QUICK = settings(
    deadline=None,
    max_examples=examples(10),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
SOME = st.lists(st.sampled_from(FEATURE_POOL), min_size=8, max_size=12, unique=True)


def with_quotient(features):
    numbers = [feature for feature in features if not feature.categorical]
    made = Feature("quotient", "", "quotient", numbers[0].name, over=numbers[-1].name, default=-2.0, description="d")
    return (*features, made)


def test_the_pool_has_every_aggregate_and_window():
    declared_kinds = set(get_args(Aggregate)) - {"quotient"}  # made of two others, see with_quotient
    windowless = {
        "attribute": {None},
        "missing": {None},
        "days_since": {None},
        **dict.fromkeys((*TWO_WINDOW_AGGREGATES, "expected"), {7, 28}),
    }
    for kind in declared_kinds:
        assert {feature.window_days for feature in FEATURE_POOL if feature.aggregate == kind} == windowless.get(
            kind, set(WINDOWS)
        ), kind


@QUICK
@given(tables=histories(), as_of=MOMENTS, features=SOME, zone=st.sampled_from(ZONES))
def test_features_are_what_they_say(lake_of, tables, as_of, features, zone):
    check_all(lake_of, tables, as_of, features, zone)


@pytest.mark.parametrize("part", range(4))
def test_every_feature_of_the_pool_on_one_long_history(lake_of, part):
    rng = np.random.default_rng(part)

    def pick(values):
        return values[rng.integers(len(values))]

    def moment():
        return BEGIN + timedelta(days=int(rng.integers(0, 50)), seconds=int(pick([0, 1, 43_200, 86_399])))

    lines = numbered(
        [
            {
                "source": pick(SOURCES),
                "source_user_id": pick([*USERS, None]),
                "order_id": f"o{rng.integers(40)}",
                "ts": moment(),
                "date_only": pick([None, False, False, True]),
                "item_id": pick([*ITEMS, None]),
                "quantity": pick([None, 0.0, 1.0, 3.0]),
                "amount": pick([None, 0.0, 1.0, 99.5]),
                "discount": pick([None, 0.0, 1.0]),
                "coupon_discount": pick([None, 1.0]),
                "store_id": pick(["s1", "s2", None]),
                "channel": pick(["web", "app", None]),
                "status": pick(["paid"] * 4 + ["refunded", "cancelled"]),
            }
            for _ in range(250)
        ]
    )
    events = [
        {
            "source": pick(SOURCES),
            "source_user_id": pick([*USERS, "4"]),
            "event_id": f"e{n}",
            "event_type": pick(["view", "cart", "search"]),
            "ts": moment(),
            "date_only": pick([None, False, False, True]),
            "item_id": pick([*ITEMS, None]),
            "category": pick([None, "own/category"]),
            "session_id": pick(["x", None]),
            "duration_seconds": pick([None, 1.0, 5.0]),
            "content_id": pick(["c1", "c2", "c3", None]),
            "channel": pick(["web", "app", None]),
        }
        for n in range(120)
    ]
    profiles = [
        {
            "source": source,
            "source_user_id": user,
            "age_band": pick(["18-24", "65+"]),
            "points_balance": pick([None, 3.0]),
            "registered_at": moment(),
        }
        for source, user in product(SOURCES, USERS)
    ]
    touches = [
        {
            "source": pick(SOURCES),
            "source_user_id": pick(USERS),
            "touch_id": f"t{n}",
            "campaign_id": pick(["m1", "m2"]),
            "ts": moment(),
            "opened": pick([True, False, None]),
        }
        for n in range(60)
    ]
    tables = {"transactions": lines, "events": events, "profiles": profiles, "touches": touches, **catalogue()}
    check_all(lake_of, tables, BEGIN + timedelta(days=42), FEATURE_POOL[part::4], ZONES[part])


def check_all(lake_of, tables, as_of, features, zone):
    builder = Builder(lake_of(tables), FEATURES, timezone=zone)
    features = with_quotient(features)
    built = builder.build(as_of, features)
    assert built.features == tuple(features)
    assert built.unsupported == ()
    rows = built.table.to_pylist()
    assert {(row["user_source"], row["user_id"]) for row in rows} == known(tables, as_of)
    assert [row["one_id"] for row in rows] == sorted(row["one_id"] for row in rows)
    for row in rows:
        key = (row["user_source"], row["user_id"])
        for feature in features:
            expected = reference_value(feature, tables, key, as_of, row, zone)
            expected = feature.default if expected is None else expected
            if feature.categorical:
                assert row[feature.name] == expected, (feature, key)
            else:
                assert row[feature.name] == pytest.approx(expected, rel=1e-9, abs=1e-9), (feature, key)
    matrix = built.matrix()
    assert matrix.values.shape == (len(rows), len(features))
    for feature in features:
        if feature.categorical:
            assert [text or feature.default for text in matrix.text(feature.name)] == [
                row[feature.name] for row in rows
            ]


# ---- the future changes nothing ------------------------------------------------------------------------------------------


@st.composite
def pasts_and_futures(draw):
    """Rows before a moment, and more rows at or after it: of the same orders, of new ones, of new customers, items, columns."""
    as_of = draw(MOMENTS)
    seconds = st.sampled_from([0, 0, 1, 3_600, 86_400, 20 * 86_400])

    def cut(rows):
        return [row for row in rows if row["ts"] < as_of]

    def later(strategy):
        moved = st.builds(lambda row, after: {**row, "ts": as_of + timedelta(seconds=after)}, strategy, seconds)
        return draw(st.lists(moved, max_size=12))

    first = {
        "source": "app",
        "source_user_id": "1",
        "order_id": "o0",
        "ts": BEGIN,
        "item_id": "i1",
        "quantity": 1.0,
        "amount": 3.0,
        "status": "paid",
    }
    sparse = draw(st.sets(st.sampled_from(["discount", "coupon_discount", "store_id", "channel", "quantity"])))
    past_lines = [{**line, **dict.fromkeys(sparse)} for line in cut(draw(st.lists(LINE, max_size=20)))]
    newcomer = {
        "source_user_id": st.sampled_from([*USERS, "new", "undated"]),
        "item_id": st.sampled_from([*ITEMS, "new item"]),
    }
    new_lines = later(st.builds(lambda line, **new: {**line, **new}, LINE, **newcomer))
    new_events = later(st.builds(lambda event, **new: {**event, **new}, EVENT, **newcomer))
    profiles = [
        row
        for row in draw(st.lists(PROFILE, max_size=4))
        if row["registered_at"] is None or row["registered_at"] < as_of
    ]
    profiles = unique(
        [*profiles, {"source": "app", "source_user_id": "undated", "age_band": "65+", "registered_at": None}]
    )
    new_people = draw(st.lists(st.sampled_from(["new", "newer"]), max_size=2, unique=True))
    told = catalogue()
    touches = [
        {"source": "app", "source_user_id": "1", "campaign_id": "m1", "ts": BEGIN, "opened": True, "touch_id": "t"}
    ]
    past = {
        "transactions": [first, *past_lines],
        "profiles": profiles,
        "touches": touches,
        **told,
        "events": [{**row, "event_id": f"p{n}"} for n, row in enumerate(cut(draw(st.lists(EVENT, max_size=8))))],
    }
    joined = {
        "transactions": numbered([dict(row) for row in [*past["transactions"], *new_lines]]),
        "events": [*past["events"], *({**row, "event_id": f"f{n}"} for n, row in enumerate(new_events))],
        "profiles": [
            *profiles,
            *(
                {"source": "app", "source_user_id": user, "age_band": "new band", "registered_at": as_of}
                for user in new_people
            ),
        ],
        "touches": [*touches, *({**row, "touch_id": f"f{n}"} for n, row in enumerate(later(TOUCH)))],
        "items": [*told["items"], {"item_id": "new item", "category": "new/category", "brand": "new brand"}],
        "contents": [*told["contents"], {"content_id": "new content", "topics": "new topic"}],
    }
    past["transactions"] = numbered([dict(row) for row in past["transactions"]])
    return as_of, past, joined


def same_tables(one, other):
    assert one.column_names == other.column_names
    assert one.to_pylist() == other.to_pylist()


@QUICK
@given(pasts_and_futures(), SOME)
def test_future_rows_change_no_feature(lake_of, case, features):
    as_of, past, joined = case
    features = with_quotient(features)
    before, after = (Builder(lake_of(tables), FEATURES).build(as_of, features) for tables in (past, joined))
    assert before.features == after.features
    assert before.unsupported == after.unsupported
    same_tables(before.table, after.table)
    assert before.matrix().spec.hash == after.matrix().spec.hash
    np.testing.assert_array_equal(before.matrix().values, after.matrix().values)


@settings(QUICK, max_examples=examples(3))
@given(pasts_and_futures())
def test_future_rows_change_no_training_set_and_no_snapshot(lake_of, case):
    as_of, past, joined = case
    one, other = (Builder(lake_of(tables), FEATURES) for tables in (past, joined))
    first, second = (
        training_set(builder, as_of, min_item_customers=1, with_features=False) for builder in (one, other)
    )
    np.testing.assert_array_equal(first.user_ids, second.user_ids)
    np.testing.assert_array_equal(first.item_ids, second.item_ids)
    assert first.interactions.shape == second.interactions.shape
    for name in ("users", "items", "age_days", "weights"):
        np.testing.assert_array_equal(getattr(first.interactions, name), getattr(second.interactions, name))
    for name, values in first.item_attributes.items():
        np.testing.assert_array_equal(values, second.item_attributes[name])
    assert first.source == second.source
    snapshots = build_snapshot(one, as_of, Settings()), build_snapshot(other, as_of, Settings())
    same_tables(snapshots[0].table, snapshots[1].table)
    same_tables(snapshots[0].customers, snapshots[1].customers)
    assert snapshots[0].tags == snapshots[1].tags
    assert snapshots[0].spec == snapshots[1].spec
    np.testing.assert_array_equal(snapshots[0].features.values, snapshots[1].features.values)
    assert snapshots[0].unsupported == snapshots[1].unsupported


# ---- what the data does not hold ------------------------------------------------------------------------------------------


def lines(**columns):
    rows = [
        {
            "source": "s",
            "source_user_id": user,
            "order_id": f"o{n}",
            "line_no": 1,
            "ts": BEGIN + timedelta(days=n),
            "item_id": f"i{n % 2}",
            "quantity": 1.0,
            "amount": 2.0,
            "status": "paid",
        }
        for n, user in enumerate("abab")
    ]
    return [{**row, **columns} for row in rows]


def names(built):
    return {feature.name for feature in built.features}


def test_a_column_never_filled_is_off_and_not_zero(lake_of):
    built = Builder(lake_of({"transactions": lines(discount=1.0)}), FEATURES).build(BEGIN + timedelta(days=9))
    assert {"discount_91d", "orders_total", "amount_total"} <= names(built)
    unsupported = set(built.unsupported)
    assert {
        "coupon_discount_91d",
        "coupon_orders_182d",
        "top_channel",
        "stores_distinct",
        "top_category",
        "events_28d",
        "touches_total",
    } <= unsupported
    assert unsupported | names(built) == {feature.name for feature in FEATURES}
    assert not unsupported & set(built.table.column_names)


def test_an_empty_table_is_off(lake_of):
    built = Builder(lake_of({"transactions": lines(), "events": []}), FEATURES).build(BEGIN + timedelta(days=9))
    assert "events_28d" in built.unsupported


def test_without_times_only_what_needs_none(lake_of):
    built = Builder(lake_of({"transactions": lines(ts=None)}), FEATURES).build(BEGIN)
    assert {
        "orders_total",
        "lines_total",
        "amount_total",
        "basket_lines_mean",
        "order_value_max",
        "items_distinct",
    } <= names(built)
    assert not [
        feature for feature in built.features if feature.window_days or feature.aggregate in ("recency", "age", "trend")
    ]
    assert {"gap_days_mean", "gaps_silent", "night_order_share", "weekday_entropy"} <= set(built.unsupported)
    assert built.table["orders_total"].to_pylist() == [2.0, 2.0]


def test_without_amounts_no_money(lake_of):
    built = Builder(lake_of({"transactions": lines(amount=None)}), FEATURES).build(BEGIN + timedelta(days=9))
    assert {"orders_28d", "lines_per_item", "basket_units_mean"} <= names(built)
    assert {"amount_total", "amount_28d", "order_value_mean", "price_level_mean", "discount_rate"} <= set(
        built.unsupported
    )


def test_a_quotient_of_a_part_that_is_off_is_off(lake_of):
    part, unsupported = (Feature(name, "orders", "sum", name, description="d") for name in ("amount", "units"))
    both = Feature("both", "", "quotient", "amount", over="units", description="d")
    builder = Builder(lake_of({"transactions": lines(quantity=None)}), FEATURES)
    assert builder.build(BEGIN + timedelta(days=9), (part, unsupported, both)).unsupported == ("units", "both")


def test_windows_hold_their_first_moment_and_not_their_last(lake_of):
    as_of = BEGIN + timedelta(days=10)
    at = [as_of - timedelta(days=7, seconds=1), as_of - timedelta(days=7), as_of - timedelta(seconds=1), as_of]
    rows = [{**lines()[0], "order_id": f"o{n}", "ts": ts} for n, ts in enumerate(at)]
    table = Builder(lake_of({"transactions": rows}), FEATURES).build(as_of).table
    assert table["orders_7d"].to_pylist() == [2.0]
    assert table["orders_total"].to_pylist() == [3.0]


def test_attributes_are_features_of_their_own(lake_of):
    profiles = [
        {
            "source": "s",
            "source_user_id": "a",
            "age_band": "18-24",
            "points_balance": 5.0,
            "shoe size": 43.5,
            "consent_email": True,
            "city": None,
        },
        {
            "source": "s",
            "source_user_id": "b",
            "age_band": None,
            "points_balance": None,
            "shoe size": None,
            "consent_email": None,
        },
    ]
    built = Builder(lake_of({"transactions": lines(), "profiles": profiles}), FEATURES).build(BEGIN + timedelta(days=9))
    found = {row["user_id"]: row for row in built.table.to_pylist()}
    assert (found["a"]["profile_age_band"], found["b"]["profile_age_band"]) == ("18-24", "")
    assert (found["a"]["profile_points_balance"], found["b"]["profile_points_balance"]) == (5.0, 0.0)
    assert found["a"]["profile_shoe size"] == 43.5
    assert "profile_consent_email" not in found["a"]
    assert "profile_city" not in found["a"]
    matrix = built.matrix()
    assert matrix.spec.vocabularies[matrix.spec.names.index("profile_age_band")] == ("18-24",)


def test_a_customer_without_a_record_is_told_from_one_whose_values_are_low(lake_of):
    """One indicator per source, about what that source records; a record without any value is none."""
    people = [{"source": source, "source_user_id": user} for source in ("crm", "forum") for user in "abc"]
    people[0] |= {"points_balance": 0.0, "city": None}
    people[1] |= {"points_balance": None, "city": "Lyon"}
    people[3] |= {"shoe size": 43.5}
    orders = [{**lines()[0], "source": "crm", "source_user_id": user, "order_id": f"o{user}"} for user in "abcd"]
    lake = lake_of({"transactions": orders, "profiles": people})
    built = Builder(lake, FEATURES).build(BEGIN + timedelta(days=9))
    found = {(row["user_source"], row["user_id"]): row for row in built.table.to_pylist()}
    assert {
        user: (row["profile_points_balance"], row["no_record_crm"], row["no_record_forum"])
        for (source, user), row in found.items()
        if source == "crm"
    } == {"a": (0.0, 0.0, 1.0), "b": (0.0, 0.0, 1.0), "c": (0.0, 1.0, 1.0), "d": (0.0, 1.0, 1.0)}
    assert (found["forum", "a"]["no_record_crm"], found["forum", "a"]["no_record_forum"]) == (1.0, 0.0)


def test_nobody_known_yet(lake_of):
    with pytest.raises(DataError, match="no customer is known") as caught:
        Builder(lake_of({"transactions": lines()}), FEATURES).build(BEGIN)
    assert "ends at" in caught.value.hint


def test_a_lake_without_customers_is_refused(lake_of):
    with pytest.raises(DataError, match="has no customers"):
        Builder(lake_of({"transactions": lines(source_user_id=None)}), FEATURES)


# ---- a lake larger than memory ---------------------------------------------------------------------------------------------


def test_buckets_of_customers_give_what_one_pass_gives(write_lake, tmp_path, monkeypatch):
    """A large lake is built bucket by bucket, here in three; "large" is ten rows."""
    monkeypatch.setattr(engine_module, "BUCKET_ROWS", 16)
    monkeypatch.setattr(engine_module, "FEW_FEATURES", 0)
    users = [f"u{n}" for n in range(23)]
    lines = [
        {
            "source": "s",
            "source_user_id": user,
            "order_id": f"o{n}",
            "line_no": 1,
            "ts": BEGIN + timedelta(days=n, hours=k),
            "item_id": ("i1", "i2", *MILKS)[k % 6],
            "quantity": 1.0,
            "amount": 2.0 + k,
            "discount": k / 2,
            "status": "paid",
            "channel": "web",
        }
        for k, user in enumerate(users)
        for n in range(k % 5)
    ]
    events = [
        {"source": "s", "source_user_id": user, "event_id": f"e{k}", "event_type": "view", "ts": BEGIN, "item_id": "i1"}
        for k, user in enumerate(users)
    ]
    profiles = [{"source": "s", "source_user_id": user, "age_band": "65+", "shoe_size": 40.0} for user in users]
    tables = {"transactions": lines, "events": events, "profiles": profiles, **catalogue()}
    lake = write_lake(tmp_path / "shop[ab] * source_user_id=1", tables)
    as_of = BEGIN + timedelta(days=3)
    whole = Builder(lake, FEATURES).build(as_of)
    monkeypatch.setattr(PreparedTables, "MAX_CACHED_ROWS", 10)
    parts = Builder(lake, FEATURES)
    for moment in (as_of - timedelta(days=1), as_of):
        built = parts.build(moment)
    assert built.unsupported == whole.unsupported
    same_tables(built.table, whole.table)
    assert len(set(whole.table["price_level_mean_56d"].to_pylist())) > 5  # of the lines of all buckets
    assert not list(lake.workspace.root.glob(".build-*"))


def test_the_query_of_one_moment_answers_for_another(lake_of):
    """The engine keeps the query and moves the moment."""
    lake = lake_of({"transactions": lines()})
    kept = Builder(lake, FEATURES)
    for day in (2, 5, 3):
        moment = BEGIN + timedelta(days=day)
        same_tables(kept.build(moment).table, Builder(lake, FEATURES).build(moment).table)


def test_one_specification_is_compiled_once(lake_of, monkeypatch):
    compiled = []
    to_sql = engine_module.ibis.to_sql
    monkeypatch.setattr(engine_module.ibis, "to_sql", lambda *of, **how: compiled.append(of) or to_sql(*of, **how))
    monkeypatch.setattr(engine_module, "_SQL_CACHE", {})
    builder = Builder(lake_of({"transactions": lines()}), FEATURES)
    for day in (2, 4, 5):  # before the end of the data
        builder.build(BEGIN + timedelta(days=day))
    assert len(compiled) == 1


def test_a_column_is_filled_from_its_first_value_on(lake_of):
    rows = lines()
    later = max(row["ts"] for row in rows)
    rows = [{**row, "discount": 1.0 if row["ts"] == later else None} for row in rows]
    builder = Builder(lake_of({"transactions": rows}), FEATURES)
    before, after = builder.states_at(later), builder.states_at(later + timedelta(microseconds=1))
    assert "discount" not in before["transactions"].filled
    assert set(after["transactions"].filled) == {*before["transactions"].filled, "discount"}
    first = min(row["ts"] for row in rows)
    nothing = builder.states_at(first)["transactions"]
    assert (nothing.rows, nothing.filled) == (0, ())


def test_a_record_joins_a_customer_when_it_was_known_to(lake_of):
    """Periods: before the link the record is a customer of its own, after it the customer's."""
    lake = lake_of({"transactions": lines()})
    known = BEGIN + timedelta(days=4)
    people = Builder(lake, FEATURES).views(BEGIN + timedelta(days=30)).customers.to_pyarrow().to_pylist()
    first, second = people[0], people[1]
    with duckdb.connect() as connection:
        lake.attach(connection)
        lake.commit(
            connection,
            {
                "customers": f"""SELECT * FROM (SELECT * FROM customers UNION ALL
            SELECT '{first["one_id"]}', '{second["source"]}', '{second["source_user_id"]}', TIMESTAMP '{known}', 'merge') ORDER BY ALL"""
            },
        )
    builder = Builder(lake, FEATURES)
    apart = {row["one_id"]: row["orders_total"] for row in builder.build(known).table.to_pylist()}
    joined = {
        row["one_id"]: row["orders_total"] for row in builder.build(known + timedelta(seconds=1)).table.to_pylist()
    }
    assert set(apart) - set(joined) == {second["one_id"]}
    assert joined[first["one_id"]] == apart[first["one_id"]] + apart[second["one_id"]]
    assert builder.build(known + timedelta(seconds=1)).table["user_id"].to_pylist().count(second["source_user_id"]) == 0
