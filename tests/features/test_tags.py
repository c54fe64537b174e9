"""Each tag on a table made by hand, where the answer is known."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pyarrow as pa
import pytest

from features.builder import Builder
from features.lifecycle import NEEDS
from features.snapshot import make_snapshot
from features.tags import TAGS, tag_values
from features.tags.transaction import tiers

nan = float("nan")
PARTS = ("night_order_share", "morning_order_share", "afternoon_order_share", "evening_order_share")


def value(name, **columns):
    """The values of one tag, over a table that holds what is given and nothing else."""
    table = pa.table({"one_id": [f"u{row}" for row in range(len(next(iter(columns.values()))))], **columns})
    return tag_values(table, [TAGS[name]])[name]


# every tag's name, its columns and what must come out
KNOWN = [
    *((name, {f"profile_{name}": ["x", "", "张三", None]}, ["x", None, "张三", None])
      for name in ("gender", "age_band", "income_band", "region", "city", "member_tier")),
    ("active_hours", {**dict(zip(PARTS, [[0.6, 0.0, 0.1, 0.0, 0.0], [0.2, 1.0, 0.2, 0.1, 0.0], [0.1, 0.0, 0.4, 0.2, 0.0], [0.1, 0.0, 0.3, 0.7, 0.0]],
                                     strict=True)), "orders_total": [10.0, 1.0, 10.0, 10.0, 0.0]}, ["night", "morning", "afternoon", "evening", None]),
    ("weekend_shopper", {"weekend_order_share": [0.0, 0.49, 0.5, 1.0]}, [False, False, True, True]),
    ("preferred_channel", {"top_channel": ["web", ""]}, ["web", None]),
    ("coupon_redeemer", {"coupon_redeem_events_91d": [0.0, 1.0, 9.0]}, [False, True, True]),
    ("browsing", {"events_28d": [0.0, 1.0, 4.0, 5.0, 49.0, 50.0]}, ["none", "light", "light", "regular", "regular", "heavy"]),
    ("value_tier", {"amount_365d": [9.0, 1.0, 5.0, 0.0, 8.0, 2.0, 6.0, 7.0, 3.0, 4.0]},
     ["high", "low", "middle", None, "high", "low", "middle", "high", "low", "middle"]),
    ("price_band", {"unit_price_mean_91d": [0.0, 0.5, 20.0, 300.0]}, [None, "budget", "middle", "premium"]),
    ("basket_size", {"basket_lines_mean": [1.0, 0.0, 3.5, 12.0]}, ["small", None, "middle", "large"]),
    ("discount_seeker", {"discounted_line_share_91d": [0.0, 0.6, 0.61, 1.0]}, [False, False, True, True]),
    ("purchase_cycle_days", {"gap_days_mean": [365.0, 365.0, 7.25, 10 / 3], "orders_total": [0.0, 1.0, 2.0, 4.0]}, [None, None, 7.25, 3.3333]),
    ("average_order_value", {"order_value_mean": [0.0, 0.0, 12.34567], "orders_total": [0.0, 1.0, 3.0]}, [None, 0.0, 12.3457]),
    ("favourite_category", {"top_category": ["food", ""]}, ["food", None]),
    ("favourite_brand", {"top_brand": ["b", ""]}, ["b", None]),
    ("browsed_category", {"top_viewed_category_28d": ["home", ""]}, ["home", None]),
    ("variety", {"category_entropy": [0.0, 0.0, 0.69, 0.7, 1.39, 1.4], "orders_total": [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]},
     [None, "focused", "focused", "mixed", "mixed", "wide"]),
    ("lifecycle_stage", dict(zip(NEEDS, [[0.0, 3.0], [9999.0, 1.0], [0.0, 10.0], [365.0, 7.0], [0.0, 3.0]], strict=True)), ["prospect", "new"]),
    ("days_since_last_order", {"days_since_last_order": [9999.0, 0.5], "orders_total": [0.0, 1.0]}, [None, 0.5]),
    ("spending_trend", {"amount_trend_28d": [-1.0, -0.2, 0.0, 0.2, 0.21]}, ["falling", "steady", "steady", "steady", "rising"]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "columns", "expected"), KNOWN, ids=[known[0] for known in KNOWN])
def test_known_answers(name, columns, expected):
    found = value(name, **columns)
    assert found == expected
    # plain Python values, so that JSON and Parquet take them
    assert all(type(one) in (str, float, bool, type(None)) for one in found)


def test_every_tag_has_a_known_answer():
    assert {known[0] for known in KNOWN} == set(TAGS)
    assert all(set(columns) == set(TAGS[name].needs) for name, columns, _ in KNOWN)


@pytest.mark.parametrize("name", ["purchase_cycle_days", "average_order_value"])
@pytest.mark.parametrize("odd", [nan, float("inf")])
def test_a_number_that_is_none_is_no_value(name, odd):
    measured = next(need for need in TAGS[name].needs if need != "orders_total")
    assert value(name, **{measured: [odd, 2.0], "orders_total": [5.0, 5.0]}) == [None, 2.0]


@pytest.mark.parametrize("names", [("low", "middle", "high"), ("a", "b"), ("a", "b", "c", "d")])
def test_tiers_are_equal_shares_of_those_above_zero(names):
    values = np.concatenate([np.zeros(7), np.random.default_rng(0).permutation(np.arange(1.0, 121.0))])
    found = tiers(values, names)
    assert (found[:7] == "").all()
    assert [int((found == name).sum()) for name in names] == [120 // len(names)] * len(names)
    # who has more is never in a lower tier
    positions = [names.index(name) for name in found[np.argsort(values)] if name]
    assert positions == sorted(positions)


def test_tiers_of_nobody_above_zero():
    assert tiers(np.zeros(3), ("low", "high")).tolist() == ["", "", ""]
    assert value("value_tier", amount_365d=[0.0, 0.0]) == [None, None]


def test_tags_whose_features_are_off_are_absent():
    table = pa.table({"one_id": ["u1"], "amount_365d": [3.0], "gap_days_mean": [3.0], "top_brand": ["b"]})
    assert set(tag_values(table, list(TAGS.values()))) == {"value_tier", "favourite_brand"}
    assert tag_values(table.select(["one_id"]), list(TAGS.values())) == {}


def test_tags_of_nobody_are_empty_columns():
    columns = {
        need: pa.array([], pa.string() if need.startswith(("profile_", "top_")) else pa.float64())
        for tag in TAGS.values()
        for need in tag.needs
    }
    assert tag_values(pa.table(columns), list(TAGS.values())) == {name: [] for name in TAGS}


def test_a_shop_without_times_and_amounts_has_the_tags_that_need_neither(lake_of):
    rows = [
        {"source": "shop", "source_user_id": user, "order_id": f"o{user}", "line_no": line, "item_id": item, "status": "paid"}
        for user, lines in {"1": ["i1", "i1", "i2"], "2": ["i2"]}.items()
        for line, item in enumerate(lines, start=1)
    ]
    lake = lake_of({"transactions": rows, "items": [{"item_id": "i1", "category": "food/milk"}, {"item_id": "i2", "category": "home"}]})
    snapshot = make_snapshot(Builder(lake), datetime(2024, 1, 1))
    assert set(snapshot.tags) == {"favourite_category", "variety", "basket_size"}
    by_user = dict(zip(snapshot.table["user_id"].to_pylist(), snapshot.tags["favourite_category"], strict=True))
    assert by_user == {"1": "food", "2": "home"}
