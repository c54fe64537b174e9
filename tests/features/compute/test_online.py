"""The online value equals a build at the same moment, whatever the split between what was stored and what came since."""

from __future__ import annotations

import math
import subprocess
import sys
from datetime import datetime, timedelta

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.compute.algebra import PRICE_LEVEL, Feature
from features.compute.builder import Builder
from features.compute.online import OnlinePlan, OnlineState, values
from features.compute.online.build import build_state
from features.definitions import FEATURES
from qianmian.errors import ArtifactError
from tests.examples import examples
from tests.features.plain import BEGIN, FEATURE_POOL, ZONES, histories

QUICK = settings(
    deadline=None,
    max_examples=examples(15),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
DATED = ("transactions", "events", "touches")
LN2 = math.log(2)
# price levels are those of the build until the next one, so that the values of a later build are others
PRICED = tuple(feature for feature in FEATURE_POOL if PRICE_LEVEL in feature.columns)
# with a longest window of 7 days (14 for a trend) most of a history of 50 days lies before the tail
SHORT = tuple(feature for feature in FEATURE_POOL if feature.window_days in (None, 7) and feature not in PRICED)
FOREVER = tuple(feature for feature in SHORT if feature.window_days is None)  # without a window there is no tail
SOME = st.one_of(
    st.lists(st.sampled_from(SHORT), min_size=15, max_size=25, unique=True),
    st.lists(st.sampled_from(FOREVER), min_size=15, max_size=25, unique=True),
)


def short_orders(tables):
    """No order goes on for longer than the tail: see `features.compute.online.recent`."""
    lines = [
        {**line, "order_id": f"{line['order_id']}-{(line['ts'] - BEGIN).days // 6}"} for line in tables["transactions"]
    ]
    return {**tables, "transactions": lines}


def same(online, built, features, key):
    for feature in features:
        if feature.categorical:
            assert online[feature.name] == built[feature.name], (feature, key)
        else:
            assert online[feature.name] == pytest.approx(built[feature.name], rel=1e-6, abs=1e-6), (feature, key)


def check(lake, tables, stored_at, now, features, zone="UTC"):
    """A state stored at one moment, asked at another, with the rows between them and (to no effect) later ones."""
    builder = Builder(lake, FEATURES, timezone=zone)
    state = build_state(builder, stored_at, features)
    assert state.plan.features == tuple(features)
    people = {
        row["source_user_id"]: row["one_id"]
        for row in builder.views(now).customers.to_pyarrow().to_pylist()
        if row["source"] == "app"
    }
    people |= {
        row["source"] + row["source_user_id"]: row["one_id"]
        for row in builder.views(now).customers.to_pyarrow().to_pylist()
    }
    since = {name: [row for row in tables[name] if row["ts"] >= stored_at][::-1] for name in DATED}  # in no order
    built = {row["one_id"]: row for row in builder.build(now, features).table.to_pylist()}
    for one_id, row in built.items():
        mine = {
            name: [
                r
                for r in rows
                if r["source_user_id"] is not None and people.get(r["source"] + r["source_user_id"]) == one_id
            ]
            for name, rows in since.items()
        }
        customer = state.customer(one_id)
        kept = [feature for feature in features if customer.row >= 0 or feature.view != "profiles"]
        kept = [feature for feature in kept if feature.aggregate != "quotient" or customer.row >= 0]
        same(values(customer, now, mine), row, kept, (row["user_source"], row["user_id"]))
    return state


@QUICK
@given(
    tables=histories(),
    split=st.integers(1, 54),
    after=st.integers(0, 30),
    second=st.sampled_from([0, 1, 43_200]),
    features=SOME,
    zone=st.sampled_from(ZONES),
)
def test_the_online_value_is_what_a_build_would_give(lake_of, tables, split, after, second, features, zone):
    stored_at, tables = BEGIN + timedelta(days=split), short_orders(tables)
    check(lake_of(tables), tables, stored_at, stored_at + timedelta(days=after, seconds=second), features, zone)


@QUICK
@given(tables=histories(), split=st.integers(1, 54), zone=st.sampled_from(ZONES))
def test_price_levels_are_those_of_the_build(lake_of, tables, split, zone):
    stored_at, tables = BEGIN + timedelta(days=split), short_orders(tables)
    check(lake_of(tables), tables, stored_at, stored_at, PRICED, zone)


def test_a_newer_line_has_the_price_level_that_its_item_had_at_the_build(lake_of, tmp_path):
    """Five items of one category; a newer, dearer line of an item changes its level with the next build only."""
    prices = {"a": 1.0, "b": 1.0, "c": 2.0, "d": 4.0, "e": 4.0}
    lines = [bought(f"o{item}", 10, item, price) for item, price in prices.items()]
    items = [{"item_id": item, "category": "food"} for item in (*prices, "new")]
    builder = Builder(lake_of({"transactions": lines, "items": items}), FEATURES)
    wanted = [feature for feature in FEATURES if feature.name in ("price_level_mean_56d", "price_level_lines_56d")]
    stored_at = BEGIN + timedelta(days=20)
    build_state(builder, stored_at, wanted).save(tmp_path / "state")
    state = OnlineState.load(tmp_path / "state")
    assert state.price_levels == pytest.approx({"a": -LN2, "b": -LN2, "c": 0.0, "d": LN2, "e": LN2})
    customer = state.customer(str(state.one_ids[0]))
    assert values(customer, stored_at) == pytest.approx({"price_level_mean_56d": 0.0, "price_level_lines_56d": 5.0})
    newer = [bought("o9", 21, "e", 400.0), bought("o9", 21, "new", 3.0)]
    found = values(customer, stored_at + timedelta(days=2), {"transactions": newer})
    assert found == pytest.approx({"price_level_mean_56d": LN2 / 6, "price_level_lines_56d": 6.0})


def bought(order, day, item, amount):
    """A paid line."""
    return {
        "source": "app",
        "source_user_id": "1",
        "order_id": order,
        "line_no": 1,
        "ts": BEGIN + timedelta(days=day),
        "item_id": item,
        "amount": amount,
        "status": "paid",
    }


def shop(seed, days=50, n=400):
    """One long history with ties, refunds, nulls and orders that go on."""
    rng = np.random.default_rng(seed)

    def pick(options):
        return options[rng.integers(len(options))]

    def moment():
        return BEGIN + timedelta(days=int(rng.integers(0, days)), seconds=int(pick([0, 1, 600, 2_000, 43_200, 86_399])))

    lines = [
        {
            "source": pick(["app", "shop 2"]),
            "source_user_id": pick(["1", "2", "张三"]),
            "order_id": f"o{rng.integers(60)}",
            "line_no": number,
            "ts": moment(),
            "date_only": pick([None, False, False, True]),
            "item_id": pick(["i1", "i2", "i3", "bag", "i9", None]),
            "quantity": pick([None, 0.0, 1.0, 3.0]),
            "amount": pick([None, 0.0, 1.0, 99.5]),
            "discount": pick([None, 0.0, 1.0]),
            "coupon_discount": pick([None, 1.0]),
            "store_id": pick(["s1", "s2", None]),
            "channel": pick(["web", "app", None]),
            "status": pick(["paid"] * 4 + ["refunded", "cancelled"]),
        }
        for number in range(n)
    ]
    events = [
        {
            "source": pick(["app", "shop 2"]),
            "source_user_id": pick(["1", "2", "4"]),
            "event_id": f"e{number}",
            "event_type": pick(["view", "cart", "search"]),
            "ts": moment(),
            "date_only": pick([None, False, False, True]),
            "item_id": pick(["i1", "i2", "bag", None]),
            "category": pick([None, "own/category"]),
            "session_id": pick(["x", None, None]),
            "duration_seconds": pick([None, 1.0, 5.0]),
            "content_id": pick(["c1", "c2", None]),
            "channel": pick(["web", "app", None]),
        }
        for number in range(n)
    ]
    touches = [
        {
            "source": "app",
            "source_user_id": pick(["1", "2"]),
            "touch_id": f"t{number}",
            "campaign_id": pick(["m1", "m2"]),
            "ts": moment(),
            "opened": pick([True, False, None]),
        }
        for number in range(n // 4)
    ]
    return short_orders(
        {
            "transactions": lines,
            "events": events,
            "touches": touches,
            "profiles": [
                {
                    "source": "app",
                    "source_user_id": "1",
                    "age_band": "65+",
                    "points_balance": 2.0,
                    "registered_at": BEGIN,
                }
            ],
            "items": [
                {"item_id": "i1", "category": "food/milk", "brand": "b"},
                {"item_id": "i2", "category": "food", "brand": None},
                {"item_id": "bag", "category": "bags", "brand": "b", "merchandise": False},
            ],
            "contents": [{"content_id": "c1", "topics": "milk|bread"}, {"content_id": "c2", "topics": None}],
        }
    )


@pytest.mark.parametrize(("split", "zone"), zip([3, 20, 33, 49], ZONES, strict=True))
def test_every_aggregate_and_window_at_several_splits(lake_of, split, zone):
    tables = shop(split)
    stored_at = BEGIN + timedelta(days=split)
    quotient = Feature("q", "", "quotient", SHORT[0].name, over=SHORT[5].name, default=-2.0, description="d")
    check(lake_of(tables), tables, stored_at, stored_at + timedelta(days=5, seconds=7), (*SHORT, quotient), zone)


def test_every_shipped_feature(lake_of):
    tables = shop(1, days=400)
    stored_at = BEGIN + timedelta(days=390)
    builder = Builder(lake_of(tables), FEATURES)
    features = builder.supported(None, stored_at)[0]
    assert len(features) > len(FEATURES) * 0.9
    check(builder.lake, tables, stored_at, stored_at + timedelta(days=9), features, "Australia/Lord_Howe")


def test_late_rows_count_as_if_they_had_been_there(lake_of):
    """Rows from before the build that arrive after it: within the tail they are put where they belong."""
    tables = shop(7)
    stored_at = BEGIN + timedelta(days=40)
    early = {
        name: [row for row in tables[name] if stored_at - timedelta(days=9) <= row["ts"] < stored_at][::3]
        for name in DATED
    }
    known = {
        **tables,
        **{name: [row for row in tables[name] if not any(row is other for other in early[name])] for name in DATED},
    }
    features = SHORT
    builder = Builder(lake_of(known), FEATURES)
    state = build_state(builder, stored_at, features)
    full = Builder(lake_of(tables), FEATURES)
    now = stored_at + timedelta(days=3)
    built = {row["one_id"]: row for row in full.build(now, features).table.to_pylist()}
    people = {
        (row["source"], row["source_user_id"]): row["one_id"]
        for row in full.views(now).customers.to_pyarrow().to_pylist()
    }
    since = {name: [*early[name], *(row for row in known[name] if row["ts"] >= stored_at)] for name in DATED}
    for one_id, row in built.items():
        customer = state.customer(one_id)
        mine = {
            name: [r for r in rows if people[r["source"], r["source_user_id"]] == one_id]
            for name, rows in since.items()
        }
        same(values(customer, now, mine), row, features, one_id)
        same(values(customer, now, {name: [*rows, *rows] for name, rows in mine.items()}), row, (), one_id)


def visit(name, days, session_id=None, source="app"):
    return {
        "source": source,
        "source_user_id": "1",
        "event_id": name,
        "event_type": "view",
        "ts": BEGIN + timedelta(days=days),
        "session_id": session_id,
    }


MINUTE = 1 / 1_440
# the state is stored at day 20, with a tail from day 20 or 13 on: events known by then, and events that come later
SESSIONS = {
    "named, again after the tail": ([visit("a", 0, "x")], [visit("b", 25, "x")]),
    "named, in the tail too": ([visit("a", 0, "x"), visit("b", 15, "x")], [visit("c", 25, "x"), visit("d", 26, "y")]),
    "named, of another source": ([visit("a", 0, "x", source="shop 2")], [visit("b", 25, "x")]),
    "named like a number": ([visit("a", 0)], [visit("b", 25, "1")]),
    "unnamed, on over the build": ([visit("a", 20 - 10 * MINUTE)], [visit("b", 20 + 20 * MINUTE)]),
    "unnamed, ended before the build": ([visit("a", 20 - 10 * MINUTE)], [visit("b", 20 + 21 * MINUTE)]),
    "unnamed, ended by less than a second": ([visit("a", 20 - 5 * MINUTE)], [visit("b", 20 + 25.005 * MINUTE)]),
    "unnamed, on through a named one": (
        [visit("a", 20 - 10 * MINUTE), visit("b", 20 - 5 * MINUTE, "x")],
        [visit("c", 20 + 5 * MINUTE, "x"), visit("d", 20 + 10 * MINUTE)],
    ),
    "late, on from before the tail": ([visit("a", 13 - 10 * MINUTE)], [visit("b", 13 + 20 * MINUTE)]),
    "late, on from before the tail to one in it": (
        [visit("a", 13 - 10 * MINUTE), visit("c", 13 + 40 * MINUTE), visit("d", 13 + 60 * MINUTE)],
        [visit("b", 13 + 15 * MINUTE)],
    ),
    "late, before one that began before the tail": (
        [visit("a", 13 - 10 * MINUTE), visit("c", 13 + 15 * MINUTE)],
        [visit("b", 13 + 5 * MINUTE)],
    ),
    "late, joining two of the tail": (
        [visit("a", 15), visit("c", 15 + 40 * MINUTE), visit("d", 16), visit("e", 16 + 10 * MINUTE)],
        [visit("b", 15 + 20 * MINUTE), visit("f", 16 + 10 * MINUTE)],
    ),
    "late and named": ([visit("a", 0, "x"), visit("c", 15)], [visit("b", 14, "x"), visit("d", 25, "x")]),
}


@pytest.mark.parametrize("days", [None, 7])
def test_a_session_goes_on_whatever_the_state_keeps_of_it(lake_of, tmp_path, days):
    stored_at, now = BEGIN + timedelta(days=20), BEGIN + timedelta(days=30)
    tail_start = stored_at - timedelta(days=days or 0)
    known, new = [], []
    for case, (before, after) in SESSIONS.items():  # a customer each
        known += [{**row, "source_user_id": case, "event_id": case + row["event_id"]} for row in before]
        new += [
            {**row, "source_user_id": case, "event_id": case + row["event_id"]}
            for row in after
            if row["ts"] >= tail_start
        ]
    features = (
        Feature("sessions", "events", "distinct", "session_id", description="d"),
        Feature("spread", "events", "entropy", "session_id", description="d"),
        Feature("lately", "events", "distinct", "session_id", window_days=days, description="d"),
    )
    built = Builder(lake_of({"events": [*known, *new]}), FEATURES).build(now, features).table.to_pylist()
    state = build_state(Builder(lake_of({"events": known}), FEATURES), stored_at, features)
    assert state.tail_start == tail_start
    state.save(tmp_path / "state")
    for kept in (state, OnlineState.load(tmp_path / "state")):
        for row in built:
            key = row["user_source"], row["user_id"]
            mine = [event for event in new if (event["source"], event["source_user_id"]) == key]
            same(values(kept.customer(row["one_id"]), now, {"events": mine}), row, features, key)


def test_only_sessions_a_new_row_may_belong_to_are_kept(lake_of):
    events = [visit("a", 0, "x"), visit("b", 1), visit("c", 20 - 10 * MINUTE), visit("d", 20 - 20 * MINUTE)]
    lake, stored_at = lake_of({"events": events}), BEGIN + timedelta(days=20)
    ever = Feature("sessions", "events", "distinct", "session_id", description="d")
    state = build_state(Builder(lake, FEATURES), stored_at, (ever,))
    texts = state.tails["old_sessions"].keys["session_id"].to_pylist()
    assert texts == ["app\x1fx", "app\x1f1\x1f2"]
    lately = Feature("sessions", "events", "distinct", "session_id", window_days=7, description="d")
    assert set(build_state(Builder(lake, FEATURES), stored_at, (lately,)).tails) == {"events"}


def test_a_row_told_twice_counts_once(lake_of):
    tables = shop(2)
    stored_at = BEGIN + timedelta(days=45)
    state = build_state(Builder(lake_of(tables), FEATURES), stored_at, SHORT)
    for one_id in state.one_ids:
        customer = state.customer(str(one_id))
        people = {(row["source"], row["source_user_id"]) for row in customer.keys("events").to_pylist()}
        again = [
            row
            for row in tables["events"]
            if (row["source"], row["source_user_id"]) in people and row["ts"] >= state.tail_start
        ]
        assert values(customer, stored_at, {"events": again}) == values(customer, stored_at)


def test_a_state_is_saved_and_loaded(lake_of, tmp_path):
    tables = shop(3)
    now = BEGIN + timedelta(days=45)
    builder = Builder(lake_of(tables), FEATURES)
    state = build_state(builder, now)
    state.save(tmp_path / "state")
    loaded = OnlineState.load(tmp_path / "state")
    assert loaded.plan == state.plan
    for one_id in [*state.one_ids, "nobody"]:
        new = {"events": [{**tables["events"][0], "event_id": "new", "ts": now + timedelta(minutes=5)}]}
        later = now + timedelta(days=1)
        assert values(loaded.customer(str(one_id)), later, new) == values(state.customer(str(one_id)), later, new)
    (tmp_path / "state" / "state.json").write_text("{}")
    with pytest.raises(ArtifactError, match="online state"):
        OnlineState.load(tmp_path / "state")


def test_asking_knows_neither_ibis_nor_duckdb():
    code = "import sys, features.compute.online; print([m for m in ('ibis', 'duckdb', 'pandas', 'pyspark') if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_a_plan_shares_what_features_have_in_common():
    features = tuple(Feature(name, "orders", name, "amount") for name in ("sum", "mean")) + (
        Feature("n", "orders", "count", window_days=28),
    )
    plan = OnlinePlan.of(features)
    assert len(plan.partials) == 2
    assert plan.tail_days == 28
    assert OnlinePlan.of((Feature("t", "orders", "trend", window_days=28),)).tail_days == 56
    assert datetime(1970, 1, 1) <= BEGIN
