"""Conditional and multinomial logit models: weights that maximise the likelihood of the chosen candidates."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def fit_conditional_logit(
    columns: Floats, of: Ints, chosen: NDArray[np.bool_] | Floats, prior: Floats, ridge: float
) -> Floats:
    """Fit a conditional logit (McFadden 1974) by Newton's method, with a ridge penalty on the distance to a prior.

    Parameters
    ----------
    columns : ndarray of float64, (c, k)
        Features of the candidates.
    of : ndarray of int64, (c,)
        Choice set of each candidate, ascending.
    chosen : ndarray of bool or float64, (c,)
        Whether each candidate was chosen, or how much this choice counts; several may be chosen in one set.
    prior : ndarray of float64, (k,)
        Weights to shrink to; also the starting point.
    ridge : float
        Strength of the penalty.

    Returns
    -------
    ndarray of float64, (k,)
        Weights of the features.
    """
    weights, sets = prior.copy(), int(of.max(initial=-1)) + 1
    number = np.bincount(of, chosen, sets)

    def state(at: Floats) -> tuple[float, Floats]:
        score = columns @ at
        top = np.full(sets, -np.inf)
        np.maximum.at(top, of, score)
        raised = np.exp(score - top[of])
        sums = np.bincount(of, raised, sets)
        log_likelihood = (score * chosen).sum() - (number * (top + np.log(sums))).sum()
        return float(log_likelihood - 0.5 * ridge * ((at - prior) ** 2).sum()), raised / sums[of]

    value, p = state(weights)
    for _ in range(20):
        pull = p * number[of]
        slope = columns.T @ (chosen - pull) - ridge * (weights - prior)
        means = np.column_stack([np.bincount(of, p * column, sets) for column in columns.T])
        second_moments = (columns * pull[:, None]).T @ columns
        curvature = second_moments - (means * number[:, None]).T @ means + ridge * np.eye(len(prior))
        step, length = np.linalg.solve(curvature, slope), 1.0
        while True:
            better, likely = state(weights + length * step)
            if better >= value or length < 1e-3:
                break
            length /= 2.0
        if better < value + 1e-8 * abs(value):
            break
        weights, value, p = weights + length * step, better, likely
    return weights


def fit_multinomial_logit(
    values: NDArray[np.float32],
    chosen: NDArray[np.int64],
    group: NDArray[np.int64],
    used: NDArray[np.bool_],
    penalty: float = 1.0,
    non_negative: NDArray[np.bool_] | None = None,
) -> NDArray[np.float32]:
    """Fit a multinomial logit with a ridge penalty on the weights of the standardised features.

    Parameters
    ----------
    values : ndarray of float32, (m, f)
        Features of the candidates of all groups.
    chosen : ndarray of int64, (g,)
        Row of the chosen candidate of each group.
    group : ndarray of int64, (m,)
        Group of each candidate, ascending.
    used : ndarray of bool, (f,)
        Features to use; the weights of the others are 0.
    penalty : float
        Strength of the ridge penalty.
    non_negative : ndarray of bool, (f,), optional
        Features whose weight may not be negative.

    Returns
    -------
    ndarray of float32, (f,)
        Weights of the unscaled features.
    """
    from scipy.optimize import minimize

    columns = np.flatnonzero(used & (values.std(axis=0) > 1e-6))
    weights = np.zeros(values.shape[1], dtype=np.float32)
    if not len(columns):
        return weights
    spread = values[:, columns].std(axis=0)
    x = ((values[:, columns] - values[:, columns].mean(axis=0)) / spread).astype(np.float64)
    starts, many = np.searchsorted(group, np.arange(len(chosen))), len(chosen)

    def loss(w: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        z = x @ w
        z -= np.maximum.reduceat(z, starts)[group]
        e = np.exp(z)
        sums = np.add.reduceat(e, starts)
        likelihood = float((np.log(sums) - z[chosen]).sum() + penalty * (w @ w))
        gradient = x.T @ (e / sums[group]) - x[chosen].sum(axis=0) + 2 * penalty * w
        return likelihood / many, gradient / many

    bounds = (
        None if non_negative is None else [(0.0 if bound else None, None) for bound in non_negative[columns].tolist()]
    )
    found = minimize(loss, np.zeros(len(columns)), jac=True, method="L-BFGS-B", bounds=bounds)
    weights[columns] = found.x / spread
    return weights
