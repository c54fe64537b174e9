"""Taste for categories and brands, and what it says of items nobody had."""

from __future__ import annotations

import numpy as np
import pytest

from features.interactions import TrainingSet
from models.recommend.affinity import AffinityRecommender
from models.recommend.base import Query
from qianmian.errors import InvalidRequest

CATEGORIES = np.array(["food/tea", "food/tea", "food/soup", "home/lamps"])


@pytest.fixture
def train():
    """User 0 has tea, user 1 lamps of brand B; a third has nothing."""
    data = TrainingSet.from_arrays(
        np.array([0, 0, 0, 1, 1]), np.array([0, 1, 2, 3, 3]), n_users=3, n_items=4, age_days=np.full(5, 3.0)
    )
    data.item_attributes.update({"category": CATEGORIES, "brand": np.array(["A", "", "A", "B"])})
    return data


def test_a_new_item_is_scored_as_the_formula_says(train):
    model = AffinityRecommender(half_life_days=None, prior_lines=4.0, brand_weight=0.5, new_item_customers=1.0).fit(
        train
    )
    got = model.score_unseen(0, [{"category": "food/tea", "brand": "A"}])[0]
    food, tea = (
        (3 + 4 * 3 / 5) / (3 + 4),
        (2 + 4 * 2 / 3) / (3 + 4),
    )  # shares drawn to everybody's: 3 of 5 lines, of these 2 of 3
    lift = (2 + 4 * 2 / 5) / ((3 + 4) * 2 / 5)
    within = 1 / (1 + 1 + 2 + 1)  # two items of tea with one customer each, one more for each item, this one's
    assert got == pytest.approx(np.log(food) + np.log(tea) + np.log(within) + 0.5 * np.log(lift), abs=1e-4)


def test_taste_orders_new_items_and_a_stranger_gets_everybodys(train):
    model = AffinityRecommender().fit(train)
    new = [{"category": "food/tea"}, {"category": "home/lamps"}]
    tea, lamp = model.score_unseen(0, new)
    other_tea, other_lamp = model.score_unseen(1, new)
    assert tea - lamp > 0 > other_tea - other_lamp
    np.testing.assert_allclose(model.score_unseen(-1, new), model.score_unseen(2, new))
    brand_b, brand_a = model.score_unseen(
        1, [{"category": "home/lamps", "brand": "B"}, {"category": "home/lamps", "brand": "A"}]
    )
    assert brand_b > brand_a


def test_what_was_done_since_changes_the_taste(train):
    model = AffinityRecommender().fit(train)
    lines = train.interactions
    recent_interactions = lines.where(lines.users == 1)
    recent_interactions = type(recent_interactions)(
        np.zeros_like(recent_interactions.users),
        recent_interactions.items,
        np.ones_like(recent_interactions.age_days),
        recent_interactions.weights,
        (1, 4),
    )
    before, after = (
        model.score_unseen(2, [{"category": "home/lamps"}]),
        model.score_unseen(2, [{"category": "home/lamps"}], recent_interactions=recent_interactions),
    )
    assert after[0] > before[0]


def test_unknown_kinds_count_as_what_stands_above_them(train):
    model = AffinityRecommender().fit(train)
    known, deeper, strange, nothing = model.score_unseen(
        0,
        [
            {"category": "food", "brand": "A"},
            {"category": "food/coffee/beans", "brand": "A"},
            {"category": "cars", "brand": "?"},
            {},
        ],
    )
    assert deeper == known
    assert strange == nothing
    assert np.isfinite([known, strange]).all()
    assert model.score_unseen(0, []).tolist() == []
    with pytest.raises(InvalidRequest):
        model.score_unseen(7, [{}])


def test_saved_and_loaded_it_says_the_same(train, tmp_path):
    model = AffinityRecommender().fit(train)
    model.save(tmp_path / "affinity")
    loaded, new = (
        AffinityRecommender.load(tmp_path / "affinity"),
        [{"category": "food/soup", "brand": "A"}, {"category": "home"}],
    )
    np.testing.assert_array_equal(loaded.score_unseen(0, new), model.score_unseen(0, new))
    np.testing.assert_array_equal(loaded._scores(Query(np.array([0]))), model._scores(Query(np.array([0]))))
