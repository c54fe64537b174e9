"""What customers paid: unit prices and discounts of order lines, by (customer, item), by customer and by item.

A discount is a share of the full price: the money taken off over the sum of it and the amount paid. Everything is NaN
where the lines have no amounts, and discounts are NaN where they have none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.interactions import Interactions, TrainingSet
from models.recommend.ranking.item_sums import BLOCK_LINES, RECENT_DAYS
from models.recommend.ranking.order_places import run_sums
from models.recommend.sampling import customer_blocks

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]

LATEST_DAYS = 7
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
        return self._map(lambda column: np.bincount(keys[where], column[where], minlength=n).astype(np.float64))

    def runs(self, starts: Ints) -> Payments:
        """Sum runs of payments that begin at `starts`."""
        return self._map(lambda column: run_sums(column, starts))

    def take(self, places: Ints) -> Payments:
        """Select payments."""
        return self._map(lambda column: column[places])

    def plus(self, other: Payments) -> Payments:
        """Add the payments of the same keys."""
        return Payments(self.paid + other.paid, self.units + other.units, self.off + other.off, self.full + other.full)

    def _map(self, change: Callable[[Doubles], Doubles]) -> Payments:
        return Payments(change(self.paid), change(self.units), change(self.off), change(self.full))

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
    by, starts = runs
    orders = payments.take(by).runs(starts)
    pairs = orders.runs(first)
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
    nothing = np.zeros(n)
    ever = recent = latest = Payments(nothing, nothing, nothing, nothing)
    for customers in customer_blocks(lines.users, BLOCK_LINES):
        block = lines.where(customers)
        payments = Payments.of(block)
        ever = ever.plus(payments.by(block.items, n))
        recent = recent.plus(payments.by(block.items, n, block.age_days <= RECENT_DAYS))
        latest = latest.plus(payments.by(block.items, n, block.age_days <= LATEST_DAYS))
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
    known = np.full(len(whole), np.nan)
    np.divide(part, whole, out=known, where=whole > 0)
    return known
