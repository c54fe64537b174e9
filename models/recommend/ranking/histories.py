"""Purchase histories before a cutoff, as tables by (user, item), by user, and by (user, group of items)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.interactions import Interactions
from models.recommend.query import Query
from models.recommend.ranking.item_sums import RECENT_DAYS
from models.recommend.ranking.prices import (
    PRICE_PAIR_FEATURES,
    PRICE_USER_FEATURES,
    Payments,
    pair_prices,
    user_prices,
)

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

WINDOWS = (28, 56, 112)  # days
HALF_LIVES = (7, 20, 45, 120)  # days
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
GROUP_COLUMNS = [RHYTHM_FEATURES.index(name) for name in GROUP_RHYTHM_FEATURES]


@dataclass(frozen=True)
class Histories:
    """Lookup tables of the purchase histories of n users.

    Attributes
    ----------
    pair_keys : ndarray of int64, (p,)
        ``user × n_items + item``, ascending.
    pairs : ndarray of float32, (p + 1, len(PAIR_FEATURES))
        One row per pair; the last row serves pairs without purchases.
    users : ndarray of float32, (n_users, len(USER_FEATURES))
        One row per user.
    group_keys : tuple of ndarray of int64
        For each of `GROUPS`, ``user × groups + group``, ascending.
    groups : tuple of ndarray of float32, (g + 1, len(GROUP_FEATURES))
        One row per key; the last row serves keys without purchases.
    """

    pair_keys: Ints
    pairs: Floats
    users: Floats
    group_keys: tuple[Ints, ...]
    groups: tuple[Floats, ...]

    @classmethod
    def of(cls, lines: Interactions, codes: Mapping[str, Ints]) -> Histories:
        """Build the tables; `codes` are the groups of each item (−1 if unknown) for each of `GROUPS`."""
        n_users, n_items = lines.shape
        users, items = lines.users.astype(np.int64), lines.items.astype(np.int64)
        ages = lines.age_days.astype(np.float64)
        owner, when, place, occasion = _orders(users, ages, lines.orders)
        keys, order, starts = _distinct(users * n_items + items, place)
        age, behind = when[occasion[order]], place[order].astype(np.float64)
        first = _starts(keys)
        pairs, count, last = keys[first], np.diff(np.append(first, len(keys))), np.append(first[1:], len(keys)) - 1
        payments = Payments.of(lines)
        zeros = np.zeros(len(pairs), dtype=np.float64)
        quantity = _mean_known(lines.quantities, starts, first) if lines.quantities is not None else zeros + np.nan
        amount = _mean_known(lines.amounts, starts, first) if lines.amounts is not None else zeros + np.nan
        behind_last = behind[first] if len(first) else zeros
        tables = [
            *_rhythm(age, first, count),
            behind_last,
            count / (behind[last] + 1.0) if len(first) else zeros,
            _run_sums(np.exp2(-behind / 8.0), first),
            quantity,
            amount,
            *pair_prices(payments, starts, first),
        ]
        table = _with_missing(np.column_stack(tables), PAIR_FEATURES)
        group_keys, groups = [], []
        for name in GROUPS:
            found = _group(codes[name], pairs, n_items, users, items, place, when, occasion)
            group_keys.append(found[0])
            groups.append(found[1])
        activity = _users(n_users, owner, when, pairs // max(n_items, 1), table[:-1], keys // max(n_items, 1), age)
        per_user = np.column_stack([activity, *user_prices(payments, users, n_users)]).astype(np.float32)
        return cls(pairs, table, per_user, tuple(group_keys), tuple(groups))

    def pair_rows(self, keys: Ints) -> Ints:
        """Return the row of each key in `pairs`; the last row for a key that is missing."""
        return rows_of_keys(self.pair_keys, keys)


def lines_of(lines: Interactions, starts: Ints, users: Ints) -> Interactions:
    """Select the interactions of users; they become the users 0 … n − 1 of the result.

    Parameters
    ----------
    lines : Interactions
        Interactions, sorted by user.
    starts : ndarray of int64, (n_users + 1,)
        Index of the first line of each user.
    users : ndarray of int64, (n,)
        User indices; −1 is a user without interactions.
    """
    first, counts = np.zeros_like(users), np.zeros_like(users)
    if len(starts) > 1:
        first = np.where(users >= 0, starts[np.maximum(users, 0)], 0)
        counts = np.where(users >= 0, starts[np.maximum(users, 0) + 1] - first, 0)
    at = np.arange(counts.sum()) + np.repeat(first - np.cumsum(counts) + counts, counts)
    rows = np.repeat(np.arange(len(users), dtype=np.int32), counts)
    return replace(lines.where(at), users=rows, shape=(len(users), lines.shape[1]))


def lines_now(lines: Interactions, starts: Ints, query: Query, changed: Ints) -> Interactions:
    """Combine the interactions of the fit and the recent ones for some users of a query, with ages until now.

    Parameters
    ----------
    lines, starts
        As in `lines_of`.
    query : Query
        A query with recent interactions.
    changed : ndarray of int64, (c,)
        Rows of the query; they become the users 0 … c − 1 of the result.
    """
    recent_interactions = query.recent_interactions
    if recent_interactions is None:  # only auxiliary ones: time has passed, and nothing was added
        recent_interactions = lines.where(np.empty(0, dtype=np.int64))
    place = np.full(len(query), -1, dtype=np.int64)
    place[changed] = np.arange(len(changed))
    old = lines_of(lines, starts, query.users[changed])
    ages = np.concatenate([old.age_days + np.float32(query.elapsed_days), recent_interactions.age_days])
    # order numbers are shifted so that an order of the fit and a recent order are never the same
    before = old.orders if old.orders is not None else np.floor(old.age_days)
    recent_orders = recent_interactions.orders
    after = recent_orders if recent_orders is not None else np.floor(recent_interactions.age_days)
    shift = before.max(initial=0) + 1 - after.min(initial=0)
    return Interactions(
        np.concatenate([old.users, place[recent_interactions.users]]).astype(np.int32),
        np.concatenate([old.items, recent_interactions.items]),
        ages,
        np.concatenate([old.weights, recent_interactions.weights]),
        (len(changed), lines.shape[1]),
        np.concatenate([before, after + shift]).astype(np.int32),
        quantities=_joined(
            old.quantities, recent_interactions.quantities, len(old.users), len(recent_interactions.users)
        ),
        amounts=_joined(old.amounts, recent_interactions.amounts, len(old.users), len(recent_interactions.users)),
        discounts=_joined(old.discounts, recent_interactions.discounts, len(old.users), len(recent_interactions.users)),
    )


def _orders(
    users: Ints, ages: NDArray[np.float64], orders: NDArray[np.int32] | None
) -> tuple[Ints, NDArray[np.float64], Ints, Ints]:
    """Group lines into orders; without order numbers, the lines of a user on one day are an order.

    Returns
    -------
    owner, when : (n_orders,)
        User and age of each order.
    younger : (n_lines,)
        Number of orders of the user that are younger than the order of the line.
    occasion : (n_lines,)
        Index of the order of each line.
    """
    names = np.floor(ages).astype(np.int64) if orders is None else orders.astype(np.int64)
    by = np.lexsort((names, users))
    changed = np.ones(len(by), dtype=bool)
    changed[1:] = (np.diff(users[by]) != 0) | (np.diff(names[by]) != 0)
    occasion = np.empty(len(by), dtype=np.int64)
    occasion[by] = np.cumsum(changed) - 1
    starts = np.flatnonzero(changed)
    owner = users[by][starts]
    when = np.minimum.reduceat(ages[by], starts) if len(starts) else np.empty(0)
    order = np.lexsort((when, owner))
    younger = np.empty(len(order), dtype=np.int64)
    younger[order] = np.arange(len(order)) - np.searchsorted(owner[order], owner[order])
    return owner, when, younger[occasion], occasion


def _distinct(keys: Ints, place: Ints) -> tuple[Ints, Ints, tuple[Ints, Ints]]:
    """Group lines by (key, order), with the youngest order first within a key.

    Returns
    -------
    keys, line : (n_entries,)
        Key of each entry, and one of its lines.
    runs : tuple of (n_lines,) and (n_entries,)
        All lines sorted by entry, and the start of each entry among them.
    """
    entries = keys * (int(place.max(initial=0)) + 1) + place
    by = np.argsort(entries, kind="stable")  # one key that is nearly sorted: a fifth of the time of two keys
    starts = np.flatnonzero(np.diff(entries[by], prepend=-1) != 0)
    return keys[by][starts], by[starts], (by, starts)


def _rhythm(age: NDArray[np.float64], first: Ints, count: Ints) -> list[NDArray[np.float64]]:
    """Compute `RHYTHM_FEATURES` of runs of ascending ages that start at `first`."""
    if not len(first):
        return [np.empty(0)] * len(RHYTHM_FEATURES)
    ends = first + count - 1
    last, oldest = age[first], age[ends]
    further = [np.where(count > step, age[np.minimum(first + step, len(age) - 1)], np.nan) for step in (1, 2)]
    several = np.maximum(count - 1, 1)
    mean = np.where(count > 1, (oldest - last) / several, np.nan)
    gaps = np.diff(age, append=age[-1])
    gaps[ends] = 0.0
    spread = np.sqrt(np.maximum(_run_sums(gaps**2, first) / several - mean**2, 0.0))
    steady = np.maximum(mean, 0.5)  # two orders on one day are not an interval
    return [
        *(_run_sums(age <= days, first) for days in WINDOWS),
        count.astype(np.float64),
        *(_run_sums(np.exp2(-age / days), first) for days in HALF_LIVES),
        last,
        oldest,
        further[0] - last,
        further[1] - further[0],
        mean,
        np.where(count > 2, spread / steady, np.nan),
        last / steady,
        count / np.maximum(oldest, 7.0),
    ]


def _group(
    codes: Ints,
    pairs: Ints,
    n_items: int,
    users: Ints,
    items: Ints,
    place: Ints,
    when: NDArray[np.float64],
    occasion: Ints,
) -> tuple[Ints, Floats]:
    """Compute the keys and the table of one of `GROUPS`."""
    n_groups = int(codes.max(initial=-1)) + 1
    known = np.flatnonzero(codes[items] >= 0) if n_groups else np.empty(0, dtype=np.int64)
    keys, order, _ = _distinct(users[known] * max(n_groups, 1) + codes[items[known]], place[known])
    age = when[occasion[known[order]]]
    first = _starts(keys)
    rhythm = np.column_stack(_rhythm(age, first, np.diff(np.append(first, len(keys)))))[:, GROUP_COLUMNS]
    pair_groups = np.empty(0, dtype=np.int64)
    if n_groups:
        pair_codes = codes[pairs % n_items]
        pair_groups = np.sort(pairs[pair_codes >= 0] // n_items * n_groups + pair_codes[pair_codes >= 0])
    distinct = np.searchsorted(pair_groups, keys[first], side="right") - np.searchsorted(pair_groups, keys[first])
    return keys[first], _with_missing(np.column_stack([rhythm, distinct]), GROUP_FEATURES)


def _users(
    n_users: int,
    owner: Ints,
    when: NDArray[np.float64],
    pair_user: Ints,
    pairs: Floats,
    event_user: Ints,
    event_age: NDArray[np.float64],
) -> NDArray[np.float64]:
    def count(who: Ints, kept: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
        return np.bincount(who if kept is None else who[kept], minlength=n_users).astype(np.float64)

    def mean(name: str) -> NDArray[np.float64]:
        values = pairs[:, PAIR_FEATURES.index(name)].astype(np.float64)
        known = np.isfinite(values)
        sums, counts = np.bincount(pair_user[known], values[known], minlength=n_users), count(pair_user, known)
        return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)

    orders, events, distinct = count(owner), count(event_user), count(pair_user)
    youngest, oldest = np.full(n_users, np.nan), np.full(n_users, np.nan)
    np.fmin.at(youngest, owner, when)
    np.fmax.at(oldest, owner, when)
    recent = {days: count(event_user, event_age <= days) for days in (28, 56)}
    new = count(pair_user, pairs[:, PAIR_FEATURES.index("days_since_first")] <= RECENT_DAYS)
    table = [
        *(count(owner, when <= days) for days in WINDOWS),
        orders,
        youngest,
        oldest,
        (oldest - youngest) / np.maximum(orders - 1, 1),
        recent[28],
        recent[56],
        events / np.maximum(orders, 1),
        distinct,
        1 - distinct / np.maximum(events, 1),
        1 - new / np.maximum(recent[28], 1),
        mean("quantity"),
        mean("amount"),
    ]
    return np.column_stack(table)


def _mean_known(values: NDArray[np.float32], lines: tuple[Ints, Ints], first: Ints) -> NDArray[np.float64]:
    """Sum the known values per order and average over the orders of each pair; NaN if no value is known."""
    by, starts = lines
    given = values[by].astype(np.float64)
    known = np.isfinite(given)
    per_order, any_known = _run_sums(np.where(known, given, 0.0), starts), _run_sums(known, starts) > 0
    counts = _run_sums(any_known, first)
    return np.where(counts > 0, _run_sums(per_order, first) / np.maximum(counts, 1), np.nan)


def _with_missing(table: NDArray[np.float64], names: tuple[str, ...]) -> Floats:
    """Append the row of a key without purchases: counts are 0, the other features are missing."""
    counted = ("orders", "decayed", "share", "items")
    unknown = ("orders_since_last",)
    row = [0.0 if name.startswith(counted) and name not in unknown else np.nan for name in names]
    return np.concatenate([table, np.array(row)[None, :]]).astype(np.float32)


def rows_of_keys(held: Ints, wanted: Ints) -> Ints:
    """Return the index of each wanted key in the ascending keys `held`; ``len(held)`` for a key that is missing."""
    if not len(held):
        return np.zeros(len(wanted), dtype=np.int64)
    place = np.minimum(np.searchsorted(held, wanted), len(held) - 1)
    return np.where(held[place] == wanted, place, len(held))


def _starts(keys: Ints) -> Ints:
    return np.flatnonzero(np.concatenate([[True], np.diff(keys) != 0])) if len(keys) else np.empty(0, dtype=np.int64)


def _run_sums(values: NDArray[Any], starts: Ints) -> NDArray[np.float64]:
    return np.add.reduceat(values.astype(np.float64), starts) if len(starts) else np.empty(0)


def _joined(
    old: NDArray[np.float32] | None, new: NDArray[np.float32] | None, n_old: int, n_new: int
) -> NDArray[np.float32] | None:
    if old is None and new is None:
        return None
    unknown = np.full(n_old if old is None else n_new, np.nan, dtype=np.float32)
    return np.concatenate([unknown if old is None else old, unknown if new is None else new])
