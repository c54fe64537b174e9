"""Which members a calibrated classifier has: chosen by out-of-fold log loss on its training rows alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.classify.calibrated import CalibratedClassifier, out_of_fold_log_odds, platt_scaling
from models.classify.rhythm import probability
from training.bootstrap import mean_metric

Floats = NDArray[np.float64]
# the simplest first: a regression can be read, and the mean of both needs both
CANDIDATES: dict[str, tuple[str, ...]] = {
    "spline logistic regression": ("logistic",),
    "boosted trees": ("trees",),
    "mean of both": ("logistic", "trees"),
}
N_RESAMPLES = 200


def fit_best(
    X: NDArray[np.float32], y: NDArray[np.int64], groups: NDArray[Any] | None, categorical: Sequence[bool], seed: int
) -> tuple[str, CalibratedClassifier]:
    """Fit the simplest candidate that is not worse than the best one beyond noise.

    Parameters
    ----------
    X : ndarray of float32, (n, f)
    y : ndarray of int64, (n,)
    groups : ndarray, (n,), optional
        Customer of each row, if a customer has several.
    categorical : sequence of bool
        Which columns are codes of categories.
    seed : int

    Returns
    -------
    str
        Key of `CANDIDATES`.
    CalibratedClassifier
        Fitted on all rows.

    Raises
    ------
    DataError
        An outcome has too few rows.
    """
    found = out_of_fold_log_odds(X, y, groups, categorical, seed)
    losses = {name: _losses(np.mean([found[one] for one in members], axis=0), y) for name, members in CANDIDATES.items()}
    best = min(losses, key=lambda name: float(losses[name].mean()))
    chosen = next(name for name in CANDIDATES if name == best or not _is_worse(losses[name], losses[best], groups, seed))
    model = CalibratedClassifier(CANDIDATES[chosen], tuple(categorical), seed)
    return chosen, model.fit(X, y, groups, found)


def _losses(log_odds: Floats, y: NDArray[np.int64]) -> Floats:
    """Log loss of each row after Platt scaling, whose two parameters are no advantage of any candidate."""
    slope, intercept = platt_scaling(log_odds, y)
    p = np.clip(probability(slope * log_odds + intercept), 1e-6, 1 - 1e-6)
    return np.asarray(-np.log(np.where(y == 1, p, 1 - p)))


def _is_worse(losses: Floats, best: Floats, groups: NDArray[Any] | None, seed: int) -> bool:
    """Whether the loss is higher beyond the noise of the customers."""
    difference = losses - best
    if groups is not None:  # the rows of a customer are one observation
        difference = np.bincount(np.unique(groups, return_inverse=True)[1], weights=difference)
    return mean_metric(difference, seed, N_RESAMPLES).low > 0
