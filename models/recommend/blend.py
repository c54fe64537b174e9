"""Blend: the lists of several models, fused by weighted reciprocal ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from features.interactions import TrainingSet
from models.persist import Arrays
from models.ranked import NOT_A_CANDIDATE
from models.recommend.base import Indices, Query, Recommender
from models.recommend.fit_cache import fit_cached
from models.recommend.ranking.candidate_model import CandidateRecommender
from models.recommend.ranking.candidates import StageLists, list_ranks, positions_in
from models.recommend.ranking.two_stage import TwoStageRecommender
from models.recommend.single_stage import SINGLE_STAGE
from models.recommend.submodels import load_submodels, save_submodels
from qianmian.errors import UsageError

Component = tuple[str, Mapping[str, Any], float]
COMPONENTS: Mapping[str, type[Recommender]] = {**SINGLE_STAGE, TwoStageRecommender.name: TwoStageRecommender}
DEFAULT_COMPONENTS: tuple[Component, ...] = (("repeat", {}, 0.5), ("ials", {}, 0.3), ("popular", {}, 0.2))


class BlendRecommender(CandidateRecommender):
    """Scores an item by ``Σ weight / (rank_offset + rank)`` over its ranks in the lists of the components.

    Source of the method: reciprocal rank fusion (Cormack, Clarke & Büttcher 2009), with weights. Ranks count from 1 and
    need no common scale of the scores; items of equal score have the rank of the first of them. An item gets nothing
    from a component that does not list it. Candidates are the first `depth` items of each component, so a list may have
    fewer than k items; a user without history gets no list. Ranks are those before the filters of a call, so that a
    filter does not change the order of the other items. Items that no component lists before the filters come last, in
    the order of the fusion of their ranks among themselves.

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
    def sources(self) -> tuple[str, ...]:
        """The names of the components; the source of an item is the component that ranks it highest."""
        return tuple(name for name, _, _ in self.components)

    @property
    def _widths(self) -> list[int]:
        return [min(self.depth, self.n_items_)] * len(self.components)

    @property
    def _from_history(self) -> list[bool]:
        return [False] * len(self.components)

    @property
    def _ranks_new_only(self) -> bool:
        return self.new_only

    def _cells_per_user(self, k: int) -> int:
        return max(model._cells_per_user(k) for model in self.models_) + 4 * self.depth * len(self.models_)

    def _candidate_scores(self, query: Query, ids: Indices, lists: StageLists) -> NDArray[np.float32]:
        """Return the weighted sum of reciprocal ranks of item ids, (n, m); −inf for the id −1 and for no candidates.

        The sum is at most 1; it is lowered by 1 for items in no list.
        """
        offset, ids = np.float32(self.rank_offset), np.asarray(ids)
        scores = np.zeros(ids.shape, dtype=np.float32)
        for (listed, values), (_, _, weight) in zip(lists, self.components, strict=True):
            if not listed.shape[1]:
                continue
            place = positions_in(np.where(np.isfinite(values), listed, -1), ids)
            rank = np.take_along_axis(list_ranks(values), np.maximum(place, 0), axis=1)
            scores += np.where(place >= 0, np.float32(weight) / (offset + rank), np.float32(0.0))
        others = np.where(scores > 0, -1, ids)
        if (others >= 0).any():
            scores += self._scores_below_the_lists(query, others)
        return np.where(ids >= 0, scores, NOT_A_CANDIDATE)

    def _scores_below_the_lists(self, query: Query, ids: Indices) -> NDArray[np.float32]:
        """Return the scores of items that no component lists, (n, m); 0 for the id −1."""
        offset = np.float32(self.rank_offset)
        scores = np.zeros(ids.shape, dtype=np.float32)
        for model, (_, _, weight) in zip(self.models_, self.components, strict=True):
            found = model._score_items(query, ids)
            order = np.argsort(-found, axis=1, kind="stable")
            ranks = np.empty(ids.shape, dtype=np.float32)
            np.put_along_axis(ranks, order, list_ranks(np.take_along_axis(found, order, axis=1)), axis=1)
            scores += np.where(found > NOT_A_CANDIDATE, np.float32(weight) / (offset + ranks), np.float32(0.0))
        below = np.where(scores > 0, scores - np.float32(1.0), NOT_A_CANDIDATE)
        return np.where(ids >= 0, below, np.float32(0.0))

    # ---- persistence ---------------------------------------------------------------------------------------------

    def get_params(self) -> dict[str, Any]:
        components = [[name, dict(params), weight] for name, params, weight in self.components]
        return {**super().get_params(), "components": components}

    def save(self, folder: Path) -> None:
        super().save(folder)
        save_submodels(self.models_, folder)

    @classmethod
    def load(cls, folder: Path) -> Self:
        model = super().load(folder)
        model.models_ = load_submodels([name for name, _, _ in model.components], COMPONENTS, folder)
        return model

    def _state(self) -> Arrays:
        return {}

    def _restore(self, state: Arrays) -> None:
        """Do nothing: `load` restores the components."""
