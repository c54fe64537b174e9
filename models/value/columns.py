"""Columns of the value models: features of the profiles, and rates of orders and money made of them.

All of them follow from the times and amounts of the orders alone, so that training can compute them at many past
moments (`training.churn.history.OrderHistory`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

WINDOWS = (7, 14, 28, 56, 91, 182, 365)  # days in which orders are counted
ORDER_FEATURES = (
    "days_since_last_order",
    "days_since_first_order",
    "orders_total",
    *(f"orders_{days}d" for days in WINDOWS),
    "gap_days_mean",
    "gap_days_std",
    "gaps_silent",
)
SLOPES = {28: "amount_slope_28d", 91: "amount_slope_91d"}  # with the amount of the window, that of one twice as long
MONEY_FEATURES = (
    "amount_total",
    "amount_28d",
    "amount_91d",
    "amount_365d",
    *SLOPES.values(),
    "order_value_mean",
)
MONEY_WINDOWS = (28, 56, 91, 182, 365)
EVER = 0  # a window over the whole history
Floats = NDArray[np.float64]


def by_name(X: NDArray[np.float32], names: Sequence[str]) -> dict[str, Floats]:
    """The columns of a feature matrix by name, each of shape (n,)."""
    return {name: X[:, place].astype(np.float64) for place, name in enumerate(names)}


def repeat_orders(columns: Mapping[str, Floats]) -> tuple[Floats, Floats, Floats]:
    """x, t_x and T of BG/NBD in days: repeat orders, and the times from the first order to the last one and to now."""
    observed = np.maximum(columns["days_since_first_order"], 0.0)
    last = np.clip(observed - columns["days_since_last_order"], 0.0, observed)
    return np.maximum(columns["orders_total"] - 1.0, 0.0), last, observed


def counts_by_window(columns: Mapping[str, Floats]) -> dict[int, Floats]:
    """Orders of each window of days; `EVER` for all of them."""
    return {**{days: columns[f"orders_{days}d"] for days in WINDOWS}, EVER: columns["orders_total"]}


def amounts_by_window(columns: Mapping[str, Floats]) -> dict[int, Floats]:
    """Amount paid in each window of days; a slope is the change from one window to the next ÷ its days."""
    found = {days: columns[f"amount_{days}d"] for days in (28, 91, 365)}
    found |= {2 * days: np.maximum(2.0 * found[days] - days * columns[name], 0.0) for days, name in SLOPES.items()}
    return {**found, EVER: columns["amount_total"]}


def rate(totals: Mapping[int, Floats], window: int, observed: Floats, gap_days: float) -> Floats:
    """Total of a window ÷ the days of it since the first order and one typical gap more, (n,).

    The gap stands for the unknown time before the first order, so that a customer of today has no infinite rate.
    """
    span = observed + gap_days
    return totals[window] / (np.minimum(span, window) if window != EVER else span)


def value_columns(
    columns: Mapping[str, Floats], expectations: Sequence[Floats], gap_days: float
) -> NDArray[np.float32]:
    """What the trees read: features, rates of all windows and what BG/NBD and gamma-gamma expect, (n, c)."""
    observed = columns["days_since_first_order"]
    totals = [counts_by_window(columns)]
    if MONEY_FEATURES[0] in columns:
        totals.append(amounts_by_window(columns))
    rates = [rate(one, window, observed, gap_days) for one in totals for window in one]
    return np.column_stack([*columns.values(), *rates, *expectations]).astype(np.float32)
