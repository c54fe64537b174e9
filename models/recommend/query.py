"""What a recommender is asked (`Query`) and what it may not show (`ItemFilter`), and sparse rows of users read by both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from features.interactions import Interactions
from models.ranked import NOT_A_CANDIDATE, top_k

T = TypeVar("T")
UserAttributes = Mapping[str, str]
Indices = NDArray[np.integer[Any]]
DENSE_SHARE = 0.03  # of a block's scores that are stored: from there on a dense block is ranked faster


@dataclass(frozen=True)
class Query:
    """Who is asked about, and what is known beyond the fit.

    Attributes
    ----------
    users : ndarray of int64, (n,)
        Indices; −1 for somebody unknown.
    attributes : sequence of mapping or None, (n,), optional
        Profile attributes given with the call.
    recent_interactions : Interactions, optional
        What these users did after the fit: its `users` are rows of this query, its ages count back from now.
    elapsed_days : float
        From the `as_of` of the fit to now.
    items : sequence of int arrays, (n,), optional
        What the answer should go with: the basket so far, or a given item.
    """

    users: NDArray[np.int64]
    attributes: Sequence[UserAttributes | None] | None = None
    recent_interactions: Interactions | None = None
    elapsed_days: float = 0.0
    items: Sequence[Indices] | None = None
    _cache: dict[int, Any] = field(default_factory=dict, init=False, compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.users)

    def memoize(self, model: object, factory: Callable[[], T]) -> T:
        """What a model works out for this query: a ranker asks it for its list and then for the scores of others' items, and waits once."""
        if id(model) not in self._cache:
            self._cache[id(model)] = factory()
        found: T = self._cache[id(model)]
        return found

    def take(self, rows: NDArray[np.int64]) -> Query:
        """The query of these rows only."""
        recent_interactions = self.recent_interactions
        if recent_interactions is not None:
            place = np.full(len(self), -1, dtype=np.int32)
            place[rows] = np.arange(len(rows), dtype=np.int32)
            recent_interactions = recent_interactions.where(place[recent_interactions.users] >= 0)
            recent_interactions = replace(
                recent_interactions,
                users=place[recent_interactions.users],
                shape=(len(rows), recent_interactions.shape[1]),
            )
        picked = rows.tolist()
        return Query(
            self.users[rows],
            None if self.attributes is None else [self.attributes[row] for row in picked],
            recent_interactions,
            self.elapsed_days,
            None if self.items is None else [self.items[row] for row in picked],
        )


@dataclass(frozen=True)
class ItemFilter:
    """What may not be shown.

    Attributes
    ----------
    allowed : ndarray of bool, (n_items,), or None
        Only these; None for all.
    excluded : csr_matrix, (n, n_items), or None
        Not these, per row of the query; sorted indices.
    """

    allowed: NDArray[np.bool_] | None = None
    excluded: sparse.csr_matrix | None = None

    def apply(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Write −inf over what is barred in dense scores (n, n_items), in place."""
        if self.allowed is not None:
            scores[:, ~self.allowed] = NOT_A_CANDIDATE
        if self.excluded is not None:
            rows = np.repeat(np.arange(len(scores)), np.diff(self.excluded.indptr))
            scores[rows, self.excluded.indices] = NOT_A_CANDIDATE
        return scores

    def excludes(self, ids: Indices) -> NDArray[np.bool_]:
        """Which of the items (n, m) are excluded; −1 is."""
        excluded = ids < 0
        if self.allowed is not None:
            excluded |= ~self.allowed[ids]
        if self.excluded is not None:
            excluded |= entry_positions(self.excluded, ids) >= 0
        return excluded

    def without(self, ids: Indices, n_items: int) -> ItemFilter:
        """These items (n, m) barred too; −1 for none."""
        rows, positions = np.nonzero(ids >= 0)
        more = sparse.csr_matrix(
            (np.ones(len(rows), np.float32), (rows, ids[rows, positions])), shape=(len(ids), n_items)
        )
        both = more if self.excluded is None else (self.excluded + more).tocsr()
        both.sort_indices()
        return ItemFilter(self.allowed, both)

    def take(self, rows: NDArray[np.int64]) -> ItemFilter:
        """The same for these rows only."""
        return ItemFilter(self.allowed, None if self.excluded is None else self.excluded[rows])


def entry_positions(matrix: sparse.csr_matrix, ids: Indices) -> NDArray[np.int64]:
    """Where in `matrix.data` each (row, id) stands, −1 where it does not; ids is (n, m), a row of it a row of the matrix.

    The matrix must have sorted indices and no double entries.

    Examples
    --------
    >>> entry_positions(sparse.csr_matrix([[0, 5, 7]]), np.array([[2, 0, 1, -1]])).tolist()
    [[1, -1, 0, -1]]
    """
    n_items = matrix.shape[1]
    if not matrix.nnz:
        return np.full(ids.shape, -1, dtype=np.int64)
    rows = np.repeat(np.arange(matrix.shape[0], dtype=np.int64), np.diff(matrix.indptr))
    held = rows * n_items + matrix.indices
    wanted = np.arange(len(ids), dtype=np.int64)[:, None] * n_items + ids
    place = np.minimum(np.searchsorted(held, wanted), len(held) - 1)
    return np.where((held[place] == wanted) & (ids >= 0), place, -1)


def values_at(matrix: sparse.csr_matrix, ids: Indices) -> NDArray[np.float32]:
    """The entries of a sparse matrix at (n, m) column ids, −inf where there is none; see `entry_positions`."""
    place = entry_positions(matrix, ids)
    if not matrix.nnz:
        return np.full(ids.shape, NOT_A_CANDIDATE, dtype=np.float32)
    return np.where(place >= 0, matrix.data[place], NOT_A_CANDIDATE).astype(np.float32)


def top_k_sparse(
    matrix: sparse.csr_matrix, k: int, item_filter: ItemFilter
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The k greatest entries of each row that are not barred, (n, ≤ k), −inf past the end; equal ones go to the lower column.

    Only what is stored is a candidate, and no dense row is made.

    Examples
    --------
    >>> top_k_sparse(sparse.csr_matrix([[0, 5.0, 7.0], [0, 0, 2.0]]), 2, ItemFilter())[0].tolist()
    [[2, 1], [2, -1]]
    """
    n = matrix.shape[0]
    rows = np.repeat(np.arange(n), np.diff(matrix.indptr))
    columns, values = matrix.indices, matrix.data
    if item_filter.allowed is not None or item_filter.excluded is not None:
        kept = np.ones(len(columns), dtype=bool) if item_filter.allowed is None else item_filter.allowed[columns]
        if item_filter.excluded is not None:
            n_items = matrix.shape[1]
            out = np.repeat(np.arange(n), np.diff(item_filter.excluded.indptr)) * n_items + item_filter.excluded.indices
            keys = rows * n_items + columns
            place = np.minimum(
                np.searchsorted(out, keys), max(len(out) - 1, 0)
            )  # sorted as the rows and their indices are
            kept &= out[place] != keys if len(out) else True
        rows, columns, values = rows[kept], columns[kept], values[kept]
    order = np.lexsort((columns, -values, rows))
    rows, columns, values = rows[order], columns[order], values[order]
    place = np.arange(len(rows)) - np.searchsorted(rows, np.arange(n))[rows]
    first = place < k
    width = int(place[first].max(initial=-1)) + 1
    ids = np.full((n, width), -1, dtype=np.int32)
    scores = np.full((n, width), NOT_A_CANDIDATE, dtype=np.float32)
    ids[rows[first], place[first]] = columns[first]
    scores[rows[first], place[first]] = values[first] + np.float32(0.0)
    return ids, scores


def dense_scores(matrix: sparse.csr_matrix) -> NDArray[np.float32]:
    """The same scores without gaps, (n, n_items): −inf where none is stored.

    Examples
    --------
    >>> dense_scores(sparse.csr_matrix([[0, 5.0]])).tolist()
    [[-inf, 5.0]]
    """
    scores = np.full(matrix.shape, NOT_A_CANDIDATE, dtype=np.float32)
    scores[np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr)), matrix.indices] = matrix.data
    return scores


def top_k_rows(
    matrix: sparse.csr_matrix, k: int, item_filter: ItemFilter
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """As `top_k_sparse`, by whichever way is faster."""
    if matrix.nnz < DENSE_SHARE * matrix.shape[0] * matrix.shape[1]:
        return top_k_sparse(matrix, k, item_filter)
    return top_k(item_filter.apply(dense_scores(matrix)), k)


def row_indices(matrix: sparse.csr_matrix, row: int) -> NDArray[np.int32]:
    """The columns of one row that are stored."""
    found: NDArray[np.int32] = matrix.indices[matrix.indptr[row] : matrix.indptr[row + 1]]
    return found


def rows_of(matrix: sparse.csr_matrix, users: Indices) -> sparse.csr_matrix:
    """The rows of these users, (n, n_items); nothing in that of −1.

    Examples
    --------
    >>> rows_of(sparse.csr_matrix([[0, 5.0]]), np.array([0, -1])).toarray().tolist()
    [[0.0, 5.0], [0.0, 0.0]]
    """
    if not matrix.shape[0]:
        return sparse.csr_matrix((len(users), matrix.shape[1]), dtype=np.float32)
    rows = matrix[np.maximum(users, 0)]
    if (users >= 0).all():
        return rows
    rows = sparse.diags((users >= 0).astype(np.float32)).dot(rows).tocsr()
    rows.eliminate_zeros()
    return rows


def fold_in(counts: sparse.csr_matrix, query: Query, half_life_days: float | None) -> sparse.csr_matrix:
    """Each user's weights now, (n, n_items): those of the fit, decayed until now, and what they did since.

    Parameters
    ----------
    counts : csr_matrix, (n_users, n_items)
        `Interactions.matrix(half_life_days)` of the fit.
    """
    now = rows_of(counts, query.users)
    if query.recent_interactions is not None and half_life_days is not None:
        now = now * np.float32(2.0 ** (-query.elapsed_days / half_life_days))
    if query.recent_interactions is not None:
        now = now + query.recent_interactions.matrix(half_life_days)
    now = now.astype(np.float32)
    now.sort_indices()
    return now


def exclusion_matrix(
    query: Query, n_items: int, exclude: Sequence[Indices] | None, history: sparse.csr_matrix | None
) -> sparse.csr_matrix | None:
    """The items that each user must not see, (n, n_items), sorted indices; None for none.

    Parameters
    ----------
    exclude : sequence of int arrays, (n,), or None
        Items per user.
    history : csr_matrix, (n_users, n_items), or None
        Leave out what the users had before, and since.
    """
    parts = []
    if exclude is not None and (lengths := [len(items) for items in exclude]) and sum(lengths):
        columns = np.concatenate(exclude)
        parts.append(
            sparse.csr_matrix(
                (np.ones(len(columns), np.float32), (np.repeat(np.arange(len(query)), lengths), columns)),
                shape=(len(query), n_items),
            )
        )
    if history is not None:
        parts.append(fold_in(history, query, None))
    if not parts:
        return None
    both = parts[0] if len(parts) == 1 else (parts[0] + parts[1]).tocsr()
    both.sort_indices()
    return both
