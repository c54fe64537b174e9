"""Order times of a sample of customers, and what was known about each customer at a past moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.compute.views import Views, days_before
from features.profiles.purchase_process.process import WINDOWS

MAX_CUSTOMERS = 5_000  # the coefficients of ten terms do not become better with more
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class OrderTimes:
    """Order times of n customers in days before `as_of`, negative and ascending for each customer.

    Attributes
    ----------
    starts : ndarray of int64, shape (n + 1,)
        The orders of customer i are ``days[starts[i]:starts[i + 1]]``; at least one each.
    days : ndarray of float64
        Times of all orders, relative to `as_of`.
    as_of_day : float
        `as_of` in days since 1970.
    """

    starts: NDArray[np.int64]
    days: Floats
    as_of_day: float = 0.0

    def before(self, moment: float) -> tuple[dict[str, Floats], Floats, NDArray[np.bool_]]:
        """What was known at a moment about the customers who had ordered by then, and what happened next.

        Parameters
        ----------
        moment : float
            Days relative to `as_of`, at most 0.

        Returns
        -------
        tuple
            The columns of `PROCESS_FEATURES` of these m customers, their days from `moment` to the next order, or to
            `as_of` if there was none by then, shape (m,), and whether there was one, shape (m,).
        """
        counts = self._counts_before(moment)
        known = np.flatnonzero(counts > 0)
        first, orders = self.starts[known], counts[known]
        following = first + orders
        ordered = following < self.starts[known + 1]
        next_day = np.where(ordered, self.days[np.minimum(following, len(self.days) - 1)], 0.0)
        columns = {
            "orders_total": orders.astype(np.float64),
            "days_since_last_order": moment - self.days[following - 1],
            "days_since_first_order": moment - self.days[first],
        }
        for days in WINDOWS:
            columns[f"orders_{days}d"] = (orders - self._counts_before(moment - days)[known]).astype(np.float64)
        return columns, next_day - moment, ordered

    def _counts_before(self, moment: float) -> NDArray[np.int64]:
        passed = np.concatenate([[0], np.cumsum(self.days < moment)])
        return np.asarray(passed[self.starts[1:]] - passed[self.starts[:-1]], dtype=np.int64)

    def mean_gaps(self) -> Floats:
        """Mean gap between the orders of each customer with at least two, in days."""
        orders = np.diff(self.starts)
        several = np.flatnonzero(orders > 1)
        last, first = self.days[self.starts[several + 1] - 1], self.days[self.starts[several]]
        return np.asarray((last - first) / (orders[several] - 1), dtype=np.float64)


def read_order_times(views: Views, buyers: Sequence[str], max_customers: int = MAX_CUSTOMERS) -> OrderTimes:
    """Read the order times of `buyers`, or of a sample of them if there are more than `max_customers`.

    The sample is drawn by a hash of the `one_id`, so that it hardly changes from one build to the next.

    Parameters
    ----------
    views : Views
        Rows before the cutoff.
    buyers : sequence of str
        one_ids with an order before the cutoff.
    max_customers : int
        Size of the sample.
    """
    lines = views["lines"].filter(ibis._.ts.notnull())
    if len(buyers) > max_customers:
        from pandas.util import hash_array

        hashes = hash_array(np.asarray(buyers, dtype=object))
        rows = np.argpartition(hashes, max_customers)[:max_customers]
        sample = ibis.memtable(pa.table({"one_id": [buyers[row] for row in rows.tolist()]}))
        lines = lines.semi_join(sample, "one_id")  # before the orders are made, which a large lake makes anew
    orders = lines.group_by(["one_id", "source", "order_id"]).aggregate(ts=lines.ts.min())
    found = orders.select("one_id", days=-days_before(views.cutoff, orders.ts)).to_pyarrow()
    encoded = found["one_id"].combine_chunks().dictionary_encode()
    # customers in the order of their ids, because the order of the rows is that of the engine
    place = pc.rank(encoded.dictionary, tiebreaker="first").to_numpy() if len(found) else np.empty(0, dtype=np.int64)
    code = place[encoded.indices.to_numpy(zero_copy_only=False)].astype(np.int64) - 1
    days = found["days"].to_numpy().astype(np.float64)
    by_customer = np.lexsort((days, code))
    sizes = np.bincount(code) if len(code) else np.empty(0, dtype=np.int64)
    as_of_day = float((np.datetime64(views.as_of, "s") - np.datetime64(0, "s")) / np.timedelta64(1, "D"))
    return OrderTimes(np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64), days[by_customer], as_of_day)
