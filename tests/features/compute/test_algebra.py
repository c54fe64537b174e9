"""Declarations that make no sense are refused, all mistakes at once."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import pytest

from features.compute.algebra import Condition, Feature, check
from features.definitions import FEATURES
from qianmian.errors import ConfigError

GOOD = Feature("orders_28d", "orders", "count", window_days=28, description="d")


@pytest.mark.parametrize(
    ("changes", "mistake"),
    [
        ({"view": "baskets"}, "unknown view 'baskets'"),
        ({"aggregate": "sum"}, "needs a column"),
        ({"aggregate": "entropy"}, "needs a column"),
        ({"aggregate": "ratio", "column": "amount"}, "needs `over`"),
        ({"aggregate": "trend", "window_days": None}, "needs a window"),
        ({"aggregate": "expected", "column": "channel"}, "needs `over`"),
        ({"aggregate": "expected", "column": "channel", "over": "day", "window_days": None}, "needs a window"),
        ({"aggregate": "top", "column": "channel"}, "default must be text"),
        ({"default": ""}, "default must be a number"),
        ({"is_identifier": True}, "an identifier must be text"),
        ({"description": ""}, "description and owner are required"),
        ({"owner": ""}, "description and owner are required"),
        (
            {"aggregate": "quotient", "view": "", "column": "a", "over": "b"},
            "the feature 'a' is not declared before it",
        ),
    ],
)
def test_a_mistake_is_named(changes, mistake):
    with pytest.raises(ConfigError) as caught:
        check((replace(GOOD, **changes),))
    assert any(mistake in problem for problem in caught.value.problems)
    assert all(problem.startswith("orders_28d: ") for problem in caught.value.problems)


def test_all_mistakes_come_together():
    with pytest.raises(ConfigError) as caught:
        check((GOOD, GOOD, replace(GOOD, name="b", view="x"), replace(GOOD, name="c", aggregate="sum", description="")))
    assert [problem.split(":")[0] for problem in caught.value.problems] == ["orders_28d", "b", "c", "c"]


def test_a_quotient_comes_after_its_parts():
    parts = (GOOD, replace(GOOD, name="other"))
    quotient = Feature("q", "", "quotient", "orders_28d", over="other", description="d")
    assert check((*parts, quotient)) == (*parts, quotient)
    with pytest.raises(ConfigError, match="before it"):
        check((quotient, *parts))


def test_attributes_may_be_text_or_numbers():
    text = Feature("a", "profiles", "attribute", "age_band", default="", description="d")
    number = Feature("b", "profiles", "attribute", "points_balance", description="d")
    assert [feature.categorical for feature in check((text, number))] == [True, False]


def test_declarations_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        GOOD.name = "x"
    with pytest.raises(FrozenInstanceError):
        Condition("a", "==", 1).value = 2
    assert check(FEATURES) is FEATURES


TOTAL = Feature("total", "orders", "count", description="d", grows_with_calendar=True)


@pytest.mark.parametrize(
    "feature",
    [
        Feature("f", "orders", "count", description="d"),
        Feature("f", "orders", "sum", "amount", description="d"),
        Feature("f", "lines", "distinct", "item_id", description="d"),
        Feature("f", "orders", "age", description="d"),
        Feature("f", "orders", "max", "amount", description="d"),
        Feature("f", "orders", "min", "amount", description="d"),
        Feature("f", "lines", "entropy", "brand", description="d"),
        Feature("f", "lines", "top_share", "brand", description="d"),
        Feature("f", "orders", "count", window_days=365, description="d"),
        Feature("f", "orders", "trend", window_days=400, description="d"),
        Feature("f", "profiles", "days_since", "registered_at", description="d"),
        Feature("f", "", "quotient", "total", over="recent", description="d"),
        Feature("f", "", "quotient", "recent", over="total", description="d"),
    ],
    ids=lambda feature: f"{feature.aggregate} {feature.window_days or ''}",
)
def test_what_may_grow_with_the_calendar_says_whether_it_does(feature):
    before = (TOTAL, replace(GOOD, name="recent"))
    with pytest.raises(ConfigError, match="set `grows_with_calendar` to true") as caught:
        check((*before, feature))
    assert len(caught.value.problems) == 1
    for said in (True, False):
        check((*before, replace(feature, grows_with_calendar=said)))


def test_what_cannot_grow_with_the_calendar_need_not_say_so():
    check(
        (
            Feature("a", "orders", "mean", "amount", description="d"),
            Feature("b", "orders", "share", where=(Condition("weekday", ">=", 5),), description="d"),
            Feature("c", "orders", "ratio", "discount", over="full_amount", description="d"),
            Feature("d", "orders", "recency", description="d"),
            Feature("e", "orders", "max", "amount", window_days=182, description="d"),
            Feature("f", "", "quotient", "a", over="d", description="d"),
        )
    )


def test_what_grows_with_the_calendar_and_what_is_an_id_is_declared():
    """A model that learns from several dates does without these: a list by hand, beside what `check` can tell."""
    assert {feature.name for feature in FEATURES if feature.grows_with_calendar} == {
        "amount_total",
        "orders_total",
        "lines_total",
        "days_since_first_order",
        "orders_365d",
        "amount_365d",
        "touches_total",
        "items_distinct",
        "days_since_first_event",
        "days_since_registered",
        "price_level_lines",
        "viewed_price_level_events",
        "order_value_max",
        "basket_lines_max",
        "lines_per_item",
        "stores_distinct",
        "top_store_share",
        "top_category_share",
        "category_entropy",
        "top_brand_share",
        "top_item_share",
        "weekday_entropy",
        "order_hour_entropy",
        "gap_days_max",
        "gaps_silent_max",
    }
    assert {feature.name for feature in FEATURES if feature.is_identifier} == {
        "first_store",
        "last_store",
        "top_store",
        "last_item",
        "top_item",
    }
