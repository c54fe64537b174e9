"""`CandidateRecommender`: the base of models that score only the union of the candidates of other models."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from models.ranked import NOT_A_CANDIDATE, top_k
from models.recommend.base import Indices, ItemFilter, Query, Recommender, fold_in
from models.recommend.ranking.candidates import Candidates, StageLists, merge_candidates, stage_lists


class CandidateRecommender(Recommender):
    """Ranks the union of the lists of its fitted models; a user without history gets no list.

    The scores depend on the lists before the filters of a call, so that a filter does not change the order of the other
    items. Subclasses set `models_` and implement the hooks.

    Attributes
    ----------
    models_ : tuple of Recommender
        The fitted models.
    """

    returns_partial_lists: ClassVar[bool] = True
    models_: tuple[Recommender, ...]

    @property
    @abstractmethod
    def _widths(self) -> list[int]:
        """The number of candidates of each model."""

    @property
    @abstractmethod
    def _from_history(self) -> list[bool]:
        """Whether each model ranks only items that the user has."""

    @property
    @abstractmethod
    def _ranks_new_only(self) -> bool:
        """Whether items that the user has interacted with are never candidates."""

    @abstractmethod
    def _candidate_scores(self, query: Query, ids: Indices, lists: StageLists) -> NDArray[np.float32]:
        """Return the scores of item ids, (n, m), given the lists of the models; −inf for the id −1."""

    @property
    def submodels(self) -> tuple[Recommender, ...]:
        """The fitted models."""
        return self.models_

    def _rank_block(
        self, query: Query, k: int, item_filter: ItemFilter
    ) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int8]]:
        found, scores = self._candidates(query, item_filter)
        place, best = top_k(scores, k)
        ids = np.take_along_axis(found.ids, place.astype(np.int64), axis=1).astype(np.int32)
        return ids, best, np.take_along_axis(found.source, place.astype(np.int64), axis=1)

    def _top_k(self, query: Query, k: int, item_filter: ItemFilter) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        return self._rank_block(query, k, item_filter)[:2]

    def _scores(self, query: Query) -> NDArray[np.float32]:
        scores = np.full((len(query), self.n_items_), NOT_A_CANDIDATE, dtype=np.float32)
        found, values = self._candidates(query, ItemFilter())
        rows, places = np.nonzero(found.ids >= 0)
        scores[rows, found.ids[rows, places]] = values[rows, places]
        return scores

    def _score_items(self, query: Query, ids: Indices) -> NDArray[np.float32]:
        always = self._always_excluded(query)
        given = np.where(always.excludes(ids) | ~self._has_history(query)[:, None], -1, ids)
        return self._candidate_scores(query, given, stage_lists(self.models_, self._widths, query, always))

    def _always_excluded(self, query: Query) -> ItemFilter:
        return ItemFilter(None, fold_in(self.history_, query, None)) if self._ranks_new_only else ItemFilter()

    def _candidates(self, query: Query, item_filter: ItemFilter) -> tuple[Candidates, NDArray[np.float32]]:
        """Return the candidates that pass the filter and their scores, (n, m); −inf past the end."""
        always = self._always_excluded(query)
        lists = proposed = stage_lists(self.models_, self._widths, query, always)
        if item_filter.allowed is not None or _excludes_more(item_filter, always):
            excluded = item_filter.excluded
            if always.excluded is not None:
                excluded = always.excluded if excluded is None else (always.excluded + excluded).tocsr()
                excluded.sort_indices()
            proposed = stage_lists(self.models_, self._widths, query, ItemFilter(item_filter.allowed, excluded))
        found = merge_candidates(proposed, self._from_history)
        answered = self._has_history(query)
        if not answered.all():
            found = Candidates(
                np.where(answered[:, None], found.ids, -1),
                np.where(answered[:, None], found.source, -1).astype(np.int8),
            )
        return found, self._candidate_scores(query, found.ids, lists)


def _excludes_more(item_filter: ItemFilter, always: ItemFilter) -> bool:
    """Return whether a filter has other exclusions than those that always apply, so that its lists may differ."""
    given, own = item_filter.excluded, always.excluded
    if given is None or own is None:
        return given is not None
    return not (np.array_equal(given.indptr, own.indptr) and np.array_equal(given.indices, own.indices))
