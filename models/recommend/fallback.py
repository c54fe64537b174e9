"""Fallback chain: each slot of a list is filled by the first model that has an item for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from features.interactions import TrainingSet
from models.persist import Arrays
from models.ranked import NOT_A_CANDIDATE
from models.recommend.base import ItemFilter, Query, Recommender
from models.recommend.single_stage import SINGLE_STAGE
from models.recommend.submodels import load_submodels, save_submodels
from qianmian.interruption import checkpoint

DEFAULT_STAGES: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("repeat", {}),
    ("ials", {}),
    ("hybrid", {}),
    ("popular", {}),
)


class FallbackChain(Recommender):
    """Fills a list from its stages in order, and records the stage of each item as its source.

    A later stage fills only the slots that earlier stages left empty, and no item appears twice. For a stage score s,
    the score of an item is ``stages left + (1 + s / (1 + |s|)) / 2``: it descends along the list across stages.

    Parameters
    ----------
    stages : sequence of (str, dict)
        Names and parameters of the stages, in order. The last stage should support cold users.
    """

    name: ClassVar[str] = "chain"
    supports_cold: ClassVar[bool] = True
    supports_similar: ClassVar[bool] = True
    supports_fold_in: ClassVar[bool] = True

    def __init__(self, stages: Sequence[tuple[str, Mapping[str, Any]]] = DEFAULT_STAGES) -> None:
        self.stages = stages

    @classmethod
    def of(cls, models: Sequence[Recommender]) -> Self:
        """Build a chain from models that are already fitted on the same users and items."""
        chain = cls([(model.name, model.get_params()) for model in models])
        chain.models_ = tuple(models)
        chain.n_users_, chain.n_items_, chain.history_ = models[0].n_users_, models[0].n_items_, models[0].history_
        return chain

    @property
    def submodels(self) -> tuple[Recommender, ...]:
        """The fitted stages."""
        return self.models_

    def _fit(self, train: TrainingSet) -> None:
        self.models_ = tuple(SINGLE_STAGE[name](**params).fit(train) for name, params in self.stages)

    def _scores(self, query: Query) -> NDArray[np.float32]:
        best = np.full((len(query), self.n_items_), NOT_A_CANDIDATE, dtype=np.float32)
        for level, model in enumerate(self.models_):
            scores = _squashed(model._scores(query), len(self.models_) - 1 - level)
            best = np.where(np.isfinite(best), best, scores)
        return best

    def _rank_block(
        self, query: Query, k: int, item_filter: ItemFilter
    ) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int8]]:
        n = len(query)
        ids = np.full((n, k), -1, dtype=np.int32)
        scores = np.full((n, k), NOT_A_CANDIDATE, dtype=np.float32)
        source = np.full((n, k), -1, dtype=np.int8)
        filled = np.zeros(n, dtype=np.int64)
        for level, model in enumerate(self.models_):
            rows = np.flatnonzero(filled < k)
            if not len(rows):
                break
            checkpoint()
            subquery, left = (query, item_filter) if len(rows) == n else (query.take(rows), item_filter.take(rows))
            if level:  # items placed by earlier stages must not be ranked again
                left = left.without(ids[rows], self.n_items_)
            found, values, stage = model._rank_block(subquery, k, left)
            real = np.isfinite(values)
            place = filled[rows, None] + np.cumsum(real, axis=1) - 1
            real &= place < k
            row, column = np.nonzero(real)
            target = (rows[row], place[row, column])
            ids[target] = found[row, column]
            scores[target] = _squashed(values[row, column], len(self.models_) - 1 - level)
            source[target] = stage[row, column] + self._offsets[level]
            filled[rows] += real.sum(axis=1)
        return ids, scores, source

    @property
    def sources(self) -> tuple[str, ...]:
        """The sources of all stages, in order; a stage may have several."""
        return tuple(name for model in self.models_ for name in model.sources)

    @property
    def _offsets(self) -> list[int]:
        return [0, *np.cumsum([len(model.sources) for model in self.models_]).tolist()]

    def _similarity(self, item: int) -> NDArray[np.float32]:
        able = next((model for model in self.models_ if model.supports_similar), None)
        if able is None:
            raise self._unsupported("similar_items")
        return able._similarity(item)

    def save(self, folder: Path) -> None:
        super().save(folder)
        save_submodels(self.models_, folder)

    @classmethod
    def load(cls, folder: Path) -> Self:
        chain = super().load(folder)
        chain.models_ = load_submodels([name for name, _ in chain.stages], SINGLE_STAGE, folder)
        return chain

    def get_params(self) -> dict[str, Any]:
        return {"stages": [[name, dict(params)] for name, params in self.stages]}

    def _state(self) -> Arrays:
        return {}

    def _restore(self, state: Arrays) -> None:
        """Do nothing: `load` restores the stages."""


def _squashed(scores: NDArray[np.float32], level: int) -> NDArray[np.float32]:
    finite = np.where(np.isfinite(scores), scores, 0.0)
    squashed = level + (1.0 + finite / (1.0 + np.abs(finite))) / 2.0
    return np.where(np.isfinite(scores), squashed, NOT_A_CANDIDATE).astype(np.float32)
