"""Metrics compared with scikit-learn and with values computed by hand; coverage of the intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score

from training.bootstrap import (
    CLASSIFICATION,
    bootstrap_means,
    expected_calibration_error,
    mean_metric,
    mean_metrics,
    paired_difference,
    statistic_metric,
)


def test_classification_metrics_by_hand():
    y, p = np.array([0, 1, 0, 1]), np.array([0.1, 0.4, 0.4, 0.9])
    assert CLASSIFICATION["auc"](y, p) == pytest.approx(3.5 / 4), "a tie counts half"
    assert CLASSIFICATION["average_precision"](y, p) == pytest.approx(0.5 * 1.0 + 0.5 * 2 / 3), "a tie is one step"
    assert CLASSIFICATION["brier"](y, p) == pytest.approx((0.01 + 0.36 + 0.16 + 0.01) / 4)
    assert CLASSIFICATION["log_loss"](y, np.array([0.0, 1.0, 0.0, 1.0])) == pytest.approx(0.0, abs=2e-6), (
        "the log loss of a certain and right prediction is finite"
    )
    assert CLASSIFICATION["log_loss"](y, np.array([0.0, 0.0, 0.0, 1.0])) == pytest.approx(
        -np.log(1e-6) / 4, rel=1e-4
    ), "the log loss of a certain and wrong prediction is finite"


@pytest.mark.parametrize("name", ["auc", "average_precision"])
def test_auc_accepts_scores_that_are_not_probabilities(name):
    rng = np.random.default_rng(0)
    y, scores = rng.integers(0, 2, 300), -np.round(rng.exponential(100, 300))
    assert CLASSIFICATION[name](y, scores) == pytest.approx(CLASSIFICATION[name](y, np.exp(scores / 500)), abs=1e-12)
    assert CLASSIFICATION[name](y, scores + 1000 * y) == 1.0


def test_auc_is_nan_with_a_single_class():
    y = np.zeros(5, dtype=int)
    assert math.isnan(CLASSIFICATION["auc"](y, np.arange(5.0)))
    assert math.isnan(CLASSIFICATION["auc"](1 - y, np.arange(5.0)))
    assert math.isnan(CLASSIFICATION["average_precision"](y, np.arange(5.0)))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 20)), min_size=2, max_size=60).filter(
        lambda rows: len({y for y, _ in rows}) == 2
    )
)
def test_classification_metrics_equal_scikit_learn(rows):
    y, p = np.array([y for y, _ in rows]), np.array([p for _, p in rows]) / 20
    expected = {
        "auc": roc_auc_score(y, p),
        "average_precision": average_precision_score(y, p),
        "brier": brier_score_loss(y, p, pos_label=1),
        "log_loss": log_loss(y, np.clip(p, 1e-6, 1 - 1e-6), labels=[0, 1]),
    }
    for name, value in expected.items():
        assert CLASSIFICATION[name](y, p) == pytest.approx(value, rel=1e-12), name


def test_calibration_error_by_hand():
    p = np.repeat([0.2, 0.8], 50)
    y = np.concatenate([np.arange(50) < 20, np.arange(50) < 40]).astype(int)  # observed shares are .4 and .8
    assert expected_calibration_error(y, p, bins=2) == pytest.approx(0.5 * 0.2 + 0.5 * 0.0)
    assert expected_calibration_error(np.array([1, 0]), np.array([1.0, 0.0])) == 0.0


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


def test_columns_share_resamples_and_missing_values_are_skipped():
    rng = np.random.default_rng(4)
    values = np.column_stack([rng.random(300), rng.exponential(size=300)])
    values[:40, 1] = np.nan
    bootstrap_values = bootstrap_means(values, seed=5, n_resamples=200)
    again = np.random.default_rng(5)
    rows = again.integers(0, 300, 300)
    np.testing.assert_allclose(bootstrap_values[0], [values[rows, 0].mean(), np.nanmean(values[rows, 1])])
    first, second = mean_metrics(values, bootstrap_means(values, seed=5))
    alone = mean_metric(values[:, 0], seed=5)
    assert (first.value, first.low, first.high) == pytest.approx((alone.value, alone.low, alone.high), rel=1e-12)
    assert (second.n, second.value) == (260, pytest.approx(np.nanmean(values[:, 1])))
    assert second.low < second.value < second.high
    nobody = mean_metric(np.full(5, np.nan))
    assert nobody.n == 0
    assert math.isnan(nobody.value)


def test_the_block_size_does_not_change_the_resamples(monkeypatch):
    values = np.random.default_rng(6).random((50, 2))
    whole = bootstrap_means(values, n_resamples=37)
    monkeypatch.setattr("training.bootstrap.COUNT_CELLS", 500)
    np.testing.assert_allclose(bootstrap_means(values, n_resamples=37), whole, rtol=1e-12)


def test_intervals_of_a_mean_cover():
    rng = np.random.default_rng(1)
    covered = [
        found.low <= 0.3 <= found.high
        for found in (mean_metric((rng.random(80) < 0.3).astype(float), n_resamples=200) for _ in range(200))
    ]
    assert 0.89 <= np.mean(covered) <= 0.99


def test_intervals_of_a_statistic_cover():
    rng = np.random.default_rng(2)
    covered = []
    for _ in range(100):
        y = rng.integers(0, 2, 150)
        metric = statistic_metric(
            lambda y, p: float(p[y == 1].mean() - p[y == 0].mean()), y, rng.normal(size=150) + y, n_resamples=200
        )
        assert metric.low <= metric.value <= metric.high
        covered.append(metric.low <= 1.0 <= metric.high)
    assert 0.88 <= np.mean(covered) <= 1.0


def test_a_paired_difference_is_narrower_than_two_intervals():
    rng = np.random.default_rng(3)
    y = rng.integers(0, 2, 300)
    p = rng.normal(size=300) + y
    q = p + 0.05 * rng.normal(size=300)
    auc = CLASSIFICATION["auc"]
    difference = paired_difference(auc, y, p, q, n_resamples=100)
    alone = statistic_metric(auc, y, p, n_resamples=100)
    assert difference.value == pytest.approx(auc(y, p) - auc(y, q))
    assert difference.high - difference.low < 0.3 * (alone.high - alone.low)
    same = paired_difference(auc, y, p, p, n_resamples=20)
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)
    worse = paired_difference(auc, y, rng.normal(size=300), p, n_resamples=100)
    assert worse.high < 0


def test_a_single_class_has_no_interval():
    metric = statistic_metric(CLASSIFICATION["auc"], np.zeros(20, dtype=int), np.arange(20.0))
    assert math.isnan(metric.low)
    assert math.isnan(metric.high)
