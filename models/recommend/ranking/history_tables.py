"""The tables of `Histories` in NumPy: the reference of the C extension, and what stands in for it where it is missing.

All sums add up the rows in their order, in double precision, so that both have the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.interactions import Interactions
from models.recommend.ranking.item_sums import RECENT_DAYS
from models.recommend.ranking.order_places import OrderPlaces, changes, run_lengths, run_sums
from models.recommend.ranking.prices import (
    PRICE_PAIR_FEATURES,
    PRICE_USER_FEATURES,
    Payments,
    pair_prices,
    user_prices,
)

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Tables = tuple[Ints, Floats, Floats, Ints, Floats]  # the fields of `Histories`

WINDOWS = (28, 56, 112)  # days
HALF_LIVES = (7, 20, 45, 120)  # days
ORDER_HALF_LIFE = 8.0  # orders
RHYTHM_FEATURES = (
    *(f"orders_{days}d" for days in WINDOWS),
    "orders",
    *(f"decayed_{days}d" for days in HALF_LIVES),
    "days_since_last",
    "days_since_first",
    "last_gap",
    "gap_before",
    "mean_gap",
    "gap_variation",
    "due",
    "orders_a_day",
)
PAIR_FEATURES = (
    *RHYTHM_FEATURES,
    "orders_since_last",
    "share_of_orders",
    "decayed_orders",
    "quantity",
    "amount",
    *PRICE_PAIR_FEATURES,
)
USER_FEATURES = (
    "user_orders_28d",
    "user_orders_56d",
    "user_orders_112d",
    "user_orders",
    "user_days_since_last",
    "user_days_since_first",
    "user_mean_gap",
    "user_items_28d",
    "user_items_56d",
    "user_basket",
    "user_distinct_items",
    "user_repeat_share",
    "user_repeat_share_28d",
    "user_quantity",
    "user_amount",
    *PRICE_USER_FEATURES,
)
GROUPS = ("category", "category_above", "brand")
GROUP_RHYTHM_FEATURES = ("decayed_120d", "days_since_last", "mean_gap", "due")
GROUP_FEATURES = (*GROUP_RHYTHM_FEATURES, "items")


def history_tables(lines: Interactions, codes: Mapping[str, Ints]) -> Tables:
    """Compute the fields of `Histories` from interactions and the groups of each item."""
    n_users, n_items = lines.shape
    users, items = lines.users.astype(np.int64), lines.items.astype(np.int64)
    ages = lines.age_days.astype(np.float64)
    orders = OrderPlaces.of(users, ages, lines.orders, n_users)
    entries = (users * n_items + items) * orders.span + orders.place
    by = np.argsort(entries, kind="stable")  # one key that is nearly sorted: a fifth of the time of two keys
    starts = np.flatnonzero(changes(entries[by]))
    keys, place = np.divmod(entries[by[starts]], orders.span)
    age, behind = orders.age(keys // max(n_items, 1), place), place.astype(np.float64)
    first = np.flatnonzero(changes(keys))
    pairs, count = keys[first], run_lengths(first, len(keys))
    last = first + count - 1
    payments = Payments.of(lines)
    unknown = np.full(len(pairs), np.nan)
    tables = [
        *_rhythm(age, first, count),
        behind[first],
        count / (behind[last] + 1.0),
        run_sums(np.exp2(-behind / ORDER_HALF_LIFE), first),
        unknown if lines.quantities is None else _mean_known(lines.quantities, (by, starts), first, count),
        unknown if lines.amounts is None else _mean_known(lines.amounts, (by, starts), first, count),
        *pair_prices(payments, (by, starts), first),
    ]
    table = _with_missing(tables, NO_PAIR)
    pair_user = pairs // max(n_items, 1)
    pair_items = pairs - pair_user * n_items
    of_lines, of_each = (np.array([codes[name][of] for name in GROUPS]) for of in (items, pair_items))
    group_keys, groups = _groups(orders, n_items, (users, of_lines), (pair_user, of_each))
    activity = _users(orders, pair_user, table[:-1], np.repeat(pair_user, count), age)
    per_user = np.array([*activity, *user_prices(payments, users, n_users)], dtype=np.float32).T
    return pairs, table, np.ascontiguousarray(per_user), group_keys, groups


def _rhythm(age: NDArray[np.float64], first: Ints, count: Ints) -> list[NDArray[np.float64]]:
    """Compute `RHYTHM_FEATURES` of runs of ascending ages that start at `first`."""
    ends = first + count - 1
    last, mean, steady = _intervals(age, first, count)
    oldest, several = age[ends], np.maximum(count - 1, 1)
    end = max(len(age) - 1, 0)
    further = [np.where(count > step, age[np.minimum(first + step, end)], np.nan) for step in (1, 2)]
    gaps = np.zeros(len(age))
    np.subtract(age[1:], age[:-1], out=gaps[:-1])
    gaps[ends] = 0.0
    spread = np.sqrt(np.maximum(run_sums(gaps * gaps, first) / several - mean**2, 0.0))
    return [
        *(run_sums(age <= days, first) for days in WINDOWS),
        count.astype(np.float64),
        *(run_sums(np.exp2(-age / days), first) for days in HALF_LIVES),
        last,
        oldest,
        further[0] - last,
        further[1] - further[0],
        mean,
        np.where(count > 2, spread / steady, np.nan),
        last / steady,
        count / np.maximum(oldest, 7.0),
    ]


def _group_rhythm(age: NDArray[np.float64], first: Ints, count: Ints) -> list[NDArray[np.float64]]:
    """Compute `GROUP_RHYTHM_FEATURES` of runs of ascending ages that start at `first`."""
    last, mean, steady = _intervals(age, first, count)
    return [run_sums(np.exp2(-age / 120), first), last, mean, last / steady]


def _intervals(
    age: NDArray[np.float64], first: Ints, count: Ints
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the first age and the mean interval of runs of ages, and the latter as a divisor."""
    last = age[first]
    mean = np.where(count > 1, (age[first + count - 1] - last) / np.maximum(count - 1, 1), np.nan)
    return last, mean, np.maximum(mean, 0.5)  # two orders on one day are not an interval


def _groups(
    orders: OrderPlaces, n_items: int, lines: tuple[Ints, Ints], pairs: tuple[Ints, Ints]
) -> tuple[Ints, Floats]:
    """Compute the keys and the table of all `GROUPS` at once.

    Parameters
    ----------
    lines, pairs : tuple of (m,) and (len(GROUPS), m)
        User and groups of each order line, and of each pair of user and item.
    """

    def group_keys(users: Ints, codes: Ints) -> tuple[Ints, NDArray[np.bool_]]:
        owners = users * len(GROUPS) + np.arange(len(GROUPS))[:, None]
        return codes + owners * n_items, codes >= 0

    entries, known = group_keys(*lines)
    entries *= orders.span
    entries += orders.place
    entries = entries[known]
    entries.sort()
    keys, place = np.divmod(entries[changes(entries)], orders.span)
    age = orders.age(keys // max(n_items, 1) // len(GROUPS), place)
    first = np.flatnonzero(changes(keys))
    held, pair_keys = keys[first], np.sort(np.extract(*reversed(group_keys(*pairs))))
    distinct = np.searchsorted(pair_keys, held, side="right") - np.searchsorted(pair_keys, held)
    return held, _with_missing([*_group_rhythm(age, first, run_lengths(first, len(keys))), distinct], NO_GROUP)


def _users(
    orders: OrderPlaces, pair_user: Ints, pairs: Floats, event_user: Ints, event_age: NDArray[np.float64]
) -> list[NDArray[np.float64]]:
    """Compute `USER_FEATURES` except the prices, each (n_users,), from the orders, pairs and entries of all users."""
    n_users = len(orders.first)

    def count(who: Ints, kept: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
        return np.bincount(who if kept is None else who[kept], minlength=n_users).astype(np.float64)

    def mean(name: str) -> NDArray[np.float64]:
        values = pairs[:, PAIR_FEATURES.index(name)].astype(np.float64)
        known = np.isfinite(values)
        sums, counts = np.bincount(pair_user[known], values[known], minlength=n_users), count(pair_user, known)
        return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)

    n_orders, events, distinct = count(orders.owner), count(event_user), count(pair_user)
    youngest, oldest = np.full(n_users, np.nan), np.full(n_users, np.nan)
    np.fmin.at(youngest, orders.owner, orders.when)
    np.fmax.at(oldest, orders.owner, orders.when)
    recent = {days: count(event_user, event_age <= days) for days in (28, 56)}
    new = count(pair_user, pairs[:, PAIR_FEATURES.index("days_since_first")] <= RECENT_DAYS)
    return [
        *(count(orders.owner, orders.when <= days) for days in WINDOWS),
        n_orders,
        youngest,
        oldest,
        (oldest - youngest) / np.maximum(n_orders - 1, 1),
        recent[28],
        recent[56],
        events / np.maximum(n_orders, 1),
        distinct,
        1 - distinct / np.maximum(events, 1),
        1 - new / np.maximum(recent[28], 1),
        mean("quantity"),
        mean("amount"),
    ]


def _mean_known(values: NDArray[np.float32], lines: tuple[Ints, Ints], first: Ints, count: Ints) -> NDArray[np.float64]:
    """Sum the known values per order and average over the orders of each pair; NaN if no value is known."""
    by, starts = lines
    given = values[by].astype(np.float64)
    known = np.isfinite(given)
    if known.all():
        return run_sums(run_sums(given, starts), first) / count
    per_order, any_known = run_sums(np.where(known, given, 0.0), starts), run_sums(known, starts) > 0
    counts = run_sums(any_known, first)
    return np.where(counts > 0, run_sums(per_order, first) / np.maximum(counts, 1), np.nan)


def _missing_row(names: tuple[str, ...]) -> list[float]:
    """The row of a key without purchases: counts are 0, the other features are missing."""
    counted = ("orders", "decayed", "share", "items")
    unknown = ("orders_since_last",)
    return [0.0 if name.startswith(counted) and name not in unknown else np.nan for name in names]


NO_PAIR, NO_GROUP = _missing_row(PAIR_FEATURES), _missing_row(GROUP_FEATURES)


def _with_missing(columns: Sequence[NDArray[Any]], missing: list[float]) -> Floats:
    """Join columns to a table with `missing` as its last row."""
    table = np.empty((len(columns[0]) + 1, len(columns)), dtype=np.float32)
    for place, column in enumerate(columns):
        table[:-1, place] = column
    table[-1] = missing
    return table
