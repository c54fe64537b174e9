"""Dearer items of the same category, within the price band, ranked by what people really trade up to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from features.interactions import Interactions, TrainingSet
from models.recommend.choice_models import fit_conditional_logit
from models.recommend.upgrade.item_attributes import ItemAttributes, price_limits, size_of, usual_items
from models.recommend.upgrade.model import COLUMNS, PRIOR, UpgradeRecommender

PRICES = np.array([1.0, 1.05, 1.5, 2.0, 30.0, 5.0, 6.0, np.nan], dtype=np.float32)
CATEGORIES = np.array(["tea", "tea", "tea", "tea", "tea", "jam", "jam", "tea"])


def goods(
    pairs: list[tuple[int, int, float]], n_users: int, prices=PRICES, categories=CATEGORIES, **attributes
) -> TrainingSet:
    users, items, ages = (np.array(column) for column in zip(*pairs, strict=True))
    made = TrainingSet.from_arrays(users, items, n_users=n_users, n_items=len(prices), age_days=ages)
    return replace(
        made,
        item_attributes={
            **made.item_attributes,
            "category": np.array(categories),
            "price": np.array(prices),
            **attributes,
        },
    )


@pytest.fixture(scope="module")
def shelf_of_tea() -> TrainingSet:
    """User 0 buys the cheapest tea, user 1 the third, user 2 jam; the others bought item 0 and later item 3, some item 2."""
    climbs = (
        [(user, 0, 90.0) for user in range(3, 15)]
        + [(user, 3, 40.0) for user in range(3, 12)]
        + [(user, 2, 50.0) for user in range(12, 15)]
    )
    return goods([(0, 0, 5.0), (0, 0, 9.0), (1, 2, 4.0), (2, 5, 3.0), *climbs], 16)


@pytest.fixture(scope="module")
def model(shelf_of_tea) -> UpgradeRecommender:
    return UpgradeRecommender().fit(shelf_of_tea)


def listed(model: UpgradeRecommender, user: int, **given) -> list[int]:
    ranked = model.recommend([user], model.n_items_, **given)
    return ranked.ids[0, : ranked.valid[0]].tolist()


def test_dearer_items_of_the_category_within_the_band(model):
    """Not 1 (5 % dearer), not 4 (thirty times as dear), not 7 (no price), nothing that is jam; first what most trade up to."""
    assert listed(model, 0) == [3, 2]
    assert listed(model, 1) == [3]
    assert listed(model, 2) == [6]
    assert listed(model, 15) == []  # no history


def test_what_was_had_is_no_upgrade(model, shelf_of_tea):
    assert 3 not in listed(model, 5)
    recent_interactions = Interactions(
        np.zeros(1, np.int32), np.array([3], np.int32), np.array([0.5], np.float32), np.ones(1, np.float32), (1, 8)
    )
    assert listed(model, 0, recent_interactions=recent_interactions, elapsed_days=1.0) == [2]


def test_a_purchase_since_is_enough(model):
    recent_interactions = Interactions(
        np.zeros(1, np.int32), np.array([5], np.int32), np.array([0.5], np.float32), np.ones(1, np.float32), (1, 8)
    )
    assert listed(model, -1, recent_interactions=recent_interactions) == [6]


def test_better_than_the_given_item(model):
    """Given items ask for their categories only, and of two of one category for what is better than the dearer."""
    assert listed(model, 2, items=[np.array([2])]) == [3]
    assert set(listed(model, -1, items=[np.array([0])])) == {2, 3}
    assert listed(model, -1, items=[np.array([0, 2])]) == [3]
    assert listed(model, 0, items=[np.array([7])]) == []  # nobody knows its price
    assert set(listed(model, 0, items=[np.empty(0, int)])) == {2, 3}
    mixed = model.recommend([0, 2], 8, items=[np.array([5]), np.empty(0, int)])
    assert mixed.ids[:, 0].tolist() == [6, 6]


def test_the_band_follows_what_the_customer_pays():
    """Who pays three times the middle elsewhere is shown what is three times the middle here."""
    prices, categories = np.array([1.0, 4.0, 13.0, 1.0, 4.0, 16.0]), ["a", "a", "a", "b", "b", "b"]
    others = [(user, item, 30.0) for user in range(2, 12) for item in range(6)]
    train = goods([(0, 3, 1.0), (0, 0, 1.0), (1, 5, 1.0), (1, 0, 1.0), *others], 12, prices, np.array(categories))
    model = UpgradeRecommender(least_band=4.5, most_band=20.0).fit(train)
    assert listed(model, 0, items=[np.array([0])]) == [1]
    assert set(listed(model, 1, items=[np.array([0])])) == {1, 2}
    assert set(listed(UpgradeRecommender(least_band=4.5, most_band=5.0).fit(train), 1, items=[np.array([0])])) == {1}


def test_no_prices_no_candidates(training_set_of):
    """A short list for a reason: what is dearer cannot be known."""
    train = training_set_of([(user, item, 3.0) for user in range(5) for item in range(user, 8)], 5, 10)
    for attributes in (train.item_attributes, {**train.item_attributes, "price": np.full(10, np.nan, np.float32)}):
        model = UpgradeRecommender().fit(replace(train, item_attributes=attributes))
        assert not model.recommend(np.arange(5), 5).valid.any()
        assert model.evidence(0, 3) is None


def test_evidence_says_what_of_and_how_much(model):
    facts = model.evidence(0, 3)
    assert facts["instead_of"] == 0
    assert facts["price_ratio"] == pytest.approx(2.0)
    assert facts["better"] == "better"
    assert model.evidence(0, 5) is None
    assert model.evidence(15, 3) is None


def test_larger_is_larger_only_at_about_the_same_price_for_its_size():
    sizes = np.array(["100 g", "250 g", "110 g", "2 ct"])
    train = goods(
        [(0, 0, 2.0), (1, 1, 3.0), (1, 2, 3.0), (1, 3, 3.0)],
        2,
        np.array([1.0, 2.2, 2.2, 2.0]),
        np.array(["a"] * 4),
        package_size=sizes,
    )
    model = UpgradeRecommender().fit(train)
    assert model.evidence(0, 1) == pytest.approx(
        {"instead_of": 0, "price_ratio": 2.2, "better": "larger", "size_ratio": 2.5}
    )
    assert model.evidence(0, 2)["better"] == "better"  # 10 % more for 2.2 times the price
    assert "size_ratio" not in model.evidence(0, 3)  # pieces are no grams


@pytest.mark.parametrize(
    ("text", "measure", "like", "times"),
    [
        ("16 OZ", "weight", "1 lb", 1.0),
        ("1.5kg", "weight", "500 g", 3.0),
        ("6/3.5 OZ", "weight", "3.5 oz", 6.0),
        ("12 PK/12 OZ", "weight", "12 oz", 12.0),
        ("10.4 OZ/8 CT", "weight", "10.4 oz", 1.0),
        ("1 DZ", "count", "6 ct", 2.0),
        (".5 L", "volume", "250 ml", 2.0),
        ("1/2 GAL", "volume", "1 gal", 0.5),
    ],
)
def test_sizes_are_read(text, measure, like, times):
    found, other = size_of(text), size_of(like)
    assert found is not None
    assert other is not None
    assert found[0] == other[0] == measure
    assert found[1] == pytest.approx(times * other[1], rel=0.01)


@pytest.mark.parametrize(
    "text", ["", "CTN", "48-54 CT", "ASSORTED", "12", "3 X 4 OZ BOX", "大 500g", "0 OZ", "8 OZ/9 LB"]
)
def test_what_says_no_size_is_none(text):
    assert size_of(text) is None


@given(st.text(max_size=30))
def test_any_text_may_be_a_size(text):
    found = size_of(text)
    assert found is None or (found[0] in ("weight", "volume", "count") and found[1] > 0)


def test_the_usual_item_is_the_one_bought_most():
    own = sparse.csr_matrix(np.array([[1.0, 3.0, 0.0, 2.0, 2.0], [0, 0, 0, 0, 9.0], [0, 0, 1.0, 0, 0]]))
    rows, items = usual_items(own, np.array([0, 0, -1, 1, 1]))
    assert list(zip(rows.tolist(), items.tolist(), strict=True)) == [(0, 1), (0, 3), (1, 4)]


def test_price_limits_are_weighted_quantiles(model, shelf_of_tea):
    own = sparse.csr_matrix((np.array([9.0, 1.0]), (np.array([0, 0]), np.array([0, 3]))), shape=(2, 8))
    item_attributes, market = ItemAttributes.of(shelf_of_tea.item_attributes, 8), model.market_
    low, high = (price_limits(own, item_attributes, market, quantile) for quantile in (0.9, 0.91))
    tea = item_attributes.leaf[0]
    assert low[0] == pytest.approx(item_attributes.price[0] - market.mean_log_price[tea])
    assert high[0] == pytest.approx(item_attributes.price[3] - market.mean_log_price[tea])
    assert low[1] == 0.0


def test_choices_teach_the_weights_that_made_them():
    """Sets of eight, chosen by a known logit."""
    rng = np.random.default_rng(0)
    sets, size, true = 3000, 8, np.array([1.2, -0.7, 0.0])
    columns = rng.normal(0, 1, (sets * size, 3))
    drawn = (columns @ true + rng.gumbel(size=sets * size)).reshape(sets, size).argmax(axis=1)
    chosen = np.zeros(sets * size, dtype=bool)
    chosen[np.arange(sets) * size + drawn] = True
    found = fit_conditional_logit(columns, np.repeat(np.arange(sets), size), chosen, np.zeros(3), 1.0)
    np.testing.assert_allclose(found, true, atol=0.08)
    np.testing.assert_allclose(
        fit_conditional_logit(columns, np.repeat(np.arange(sets), size), chosen, np.ones(3), 1e9), 1.0, atol=1e-3
    )


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_what_is_listed_is_what_the_docstring_says(seed):
    """Of random shops: the same category as a usual item, dearer, within the widest band, never had; nobody twice."""
    rng = np.random.default_rng(seed)
    prices = np.exp(rng.normal(0, 0.8, 15)).astype(np.float32)
    prices[rng.random(15) < 0.2] = np.nan
    categories = rng.choice(["a/b", "a/c", ""], 15)
    train = goods(
        [
            (int(u), int(i), float(a))
            for u, i, a in zip(rng.integers(0, 9, 60), rng.integers(0, 15, 60), rng.uniform(1, 99, 60), strict=True)
        ],
        9,
        prices,
        categories,
    )
    model = UpgradeRecommender().fit(train)
    own = train.interactions.matrix()
    for user in range(9):
        item_customers = set(own.indices[own.indptr[user] : own.indptr[user + 1]].tolist())
        for item in listed(model, user):
            facts = model.evidence(user, item)
            assert item not in item_customers
            assert facts["instead_of"] in item_customers
            assert categories[item] == categories[facts["instead_of"]] != ""
            assert 1.1 - 1e-4 <= facts["price_ratio"] <= 10.0 + 1e-4
            assert facts["price_ratio"] == pytest.approx(prices[item] / prices[facts["instead_of"]], rel=1e-4)


def test_popularity_alone_is_the_baseline():
    """`by` ranks the same candidates by their customers."""
    pairs = (
        [(0, 0, 2.0)]
        + [(user, 2, 3.0) for user in range(1, 9)]
        + [(user, 3, 3.0) for user in range(3, 6)]
        + [(9, 1, 2.0)]
    )
    train = goods(pairs, 10)
    model = UpgradeRecommender(by="popularity").fit(train)
    assert listed(model, 0) == [2, 3]
    assert set(listed(UpgradeRecommender().fit(train), 0)) == {2, 3}


def test_too_little_to_learn_from_leaves_the_prior(model):
    assert len(PRIOR) == len(COLUMNS) == len(model.weights_)
    few = UpgradeRecommender().fit(goods([(0, 0, 2.0), (1, 3, 3.0)], 2))
    np.testing.assert_array_equal(few.weights_, PRIOR)


def test_trade_ups_count_only_upwards_and_later(model):
    transitions = model.market_.transitions.toarray() * (model.market_.item_customers + model.prior)[:, None]
    assert transitions[0, 3] == pytest.approx(9.0)
    assert transitions[0, 2] == pytest.approx(3.0)
    assert transitions[3].sum() == 0.0  # nothing dearer was bought after it
    assert transitions[:, 0].sum() == 0.0
