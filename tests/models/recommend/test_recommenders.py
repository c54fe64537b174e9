"""Each recommender where the right answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from models.recommend import repeat
from models.recommend.fallback import FallbackChain
from models.recommend.hybrid import HybridRecommender, item_attributes, user_attributes
from models.recommend.ials import ImplicitALSRecommender
from models.recommend.popular import PopularRecommender
from models.recommend.repeat import RepeatPurchaseRecommender
from qianmian.errors import UsageError

SMALL = [
    ("repeat", {}),
    ("ials", {"factors": 8, "iterations": 3}),
    ("hybrid", {"factors": 8, "epochs": 3}),
    ("popular", {}),
]


@pytest.fixture
def checkerboard(training_set_of):
    """After implicit's own test: even customers have even items, odd ones odd items, each lacks the item of its own number."""
    return training_set_of(
        [(u, i, 1.0) for u in range(20) for i in range(20) if u % 2 == i % 2 and u != i], 20, 20, categories=[""] * 20
    )


@pytest.mark.parametrize("half_life", [None, 30.0])
def test_ials_fills_the_hole_of_the_checkerboard(checkerboard, half_life):
    model = ImplicitALSRecommender(factors=6, iterations=15, regularization=0.01, half_life_days=half_life, seed=1).fit(
        checkerboard
    )
    assert model.recommend(range(20), 1, exclude_purchased=True).ids.ravel().tolist() == list(range(20))
    same = [(model.similar_items(item, 5).ids % 2 == item % 2).mean() for item in range(20)]
    assert np.mean(same) > 0.9  # chance: 9 of 19


def test_hybrid_beats_chance_on_the_checkerboard(checkerboard):
    model = HybridRecommender(factors=8, epochs=30, personal_weight=5.0, seed=1).fit(checkerboard)
    found = model.recommend(range(20), 5, exclude_purchased=True).ids
    assert np.mean([user in row for user, row in enumerate(found.tolist())]) > 0.9  # chance: 5 of 11
    same = [(model.similar_items(item, 5).ids % 2 == item % 2).mean() for item in range(20)]
    assert np.mean(same) > 0.9  # chance: 9 of 19


def test_popular_counts_customers_not_lines(training_set_of):
    train = training_set_of([(0, 0, 1.0)] * 9 + [(0, 1, 1.0), (1, 1, 1.0)], 3, 3)
    ranked = PopularRecommender().fit(train).recommend([2], 3)
    assert ranked.ids.tolist() == [[1, 0, 2]]
    assert ranked.scores.tolist() == [[2.0, 1.0, 0.0]]


def test_popular_of_a_window(training_set_of):
    train = training_set_of([(0, 0, 100.0), (1, 0, 100.0), (0, 1, 10.0)], 2, 2)
    assert PopularRecommender(28).fit(train).recommend([-1], 1).ids.tolist() == [[1]]
    assert PopularRecommender(10).fit(train).recommend([-1], 1).ids.tolist() == [[1]]  # [as_of − 10 days, as_of)
    assert PopularRecommender(9).fit(train).recommend([-1], 1).ids.tolist() == [[0]]  # nobody had anything: of all time


def test_repeat_is_the_decayed_count(training_set_of):
    train = training_set_of([(0, 0, 60.0), (0, 0, 90.0), (0, 2, 30.0), (0, 1, 90.0), (1, 3, 1.0)], 2, 4)
    ranked = RepeatPurchaseRecommender(30.0).fit(train).recommend([0], 4)
    assert ranked.ids.tolist() == [[2, 0, 1, -1]]  # .5, .25 + .125, .125
    np.testing.assert_allclose(ranked.scores[0, :3], [0.5, 0.375, 0.125], rtol=1e-6)
    counted = RepeatPurchaseRecommender(None).fit(train).recommend([0], 4)
    assert counted.ids.tolist() == [[0, 1, 2, -1]]  # twice, once, once: the tie goes to the lower index
    assert counted.valid.tolist() == [3]


def test_repeat_counts_purchases_by_blocks_of_customers(training_set_of, monkeypatch):
    monkeypatch.setattr(repeat, "BLOCK_LINES", 2)
    lines = [(0, 0, 60.0), (0, 0, 90.0), (0, 2, 30.0), (1, 3, 1.0), (2, 0, 5.0), (2, 3, 9.0), (2, 3, 4.0)]
    model = RepeatPurchaseRecommender(30.0).fit(training_set_of(lines, 3, 4))
    assert model.times_.tolist() == [2, 1, 1, 1, 2]
    assert model.last_days_.tolist() == [60.0, 30.0, 1.0, 5.0, 4.0]


def test_hybrid_answers_a_stranger_by_the_profile(shop):
    model = HybridRecommender(factors=8, epochs=20, personal_weight=1.0).fit(shop)
    young, old = (model.recommend([-1], 5, attributes=[{"band": band}]).ids[0] for band in ("18-24", "65+"))
    assert (young % 2 == 0).mean() > 0.5
    assert (old % 2 == 1).mean() > 0.5
    last = shop.n_users - 1
    assert model.recommend([last, -1], 5).valid.tolist() == [0, 0]  # no history, no profile: no answer
    stranger = int(np.flatnonzero(shop.user_features.column("profile_band")[-4:-1] == 0)[0]) + shop.n_users - 4
    np.testing.assert_array_equal(model.recommend([stranger], 5).ids[0], young)


def test_hybrid_reads_attributes_and_category_levels(training_set_of):
    train = training_set_of([(0, 0, 1.0)], 3, 3, bands=[0, 1, -1], categories=["a/b", "a/c", ""])
    names, users = user_attributes(train)
    assert names.tolist() == ["band=18-24", "band=65+"]
    assert users.toarray().tolist() == [[1, 0], [0, 1], [0, 0]]
    items = item_attributes(train).toarray()
    assert items.shape == (3, 5)  # a, a/b, a/c, and the brands b1 and b0
    np.testing.assert_array_equal(items.sum(axis=1), [2, 3, 1])
    assert items[0, 0] == items[1, 0] == 1


@pytest.fixture(scope="module")
def chain(shop):
    return FallbackChain(SMALL).fit(shop)


def test_chain_says_which_stage_each_item_came_from(chain, shop):
    ranked = chain.recommend(range(shop.n_users), 10)
    assert ranked.sources == ("repeat", "ials", "hybrid", "popular")
    repeat = RepeatPurchaseRecommender().fit(shop).recommend(range(shop.n_users), 10)
    for user in range(shop.n_users):
        own = int(repeat.valid[user])
        np.testing.assert_array_equal(ranked.ids[user, :own], repeat.ids[user, :own])
        assert (ranked.source[user, :own] == 0).all()
        assert (np.diff(ranked.source[user]) >= 0).all()
    warm = ranked.source[: shop.n_users - 4]
    assert set(np.unique(warm)) <= {0, 1}  # iALS answers everybody with a history
    assert (ranked.source[-4:-1] == 2).all()  # a profile, no history: the hybrid
    assert (ranked.source[-1] == 3).all()  # nothing known: popular
    assert (chain.recommend([-1], 5).source == 3).all()
    assert (chain.recommend([-1], 5, attributes=[{"band": "65+"}]).source == 2).all()


def test_chain_scores_show_the_stage(chain, shop):
    ranked = chain.recommend(range(shop.n_users), shop.n_items)
    real = ranked.source >= 0
    level = len(SMALL) - 1 - ranked.source
    assert (ranked.scores[real] >= level[real]).all()
    assert (ranked.scores[real] <= level[real] + 1).all()


def test_chain_fills_what_filters_empty(chain, shop):
    """When what the customer had is left out, later stages fill the list."""
    had = shop.interactions.items[shop.interactions.users == 3]
    ranked = chain.recommend([3], 5, exclude_purchased=True)
    assert ranked.valid[0] == 5
    assert not set(had.tolist()) & set(ranked.ids[0].tolist())
    assert (ranked.source == 1).all()


def test_chain_finds_similar_items_by_its_first_stage_that_can(chain, shop):
    ials = ImplicitALSRecommender(factors=8, iterations=3).fit(shop)
    np.testing.assert_array_equal(chain.similar_items(2, 5).ids, ials.similar_items(2, 5).ids)
    only_popular = FallbackChain([("popular", {})]).fit(shop)
    with pytest.raises(UsageError, match="similar"):
        only_popular.similar_items(0, 3)
