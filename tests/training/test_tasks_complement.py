"""The task of `complement`: an order of the window is split into what is given and what is to be found."""

from __future__ import annotations

import numpy as np
import pytest

from features.interactions import TrainingSet
from models.recommend.complement import Baskets, ComplementRecommender
from training.tasks.complement import MIN_ITEMS, NEW, examples, extra


@pytest.fixture(scope="module")
def shop() -> tuple[TrainingSet, TrainingSet]:
    """30 customers before the cut and after it, orders of one to six of 20 items; the last two have no history."""
    rng = np.random.default_rng(1)

    def orders(users: int, first: int) -> TrainingSet:
        lines = [
            (user, item, number, age)
            for number, user, age in zip(
                range(first, first + 150), rng.integers(0, users, 150), rng.uniform(1, 28, 150), strict=True
            )
            for item in rng.permutation(20)[: rng.integers(1, 7)]
        ]
        user, item, number, age = (np.array(column) for column in zip(*lines, strict=True))
        return TrainingSet.of_pairs(user, item, n_users=32, n_items=20, age_days=age, orders=number)

    return orders(30, 0), orders(32, 150)


@pytest.fixture(scope="module")
def asked(shop):
    return examples(shop[0], shop[1].interactions, 0)


def test_one_order_a_customer_split_in_two(shop, asked):
    assert len(set(asked.users.tolist())) == len(asked) > 20
    assert asked.users.max() < 30
    baskets = Baskets.of(shop[1].interactions)
    for user, given, row in zip(asked.users, asked.context_items, asked.truth, strict=True):
        both = sorted([*given.tolist(), *row.indices.tolist()])
        held = [baskets.items[order].indices.tolist() for order in np.flatnonzero(baskets.users == user)]
        assert both in held
        assert len(both) >= MIN_ITEMS
        assert len(row.indices) == len(both) // 2


def test_the_half_is_drawn(shop, asked):
    other = examples(shop[0], shop[1].interactions, 1)
    same = [np.array_equal(one, two) for one, two in zip(asked.context_items, other.context_items, strict=False)]
    assert not all(same)


def test_no_orders_no_examples(shop):
    nothing = shop[1].interactions.where(np.zeros(len(shop[1].interactions.users), dtype=bool))
    assert len(examples(shop[0], nothing, 0)) == 0


def test_the_honest_part_is_of_items_never_had(shop, asked):
    train = shop[0]
    had = train.interactions.matrix()[asked.users]
    new = np.asarray((asked.truth > asked.truth.multiply(had > 0)).sum(axis=1)).ravel()
    found = extra(ComplementRecommender().fit(train), asked, shop[1].interactions)
    values = found[f"ndcg@10, {NEW}"]
    np.testing.assert_array_equal(np.isfinite(values), new > 0)
    assert np.nanmax(values) > 0
