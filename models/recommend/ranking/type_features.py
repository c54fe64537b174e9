"""Features of a (customer, item) pair by type of interaction: recency, counts, in the last visit, since the last order.

They are computed for the customers of a query from all their interactions, so that the earlier cutoffs of training, the
time of the fit and customers with interactions after the fit use the same code, and nothing is kept per pair.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.interaction_types import ANY
from features.interactions import INTERACTION_TYPES, Interactions, TrainingSet
from models.persist import Arrays
from models.recommend.query import Query

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

HALF_LIVES = {"4h": 1 / 6, "1d": 1.0, "7d": 7.0, "28d": 28.0}  # days
PLAIN = ("days_since_last", "last_visit", "since_order")
LEVELS: Mapping[str, tuple[str, ...]] = {
    "item": (*PLAIN, "4h", "1d", "7d", "28d"),
    "category": (*PLAIN, "1d", "7d", "28d"),
    "brand": ("days_since_last", "7d"),
    "user": (*PLAIN, "1d", "7d"),
}
ITEM_HALF_LIVES = ("1d", "7d")  # of an item's interactions with all customers
LAST = ("item_last_type", "item_last_type_days", "user_order_days")
BOUGHT = INTERACTION_TYPES.index("purchase")
NO_VISIT = -1


def type_feature_names(types: tuple[int, ...]) -> list[str]:
    """The names of the columns of `TypedInteractions.features` for the codes of types."""
    names = [INTERACTION_TYPES[code] for code in types]
    return [
        *(f"{level}_{name}_{what}" for level, columns in LEVELS.items() for name in names for what in columns),
        *(f"item_all_{name}_{what}" for name in names for what in ITEM_HALF_LIVES),
        *LAST,
    ]


def type_width(types: tuple[int, ...]) -> int:
    """The number of `type_feature_names`, 0 without types."""
    return len(type_feature_names(types)) if types else 0


def type_columns(
    typed: TypedInteractions | None, query: Query, target: str, codes: Mapping[str, Ints], rows: Ints, ids: Ints
) -> Floats:
    """`TypedInteractions.features`, or no columns where there is only one type."""
    if typed is None:
        return np.empty((len(rows), 0), dtype=np.float32)
    return typed.features(query, target, codes, rows, ids)


@dataclass(frozen=True)
class TypedInteractions:
    """Interactions of all types, those of the target included, sorted by user.

    Attributes
    ----------
    users, items : ndarray of int32, (m,)
    age_days : ndarray of float32, (m,)
    types : ndarray of int8, (m,)
        Index in `INTERACTION_TYPES`.
    visits : ndarray of int32, (m,)
        Visit of each interaction; −1 for an order line, which has an order instead.
    starts : ndarray of int64, (n_users + 1,)
        Index of the first interaction of each user.
    present : tuple of int
        The codes of the types that have columns.
    of_items : ndarray of float32, (n_items, types × half-lives)
        Decayed interactions of each item with all customers.
    """

    users: NDArray[np.int32]
    items: NDArray[np.int32]
    age_days: Floats
    types: NDArray[np.int8]
    visits: NDArray[np.int32]
    starts: Ints
    present: tuple[int, ...]
    of_items: Floats

    @classmethod
    def of(cls, train: TrainingSet, present: tuple[int, ...] | None = None) -> TypedInteractions | None:
        """Collect the interactions of a training set, once (`TrainingSet.memoize`); None if there is only one type.

        Parameters
        ----------
        present : tuple of int, optional
            The types that have columns, for an earlier cutoff that may lack one; by default all that occur.
        """
        return train.memoize(("typed interactions", present), lambda: cls._of(train, present))

    @classmethod
    def _of(cls, train: TrainingSet, present: tuple[int, ...] | None) -> TypedInteractions | None:
        parts = _parts(train.interactions, train.auxiliary, train.target)
        users, items, age_days, types, visits = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        if present is None:
            present = tuple(np.unique(types).tolist())
        if len(present) < 2:
            return None
        tables = []
        for code in present:
            own = types == code
            for half_life in ITEM_HALF_LIVES:
                weights = np.exp2(-age_days[own] / np.float32(HALF_LIVES[half_life]))
                tables.append(np.bincount(items[own], weights, minlength=train.n_items))
        order = np.argsort(users, kind="stable")
        starts = np.searchsorted(users[order], np.arange(train.n_users + 1))
        users, items, age_days, types, visits = (column[order] for column in (users, items, age_days, types, visits))
        of_items = np.column_stack(tables).astype(np.float32)
        return cls(users, items, age_days, types, visits, starts, present, of_items)

    def features(self, query: Query, target: str, codes: Mapping[str, Ints], rows: Ints, ids: Ints) -> Floats:
        """Compute the features of (customer, item) pairs, (m, len(type_feature_names)); NaN for missing values.

        Parameters
        ----------
        query : Query
            The customers, with their interactions after the fit.
        target : str
            Target of the training set: the type of its interactions, or ``any``.
        codes : mapping of str to ndarray of int64, each (n_items,)
            The codes of ``category`` and ``brand`` of each item; −1 if unknown.
        rows, ids : ndarray of int64, (m,)
            Row of the query, and the item.
        """
        if not len(rows):
            return np.empty((0, len(type_feature_names(self.present))), dtype=np.float32)
        found = _Block.of(self, query, target)
        blocks = []
        for level, columns in LEVELS.items():
            of_item = codes.get(level) if level in ("category", "brand") else None
            blocks.append(found.of_level(level, columns, self.present, of_item, rows, ids))
        blocks += [self.of_items[ids], found.last(rows, ids)]
        return np.concatenate(blocks, axis=1).astype(np.float32)

    def state(self) -> Arrays:
        """Return the arrays by name, for a saved model."""
        return {
            "typed_users": self.users,
            "typed_items": self.items,
            "typed_age_days": self.age_days,
            "typed_types": self.types,
            "typed_visits": self.visits,
            "typed_present": np.asarray(self.present, dtype=np.int8),
            "typed_of_items": self.of_items,
        }

    @classmethod
    def restored(cls, state: Arrays, n_users: int) -> TypedInteractions | None:
        """Read the arrays of `state`; None for a model without features by type."""
        if "typed_users" not in state:
            return None
        users, items, age_days, types, visits, of_items = (
            state[f"typed_{name}"] for name in ("users", "items", "age_days", "types", "visits", "of_items")
        )
        starts = np.searchsorted(users, np.arange(n_users + 1))
        return cls(users, items, age_days, types, visits, starts, tuple(state["typed_present"].tolist()), of_items)


@dataclass(frozen=True)
class _Block:
    """Interactions of the customers of a query until now; `users` are its rows.

    `in_last_visit` and `since_order` are bool, (m,); `order_days`, (n,), is the age of the last order (inf if none).
    """

    users: Ints
    items: Ints
    ages: NDArray[np.float64]
    types: NDArray[np.int8]
    in_last_visit: NDArray[np.bool_]
    since_order: NDArray[np.bool_]
    order_days: NDArray[np.float64]

    @classmethod
    def of(cls, typed: TypedInteractions, query: Query, target: str) -> _Block:
        n = len(query)
        first = np.where(query.users >= 0, typed.starts[np.maximum(query.users, 0)], 0)
        counts = np.where(query.users >= 0, typed.starts[np.maximum(query.users, 0) + 1] - first, 0)
        at = np.arange(counts.sum()) + np.repeat(first - np.cumsum(counts) + counts, counts)
        users = np.repeat(np.arange(n), counts)
        ages, visits = typed.age_days[at].astype(np.float64), typed.visits[at].astype(np.int64)
        items, types = typed.items[at].astype(np.int64), typed.types[at]
        recent = _parts(query.recent_interactions, query.recent_auxiliary, target)
        if recent:
            changed = np.zeros(n, dtype=bool)
            for part in recent:
                changed[part[0]] = True
            ages += np.where(changed[users], query.elapsed_days, 0.0)
            shift = int(visits.max(initial=NO_VISIT)) + 1  # a recent visit is none of the fit
            later = [np.concatenate(columns) for columns in zip(*recent, strict=True)]
            users, items = np.append(users, later[0]), np.append(items, later[1])
            ages, types = np.append(ages, later[2].astype(np.float64)), np.append(types, later[3])
            moved = np.where(later[4] == NO_VISIT, NO_VISIT, later[4].astype(np.int64) + shift)
            visits = np.append(visits, moved)
        order_days = np.full(n, np.inf)
        bought = types == BOUGHT
        np.minimum.at(order_days, users[bought], ages[bought])
        begin = _last_visit_days(n, users, ages, visits)
        return cls(users, items, ages, types, ages <= begin[users], ages < order_days[users], order_days)

    def of_level(
        self,
        level: str,
        columns: tuple[str, ...],
        present: tuple[int, ...],
        of_item: Ints | None,
        rows: Ints,
        ids: Ints,
    ) -> Floats:
        """Compute the columns of one of `LEVELS`, (m, types × columns)."""
        mine, wanted = self._keys(level, of_item, rows, ids)
        keys, place = np.unique(wanted, return_inverse=True)
        spot = np.minimum(np.searchsorted(keys, mine), len(keys) - 1)
        known = (keys[spot] == mine) & (mine >= 0)
        table = []
        for code in present:
            own = np.flatnonzero(known & (self.types == code))
            at, ages = spot[own], self.ages[own]
            for name in columns:
                if name == "days_since_last":
                    youngest = np.full(len(keys), np.inf)
                    np.minimum.at(youngest, at, ages)
                    table.append(np.where(np.isfinite(youngest), youngest, np.nan))
                    continue
                table.append(np.bincount(at, self._weights(name, own), minlength=len(keys)))
        return np.column_stack(table).astype(np.float32)[place]

    def _weights(self, column: str, own: Ints) -> NDArray[np.float64]:
        """What each of some interactions counts in a column."""
        if column in HALF_LIVES:
            return np.exp2(-self.ages[own] / HALF_LIVES[column])
        counted = {"last_visit": self.in_last_visit, "since_order": self.since_order}[column]
        return counted[own].astype(np.float64)

    def last(self, rows: Ints, ids: Ints) -> Floats:
        """Compute `LAST`, (m, 3): the last interaction with the item, and the last order."""
        mine, wanted = self._keys("item", None, rows, ids)
        order = np.lexsort((self.types, self.ages, mine))
        keys, first = np.unique(mine[order], return_index=True)
        if not len(keys):
            missing = np.full((len(rows), 2), np.nan)
        else:
            spot = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
            line = order[first[spot]]
            values = np.column_stack([self.types[line].astype(np.float64), self.ages[line]])
            missing = np.where((keys[spot] == wanted)[:, None], values, np.nan)
        ordered = self.order_days[rows]
        return np.column_stack([missing, np.where(np.isfinite(ordered), ordered, np.nan)]).astype(np.float32)

    def _keys(self, level: str, of_item: Ints | None, rows: Ints, ids: Ints) -> tuple[Ints, Ints]:
        """Return the key of each interaction and of each wanted pair; −1 where the group is unknown."""
        if level == "user":
            return self.users, rows
        mine, wanted = (self.items, ids) if of_item is None else (of_item[self.items], of_item[ids])
        width = int(max(mine.max(initial=0), wanted.max(initial=0))) + 1
        return (
            np.where(mine >= 0, self.users * width + mine, -1),
            np.where(wanted >= 0, rows * width + wanted, -1),
        )


def _last_visit_days(n: int, users: Ints, ages: NDArray[np.float64], visits: Ints) -> NDArray[np.float64]:
    """Age of the beginning of each customer's last visit, (n,); of the last interaction where no visit is known."""
    youngest = np.full(n, np.inf)
    np.minimum.at(youngest, users, ages)
    seen = np.flatnonzero(visits != NO_VISIT)
    order = seen[np.lexsort((ages[seen], users[seen]))]
    who, first = np.unique(users[order], return_index=True)
    last = np.full(n, NO_VISIT, dtype=np.int64)
    last[who] = visits[order[first]]
    inside = seen[visits[seen] == last[users[seen]]]
    begin = np.full(n, -np.inf)
    np.maximum.at(begin, users[inside], ages[inside])
    return np.where(np.isfinite(begin), begin, youngest)


def _parts(
    target: Interactions | None, auxiliary: Interactions | None, name: str
) -> list[tuple[NDArray[np.int32], NDArray[np.int32], Floats, NDArray[np.int8], NDArray[np.int32]]]:
    """Columns users, items, ages, types, visits of the target and of the auxiliary interactions."""
    parts = []
    for data in (target, auxiliary):
        if data is None:
            continue
        types = data.types
        if types is None:
            types = np.full(len(data), INTERACTION_TYPES.index(name), dtype=np.int8)
        visits = np.floor(data.age_days).astype(np.int32) if data.orders is None else data.orders
        if data is target and name != ANY:
            visits = np.full(len(data), NO_VISIT, dtype=np.int32)  # an order is no visit
        parts.append((data.users, data.items, data.age_days, types, visits))
    return parts
