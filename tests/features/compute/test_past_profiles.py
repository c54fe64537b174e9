"""A past moment sees the attributes that were known then, a present one the current profile."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from features.compute.builder import Builder
from features.compute.engines import SparkEngine
from features.compute.engines import duckdb as engine_module
from features.compute.online.build import build_state
from features.compute.views import PreparedTables
from features.definitions import FEATURES
from tests.features.plain import BEGIN

DAYS = 40
OF_PROFILES = tuple(one for one in FEATURES if one.view == "profiles" or one.name == "orders_total")
USERS = ("a", "b", "c")


@pytest.fixture(autouse=True)
def built_like_all_features(monkeypatch):
    """The engine builds few features in another way than all, which would take most of the time of these tests."""
    monkeypatch.setattr(engine_module, "FEW_FEATURES", 0)


def at(day):
    return BEGIN + timedelta(days=day)


LINES = [
    {
        "source": "s",
        "source_user_id": user,
        "order_id": f"{user}{day}",
        "line_no": 1,
        "ts": at(day),
        "item_id": "i",
        "quantity": 1.0,
        "amount": 2.0,
        "status": "paid",
    }
    for user in USERS
    for day in (0, DAYS - 1)
]


def person(user, **more):
    return {"source": "s", "source_user_id": user, **more}


PROFILES = [
    person("a", member_tier="platinum", points_balance=9.0, gender="f", registered_at=at(10), hobby="chess"),
    person("b", member_tier="gold", points_balance=4.0, gender="m", registered_at=at(-10), hobby=None),
    person("c", member_tier="silver", points_balance=1.0, gender=None, registered_at=None, hobby=None),
]
HISTORY = [
    person("a", valid_from=None, gender="f", registered_at=at(10), hobby="chess"),
    person("a", valid_from=at(5), member_tier="gold", points_balance=3.0),
    person("a", valid_from=at(20), member_tier="platinum", points_balance=None),
    person("a", valid_from=at(60), member_tier="platinum", points_balance=9.0),
    person("b", valid_from=None, gender="m", registered_at=at(-10)),
    person("b", valid_from=at(60), member_tier="gold", points_balance=4.0),
]
LAKE = {"transactions": LINES, "profiles": PROFILES, "profile_history": HISTORY}


def attributes(builder, as_of):
    rows = builder.build(as_of).table.to_pylist()
    return {
        row["user_id"]: {name.removeprefix("profile_"): row[name] for name in row if name.startswith("profile_")}
        for row in rows
    }


# what is known of "a" and "b" at a moment; "c" is in no row of the history
AT = [
    (4, {"gender": "f", "hobby": "chess"}, {"gender": "m"}),
    (5, {"gender": "f", "hobby": "chess"}, {"gender": "m"}),  # a row of this very moment is not before it
    (6, {"gender": "f", "hobby": "chess", "member_tier": "gold", "points_balance": 3.0}, {"gender": "m"}),
    (21, {"gender": "f", "hobby": "chess", "member_tier": "platinum"}, {"gender": "m"}),
    (
        DAYS,
        {"gender": "f", "hobby": "chess", "member_tier": "platinum", "points_balance": 9.0},
        {"gender": "m", "member_tier": "gold", "points_balance": 4.0},
    ),
]


def known(values):
    return {name: value for name, value in values.items() if value not in ("", 0.0)}


def check(builder):
    for day, first, second in AT:
        found = attributes(builder, at(day))
        assert (known(found["a"]), known(found["b"])) == (first, second), day
        assert known(found["c"]) == ({"member_tier": "silver", "points_balance": 1.0} if day == DAYS else {})


def test_a_moment_sees_what_was_known_before_it(lake_of):
    builder = Builder(lake_of(LAKE), OF_PROFILES)
    check(builder)
    check(builder)  # from the queries that the engine kept
    unsupported = builder.supported(as_of=at(4))[1]
    assert "profile_member_tier" not in {feature.name for feature in builder.supported(as_of=at(4))[0]}
    assert "days_since_points_expired" in unsupported


def test_a_registration_is_not_known_before_it_happens(lake_of):
    builder = Builder(lake_of(LAKE), OF_PROFILES)
    days = {
        day: dict(
            zip(
                *(builder.build(at(day)).table[name].to_pylist() for name in ("user_id", "days_since_registered")),
                strict=True,
            )
        )
        for day in (10, 11, DAYS)
    }
    assert [days[day]["b"] for day in days] == [20, 21, DAYS + 10]
    assert [days[day]["a"] for day in days] == [days[DAYS]["c"], 1, DAYS - 10]  # "c": never registered


def test_a_lake_larger_than_memory_sees_the_same(lake_of, monkeypatch):
    monkeypatch.setattr(engine_module, "BUCKET_ROWS", 2)
    monkeypatch.setattr(PreparedTables, "MAX_CACHED_ROWS", 1)
    check(Builder(lake_of(LAKE), OF_PROFILES))


def test_an_allowed_attribute_has_its_first_known_value_before_it(lake_of):
    builder = Builder(lake_of(LAKE), OF_PROFILES, allow_undated=("member_tier",))
    tiers = {
        day: {user: row["member_tier"] for user, row in attributes(builder, at(day)).items()} for day in (4, 21, DAYS)
    }
    assert tiers[4] == {"a": "gold", "b": "gold", "c": "silver"}
    assert tiers[21] == tiers[DAYS] == {"a": "platinum", "b": "gold", "c": "silver"}
    assert "points_balance" not in attributes(builder, at(4))["a"]


@pytest.mark.parametrize("buckets", [False, True])
def test_a_lake_without_a_history_knows_only_what_is_fixed_by_nature(lake_of, monkeypatch, buckets):
    if buckets:
        monkeypatch.setattr(engine_module, "BUCKET_ROWS", 2)
        monkeypatch.setattr(PreparedTables, "MAX_CACHED_ROWS", 1)
    lake = without_history(lake_of(LAKE))
    builder = Builder(lake, OF_PROFILES)
    assert {user: known(row) for user, row in attributes(builder, at(30)).items()} == {
        "a": {"gender": "f"},
        "b": {"gender": "m"},
        "c": {},
    }
    assert attributes(builder, at(DAYS))["a"]["member_tier"] == "platinum"


def without_history(lake):
    import json

    manifest = lake.workspace.lake / "manifest.json"
    content = json.loads(manifest.read_text())
    content["tables"] = [table for table in content["tables"] if table["name"] != "profile_history"]
    manifest.write_text(json.dumps(content))
    return lake


def test_the_online_state_of_a_past_moment_knows_no_more(lake_of):
    builder = Builder(lake_of(LAKE), OF_PROFILES)
    state = build_state(builder, at(6))
    tiers = dict(zip(state.one_ids.tolist(), state.attributes["profile_member_tier"].tolist(), strict=True))
    table = builder.build(at(6)).table
    assert tiers == dict(zip(table["one_id"].to_pylist(), table["profile_member_tier"].to_pylist(), strict=True))
    assert sorted(tiers.values()) == ["", "", "gold"]


def test_without_times_every_moment_is_the_present(lake_of):
    lines = [{**line, "ts": None} for line in LINES]
    builder = Builder(lake_of({**LAKE, "transactions": lines}), OF_PROFILES)
    assert {user: row["member_tier"] for user, row in attributes(builder, at(4)).items()} == {
        "a": "platinum",
        "b": "gold",
        "c": "silver",
    }


@pytest.mark.slow
@pytest.mark.parametrize("with_history", [True, False])
def test_spark_sees_the_same(lake_of, with_history):
    lake = lake_of(LAKE)
    lake = lake if with_history else without_history(lake)
    here = Builder(lake, FEATURES, allow_undated=("member_tier",))
    with SparkEngine(lake) as spark:
        there = Builder(lake, FEATURES, spark, allow_undated=("member_tier",))
        for day in (6, 21, DAYS):
            one, other = here.build(at(day)), there.build(at(day))
            assert one.features == other.features
            names = [feature.name for feature in one.features if feature.view == "profiles"]
            for name in names:
                if one.table[name].type == "string":
                    assert one.table[name].to_pylist() == other.table[name].to_pylist()
                else:
                    np.testing.assert_allclose(one.table[name].to_numpy(), other.table[name].to_numpy())
