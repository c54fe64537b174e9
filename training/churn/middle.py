"""The customers for whom a prediction is hard: active in some of the last weeks, and neither every week nor once."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from training.bootstrap import CLASSIFICATION, N_RESAMPLES, paired_difference, statistic_metric
from training.report import Metric, Metrics

WEEKS = 13
FEWEST, MOST = 2, 6  # of the weeks, with at least one order
MIDDLE = f"active in {FEWEST}–{MOST} of the last {WEEKS} weeks"
ENOUGH = 10  # customers of each outcome, for an AUC
Floats = NDArray[np.float64]


def in_middle(active_weeks: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of n customers are in the slice, by the number of the last 13 weeks with an order."""
    return (active_weeks >= FEWEST) & (active_weeks <= MOST)


def middle_slice(y: NDArray[np.int64], p: Floats, baselines: Mapping[str, Floats]) -> dict[str, Metrics]:
    """AUC of the model and the baselines in the slice, and the paired differences; empty for too few customers.

    Parameters
    ----------
    y : ndarray of int64, shape (n,)
        Outcomes of the customers of the slice.
    p : ndarray of float64, shape (n,)
    baselines : mapping of str to ndarray, each of shape (n,)
    """
    if min(int(y.sum()), int((1 - y).sum())) < ENOUGH:
        return {}
    auc = CLASSIFICATION["auc"]
    found = {"auc": statistic_metric(auc, y, p)}
    for name, q in baselines.items():
        found[f"auc {name}"] = statistic_metric(auc, y, q)
        found[f"auc minus {name}"] = paired_difference(auc, y, p, q, n_resamples=N_RESAMPLES)
    return {MIDDLE: found}


def mean_auc_difference(
    y: NDArray[np.int64],
    p: Floats,
    q: Floats,
    days: Floats,
    owners: NDArray[np.str_],
    seed: int,
    n_resamples: int = 300,
) -> Metric:
    """Difference of the AUC of two models, mean of several dates, with an interval over customers.

    A customer with rows at several dates is one draw.

    Parameters
    ----------
    y, p, q : ndarray, shape (n,)
        Outcomes, and the predictions of the two models.
    days : ndarray of float64, shape (n,)
        Date of each row.
    owners : ndarray of str, shape (n,)
        Customer of each row.
    """
    auc = CLASSIFICATION["auc"]
    customers, place = np.unique(owners, return_inverse=True)
    parts = [np.flatnonzero(days == day) for day in np.unique(days)]

    def difference(counts: NDArray[np.int64]) -> float:
        found = []
        for part in parts:
            rows = np.repeat(part, counts[place[part]])
            found.append(auc(y[rows], p[rows]) - auc(y[rows], q[rows]) if len(rows) else np.nan)
        return float(np.mean(found))

    rng, n = np.random.default_rng(seed), len(customers)
    bootstrap_values = [difference(np.bincount(rng.integers(0, n, n), minlength=n)) for _ in range(n_resamples)]
    low, high = np.nanquantile(bootstrap_values, [0.025, 0.975])
    return Metric(difference(np.ones(n, dtype=np.int64)), float(low), float(high), n)
