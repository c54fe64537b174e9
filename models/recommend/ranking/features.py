"""What the second stage sees of a customer and an item: recency, frequency, rhythm, popularity and its trend, at one moment.

`Histories` is what is known of customers, `ItemStatistics` what is known of items; both are made of the interactions before that moment alone, so
the same code serves an earlier cut of the history (training), the moment of the fit, and customers who did something since.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.interactions import Interactions

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

WINDOWS = (28, 56, 112)  # days
HALF_LIVES = (7, 20, 45, 120)  # days
RECENT_DAYS = 28
RHYTHM = (
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
PAIR = (*RHYTHM, "orders_since_last", "share_of_orders", "decayed_orders", "quantity", "amount")
USER = (
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
)
ITEM = (
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
GROUPS = ("category", "category_above", "brand")
GROUP_RHYTHM = ("orders_112d", "orders", "decayed_20d", "decayed_120d", "days_since_last", "mean_gap", "due")
GROUP = (*GROUP_RHYTHM, "items")
GROUP_COLUMNS = [RHYTHM.index(name) for name in GROUP_RHYTHM]
CROSSED = (
    "last_to_item_gap",
    "expected_rate",
    "due_in_orders",
    "rising_habit",
    *(f"share_of_{name}" for name in GROUPS),
)
FEATURES = (*PAIR, *USER, *ITEM, *(f"{group}_{name}" for group in GROUPS for name in (*GROUP, "trend")), *CROSSED)


@dataclass(frozen=True)
class Histories:
    """What n customers did, as tables to look things up in.

    Attributes
    ----------
    pair_keys : ndarray of int64, (p,)
        ``user × n_items + item``, rising.
    pairs : ndarray of float32, (p + 1, len(PAIR))
        One row a pair; the last one is that of a pair that never was.
    users : ndarray of float32, (n_users, len(USER))
    group_keys : tuple of ndarray of int64
        For each of `GROUPS`: ``user × groups + group``, rising.
    groups : tuple of ndarray of float32, (g + 1, len(GROUP))
    seen : ndarray of float32, (p,)
        1 where a pair was bought 28 to 56 days ago.
    group_recent : tuple of ndarray of float32, each (groups, 2)
        Orders with the group in the last 28 days, and in the 28 before.
    """

    pair_keys: Ints
    pairs: Floats
    users: Floats
    group_keys: tuple[Ints, ...]
    groups: tuple[Floats, ...]
    seen: Floats
    group_recent: tuple[Floats, ...]

    @classmethod
    def of(cls, lines: Interactions, codes: Mapping[str, Ints]) -> Histories:
        """Tables of these interactions; `codes` are the group of each item, −1 unknown, for each of `GROUPS`."""
        n_users, n_items = lines.shape
        users, items, ages = (
            lines.users.astype(np.int64),
            lines.items.astype(np.int64),
            lines.age_days.astype(np.float64),
        )
        owner, when, place, occasion = _occasions(users, ages, lines.orders)
        keys, order, starts = _distinct(users * n_items + items, place)
        age, behind = when[occasion[order]], place[order].astype(np.float64)
        first = _starts(keys)
        pairs, count, last = keys[first], np.diff(np.append(first, len(keys))), np.append(first[1:], len(keys)) - 1
        with_nothing = np.zeros(len(pairs), dtype=np.float64)
        quantity = (
            _mean_known(lines.quantities, starts, first) if lines.quantities is not None else with_nothing + np.nan
        )
        amount = _mean_known(lines.amounts, starts, first) if lines.amounts is not None else with_nothing + np.nan
        behind_last = behind[first] if len(first) else with_nothing
        tables = [
            *_rhythm(age, first, count),
            behind_last,
            count / (behind[last] + 1.0) if len(first) else with_nothing,
            _reduced(np.exp2(-behind / 8.0), first),
            quantity,
            amount,
        ]
        table = _with_missing(np.column_stack(tables), PAIR)
        group_keys, groups, recent = [], [], []
        for name in GROUPS:
            found = _group(codes[name], pairs, n_items, users, items, place, when, occasion)
            group_keys.append(found[0])
            groups.append(found[1])
            recent.append(found[2])
        per_user = _users(n_users, owner, when, pairs // max(n_items, 1), table[:-1], keys // max(n_items, 1), age)
        seen = _reduced((age > RECENT_DAYS) & (age <= 2 * RECENT_DAYS), first) > 0
        return cls(pairs, table, per_user, tuple(group_keys), tuple(groups), seen.astype(np.float32), tuple(recent))

    def pair_rows(self, keys: Ints) -> Ints:
        """Row of each key in `pairs`; the last row for one that is not there."""
        return _rows(self.pair_keys, keys)


@dataclass(frozen=True)
class ItemStatistics:
    """What is known of items: (n_items, len(ITEM)), the group of each, and how each group's sales move.

    Attributes
    ----------
    table : ndarray of float32, (n_items, len(ITEM))
    codes : mapping of str to ndarray of int64, each (n_items,)
    trends : tuple of ndarray of float32
        For each of `GROUPS`: orders of the last 28 days over those of the 28 before, (groups,).
    """

    table: Floats
    codes: Mapping[str, Ints]
    trends: tuple[Floats, ...]

    @classmethod
    def of(cls, histories: Histories, n_items: int, codes: Mapping[str, Ints], price: Floats) -> ItemStatistics:
        """Statistics of all customers together."""
        pairs, item = histories.pairs[:-1], histories.pair_keys % max(n_items, 1)
        column = {name: pairs[:, place].astype(np.float64) for place, name in enumerate(PAIR)}
        last, first = column["days_since_last"], column["days_since_first"]

        def customers(kept: NDArray[np.bool_]) -> NDArray[np.float64]:
            return np.bincount(item[kept], minlength=n_items).astype(np.float64)

        everybody = customers(np.ones(len(item), dtype=bool))
        within = {days: customers(last <= days) for days in (7, 14, 28, 56, 112)}
        earlier, again = customers(histories.seen > 0), customers((histories.seen > 0) & (last <= RECENT_DAYS))
        owners, back = customers(first > RECENT_DAYS), customers((first > RECENT_DAYS) & (last <= RECENT_DAYS))
        gap = column["mean_gap"]
        timed = np.isfinite(gap)
        logs = np.log(np.maximum(gap[timed], 0.5))
        usual = float(logs.mean()) if len(logs) else np.log(RECENT_DAYS)
        # a rate of few customers is drawn to that of all
        typical = (np.bincount(item[timed], logs, minlength=n_items) + 2 * usual) / (
            np.bincount(item[timed], minlength=n_items) + 2
        )
        newest, oldest = np.full(n_items, np.nan), np.full(n_items, np.nan)
        np.fmin.at(newest, item, last)
        np.fmax.at(oldest, item, first)
        table = np.column_stack(
            [
                everybody,
                *within.values(),
                (4 * within[7] + 1) / (within[28] + 1),
                (within[28] + 1) / (earlier + 1),
                (within[28] + 1) / (within[112] / 4 + 1),
                _pooled(back, owners),
                _pooled(again, earlier),
                np.bincount(item, column["orders"], minlength=n_items) / np.maximum(everybody, 1),
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
    """The group of each item at each of `GROUPS`, (n_items,) each, −1 where unknown.

    Examples
    --------
    >>> found = item_groups({"category": np.array(["food/milk", "food/tea", ""]), "brand": np.array(["a", "", "a"])})
    >>> {name: codes.tolist() for name, codes in found.items()}
    {'category': [0, 1, -1], 'category_above': [0, 0, -1], 'brand': [0, -1, 0]}
    """
    category = attributes["category"]
    above = np.array([path.rpartition("/")[0] for path in category.tolist()], dtype=np.str_)
    return {"category": _codes(category), "category_above": _codes(above), "brand": _codes(attributes["brand"])}


def features(histories: Histories, items: ItemStatistics, rows: Ints, ids: Ints) -> Floats:
    """One row of `FEATURES` a (customer, item), (m, len(FEATURES)); NaN where there is nothing to say.

    Parameters
    ----------
    rows, ids : ndarray of int64, (m,)
        Row of the customer in `histories`, and the item.
    """
    pair = histories.pairs[histories.pair_rows(rows * len(items.table) + ids)]
    item = items.table[ids]
    blocks = [pair, histories.users[rows], item]
    shares = []
    decayed = pair[:, PAIR.index("decayed_120d")]
    for name, keys, table, trend in zip(GROUPS, histories.group_keys, histories.groups, items.trends, strict=True):
        code = items.codes[name][ids]
        wanted = np.where(code >= 0, rows * max(len(trend), 1) + code, -1)
        own = table[_rows(keys, wanted)]
        moving = np.append(trend, np.float32(np.nan))[code]  # −1 is the last
        blocks += [own, moving[:, None]]
        of_group = own[:, GROUP.index("decayed_120d")]
        shares.append(np.where(of_group > 0, decayed / np.maximum(of_group, np.float32(1e-12)), np.float32(0.0)))
    of_pair = {name: pair[:, place] for place, name in enumerate(PAIR)}
    crossed = [
        of_pair["days_since_last"] / item[:, ITEM.index("item_gap")],
        (of_pair["orders"] + np.float32(0.5)) / (of_pair["days_since_first"] + np.float32(40.0)),
        of_pair["orders_since_last"] * of_pair["share_of_orders"],
        of_pair["decayed_45d"] * item[:, ITEM.index("item_trend_28d")],
        *shares,
    ]
    return np.concatenate([*blocks, np.column_stack(crossed).astype(np.float32)], axis=1)


def _occasions(
    users: Ints, ages: NDArray[np.float64], orders: NDArray[np.int32] | None
) -> tuple[Ints, NDArray[np.float64], Ints, Ints]:
    """Orders (days where none are known): owner and age of each, and of each line how many are younger, and which one it is of."""
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
    """One entry a (key, order), youngest order first within a key: its key, a line of it, and (all lines sorted, where each entry begins)."""
    by = np.lexsort((place, keys))
    changed = np.ones(len(by), dtype=bool)
    changed[1:] = (np.diff(keys[by]) != 0) | (np.diff(place[by]) != 0)
    starts = np.flatnonzero(changed)
    return keys[by][starts], by[starts], (by, starts)


def _rhythm(age: NDArray[np.float64], first: Ints, count: Ints) -> list[NDArray[np.float64]]:
    """`RHYTHM` of groups of ages, each rising and beginning at `first`."""
    if not len(first):
        return [np.empty(0)] * len(RHYTHM)
    ends = first + count - 1
    last, oldest = age[first], age[ends]
    further = [np.where(count > step, age[np.minimum(first + step, len(age) - 1)], np.nan) for step in (1, 2)]
    several = np.maximum(count - 1, 1)
    mean = np.where(count > 1, (oldest - last) / several, np.nan)
    gaps = np.diff(age, append=age[-1])
    gaps[ends] = 0.0
    spread = np.sqrt(np.maximum(_reduced(gaps**2, first) / several - mean**2, 0.0))
    steady = np.maximum(mean, 0.5)  # two orders of a day are no rhythm
    return [
        *(_reduced(age <= days, first) for days in WINDOWS),
        count.astype(np.float64),
        *(_reduced(np.exp2(-age / days), first) for days in HALF_LIVES),
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
) -> tuple[Ints, Floats, Floats]:
    """Keys, table and recent orders of one of `GROUPS`."""
    n_groups = int(codes.max(initial=-1)) + 1
    known = np.flatnonzero(codes[items] >= 0) if n_groups else np.empty(0, dtype=np.int64)
    keys, order, _ = _distinct(users[known] * max(n_groups, 1) + codes[items[known]], place[known])
    age = when[occasion[known[order]]]
    first = _starts(keys)
    rhythm = np.column_stack(_rhythm(age, first, np.diff(np.append(first, len(keys)))))[:, GROUP_COLUMNS]
    of_pairs = codes[pairs % n_items] if n_groups else np.empty(0, dtype=np.int64)
    held = np.sort(pairs[of_pairs >= 0] // n_items * n_groups + of_pairs[of_pairs >= 0]) if n_groups else of_pairs
    distinct = np.searchsorted(held, keys[first], side="right") - np.searchsorted(held, keys[first])
    of_group = keys % max(n_groups, 1)
    recent = [
        np.bincount(of_group, (age > low) & (age <= low + RECENT_DAYS), minlength=n_groups) for low in (0, RECENT_DAYS)
    ]
    return (
        keys[first],
        _with_missing(np.column_stack([rhythm, distinct]), GROUP),
        np.column_stack(recent).astype(np.float32),
    )


def _users(
    n_users: int,
    owner: Ints,
    when: NDArray[np.float64],
    pair_user: Ints,
    pairs: Floats,
    event_user: Ints,
    event_age: NDArray[np.float64],
) -> Floats:
    def count(who: Ints, kept: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
        return np.bincount(who if kept is None else who[kept], minlength=n_users).astype(np.float64)

    def mean(name: str) -> NDArray[np.float64]:
        values = pairs[:, PAIR.index(name)].astype(np.float64)
        known = np.isfinite(values)
        sums, counts = np.bincount(pair_user[known], values[known], minlength=n_users), count(pair_user, known)
        return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)

    orders, events, distinct = count(owner), count(event_user), count(pair_user)
    youngest, oldest = np.full(n_users, np.nan), np.full(n_users, np.nan)
    np.fmin.at(youngest, owner, when)
    np.fmax.at(oldest, owner, when)
    recent = {days: count(event_user, event_age <= days) for days in (28, 56)}
    new = count(pair_user, pairs[:, PAIR.index("days_since_first")] <= RECENT_DAYS)
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
    return np.column_stack(table).astype(np.float32)


def _mean_known(values: NDArray[np.float32], lines: tuple[Ints, Ints], first: Ints) -> NDArray[np.float64]:
    """Mean of what is known a (user, item, order), averaged over the orders of the pair; NaN where nothing is."""
    by, starts = lines
    given = values[by].astype(np.float64)
    known = np.isfinite(given)
    per_order, any_known = _reduced(np.where(known, given, 0.0), starts), _reduced(known, starts) > 0
    counts = _reduced(any_known, first)
    return np.where(counts > 0, _reduced(per_order, first) / np.maximum(counts, 1), np.nan)


def _with_missing(table: NDArray[np.float64], names: tuple[str, ...]) -> Floats:
    """One more row for what never was: counts are 0, everything else unknown."""
    counted = ("orders", "decayed", "share", "items")
    unknown = ("orders_since_last",)
    row = [0.0 if name.startswith(counted) and name not in unknown else np.nan for name in names]
    return np.concatenate([table, np.array(row)[None, :]]).astype(np.float32)


def _rows(held: Ints, wanted: Ints) -> Ints:
    if not len(held):
        return np.zeros(len(wanted), dtype=np.int64)
    place = np.minimum(np.searchsorted(held, wanted), len(held) - 1)
    return np.where(held[place] == wanted, place, len(held))


def _starts(keys: Ints) -> Ints:
    return np.flatnonzero(np.concatenate([[True], np.diff(keys) != 0])) if len(keys) else np.empty(0, dtype=np.int64)


def _reduced(values: NDArray[Any], starts: Ints) -> NDArray[np.float64]:
    return np.add.reduceat(values.astype(np.float64), starts) if len(starts) else np.empty(0)


def _pooled(hits: NDArray[np.float64], of: NDArray[np.float64], strength: float = 5.0) -> NDArray[np.float64]:
    overall = float(hits.sum() / max(float(of.sum()), 1.0))
    return (hits + strength * overall) / (of + strength)


def _codes(values: NDArray[Any]) -> Ints:
    """Dense codes of the distinct texts, −1 for ''."""
    texts = values.astype(np.str_)
    distinct, codes = np.unique(texts, return_inverse=True)
    shift = int(len(distinct) > 0 and distinct[0] == "")  # '' sorts first
    return codes.reshape(-1).astype(np.int64) - shift
