"""Statements about customers in both languages: true, with right plurals, and beside a value that explains."""

from __future__ import annotations

import numpy as np
import pytest

from features.compute.algebra import Feature
from features.compute.spec import FeatureSpec
from features.definitions import FEATURES
from features.definitions.recency import NEVER
from serving.scoring.lists.reasons import sentences
from serving.scoring.lists.sentences import statements
from serving.scoring.lists.subjects import SUBJECTS, split_window, subject_of

BY_NAME = {feature.name: feature for feature in FEATURES}
CYCLE = {"gap_days_mean": 16.8, "orders_total": 9.0}

CASES = [
    ("days_since_last_order", {"days_since_last_order": 41.9, **CYCLE}, {}, "no order for 41 days; usually every 17", "已有 41 天未下单，平时约每 17 天一单", 1),
    ("days_since_last_order", {"days_since_last_order": 2.0, **CYCLE}, {}, "last order 2 days ago; usually every 17 days", "2 天前下单过，平时约每 17 天一单", -1),
    ("days_since_last_order", {"days_since_last_order": 1.5, **CYCLE, "gap_days_mean": 1.0}, {}, "last order 1 day ago; usually every day", "1 天前下单过，平时约每 1 天一单", 0),
    ("days_since_last_order", {"days_since_last_order": 0.2, **CYCLE}, {}, "last order less than a day ago; usually every 17 days", "不到 1 天前下单过，平时约每 17 天一单", -1),
    ("days_since_last_order", {"days_since_last_order": 30.0, "gap_days_mean": 365.0, "orders_total": 1.0}, {"days_since_last_order": 5.5}, "no order for 30 days; 5 days is typical", "已有 30 天未下单，一般客户为 5 天", 1),
    ("gaps_silent", {"gaps_silent": 2.4, "days_since_last_order": 41.0, **CYCLE}, {}, "no order for 41 days; usually every 17", "已有 41 天未下单，平时约每 17 天一单", 1),
    ("days_since_last_view", {"days_since_last_view": NEVER}, {"days_since_last_view": 3.0}, "no page view on record", "没有浏览记录", None),
    ("orders_91d", {"orders_91d": 4.0, "orders_182d": 13.0}, {}, "4 orders in the last 91 days, 9 in the 91 before", "近 91 天下单 4 次，再往前 91 天为 9 次", -1),
    ("orders_28d", {"orders_28d": 1.0, "orders_56d": 1.0}, {}, "1 order in the last 28 days, 0 in the 28 before", "近 28 天下单 1 次，再往前 28 天为 0 次", 1),
    ("orders_trend_28d", {"orders_trend_28d": -0.5, "orders_28d": 1.0, "orders_56d": 4.0}, {}, "1 order in the last 28 days, 3 in the 28 before", "近 28 天下单 1 次，再往前 28 天为 3 次", -1),
    ("orders_56d", {"orders_56d": 2.0}, {"orders_56d": 7.0}, "2 orders in the last 56 days; 7 is typical", "近 56 天下单 2 次，一般客户为 7 次", -1),
    ("orders_total", {"orders_total": 1200.0}, {"orders_total": 40.0}, "1,200 orders so far; 40 is typical", "累计下单 1,200 次，一般客户为 40 次", 1),
    ("amount_28d", {"amount_28d": 62.0, "amount_slope_28d": -38 / 28}, {}, "spends 38% less than in the 28 days before", "近 28 天的消费比再往前 28 天少 38%", -1),
    ("amount_91d", {"amount_91d": 150.0, "amount_slope_91d": 50 / 91}, {}, "spends 50% more than in the 91 days before", "近 91 天的消费比再往前 91 天多 50%", 1),
    ("amount_28d", {"amount_28d": 0.0, "amount_slope_28d": -178 / 28}, {}, "nothing spent in the last 28 days, 178 in the 28 before", "近 28 天没有消费，再往前 28 天为 178", -1),
    ("amount_28d", {"amount_28d": 5.5, "amount_slope_28d": 5.5 / 28}, {"amount_28d": 20.0}, "5.50 spent in the last 28 days; 20.00 is typical", "近 28 天消费 5.50，一般客户为 20.00", -1),
    ("gap_days_mean", {"gap_days_mean": 24.2, "orders_total": 5.0}, {"gap_days_mean": 7.1}, "an order every 24 days; every 7 is typical", "平均每 24 天一单，一般客户约每 7 天一单", 1),
    ("gap_days_mean", {"gap_days_mean": 365.0, "orders_total": 1.0}, {"gap_days_mean": 7.1}, "only one order so far", "至今只有一单", None),
    ("gap_days_std", {"gap_days_std": 32.0}, {"gap_days_std": 7.0}, "irregular orders: ± 32 days; 7 is typical", "下单不规律：波动 32 天，一般客户为 7 天", 1),
    ("days_since_first_order", {"days_since_first_order": 80.0}, {"days_since_first_order": 350.0}, "time since the first order: 80 days; 350 days is typical", "首单距今：80 天，一般客户为 350 天", -1),
    ("days_since_first_order", {"days_since_first_order": 345.0}, {"days_since_first_order": 350.0}, "time since the first order: 345 days; 350 days is typical", "首单距今：345 天，一般客户为 350 天", 0),
    ("discounted_line_share_91d", {"discounted_line_share_91d": 0.62}, {"discounted_line_share_91d": 0.4}, "share of order lines with a discount in the last 91 days: 62%; 40% is typical", "近 91 天打折商品行占比：62%，一般客户为 40%", 1),
    ("top_category", {"top_category": "GROCERY"}, {}, "category bought most: GROCERY", "购买最多的品类：GROCERY", None),
]  # fmt: skip


@pytest.mark.parametrize(("name", "own", "typical", "english", "chinese", "difference"), CASES)
def test_statements(name, own, typical, english, chinese, difference):
    (first, *_), (same, *_) = (statements(BY_NAME[name], own, typical, lang) for lang in ("en", "zh"))
    assert (first.text, same.text) == (english, chinese)
    assert first.difference == same.difference == difference


@pytest.mark.parametrize(
    ("feature", "value", "english", "chinese"),
    [
        (Feature("no_record_crm", "profiles", "missing", default=1.0, unit="0/1", description="whether the source crm has no record of age_band"), 1.0, "no profile of the customer in the source crm", "来源 crm 没有该客户的资料"),
        (Feature("no_record_crm", "profiles", "missing", default=1.0, unit="0/1", description="whether the source crm has no record of age_band"), 0.0, "the source crm has a profile of the customer", "来源 crm 有该客户的资料"),
        (Feature("profile_age_band", "profiles", "attribute", "age_band", default="", description="age band of the customer"), "45-54", "age band: 45-54", "年龄段：45-54"),
        (Feature("profile_household_size", "profiles", "attribute", "household_size", default=0.0, description="the source's own attribute 'household_size'"), 3.0, "household size: 3", "household size：3"),
    ],
    ids=["without a record", "with a record", "a known attribute", "an attribute of the source"],
)  # fmt: skip
def test_profiles_are_told_as_facts_about_the_customer(feature, value, english, chinese):
    own = {feature.name: value}
    told = [statements(feature, own, {}, lang) for lang in ("en", "zh")]
    assert [[one.text for one in found] for found in told] == [[english], [chinese]]


def test_the_lack_of_a_profile_is_no_reason_where_most_customers_lack_one():
    feature = Feature("no_record_crm", "profiles", "missing", default=1.0, unit="0/1")
    for value, difference in ((1.0, 0), (0.0, -1)):
        (told,) = statements(feature, {feature.name: value}, {feature.name: 1.0}, "en")
        assert told.difference == difference


def test_every_purchase_and_message_has_a_chinese_verb():
    for name, text in (
        ("purchase", "已有 9 天未购买"),
        ("open", "已有 9 天未打开消息"),
        ("click", "已有 9 天未点击消息"),
    ):
        feature = BY_NAME[f"days_since_last_{name}"]
        assert statements(feature, {feature.name: 9.0}, {}, "zh")[0].text == text


def test_a_feature_without_words_is_told_by_its_description():
    own = Feature("serum_orders", "orders", "count", unit="orders", description="orders of serum")
    assert (
        statements(own, {"serum_orders": 3.0}, {"serum_orders": 1.0}, "en")[0].text
        == "orders of serum: 3; 1 is typical"
    )


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.name)
@pytest.mark.parametrize("lang", ["en", "zh"])
def test_no_statement_is_made_of_an_unknown_value(feature, lang):
    for value in (None, float("nan"), ""):
        name = subject_of(feature).told_by or feature.name
        assert statements(feature, {name: value}, {}, lang) == []


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.name)
def test_every_feature_can_be_told(feature):
    name = subject_of(feature).told_by or feature.name
    value = "x" if feature.categorical else 2.0
    for lang in ("en", "zh"):
        (told, *_) = statements(feature, {name: value, "orders_total": 4.0}, {}, lang)
        assert "{" not in told.text
        assert "|" not in told.text


def test_every_line_of_the_table_is_of_a_feature():
    stems = {split_window(feature.name)[0] for feature in FEATURES}
    assert set(SUBJECTS) <= stems


def reasons(contributions, own, *, raises=True, typical=None, lang="en"):
    """The reasons of one customer."""
    features = tuple(BY_NAME[name] for name in contributions)
    spec = FeatureSpec(features, tuple(() for _ in features))
    moved = np.array([list(contributions.values())], dtype=np.float32)
    return sentences(spec, np.zeros_like(moved), moved, [raises], [own], typical or {}, lang)[0]


def test_only_what_raises_a_high_probability_is_a_reason_and_the_strongest_comes_first():
    own = {"days_since_last_order": 41.0, **CYCLE, "orders_91d": 4.0, "orders_182d": 13.0, "gap_days_std": 30.0}
    found = reasons(
        {"orders_91d": 0.4, "days_since_last_order": 1.0, "gap_days_std": -0.2}, own, typical={"gap_days_std": 7.0}
    )
    assert found == [
        "no order for 41 days; usually every 17",
        "4 orders in the last 91 days, 9 in the 91 before",
        "but irregular orders: ± 30 days; 7 is typical",
    ]


def test_features_of_a_group_add_up_and_give_one_sentence():
    own = {"orders_28d": 1.0, "orders_56d": 4.0, "orders_91d": 5.0, "orders_182d": 13.0, "days_since_last_order": 20.0}
    found = reasons({"days_since_last_order": 0.5, "orders_28d": 0.3, "orders_91d": 0.4}, {**own, **CYCLE})
    assert found == ["5 orders in the last 91 days, 8 in the 91 before", "no order for 20 days; usually every 17"]


def test_no_order_in_a_window_and_nothing_spent_in_it_say_how_long_the_last_one_is_ago():
    own = {"days_since_last_order": 34.0, **CYCLE, "orders_28d": 0.0, "orders_56d": 4.0, "amount_28d": 0.0}
    found = reasons({"orders_28d": 0.9, "amount_28d": 0.8, "days_since_last_order": 0.7}, own)
    assert found == ["no order for 34 days; usually every 17"]


def test_a_value_that_speaks_against_the_direction_is_no_reason():
    own = {"orders_91d": 9.0, "orders_182d": 13.0, "days_since_last_order": 2.0, **CYCLE}
    assert reasons({"orders_91d": 0.5, "days_since_last_order": 0.2}, own, typical={"orders_91d": 3.0}) == []
    assert reasons({"orders_91d": -0.5}, own, raises=False) == ["9 orders in the last 91 days, 4 in the 91 before"]


def test_contributions_that_hardly_count_are_no_reason():
    own = {"days_since_last_order": 41.0, **CYCLE, "orders_56d": 1.0}
    assert len(reasons({"days_since_last_order": 1.0, "orders_56d": 0.001}, own, typical={"orders_56d": 9.0})) == 1
    assert reasons({"days_since_last_order": 0.0, "orders_56d": 0.0}, own) == []


def test_every_number_has_words_in_both_languages():
    numbers = [feature for feature in FEATURES if not feature.categorical]
    assert [feature.name for feature in numbers if subject_of(feature).zh == feature.description] == []
