"""`Query` (the users to rank for), `ItemFilter` (the items that may be ranked), and operations on sparse user rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from features.interactions import Interactions
from models.ranked import NOT_A_CANDIDATE, top_k
from qianmian.errors import InvalidRequest

T = TypeVar("T")
UserAttributes = Mapping[str, str]
Indices = NDArray[np.integer[Any]]
DENSE_SHARE = 0.03  # from this share of stored scores on, ranking a dense block is faster


@dataclass(frozen=True)
class Query:
    """The users to rank for, and what is known about them beyond the fit.

    Attributes
    ----------
    users : ndarray of int64, (n,)
        User indices; −1 is an unknown user.
    attributes : sequence of mapping or None, (n,), optional
        Profile attributes sent with the call.
    recent_interactions : Interactions, optional
        Interactions of the target by these users after the fit. Its `users` are rows of this query, its ages count back
        from now.
    recent_auxiliary : Interactions, optional
        Interactions of other types after the fit, with `types`, in the same form. Models that learn from auxiliary
        interactions use them.
    elapsed_days : float
        Days from the `as_of` of the fit to now.
    items : sequence of int arrays, (n,), optional
        Context items of each user: the basket so far, or an item being viewed.
    """

    users: NDArray[np.int64]
    attributes: Sequence[UserAttributes | None] | None = None
    recent_interactions: Interactions | None = None
    elapsed_days: float = 0.0
    items: Sequence[Indices] | None = None
    recent_auxiliary: Interactions | None = None
    _cache: dict[int, Any] = field(default_factory=dict, init=False, compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.users)

    def changed_rows(self, *, auxiliary: bool) -> NDArray[np.int64]:
        """Return the rows of users with interactions after the fit, ascending; of any type if `auxiliary`."""
        parts = [self.recent_interactions, self.recent_auxiliary if auxiliary else None]
        users = [part.users for part in parts if part is not None]
        return np.unique(np.concatenate(users)).astype(np.int64) if users else np.empty(0, dtype=np.int64)

    def memoize(self, model: object, factory: Callable[[], T]) -> T:
        """Return the cached result of a model for this query, computed by `factory` at the first call.

        A ranker needs the list of a model and then its scores of other models' items; both use one computation.
        """
        if id(model) not in self._cache:
            self._cache[id(model)] = factory()
        found: T = self._cache[id(model)]
        return found

    def check_recent(self, n_items: int) -> None:
        """Check the shapes of the recent interactions.

        Raises
        ------
        InvalidRequest
            A shape is not (n, n_items).
        """
        for name in ("recent_interactions", "recent_auxiliary"):
            recent = getattr(self, name)
            if recent is not None and recent.shape != (len(self), n_items):
                raise InvalidRequest(f"`{name}` has the wrong shape", got=recent.shape, allowed=(len(self), n_items))

    def take(self, rows: NDArray[np.int64]) -> Query:
        """Return the query restricted to these rows."""
        place = np.full(len(self), -1, dtype=np.int32)
        place[rows] = np.arange(len(rows), dtype=np.int32)

        def restricted(recent: Interactions | None) -> Interactions | None:
            if recent is None:
                return None
            kept = recent.where(place[recent.users] >= 0)
            return replace(kept, users=place[kept.users], shape=(len(rows), recent.shape[1]))

        picked = rows.tolist()
        return Query(
            self.users[rows],
            None if self.attributes is None else [self.attributes[row] for row in picked],
            restricted(self.recent_interactions),
            self.elapsed_days,
            None if self.items is None else [self.items[row] for row in picked],
            restricted(self.recent_auxiliary),
        )


@dataclass(frozen=True)
class ItemFilter:
    """The items that may be ranked.

    Attributes
    ----------
    allowed : ndarray of bool, (n_items,), or None
        Items allowed for every user; None allows all.
    excluded : csr_matrix, (n, n_items), or None
        Items excluded per row of the query; the indices are sorted.
    """

    allowed: NDArray[np.bool_] | None = None
    excluded: sparse.csr_matrix | None = None

    def apply(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Set the scores of excluded items to −inf, in place; `scores` is dense, (n, n_items)."""
        if self.allowed is not None:
            scores[:, ~self.allowed] = NOT_A_CANDIDATE
        if self.excluded is not None:
            rows = np.repeat(np.arange(len(scores)), np.diff(self.excluded.indptr))
            scores[rows, self.excluded.indices] = NOT_A_CANDIDATE
        return scores

    def excludes(self, ids: Indices) -> NDArray[np.bool_]:
        """Return which of the item ids (n, m) are excluded; the id −1 is."""
        excluded = ids < 0
        if self.allowed is not None:
            excluded |= ~self.allowed[ids]
        if self.excluded is not None:
            excluded |= entry_positions(self.excluded, ids) >= 0
        return excluded

    def without(self, ids: Indices, n_items: int) -> ItemFilter:
        """Return a filter that also excludes the item ids (n, m); the id −1 is ignored."""
        rows, positions = np.nonzero(ids >= 0)
        more = sparse.csr_matrix(
            (np.ones(len(rows), np.float32), (rows, ids[rows, positions])), shape=(len(ids), n_items)
        )
        both = more if self.excluded is None else (self.excluded + more).tocsr()
        both.sort_indices()
        return ItemFilter(self.allowed, both)

    def take(self, rows: NDArray[np.int64]) -> ItemFilter:
        """Return the filter restricted to these rows."""
        return ItemFilter(self.allowed, None if self.excluded is None else self.excluded[rows])


def entry_positions(matrix: sparse.csr_matrix, ids: Indices) -> NDArray[np.int64]:
    """Find the positions in `matrix.data` of the entries (row, id).

    Parameters
    ----------
    matrix : csr_matrix, (n, n_items)
        Must have sorted indices and no duplicate entries.
    ids : int array, (n, m)
        Column ids for each row of the matrix.

    Returns
    -------
    ndarray of int64, (n, m)
        −1 where no entry is stored.

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
    """Return the entries of a sparse matrix at (n, m) column ids, −inf where none is stored; see `entry_positions`."""
    place = entry_positions(matrix, ids)
    if not matrix.nnz:
        return np.full(ids.shape, NOT_A_CANDIDATE, dtype=np.float32)
    return np.where(place >= 0, matrix.data[place], NOT_A_CANDIDATE).astype(np.float32)


def top_k_sparse(
    matrix: sparse.csr_matrix, k: int, item_filter: ItemFilter
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Select the k largest stored entries of each row that pass the filter.

    Only stored entries are candidates, and no dense row is built. Ties go to the lower column.

    Returns
    -------
    ids : ndarray of int32, (n, ≤ k)
        −1 past the end of a list.
    scores : ndarray of float32, (n, ≤ k)
        −inf past the end of a list.

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
            # `out` is sorted, because the rows and the indices within each row are
            place = np.minimum(np.searchsorted(out, keys), max(len(out) - 1, 0))
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
    """Convert sparse scores to a dense array, (n, n_items), with −inf where no score is stored.

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
    """Return the result of `top_k_sparse`, computed on dense or on sparse scores, whichever is faster."""
    if matrix.nnz < DENSE_SHARE * matrix.shape[0] * matrix.shape[1]:
        return top_k_sparse(matrix, k, item_filter)
    return top_k(item_filter.apply(dense_scores(matrix)), k)


def row_indices(matrix: sparse.csr_matrix, row: int) -> NDArray[np.int32]:
    """Return the columns of the stored entries of one row."""
    found: NDArray[np.int32] = matrix.indices[matrix.indptr[row] : matrix.indptr[row + 1]]
    return found


def has_entries(matrix: sparse.csr_matrix, users: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether the row of each user has entries, (n,); false for user −1."""
    if not matrix.shape[0]:
        return np.zeros(len(users), dtype=bool)
    known, bounds = np.maximum(users, 0), matrix.indptr
    found: NDArray[np.bool_] = (users >= 0) & (bounds[known + 1] > bounds[known])
    return found


def rows_of(matrix: sparse.csr_matrix, users: Indices) -> sparse.csr_matrix:
    """Select the rows of users, (n, n_items); the row of user −1 is empty.

    Examples
    --------
    >>> rows_of(sparse.csr_matrix([[0, 5.0]]), np.array([0, -1])).toarray().tolist()
    [[0.0, 5.0], [0.0, 0.0]]
    """
    if not matrix.shape[0]:
        return sparse.csr_matrix((len(users), matrix.shape[1]), dtype=np.float32)
    if len(users) == 1 and users[0] >= 0:  # a request: SciPy's selection of rows takes several times as long
        start, stop = matrix.indptr[users[0] : users[0] + 2].tolist()
        columns = matrix.data[start:stop].copy(), matrix.indices[start:stop].copy(), np.array([0, stop - start])
        return sparse.csr_matrix(columns, shape=(1, matrix.shape[1]))
    rows = matrix[np.maximum(users, 0)]
    if (users >= 0).all():
        return rows
    rows = sparse.diags((users >= 0).astype(np.float32)).dot(rows).tocsr()
    rows.eliminate_zeros()
    return rows


def fold_in(
    counts: sparse.csr_matrix,
    query: Query,
    half_life_days: float | None,
    type_weights: Mapping[str, float] | None = None,
) -> sparse.csr_matrix:
    """Compute the current weights of users: those of the fit, decayed until now, plus the recent interactions.

    Parameters
    ----------
    counts : csr_matrix, (n_users, n_items)
        `TrainingSet.matrix(half_life_days, type_weights)` of the fit.
    query : Query
        The n users, their recent interactions and the elapsed days.
    half_life_days : float or None
        Half-life of the exponential decay in days; None for no decay.
    type_weights : mapping of str to float, optional
        Weights of the types of interaction; None: recent auxiliary interactions do not count.

    Returns
    -------
    csr_matrix of float32, (n, n_items)
        Indices are sorted.
    """
    weights = type_weights or {}
    parts = [] if query.recent_interactions is None else [query.recent_interactions.weighted(weights)]
    if query.recent_auxiliary is not None and type_weights is not None:
        parts.append(query.recent_auxiliary.counted(type_weights))
    now = rows_of(counts, query.users).astype(np.float32, copy=False)
    if not parts:
        now.sort_indices()
        return now
    (n, n_items), values = now.shape, now.data
    if half_life_days is not None:
        values = values * np.float32(2.0 ** (-query.elapsed_days / half_life_days))
    # SciPy's sum of matrices, which are made from the parts first, takes four times as long for one user
    keys = np.concatenate(
        [
            np.repeat(np.arange(n), np.diff(now.indptr)) * n_items + now.indices,
            *(p.users.astype(np.int64) * n_items + p.items for p in parts),
        ]
    )
    values = np.concatenate([values, *(part.decayed_weights(half_life_days) for part in parts)])
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    first = np.ones(len(keys), dtype=bool)
    np.not_equal(keys[1:], keys[:-1], out=first[1:])
    values = np.bincount(np.cumsum(first) - 1, values[order]).astype(np.float32)
    keys = keys[first]
    if not values.all():
        keys, values = keys[values != 0], values[values != 0]
    rows = keys // n_items
    columns = (keys - rows * n_items).astype(counts.indices.dtype)
    return sparse.csr_matrix((values, columns, np.searchsorted(rows, np.arange(n + 1))), shape=(n, n_items))


def exclusion_matrix(
    query: Query, n_items: int, exclude: Sequence[Indices] | None, history: sparse.csr_matrix | None
) -> sparse.csr_matrix | None:
    """Combine the excluded items of each user into one matrix.

    Parameters
    ----------
    exclude : sequence of int arrays, (n,), or None
        Items to exclude per user.
    history : csr_matrix, (n_users, n_items), or None
        Interactions of the fit. If given, they and the recent interactions are excluded.

    Returns
    -------
    csr_matrix, (n, n_items), or None
        Indices are sorted; None if nothing is excluded.
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


def check_indices(what: str, given: Indices, least: int, count: int) -> None:
    """Check that user or item indices are in ``least … count − 1``; `what` names them in the error message.

    Raises
    ------
    InvalidRequest
        An index is out of range.
    """
    if len(given) and (given.min() < least or given.max() >= count):
        raise InvalidRequest(
            f"{what} index is outside the training set",
            got=[int(given.min()), int(given.max())],
            allowed=f"{least}..{count - 1}",
        )
