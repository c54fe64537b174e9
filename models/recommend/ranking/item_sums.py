"""Sums over all customers from which `ItemStatistics` are computed, added up by blocks of customers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.interactions import Interactions

Ints = NDArray[np.int64]
Doubles = NDArray[np.float64]

BLOCK_LINES = 1_000_000  # interactions whose sums are computed at a time: about 100 MB
CUSTOMER_WINDOWS = (7, 14, 28, 56, 112)  # days
RECENT_DAYS = 28


@dataclass(frozen=True)
class ItemSums:
    """Sums of each item over customers; the sums of all customers are those of blocks of customers, added up.

    Attributes
    ----------
    customers, orders : ndarray of float64, (n_items,)
        Customers of the item, and their orders with it.
    within : mapping of int to ndarray of float64, (n_items,)
        Days → customers who bought it in so many days.
    earlier, again : ndarray of float64, (n_items,)
        Customers who bought it 28 to 56 days ago, and those of them who bought it since.
    owners, back : ndarray of float64, (n_items,)
        Customers whose first purchase is more than 28 days ago, and those of them who bought it since.
    timed, log_gaps : ndarray of float64, (n_items,)
        Customers with several orders of it, and the sum of the logarithms of their mean gaps in days.
    newest, oldest : ndarray of float64, (n_items,)
        Days since the last and since the first purchase; NaN without one.
    group_recent : tuple of ndarray of float64, each (groups, 2)
        Orders with each group of items in the last 28 days and in the 28 days before.
    """

    customers: Doubles
    orders: Doubles
    within: Mapping[int, Doubles]
    earlier: Doubles
    again: Doubles
    owners: Doubles
    back: Doubles
    timed: Doubles
    log_gaps: Doubles
    newest: Doubles
    oldest: Doubles
    group_recent: tuple[Doubles, ...]

    @classmethod
    def of(cls, lines: Interactions, codes: Mapping[str, Ints]) -> ItemSums:
        """Add up the interactions of all customers; `codes` are the groups of each item, −1 if unknown."""
        n_items = lines.shape[1]

        def zeros() -> Doubles:
            return np.zeros(n_items)

        within = {days: zeros() for days in CUSTOMER_WINDOWS}
        widths = [int(code.max(initial=-1)) + 1 for code in codes.values()]
        recent = tuple(np.zeros((width, 2)) for width in widths)
        newest, oldest = np.full(n_items, np.nan), np.full(n_items, np.nan)
        total = cls(
            zeros(), zeros(), within, zeros(), zeros(), zeros(), zeros(), zeros(), zeros(), newest, oldest, recent
        )
        for block in customer_blocks(lines.users, BLOCK_LINES):
            total._add(lines.where(block), codes)
        return total

    def _add(self, lines: Interactions, codes: Mapping[str, Ints]) -> None:
        n_items = lines.shape[1]
        place, order, when = _orders(lines)
        keys = (lines.users.astype(np.int64) * n_items + lines.items) * (int(place.max(initial=0)) + 1) + place
        by = np.argsort(keys)
        keys, by = keys[by], by[np.diff(keys[by], prepend=-1) != 0]  # one line for each item of an order
        keys = (lines.users[by].astype(np.int64)) * n_items + lines.items[by]
        age = when[order[by]]
        first = np.flatnonzero(np.diff(keys, prepend=-1) != 0)
        item = keys[first] % n_items
        last, oldest = np.minimum.reduceat(age, first), np.maximum.reduceat(age, first)
        count = np.diff(np.append(first, len(keys)))
        between = (age > RECENT_DAYS) & (age <= 2 * RECENT_DAYS)
        bought_earlier = np.logical_or.reduceat(between, first)

        def add(total: Doubles, kept: NDArray[np.bool_], weights: Doubles | None = None) -> None:
            total += np.bincount(item[kept], None if weights is None else weights[kept], minlength=n_items)

        everyone = np.ones(len(item), dtype=bool)
        add(self.customers, everyone)
        add(self.orders, everyone, count.astype(np.float64))
        for days, customers in self.within.items():
            add(customers, last <= days)
        recent = last <= RECENT_DAYS
        add(self.earlier, bought_earlier)
        add(self.again, bought_earlier & recent)
        add(self.owners, oldest > RECENT_DAYS)
        add(self.back, (oldest > RECENT_DAYS) & recent)
        gap = ((oldest - last) / np.maximum(count - 1, 1)).astype(np.float32).astype(np.float64)
        add(self.timed, count > 1)
        add(self.log_gaps, count > 1, np.log(np.maximum(gap, 0.5)))
        np.fmin.at(self.newest, item, last)
        np.fmax.at(self.oldest, item, oldest)
        late = when[order] <= 2 * RECENT_DAYS
        items, order = lines.items[late], order[late]
        for code, total in zip(codes.values(), self.group_recent, strict=True):
            self._add_groups(code[items], order, when, total)

    @staticmethod
    def _add_groups(code: Ints, order: Ints, when: Doubles, total: Doubles) -> None:
        known = code >= 0
        width = max(len(total), 1)
        distinct = np.unique(order[known] * width + code[known])
        age = when[distinct // width]
        for column, low in enumerate((0, RECENT_DAYS)):
            kept = (age > low) & (age <= low + RECENT_DAYS)
            total[:, column] += np.bincount(distinct[kept] % width, minlength=len(total))[: len(total)]


def customer_blocks(users: NDArray[np.int32], most: int) -> Iterator[slice]:
    """Divide interactions, sorted by user, into runs of whole users of about `most` interactions.

    Examples
    --------
    >>> list(customer_blocks(np.array([0, 0, 1, 2, 2, 2], np.int32), 3))
    [slice(0, 3, None), slice(3, 6, None)]
    """
    start = 0
    while start < len(users):
        stop = min(start + most, len(users))
        # back to where the last user begins, or on to where a user with many interactions ends
        stop = stop if stop == len(users) else int(np.searchsorted(users, users[stop]))
        if stop <= start:
            stop = int(np.searchsorted(users, users[start], side="right"))
        yield slice(start, stop)
        start = stop


def _orders(lines: Interactions) -> tuple[Ints, Ints, Doubles]:
    """Group lines into orders; without order numbers, the lines of a user on one day are an order.

    Returns
    -------
    place, order : (n_lines,)
        Number of the order among those of the user, and index of the order in `when`.
    when : (n_orders,)
        Age of each order: that of its youngest line.
    """
    names = np.floor(lines.age_days).astype(np.int64) if lines.orders is None else lines.orders.astype(np.int64)
    names = names - names.min(initial=0)
    keys = lines.users.astype(np.int64) * (int(names.max(initial=0)) + 1) + names
    by = np.argsort(keys)
    first = np.flatnonzero(np.diff(keys[by], prepend=-1) != 0)
    when = np.minimum.reduceat(lines.age_days[by].astype(np.float64), first)
    order = np.empty(len(by), dtype=np.int64)
    order[by] = np.repeat(np.arange(len(first)), np.diff(np.append(first, len(by))))
    owner = lines.users[by][first]
    return order - np.searchsorted(owner, lines.users), order, when
