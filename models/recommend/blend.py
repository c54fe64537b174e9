"""Blend: the lists of several models, fused by weighted reciprocal ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from features.interactions import TrainingSet
from models.persist import Arrays
from models.ranked import NOT_A_CANDIDATE, top_k
from models.recommend.base import Indices, ItemFilter, Query, Recommender, fit_cached, fold_in
from models.recommend.ranking.candidates import (
    Candidates,
    StageLists,
    merge_candidates,
    stage_features,
    stage_lists,
)
from models.recommend.ranking.two_stage import TwoStageRecommender
from models.recommend.single_stage import SINGLE_STAGE
from qianmian.errors import UsageError

Component = tuple[str, Mapping[str, Any], float]
COMPONENTS: Mapping[str, type[Recommender]] = {**SINGLE_STAGE, TwoStageRecommender.name: TwoStageRecommender}
DEFAULT_COMPONENTS: tuple[Component, ...] = (("repeat", {}, 0.5), ("ials", {}, 0.3), ("popular", {}, 0.2))


class BlendRecommender(Recommender):
    """Scores an item by ``Σ weight / (rank_offset + rank)`` over its ranks in the lists of the components.

    Source of the method: reciprocal rank fusion (Cormack, Clarke & Büttcher 2009), with weights. Ranks count from 1 and
    need no common scale of the scores. An item below the first `depth` items of a component has the rank ``depth + 1``
    there; an item that is not a candidate of a component gets nothing from it. Candidates are the first `depth` items
    of each component, so a list may have fewer than k items; a user without history gets no list. Ranks are those
    before the filters of a call, so that a filter does not change the order of the other items.

    Parameters
    ----------
    components : sequence of (str, dict, float)
        Name, parameters and weight of each component.
    rank_offset : float
        A larger offset gives the first ranks less weight.
    depth : int
        Number of items that each component proposes.
    new_only : bool
        Rank only items that the user has not interacted with; the ranks of the components are then among these.
    """

    name: ClassVar[str] = "blend"
    supports_fold_in: ClassVar[bool] = True
    returns_partial_lists: ClassVar[bool] = True

    def __init__(
        self,
        components: Sequence[Component] = DEFAULT_COMPONENTS,
        rank_offset: float = 20.0,
        depth: int = 100,
        new_only: bool = False,
    ) -> None:
        self.components, self.rank_offset, self.depth, self.new_only = components, rank_offset, depth, new_only

    def _fit(self, train: TrainingSet) -> None:
        if unknown := [name for name, _, _ in self.components if name not in COMPONENTS]:
            raise UsageError("unknown components of a blend", got=unknown, allowed=", ".join(COMPONENTS))
        self.models_ = tuple(fit_cached(COMPONENTS[name](**params), train) for name, params, _ in self.components)

    @property
    def submodels(self) -> tuple[Recommender, ...]:
        """The fitted components."""
        return self.models_

    @property
    def sources(self) -> tuple[str, ...]:
        """The names of the components; the source of an item is the component that ranks it highest."""
        return tuple(name for name, _, _ in self.components)

    @property
    def _widths(self) -> list[int]:
        return [min(self.depth, self.n_items_)] * len(self.components)

    def _cells_per_user(self, k: int) -> int:
        return max(model._cells_per_user(k) for model in self.models_) + 4 * self.depth * len(self.models_)

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
        return self._fused(query, given, stage_lists(self.models_, self._widths, query, always))

    def _always_excluded(self, query: Query) -> ItemFilter:
        return ItemFilter(None, fold_in(self.history_, query, None)) if self.new_only else ItemFilter()

    def _candidates(self, query: Query, item_filter: ItemFilter) -> tuple[Candidates, NDArray[np.float32]]:
        """Return the candidates that pass the filter and their scores, (n, m); −inf past the end."""
        always = self._always_excluded(query)
        lists = proposed = stage_lists(self.models_, self._widths, query, always)
        if item_filter.allowed is not None or item_filter.excluded is not None:
            excluded = item_filter.excluded
            if always.excluded is not None:
                excluded = always.excluded if excluded is None else (always.excluded + excluded).tocsr()
                excluded.sort_indices()
            proposed = stage_lists(self.models_, self._widths, query, ItemFilter(item_filter.allowed, excluded))
        found = merge_candidates(proposed, [False] * len(self.models_))
        answered = self._has_history(query)[:, None]
        found = Candidates(np.where(answered, found.ids, -1), np.where(answered, found.source, -1).astype(np.int8))
        return found, self._fused(query, found.ids, lists)

    def _fused(self, query: Query, ids: Indices, lists: StageLists) -> NDArray[np.float32]:
        """Return the weighted sum of reciprocal ranks of item ids, (n, m); −inf for the id −1 and for no candidates."""
        table = stage_features(self.models_, self._widths, query, ids, lists)
        weights = np.array([weight for _, _, weight in self.components], dtype=np.float32)
        gains = weights / (np.float32(self.rank_offset + 1.0) + table[:, :, 1::2])
        is_candidate = np.isfinite(table[:, :, 0::2])
        scores = np.where(is_candidate, gains, np.float32(0.0)).sum(axis=2, dtype=np.float32)
        return np.where((ids >= 0) & is_candidate.any(axis=2), scores, NOT_A_CANDIDATE).astype(np.float32)

    # ---- persistence ---------------------------------------------------------------------------------------------

    def get_params(self) -> dict[str, Any]:
        components = [[name, dict(params), weight] for name, params, weight in self.components]
        return {**super().get_params(), "components": components}

    def save(self, folder: Path) -> None:
        super().save(folder)
        for level, model in enumerate(self.models_):
            model.save(folder / f"{level}_{model.name}")

    @classmethod
    def load(cls, folder: Path) -> Self:
        model = super().load(folder)
        model.models_ = tuple(
            COMPONENTS[name].load(folder / f"{level}_{name}") for level, (name, _, _) in enumerate(model.components)
        )
        return model

    def _state(self) -> Arrays:
        return {}

    def _restore(self, state: Arrays) -> None:
        """Do nothing: `load` restores the components."""
