"""The time without an order after which a customer counts as one who has left: a time of the customer's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.profiles.purchase_process.process import Columns, PurchaseProcess

FIRST_DAYS = 28  # of a history before the first moment to learn from, in which customers show a rhythm
LEARNING_DAYS = 28  # in which there are five weekly moments to learn from


def longest_window(history_days: int) -> int:
    """The longest window in days that a history can label twice: before the test date, and from it to the cutoff.

    Examples
    --------
    >>> longest_window(365), days_needed(154)
    (154, 364)
    """
    return (history_days - FIRST_DAYS - LEARNING_DAYS) // 2


def days_needed(window_days: float) -> int:
    """Days of a history that can label windows of this length twice."""
    return int(2 * window_days) + FIRST_DAYS + LEARNING_DAYS


@dataclass(frozen=True)
class OwnWindow:
    """The length of each customer's window: a multiple of their own gap, and at least some days.

    Attributes
    ----------
    multiple : float
        Of the mean gap between the customer's orders, which is pooled with the typical gap of the shop.
    min_days : float
        Shortest window in days.

    Examples
    --------
    >>> columns = {"days_since_first_order": [300.0, 300.0], "days_since_last_order": [0, 0], "orders_total": [62, 4]}
    >>> columns = {name: np.array(values) for name, values in columns.items()}
    >>> OwnWindow(4.0, 84.0).days(PurchaseProcess(10.0), columns).tolist()  # own gaps of 5 and 77.5 days
    [84.0, 310.0]
    """

    multiple: float
    min_days: float

    def days(self, process: PurchaseProcess, columns: Columns) -> NDArray[np.float64]:
        """Whole days of the window of each of n customers with at least one order, shape (n,).

        Parameters
        ----------
        process : PurchaseProcess
            Purchase process of the shop.
        columns : mapping of str to ndarray of shape (n,)
            `PROCESS_FEATURES` of the customers.
        """
        return np.asarray(np.ceil(np.maximum(self.multiple * process.own_gap_days(columns), self.min_days)))

    def as_dict(self) -> dict[str, float]:
        """The parameters as JSON-compatible data."""
        return {"multiple": self.multiple, "min_days": self.min_days}

    @classmethod
    def of(cls, parameters: Mapping[str, float]) -> OwnWindow:
        """The inverse of `as_dict`."""
        return cls(float(parameters["multiple"]), float(parameters["min_days"]))
