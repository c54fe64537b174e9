"""Which members a calibrated classifier has: chosen by out-of-fold log loss on its training rows alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.classify.calibrated import (
    MIN_OUTCOMES,
    NO_CHANGE,
    CalibratedClassifier,
    out_of_fold_log_odds,
    platt_scaling,
)
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
    X: NDArray[np.float32],
    y: NDArray[np.int64],
    groups: NDArray[Any] | None,
    categorical: Sequence[bool],
    seed: int,
    moments: NDArray[np.int64] | None = None,
    candidates: Mapping[str, tuple[str, ...]] = MappingProxyType(CANDIDATES),
    trees: Mapping[str, float] = NO_CHANGE,
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
    moments : ndarray of int64, (n,), optional
        Number of the date of each row, if rows are of several: where the level of the date before has predicted a date
        better than that of all dates before, beyond noise, the calibration is that of the last date.
    candidates : mapping of str to tuple of str, optional
        Of `CANDIDATES`: what may ship.
    trees : mapping of str to float, optional
        Parameters of the trees that differ from the defaults.

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
    members_of_all = tuple(dict.fromkeys(member for members in candidates.values() for member in members))
    found = out_of_fold_log_odds(X, y, groups, categorical, seed, members_of_all, trees)
    losses = {
        name: platt_losses(np.mean([found[one] for one in members], axis=0), y) for name, members in candidates.items()
    }
    best = min(losses, key=lambda name: float(losses[name].mean()))
    chosen = next(
        name for name in candidates if name == best or not _is_worse(losses[name], losses[best], groups, seed)
    )
    model = CalibratedClassifier(candidates[chosen], tuple(categorical), seed, trees)
    log_odds = np.mean([found[one] for one in candidates[chosen]], axis=0)
    recent = moments is not None and _follows_the_last_date(log_odds, y, moments, groups, seed)
    return chosen, model.fit(X, y, groups, found, moments == moments.max() if recent and moments is not None else None)


def _follows_the_last_date(
    log_odds: Floats, y: NDArray[np.int64], moments: NDArray[np.int64], groups: NDArray[Any] | None, seed: int
) -> bool:
    """Whether dates were predicted better with the calibration of the date before than with that of all before."""
    differences, rows = [], []
    dates = np.unique(moments)
    for before, date in pairwise(dates[1:]):
        last, earlier, at = moments == before, moments < date, moments == date
        if min(y[last].sum(), (1 - y[last]).sum()) < MIN_OUTCOMES:
            return False
        lately, always = (_log_loss(log_odds[at], y[at], platt_scaling(log_odds[of], y[of])) for of in (last, earlier))
        differences.append(always - lately)
        rows.append(np.flatnonzero(at))
    if not differences or min(y[moments == dates[-1]].sum(), (1 - y[moments == dates[-1]]).sum()) < MIN_OUTCOMES:
        return False
    owners = None if groups is None else groups[np.concatenate(rows)]
    return _is_worse(np.concatenate(differences), np.zeros(sum(map(len, rows))), owners, seed)


def platt_losses(log_odds: Floats, y: NDArray[np.int64]) -> Floats:
    """Log loss of each row after Platt scaling, whose two parameters are no advantage of any candidate."""
    return _log_loss(log_odds, y, platt_scaling(log_odds, y))


def _log_loss(log_odds: Floats, y: NDArray[np.int64], calibration: Floats) -> Floats:
    slope, intercept = calibration
    p = np.clip(probability(slope * log_odds + intercept), 1e-6, 1 - 1e-6)
    return np.asarray(-np.log(np.where(y == 1, p, 1 - p)))


def _is_worse(losses: Floats, best: Floats, groups: NDArray[Any] | None, seed: int) -> bool:
    """Whether the loss is higher beyond the noise of the customers."""
    difference = losses - best
    if groups is not None:  # the rows of a customer are one observation
        difference = np.bincount(np.unique(groups, return_inverse=True)[1], weights=difference).astype(np.float64)
    return mean_metric(difference, seed, N_RESAMPLES).low > 0
