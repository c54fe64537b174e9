"""Metrics with intervals: percentile bootstrap over users (Efron & Tibshirani 1993), paired where two answers are compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from training.report import Metric

N_RESAMPLES = 1000
COUNT_CELLS = 2_000_000  # how often each user was drawn, held at a time: 16 MB
EMPTY_METRIC = Metric(float("nan"), float("nan"), float("nan"), 0)
STATISTIC_RESAMPLES = 300  # of a statistic that costs a millisecond a draw
Statistic = Callable[[NDArray[np.int64], NDArray[np.float64]], float]


def bootstrap_means(values: NDArray[np.floating], seed: int = 0, n_resamples: int | None = None) -> NDArray[np.float64]:
    """The means of n users drawn with replacement, again and again: the same users for every column.

    Parameters
    ----------
    values : ndarray, (n, c)
        One row a user; NaN where a column has no value for a user, who is then left out of that column's mean.

    Returns
    -------
    ndarray of float64, (draws, c)
        NaN where a draw has nobody with a value. Differences of columns are the draws of paired differences.
    """
    rng = np.random.default_rng(seed)
    n, columns = values.shape
    n_resamples = n_resamples or N_RESAMPLES
    known = np.isfinite(values)
    gaps = np.flatnonzero(~known.all(axis=0))
    stacked = np.hstack([np.where(known, values, 0.0), known[:, gaps].astype(np.float64)])
    sums = np.empty((n_resamples, stacked.shape[1]))
    counts = np.empty((max(1, min(n_resamples, COUNT_CELLS // max(n, 1))), n))
    for start in range(0, n_resamples, len(counts)):
        some = counts[: n_resamples - start]
        for row in some:
            row[:] = np.bincount(rng.integers(0, n, n, dtype=np.int32), minlength=n)
        sums[start : start + len(some)] = some @ stacked
    sizes = np.full((n_resamples, columns), float(n))
    sizes[:, gaps] = sums[:, columns:]
    means = np.full((n_resamples, columns), np.nan)
    np.divide(sums[:, :columns], sizes, out=means, where=sizes > 0)
    return means


def mean_metrics(values: NDArray[np.floating], bootstrap_values: NDArray[np.float64]) -> list[Metric]:
    """The mean of each column (n, c), NaN left out, with the interval of its draws (`bootstrap_means`)."""
    made = []
    for column, resampled in zip(values.T, bootstrap_values.T, strict=True):
        known = column[np.isfinite(column)]
        made.append(percentile_interval(float(known.mean()), resampled, len(known)) if len(known) else EMPTY_METRIC)
    return made


def mean_metric(values: NDArray[np.floating], seed: int = 0, n_resamples: int | None = None) -> Metric:
    """The mean of one value a user, with its bootstrap interval.

    Examples
    --------
    >>> mean_metric(np.ones(50)).low
    1.0
    """
    column = np.asarray(values, dtype=np.float64)[:, None]
    return mean_metrics(column, bootstrap_means(column, seed, n_resamples))[0] if len(column) else EMPTY_METRIC


def percentile_interval(estimate: float, bootstrap_values: NDArray[np.float64], n: int) -> Metric:
    """An estimate with the middle 95 % of its draws; NaN draws are left out."""
    low, high = np.nanquantile(bootstrap_values, [0.025, 0.975])
    return Metric(estimate, float(low), float(high), n)


def statistic_metric(
    statistic: Statistic, y: NDArray[np.int64], p: NDArray[np.float64], seed: int = 0, n_resamples: int | None = None
) -> Metric:
    """A statistic of outcomes and predictions, with its bootstrap interval over customers.

    The calibration error is a distance: resampling adds noise to noise, and its draws lie above the estimate. They are moved back by their
    mean bias (Efron & Tibshirani 1993, chapter 10).
    """
    rng = np.random.default_rng(seed)
    estimate, values = float(statistic(y, p)), []
    for _ in range(n_resamples or STATISTIC_RESAMPLES):
        rows = rng.integers(0, len(y), len(y))
        if 0 < y[rows].sum() < len(y):
            values.append(statistic(y[rows], p[rows]))
    low, high = np.quantile(values, [0.025, 0.975]) if values else (float("nan"), float("nan"))
    if statistic is expected_calibration_error and values:
        bias = float(np.mean(values)) - estimate
        low, high = max(low - bias, 0.0), high - bias
    return Metric(estimate, float(low), float(high), len(y))


def paired_difference(
    statistic: Statistic,
    y: NDArray[np.int64],
    p: NDArray[np.float64],
    q: NDArray[np.float64],
    seed: int = 0,
    n_resamples: int | None = None,
) -> Metric:
    """statistic(p) − statistic(q) on the same customers, resampled together."""
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(n_resamples or STATISTIC_RESAMPLES):
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


def _auc(y: NDArray[np.int64], p: NDArray[np.float64]) -> float:
    """Mann & Whitney's: how often an outcome is ranked above a non-outcome, a tie half."""
    positives = int(y.sum())
    return float(rankdata(p)[y == 1].sum() - positives * (positives + 1) / 2) / (positives * (len(y) - positives))


def _average_precision(y: NDArray[np.int64], p: NDArray[np.float64]) -> float:
    """Precision wherever recall rises, a tie being one step."""
    order = np.argsort(-p, kind="stable")
    ranked = p[order]
    last = np.append(ranked[1:] != ranked[:-1], True)
    hits = np.cumsum(y[order])[last]
    return float((np.diff(hits, prepend=0) * hits / (np.flatnonzero(last) + 1)).sum() / hits[-1])


def _brier(y: NDArray[np.int64], p: NDArray[np.float64]) -> float:
    return float(np.mean((p - y) ** 2))


def _log_loss(y: NDArray[np.int64], p: NDArray[np.float64]) -> float:
    kept = np.clip(p, 1e-6, 1 - 1e-6)
    return float(-np.mean(np.log(np.where(y == 1, kept, 1 - kept))))


def _nan_if_one_class(metric: Statistic) -> Statistic:
    """A ranking metric; NaN where only one outcome occurs, which ranks nothing."""
    return lambda y, p: metric(y, p) if 0 < int(y.sum()) < len(y) else float("nan")


# scikit-learn's values (tested), without what it checks at each call: in a bootstrap that is nine tenths of its time
CLASSIFICATION: Mapping[str, Statistic] = {
    "auc": _nan_if_one_class(_auc),
    "average_precision": _nan_if_one_class(_average_precision),
    "brier": _brier,
    "log_loss": _log_loss,
    "ece": expected_calibration_error,
}
