"""Each tag on a table made by hand, where the answer is known."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pyarrow as pa
import pytest

from features.compute.builder import Builder
from features.definitions import FEATURES
from features.profiles.building import build_snapshot
from features.profiles.lifecycle import LIFECYCLE_FEATURES
from features.profiles.purchase_process.process import PurchaseProcess
from features.profiles.tags import TAGS, basic, tag_values
from features.profiles.tags.declare import fit_tags, quantile_bin, quantile_edges
from qianmian.settings import Settings

nan = float("nan")
PARTS = ("night_order_share", "morning_order_share", "afternoon_order_share", "evening_order_share")


def value(name, **columns):
    """The values of one tag, over a table that holds what is given and nothing else."""
    table = pa.table({"one_id": [f"u{row}" for row in range(len(next(iter(columns.values()))))], **columns})
    fitted = fit_tags(table, [TAGS[name]], process=PROCESS)
    return tag_values(table, [TAGS[name]], fitted=fitted)[name]


# every tag's name, its columns and what must come out
EVENT_PARTS = tuple(f"{part}_event_share_91d" for part in ("night", "morning", "afternoon", "evening"))
# a shop without data: orders at random at the pooled gap (10 + days since the first order) / orders
PROCESS = PurchaseProcess(10.0, as_of_day=19_723.0)  # 2024-01-01
STAGE = dict(
    zip(
        LIFECYCLE_FEATURES,
        np.array(
            [
                [0.0, 9999.0, 0.0, 0.0, 0.0, 0.0],
                [3.0, 1.0, 10.0, 3.0, 3.0, 3.0],
                [9.0, 50.0, 80.0, 0.0, 9.0, 9.0],
                [1.0, 700.0, 700.0, 0.0, 0.0, 0.0],
            ]
        ).T.tolist(),
        strict=True,
    )
)
KNOWN = [
    *(
        (name, {f"profile_{name}": ["x", "", "张三", None]}, ["x", None, "张三", None])
        for name in ("gender", "age_band", "income_band", "region", "city", "member_tier")
    ),
    (
        "first_visit_source",
        {"first_referrer": ["search", "", ""], "first_visit_channel": ["web", "app", ""]},
        ["search", "app", None],
    ),
    *(
        (name, {f"profile_{name}": [True, False, None]}, [True, False, None])
        for name in ("consent_email", "consent_sms", "consent_push")
    ),
    ("acquisition_channel", {"first_channel": ["store", ""]}, ["store", None]),
    (
        "membership",
        {"days_since_registered": [9999.0, 0.0, 30.0, 31.0, 365.0, 366.0]},
        [None, "new", "new", "under_a_year", "under_a_year", "over_a_year"],
    ),
    (
        "active_hours",
        {
            **dict(
                zip(
                    PARTS,
                    [
                        [0.6, 0.0, 0.1, 0.0, 0.0],
                        [0.2, 1.0, 0.2, 0.1, 0.0],
                        [0.1, 0.0, 0.4, 0.2, 0.0],
                        [0.1, 0.0, 0.3, 0.7, 0.0],
                    ],
                    strict=True,
                )
            ),
        },
        ["night", "morning", "afternoon", "evening", None],
    ),
    (
        "browsing_hours",
        dict(zip(EVENT_PARTS, [[0.6, 0.0], [0.2, 0.0], [0.1, 0.0], [0.1, 0.0]], strict=True)),
        ["night", None],
    ),
    ("favourite_weekday", {"top_weekday": ["0", "6", ""]}, ["monday", "sunday", None]),
    (
        "weekend_shopper",
        {"weekend_order_share": [0.0, 0.49, 0.5, 1.0, 0.0], "orders_total": [1.0, 1.0, 1.0, 1.0, 0.0]},
        [False, False, True, True, None],
    ),
    ("preferred_channel", {"top_channel": ["web", ""]}, ["web", None]),
    ("preferred_visit_channel", {"top_visit_channel_28d": ["web", ""]}, ["web", None]),
    ("preferred_device", {"top_device_28d": ["phone", ""]}, ["phone", None]),
    (
        "browsing",
        {"events_28d": [0.0, 1.0, 4.0, 5.0, 49.0, 50.0]},
        ["none", "light", "light", "regular", "regular", "heavy"],
    ),
    (
        "visit_frequency",
        {"event_days_28d": [0.0, 1.0, 3.0, 4.0, 19.0, 20.0]},
        ["none", "seldom", "seldom", "weekly", "weekly", "daily"],
    ),
    (
        "session_depth",
        {"events_per_session": [0.0, 1.0, 2.9, 3.0, 9.9, 10.0]},
        [None, "glance", "glance", "browse", "browse", "deep"],
    ),
    (
        "abandoned_cart",
        {
            "days_since_last_cart": [9999.0, 1.0, 14.0, 15.0, 2.0, 2.0],
            "days_since_last_order": [9999.0, 9999.0, 99.0, 99.0, 1.0, 3.0],
            "days_since_last_purchase": [9999.0] * 5 + [1.0],
        },
        [False, True, True, False, False, False],
    ),
    (
        "funnel_stop",
        {
            "view_events_91d": [0.0, 9.0, 9.0, 9.0, 0.0],
            "cart_events_91d": [0.0, 0.0, 2.0, 2.0, 0.0],
            "purchase_events_91d": [0.0, 0.0, 0.0, 1.0, 0.0],
            "orders_91d": [0.0, 0.0, 0.0, 0.0, 1.0],
        },
        [None, "looks", "fills_cart", "buys", "buys"],
    ),
    ("coupon_redeemer", {"coupon_redeem_events_91d": [0.0, 1.0, 9.0]}, [False, True, True]),
    (
        "message_response",
        {
            "touches_delivered_91d": [0.0, 3.0, 3.0, 3.0],
            "touches_opened_91d": [0.0, 0.0, 2.0, 2.0],
            "touches_clicked_91d": [0.0, 0.0, 0.0, 1.0],
        },
        [None, "ignores", "opens", "clicks"],
    ),
    (
        "contact_pressure",
        {"touches_28d": [0.0, 1.0, 2.0, 3.0, 8.0, 9.0]},
        ["none", "light", "light", "normal", "normal", "heavy"],
    ),
    (
        "value_tier",
        {"amount_365d": [9.0, 1.0, 5.0, 0.0, 8.0, 2.0, 6.0, 7.0, 3.0, 4.0]},
        ["high", "low", "middle", None, "high", "low", "middle", "high", "low", "middle"],
    ),
    # five buyers, each a fifth: the best in all three is on top; who bought nothing in the year has none
    (
        "rfm_tier",
        {
            "days_since_last_order": [1.0, 20.0, 30.0, 40.0, 50.0, 400.0],
            "orders_365d": [50.0, 40.0, 30.0, 20.0, 10.0, 0.0],
            "amount_365d": [500.0, 400.0, 300.0, 200.0, 100.0, 0.0],
        },
        ["top", "high", "middle", "low", "bottom", None],
    ),
    (
        "rfm_segment",
        {
            "days_since_last_order": [1.0, 2.0, 30.0, 40.0, 400.0],
            "orders_365d": [50.0, 10.0, 40.0, 20.0, 0.0],
            "amount_365d": [500.0, 100.0, 400.0, 200.0, 0.0],
        },
        ["important_value", "general_develop", "important_keep", "general_win_back", None],
    ),
    # the sixth is uncertain, and the last has too few lines: the edges, at -1/15 and 11/150, are those of the others
    (
        "price_band",
        {
            "price_level_mean": [-0.3, 0.0, 0.2, -0.2, 0.3, 0.01, 0.5],
            "price_level_std": [0.1, 0.1, 0.1, 0.1, 0.0, 2.0, 0.1],
            "price_level_lines": [20.0, 99.0, 50.0, 20.0, 20.0, 99.0, 19.0],
        },
        ["budget", "middle", "premium", "budget", "premium", None, None],
    ),
    ("basket_size", {"basket_lines_mean": [1.0, 0.0, 3.5, 12.0]}, ["small", None, "middle", "large"]),
    (
        "demand_type",
        {
            "discounted_line_share_182d": [0.9, 0.1, 0.2, 0.15, 0.0],
            "price_level_mean": [-0.2, 0.3, -0.1, -0.15, 0.9],
            "price_level_lines": [20.0, 99.0, 50.0, 50.0, 19.0],
            "content_event_share_91d": [0.1, 0.2, 0.9, 0.15, 0.0],
        },
        ["price_driven", "quality_driven", "content_driven", "balanced", None],
    ),
    (
        "discount_seeker",
        {"discounted_line_share_91d": [0.0, 0.6, 0.61, 1.0, 0.0], "lines_91d": [9.0, 9.0, 9.0, 9.0, 0.0]},
        [False, False, True, True, None],
    ),
    (
        "coupon_user",
        {"coupon_order_share_91d": [0.0, 0.0, 0.1, 0.5], "orders_91d": [0.0, 4.0, 9.0, 2.0]},
        [None, "never", "sometimes", "mostly"],
    ),
    (
        "trading",
        {  # before: 20 lines of level 0; from 0.064 on, a change is beyond 1.64 standard errors
            "price_level_mean_56d": [0.07, -0.07, 0.06, 0.9, 0.9, 0.0],
            "price_level_lines_56d": [10.0, 10.0, 10.0, 4.0, 10.0, 0.0],
            "price_level_mean": [0.07 / 3, -0.07 / 3, 0.02, 0.3, 0.3, 0.1],
            "price_level_std": [0.1] * 6,
            "price_level_lines": [30.0, 30.0, 30.0, 24.0, 29.0, 50.0],
        },
        ["up", "down", "steady", None, None, None],
    ),
    (
        "purchase_cycle_days",
        {"gap_days_mean": [365.0, 365.0, 7.25, 10 / 3], "orders_total": [0.0, 1.0, 2.0, 4.0]},
        [None, None, 7.25, 3.3333],
    ),
    (
        "purchase_cycle",
        {"gap_days_mean": [365.0, 10.0, 20.0, 45.0, 120.0, 121.0], "orders_total": [1.0, 9.0, 9.0, 9.0, 9.0, 9.0]},
        [None, "weekly", "fortnightly", "monthly", "quarterly", "rarely"],
    ),
    (
        "purchase_regularity",
        {"gap_variation": [0.1, 0.1, 0.5, 1.0], "orders_total": [3.0, 4.0, 4.0, 4.0]},
        [None, "regular", "uneven", "bursts"],
    ),
    (
        "average_order_value",
        {"order_value_mean": [0.0, 0.0, 12.34567], "orders_total": [0.0, 1.0, 3.0]},
        [None, 0.0, 12.3457],
    ),
    ("refund_prone", {"refund_rate": [0.0, 0.1, 0.11], "amount_91d": [0.0, 5.0, 5.0]}, [None, False, True]),
    (
        "store_loyalty",
        {"top_store_share": [1.0, 0.4, 0.5, 0.8], "orders_total": [2.0, 3.0, 3.0, 3.0]},
        [None, "roaming", "main_store", "one_store"],
    ),
    ("favourite_store", {"top_store": ["s1", ""]}, ["s1", None]),
    ("favourite_category", {"top_category": ["food", ""]}, ["food", None]),
    ("recent_category", {"top_category_91d": ["food", ""]}, ["food", None]),
    (
        "entry_need",
        {"first_category": ["food", "", ""], "first_viewed_category": ["home", "home", ""]},
        ["food", "home", None],
    ),
    *(
        (
            name,
            {column: [1.0, 0.39, 0.4, 0.6], "lines_total": [4.0, 5.0, 5.0, 5.0]},
            [None, "weak", "moderate", "strong"],
        )
        for name, column in (("category_affinity", "top_category_share"), ("brand_affinity", "top_brand_share"))
    ),
    ("favourite_brand", {"top_brand": ["b", ""]}, ["b", None]),
    ("favourite_item", {"top_item": ["i", ""]}, ["i", None]),
    (
        "repertoire",
        {"lines_per_item": [1.0, 1.2, 1.3, 2.5], "lines_total": [4.0, 5.0, 5.0, 5.0]},
        [None, "explores", "mixes", "repeats"],
    ),
    (
        "variety",
        {"category_entropy": [0.0, 0.0, 0.69, 0.7, 1.39, 1.4], "orders_total": [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]},
        [None, "focused", "focused", "mixed", "mixed", "wide"],
    ),
    ("browsed_category", {"top_viewed_category_28d": ["home", ""]}, ["home", None]),
    (
        "favourite_topic",
        {"top_topic_91d": ["milk", "", ""], "top_read_topic_91d": ["bread", "bread", ""]},
        ["milk", "bread", None],
    ),
    ("topic_dwell_seconds", {"topic_seconds_91d": [0.0, 90.0], "top_topic_share_91d": [0.0, 0.5]}, [None, 45.0]),
    ("content_reader", {"content_events_28d": [0.0, 1.0, 4.0, 20.0]}, ["none", "light", "regular", "heavy"]),
    ("lifecycle_stage", STAGE, ["prospect", "new", "active", "lost"]),
    (
        "buyer_stage",
        {"orders_total": [0.0, 1.0, 2.0, 12.0], "orders_365d": [0.0, 1.0, 0.0, 10.0]},
        ["prospect", "first_time", "repeat", "loyal"],
    ),
    ("days_since_last_order", {"days_since_last_order": [9999.0, 0.5], "orders_total": [0.0, 1.0]}, [None, 0.5]),
    # medians of exponential times with means 20 / 3, 10 and 710 days
    ("days_to_next_order", STAGE, [None, 4.621, 6.9315, 492.1345]),
    ("next_order_date", STAGE, [None, "2024-01-05", "2024-01-07", "2025-05-07"]),
    ("next_order_earliest", STAGE, [None, "2024-01-02", "2024-01-02", "2024-03-16"]),
    ("next_order_latest", STAGE, [None, "2024-01-16", "2024-01-24", None]),
    ("replenishment", STAGE, [None, "due", "due", "missed"]),
    # gaps of ten days and a last one of sixty; the last customer has two orders
    (
        "reactivated",
        {
            "last_gap_days": [60.0, 60.0, 12.0, 60.0],
            "days_since_last_order": [2.0, 31.0, 2.0, 2.0],
            "days_since_first_order": [82.0, 111.0, 34.0, 62.0],
            "orders_total": [4.0, 4.0, 4.0, 2.0],
            "orders_28d": [1.0, 0.0, 2.0, 1.0],
            "orders_91d": [4.0, 2.0, 4.0, 2.0],
            "orders_365d": [4.0, 4.0, 4.0, 2.0],
        },
        [True, False, False, None],
    ),
    *(
        (
            name,
            {change: [0.0, -1.0, -0.2, 0.2, 0.21], rows: [0.0, 5.0, 5.0, 5.0, 5.0]},
            [None, "falling", "steady", "steady", "rising"],
        )
        for name, change, rows in (
            ("spending_trend", "amount_trend_28d", "orders_56d"),
            ("engagement_trend", "events_trend_7d", "events_28d"),
        )
    ),
    (
        "points_expiring",
        {
            "days_since_points_expired": [9999.0, 1.0, -29.0, -30.0, -5.0],
            "profile_points_balance": [5.0, 5.0, 5.0, 5.0, 0.0],
        },
        [None, False, True, False, False],
    ),
    ("previous_lifecycle_stage", {"previous_stage": ["loyal", None, "lost"]}, ["loyal", None, "lost"]),
    # a prospect, somebody awake, and sleepers: nothing arrived; opened; ignored though they came; ignored and stayed away
    (
        "falling_asleep_reason",
        {
            **{name: [values[0], values[2], *[values[3]] * 4] for name, values in STAGE.items()},
            "silence_contacts": [0.0, 0.0, 0.0, 2.0, 2.0, 2.0],
            "silence_responses": [0.0, 0.0, 0.0, 1.0, 0.0, 0.0],
            "silence_visits": [0.0, 0.0, 5.0, 0.0, 3.0, 0.0],
        },
        [None, None, "no_offer", "no_interest", "irrelevant_pushes", "no_interest"],
    ),
]


@pytest.mark.parametrize(("name", "columns", "expected"), KNOWN, ids=[known[0] for known in KNOWN])
def test_known_answers(name, columns, expected):
    found = value(name, **columns)
    assert found == expected
    # plain Python values, so that JSON and Parquet take them
    assert all(type(one) in (str, float, bool, type(None)) for one in found)


def test_every_tag_but_a_models_has_a_known_answer():
    made = {name for name, tag in TAGS.items() if tag.how != "model"}
    assert {known[0] for known in KNOWN} == made
    assert all(set(columns) == set(TAGS[name].inputs) for name, columns, _ in KNOWN)
    # a closed vocabulary is closed
    for name in made:
        said = {value for known in KNOWN if known[0] == name for value in known[2] if value is not None}
        if TAGS[name].values:
            assert said <= set(TAGS[name].values)


@pytest.mark.parametrize("name", ["purchase_cycle_days", "average_order_value"])
@pytest.mark.parametrize("odd", [nan, float("inf")])
def test_a_number_that_is_none_is_no_value(name, odd):
    measured = next(need for need in TAGS[name].required_features if need != "orders_total")
    assert value(name, **{measured: [odd, 2.0], "orders_total": [5.0, 5.0]}) == [None, 2.0]


@pytest.mark.parametrize("parts", [2, 3, 4, 20])
def test_tiers_are_equal_shares_of_those_above_zero(parts):
    values = np.concatenate([np.zeros(7), np.random.default_rng(0).permutation(np.arange(1.0, 121.0))])
    found = quantile_bin(values, quantile_edges(values, parts))
    assert (found[:7] == -1).all()
    assert np.bincount(found[7:]).tolist() == [120 // parts] * parts
    # who has more is never in a lower tier
    assert (np.diff(found[np.argsort(values)]) >= 0).all()


def test_tiers_of_nobody_above_zero():
    assert quantile_bin(np.zeros(3), quantile_edges(np.zeros(3), 3)).tolist() == [-1, -1, -1]
    assert value("value_tier", amount_365d=[0.0, 0.0]) == [None, None]


def test_tags_whose_features_are_off_are_absent():
    table = pa.table(
        {"one_id": ["u1"], "amount_365d": [3.0], "gap_days_mean": [3.0], "top_brand": ["b"], "orders_total": [0.0]}
    )
    assert set(tag_values(table.drop(["orders_total"]), list(TAGS.values()))) == {"value_tier", "favourite_brand"}
    assert tag_values(table.select(["one_id"]), list(TAGS.values())) == {}


def test_tags_of_nobody_are_empty_columns():
    columns = {need: pa.array([], kind_of(need)) for tag in TAGS.values() for need in tag.inputs}
    table, tags = pa.table(columns), list(TAGS.values())
    assert tag_values(table, tags, fitted=fit_tags(table, tags, process=PROCESS)) == {
        name: [] for name, tag in TAGS.items() if tag.how != "model"
    }


def kind_of(name):
    text = {feature.name for feature in FEATURES if feature.categorical} | {
        f"profile_{attribute}" for attribute in (*basic.STATIC_ATTRIBUTES, "member_tier")
    }
    return pa.string() if name in text else pa.float64()


def test_a_shop_without_times_and_amounts_has_the_tags_that_need_neither(lake_of):
    rows = [
        {
            "source": "shop",
            "source_user_id": user,
            "order_id": f"o{user}",
            "line_no": line,
            "item_id": item,
            "status": "paid",
        }
        for user, lines in {"1": ["i1", "i1", "i2"], "2": ["i2"]}.items()
        for line, item in enumerate(lines, start=1)
    ]
    lake = lake_of(
        {
            "transactions": rows,
            "items": [{"item_id": "i1", "category": "food/milk"}, {"item_id": "i2", "category": "home"}],
        }
    )
    snapshot = build_snapshot(Builder(lake, FEATURES), datetime(2024, 1, 1), Settings())
    assert set(snapshot.tags) == {
        "favourite_category",
        "favourite_item",
        "category_affinity",
        "repertoire",
        "variety",
        "basket_size",
    }
    by_user = dict(zip(snapshot.table["user_id"].to_pylist(), snapshot.tags["favourite_category"], strict=True))
    assert by_user == {"1": "food", "2": "home"}


def test_the_date_of_the_next_order_is_one_of_the_workspace():
    """The as_of 2024-01-01 00:00 UTC is eight o'clock in Shanghai and the evening before in New York."""
    table = pa.table({"one_id": ["a"], **{name: [values[1]] for name, values in STAGE.items()}})
    dates = {}
    for zone in (None, "Asia/Shanghai", "America/New_York"):
        settings = Settings(timezone=zone)
        fitted = fit_tags(table, [TAGS["next_order_date"]], settings, PurchaseProcess(10.0, as_of_day=19_723.0))
        dates[zone] = tag_values(table, [TAGS["next_order_date"]], settings, fitted)["next_order_date"][0]
    # 4.62 days later
    assert dates == {None: "2024-01-05", "Asia/Shanghai": "2024-01-05", "America/New_York": "2024-01-05"}
    late = fit_tags(
        table, [TAGS["next_order_date"]], Settings(timezone="Asia/Shanghai"), PurchaseProcess(10.0, as_of_day=19_723.5)
    )
    assert tag_values(table, [TAGS["next_order_date"]], fitted=late)["next_order_date"] == ["2024-01-06"]


def test_an_order_beyond_two_years_is_not_dated():
    never_again = PurchaseProcess(10.0, location=(9.0, 1.0, *[0.0] * 8))
    table = pa.table({"one_id": list("abcd"), **STAGE})
    tags = [TAGS[name] for name in ("days_to_next_order", "next_order_date")]
    fitted = fit_tags(table, tags, process=never_again)
    assert tag_values(table, tags, fitted=fitted) == {tag.name: [None] * 4 for tag in tags}
