"""What customers paid: unit prices and discounts of order lines, by (customer, item), by customer and by item.

A discount is a share of the full price: the money taken off over the sum of it and the amount paid. Everything is NaN
where the lines have no amounts, and discounts are NaN where they have none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.interactions import Interactions, TrainingSet

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]

RECENT_DAYS, LATEST_DAYS = 28, 7
PRICE_PAIR_FEATURES = ("unit_price", "discount", "last_discount")
PRICE_USER_FEATURES = ("user_discount",)
PRICE_ITEM_FEATURES = (
    "item_price",
    "item_unit_price_28d",
    "item_price_drift",
    "item_discount",
    "item_discount_28d",
    "item_discount_7d",
)


@dataclass(frozen=True)
class Payments:
    """Sums of order lines from which prices are computed, each (m,); 0 where a line does not tell.

    Attributes
    ----------
    paid, units
        Amount and units of the lines that tell a unit price.
    off, full
        Discount and full price of the lines that tell both amount and discount.
    """

    paid: Doubles
    units: Doubles
    off: Doubles
    full: Doubles

    @classmethod
    def of(cls, lines: Interactions) -> Payments:
        """Return the payments of lines."""
        missing = np.full(len(lines.users), np.nan)
        amounts, off = (
            missing if column is None else column.astype(np.float64) for column in (lines.amounts, lines.discounts)
        )
        units = np.ones(len(missing)) if lines.quantities is None else lines.quantities.astype(np.float64)
        priced, told = (amounts > 0) & (units > 0), (amounts >= 0) & (off >= 0)
        return cls(
            np.where(priced, amounts, 0.0),
            np.where(priced, units, 0.0),
            np.where(told, off, 0.0),
            np.where(told, amounts + off, 0.0),
        )

    def by(self, keys: NDArray[np.integer[Any]], n: int, kept: NDArray[np.bool_] | None = None) -> Payments:
        """Sum the kept payments of each key in 0 … n − 1."""
        where = slice(None) if kept is None else kept
        columns = (self.paid, self.units, self.off, self.full)
        return Payments(*(np.bincount(keys[where], column[where], minlength=n) for column in columns))

    @property
    def unit_price(self) -> Doubles:
        """Amount per unit."""
        return ratio(self.paid, self.units)

    @property
    def discount(self) -> Doubles:
        """Share of the full price that was taken off."""
        return ratio(self.off, self.full)


def pair_prices(payments: Payments, runs: tuple[Ints, Ints], first: Ints) -> list[Doubles]:
    """Compute `PRICE_PAIR_FEATURES`.

    Parameters
    ----------
    runs : tuple of (n_lines,) and (n_entries,)
        All lines sorted by pair and order, the youngest order first, and the start of each order among them.
    first : ndarray of int64, (n_pairs,)
        First entry of each pair.
    """
    if not len(first):
        return [np.empty(0)] * len(PRICE_PAIR_FEATURES)
    by, starts = runs
    columns = (payments.paid, payments.units, payments.off, payments.full)
    orders = Payments(*(np.add.reduceat(column[by], starts) for column in columns))
    columns = (orders.paid, orders.units, orders.off, orders.full)
    pairs = Payments(*(np.add.reduceat(column, first) for column in columns))
    return [pairs.unit_price, pairs.discount, orders.discount[first]]


def user_prices(payments: Payments, users: NDArray[np.integer[Any]], n_users: int) -> list[Doubles]:
    """Compute `PRICE_USER_FEATURES`, each (n_users,)."""
    return [payments.by(users, n_users).discount]


def item_prices(train: TrainingSet) -> Floats:
    """Compute `PRICE_ITEM_FEATURES`, (n_items, features), at the end of the interactions.

    `item_price` is the attribute `price`, else the median price paid per unit. The other prices are means over the
    units sold, of all lines or of those of the last days; the drift is the price of the last 28 days over that of all.
    """
    lines, n = train.interactions, train.n_items
    given = train.item_attributes.get("price")
    payments = Payments.of(lines)
    ever = payments.by(lines.items, n)
    recent, latest = (payments.by(lines.items, n, lines.age_days <= days) for days in (RECENT_DAYS, LATEST_DAYS))
    table = [
        np.full(n, np.nan) if given is None else given,
        recent.unit_price,
        recent.unit_price / ever.unit_price,
        ever.discount,
        recent.discount,
        latest.discount,
    ]
    return np.column_stack(table).astype(np.float32)


def ratio(part: Doubles, whole: Doubles) -> Doubles:
    """Divide; NaN where `whole` is 0.

    Examples
    --------
    >>> ratio(np.array([1.0, 0.0]), np.array([4.0, 0.0])).tolist()
    [0.25, nan]
    """
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1.0), np.nan)
