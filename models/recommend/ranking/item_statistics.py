"""Statistics of items before a cutoff, over all customers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.interactions import TrainingSet
from models.recommend.ranking.histories import PAIR_FEATURES, RECENT_DAYS, Histories

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
    "item_price",
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
    def of(cls, histories: Histories, n_items: int, codes: Mapping[str, Ints], price: Floats) -> ItemStatistics:
        """Compute the statistics from the histories of all customers."""
        pairs, item = histories.pairs[:-1], histories.pair_keys % max(n_items, 1)
        column = {name: pairs[:, place].astype(np.float64) for place, name in enumerate(PAIR_FEATURES)}
        last, first = column["days_since_last"], column["days_since_first"]

        def customers(kept: NDArray[np.bool_]) -> NDArray[np.float64]:
            return np.bincount(item[kept], minlength=n_items).astype(np.float64)

        all_customers = customers(np.ones(len(item), dtype=bool))
        within = {days: customers(last <= days) for days in (7, 14, 28, 56, 112)}
        bought_earlier = histories.purchased_28_56d > 0
        earlier, again = customers(bought_earlier), customers(bought_earlier & (last <= RECENT_DAYS))
        owners, back = customers(first > RECENT_DAYS), customers((first > RECENT_DAYS) & (last <= RECENT_DAYS))
        gap = column["mean_gap"]
        timed = np.isfinite(gap)
        logs = np.log(np.maximum(gap[timed], 0.5))
        mean_log_gap = float(logs.mean()) if len(logs) else np.log(RECENT_DAYS)
        # the mean gap of an item with few customers is shrunk towards that of all items
        log_gap_sums = np.bincount(item[timed], logs, minlength=n_items)
        typical = (log_gap_sums + 2 * mean_log_gap) / (np.bincount(item[timed], minlength=n_items) + 2)
        newest, oldest = np.full(n_items, np.nan), np.full(n_items, np.nan)
        np.fmin.at(newest, item, last)
        np.fmax.at(oldest, item, first)
        table = np.column_stack(
            [
                all_customers,
                *within.values(),
                (4 * within[7] + 1) / (within[28] + 1),
                (within[28] + 1) / (earlier + 1),
                (within[28] + 1) / (within[112] / 4 + 1),
                _shrunk_rate(back, owners),
                _shrunk_rate(again, earlier),
                np.bincount(item, column["orders"], minlength=n_items) / np.maximum(all_customers, 1),
                np.exp(typical),
                newest,
                oldest,
                (customers(first <= RECENT_DAYS) + 1) / (within[28] + 2),
                price,
            ]
        )
        trends = tuple(
            ((recent[:, 0] + 1) / (recent[:, 1] + 1)).astype(np.float32) for recent in histories.group_recent
        )
        return cls(table.astype(np.float32), codes, trends)


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


def item_prices(train: TrainingSet) -> Floats:
    """Return the price of each item, (n_items,); NaN if unknown."""
    given = train.item_attributes.get("price")
    return np.full(train.n_items, np.nan, np.float32) if given is None else np.asarray(given, dtype=np.float32)


def _shrunk_rate(hits: NDArray[np.float64], of: NDArray[np.float64], strength: float = 5.0) -> NDArray[np.float64]:
    overall = float(hits.sum() / max(float(of.sum()), 1.0))
    return (hits + strength * overall) / (of + strength)


def _codes(values: NDArray[Any]) -> Ints:
    """Return dense codes of the distinct texts; −1 for ''."""
    texts = values.astype(np.str_)
    distinct, codes = np.unique(texts, return_inverse=True)
    shift = int(len(distinct) > 0 and distinct[0] == "")  # '' sorts first
    return codes.reshape(-1).astype(np.int64) - shift
