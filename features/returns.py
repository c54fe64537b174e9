"""Returned goods: what refunds take back from the purchases of a customer.

A refund is a row of its own with a positive quantity. It takes units back from a sale of the same item in the same
order; if its order has none (a credit note has a number of its own), from the latest earlier sales of the item to the
same customer. It never takes more than was bought.

A shop may also mark the order itself as refunded. Such a row is the sale, and takes back nothing else. The rows look
like those of credit notes. The source declares which they are (`refunds: in_place` or `separate`); where it does not,
`are_credit_notes` decides by how often an earlier sale exists, and ingest warns if `is_unclear`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MIN_REFUNDS = 20  # below this number the refunds of a source are always taken for credit notes
CLEAR_SHARE = 0.9  # so are they if at least this share of them has an earlier sale
UNCLEAR_MARGIN = 0.25  # of the way from the share of orders marked as refunded to that of credit notes
MIN_APART = 0.2  # the least difference between the two shares that tells anything
DAY = 86_400_000_000  # in microseconds
UNDATED = np.iinfo(np.int64).min
TOLERANCE = 1e-9  # of quantities, relative; goods may be sold by weight


@dataclass(frozen=True)
class Lines:
    """Order lines as parallel arrays.

    Attributes
    ----------
    pairs : int64 array, shape (m,)
        Code of the customer and the item.
    orders : int64 array, shape (m,)
        Code of the source and the order.
    times : int64 array, shape (m,)
        Time of the line in microseconds; `UNDATED` if unknown, which is earlier than every time.
    quantities : float64 array, shape (m,)
        Units, ≥ 0; NaN if unknown.
    """

    pairs: NDArray[np.int64]
    orders: NDArray[np.int64]
    times: NDArray[np.int64]
    quantities: NDArray[np.float64]

    def where(self, kept: NDArray[np.bool_]) -> Lines:
        """Lines selected by a mask of shape (m,)."""
        return Lines(self.pairs[kept], self.orders[kept], self.times[kept], self.quantities[kept])


def are_credit_notes(matched: int, refunds: int, repeat_share: float) -> bool:
    """Whether refunds without a sale in their own order are credit notes, and not orders marked as refunded.

    A credit note has an earlier sale of its item to its customer. An order marked as refunded has one only if the
    customer had bought the item before, as often as any other line does. The refunds are credit notes if the share of
    them with an earlier sale is closer to 1 than to `repeat_share`, or at least `CLEAR_SHARE`.

    Parameters
    ----------
    matched : int
        Number of the refunds with an earlier sale.
    refunds : int
        Number of these refunds.
    repeat_share : float
        Share of the sales that have an earlier sale of the item to the same customer.

    Examples
    --------
    >>> are_credit_notes(90, 100, 0.2), are_credit_notes(25, 100, 0.2), are_credit_notes(1, 3, 0.2)
    (True, False, True)
    """
    return refunds < MIN_REFUNDS or matched / refunds > min((1.0 + repeat_share) / 2.0, CLEAR_SHARE)


def is_unclear(matched: int, refunds: int, repeat_share: float) -> bool:
    """Whether the share of refunds with an earlier sale lies between those of the two kinds, so that it tells neither.

    It also does if customers buy the same items so often that the two kinds have nearly the same share.

    Examples
    --------
    >>> is_unclear(90, 100, 0.2), is_unclear(25, 100, 0.2), is_unclear(60, 100, 0.2), is_unclear(85, 100, 0.85)
    (False, False, True, True)
    """
    if refunds < MIN_REFUNDS:
        return False
    share = matched / refunds
    return repeat_share + UNCLEAR_MARGIN * (1.0 - repeat_share) < share < CLEAR_SHARE or repeat_share > 1.0 - MIN_APART


def has_earlier_sale(sales: Lines, refunds: Lines) -> NDArray[np.bool_]:
    """Whether the customer of each refund bought its item before it or at the same time, shape (r,)."""
    pairs, of = np.unique(sales.pairs, return_inverse=True)
    first = np.full(len(pairs), np.iinfo(np.int64).max)
    np.minimum.at(first, of, sales.times)
    at = np.minimum(np.searchsorted(pairs, refunds.pairs), max(len(pairs) - 1, 0))
    if not len(pairs):
        return np.zeros(len(refunds.pairs), dtype=bool)
    return np.asarray((pairs[at] == refunds.pairs) & (first[at] <= refunds.times))


def own_sales(sales: Lines, refunds: Lines) -> list[list[int]]:
    """Rows of the sales of each refund's customer and item in the refund's order, up to a day after the refund.

    A refund that is dated without a clock time may seem to lie before a sale of its day.
    """
    by_order: dict[tuple[int, int], list[int]] = {}
    known = np.flatnonzero(np.isin(sales.orders, refunds.orders))
    for sale, pair, order in zip(
        known.tolist(), sales.pairs[known].tolist(), sales.orders[known].tolist(), strict=True
    ):
        by_order.setdefault((pair, order), []).append(sale)
    times = sales.times.tolist()
    rows = zip(refunds.pairs.tolist(), refunds.orders.tolist(), refunds.times.tolist(), strict=True)
    return [
        [sale for sale in by_order.get((pair, order), ()) if times[sale] < time + DAY] for pair, order, time in rows
    ]


def settle(sales: Lines, refunds: Lines) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Take the refunded units from the sales.

    A sale of unknown quantity counts as one unit; a refund of unknown quantity takes back a whole line.

    Returns
    -------
    kept : ndarray of float64, shape (m,)
        Share of each sale that was kept, 0 to 1.
    times : ndarray of int64, shape (m,)
        Time at which the last unit of a sale was given back; meaningless where anything was kept.

    Examples
    --------
    >>> zeros = np.zeros(2, np.int64)
    >>> sales = Lines(zeros, np.array([1, 2]), np.array([10, 20]), np.array([3.0, 1.0]))
    >>> refund = Lines(zeros[:1], np.array([9]), np.array([30]), np.array([2.0]))
    >>> kept, times = settle(sales, refund)  # the later sale, and one of the three units of the earlier one
    >>> kept.round(2).tolist(), int(times[1])
    ([0.67, 0.0], 30)
    """
    units = np.where(np.isnan(sales.quantities), 1.0, sales.quantities)
    left, return_times = units.tolist(), [UNDATED] * len(units)
    own_rows = own_sales(sales, refunds)
    times = refunds.times.copy()
    for refund, own in enumerate(own_rows):
        if own:  # the goods cannot go back before their sale
            times[refund] = max(times[refund], min(int(sales.times[sale]) for sale in own))
    pairs, moments = np.concatenate([sales.pairs, refunds.pairs]), np.concatenate([sales.times, times])
    is_refund = np.arange(len(pairs)) >= len(units)
    in_order = np.lexsort((is_refund, moments, pairs))  # a sale before the refunds of its moment; else in row order
    quantities = refunds.quantities.tolist()
    earlier: list[int] = []  # sales of the pair, oldest first
    current = None
    for row, pair, time in zip(in_order.tolist(), pairs[in_order].tolist(), moments[in_order].tolist(), strict=True):
        if pair != current:
            current, earlier = pair, []
        at = row - len(units)
        if at < 0:
            earlier.append(row)
            continue
        wanted = quantities[at]
        whole_line = wanted != wanted  # NaN
        for sale in reversed(own_rows[at] or earlier):
            if left[sale] <= 0.0:
                continue
            moved = left[sale] if whole_line else min(wanted, left[sale])
            left[sale] -= moved
            if left[sale] <= TOLERANCE * units[sale]:
                left[sale], return_times[sale] = 0.0, max(time, int(sales.times[sale]))
            if whole_line:
                break
            wanted -= moved
            if wanted <= 0.0:
                break
    kept = np.ones(len(units))
    np.divide(np.asarray(left), units, out=kept, where=units > 0)
    return kept, np.asarray(return_times, dtype=np.int64)
