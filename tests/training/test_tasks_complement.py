"""The task of `complement`: an order of the test period is split into context items and relevant items."""

from __future__ import annotations

import numpy as np
import pytest

from features.interactions import TrainingSet
from models.recommend.baskets import Baskets
from models.recommend.complement import ComplementRecommender
from training.tasks.complement import MIN_ITEMS, NEW, examples, extra_metrics


@pytest.fixture(scope="module")
def shop() -> tuple[TrainingSet, TrainingSet]:
    """30 customers before and after the cutoff with orders of one to six of 20 items; two have no history."""
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
        return TrainingSet.from_arrays(user, item, n_users=32, n_items=20, age_days=age, orders=number)

    return orders(30, 0), orders(32, 150)


@pytest.fixture(scope="module")
def task_examples(shop):
    return examples(shop[0], shop[1].interactions, 0)


def test_one_order_per_customer_is_split_in_two(shop, task_examples):
    assert len(set(task_examples.users.tolist())) == len(task_examples) > 20
    assert task_examples.users.max() < 30
    baskets = Baskets.of(shop[1].interactions)
    for user, given, row in zip(task_examples.users, task_examples.context_items, task_examples.truth, strict=True):
        both = sorted([*given.tolist(), *row.indices.tolist()])
        held = [baskets.items[order].indices.tolist() for order in np.flatnonzero(baskets.users == user)]
        assert both in held
        assert len(both) >= MIN_ITEMS
        assert len(row.indices) == len(both) // 2


def test_the_context_half_is_random(shop, task_examples):
    other = examples(shop[0], shop[1].interactions, 1)
    same = [
        np.array_equal(one, two) for one, two in zip(task_examples.context_items, other.context_items, strict=False)
    ]
    assert not all(same)


def test_no_orders_no_examples(shop):
    nothing = shop[1].interactions.where(np.zeros(len(shop[1].interactions.users), dtype=bool))
    assert len(examples(shop[0], nothing, 0)) == 0


def test_the_discovery_slice_has_items_never_purchased_before(shop, task_examples):
    train = shop[0]
    interacted = train.interactions.matrix()[task_examples.users]
    new = np.asarray((task_examples.truth > task_examples.truth.multiply(interacted > 0)).sum(axis=1)).ravel()
    found = extra_metrics(ComplementRecommender().fit(train), task_examples, shop[1].interactions)
    values = found[f"ndcg@10, {NEW}"]
    np.testing.assert_array_equal(np.isfinite(values), new > 0)
    assert np.nanmax(values) > 0
