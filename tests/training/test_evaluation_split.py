"""`EvaluationSplit`: a subset keeps its examples unchanged, and lists contain candidates only."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from features.interactions import TrainingSet
from models.recommend.popular import PopularRecommender
from models.recommend.repeat import RepeatPurchaseRecommender
from training.evaluation import split as module
from training.evaluation.split import EvaluationSplit


@pytest.fixture
def data() -> TrainingSet:
    rng = np.random.default_rng(0)
    return TrainingSet.from_arrays(rng.integers(0, 7, 60), rng.integers(0, 9, 60), n_users=7, n_items=9)


def matrix(rows: list[list[int]], n_items: int = 9) -> sparse.csr_matrix:
    return sparse.csr_matrix(np.array([np.isin(np.arange(n_items), row) for row in rows], dtype=np.float32))


def test_lists_of_a_subset_equal_the_rows_of_all_lists(data):
    split = EvaluationSplit(
        data,
        np.arange(7),
        matrix([[user] for user in range(7)]),
        exclude=[np.array([user % 9]) for user in range(7)],
        recent_interactions=data.interactions.where(data.interactions.users % 2 == 0),
        source_items=np.arange(9),
    )
    model = RepeatPurchaseRecommender().fit(data)
    rows = np.array([5, 2])
    some = split.take(rows)
    assert len(some) == 2
    assert some.recent_interactions.shape == (2, 9)
    np.testing.assert_array_equal(some.recommend_with(model, 4).ids, split.recommend_with(model, 4).ids[rows])
    np.testing.assert_array_equal(some.history().toarray(), split.history().toarray()[rows])
    np.testing.assert_array_equal(some.truth.toarray(), split.truth.toarray()[rows])
    np.testing.assert_array_equal(some.source_items, split.source_items)


@pytest.mark.parametrize(("name", "value"), [("BATCH_SIZE", 2), ("BATCH_CELLS", 18)])
def test_an_example_is_ranked_over_its_candidates_that_are_not_excluded(data, monkeypatch, name, value):
    monkeypatch.setattr(module, name, value)  # three examples of nine items make two batches
    split = EvaluationSplit(
        data,
        np.arange(3),
        matrix([[0], [1], [2]]),
        exclude=[np.array([4]), np.array([], dtype=np.int64), np.array([0])],
        candidates=matrix([[0, 4, 8], [1, 2], [2]]),
    )
    lists = split.recommend_with(PopularRecommender().fit(data), 5)
    found = [set(ids[:valid].tolist()) for ids, valid in zip(lists.ids, lists.valid, strict=True)]
    assert found == [{0, 8}, {1, 2}, {2}]
    allowed = np.arange(9) != 8
    lists = replace(split, allowed=allowed).recommend_with(PopularRecommender().fit(data), 5)
    found = [set(ids[:valid].tolist()) for ids, valid in zip(lists.ids, lists.valid, strict=True)]
    assert found == [{0}, {1, 2}, {2}]
