"""The tables of `Histories` and the features of pairs by the C extensions; both need `compiled.COMPILED`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from features.interactions import Interactions
from models.recommend.ranking import compiled
from models.recommend.ranking.history_tables import (
    GROUP_FEATURES,
    GROUPS,
    HALF_LIVES,
    NO_GROUP,
    NO_PAIR,
    ORDER_HALF_LIFE,
    PAIR_FEATURES,
    USER_FEATURES,
    Tables,
)

if TYPE_CHECKING:
    from models.recommend.ranking.histories import Histories
    from models.recommend.ranking.item_statistics import ItemStatistics

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

NO_PAIR_ROW, NO_GROUP_ROW = np.array(NO_PAIR, dtype=np.float32), np.array(NO_GROUP, dtype=np.float32)
NEGATIVE_HALF_LIVES = -np.array(HALF_LIVES, dtype=np.float64)
# weights of orders by their place; the powers beyond are 0 in double precision
ORDER_DECAYS = np.exp2(-np.arange(1100.0 * ORDER_HALF_LIFE) / ORDER_HALF_LIFE)


def compiled_tables(lines: Interactions, codes: Mapping[str, Ints]) -> Tables:
    """Compute `history_tables` by the extension."""
    m, n_users = len(lines), lines.shape[0]
    ages = lines.age_days.astype(np.float64)
    # room for as many rows as there can be; the row past the last one serves keys that are missing
    pair_keys, pairs = np.empty(m, dtype=np.int64), np.empty((m + 1, len(PAIR_FEATURES)), dtype=np.float32)
    group_keys = np.empty(len(GROUPS) * m, dtype=np.int64)
    groups = np.empty((len(GROUPS) * m + 1, len(GROUP_FEATURES)), dtype=np.float32)
    users = np.empty((n_users, len(USER_FEATURES)), dtype=np.float32)
    n_pairs, n_groups = compiled._histories.tables(
        _contiguous(lines.users, np.int32),
        _contiguous(lines.items, np.int32),
        _contiguous(lines.age_days, np.float32),
        _contiguous(lines.orders, np.int32),
        _contiguous(lines.quantities, np.float32),
        _contiguous(lines.amounts, np.float32),
        _contiguous(lines.discounts, np.float32),
        np.exp2(ages[:, None] / NEGATIVE_HALF_LIVES),
        ORDER_DECAYS,
        *(_contiguous(codes[name], np.int64) for name in GROUPS),
        pair_keys,
        pairs,
        users,
        group_keys,
        groups,
    )
    pairs[n_pairs], groups[n_groups] = NO_PAIR_ROW, NO_GROUP_ROW
    return pair_keys[:n_pairs], pairs[: n_pairs + 1], users, group_keys[:n_groups], groups[: n_groups + 1]


def compiled_features(histories: Histories, items: ItemStatistics, rows: Ints, ids: Ints, out: Floats) -> None:
    """Compute `features.features` by the extension into `out`."""
    compiled._features.features(
        histories.pair_keys,
        histories.pairs,
        histories.users,
        histories.group_keys,
        histories.groups,
        _contiguous(items.table, np.float32),
        *(_contiguous(items.codes[name], np.int64) for name in GROUPS),
        *(_contiguous(trend, np.float32) for trend in items.trends),
        _contiguous(rows, np.int64),
        _contiguous(ids, np.int64),
        out,
    )


def _contiguous(values: NDArray[Any] | None, dtype: type) -> NDArray[Any] | None:
    return None if values is None else np.ascontiguousarray(values, dtype=dtype)
