"""The task of `session`: visits of the last days are divided, and nothing of their second part is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from features.interactions import INTERACTION_TYPES, Interactions, TrainingSet
from models.recommend.session.trails import has_visits
from qianmian.errors import DataError
from qianmian.model_settings import RecommendSettings
from training.evaluation.metrics import ranking_metrics
from training.tasks.session import TASK, candidates

MINUTE = 1.0 / 1440.0
N_USERS, N_ITEMS = 60, 30
VIEW, CART = INTERACTION_TYPES.index("view"), INTERACTION_TYPES.index("cart")


@pytest.fixture(scope="module")
def train() -> TrainingSet:
    """Each visit leads from item i to i + 1 and i + 2, and i + 2 is put into the cart and bought."""
    rng = np.random.default_rng(0)
    seen, bought = [], []
    for user in range(N_USERS):
        for visit in range(12):
            at, item = 0.3 + 4.0 * visit + rng.random(), int(rng.integers(0, N_ITEMS - 2))
            seen += [(user, item + step, at - step * MINUTE, VIEW) for step in range(3)]
            seen.append((user, item + 2, at - 3 * MINUTE, CART))
            bought.append((user, item + 2, at - 4 * MINUTE))
    shape = (N_USERS, N_ITEMS)
    empty = TrainingSet.from_arrays([], [], n_users=N_USERS, n_items=N_ITEMS)

    def made(rows, types=None) -> Interactions:
        users, items, ages = (np.array([row[place] for row in rows]) for place in range(3))
        ones = np.ones(len(rows), np.float32)
        return Interactions(
            users.astype(np.int32), items.astype(np.int32), ages.astype(np.float32), ones, shape, types=types
        )

    types = np.array([row[3] for row in seen], dtype=np.int8)
    return replace(empty, interactions=made(bought), auxiliary=made(seen, types))


def test_examples_divide_visits_and_know_only_their_first_part(train):
    examples = TASK.examples(train, train.interactions, 0)
    assert len(examples) == N_USERS
    assert len(np.unique(examples.users)) == N_USERS
    # models are fitted on what is older than the days of the visits
    days = 2 * examples.elapsed_days
    assert examples.train.auxiliary is not None
    assert len(examples.train.auxiliary) == (train.auxiliary.age_days > days).sum()
    assert examples.recent_auxiliary is not None
    recent, truth = examples.recent_auxiliary.matrix(), examples.truth
    for row in range(N_USERS):
        given = examples.recent_auxiliary.where(examples.recent_auxiliary.users == row)
        last = given.items[np.argmin(given.age_days)]
        # what is relevant follows the last item that is known, and is not this item
        assert set(truth[row].indices.tolist()) <= {last + 1, last + 2}
        assert len(truth[row].indices)
        assert examples.exclude[row].tolist() == [last]
    again = TASK.examples(train, train.interactions, 0)
    np.testing.assert_array_equal(again.users, examples.users)
    assert (again.truth != truth).nnz == 0
    half = examples.take(np.arange(0, N_USERS, 2))
    assert half.recent_auxiliary.matrix().sum() == recent[::2].sum()


def test_models_of_a_session_find_what_comes_next(train):
    examples = TASK.examples(train, train.interactions, 0)
    found = {
        name: ranking_metrics(examples.recommend_with(model.fit(examples.train), 10).ids, examples.truth, 10)[
            "ndcg"
        ].mean()
        for name, model in candidates(RecommendSettings(), 0).items()
    }
    assert found["session"] > 0.7
    assert found["transitions"] > 0.7
    assert found["session item k-NN"] > found["popular"] + 0.1


def test_orders_alone_have_no_visits(train):
    orders = replace(train, auxiliary=None)
    assert has_visits(train)
    assert not has_visits(orders)
    assert len(TASK.examples(orders, orders.interactions, 0)) == 0
    # the simplest candidate, which ships without examples, refuses them, so that the scene is left out
    with pytest.raises(DataError, match="only orders"):
        list(candidates(RecommendSettings(), 0).values())[-1].fit(orders)
