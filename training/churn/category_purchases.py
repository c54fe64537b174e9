"""When the customers bought each category: what they are expected to buy again, at many past moments.

It computes the feature `categories_expected_182d` for all customers at once, with the values that a profile build has
at the same moment: 20 ms a moment for the million purchases of Complete Journey.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import ibis
import numpy as np
from numpy.typing import NDArray

from features.compute.algebra import EXPECTED_DAYS, OVERDUE_RATE, USUAL_GAP_DAYS, USUAL_GAP_WEIGHT
from features.compute.views import Views, epoch_seconds
from features.definitions.interest import EXPECTED_WINDOW_DAYS
from qianmian.times import SECONDS_PER_DAY

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class CategoryPurchases:
    """Purchases of categories, ordered by customer, category, day and time.

    Attributes
    ----------
    customers : int
        Number n of customers.
    owners : ndarray of int64, shape (purchases,)
        Place of the customer, 0 to n − 1.
    starts_value : ndarray of bool, shape (purchases,)
        Whether the purchase before is of another customer or category.
    times : ndarray of float64, shape (purchases,)
        Whole seconds since 1970.
    local_days : ndarray of int64, shape (purchases,)
        Its day in the time zone of the workspace.
    """

    customers: int
    owners: Integers
    starts_value: NDArray[np.bool_]
    times: Floats
    local_days: Integers

    @classmethod
    def read(cls, views: Views, one_ids: Sequence[str]) -> CategoryPurchases:
        """Read the purchases of some customers before the cutoff of `views`.

        Parameters
        ----------
        one_ids : sequence of str
            Sorted and unique.
        """
        lines = views["lines"]
        lines = lines.filter(lines.ts.notnull() & lines.category.notnull())
        people = ibis.memtable({"one_id": list(one_ids), "owner": np.arange(len(one_ids))})
        lines = lines.inner_join(people, "one_id")
        bought = lines.select("owner", "category", "ts", "day").distinct()
        bought = bought.mutate(value=ibis.dense_rank().over(order_by=bought.category))
        table = bought.select(
            "owner",
            "value",
            seconds=epoch_seconds(bought.ts),
            day=(epoch_seconds(bought.day.cast("timestamp")) / SECONDS_PER_DAY).cast("int64"),
        ).to_pyarrow()
        owners, values, times, days = (table[name].to_numpy() for name in ("owner", "value", "seconds", "day"))
        order = np.lexsort((times, days, values, owners))
        owners, values = owners[order].astype(np.int64), values[order].astype(np.int64)
        changes = np.diff(owners, prepend=-1) != 0
        return cls(len(one_ids), owners, changes | (np.diff(values, prepend=-1) != 0), times[order], days[order])

    def expected(self, day: float) -> Floats:
        """Purchases that each customer is expected to make in the next 28 days, shape (n,).

        See `expected` in `features.compute.algebra`.

        Parameters
        ----------
        day : float
            The moment, in days since 1970; a whole number of seconds.
        """
        now = round(day * SECONDS_PER_DAY)
        kept = np.flatnonzero((self.times >= now - EXPECTED_WINDOW_DAYS * SECONDS_PER_DAY) & (self.times < now))
        if not len(kept):
            return np.zeros(self.customers)
        values = np.cumsum(self.starts_value)[kept]
        first_of_value = np.diff(values, prepend=-1) != 0
        first_of_day = first_of_value | (np.diff(self.local_days[kept], prepend=-1) != 0)
        starts = np.flatnonzero(first_of_value)
        times, days = self.times[kept], np.add.reduceat(first_of_day.astype(np.float64), starts)
        # the time may fall while the day grows: a purchase that is only a date is at the midnight of its source
        last = np.maximum.reduceat(times, starts)
        span = (last - np.minimum.reduceat(times, starts)) / SECONDS_PER_DAY
        gap = (span + USUAL_GAP_WEIGHT * USUAL_GAP_DAYS) / (days - 1.0 + USUAL_GAP_WEIGHT)
        overdue = (now - last) / SECONDS_PER_DAY / gap - 1.0
        expected = EXPECTED_DAYS / gap * np.exp(-OVERDUE_RATE * np.maximum(overdue, 0.0))
        return np.asarray(np.bincount(self.owners[kept[starts]], expected, self.customers), dtype=np.float64)
