"""Purchase histories before a cutoff, as tables by (user, item), by user, and by (user, group of items)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from features.interactions import Interactions
from models.recommend.query import Query
from models.recommend.ranking.compiled import COMPILED
from models.recommend.ranking.compiled_histories import compiled_tables
from models.recommend.ranking.history_tables import history_tables

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


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
    group_keys : ndarray of int64, (g,)
        ``(user × len(GROUPS) + level) × n_items + group`` for each of `GROUPS` as level, ascending.
    groups : ndarray of float32, (g + 1, len(GROUP_FEATURES))
        One row per key; the last row serves keys without purchases.
    """

    pair_keys: Ints
    pairs: Floats
    users: Floats
    group_keys: Ints
    groups: Floats

    @classmethod
    def of(cls, lines: Interactions, codes: Mapping[str, Ints]) -> Histories:
        """Build the tables; `codes` are the groups of each item (−1 if unknown) for each of `GROUPS`."""
        return cls(*(compiled_tables if COMPILED else history_tables)(lines, codes))

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
    shape = len(users), lines.shape[1]
    if len(users) == 1 and users[0] >= 0:  # a request: views instead of copies
        start, stop = starts[users[0] : users[0] + 2].tolist()
        return replace(lines.where(slice(start, stop)), users=np.zeros(stop - start, dtype=np.int32), shape=shape)
    first, counts = np.zeros_like(users), np.zeros_like(users)
    if len(starts) > 1:
        first = np.where(users >= 0, starts[np.maximum(users, 0)], 0)
        counts = np.where(users >= 0, starts[np.maximum(users, 0) + 1] - first, 0)
    at = np.arange(counts.sum()) + np.repeat(first - np.cumsum(counts) + counts, counts)
    rows = np.repeat(np.arange(len(users), dtype=np.int32), counts)
    return replace(lines.where(at), users=rows, shape=shape)


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


def rows_of_keys(held: Ints, wanted: Ints) -> Ints:
    """Return the index of each wanted key in the ascending keys `held`; ``len(held)`` for a key that is missing."""
    if not len(held):
        return np.zeros(wanted.shape, dtype=np.int64)
    place = np.minimum(np.searchsorted(held, wanted), len(held) - 1)
    return np.where(held[place] == wanted, place, len(held))


def _joined(
    old: NDArray[np.float32] | None, new: NDArray[np.float32] | None, n_old: int, n_new: int
) -> NDArray[np.float32] | None:
    if old is None and new is None:
        return None
    unknown = np.full(n_old if old is None else n_new, np.nan, dtype=np.float32)
    return np.concatenate([unknown if old is None else old, unknown if new is None else new])
