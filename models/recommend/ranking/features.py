"""Features of a (customer, item) pair for the ranker: recency, frequency, purchase intervals, popularity, prices.

They are looked up in `Histories` (customers) and `ItemStatistics` (items). Both use only interactions before a cutoff,
so the same code serves the earlier cutoffs of training, the time of the fit, and users with interactions after the fit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.recommend.ranking.histories import (
    GROUP_FEATURES,
    GROUPS,
    PAIR_FEATURES,
    USER_FEATURES,
    Histories,
    rows_of_keys,
)
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
    pair = histories.pairs[histories.pair_rows(rows * len(items.table) + ids)]
    item = items.table[ids]
    user = histories.users[rows]
    blocks = [pair, user, item]
    shares = []
    decayed = pair[:, PAIR_FEATURES.index("decayed_120d")]
    for name, keys, table, trend in zip(GROUPS, histories.group_keys, histories.groups, items.trends, strict=True):
        code = items.codes[name][ids]
        wanted = np.where(code >= 0, rows * len(items.table) + code, -1)
        own = table[rows_of_keys(keys, wanted)]
        moving = np.append(trend, np.float32(np.nan))[code]  # the code −1 selects the NaN at the end
        blocks += [own, moving[:, None]]
        of_group = own[:, GROUP_FEATURES.index("decayed_120d")]
        shares.append(np.where(of_group > 0, decayed / np.maximum(of_group, np.float32(1e-12)), np.float32(0.0)))
    of_pair = {name: pair[:, place] for place, name in enumerate(PAIR_FEATURES)}
    of_user = {name: user[:, place] for place, name in enumerate(USER_FEATURES)}
    of_item = {name: item[:, place] for place, name in enumerate(ITEM_FEATURES)}
    crossed = [
        of_pair["days_since_last"] / of_item["item_gap"],
        (of_pair["orders"] + np.float32(0.5)) / (of_pair["days_since_first"] + np.float32(40.0)),
        of_pair["orders_since_last"] * of_pair["share_of_orders"],
        of_pair["decayed_45d"] * of_item["item_trend_28d"],
        of_pair["orders"] / np.maximum(of_user["user_orders"], 1),
        of_pair["orders_56d"] / np.maximum(of_user["user_orders_56d"], 1),
        of_item["item_unit_price_28d"] / of_pair["unit_price"],
        of_item["item_discount_28d"] - of_pair["discount"],
        of_item["item_discount_28d"] - of_user["user_discount"],
        *shares,
    ]
    return np.concatenate([*blocks, np.column_stack(crossed).astype(np.float32)], axis=1)
