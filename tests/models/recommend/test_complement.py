"""What goes with what, where the right answer is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.interactions import Interactions, TrainingSet
from models.recommend.base import Query
from models.recommend.baskets import Baskets
from models.recommend.complement import ComplementRecommender

BANANA, PASTA, SAUCE, BEER, CRISPS, RARE = range(6)


def orders_of(
    lists: list[tuple[int, float, list[int]]], n_users: int, n_items: int, categories: list[str] | None = None
) -> TrainingSet:
    """A training set of orders: (user, age in days, items)."""
    users = [user for user, _, items in lists for _ in items]
    ages = [age for _, age, items in lists for _ in items]
    numbers = [number for number, (_, _, items) in enumerate(lists) for _ in items]
    train = TrainingSet.from_arrays(
        np.array(users),
        np.array([item for _, _, items in lists for item in items]),
        n_users=n_users,
        n_items=n_items,
        age_days=np.array(ages),
        orders=np.array(numbers),
    )
    if categories is not None:
        train = replace(train, item_attributes={**train.item_attributes, "category": np.array(categories)})
    return train


@pytest.fixture(scope="module")
def grocer() -> TrainingSet:
    """Everybody has bananas; pasta goes with sauce and beer with crisps. User 9 has bought nothing but one pack of pasta."""
    lists = []
    for user in range(8):
        for week in range(6):
            pair = [PASTA, SAUCE] if (user + week) % 2 else [BEER, CRISPS]
            lists.append((user, 50.0 - 7 * week, [BANANA, *pair]))
    lists.append((8, 20.0, [RARE, BANANA]))
    lists.append((9, 3.0, [PASTA]))
    return orders_of(lists, 11, 6, ["fruit", "dry/pasta", "dry/sauce", "drinks/beer", "snacks", "dry/pasta"])


@pytest.fixture(scope="module")
def model(grocer) -> ComplementRecommender:
    return ComplementRecommender().fit(grocer)


def test_what_goes_together_comes_before_what_everybody_has(model):
    ranked = model.recommend([-1, -1], 3, items=[np.array([PASTA]), np.array([CRISPS])])
    assert ranked.ids[:, 0].tolist() == [SAUCE, BEER]
    assert ranked.ids[:, 1].tolist() == [BANANA, BANANA]  # they do go together: everybody has them
    assert ranked.valid.tolist() == [2, 2]


def test_without_given_items_it_goes_with_the_last_order(model):
    ranked = model.recommend([9], 3)
    np.testing.assert_array_equal(ranked.ids, model.recommend([9], 3, items=[np.array([PASTA])]).ids)
    assert ranked.ids[0, 0] == SAUCE
    # an empty basket says no more than none
    np.testing.assert_array_equal(ranked.ids, model.recommend([9], 3, items=[np.empty(0, np.int64)]).ids)


def test_nothing_to_go_with_is_not_answered(model):
    assert model.recommend([10, -1], 3).valid.tolist() == [0, 0]


def test_what_was_given_is_not_recommended(model):
    for user in (-1, 0):
        ids = model.recommend([user], 6, items=[np.array([PASTA, BANANA])]).ids
        assert not {PASTA, BANANA} & set(ids.ravel().tolist())


def test_own_habits_decide_between_what_goes_equally_well(grocer):
    """Half of the orders with item 0 hold 1, half hold 2; a customer who always takes 2 gets 2 first."""
    lists = [(user, 10.0 + week, [0, 1 if user % 2 else 2]) for user in range(6) for week in range(5)]
    train = orders_of(lists, 6, 4)
    given_zero = [np.array([0])] * 2
    assert ComplementRecommender().fit(train).recommend([2, 3], 1, items=given_zero).ids.ravel().tolist() == [2, 1]
    alone = ComplementRecommender(own_floor=None).fit(train)
    assert alone.recommend([2, 3], 1, items=given_zero).ids.ravel().tolist() == [
        1,
        1,
    ]  # a tie, and the lower index wins it


def test_habits_count_that_go_with_the_basket():
    """A customer takes 1 with 0 and 3 with 2, equally often."""
    lists = [(0, 60.0 - turn, [0, 1] if turn % 2 else [2, 3]) for turn in range(8)]
    lists += [(user, 30.0, [0, 1, 2, 3]) for user in range(1, 5)]
    model = ComplementRecommender(own_overlap=20.0).fit(orders_of(lists, 5, 4))
    assert model.recommend([0, 0], 1, items=[np.array([0]), np.array([2])]).ids.ravel().tolist() == [1, 3]


def test_substitutes_can_be_left_out(grocer):
    lists = [(user, 9.0, [PASTA, RARE, SAUCE]) for user in range(5)]
    train = orders_of(lists, 5, 6, list(grocer.item_attributes["category"]))
    given_pasta = [np.array([PASTA])]
    assert set(ComplementRecommender().fit(train).recommend([-1], 2, items=given_pasta).ids[0].tolist()) == {
        SAUCE,
        RARE,
    }
    without = ComplementRecommender(same_category=False).fit(train).recommend([-1], 2, items=given_pasta)
    assert without.ids[0].tolist() == [SAUCE, -1]  # the other pasta is of the same category
    nobody_knows = replace(train, item_attributes={**train.item_attributes, "category": np.full(6, "")})
    assert (
        ComplementRecommender(same_category=False).fit(nobody_knows).recommend([-1], 3, items=given_pasta).valid[0] == 2
    )


def test_an_order_since_the_fit_is_the_last_one(model):
    recent_interactions = Interactions(
        np.zeros(2, np.int32),
        np.array([BEER, PASTA], np.int32),
        np.array([0.5, 2.0], np.float32),
        np.ones(2, np.float32),
        (1, 6),
        orders=np.array([1, 0], np.int32),
    )
    assert model.recommend([9], 1, recent_interactions=recent_interactions, elapsed_days=4.0).ids[0, 0] == CRISPS
    assert model.recommend([-1], 1, recent_interactions=recent_interactions, elapsed_days=4.0).ids[0, 0] == CRISPS
    query = Query(np.array([9]), recent_interactions=recent_interactions, elapsed_days=4.0)
    assert model.query_items(query).indices.tolist() == [BEER]
    days = replace(recent_interactions, orders=None)  # without orders what was had on the last day counts
    assert model.query_items(Query(np.array([9]), recent_interactions=days, elapsed_days=4.0)).indices.tolist() == [
        BEER
    ]


def test_why(model):
    told = model.evidence(9, SAUCE)
    assert (told["with_item"], told["with_days"]) == (PASTA, 3.0)
    # sauce is in 24 of 50 orders, and in 24 of the 25 with pasta
    assert told["lift"] == pytest.approx((24 / 25) / (24 / 50))
    assert model.evidence(9, PASTA) is None
    assert model.evidence(9, RARE) is None
    assert model.evidence(10, SAUCE) is None
    strongest_association = model.strongest_association(SAUCE, np.array([BANANA, PASTA]))
    assert (strongest_association.with_item, strongest_association.orders) == (PASTA, 24)
    assert model.strongest_association(SAUCE, np.array([SAUCE])) is None


def test_counting_in_blocks_changes_nothing(grocer, model, monkeypatch):
    monkeypatch.setattr("models.recommend.item_knn.BLOCK_ENTRIES", 50)
    blocks = ComplementRecommender().fit(grocer)
    assert (blocks.links_ != model.links_).nnz == 0


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6))
def test_the_strongest_links_of_each_item_are_kept(seed, most):
    rng = np.random.default_rng(seed)
    lists = [(0, 1.0, sorted(set(rng.integers(0, 9, 5).tolist()))) for _ in range(12)]
    train = orders_of(lists, 1, 9)
    everything, some = (ComplementRecommender(neighbours=many).fit(train).links_.toarray() for many in (99, most))
    for full, kept in zip(everything, some, strict=True):
        best = np.lexsort((np.arange(9), -full))[:most]
        expected = np.zeros(9, np.float32)
        expected[best] = full[best]
        np.testing.assert_array_equal(kept, expected)


def test_baskets_are_the_orders_of_a_customer_oldest_first():
    data = orders_of([(1, 3.0, [2, 0]), (0, 9.0, [1]), (1, 1.0, [2])], 3, 3).interactions
    baskets = Baskets.of(data)
    assert baskets.users.tolist() == [0, 1, 1]
    assert baskets.age_days.tolist() == [9.0, 3.0, 1.0]
    assert baskets.items.toarray().tolist() == [[0, 1, 0], [1, 0, 1], [0, 0, 1]]
    by_day = Baskets.of(replace(data, orders=None, age_days=data.age_days + np.float32(0.2)))
    np.testing.assert_array_equal(by_day.items.toarray(), baskets.items.toarray())
    untimed = Baskets.of(replace(data, orders=None, age_days=np.zeros(len(data.users), np.float32)))
    assert untimed.items.toarray().tolist() == [[0, 1, 0], [1, 0, 1]]
