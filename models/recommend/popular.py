"""Popularity: the answer for somebody nobody knows, and the baseline of everything else. Overall, and what is rising."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from features.interactions import TrainingSet
from models.persist import Arrays
from models.ranked import top_k
from models.recommend.base import Indices, ItemFilter, Query, Recommender


class _NonPersonalizedRecommender(Recommender):
    """Everybody gets the same scores, `item_scores_` (n_items,)."""

    supports_cold: ClassVar[bool] = True
    item_scores_: NDArray[np.float32]

    def _scores(self, query: Query) -> NDArray[np.float32]:
        return np.repeat(self.item_scores_[None, :], len(query), axis=0)

    def _top_k(self, query: Query, k: int, item_filter: ItemFilter) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        longest = 0 if item_filter.excluded is None else int(np.diff(item_filter.excluded.indptr).max(initial=0))
        if longest > self.n_items_ // 2:
            return super()._top_k(query, k, item_filter)
        # one list, long enough that what a row may not have is made up for
        ids, scores = top_k(
            ItemFilter(item_filter.allowed).apply(self.item_scores_[None, :].copy()), min(k + longest, self.n_items_)
        )
        n = len(query)
        ids, scores = np.repeat(ids, n, axis=0), np.repeat(scores, n, axis=0)
        if not longest:
            return ids, scores
        place = np.argsort(item_filter.excludes(ids), axis=1, kind="stable")[
            :, :k
        ]  # what is barred goes to the end, the rest keeps its order
        out = np.take_along_axis(item_filter.excludes(ids), place, axis=1)
        best = np.where(out, np.float32(-np.inf), np.take_along_axis(scores, place, axis=1))
        return np.take_along_axis(ids, place, axis=1), best

    def _score_items(self, query: Query, ids: Indices) -> NDArray[np.float32]:
        return np.where(ids >= 0, self.item_scores_[ids], np.float32(-np.inf)).astype(np.float32)

    def _state(self) -> Arrays:
        return {"order": self.item_scores_}

    def _restore(self, state: Arrays) -> None:
        self.item_scores_ = state["order"]


class PopularRecommender(_NonPersonalizedRecommender):
    """Ranks items by how many customers had them in the last `window_days` (of all time where the window is None or empty)."""

    name: ClassVar[str] = "popular"

    def __init__(self, window_days: float | None = None) -> None:
        self.window_days = window_days

    def _fit(self, train: TrainingSet) -> None:
        self.item_scores_ = recent_customers(train, self.window_days)


class TrendingRecommender(_NonPersonalizedRecommender):
    """Ranks items by how far the customers of the last `window_days` exceed what the `baseline_days` before let expect.

    Scores ``(x − e) / sqrt(e + 1)`` for x customers of the window and e expected ones: a standardised Poisson residual, so that a few sales of
    something rare do not outrank a real rise. Untimed data have no trend: popularity then.
    """

    name: ClassVar[str] = "trending"

    def __init__(self, window_days: float = 14.0, baseline_days: float = 56.0) -> None:
        self.window_days, self.baseline_days = window_days, baseline_days

    def _fit(self, train: TrainingSet) -> None:
        ages = train.interactions.age_days
        if not (ages > self.window_days).any():
            self.item_scores_ = recent_customers(train, None)
            return
        recent = _customers(train, ages <= self.window_days)
        earlier = (ages > self.window_days) & (ages <= self.window_days + self.baseline_days)
        span = min(self.baseline_days, float(ages.max()) - self.window_days)
        # a customer of eight weeks may come several times: counted week by week, as the window is
        pieces = np.ceil(np.maximum(ages - self.window_days, 1e-6) / self.window_days).astype(np.int64)
        expected = np.zeros(train.n_items, dtype=np.float32)
        for piece in range(1, int(np.ceil(span / self.window_days)) + 1):
            expected += _customers(train, earlier & (pieces == piece))
        expected *= np.float32(self.window_days / max(span, self.window_days))
        self.item_scores_ = ((recent - expected) / np.sqrt(expected + 1.0)).astype(np.float32)


def recent_customers(train: TrainingSet, window_days: float | None) -> NDArray[np.float32]:
    """Distinct customers of each item in the last `window_days` before `as_of` (of all time where nobody had anything then), (n_items,)."""
    return np.asarray(interaction_matrix(train, window_days).sum(axis=0), dtype=np.float32).ravel()


def interaction_matrix(train: TrainingSet, window_days: float | None) -> sparse.csr_matrix:
    """Who had what in the last `window_days`, 0/1, (n_users, n_items)."""
    data = train.interactions
    recent = np.ones(len(data.users), dtype=bool) if window_days is None else data.age_days <= window_days
    if not recent.any():
        recent[:] = True
    return _interaction_matrix(train, recent)


def _interaction_matrix(train: TrainingSet, kept: NDArray[np.bool_]) -> sparse.csr_matrix:
    data = train.interactions
    interacted = sparse.csr_matrix(
        (np.ones(int(kept.sum()), np.float32), (data.users[kept], data.items[kept])), shape=data.shape
    )
    interacted.data[:] = 1.0
    return interacted


def _customers(train: TrainingSet, kept: NDArray[np.bool_]) -> NDArray[np.float32]:
    return np.asarray(_interaction_matrix(train, kept).sum(axis=0), dtype=np.float32).ravel()
