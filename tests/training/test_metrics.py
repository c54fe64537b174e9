"""Metrics against scikit-learn and by hand; intervals that cover."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.metrics import ndcg_score

from training.metrics import (
    CLASSIFICATION,
    expected_calibration_error,
    mean_metric,
    paired_difference,
    ranking_metrics,
    statistic_metric,
)


def test_classification_metrics_by_hand():
    y, p = np.array([0, 1, 0, 1]), np.array([0.1, 0.4, 0.4, 0.9])
    assert CLASSIFICATION["auc"](y, p) == pytest.approx(3.5 / 4), "a tie counts half"
    assert CLASSIFICATION["average_precision"](y, p) == pytest.approx(0.5 * 1.0 + 0.5 * 2 / 3), "a tie is one step"
    assert CLASSIFICATION["brier"](y, p) == pytest.approx((0.01 + 0.36 + 0.16 + 0.01) / 4)
    assert CLASSIFICATION["log_loss"](y, np.array([0.0, 1.0, 0.0, 1.0])) == pytest.approx(0.0, abs=2e-6), (
        "certain and right is not infinite"
    )
    assert CLASSIFICATION["log_loss"](y, np.array([0.0, 0.0, 0.0, 1.0])) == pytest.approx(-np.log(1e-6) / 4, rel=1e-4), (
        "nor certain and wrong"
    )


@pytest.mark.parametrize("name", ["auc", "average_precision"])
def test_rankings_need_not_be_probabilities(name):
    rng = np.random.default_rng(0)
    y, scores = rng.integers(0, 2, 300), -np.round(rng.exponential(100, 300))
    assert CLASSIFICATION[name](y, scores) == pytest.approx(CLASSIFICATION[name](y, np.exp(scores / 500)), abs=1e-12)
    assert CLASSIFICATION[name](y, scores + 1000 * y) == 1.0


def test_one_outcome_has_no_area():
    y = np.zeros(5, dtype=int)
    assert math.isnan(CLASSIFICATION["auc"](y, np.arange(5.0)))
    assert math.isnan(CLASSIFICATION["auc"](1 - y, np.arange(5.0)))
    assert math.isnan(CLASSIFICATION["average_precision"](y, np.arange(5.0)))


def test_calibration_error_by_hand():
    p = np.repeat([0.2, 0.8], 50)
    y = np.concatenate([np.arange(50) < 20, np.arange(50) < 40]).astype(int)  # .4 and .8 observed
    assert expected_calibration_error(y, p, bins=2) == pytest.approx(0.5 * 0.2 + 0.5 * 0.0)
    assert expected_calibration_error(np.array([1, 0]), np.array([1.0, 0.0])) == 0.0


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 12), st.integers(1, 15), st.integers(0, 10_000), st.integers(0, 5))
def test_ranking_metrics_are_those_of_the_book(n_items, k, seed, padded):
    rng = np.random.default_rng(seed)
    n = 4
    ids = np.array([rng.permutation(n_items) for _ in range(n)], dtype=np.int32)
    ids[:, max(1, n_items - padded) :] = -1
    taken = rng.random((n, n_items)) < 0.4
    taken[np.arange(n), rng.integers(0, n_items, n)] = True
    got = ranking_metrics(ids, sparse.csr_matrix(taken.astype(np.float32)), k)
    for user in range(n):
        listed = [item for item in ids[user, :k].tolist() if item >= 0]
        hits = [item for item in listed if taken[user, item]]
        assert got["recall"][user] == pytest.approx(len(hits) / min(k, taken[user].sum()))
        assert got["hit_rate"][user] == float(bool(hits))
        gains = sum(1 / math.log2(place + 2) for place, item in enumerate(listed) if taken[user, item])
        ideal = sum(1 / math.log2(place + 2) for place in range(min(k, int(taken[user].sum()))))
        assert got["ndcg"][user] == pytest.approx(gains / ideal)
        if not padded:
            scores = np.empty(n_items)
            scores[ids[user]] = -np.arange(n_items)
            assert got["ndcg"][user] == pytest.approx(ndcg_score([taken[user].astype(float)], [scores], k=k))


def test_padding_is_not_the_last_item():
    """An id of −1 must not be read as the item before the first of the next user."""
    ids = np.array([[0, -1], [-1, -1]], dtype=np.int32)
    truth = sparse.csr_matrix([[0, 1.0], [0, 1.0]])
    assert ranking_metrics(ids, truth, 2)["recall"].tolist() == [0.0, 0.0]


def test_the_mean_and_its_interval():
    values = np.random.default_rng(0).exponential(2.0, 400)
    metric = mean_metric(values)
    assert metric.value == pytest.approx(values.mean())
    assert metric.n == 400
    half = 1.96 * values.std() / math.sqrt(400)
    assert metric.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert metric.high == pytest.approx(values.mean() + half, abs=0.1 * half)
    assert mean_metric(values) == metric  # seeded
    nothing = mean_metric(np.array([]))
    assert nothing.n == 0
    assert math.isnan(nothing.value)
    assert math.isnan(nothing.low)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(1)
    covered = [
        found.low <= 0.3 <= found.high for found in (mean_metric((rng.random(80) < 0.3).astype(float), draws=200) for _ in range(200))
    ]
    assert 0.89 <= np.mean(covered) <= 0.99


def test_intervals_of_a_statistic_cover():
    rng = np.random.default_rng(2)
    covered = []
    for _ in range(100):
        y = rng.integers(0, 2, 150)
        metric = statistic_metric(lambda y, p: float(p[y == 1].mean() - p[y == 0].mean()), y, rng.normal(size=150) + y, draws=200)
        assert metric.low <= metric.value <= metric.high
        covered.append(metric.low <= 1.0 <= metric.high)
    assert 0.88 <= np.mean(covered) <= 1.0


def test_a_paired_difference_is_narrower_than_two_intervals():
    rng = np.random.default_rng(3)
    y = rng.integers(0, 2, 300)
    p = rng.normal(size=300) + y
    q = p + 0.05 * rng.normal(size=300)
    auc = CLASSIFICATION["auc"]
    difference = paired_difference(auc, y, p, q, draws=100)
    alone = statistic_metric(auc, y, p, draws=100)
    assert difference.value == pytest.approx(auc(y, p) - auc(y, q))
    assert difference.high - difference.low < 0.3 * (alone.high - alone.low)
    same = paired_difference(auc, y, p, p, draws=20)
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)
    worse = paired_difference(auc, y, rng.normal(size=300), p, draws=100)
    assert worse.high < 0


def test_one_outcome_gives_no_interval():
    metric = statistic_metric(CLASSIFICATION["auc"], np.zeros(20, dtype=int), np.arange(20.0))
    assert math.isnan(metric.low)
    assert math.isnan(metric.high)
