"""Metrics with intervals: percentile bootstrap over users (Efron & Tibshirani 1993), paired for differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from training.report import Metric

N_RESAMPLES = 1000
COUNT_CELLS = 2_000_000  # resampling counts (resamples × users) in memory at a time: 16 MB
EMPTY_METRIC = Metric(float("nan"), float("nan"), float("nan"), 0)
STATISTIC_RESAMPLES = 300  # for statistics that take about a millisecond each
Statistic = Callable[[NDArray[np.int64], NDArray[np.float64]], float]


def bootstrap_means(values: NDArray[np.floating], seed: int = 0, n_resamples: int | None = None) -> NDArray[np.float64]:
    """Column means of bootstrap resamples of users. Every column uses the same resamples.

    Parameters
    ----------
    values : ndarray, shape (n_users, n_columns)
        NaN where a user has no value; such a user is left out of the mean of that column.
    seed : int
    n_resamples : int, optional
        Default `N_RESAMPLES`.

    Returns
    -------
    ndarray of float64, shape (n_resamples, n_columns)
        NaN where no user of a resample has a value. The difference of two columns is a bootstrap sample of the paired
        difference.
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
    """Mean of each column without NaN, with its confidence interval.

    Parameters
    ----------
    values : ndarray, shape (n_users, n_columns)
    bootstrap_values : ndarray of float64, shape (n_resamples, n_columns)
        Result of `bootstrap_means` for `values`.
    """
    made = []
    for column, resampled in zip(values.T, bootstrap_values.T, strict=True):
        known = column[np.isfinite(column)]
        made.append(percentile_interval(float(known.mean()), resampled, len(known)) if len(known) else EMPTY_METRIC)
    return made


def mean_metric(values: NDArray[np.floating], seed: int = 0, n_resamples: int | None = None) -> Metric:
    """Mean of one value per user, with its bootstrap interval.

    Examples
    --------
    >>> mean_metric(np.ones(50)).low
    1.0
    """
    column = np.asarray(values, dtype=np.float64)[:, None]
    return mean_metrics(column, bootstrap_means(column, seed, n_resamples))[0] if len(column) else EMPTY_METRIC


def percentile_interval(estimate: float, bootstrap_values: NDArray[np.float64], n: int) -> Metric:
    """An estimate with the central 95 % of its bootstrap values; NaN values are ignored."""
    low, high = np.nanquantile(bootstrap_values, [0.025, 0.975])
    return Metric(estimate, float(low), float(high), n)


@dataclass(frozen=True)
class Resampled:
    """A statistic of labels and predictions, and its values on bootstrap resamples of the customers.

    The values of two predictions of the same customers by the same seed are of the same resamples, and so are paired.

    Attributes
    ----------
    statistic : callable
        (labels, predictions) → float.
    estimate : float
        Of the customers themselves.
    values : ndarray of float64
        Of each resample with both classes.
    n : int
        Customers.
    """

    statistic: Statistic
    estimate: float
    values: NDArray[np.float64]
    n: int

    @classmethod
    def of(
        cls,
        statistic: Statistic,
        y: NDArray[np.int64],
        p: NDArray[np.float64],
        seed: int = 0,
        n_resamples: int | None = None,
    ) -> Resampled:
        """As `statistic_metric`, whose parameters these are."""
        rng, values = np.random.default_rng(seed), []
        for _ in range(n_resamples or STATISTIC_RESAMPLES):
            rows = rng.integers(0, len(y), len(y))
            if 0 < y[rows].sum() < len(y):
                values.append(_of_repeats(statistic, y[rows], p[rows]))
        return cls(statistic, _of_repeats(statistic, y, p), np.array(values, dtype=np.float64), len(y))

    def metric(self) -> Metric:
        """The statistic with its interval."""
        low, high = _central(self.values)
        if self.statistic is expected_calibration_error and len(self.values):
            bias = float(np.mean(self.values)) - self.estimate
            low, high = max(low - bias, 0.0), high - bias
        return Metric(self.estimate, low, high, self.n)

    def minus(self, other: Resampled) -> Metric:
        """The difference to another one of the same customers and seed, with its paired interval."""
        return Metric(self.estimate - other.estimate, *_central(self.values - other.values), self.n)


def _central(values: NDArray[np.float64]) -> tuple[float, float]:
    """The central 95 % of bootstrap values."""
    low, high = np.quantile(values, [0.025, 0.975]) if len(values) else (np.nan, np.nan)
    return float(low), float(high)


def statistic_metric(
    statistic: Statistic, y: NDArray[np.int64], p: NDArray[np.float64], seed: int = 0, n_resamples: int | None = None
) -> Metric:
    """A statistic of labels and predictions, with its bootstrap interval over customers.

    The calibration error is biased upward under resampling, because it is a sum of absolute deviations. Its interval is
    therefore shifted by the mean bias of the resamples (Efron & Tibshirani 1993, chapter 10).

    Parameters
    ----------
    statistic : callable
        (labels, predictions) → float.
    y : ndarray of int64, shape (n,)
        Labels 0 and 1.
    p : ndarray of float64, shape (n,) or (n, repetitions)
        Predicted probabilities or scores; of a repeated cross-validation, those of each repetition.
    seed : int
    n_resamples : int, optional
        Default `STATISTIC_RESAMPLES`. Resamples with one class only are ignored.
    """
    return Resampled.of(statistic, y, p, seed, n_resamples).metric()


def paired_difference(
    statistic: Statistic,
    y: NDArray[np.int64],
    p: NDArray[np.float64],
    q: NDArray[np.float64],
    seed: int = 0,
    n_resamples: int | None = None,
) -> Metric:
    """statistic(p) − statistic(q) on the same customers, with the interval of paired resamples."""
    p_values, q_values = (Resampled.of(statistic, y, one, seed, n_resamples) for one in (p, q))
    return p_values.minus(q_values)


def _of_repeats(statistic: Statistic, y: NDArray[np.int64], p: NDArray[np.float64]) -> float:
    """The statistic; its mean over the columns of `p`, if these are repetitions of a cross-validation."""
    return float(statistic(y, p)) if p.ndim == 1 else float(np.mean([statistic(y, column) for column in p.T]))


def expected_calibration_error(y: NDArray[np.int64], p: NDArray[np.float64], bins: int = 10) -> float:
    """Expected calibration error: mean |observed share − mean prediction| over bins of equal size (Naeini et al. 2015).

    Examples
    --------
    >>> expected_calibration_error(np.array([0, 1] * 50), np.full(100, 0.5))
    0.0
    """
    order = np.argsort(p, kind="stable")
    groups = np.array_split(order, min(bins, len(p)))
    return float(sum(len(group) * abs(y[group].mean() - p[group].mean()) for group in groups) / len(p))


def _auc(y: NDArray[np.int64], p: NDArray[np.float64]) -> float:
    """Area under the ROC curve by the Mann–Whitney statistic; a tie counts one half."""
    positives = int(y.sum())
    return float(rankdata(p)[y == 1].sum() - positives * (positives + 1) / 2) / (positives * (len(y) - positives))


def _average_precision(y: NDArray[np.int64], p: NDArray[np.float64]) -> float:
    """Mean of the precisions at the thresholds where recall rises; tied scores are one threshold."""
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
    """The metric, or NaN for labels of one class only."""
    return lambda y, p: metric(y, p) if 0 < int(y.sum()) < len(y) else float("nan")


# the values equal those of scikit-learn (tested); its input checks would take nine tenths of the time of a bootstrap
CLASSIFICATION: Mapping[str, Statistic] = {
    "auc": _nan_if_one_class(_auc),
    "average_precision": _nan_if_one_class(_average_precision),
    "brier": _brier,
    "log_loss": _log_loss,
    "ece": expected_calibration_error,
}
