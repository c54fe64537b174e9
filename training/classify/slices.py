"""Metrics of parts of the customers: what was predicted, what was observed, and how well they are told apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from features.profiles.analytics.rates import rate
from training.bootstrap import CLASSIFICATION, Statistic, mean_metric, statistic_metric
from training.churn.gains import lift_at
from training.report import Metric, Metrics

Floats = NDArray[np.float64]
SLICE_METRICS: Mapping[str, Statistic] = {
    **{name: CLASSIFICATION[name] for name in ("auc", "average_precision", "brier", "ece")},
    "lift@10%": lift_at(0.10),
}
SLICE_RESAMPLES = 100  # there are many slices
LEAST_OUTCOMES = 10  # of each outcome in a slice whose metrics say something
ORDERS = ((0, 0, "no order"), (1, 1, "1 order"), (2, 4, "2 to 4 orders"), (5, 9, "5 to 9 orders"))
MORE_ORDERS = "10 or more orders"


def predicted_and_observed(y: NDArray[np.int64], p: Floats) -> dict[str, Metric]:
    """Mean prediction and rate of yes of a group of customers, each with its 95 % interval."""
    yes = rate(int(y.sum()), len(y))
    return {"predicted": mean_metric(p), "observed": Metric(yes.value, yes.low, yes.high, yes.n)}


def slice_metrics(
    y: NDArray[np.int64], p: Floats, names: Sequence[str] = tuple(SLICE_METRICS), least: int = LEAST_OUTCOMES
) -> dict[str, Metric]:
    """Predicted and observed rate of a group of customers, and its metrics if both outcomes have `least` customers."""
    found = predicted_and_observed(y, p)
    if min(int(y.sum()), int((1 - y).sum())) >= least:
        found |= {name: statistic_metric(SLICE_METRICS[name], y, p, n_resamples=SLICE_RESAMPLES) for name in names}
    return found


def by_orders(orders: NDArray[np.floating], y: NDArray[np.int64], p: Floats, prefix: str = "") -> dict[str, Metrics]:
    """Slices by the number of orders before the prediction.

    Parameters
    ----------
    orders : ndarray, (n,)
    y : ndarray of int64, (n,)
    p : ndarray of float64, (n,)
    prefix : str
        Of the names of the slices.
    """
    masks = {name: (orders >= first) & (orders <= last) for first, last, name in ORDERS}
    masks[MORE_ORDERS] = orders > ORDERS[-1][1]
    return {prefix + name: slice_metrics(y[mask], p[mask]) for name, mask in masks.items() if mask.any()}
