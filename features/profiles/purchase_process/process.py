"""The distribution of the time to a customer's next order: an accelerated failure time model.

The time to the next order, measured from `as_of` and not from the last order, has the logarithm

    log t = x·β + σ·ε

(Kalbfleisch and Prentice, *The Statistical Analysis of Failure Time Data*, 2002, chapter 2). x describes the
rhythm of the orders and the silence since the last one. All times are measured in typical gaps of the shop, so that the
same prior holds for a grocer and for a seller of furniture. Without data, β and σ are those of a customer who orders at
random at the pooled mean gap: a short history is pooled towards the shop.

β and σ are fitted as if ε had the distribution of a Weibull model, P(ε > e) = exp(−exp(e)). The distribution that is
used is that of the residuals of the examples (Kaplan and Meier 1958), as far as they reach.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qianmian.model_settings import LifecycleSettings

WINDOWS = (28, 91, 365)  # days
PROCESS_FEATURES = (
    "orders_total",
    "days_since_last_order",
    "days_since_first_order",
    *(f"orders_{days}d" for days in WINDOWS),
)
RETURN_GAPS = 4.0  # typical gaps in which an order counts as a return
SILENCE_OFFSET = 0.25  # typical gaps, added to the silence before its logarithm
LIMIT = 30.0  # of logarithms of times in typical gaps
# P(ε ≤ e) at which the distribution of the residuals is stored; between them it is that of a Weibull model, shifted
PROBABILITIES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
WEIBULL_QUANTILES = tuple(np.log(-np.log1p(-np.array(PROBABILITIES))).tolist())
# a customer who orders at random at the pooled mean gap: log t = log gap + ε
PRIOR_LOCATION = (0.0, 1.0, *[0.0] * 8)
Columns = Mapping[str, NDArray[Any]]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PurchaseProcess:
    """A fitted purchase process of one shop.

    Its methods take columns of `PROCESS_FEATURES`, each of shape (n,), of customers with at least one order.

    Attributes
    ----------
    typical_gap_days : float
        Median of the customers' mean gaps between orders.
    location : tuple of float
        β, the coefficients of `location_terms`; by default those of the prior.
    sigma : float
        σ; 1 for orders at random, less for regular ones.
    residual_quantiles : tuple of float
        Values of ε at `PROBABILITIES`, ascending; by default those of a Weibull model.
    longest_silence : tuple of float
        Largest values of `silence_terms` in the examples. A longer silence counts as this one, because the squares of
        the terms say nothing beyond the examples.
    as_of_day : float
        The cutoff at which the process was fitted, in days since 1970.

    Examples
    --------
    >>> process = PurchaseProcess(10.0)
    >>> weekly = dict(zip(PROCESS_FEATURES, np.array([[40.0], [3.0], [280.0], [4.0], [13.0], [40.0]]), strict=True))
    >>> process.days_to_order(weekly).round(1).tolist(), process.order_probability(weekly, 28.0).round(2).tolist()
    ([5.0], [0.98])
    """

    typical_gap_days: float
    location: tuple[float, ...] = PRIOR_LOCATION
    sigma: float = 1.0
    residual_quantiles: tuple[float, ...] = WEIBULL_QUANTILES
    longest_silence: tuple[float, float] = (LIMIT, LIMIT)
    as_of_day: float = 0.0

    @property
    def return_days(self) -> float:
        """The time in which an order counts as a return, in days: `RETURN_GAPS` typical gaps."""
        return RETURN_GAPS * self.typical_gap_days

    def days_to_order(self, columns: Columns, probability: float = 0.5) -> Floats:
        """Days from `as_of` until the next order has come with this probability, shape (n,); by default the median."""
        e = _interpolate(np.log(-np.log1p(-probability)), WEIBULL_QUANTILES, self.residual_quantiles)
        log_time = self._location(columns) + self.sigma * e
        return np.asarray(self.typical_gap_days * np.exp(np.clip(log_time, -LIMIT, LIMIT)))

    def order_probability(self, columns: Columns, days: float | Floats) -> Floats:
        """Probability of an order in the next `days` days, of all or of each, shape (n,)."""
        e = (np.log(days / self.typical_gap_days) - self._location(columns)) / self.sigma
        weibull = _interpolate(e, self.residual_quantiles, WEIBULL_QUANTILES)
        return np.asarray(-np.expm1(-np.exp(np.clip(weibull, -LIMIT, LIMIT))))

    def own_gap_days(self, columns: Columns) -> Floats:
        """Mean gap between the customer's orders, pooled with one typical gap, in days, shape (n,)."""
        between = columns["days_since_first_order"] - columns["days_since_last_order"]
        return np.asarray(
            (self.typical_gap_days + between) / np.maximum(columns["orders_total"], 1.0), dtype=np.float64
        )

    def _location(self, columns: Columns) -> Floats:
        silence = np.minimum(silence_terms(columns, self.typical_gap_days), self.longest_silence)
        return np.asarray(location_terms(columns, self.typical_gap_days, silence) @ np.asarray(self.location))

    def as_fitted(self) -> dict[str, list[float]]:
        """The parameters as JSON-compatible data, as a statistic tag stores them."""
        return {
            "typical_gap_days": [self.typical_gap_days],
            "location": list(self.location),
            "sigma": [self.sigma],
            "residual_quantiles": list(self.residual_quantiles),
            "longest_silence": list(self.longest_silence),
            "as_of_day": [self.as_of_day],
        }

    @classmethod
    def of(cls, parameters: Mapping[str, Sequence[float]]) -> PurchaseProcess:
        """The inverse of `as_fitted`."""
        return cls(
            parameters["typical_gap_days"][0],
            tuple(parameters["location"]),
            parameters["sigma"][0],
            tuple(parameters["residual_quantiles"]),
            (parameters["longest_silence"][0], parameters["longest_silence"][1]),
            parameters["as_of_day"][0],
        )


def _interpolate(x: Any, of: Sequence[float], to: Sequence[float]) -> Any:
    """Piecewise linear function through the points (of, to), with slope 1 beyond the first and the last."""
    return np.interp(x, of, to) + np.minimum(x - of[0], 0.0) + np.maximum(x - of[-1], 0.0)


def typical_gap_days(mean_gaps: Floats, settings: LifecycleSettings) -> float:
    """Median of the customers' mean gaps in days, at least `min_gap_days`; `max_gap_days` without repeat buyers."""
    if not len(mean_gaps):
        return settings.max_gap_days
    return max(float(np.median(mean_gaps)), settings.min_gap_days)


def pooled_gap_days(columns: Columns, typical_gap_days: float) -> Floats:
    """Mean gap of a customer who orders at random, given the orders and the silence, shape (n,).

    It is (typical gap + days since the first order) ÷ orders.
    """
    return np.asarray(
        (typical_gap_days + columns["days_since_first_order"]) / np.maximum(columns["orders_total"], 1.0),
        dtype=np.float64,
    )


def silence_terms(columns: Columns, typical_gap_days: float) -> Floats:
    """Logarithm of the silence in typical gaps and in gaps of the customer, shape (n, 2)."""
    silence = np.log(columns["days_since_last_order"] / typical_gap_days + SILENCE_OFFSET)
    relative_gap = pooled_gap_days(columns, typical_gap_days) / typical_gap_days
    return np.column_stack([silence, silence - np.log(relative_gap)]).astype(np.float64)


def location_terms(columns: Columns, typical_gap_days: float, silence: Floats) -> Floats:
    """x of each customer, shape (n, 10): an intercept, the rhythm of all and of recent orders, and the silence."""
    orders, first = np.maximum(columns["orders_total"], 1.0), columns["days_since_first_order"]
    recent = [
        (1.0 + np.minimum(first, days) / typical_gap_days) / (1.0 + columns[f"orders_{days}d"]) for days in WINDOWS
    ]
    gap = pooled_gap_days(columns, typical_gap_days) / typical_gap_days
    terms = [np.log(gap), *map(np.log, recent), silence, silence**2, np.log(orders)]
    return np.column_stack([np.ones(len(gap)), *terms]).astype(np.float64)
