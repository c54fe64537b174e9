"""Rhythm features and churn labels of all customers at many past moments, from the times of their orders.

Profiles with all features take seconds at each moment. The rhythm features (`models.classify.rhythm`) follow from the
times and amounts of the orders alone, which are read once; a moment then takes milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.compute.views import Views
from features.definitions.recency import NEVER
from features.profiles.purchase_process.order_times import OrderTimes
from models.classify.rhythm import EXPECTED_CATEGORIES, RHYTHM_FEATURES, day_number
from models.value.columns import SLOPES, WINDOWS
from training.churn.category_purchases import CategoryPurchases

NO_GAP = 365.0  # days; the default of `gap_days_mean`, for a customer with one order
LONGER_THAN_ANY_GAP = 1e5  # days
WEEK_DAYS = 7
Floats = NDArray[np.float64]


def trend(recent: NDArray[np.int64], both: NDArray[np.int64]) -> Floats:
    """Orders of a window against those of the window before, −1 to 1; `both` counts the two, 0 without any."""
    return np.asarray((2 * recent - both) / np.maximum(both, 1), dtype=np.float64)


@dataclass(frozen=True)
class OrderHistory:
    """Times and amounts of the orders of n customers.

    Attributes
    ----------
    one_ids : ndarray of str, shape (n,)
        Sorted and unique.
    starts : ndarray of int64, shape (n + 1,)
        The orders of customer i are ``days[starts[i]:starts[i + 1]]``.
    days : ndarray of float64
        Times of all orders in days since 1970, ascending for each customer.
    amounts : ndarray of float64
        Paid amount of each order; 0 if unknown.
    weeks : ndarray of int64
        Calendar week of each order, as the day number of its Monday in the time zone of the workspace.
    categories : CategoryPurchases or None
        Purchases of categories; None if they were not read.
    sampled_below : int or None
        Hash below which customers are in the sample; None if all are.
    """

    one_ids: NDArray[np.str_]
    starts: NDArray[np.int64]
    days: Floats
    amounts: Floats
    weeks: NDArray[np.int64]
    categories: CategoryPurchases | None = None
    sampled_below: int | None = None

    @classmethod
    def read(
        cls,
        views: Views,
        max_customers: int | None = None,
        sampled_below: int | None = None,
        with_categories: bool = False,
    ) -> OrderHistory:
        """Read the orders before the cutoff of `views`.

        Parameters
        ----------
        views : Views
        max_customers : int, optional
            Number of customers of a sample, drawn by a hash of the `one_id`; by default all.
        sampled_below : int, optional
            Instead: the customers with a smaller hash, so that samples of several moments are of the same customers.
        with_categories : bool
            Whether the purchases of categories are read too; they are many more than the orders.
        """
        orders = views["orders"]
        orders = orders.filter(orders.ts.notnull()).mutate(amount=orders.amount.fill_null(0.0))
        table = orders.select("one_id", "ts", "amount", "week").to_pyarrow()
        encoded = table["one_id"].combine_chunks().dictionary_encode()
        if isinstance(encoded, pa.ChunkedArray):
            encoded = encoded.combine_chunks()
        names = np.asarray(encoded.dictionary.to_pylist(), dtype=np.str_)
        place = np.empty(len(names), dtype=np.int64)
        place[np.argsort(names)] = np.arange(len(names))
        code = place[encoded.indices.to_numpy(zero_copy_only=False)] if len(table) else np.empty(0, dtype=np.int64)
        seconds = table["ts"].cast(pa.timestamp("us")).to_numpy().astype("datetime64[us]").astype(np.int64) / 1e6
        days, amounts = seconds / 86_400, table["amount"].to_numpy().astype(np.float64)
        weeks = table["week"].cast(pa.date32()).cast(pa.int32()).to_numpy().astype(np.int64)
        too_many = max_customers is not None and len(names) > max_customers
        if sampled_below is not None or too_many:
            from pandas.util import hash_array

            hashes = hash_array(np.sort(names).astype(object))
            if sampled_below is None and max_customers is not None:
                sampled_below = int(np.partition(hashes, max_customers)[max_customers])
            kept = hashes < np.uint64(sampled_below or 0)
            rows = kept[code]
            code, days, amounts, weeks = (np.cumsum(kept) - 1)[code[rows]], days[rows], amounts[rows], weeks[rows]
            names = np.sort(names)[kept]
        order = np.lexsort((days, code))
        sizes = np.bincount(code, minlength=len(names))
        starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        names = np.sort(names)
        categories = CategoryPurchases.read(views, names.tolist()) if with_categories else None
        return cls(names, starts, days[order], amounts[order], weeks[order], categories, sampled_below)

    def ends(self, day: float) -> NDArray[np.int64]:
        """Place after the last order of each customer before a day, shape (n,)."""
        passed = np.concatenate([[0], np.cumsum(self.days < day)])
        return np.asarray(self.starts[:-1] + passed[self.starts[1:]] - passed[self.starts[:-1]], dtype=np.int64)

    def features(self, as_of: datetime, names: Sequence[str] = RHYTHM_FEATURES) -> NDArray[np.float32]:
        """Features of every customer's orders at a moment, float32 array of shape (n, len(names)).

        They are those of the churn models (`models.classify.rhythm`) and of the value models (`models.value.columns`),
        with the values that a profile build has at the same moment.
        """
        now, first = day_number(as_of), self.starts[:-1]
        end = self.ends(now)
        orders = (end - first).astype(np.float64)
        bought = orders > 0
        last_day = self.days[np.maximum(end - 1, 0)] if len(self.days) else np.zeros(len(end))
        first_day = self.days[np.minimum(first, len(self.days) - 1)] if len(self.days) else np.zeros(len(end))
        recency = np.where(bought, now - last_day, NEVER)
        counts = {days: end - self.ends(now - days) for days in WINDOWS}
        paid = np.concatenate([[0.0], np.cumsum(self.amounts)])
        amounts = {days: paid[end] - paid[end - count] for days, count in counts.items()}
        total = paid[end] - paid[first]
        n_gaps = np.maximum(orders - 1, 0)
        mean = np.where(n_gaps > 0, (last_day - first_day) / np.maximum(n_gaps, 1), NO_GAP)
        longest = np.where(n_gaps > 0, self._longest_gaps[np.maximum(end - 1, 0)] if len(self.days) else 0.0, NO_GAP)
        found = {
            "days_since_last_order": recency,
            "days_since_first_order": np.where(bought, now - first_day, 0.0),
            "orders_total": orders,
            **{f"orders_{days}d": count for days, count in counts.items()},
            **{f"orders_trend_{days}d": trend(counts[days], counts[2 * days]) for days in (14, 28)},
            "orders_trend_91d": trend(counts[91], counts[182]),
            **{f"amount_{days}d": amount for days, amount in amounts.items()},
            "amount_total": total,
            "order_value_mean": total / np.maximum(orders, 1.0),
            **{name: (2.0 * amounts[days] - amounts[2 * days]) / days for days, name in SLOPES.items()},
            "gap_days_mean": mean,
            "gap_days_std": self._gap_spread(first, end),
            "gaps_silent": np.where(mean > 0, recency / np.where(mean > 0, mean, 1.0), 0.0),
            "gap_days_max": longest,
            "gaps_silent_max": np.where(longest > 0, recency / np.where(longest > 0, longest, 1.0), 0.0),
            "gap_days_mean_91d": self._gap_mean(np.maximum(end - counts[91], first + 1), end, NO_GAP),
            "last_gap_days": self._gap_mean(np.maximum(end - 1, first + 1), end, 0.0),
            "order_gap_days_mean_182d": self._gap_mean(end - counts[182] + 1, end, 182.0),
            "order_gap_days_std_182d": self._gap_spread(end - counts[182], end),
            "order_weeks_91d": self._calendar_weeks(end - counts[91], end),
        }
        if self.categories is not None:
            found[EXPECTED_CATEGORIES] = self.categories.expected(now)
        return np.column_stack([found[name] for name in names]).astype(np.float32)

    @cached_property
    def _same_week_before(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The customer of each order, and the place of the customer's order before in the same week, −1 without one."""
        owners = np.repeat(np.arange(len(self.one_ids)), np.diff(self.starts))
        order = np.lexsort((self.weeks, owners))
        repeats = (np.diff(owners[order]) == 0) & (np.diff(self.weeks[order]) == 0)
        before = np.full(len(owners), -1)
        before[order[1:][repeats]] = order[:-1][repeats]
        return owners, before

    @cached_property
    def _gaps(self) -> Floats:
        """Days from the order before to each order, 0 for the first order of a customer; shape of `days`."""
        gaps = np.diff(self.days, prepend=np.nan)
        gaps[self.starts[:-1][np.diff(self.starts) > 0]] = 0.0
        return gaps

    @cached_property
    def _gap_sums(self) -> tuple[Floats, Floats]:
        """Sums of the gaps and of their squares before each place, each one longer than `days`."""
        sums, squares = (np.concatenate([[0.0], np.cumsum(values)]) for values in (self._gaps, np.square(self._gaps)))
        return sums, squares

    @cached_property
    def _longest_gaps(self) -> Floats:
        """The longest gap of the customer up to each order; shape of `days`."""
        # an offset that grows from customer to customer keeps the running maximum within each
        offsets = np.repeat(np.arange(len(self.one_ids)) * LONGER_THAN_ANY_GAP, np.diff(self.starts))
        return np.asarray(np.maximum.accumulate(self._gaps + offsets) - offsets)

    def _gap_mean(self, begin: NDArray[np.int64], end: NDArray[np.int64], default: float) -> Floats:
        """Mean gap before the orders of the places ``[begin, end)`` of each customer; `default` without any."""
        size = end - begin
        total = self._gap_sums[0][end] - self._gap_sums[0][np.minimum(begin, end)]
        return np.where(size > 0, total / np.maximum(size, 1), default)

    def _gap_spread(self, begin: NDArray[np.int64], end: NDArray[np.int64]) -> Floats:
        """Standard deviation of the gaps between the orders of the places ``[begin, end)``; 0 with fewer than two."""
        sums, squares = self._gap_sums
        size, after = end - begin - 1, np.minimum(begin + 1, end)
        mean = (sums[end] - sums[after]) / np.maximum(size, 1)
        left = squares[end] - squares[after] - np.maximum(size, 0) * np.square(mean)
        return np.where(size > 1, np.sqrt(np.maximum(left, 0.0) / np.maximum(size - 1, 1)), 0.0)

    def _calendar_weeks(self, begin: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.int64]:
        """Different calendar weeks of the orders of the places ``[begin, end)`` of each customer, shape (n,)."""
        # distinct ones, not changes from order to order: an order that is only a date may be of a later local day, and
        # so of a later week, than one with a clock time that comes after it
        places, (owners, same_week) = np.arange(len(self.days)), self._same_week_before
        first = begin[owners]
        counted = (places >= first) & (places < end[owners]) & (same_week < first)
        return np.bincount(owners[counted], minlength=len(self.one_ids))

    def weeks_with_order(self, as_of: datetime, days: int) -> NDArray[np.int64]:
        """In how many of the weeks that begin at a moment, the last one cut at `days`, customers order, shape (n,)."""
        edges = [*range(0, days, WEEK_DAYS), days]
        ends = np.array([self.ends(day_number(as_of) + edge) for edge in edges])
        return np.asarray((np.diff(ends, axis=0) > 0).sum(axis=0), dtype=np.int64)

    def active_weeks(self, as_of: datetime, weeks: int) -> NDArray[np.int64]:
        """In how many of the last weeks, each of seven days, each customer has an order before a moment, shape (n,)."""
        edges = np.array([self.ends(day_number(as_of) - 7 * back) for back in range(weeks + 1)])
        return np.asarray((np.diff(edges, axis=0) < 0).sum(axis=0), dtype=np.int64)

    def active(self, as_of: datetime, active_days: int) -> NDArray[np.int64]:
        """Customers with an order in the last `active_days`, as places in `one_ids`."""
        now, end = day_number(as_of), self.ends(day_number(as_of))
        rows = np.flatnonzero(end > self.starts[:-1])
        recency = (now - self.days[end[rows] - 1]).astype(np.float32)
        return rows[recency <= active_days]

    def totals(self, start: datetime, end: datetime) -> tuple[Floats, Floats]:
        """Number and paid amount of each customer's orders in ``[start, end)``, each of shape (n,)."""
        begin, stop = self.ends(day_number(start)), self.ends(day_number(end))
        paid = np.concatenate([[0.0], np.cumsum(self.amounts)])
        return (stop - begin).astype(np.float64), paid[stop] - paid[begin]

    def days_to_next(self, as_of: datetime) -> Floats:
        """Days from a moment to each customer's next order, (n,); infinite if there is none before the end."""
        place = self.ends(day_number(as_of))
        came = place < self.starts[1:]
        days = self.days[np.minimum(place, max(len(self.days) - 1, 0))] if len(self.days) else np.zeros(len(place))
        return np.where(came, days - day_number(as_of), np.inf)

    def bought(self, start: datetime, end: datetime) -> NDArray[np.bool_]:
        """Whether each customer has an order in ``[start, end)``, shape (n,)."""
        return self.ends(day_number(end)) > self.ends(day_number(start))

    def times_before(self, as_of: datetime, max_customers: int) -> OrderTimes:
        """Order times before a moment, as the purchase process is fitted on, of at most `max_customers` customers."""
        sizes = self.ends(day_number(as_of)) - self.starts[:-1]
        sizes[np.flatnonzero(sizes)[max_customers:]] = 0
        places = np.arange(len(self.days)) - np.repeat(self.starts[:-1], np.diff(self.starts))
        kept = places < np.repeat(sizes, np.diff(self.starts))
        now = day_number(as_of)
        starts = np.concatenate([[0], np.cumsum(sizes[sizes > 0])]).astype(np.int64)
        return OrderTimes(starts, self.days[kept] - now, now)
