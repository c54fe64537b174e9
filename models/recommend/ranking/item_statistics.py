"""Statistics of items before a cutoff, over all customers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.interactions import TrainingSet
from models.persist import Arrays
from models.recommend.ranking.history_tables import GROUPS
from models.recommend.ranking.item_sums import RECENT_DAYS, ItemSums
from models.recommend.ranking.prices import PRICE_ITEM_FEATURES, item_prices

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

ITEM_FEATURES = (
    "item_customers",
    "item_customers_7d",
    "item_customers_14d",
    "item_customers_28d",
    "item_customers_56d",
    "item_customers_112d",
    "item_trend_7d",
    "item_trend_28d",
    "item_trend_112d",
    "item_repurchase",
    "item_repurchase_recent",
    "item_orders_a_customer",
    "item_gap",
    "item_days_since_last",
    "item_days_since_first",
    "item_new_customers",
    *PRICE_ITEM_FEATURES,
)


@dataclass(frozen=True)
class ItemStatistics:
    """Statistics of items, their groups, and the sales trend of each group.

    Attributes
    ----------
    table : ndarray of float32, (n_items, len(ITEM_FEATURES))
        Statistics of each item.
    codes : mapping of str to ndarray of int64, each (n_items,)
        Group of each item for each of `GROUPS`; −1 if unknown.
    trends : tuple of ndarray of float32, each (groups,)
        For each of `GROUPS`, the orders of the last 28 days over those of the 28 days before.
    """

    table: Floats
    codes: Mapping[str, Ints]
    trends: tuple[Floats, ...]

    @classmethod
    def of(cls, sums: ItemSums, codes: Mapping[str, Ints], prices: Floats) -> ItemStatistics:
        """Compute the statistics from the sums over all customers and `prices.item_prices`."""
        customers, within = sums.customers, sums.within
        pairs_timed = float(sums.timed.sum())
        mean_log_gap = float(sums.log_gaps.sum()) / pairs_timed if pairs_timed else np.log(RECENT_DAYS)
        # the mean gap of an item with few customers is shrunk towards that of all items
        typical = (sums.log_gaps + 2 * mean_log_gap) / (sums.timed + 2)
        table = np.column_stack(
            [
                customers,
                *within.values(),
                (4 * within[7] + 1) / (within[28] + 1),
                (within[28] + 1) / (sums.earlier + 1),
                (within[28] + 1) / (within[112] / 4 + 1),
                _shrunk_rate(sums.back, sums.owners),
                _shrunk_rate(sums.again, sums.earlier),
                sums.orders / np.maximum(customers, 1),
                np.exp(typical),
                sums.newest,
                sums.oldest,
                (customers - sums.owners + 1) / (within[28] + 2),
                prices,
            ]
        )
        trends = tuple(((recent[:, 0] + 1) / (recent[:, 1] + 1)).astype(np.float32) for recent in sums.group_recent)
        return cls(table.astype(np.float32), codes, trends)

    def state(self) -> Arrays:
        """Return the arrays by name, for a saved model."""
        trends = {f"trend_{name}": trend for name, trend in zip(self.codes, self.trends, strict=True)}
        return {"statistics": self.table, **{f"codes_{name}": codes for name, codes in self.codes.items()}, **trends}

    @classmethod
    def restored(cls, state: Arrays) -> ItemStatistics:
        """Read the arrays of `state`."""
        codes = {name: state[f"codes_{name}"] for name in GROUPS}
        return cls(state["statistics"], codes, tuple(state[f"trend_{name}"] for name in GROUPS))


def item_statistics(train: TrainingSet) -> ItemStatistics:
    """Return the statistics of the items of a training set, computed once (`TrainingSet.memoize`)."""

    def compute() -> ItemStatistics:
        codes = item_groups(train.item_attributes)
        return ItemStatistics.of(ItemSums.of(train.interactions, codes), codes, item_prices(train))

    return train.memoize("item statistics", compute)


def item_groups(attributes: Mapping[str, NDArray[Any]]) -> dict[str, Ints]:
    """Return the group of each item for each of `GROUPS`, (n_items,) each; −1 if unknown.

    Examples
    --------
    >>> found = item_groups({"category": np.array(["food/milk", "food/tea", ""]), "brand": np.array(["a", "", "a"])})
    >>> {name: codes.tolist() for name, codes in found.items()}
    {'category': [0, 1, -1], 'category_above': [0, 0, -1], 'brand': [0, -1, 0]}
    """
    category = attributes["category"]
    above = np.array([path.rpartition("/")[0] for path in category.tolist()], dtype=np.str_)
    return {"category": _codes(category), "category_above": _codes(above), "brand": _codes(attributes["brand"])}


def _shrunk_rate(hits: NDArray[np.float64], of: NDArray[np.float64], strength: float = 5.0) -> NDArray[np.float64]:
    overall = float(hits.sum() / max(float(of.sum()), 1.0))
    return (hits + strength * overall) / (of + strength)


def _codes(values: NDArray[Any]) -> Ints:
    """Return dense codes of the distinct texts; −1 for ''."""
    texts = values.astype(np.str_)
    distinct, codes = np.unique(texts, return_inverse=True)
    shift = int(len(distinct) > 0 and distinct[0] == "")  # '' sorts first
    return codes.reshape(-1).astype(np.int64) - shift
