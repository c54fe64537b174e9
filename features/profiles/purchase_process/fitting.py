"""Fit of the purchase process on the customers' past: what was known at earlier moments, and the waits after them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.compute.views import Views
from features.profiles.purchase_process.order_times import OrderTimes, read_order_times
from features.profiles.purchase_process.process import (
    LIMIT,
    PRIOR_LOCATION,
    PROBABILITIES,
    PROCESS_FEATURES,
    RETURN_GAPS,
    WEIBULL_QUANTILES,
    PurchaseProcess,
    location_terms,
    silence_terms,
    typical_gap_days,
)
from qianmian.model_settings import LifecycleSettings

MOMENTS = 8
STEP = RETURN_GAPS / 2  # typical gaps between two moments
HISTORY_SHARE = 0.7  # part of the history in which the moments lie; the orders before it are needed to know a rhythm
SHORTEST_WAIT = 0.05  # typical gaps; a date without a clock time is known no better
PRIOR_PRECISION = float(MOMENTS)  # of each coefficient; a wait counts once for each moment that lies in it
MAX_ITERATIONS = 300
SMALLEST_STEP = 1e-6  # between two quantiles, which must ascend
MIN_RESIDUALS = 500  # waits that ended; from fewer, the quantiles are no better than those of the Weibull model
Floats = NDArray[np.float64]


def process_of(views: Views, table: pa.Table, settings: LifecycleSettings | None = None) -> PurchaseProcess | None:
    """The purchase process at the cutoff of `views`; None if orders have no times.

    Parameters
    ----------
    views : Views
        Rows before the cutoff.
    table : pyarrow.Table
        Table of the profile build at the same cutoff.
    settings : LifecycleSettings, optional
        As in `fit_process`.
    """
    if not set(PROCESS_FEATURES) <= set(table.column_names):
        return None
    buyers = table["one_id"].filter(pa.array(table["orders_total"].to_numpy() > 0)).to_pylist()
    return fit_process(read_order_times(views, buyers), settings)


def fit_process(orders: OrderTimes, settings: LifecycleSettings | None = None) -> PurchaseProcess:
    """Fit the purchase process by penalised maximum likelihood; a wait that has not ended by `as_of` is censored.

    Parameters
    ----------
    orders : OrderTimes
        Order times before the cutoff.
    settings : LifecycleSettings, optional
        `min_gap_days` is the least typical gap; `max_gap_days` is its value without repeat buyers.
    """
    typical = typical_gap_days(orders.mean_gaps(), settings or LifecycleSettings())
    X, log_waits, ordered, longest = _examples(orders, typical)
    coefficients = _fit(X, log_waits, ordered)
    location, sigma = coefficients[:-1], float(np.exp(coefficients[-1]))
    quantiles = residual_quantiles((log_waits - X @ location) / sigma, ordered)
    return PurchaseProcess(typical, tuple(location.tolist()), sigma, quantiles, longest, orders.as_of_day)


def _examples(orders: OrderTimes, typical: float) -> tuple[Floats, Floats, NDArray[np.bool_], tuple[float, float]]:
    """Terms, log waits in typical gaps and whether they ended, of all customers at all moments, one below the other.

    The last value is the longest silence.
    """
    span = -float(orders.days.min()) if len(orders.days) else 0.0
    step = min(STEP * typical, HISTORY_SHARE * span / MOMENTS)
    parts = [orders.before(-step * number) for number in range(1, MOMENTS + 1)] if step > 0 else []
    parts = [part for part in parts if len(part[1])]
    if not parts:
        return np.empty((0, len(PRIOR_LOCATION))), np.empty(0), np.empty(0, dtype=np.bool_), (LIMIT, LIMIT)
    columns = {name: np.concatenate([part[0][name] for part in parts]) for name in PROCESS_FEATURES}
    silence = silence_terms(columns, typical)
    longest = silence.max(axis=0).tolist()
    return (
        location_terms(columns, typical, silence),
        np.log(np.maximum(np.concatenate([part[1] for part in parts]) / typical, SHORTEST_WAIT)),
        np.concatenate([part[2] for part in parts]),
        (longest[0], longest[1]),
    )


def _fit(X: Floats, log_waits: Floats, ordered: NDArray[np.bool_]) -> Floats:
    """β, then log σ, that maximise the likelihood with a normal prior around the random buyer."""
    from scipy.optimize import minimize

    prior = np.array([*PRIOR_LOCATION, 0.0])

    def loss(coefficients: Floats) -> tuple[float, Floats]:
        log_sigma = np.clip(coefficients[-1], -LIMIT, LIMIT)
        sigma = np.exp(log_sigma)
        e = (log_waits - X @ coefficients[:-1]) / sigma
        hazard = np.exp(np.minimum(e, LIMIT))  # cumulative hazard of a wait
        log_likelihood = np.where(ordered, e - log_sigma, 0.0) - hazard
        slope: Floats = ordered - hazard  # of the log-likelihood in e
        gradient = np.append(-(slope / sigma) @ X, -(slope * e + ordered).sum())
        moved = coefficients - prior
        return (
            float(0.5 * PRIOR_PRECISION * moved @ moved - log_likelihood.sum()),
            PRIOR_PRECISION * moved - gradient,
        )

    found = minimize(loss, prior, jac=True, method="L-BFGS-B", options={"maxiter": MAX_ITERATIONS})
    return np.asarray(found.x, dtype=np.float64)


def residual_quantiles(residuals: Floats, ordered: NDArray[np.bool_]) -> tuple[float, ...]:
    """Kaplan–Meier quantiles of the residuals at `PROBABILITIES`; beyond their reach, the steps of a Weibull model.

    Parameters
    ----------
    residuals : ndarray of float64, shape (n,)
        ε of each example; a lower bound where the wait has not ended.
    ordered : ndarray of bool, shape (n,)
        Whether the wait has ended.
    """
    if ordered.sum() < MIN_RESIDUALS:
        return WEIBULL_QUANTILES
    order = np.lexsort((~ordered, residuals))  # of equal residuals, those that ended come first
    residuals, ended = residuals[order], ordered[order]
    passed = 1.0 - np.cumprod(np.where(ended, 1.0 - 1.0 / np.arange(len(ended), 0, -1), 1.0))
    found: list[float] = []
    for probability, weibull, before in zip(
        PROBABILITIES, WEIBULL_QUANTILES, (np.nan, *WEIBULL_QUANTILES), strict=False
    ):
        at = int(np.searchsorted(passed, probability))
        reached = float(residuals[at]) if at < len(passed) else found[-1] + weibull - before if found else weibull
        found.append(max(reached, found[-1] + SMALLEST_STEP) if found else reached)
    return tuple(found)
