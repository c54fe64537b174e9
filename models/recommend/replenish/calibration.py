"""Calibration of the repurchase model: a logistic regression on the purchases after earlier cutoffs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from models.recommend.replenish.history import Floats


def fit_calibration(columns: Floats, bought: NDArray[np.bool_], weights: Floats, ridge: float) -> Floats:
    """Fit a correction of the log-odds in the first column: a ridge logistic regression with them as offset.

    Parameters
    ----------
    columns : ndarray of float64, (p, c)
        Inputs of the calibration; the first column holds the log-odds of the repurchase model.
    bought : ndarray of bool, (p,)
        Whether the pair was bought in the horizon.
    weights : ndarray of float64, (p,)
        Number of pairs that each sampled pair represents.
    ridge : float
        Strength of the penalty on the weights.

    Returns
    -------
    ndarray of float64, (1 + c, 3)
        The intercept, then the weight of each column and the mean and scale of its standardisation; see `calibrate`.
    """
    middle = np.average(columns, axis=0, weights=weights)
    scale = np.sqrt(np.average((columns - middle) ** 2, axis=0, weights=weights))
    scale = np.where(scale > 1e-9, scale, 1.0)
    x = np.column_stack([np.ones(len(columns)), (columns - middle) / scale])
    penalty = np.append(1e-6, np.full(columns.shape[1], ridge))
    found = np.zeros(x.shape[1])
    odds = columns[:, 0].copy()
    loss = _loss(odds, bought, weights)
    for _ in range(25):  # Newton's method; a step is halved until it reduces the loss
        p = expit(odds)
        curvature = (x * (weights * p * (1.0 - p))[:, None]).T @ x + np.diag(penalty)
        step = np.linalg.solve(curvature, x.T @ (weights * (bought - p)) - penalty * found)
        along, length, before = x @ step, 1.0, loss
        while True:
            loss = _loss(odds + length * along, bought, weights) + 0.5 * float(penalty @ (found + length * step) ** 2)
            if loss <= before or length < 1e-3:
                break
            length /= 2.0
        found, odds = found + length * step, odds + length * along
        if before - loss < 1e-7 * before:
            break
    return np.column_stack([found, np.append(0.0, middle), np.append(1.0, scale)])


def calibrate(columns: list[Floats], calibration: Floats) -> Floats:
    """Return calibrated probabilities, 0 … 1, from the columns of `PopulationPriors.calibration_inputs`.

    A calibration with an intercept of 0 and no weights returns the probabilities of the repurchase model.
    """
    odds = columns[0] + calibration[0, 0]
    # adding column by column makes the result of a pair independent of the batch
    for column, (weight, middle, scale) in zip(columns, calibration[1:], strict=False):
        odds = odds + weight * ((column - middle) / scale)
    found: Floats = np.clip(expit(odds), 1e-9, 1.0 - 1e-9)
    return found


def _loss(odds: Floats, bought: NDArray[np.bool_], weights: Floats) -> float:
    """Return the negative log-likelihood."""
    return float(weights @ (np.logaddexp(0.0, odds) - odds * bought))
