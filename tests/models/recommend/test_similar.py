"""Similar items where the right answer is known: what customers go over to, what items are, and items nobody had."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from features.interactions import TrainingSet
from models.recommend.similar.item_features import BEHAVIOUR, ItemFeatures, shared_levels, similarity_features
from models.recommend.similar.model import (
    MIN_SWITCHES,
    SimilarRecommender,
    customer_vectors,
    first_purchases,
    fit_multinomial_logit,
    switch_choice_sets,
)
from qianmian.errors import InvalidRequest, UsageError

CATEGORIES = ["food/milk", "food/milk", "food/milk", "food/bread", "home/soap", "food/milk", ""]
BRANDS = ["A", "A", "B", "A", "A", "B", ""]
PRICES = np.array([1.0, 1.1, 4.0, 2.0, 1.0, 1.05, np.nan], dtype=np.float32)


def with_attributes(train: TrainingSet, **columns: object) -> TrainingSet:
    return replace(
        train,
        item_attributes={**train.item_attributes, **{name: np.asarray(values) for name, values in columns.items()}},
    )


@pytest.fixture(scope="module")
def dairy() -> TrainingSet:
    """Seven items; customers 0–3 have 0 and 1, customers 4–7 have 2 and 3; nobody has 5 or 6, customer 8 nothing."""
    pairs = [(user, item) for user in range(8) for item in ((0, 1) if user < 4 else (2, 3))]
    users, items = np.array(pairs).T
    train = TrainingSet.from_arrays(users, items, n_users=9, n_items=7, age_days=np.arange(1, 17, dtype=np.float32))
    return with_attributes(train, category=np.array(CATEGORIES), brand=np.array(BRANDS), price=PRICES)


def switchers(seed: int = 0, n_users: int = 600) -> TrainingSet:
    """Everybody has one of 40 items of one category early and another in the last weeks, of the same brand nine times in ten; prices say nothing."""
    rng = np.random.default_rng(seed)
    brand = np.arange(40) % 4
    first = rng.integers(0, 40, n_users)
    same = rng.random(n_users) < 0.9
    other = np.where(same, brand[first], (brand[first] + rng.integers(1, 4, n_users)) % 4)
    second = rng.integers(0, 10, n_users) * 4 + other
    users = np.tile(np.arange(n_users), 2)
    ages = np.concatenate([rng.uniform(40, 100, n_users), rng.uniform(1, 20, n_users)])
    train = TrainingSet.from_arrays(users, np.concatenate([first, second]), n_users=n_users, n_items=40, age_days=ages)
    return with_attributes(
        train,
        category=np.full(40, "tea"),
        brand=np.array([f"b{code}" for code in brand]),
        price=rng.uniform(1, 9, 40).astype(np.float32),
    )


@pytest.fixture(scope="module")
def learnt() -> SimilarRecommender:
    return SimilarRecommender(factors=8).fit(switchers())


def test_the_same_category_comes_first_level_by_level(dairy):
    ids = SimilarRecommender(learn_days=None).fit(dairy).similar_items(0, 6).ids[0].tolist()
    assert set(ids[:3]) == {1, 2, 5}
    assert ids[3] == 3  # of the same department
    assert set(ids[4:]) == {4, 6}
    assert ids[0] == 1  # the same customers, brand and nearly the price


def test_behaviour_alone_is_the_cosine_of_customers(dairy):
    model = SimilarRecommender(uses=(BEHAVIOUR,), learn_days=None, by_category=False).fit(dairy)
    assert model.similar_items(0, 1).ids[0, 0] == 1
    assert model.similar_items(3, 1).ids[0, 0] == 2
    vectors = model.item_features_.vectors
    np.testing.assert_allclose(vectors[0] @ vectors[1], 1.0, atol=1e-5)
    np.testing.assert_allclose(vectors[0] @ vectors[2], 0.0, atol=1e-5)
    assert not vectors[5].any()


def test_vectors_approximate_the_cosine_of_customers():
    rng = np.random.default_rng(0)
    train = TrainingSet.from_arrays(rng.integers(0, 60, 900), rng.integers(0, 30, 900), n_users=60, n_items=30)
    had = train.interactions.matrix()
    vectors = customer_vectors(had, 30, 0)
    weighted = (had > 0).toarray() * (np.diff(had.indptr)[:, None] + 5.0) ** -0.5
    weighted /= np.linalg.norm(weighted, axis=0)
    np.testing.assert_allclose(vectors @ vectors.T, weighted.T @ weighted, atol=0.02)


def test_weights_are_those_of_what_customers_do(learnt):
    """Brand decides, price does not; in a shop where brand does not, it does not."""
    weights = dict(zip(learnt.item_features_.names, learnt.weights_.tolist(), strict=True))
    assert weights["brand"] > 2.0
    assert abs(weights["price"]) < 0.5
    train = switchers()
    mixed = with_attributes(train, brand=np.random.default_rng(1).permutation(train.item_attributes["brand"]))
    other = SimilarRecommender(factors=8).fit(mixed)
    assert abs(dict(zip(other.item_features_.names, other.weights_.tolist(), strict=True))["brand"]) < 0.6


def test_the_same_brand_comes_first_once_learnt(learnt):
    brands = learnt.item_features_.codes["brand"]
    same = [(brands[learnt.similar_items(item, 5).ids[0]] == brands[item]).mean() for item in range(40)]
    assert np.mean(same) > 0.95  # chance: 9 of 39


def test_what_is_learnt_from_is_before_what_is_learnt():
    """Weights do not change when the last weeks' purchases are taken out of what describes the items."""
    train = switchers()
    before = train.with_earlier_cutoff(28.0)
    groups = switch_choice_sets(train, before, np.zeros(40, np.int32), np.random.default_rng(0))
    assert groups is not None
    left, right, chosen, group = groups
    assert len(chosen) >= MIN_SWITCHES
    had = before.interactions.matrix()
    users, items, last = first_purchases(
        before, train.interactions.where(train.interactions.age_days < 28.0), np.zeros(40, np.int32)
    )
    assert set(right[chosen].tolist()) <= set(items.tolist())
    assert all(
        had[user, item] == 0 and had[user, earlier] > 0 for user, item, earlier in zip(users, items, last, strict=True)
    )
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    np.testing.assert_array_equal(starts, chosen)  # the chosen one stands first
    for begin, end in zip(starts[:20], starts[1:21], strict=True):
        assert len(set(left[begin:end].tolist())) == 1
        assert len(set(right[begin:end].tolist())) == end - begin


def test_too_few_switches_teach_nothing(dairy):
    assert (
        switch_choice_sets(dairy, dairy.with_earlier_cutoff(8.0), np.zeros(7, np.int32), np.random.default_rng(0))
        is None
    )
    usual = SimilarRecommender(learn_days=None).fit(dairy)
    np.testing.assert_array_equal(SimilarRecommender(learn_days=8.0).fit(dairy).weights_, usual.weights_)


def test_the_last_item_of_a_category_is_given():
    train = TrainingSet.from_arrays(
        np.array([0, 0, 0, 1]), np.array([0, 1, 3, 0]), n_users=2, n_items=5, age_days=np.array([9.0, 2.0, 1.0, 1.0])
    )
    after = TrainingSet.from_arrays(np.array([0, 0, 0, 1]), np.array([2, 1, 4, 4]), n_users=2, n_items=5).interactions
    found = first_purchases(train, after, np.array([0, 0, 0, 1, 1], np.int32))
    assert [column.tolist() for column in found] == [
        [0, 0],
        [2, 4],
        [1, 3],
    ]  # customer 1 never had anything of the category of item 4


def test_an_item_nobody_had_is_compared_by_what_it_is(dairy, learnt):
    model = SimilarRecommender(learn_days=None).fit(dairy)
    assert model.similar_items(5, 2).valid[0] == 2
    assert set(model.similar_items(5, 3).ids[0].tolist()) == {0, 1, 2}
    described = {"category": "tea", "brand": "b2", "price": 3.0}
    brands = learnt.item_features_.codes["brand"]
    assert (brands[learnt.similar_to(described, 8).ids[0]] == 2).all()
    # what is told of an item that is known is what the model knows of it, without its customers
    cold = learnt.item_features_.from_attributes(
        {"category": "tea", "brand": "b1", "price": float(np.exp(learnt.item_features_.numbers["price"][1]))}
    )
    assert cold.codes["brand"].tolist() == [learnt.item_features_.codes["brand"][1]]
    np.testing.assert_allclose(cold.numbers["price"], learnt.item_features_.numbers["price"][1], rtol=1e-5)
    np.testing.assert_array_equal(cold.levels[0], learnt.item_features_.levels[1])


def test_an_item_described_by_a_sub_category_nobody_has_falls_to_the_department(dairy):
    model = SimilarRecommender(learn_days=None).fit(dairy)
    ids = model.similar_to({"category": "food/cheese"}, 7).ids[0].tolist()
    assert set(ids[:5]) == {0, 1, 2, 3, 5}
    assert model.similar_to({}, 7).valid[0] == 7
    assert model.similar_to({"category": "food/milk"}, 9, allowed=np.arange(7) < 2).valid[0] == 2


@pytest.mark.parametrize("attributes", [{"colour": "red"}, {"price": "cheap"}, {"price": True}])
def test_a_description_that_cannot_be(dairy, attributes):
    with pytest.raises(InvalidRequest):
        SimilarRecommender(learn_days=None).fit(dairy).similar_to(attributes, 3)


def test_wrong_parameters(dairy):
    with pytest.raises(UsageError, match="kind of features"):
        SimilarRecommender(uses=("price",)).fit(dairy)
    with pytest.raises(UsageError, match="vectors"):
        SimilarRecommender(behaviour="word2vec").fit(dairy)
    with pytest.raises(InvalidRequest):
        SimilarRecommender(learn_days=None).fit(dairy).similar_to({}, 0)


def test_items_like_those_given_and_never_those(dairy):
    model = SimilarRecommender(learn_days=None).fit(dairy)
    alone = model.recommend([-1], 3, items=[np.array([0])])
    np.testing.assert_array_equal(alone.ids[0], model.similar_items(0, 3).ids[0])
    both = model.recommend([-1, 8], 7, items=[np.array([0, 3]), np.empty(0, np.int64)])
    assert both.valid.tolist() == [5, 0]
    assert not {0, 3} & set(both.ids[0].tolist())
    last = model.recommend([2], 3)  # customer 2 had item 1, then item 0
    np.testing.assert_array_equal(last.ids[0], model.similar_items(0, 3).ids[0])


def test_what_two_items_have_in_common(dairy):
    model = SimilarRecommender(learn_days=None).fit(dairy)
    assert model.shared_attributes(0, 1) == {"category": "food/milk", "brand": "A"}
    assert model.shared_attributes(0, 3) == {"category": "food", "brand": "A"}
    assert model.shared_attributes(0, 6) == {}


def test_traits_compare_every_column_that_says_something():
    columns = {
        "category": np.array(["a/b", "a/c", "a/b"]),
        "brand": np.array(["x", "x", ""]),
        "price": np.array([2.0, 1.0, np.nan], np.float32),
        "tags": np.array(["new|vegan", "vegan", ""]),
        "weight": np.array([1.0, 3.0, 5.0], np.float32),
        "same": np.array(["s", "s", "s"]),
        "available": np.array([1, 0, 1], np.int8),
    }
    item_features = ItemFeatures.of(columns)
    assert item_features.names == [BEHAVIOUR, "recent customers", "customers", "price", "weight", "brand", "tags"]
    found = dict(zip(item_features.names, similarity_features(item_features, item_features, paired=False), strict=True))
    np.testing.assert_allclose(found["price"], [[1, 0.5, 0.5], [0.5, 1, 0.5], [0.5, 0.5, 0.5]], rtol=1e-5)
    np.testing.assert_array_equal(found["brand"], [[1, 1, 0], [1, 1, 0], [0, 0, 0]])  # two unknown brands do not agree
    np.testing.assert_allclose(found["tags"], [[1, 0.5**0.5, 0], [0.5**0.5, 1, 0], [0, 0, 0]], rtol=1e-5)
    np.testing.assert_array_equal(shared_levels(item_features, item_features), [[2, 1, 2], [1, 2, 1], [2, 1, 2]])
    every = np.arange(3)
    pairs = similarity_features(item_features.take(every), item_features.take(every[::-1]), paired=True)
    for place, name in enumerate(item_features.names):
        np.testing.assert_allclose(pairs[:, place], np.broadcast_to(found[name], (3, 3))[every, every[::-1]], rtol=1e-5)
    again = ItemFeatures.restored(item_features.state())
    np.testing.assert_array_equal(again.tags["tags"], item_features.tags["tags"])
    assert again.scales == item_features.scales


def test_a_logit_finds_the_weights_choices_were_made_with():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(20_000, 3)).astype(np.float32)
    group = np.repeat(np.arange(2_000), 10)
    worth = values @ np.array([1.5, -0.5, 0.0]) + rng.gumbel(size=20_000)
    chosen = worth.reshape(2_000, 10).argmax(axis=1) + np.arange(2_000) * 10
    found = fit_multinomial_logit(values, chosen, group, np.array([True, True, True]))
    np.testing.assert_allclose(found, [1.5, -0.5, 0.0], atol=0.1)
    assert fit_multinomial_logit(values, chosen, group, np.array([True, False, False]))[1:].tolist() == [0.0, 0.0]
