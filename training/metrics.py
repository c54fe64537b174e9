"""Metrics with intervals: percentile bootstrap over users (Efron & Tibshirani 1993), paired where two answers are compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score

from training.report import Metric

DRAWS = 1000
STATISTIC_DRAWS = 300  # of a statistic that costs a millisecond a draw
Statistic = Callable[[NDArray[np.int64], NDArray[np.float64]], float]


def mean_metric(values: NDArray[np.floating], seed: int = 0, draws: int = DRAWS) -> Metric:
    """The mean of one value a user, with its bootstrap interval.

    Examples
    --------
    >>> mean_metric(np.ones(50)).low
    1.0
    """
    n = len(values)
    if n == 0:
        return Metric(float("nan"), float("nan"), float("nan"), 0)
    rng = np.random.default_rng(seed)
    means = np.array([values[rng.integers(0, n, n)].mean() for _ in range(draws)])
    low, high = np.quantile(means, [0.025, 0.975])
    return Metric(float(values.mean()), float(low), float(high), n)


def statistic_metric(statistic: Statistic, y: NDArray[np.int64], p: NDArray[np.float64], seed: int = 0, draws: int | None = None) -> Metric:
    """A statistic of outcomes and predictions, with its bootstrap interval over customers.

    The calibration error is a distance: resampling adds noise to noise, and its draws lie above the estimate. They are moved back by their
    mean bias (Efron & Tibshirani 1993, chapter 10).
    """
    rng = np.random.default_rng(seed)
    estimate, values = float(statistic(y, p)), []
    for _ in range(draws or STATISTIC_DRAWS):
        rows = rng.integers(0, len(y), len(y))
        if 0 < y[rows].sum() < len(y):
            values.append(statistic(y[rows], p[rows]))
    low, high = np.quantile(values, [0.025, 0.975]) if values else (float("nan"), float("nan"))
    if statistic is expected_calibration_error and values:
        bias = float(np.mean(values)) - estimate
        low, high = max(low - bias, 0.0), high - bias
    return Metric(estimate, float(low), float(high), len(y))


def paired_difference(
    statistic: Statistic, y: NDArray[np.int64], p: NDArray[np.float64], q: NDArray[np.float64], seed: int = 0, draws: int | None = None
) -> Metric:
    """statistic(p) − statistic(q) on the same customers, resampled together."""
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(draws or STATISTIC_DRAWS):
        rows = rng.integers(0, len(y), len(y))
        if 0 < y[rows].sum() < len(y):
            values.append(statistic(y[rows], p[rows]) - statistic(y[rows], q[rows]))
    low, high = np.quantile(values, [0.025, 0.975]) if values else (float("nan"), float("nan"))
    return Metric(float(statistic(y, p) - statistic(y, q)), float(low), float(high), len(y))


def expected_calibration_error(y: NDArray[np.int64], p: NDArray[np.float64], bins: int = 10) -> float:
    """ECE with equally filled bins: mean |share of outcomes − mean prediction| (Naeini et al. 2015).

    Examples
    --------
    >>> expected_calibration_error(np.array([0, 1] * 50), np.full(100, 0.5))
    0.0
    """
    order = np.argsort(p, kind="stable")
    groups = np.array_split(order, min(bins, len(p)))
    return float(sum(len(group) * abs(y[group].mean() - p[group].mean()) for group in groups) / len(p))


def _of_both_outcomes(metric: Callable[[NDArray[np.int64], NDArray[np.float64]], float]) -> Statistic:
    """A ranking metric of scikit-learn's; NaN where only one outcome occurs, which ranks nothing."""
    return lambda y, p: float(metric(y, p)) if 0 < int(y.sum()) < len(y) else float("nan")


CLASSIFICATION: Mapping[str, Statistic] = {
    "auc": _of_both_outcomes(roc_auc_score),
    "average_precision": _of_both_outcomes(average_precision_score),
    "brier": lambda y, p: float(brier_score_loss(y, p, pos_label=1)),
    "log_loss": lambda y, p: float(log_loss(y, np.clip(p, 1e-6, 1 - 1e-6), labels=[0, 1])),
    "ece": expected_calibration_error,
}


def ranking_metrics(ids: NDArray[np.int32], truth: sparse.csr_matrix, k: int) -> dict[str, NDArray[np.float64]]:
    """Recall, NDCG and hit rate at k of each user.

    Parameters
    ----------
    ids : ndarray of int32, (n, ≥ k)
        Ranked item indices, −1 for none.
    truth : csr_matrix, (n, n_items)
        Non-zero where the user took the item; every row has at least one.

    Returns
    -------
    dict of str to ndarray, each (n,)
        Recall divides by min(k, taken); NDCG (Järvelin & Kekäläinen 2002, binary gains) by the ideal of that length.

    Examples
    --------
    >>> got = ranking_metrics(np.array([[2, 0]], dtype=np.int32), sparse.csr_matrix([[1, 0, 0]]), 2)
    >>> float(got["recall"][0]), round(float(got["ndcg"][0]), 4)
    (1.0, 0.6309)
    """
    top = ids[:, :k].astype(np.int64)
    n, n_items = truth.shape
    taken = np.diff(truth.indptr)
    owners = np.repeat(np.arange(n, dtype=np.int64), taken)
    wanted = owners * n_items + truth.indices
    keys = np.arange(n, dtype=np.int64)[:, None] * n_items + top
    hits = np.isin(keys, wanted) & (top >= 0)
    discounts = 1.0 / np.log2(np.arange(2, k + 2))
    ideal = np.concatenate([[0.0], np.cumsum(discounts)])[np.minimum(taken, k)]
    return {
        "recall": hits.sum(axis=1) / np.minimum(taken, k),
        "ndcg": (hits * discounts[: top.shape[1]]).sum(axis=1) / ideal,
        "hit_rate": hits.any(axis=1).astype(np.float64),
    }
