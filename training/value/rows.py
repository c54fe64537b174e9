"""Rows that value models learn from: customers with an order before a moment, and what they ordered after it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.value.value_model import MONEY, ORDERS
from training.churn.snapshots import MAX_ROWS, Snapshots

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ValueRows:
    """Customers at one or more moments.

    Attributes
    ----------
    X : ndarray of float32, shape (n, f)
        Features of the orders before the moment.
    totals : dict of str to ndarray of float64, each of shape (n,)
        `ORDERS` and `MONEY` of the days after it.
    owners : ndarray, shape (n,)
        Customer of each row.
    days_to_next : ndarray of float64, shape (n,)
        Days to the next order; infinite if it is not known yet.
    """

    X: NDArray[np.float32]
    totals: dict[str, Floats]
    owners: NDArray[Any]
    days_to_next: Floats

    def __len__(self) -> int:
        return len(self.owners)

    def take(self, rows: NDArray[np.int64]) -> ValueRows:
        """Some of the rows."""
        totals = {what: values[rows] for what, values in self.totals.items()}
        return ValueRows(self.X[rows], totals, self.owners[rows], self.days_to_next[rows])

    def capped(self, max_rows: int = MAX_ROWS) -> ValueRows:
        """These rows, or those of a sample of the customers if there are more than `max_rows`."""
        if len(self) <= max_rows:
            return self
        customers, place = np.unique(self.owners, return_inverse=True)
        kept = np.random.default_rng(0).random(len(customers)) < max_rows / len(self)
        return self.take(np.flatnonzero(kept[place]))


def stacked(parts: Iterable[ValueRows]) -> ValueRows:
    """The rows of several moments, one below the other."""
    found = list(parts)
    return ValueRows(
        np.concatenate([part.X for part in found]),
        {what: np.concatenate([part.totals[what] for part in found]) for what in (ORDERS, MONEY)},
        np.concatenate([part.owners for part in found]),
        np.concatenate([part.days_to_next for part in found]),
    )


@dataclass
class PastMoments:
    """Rows at any moment of the history; each is computed once.

    Attributes
    ----------
    snapshots : Snapshots
        The histories of orders; its horizon is the days of the totals.
    features : tuple of str
        Columns of the rows.
    """

    snapshots: Snapshots
    features: tuple[str, ...]
    _rows: dict[datetime, ValueRows] = field(default_factory=dict)

    def rows(self, as_of: datetime) -> ValueRows:
        """The customers with an order before a moment; their totals are those that are known at the end of the history.

        Shared accounts are left out, because they are no single customers.
        """
        if as_of not in self._rows:
            shots = self.snapshots
            history = shots.history(as_of)
            later = min(as_of + shots.horizon, shots.end)
            orders, money = history.totals(as_of, later)
            wait = history.days_to_next(as_of)
            if shots.moved and later > as_of:  # who the customers were changed: those of `as_of` in the later records
                after = shots.history(later)
                place = np.searchsorted(after.one_ids, history.one_ids).clip(max=max(len(after.one_ids) - 1, 0))
                same = after.one_ids[place] == history.one_ids
                orders, money = (np.where(same, values[place], 0.0) for values in after.totals(as_of, later))
                wait = np.where(same, after.days_to_next(as_of)[place], np.inf)
            X = history.features(as_of, self.features)
            bought = X[:, self.features.index("orders_total")] > 0
            kept = np.flatnonzero(bought & ~np.isin(history.one_ids, list(shots.left_out)))
            totals = {ORDERS: orders[kept], MONEY: money[kept]}
            self._rows[as_of] = ValueRows(X[kept], totals, history.one_ids[kept], wait[kept])
        return self._rows[as_of]

    def last_totals(self, as_of: datetime) -> dict[str, Floats]:
        """Totals of the days before a moment, as many as are learnt, of the customers of `rows`, each of shape (n,)."""
        history = self.snapshots.history(as_of)
        place = np.searchsorted(history.one_ids, self.rows(as_of).owners)
        orders, money = history.totals(as_of - self.snapshots.horizon, as_of)
        return {ORDERS: orders[place], MONEY: money[place]}

    def before(self, as_of: datetime) -> ValueRows:
        """All rows whose totals were known at a moment."""
        return stacked(self.rows(date) for date in self.snapshots.dates(as_of)).capped()
