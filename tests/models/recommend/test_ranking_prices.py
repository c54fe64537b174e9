"""What the ranker knows of prices and discounts: by customer and item, by customer, by item, then and now."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from features.interactions import TrainingSet, sorted_interactions
from models.recommend.base import Query
from models.recommend.ranking.features import FEATURES, features
from models.recommend.ranking.histories import Histories, lines_now
from models.recommend.ranking.item_statistics import item_groups, item_statistics
from models.recommend.ranking.prices import PRICE_ITEM_FEATURES, item_prices

NAN = float("nan")
PRICED = (
    "unit_price",
    "discount",
    "last_discount",
    "user_discount",
    *PRICE_ITEM_FEATURES,
    "price_against_own",
    "discount_against_own",
    "discount_against_user",
)


def lines_of(rows, n_users=2, n_items=3):
    """Lines of (user, item, age, order, units, amount, discount)."""
    users, items, ages, orders, units, amounts, off = np.array(rows, dtype=np.float64).T
    return sorted_interactions(
        users.astype(np.int32),
        items.astype(np.int32),
        ages.astype(np.float32),
        np.ones(len(rows), np.float32),
        (n_users, n_items),
        orders.astype(np.int32),
        units.astype(np.float32),
        amounts.astype(np.float32),
        discounts=off.astype(np.float32),
    )


ROWS = [
    (0, 0, 5, 9, 2, 3, 1),  # 1.50 a unit, a quarter off
    (0, 0, 40, 3, 1, 4, 0),  # 4.00, the full price
    (0, 1, 5, 9, 1, 2, NAN),  # no discount is known
    (1, 0, 10, 7, 2, 3, 3),  # 1.50, half off
    (1, 2, 10, 7, 1, NAN, NAN),  # nothing is known
]


def training_set(lines):
    train = TrainingSet.from_arrays(np.array([0]), np.array([0]), n_users=lines.shape[0], n_items=lines.shape[1])
    return train.with_interactions(lines)


def table_of(lines):
    train = training_set(lines)
    histories = Histories.of(lines, item_groups(train.item_attributes))
    statistics = item_statistics(train)
    users, items = np.divmod(np.arange(train.n_users * train.n_items), train.n_items)
    table = features(histories, statistics, users, items)
    return {name: table[:, place].reshape(lines.shape) for place, name in enumerate(FEATURES)}


def test_prices_and_discounts_by_hand():
    found = table_of(lines_of(ROWS))
    assert found["unit_price"][0, 0] == pytest.approx(7 / 3)
    assert found["discount"][0, 0] == pytest.approx(1 / 8)
    assert found["last_discount"][0].tolist() == [
        0.25,
        pytest.approx(NAN, nan_ok=True),
        pytest.approx(NAN, nan_ok=True),
    ]
    assert found["user_discount"][0, 0] == pytest.approx(1 / 8)
    assert found["user_discount"][1, 2] == 0.5
    assert found["item_unit_price_28d"][0, 0] == 1.5  # six paid for four units
    assert found["item_price_drift"][0, 0] == pytest.approx(1.5 / 2)  # ten for five units in all
    assert found["item_discount"][1, 0] == pytest.approx(4 / 14)
    assert found["item_discount_28d"][0, 0] == pytest.approx(4 / 10)
    assert found["item_discount_7d"][0, 0] == pytest.approx(1 / 4)
    assert found["price_against_own"][0, 0] == pytest.approx(1.5 / (7 / 3))
    assert found["discount_against_own"][0, 0] == pytest.approx(4 / 10 - 1 / 8)
    assert found["discount_against_user"][1, 0] == pytest.approx(4 / 10 - 1 / 2)
    assert found["unit_price"][0, 1] == 2  # a price is known without a discount
    assert np.isnan([found["discount"][0, 1], found["unit_price"][1, 2], found["unit_price"][0, 2]]).all()
    assert found["share_of_visits"][0, :2].tolist() == [1.0, 0.5]
    assert found["share_of_visits_56d"][1].tolist() == [1.0, 0.0, 1.0]


@pytest.mark.parametrize(
    "missing", [("discounts",), ("amounts",), ("quantities",), ("quantities", "amounts", "discounts")]
)
def test_columns_that_are_missing_are_unknown_features(missing):
    found = table_of(replace(lines_of(ROWS), **dict.fromkeys(missing)))
    priced = np.stack([found[name] for name in PRICED])
    assert not np.isinf(priced).any()
    if "amounts" in missing:
        assert np.isnan(priced).all()
    elif missing == ("discounts",):
        assert np.isnan(found["discount"]).all()
        assert found["unit_price"][0, 0] == pytest.approx(7 / 3)
    else:
        assert found["unit_price"][0, 0] == pytest.approx(7 / 2)  # a line without units is one unit


def test_free_lines_and_negative_amounts_are_no_prices():
    found = table_of(lines_of([(0, 0, 5, 9, 1, 0, 2), (0, 0, 6, 8, 0, 3, 0), (0, 1, 5, 9, 1, -4, 1)]))
    assert np.isnan(found["unit_price"][0]).all()  # nothing was paid, no units, money came back
    assert found["last_discount"][0, 0] == 1.0
    assert np.isnan(found["discount"][0, 1])


def test_prices_after_a_cutoff_are_not_seen():
    train = training_set(lines_of(ROWS))
    past = item_prices(train.with_earlier_cutoff(20))
    names = list(PRICE_ITEM_FEATURES)
    assert past[0, names.index("item_unit_price_28d")] == 4  # the line of 40 days ago was then 20 days old
    assert past[0, names.index("item_discount")] == 0


def test_purchases_after_the_fit_have_prices_and_discounts():
    """The tables of a customer with recent interactions are those of one history."""
    lines = lines_of(ROWS)
    old = lines.age_days > 8
    query = Query(
        np.array([0]),
        recent_interactions=replace(lines.where(~old), shape=(1, 3)),
        elapsed_days=8.0,
    )
    fitted = replace(lines.where(old), age_days=lines.age_days[old] - 8)
    codes = item_groups(training_set(lines).item_attributes)
    starts = np.searchsorted(fitted.users, np.arange(3))
    now = Histories.of(lines_now(fitted, starts, query, np.array([0])), codes)
    whole = Histories.of(lines.where(lines.users == 0), codes)
    np.testing.assert_allclose(now.pairs, whole.pairs, rtol=1e-5)
    np.testing.assert_allclose(now.users[0], whole.users[0], rtol=1e-5)
