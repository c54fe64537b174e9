"""Features of a user and an item in a session: own entries, links from them, their categories, and popularity."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from features.interactions import INTERACTION_TYPES
from models.persist import Arrays, pack_csr, unpack_csr
from models.recommend.base import ItemFilter, top_k_sparse, values_at
from models.recommend.session.links import decayed_rows, transitions, visit_links
from models.recommend.session.trails import TRAIL_LENGTH, Trails

HALF_LIVES = (0.02, 0.25, 1.0, 3.0, 10.0, 40.0)  # days: half an hour to the season of a shop that sells rarely
LINK_HALF_LIVES = (0.02, 1.0, 7.0)
BOUGHT_HALF_LIVES = (1.0, 10.0)
FLOOR = 1e-4  # decayed sums below it are not told apart
# types with features of their own; a search or a click of a message is a view
GROUPS = (("purchase",), ("view", "search", "message_click"), ("cart",), ("favourite", "share"))
TYPE_WEIGHTS = (5.0, 1.0, 3.0, 3.0, 1.0, 2.0, 1.0)  # of `INTERACTION_TYPES`, in the sum over all types
FROM_LINKS, FROM_CATEGORIES, POPULAR = 50, 20, 20  # candidates of each kind
RECENT_DAYS = 7.0
MOST_ENTRIES = 5_000_000  # entries that statistics are learnt from; more change little and cost time
PURCHASE = INTERACTION_TYPES.index("purchase")
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class SessionStatistics:
    """What the features know of items, learnt from trails.

    Attributes
    ----------
    near : csr_matrix, (n_items, n_items)
        `visit_links`.
    follow : csr_matrix, (n_items, n_items)
        `transitions`.
    category : ndarray of int64, (n_items,)
        Code of the category of each item; items without one share a code of their own each.
    by_category : csr_matrix, (n_categories, n_items)
        Share of each of the most popular items of a category in the users of these.
    users, recent : ndarray of float64, (n_items,)
        Distinct users of each item, in all and in the last `RECENT_DAYS`.
    """

    near: sparse.csr_matrix
    follow: sparse.csr_matrix
    category: NDArray[np.int64]
    by_category: sparse.csr_matrix
    users: Floats
    recent: Floats

    @classmethod
    def of(cls, trails: Trails, category: NDArray[np.int64]) -> SessionStatistics:
        """Learn from trails, or from a sample of their rows; `category` has a code for each item."""
        trails = trails.sampled(MOST_ENTRIES)
        users, recent = _distinct_users(trails), _distinct_users(trails.where(trails.ages <= RECENT_DAYS))
        count = int(category.max(initial=-1)) + 1
        order = np.lexsort((-users, category))
        place = np.arange(len(order)) - np.searchsorted(category[order], category[order])
        kept = order[(place < FROM_CATEGORIES) & (users[order] > 0)]
        sums = np.bincount(category[kept], users[kept], count)
        shares = (users[kept] / sums[category[kept]]).astype(np.float32)
        by_category = sparse.csr_matrix((shares, (category[kept], kept)), shape=(count, trails.shape[1]))
        return cls(visit_links(trails), transitions(trails), category, by_category, users, recent)

    @cached_property
    def popular(self) -> NDArray[np.int64]:
        """The items with the most users of late, int64 array, (≤ POPULAR,)."""
        return np.lexsort((np.arange(len(self.users)), -self.users, -self.recent))[:POPULAR]

    def state(self) -> Arrays:
        """The statistics as arrays, to save them."""
        matrices = {"near": self.near, "follow": self.follow, "by_category": self.by_category}
        packed = {key: value for name, matrix in matrices.items() for key, value in pack_csr(name, matrix).items()}
        return {**packed, "category": self.category, "users": self.users, "recent": self.recent}

    @classmethod
    def restore(cls, state: Arrays) -> SessionStatistics:
        """What `state` returned."""
        near, follow, by_category = (unpack_csr(name, state) for name in ("near", "follow", "by_category"))
        return cls(near, follow, state["category"], by_category, state["users"], state["recent"])

    def candidates(self, trails: Trails) -> tuple[sparse.csr_matrix, Floats]:
        """Candidates of each row, and their features.

        Returns
        -------
        csr_matrix, (n_rows, n_items)
            1 for a candidate: own items, the items best linked to them, popular items of their categories, and popular
            ones. Indices are sorted.
        ndarray of float64, (candidates, n_features)
            In the order of the stored entries.
        """
        near, follow, of_category, liked = [], [], [], []
        for half_life in LINK_HALF_LIVES:
            now = decayed_rows(trails, np.exp2(-trails.ages / half_life))
            near.append(now @ self.near)
            follow.append(now @ self.follow)
            interest = decayed_rows(
                _by_category(trails, self.category, self.by_category.shape[0]), np.exp2(-trails.ages / half_life)
            )
            liked.append(interest)
            of_category.append(interest @ self.by_category)
        last = decayed_rows(trails, np.where(trails.place_from_end < 3, 0.5**trails.place_from_end, 0.0))
        near.append(last @ self.near)
        follow.append(last @ self.follow)
        found = [sparse.csr_matrix(matrix) for matrix in (*near, *follow, *of_category, *liked)]
        for matrix in found:
            matrix.sort_indices()
        n = len(near) + len(follow)
        chosen = self._chosen(trails, found[:n], found[n : n + len(of_category)])
        rows, items = np.repeat(np.arange(trails.shape[0]), np.diff(chosen.indptr)), chosen.indices.astype(np.int64)
        scores = [_entries(matrix, chosen, items) for matrix in found[: n + len(of_category)]]
        scores += [_entries(matrix, chosen, self.category[items]) for matrix in found[n + len(of_category) :]]
        own = _own_features(trails, rows, items)
        own += self._bought_category(trails, chosen, items)
        popularity = [np.log1p(self.users[items]), np.log1p(self.recent[items])]
        columns = [*own, *(column for score in scores for column in (_log(score), score > 0)), *popularity]
        return chosen, np.column_stack(columns).astype(np.float64)

    def _bought_category(self, trails: Trails, chosen: sparse.csr_matrix, items: NDArray[np.int64]) -> list[Floats]:
        """Decayed purchases in the category of each candidate: a need that is met, or a taste."""
        bought = trails.where(trails.kinds == PURCHASE)
        bought = _by_category(bought, self.category, self.by_category.shape[0])
        columns = []
        for half_life in BOUGHT_HALF_LIVES:
            matrix = decayed_rows(bought, np.exp2(-bought.ages / half_life))
            matrix.sort_indices()
            columns.append(_log(_entries(matrix, chosen, self.category[items])))
        return columns

    def _chosen(
        self, trails: Trails, links: list[sparse.csr_matrix], of_category: list[sparse.csr_matrix]
    ) -> sparse.csr_matrix:
        rows, items = [trails.rows], [trails.items]
        for matrices, count in ((links, FROM_LINKS), (of_category, FROM_CATEGORIES)):
            for matrix in matrices:
                ids, _ = top_k_sparse(matrix, count, ItemFilter())
                row, place = np.nonzero(ids >= 0)
                rows.append(row)
                items.append(ids[row, place].astype(np.int64))
        rows.append(np.repeat(np.arange(trails.shape[0]), len(self.popular)))
        items.append(np.tile(self.popular, trails.shape[0]))
        ones = np.ones(sum(map(len, rows)), np.float32)
        chosen = sparse.csr_matrix((ones, (np.concatenate(rows), np.concatenate(items))), shape=trails.shape)
        chosen.sum_duplicates()
        chosen.sort_indices()
        return chosen


def _own_features(trails: Trails, rows: NDArray[np.int64], items: NDArray[np.int64]) -> list[Floats]:
    """Decayed sums of the own entries of each candidate: of all types weighted, and of each group of types."""
    n_items = np.int64(trails.shape[1])
    keys = rows * n_items + items  # ascending
    place = np.searchsorted(keys, trails.rows * n_items + trails.items)
    weights = np.array(TYPE_WEIGHTS)[trails.kinds]
    columns = [(np.bincount(place, minlength=len(keys)) > 0).astype(np.float64)]
    counted = [weights]
    for names in GROUPS:
        codes = [INTERACTION_TYPES.index(name) for name in names]
        counted.append(np.isin(trails.kinds, codes).astype(np.float64))
    for half_life in HALF_LIVES:
        decay = np.exp2(-trails.ages / half_life)
        columns += [_log(np.bincount(place, weight * decay, len(keys)).astype(np.float64)) for weight in counted]
    newest = np.full(len(keys), float(10 * TRAIL_LENGTH))  # entries since the last one of the item
    np.minimum.at(newest, place, trails.place_from_end.astype(np.float64))
    columns += [-np.log1p(newest), (newest == 0).astype(np.float64)]  # the item looked at now is rarely the next one
    visits = np.unique(place * np.int64(len(trails) + 1) + trails.visits()) // np.int64(len(trails) + 1)
    columns.append(np.log1p(np.bincount(visits, minlength=len(keys))))
    return [np.asarray(column, dtype=np.float64) for column in columns]


def _by_category(trails: Trails, category: NDArray[np.int64], count: int) -> Trails:
    """The same entries with categories instead of items."""
    return Trails(trails.rows, category[trails.items], trails.ages, trails.kinds, (trails.shape[0], count))


def _entries(matrix: sparse.csr_matrix, chosen: sparse.csr_matrix, columns: NDArray[np.int64]) -> Floats:
    """Entries of a matrix at the rows of the candidates and these columns, 0 where none is stored."""
    if not matrix.nnz or not len(columns):
        return np.zeros(len(columns))
    lengths = np.diff(chosen.indptr)
    ids = np.full((len(lengths), int(lengths.max(initial=0))), -1, dtype=np.int64)
    inside = np.arange(ids.shape[1]) < lengths[:, None]
    ids[inside] = columns
    found = values_at(matrix, ids)[inside]
    return np.where(np.isfinite(found), found, 0.0).astype(np.float64)


def _log(values: Floats) -> Floats:
    """Logarithm in units of `FLOOR`, 0 for what is below."""
    return np.asarray(np.log(np.maximum(values, FLOOR) / FLOOR), dtype=np.float64)


def _distinct_users(trails: Trails) -> Floats:
    pairs = np.unique(trails.rows * np.int64(trails.shape[1]) + trails.items)
    return np.bincount(pairs % max(trails.shape[1], 1), minlength=trails.shape[1]).astype(np.float64)
