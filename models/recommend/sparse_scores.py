"""`SparseScoresRecommender`: the base of models that score few items of each user, as one sparse matrix."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from models.recommend.base import Indices, ItemFilter, Query, Recommender, dense_scores, top_k_rows, values_at

Floats = NDArray[np.float32]


class SparseScoresRecommender(Recommender):
    """Fills the scoring hooks from a sparse score matrix; an item without an entry is no candidate."""

    @abstractmethod
    def _score_candidates(self, query: Query) -> sparse.csr_matrix:
        """Return the scores of all candidates, (n, n_items)."""

    def _candidates(self, query: Query) -> sparse.csr_matrix:
        """Return the scores of all candidates, (n, n_items), computed once for a query."""
        return query.memoize(self, lambda: self._score_candidates(query))

    def _scores(self, query: Query) -> Floats:
        return dense_scores(self._candidates(query))

    def _top_k(self, query: Query, k: int, item_filter: ItemFilter) -> tuple[NDArray[np.int32], Floats]:
        return top_k_rows(self._candidates(query), k, item_filter)

    def _score_items(self, query: Query, ids: Indices) -> Floats:
        found = self._candidates(query)
        found.sort_indices()  # only a look-up needs it, and it would take most of the time of a list
        return values_at(found, ids)
