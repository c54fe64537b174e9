"""Features of a (customer, item) pair for the ranker: recency, frequency, purchase intervals, popularity, prices.

They are looked up in `Histories` (customers) and `ItemStatistics` (items). Both use only interactions before a cutoff,
so the same code serves the earlier cutoffs of training, the time of the fit, and users with interactions after the fit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.recommend.ranking.compiled import COMPILED
from models.recommend.ranking.compiled_histories import compiled_features
from models.recommend.ranking.histories import Histories, rows_of_keys
from models.recommend.ranking.history_tables import GROUP_FEATURES, GROUPS, PAIR_FEATURES, USER_FEATURES
from models.recommend.ranking.item_statistics import ITEM_FEATURES, ItemStatistics

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

CROSS_FEATURES = (
    "last_to_item_gap",
    "expected_rate",
    "due_in_orders",
    "rising_habit",
    "share_of_visits",
    "share_of_visits_56d",
    "price_against_own",
    "discount_against_own",
    "discount_against_user",
    *(f"share_of_{name}" for name in GROUPS),
)
FEATURES = (
    *PAIR_FEATURES,
    *USER_FEATURES,
    *ITEM_FEATURES,
    *(f"{group}_{name}" for group in GROUPS for name in (*GROUP_FEATURES, "trend")),
    *CROSS_FEATURES,
)


def features(histories: Histories, items: ItemStatistics, rows: Ints, ids: Ints) -> Floats:
    """Compute `FEATURES` for (customer, item) pairs, (m, len(FEATURES)); NaN for missing values.

    Parameters
    ----------
    histories : Histories
        Histories of the customers.
    items : ItemStatistics
        Statistics of the items.
    rows, ids : ndarray of int64, (m,)
        Row of the customer in `histories`, and the item.
    """
    table = np.empty((len(ids), len(FEATURES)), dtype=np.float32)
    (compiled_features if COMPILED else look_up_features)(histories, items, rows, ids, table)
    return table


def look_up_features(histories: Histories, items: ItemStatistics, rows: Ints, ids: Ints, table: Floats) -> None:
    """Fill the table of `features` by NumPy: the reference of the C extension."""
    column = dict(zip(FEATURES, table.T, strict=True))
    of_user, of_item = len(PAIR_FEATURES), len(PAIR_FEATURES) + len(USER_FEATURES)
    table[:, :of_user] = histories.pairs[histories.pair_rows(rows * len(items.table) + ids)]
    table[:, of_user:of_item] = histories.users[rows]
    table[:, of_item : of_item + len(ITEM_FEATURES)] = items.table[ids]
    start = of_item + len(ITEM_FEATURES)
    codes = np.array([items.codes[name][ids] for name in GROUPS])
    owner = rows * len(GROUPS) + np.arange(len(GROUPS))[:, None]
    wanted = np.where(codes >= 0, owner * len(items.table) + codes, -1)
    own_groups = histories.groups[rows_of_keys(histories.group_keys, wanted)]
    for name, own, code, trend in zip(GROUPS, own_groups, codes, items.trends, strict=True):
        table[:, start : start + len(GROUP_FEATURES)] = own
        column[f"{name}_trend"][:] = np.where(code >= 0, trend[code], np.nan) if len(trend) else np.nan
        of_group, share = column[f"{name}_decayed_120d"], column[f"share_of_{name}"]
        share[:] = 0.0
        np.divide(column["decayed_120d"], np.maximum(of_group, np.float32(1e-12)), out=share, where=of_group > 0)
        start += len(GROUP_FEATURES) + 1
    column["last_to_item_gap"][:] = column["days_since_last"] / column["item_gap"]
    column["expected_rate"][:] = (column["orders"] + np.float32(0.5)) / (column["days_since_first"] + np.float32(40.0))
    column["due_in_orders"][:] = column["orders_since_last"] * column["share_of_orders"]
    column["rising_habit"][:] = column["decayed_45d"] * column["item_trend_28d"]
    column["share_of_visits"][:] = column["orders"] / np.maximum(column["user_orders"], 1)
    column["share_of_visits_56d"][:] = column["orders_56d"] / np.maximum(column["user_orders_56d"], 1)
    column["price_against_own"][:] = column["item_unit_price_28d"] / column["unit_price"]
    column["discount_against_own"][:] = column["item_discount_28d"] - column["discount"]
    column["discount_against_user"][:] = column["item_discount_28d"] - column["user_discount"]
