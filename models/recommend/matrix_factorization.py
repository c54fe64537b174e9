"""Base class of the recommenders that score by the inner product of a user vector and an item vector."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from models.inner_product_search import FactorIndex
from models.ranked import NOT_A_CANDIDATE
from models.recommend.base import Indices, ItemFilter, Query, Recommender
from qianmian.errors import ArtifactError


class FactorRecommender(Recommender):
    """Scores ``x_u · y_i + b_i``; top-k is a search for the largest inner products, without dense scores.

    Subclasses set `index_` in `_fit` and in `_restore`.

    Attributes
    ----------
    index_ : FactorIndex
        Item vectors and biases, prepared for the search.
    """

    supports_item_vectors: ClassVar[bool] = True

    index_: FactorIndex

    @abstractmethod
    def _user_vectors(self, query: Query) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return the user vectors, (n, d), and which users the model can rank for, bool, (n,)."""

    def _vectors(self, query: Query) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return `_user_vectors`, computed once for a query."""
        return query.memoize(self, lambda: self._user_vectors(query))

    def _scores(self, query: Query) -> NDArray[np.float32]:
        vectors, answerable = self._vectors(query)
        scores = self.index_.scores(vectors)
        scores[~answerable] = NOT_A_CANDIDATE
        return scores

    def _top_k(self, query: Query, k: int, item_filter: ItemFilter) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        vectors, answerable = self._vectors(query)
        if answerable.all():
            return self.index_.search(vectors, k, allowed=item_filter.allowed, excluded=item_filter.excluded)
        rows = np.flatnonzero(answerable)
        some = item_filter.take(rows)
        width = min(k, self.n_items_)
        ids, scores = np.full((len(query), width), -1, dtype=np.int32), np.full((len(query), width), NOT_A_CANDIDATE)
        ids[rows], scores[rows] = self.index_.search(vectors[rows], k, allowed=some.allowed, excluded=some.excluded)
        return ids, scores

    def _cells_per_user(self, k: int) -> int:
        return 8 * (k + int(self.index_.item_vectors.shape[1]))  # the search limits its own blocks

    def _score_items(self, query: Query, ids: Indices) -> NDArray[np.float32]:
        vectors, answerable = self._vectors(query)
        scores = self.index_.score_items(vectors, ids)
        scores[~answerable] = NOT_A_CANDIDATE
        return scores

    def item_vectors(self) -> NDArray[np.float32]:
        return self.index_.item_vectors


def check_finite(name: str, factors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return factors that were read from a file, unchanged.

    Raises
    ------
    ArtifactError
        A factor is not finite, so the scores would be meaningless.
    """
    bad = int((~np.isfinite(factors)).sum())
    if bad:
        raise ArtifactError(
            "the factors of a saved model are not finite",
            where=name,
            got=f"{bad} of {factors.size}",
            hint="train the model again, or roll back",
        )
    return factors
