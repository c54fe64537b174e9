"""Ranking metrics compared with trec_eval (ir-measures), scikit-learn and RecTools, or with values by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.metrics import ndcg_score

from qianmian.errors import UsageError
from training.evaluation import metrics
from training.evaluation.metrics import PUBLISHED, STANDARD, ranking_metrics, repeat_and_explore

RECTOOLS = json.loads((Path(__file__).parent / "test_evaluation_rectools.json").read_text())
EVERY = STANDARD + PUBLISHED


def random_lists(seed, n=6, n_items=20, width=12, padded=0):
    """Random lists without duplicates, the last `padded` slots empty, and at least one relevant item per user."""
    rng = np.random.default_rng(seed)
    ids = np.array([rng.permutation(n_items)[:width] for _ in range(n)], dtype=np.int32)
    if padded:
        ids[:, max(1, width - padded) :] = -1
    relevant = rng.random((n, n_items)) < rng.uniform(0.05, 0.6)
    relevant[np.arange(n), rng.integers(0, n_items, n)] = True
    return ids, relevant


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(1, 25), st.integers(0, 12))
def test_metrics_equal_trec_eval(seed, k, padded):
    ids, relevant = random_lists(seed, padded=padded)
    truth = sparse.csr_matrix(relevant.astype(np.float32))
    got = ranking_metrics(ids, truth, k, EVERY)
    run = {
        str(user): {str(item): float(-place) for place, item in enumerate(row) if item >= 0}
        for user, row in enumerate(ids)
    }
    judged = {str(user): {str(item): 1 for item in np.flatnonzero(row)} for user, row in enumerate(relevant)}
    names = {
        "recall_of_taken": ir_measures.R @ k,
        "precision": ir_measures.P @ k,
        "ndcg": ir_measures.nDCG @ k,
        "map_of_taken": ir_measures.AP @ k,
        "mrr": ir_measures.RR @ k,
        "hit_rate": ir_measures.Success @ k,
    }
    theirs = {
        (str(found.measure), int(found.query_id)): found.value
        for found in ir_measures.iter_calc(names.values(), judged, run)
    }
    for name, measure in names.items():
        assert got[name] == pytest.approx([theirs[str(measure), user] for user in range(len(ids))]), name
    # the project's own metrics divide by the number of relevant items that fit into k slots
    share = relevant.sum(axis=1) / np.minimum(relevant.sum(axis=1), k)
    assert got["recall"] == pytest.approx(got["recall_of_taken"] * share)
    assert got["map"] == pytest.approx(got["map_of_taken"] * share)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(1, 20))
def test_ndcg_equals_scikit_learn(seed, k):
    ids, relevant = random_lists(seed, width=20)
    scores = np.empty(relevant.shape)
    np.put_along_axis(scores, ids.astype(np.int64), -np.arange(20.0)[None, :].repeat(len(ids), axis=0), axis=1)
    got = ranking_metrics(ids, sparse.csr_matrix(relevant.astype(np.float32)), k)["ndcg"]
    assert got.mean() == pytest.approx(ndcg_score(relevant.astype(float), scores, k=k))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 25), st.integers(0, 12))
def test_the_ideal_dcg_of_a_basket_has_the_length_of_the_basket(seed, k, padded):
    """The formula of the published code of Li et al. (2023), which no library implements."""
    ids, relevant = random_lists(seed, padded=padded)
    got = ranking_metrics(ids, sparse.csr_matrix(relevant.astype(np.float32)), k, ["ndcg_of_taken"])["ndcg_of_taken"]
    for user, row in enumerate(ids):
        gain = sum(1 / math.log2(place + 2) for place, item in enumerate(row[:k]) if item >= 0 and relevant[user, item])
        assert got[user] == pytest.approx(gain / sum(1 / math.log2(place + 2) for place in range(relevant[user].sum())))


@pytest.mark.parametrize("case", range(len(RECTOOLS["cases"])))
def test_metrics_equal_rectools(case):
    """RecTools cannot be installed with pandas 3, so its values on random input are stored."""
    case = RECTOOLS["cases"][case]
    ids, k = np.array(case["ids"]), case["k"]
    truth, before = (np.array(case[name]) for name in ("truth", "before"))
    n, n_items = case["n"], case["n_items"]
    relevant = sparse.csr_matrix((np.ones(len(truth)), truth.T), shape=(n, n_items))
    history = sparse.csr_matrix((np.ones(len(before)), before.T), shape=(n, n_items))
    customers, interested = np.asarray((history > 0).sum(axis=0)).ravel(), int((history.sum(axis=1) > 0).sum())
    codes = metrics.attribute_codes({name: np.array(values) for name, values in case["attributes"].items()})
    got = ranking_metrics(ids, relevant, k, EVERY)
    got |= {
        "inverse_user_frequency": metrics.inverse_user_frequency(ids, k, customers, interested),
        "popularity": metrics.popularity(ids, k, customers, n) * n,
        "diversity": metrics.diversity(ids, k, codes) * codes.shape[1],
    }
    for name, theirs in case["rectools"].items():
        if name == "coverage":
            assert metrics.coverage(ids, k, n_items) == pytest.approx(theirs)
        else:
            assert np.nan_to_num(got[name]) == pytest.approx(np.array(theirs), abs=1e-9), name


def test_padding_is_not_the_last_item():
    """An id of −1 must not be read as the last item of the previous user's row."""
    ids = np.array([[0, -1], [-1, -1]], dtype=np.int32)
    truth = sparse.csr_matrix([[0, 1.0], [0, 1.0]])
    assert {name: values.tolist() for name, values in ranking_metrics(ids, truth, 2, EVERY).items()} == {
        name: [0.0, 0.0] for name in EVERY
    }


def test_a_user_without_relevant_items_has_no_value():
    got = ranking_metrics(np.array([[0], [0]]), sparse.csr_matrix([[1.0, 0], [0, 0]]), 3, EVERY)
    assert all(math.isnan(values[1]) and not math.isnan(values[0]) for values in got.values())
    assert ranking_metrics(np.empty((0, 3), np.int32), sparse.csr_matrix((0, 4)), 3, EVERY)["recall"].shape == (0,)
    assert ranking_metrics(np.empty((2, 0), np.int32), sparse.csr_matrix([[1.0], [1.0]]), 3, EVERY)["mrr"].tolist() == [
        0.0,
        0.0,
    ]


def test_duplicates_in_the_truth_count_once_and_stored_zeros_not_at_all():
    untidy = sparse.csr_matrix((np.array([1.0, 1.0, 0.0]), np.array([2, 2, 0]), np.array([0, 3])), shape=(1, 3))
    assert ranking_metrics(np.array([[2, 1]]), untidy, 2)["recall"].tolist() == [1.0]
    assert untidy.nnz == 3, "the argument is not changed"


def test_invalid_arguments_are_rejected():
    ids, truth = np.array([[0]]), sparse.csr_matrix([[1.0]])
    for lists, k, names in ((ids, 1, ["recal"]), (ids, 0, ["recall"]), (np.array([[0], [0]]), 1, ["recall"])):
        with pytest.raises(UsageError):
            ranking_metrics(lists, truth, k, names)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 15), st.integers(0, 12))
def test_repeat_and_explore_by_hand(seed, k, padded):
    ids, relevant = random_lists(seed, padded=padded)
    interacted = random_lists(seed + 1)[1]
    got = repeat_and_explore(ids, *(sparse.csr_matrix(part.astype(np.float32)) for part in (relevant, interacted)), k)
    for user, row in enumerate(ids):
        listed = [item for item in row[:k].tolist() if item >= 0]
        for name, part in (
            ("repeat_recall", relevant[user] & interacted[user]),
            ("explore_recall", relevant[user] & ~interacted[user]),
        ):
            wanted = int(part.sum())
            right = sum(part[item] for item in listed)
            assert got[name][user] == (
                pytest.approx(right / min(k, wanted)) if wanted else pytest.approx(np.nan, nan_ok=True)
            )
        assert got["repeat_share"][user] == pytest.approx(np.mean([interacted[user, item] for item in listed]))
        assert got["repeat_share_taken"][user] == pytest.approx(
            (relevant[user] & interacted[user]).sum() / relevant[user].sum()
        )


def test_novelty_and_popularity_by_hand():
    ids = np.array([[0, 1], [2, -1], [-1, -1]])
    customers = np.array([4, 1, 0])
    assert metrics.inverse_user_frequency(ids, 2, customers, 4)[:2].tolist() == [1.0, 2.0], (
        "an item without customers counts as one with one customer"
    )
    assert metrics.popularity(ids, 2, customers, 4)[:2].tolist() == [0.625, 0.0]
    relevant = metrics.popularity_of_relevant(sparse.csr_matrix([[1, 1, 0], [0, 0, 1], [0, 0, 0]]), customers, 4)
    assert relevant[:2].tolist() == [0.625, 0.0]
    assert math.isnan(relevant[2])
    assert math.isnan(metrics.popularity(ids, 2, customers, 4)[2]), "an empty list has no popularity"
    assert metrics.coverage(ids, 2, 6) == 0.5
    assert metrics.coverage(ids, 1, 6) == pytest.approx(2 / 6)


def test_diversity_ignores_unknown_categories(monkeypatch):
    brands = metrics.attribute_codes({"brand": np.array(["a", "a", "b", ""])})
    ids = np.array([[0, 1, 2], [0, 2, 3], [3, 0, -1], [0, -1, -1]])
    assert metrics.diversity(ids, 3, brands)[:2].tolist() == pytest.approx([2 / 3, 1.0])
    assert np.isnan(metrics.diversity(ids, 3, brands)[2:]).all()
    whole = metrics.diversity(ids, 3, brands)
    monkeypatch.setattr("training.evaluation.metrics.PAIR_CELLS", 3)
    np.testing.assert_array_equal(metrics.diversity(ids, 3, brands), whole)
    assert np.isnan(metrics.diversity(ids, 1, brands)).all(), "one item has no pairs"


def test_categories_with_a_longer_common_path_are_more_similar():
    codes = metrics.level_codes(np.array(["food/fruit/apple", "food/fruit/pear", "food/bread/rye", "toys/cars/red"]))
    distances = [metrics.diversity(np.array([[0, other]]), 2, codes)[0] for other in (1, 2, 3)]
    assert distances == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert (
        metrics.level_codes(np.array(["food", "food/bread"])).tolist()[0][0]
        == metrics.level_codes(np.array(["food", "food/bread"]))[1, 0]
    )
    assert metrics.level_codes(np.array([], dtype=np.str_)).shape[0] == 0
