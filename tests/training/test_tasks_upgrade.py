"""The task of `upgrade`: its examples, its candidates, and the same candidates for all models."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from features.interactions import Interactions, TrainingSet
from models.recommend import RECOMMENDERS
from models.recommend.upgrade.model import UpgradeRecommender
from training.evaluation.metrics import ranking_metrics
from training.evaluation.split import BATCH_SIZE
from training.tasks.upgrade import TASK, examples, extra_metrics

PRICES = np.array([1.0, 1.05, 2.0, 3.0, 4.0, 1.0, 2.0, np.nan], dtype=np.float32)
CATEGORIES = np.array(["tea"] * 5 + ["jam"] * 2 + ["tea"])


def lines(pairs: list[tuple[int, int]], n_users: int, n_items: int = 8) -> Interactions:
    users, items = (np.array(column, np.int32) for column in zip(*pairs, strict=True))
    m = len(users)
    return Interactions(users, items, np.full(m, 2.5, np.float32), np.ones(m, np.float32), (n_users, n_items))


def goods(pairs: list[tuple[int, int, float]], n_users: int, prices=PRICES, categories=CATEGORIES) -> TrainingSet:
    users, items, ages = (np.array(column) for column in zip(*pairs, strict=True))
    made = TrainingSet.from_arrays(users, items, n_users=n_users, n_items=len(prices), age_days=ages)
    return replace(made, item_attributes={**made.item_attributes, "category": categories, "price": prices})


@pytest.fixture(scope="module")
def shelf() -> TrainingSet:
    """User 0 buys tea 0 and has bought 2; user 1 bought tea 0 once; user 2 buys jam 5, with one dearer item."""
    return goods(
        [
            (0, 0, 1.0),
            (0, 0, 9.0),
            (0, 2, 30.0),
            (1, 0, 2.0),
            (2, 5, 2.0),
            (2, 5, 8.0),
            (3, 0, 2.0),
            (3, 0, 5.0),
            (3, 5, 4.0),
        ],
        4,
    )


def test_relevant_items_are_new_and_dearer_in_a_bought_category(shelf):
    holdout = lines([(0, 2), (0, 3), (0, 6), (1, 3), (2, 6), (3, 1), (3, 7)], 4)
    task_examples = examples(shelf, holdout, 0)
    # user 1 has one line of it, 2 has no choice, the items of 3 are 5 % dearer or have no price
    assert task_examples.users.tolist() == [0]
    assert [item.tolist() for item in task_examples.context_items] == [[0]]
    # not 1 (same price), not 2 (bought before), not 7 (no price)
    assert task_examples.candidates.indices.tolist() == [3, 4]
    assert task_examples.truth.indices.tolist() == [3]


def test_no_examples_without_trade_ups(shelf):
    task_examples = examples(shelf, lines([(0, 0), (2, 5)], 4), 0)
    assert len(task_examples) == 0
    assert task_examples.recommend_with(RECOMMENDERS["popular"]().fit(shelf), 3).ids.shape == (0, 3)


@pytest.fixture(scope="module")
def street() -> tuple[TrainingSet, Interactions]:
    """Twelve categories of eight items of rising price; customers of even brands trade up to even items.

    All customers buy the cheapest item. The most popular dearer item of every category is odd, so a ranking by
    popularity shows it to all customers.
    """
    rng = np.random.default_rng(1)
    n_users, shelves, size = 420, 12, 8
    pairs, later = [], []
    for user in range(n_users):
        even = user % 5 < 2
        places = rng.permutation(shelves)
        for turn, place in enumerate(places[:8].tolist()):
            base = place * size
            pairs += [(user, base, float(age)) for age in rng.uniform(60, 150, 3)]
            wanted = base + int(rng.choice([2, 4] if even else [1, 3]))
            if turn < 5:
                pairs.append((user, wanted, float(rng.uniform(29, 55))))
            elif turn < 6:
                pairs.append((user, wanted, float(rng.uniform(1, 28))))
            else:
                later.append((user, wanted))
    prices = np.tile(np.array([1.0, 1.2, 1.3, 1.5, 1.6, 2.0, 2.5, 3.0], np.float32), shelves)
    categories = np.array([f"c{place}" for place in range(shelves) for _ in range(size)])
    train = goods(pairs, n_users, prices, categories)
    return train, lines(later, n_users, shelves * size)


def test_all_models_rank_the_candidates_only(street):
    train, holdout = street
    task_examples = examples(train, holdout, 0)
    assert len(task_examples) > BATCH_SIZE  # more than one batch
    assert len(np.unique(task_examples.users)) == len(task_examples)  # one example per customer
    for name in ("upgrade", "popular", "ials") if "upgrade" in RECOMMENDERS else ("popular", "ials"):
        ranked = task_examples.recommend_with(RECOMMENDERS[name]().fit(task_examples.train), 10)
        assert ranked.ids.shape == (len(task_examples), 10)
        for row in (0, BATCH_SIZE - 1, BATCH_SIZE, len(task_examples) - 1):
            given = set(
                task_examples.candidates.indices[
                    task_examples.candidates.indptr[row] : task_examples.candidates.indptr[row + 1]
                ].tolist()
            )
            assert set(ranked.ids[row, : ranked.valid[row]].tolist()) <= given
            assert ranked.valid[row] == min(10, len(given))


def test_relevant_items_are_candidates_never_purchased_before(street):
    train, holdout = street
    task_examples = examples(train, holdout, 0)
    assert task_examples.truth.multiply(task_examples.candidates).nnz == task_examples.truth.nnz
    interacted = train.interactions.matrix()[task_examples.users]
    assert task_examples.candidates.multiply(interacted).nnz == 0
    others = examples(train, holdout, 1)
    np.testing.assert_array_equal(others.users, task_examples.users)
    assert any(one[0] != other[0] for one, other in zip(task_examples.context_items, others.context_items, strict=True))


def test_the_model_learns_who_trades_up(street):
    """The model is far ahead of the most popular dearer item, and a random order has the expected metrics."""
    train, holdout = street
    task_examples = examples(train, holdout, 0)
    found = {}
    for name, model in {"learnt": UpgradeRecommender(), "popular": UpgradeRecommender(by="popularity")}.items():
        found[name] = float(
            ranking_metrics(task_examples.recommend_with(model.fit(train), 10).ids, task_examples.truth, 10)[
                "mrr"
            ].mean()
        )
    assert found["learnt"] > found["popular"] + 0.1
    told = extra_metrics(UpgradeRecommender(), task_examples, holdout)
    number = told["candidates"]
    assert number.mean() == pytest.approx(np.diff(task_examples.candidates.indptr).mean())
    expected = np.mean([np.mean(1.0 / np.arange(1, int(c) + 1)) for c in number])
    assert told["mrr of a drawn order"].mean() == pytest.approx(expected, abs=0.05)
    assert found["learnt"] > told["mrr of a drawn order"].mean() + 0.2
    assert TASK.metric == "mrr"
