"""Diversity: limits on the number of items per group, and maximal marginal relevance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from models.recommend.base import Recommender

NO_ITEM = -1
Ids = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Cap:
    """Limits the number of items of each group in a list.

    Attributes
    ----------
    name : str
        Name of the grouping, as in the request.
    groups : int array, (n_items,)
        Group of each item; an item of group −1 is not limited.
    limit : int
        Largest number of items of one group in a list.
    """

    name: str
    groups: NDArray[np.int64]
    limit: int


class Similarity(Protocol):
    """Similarity of items, from 0 (nothing in common) to 1."""

    def within(self, ids: Ids) -> Callable[[NDArray[np.int64]], NDArray[np.float32]]:
        """Prepare the similarities within n lists of m items.

        Parameters
        ----------
        ids : int array, (n, m)
            Items of the lists; −1 for none.

        Returns
        -------
        callable
            Maps one position per list, (n,), to the similarities of all items to the item at that position, (n, m).
        """
        ...


class VectorSimilarity:
    """Cosine of item vectors; a negative cosine counts as 0.

    Parameters
    ----------
    vectors : ndarray of float32, (n_items, d)
        Vector of each item.
    """

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        self.unit = np.nan_to_num(vectors / np.maximum(norms, np.float32(1e-12))).astype(np.float32)

    def within(self, ids: Ids) -> Callable[[NDArray[np.int64]], NDArray[np.float32]]:
        pool = np.where((ids >= 0)[:, :, None], self.unit[ids], np.float32(0.0))
        rows = np.arange(len(ids))
        return lambda positions: np.maximum(np.einsum("nmd,nd->nm", pool, pool[rows, positions]), np.float32(0.0))


class PathSimilarity:
    """Share of category levels that two items have in common: 1/3 for GROCERY/SOUP/CANNED and GROCERY/TEA/GREEN.

    Parameters
    ----------
    levels : int array, (n_items, depth)
        Groups of each item by the first 1, 2, … levels of its category path; −1 past the end of the path.
    """

    def __init__(self, levels: NDArray[np.int64]) -> None:
        self.levels = levels
        self.depth = (levels >= 0).sum(axis=1)

    def within(self, ids: Ids) -> Callable[[NDArray[np.int64]], NDArray[np.float32]]:
        pool, depth = self.levels[ids], self.depth[ids]
        pool = np.where((ids >= 0)[:, :, None], pool, NO_ITEM)
        rows = np.arange(len(ids))

        def similarity_to(positions: NDArray[np.int64]) -> NDArray[np.float32]:
            path = pool[rows, positions][:, None, :]
            common = ((pool == path) & (pool >= 0)).sum(axis=2)
            longer = np.maximum(depth, depth[rows, positions][:, None])
            return np.asarray(common / np.maximum(longer, 1), dtype=np.float32)

        return similarity_to


def item_vectors(model: Recommender) -> NDArray[np.float32] | None:
    """Return the item vectors, (n_items, d), of a model or its first submodel that has them; None if none has."""
    able = next((part for part in model.with_submodels() if part.supports_item_vectors), None)
    return None if able is None else able.item_vectors()


def select(
    ids: Ids,
    steps: int,
    *,
    caps: Sequence[Cap] = (),
    selected: Ids | None = None,
    mmr: float | None = None,
    similarity: Similarity | None = None,
    scale: int = 1,
) -> NDArray[np.int64]:
    """Select items from ranked candidates one by one within the limits.

    Without `mmr`, the best remaining candidate is selected. With `mmr`, the candidate that maximises
    ``λ rel − (1 − λ) max sim`` to the selected items is (maximal marginal relevance, Carbonell & Goldstein 1998), where
    rel is ``1 − position / scale``, because the scores of recommenders have no common scale.

    Parameters
    ----------
    ids : int array, (n, m)
        Candidates, best first; −1 past the end.
    steps : int
        Number of items to select.
    caps : sequence of Cap
        Limits per group.
    selected : int array, (n, t), optional
        Items already in the list, −1 for none. They are not selected again and count towards the limits.
    mmr : float, optional
        λ, from 0 (only diversity) to 1 (only relevance).
    similarity : Similarity, optional
        Similarity of items, for `mmr`.
    scale : int
        Number of positions over which the relevance falls from 1 to 0.

    Returns
    -------
    ndarray of int64, (n, steps)
        Positions in `ids` in the order of selection; −1 where no candidate was left.

    Examples
    --------
    >>> groups = np.array([0, 0, 0, 1])
    >>> select(np.array([[2, 0, 1, 3]]), 3, caps=[Cap("brand", groups, 2)]).tolist()
    [[0, 1, 3]]
    """
    n, m = ids.shape
    chosen = np.full((n, steps), NO_ITEM, dtype=np.int64)
    if not m or not n:
        return chosen
    rows = np.arange(n)
    closed = ids < 0
    groups = [np.where(ids >= 0, cap.groups[ids], NO_ITEM) for cap in caps]
    counts = [np.zeros((n, m), dtype=np.int64) for _ in caps]
    if selected is not None:
        for column in selected.T:
            closed |= (ids == column[:, None]) & (column >= 0)[:, None]
            for cap, group, count in zip(caps, groups, counts, strict=True):
                count += (group == np.where(column >= 0, cap.groups[column], NO_ITEM)[:, None]) & (group >= 0)
        for cap, count in zip(caps, counts, strict=True):
            closed |= count >= cap.limit
    if not caps and mmr is None:  # the choices do not depend on one another
        first = np.argsort(closed, axis=1, kind="stable")[:, :steps]
        chosen[:, : first.shape[1]] = np.where(closed[rows[:, None], first], NO_ITEM, first)
        return chosen
    value = np.broadcast_to(np.arange(m, 0, -1, dtype=np.float64), (n, m))
    nearest: NDArray[np.float32] | None = None
    similarity_to: Callable[[NDArray[np.int64]], NDArray[np.float32]] | None = None
    relevance = 1.0 - np.arange(m) / scale
    if mmr is not None and mmr < 1.0 and similarity is not None:
        similarity_to, nearest = similarity.within(ids), np.zeros((n, m), dtype=np.float32)
    for step in range(min(steps, m)):
        if mmr is not None and nearest is not None:
            value = mmr * relevance - (1.0 - mmr) * nearest
        best = np.where(closed, -np.inf, value).argmax(axis=1)
        open_rows = ~closed[rows, best]
        if not open_rows.any():
            break
        chosen[:, step] = np.where(open_rows, best, NO_ITEM)
        closed[rows, best] = True
        for cap, group, count in zip(caps, groups, counts, strict=True):
            own = group[rows, best]
            count += (group == own[:, None]) & (group >= 0) & open_rows[:, None]
            closed |= count >= cap.limit
        if similarity_to is not None and nearest is not None:
            nearest = np.maximum(nearest, np.where(open_rows[:, None], similarity_to(best), 0.0))
    return chosen
