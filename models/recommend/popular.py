"""Popularity and trends: the list for an unknown user, and the baseline of every other model."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from features.interaction_types import checked_type_weights
from features.interactions import TrainingSet
from models.persist import Arrays
from models.ranked import top_k
from models.recommend.base import Indices, ItemFilter, Query, Recommender
from models.recommend.type_weighted import TypeWeights


class _NonPersonalizedRecommender(Recommender):
    """Scores items equally for all users, by `item_scores_`, (n_items,)."""

    supports_cold: ClassVar[bool] = True
    item_scores_: NDArray[np.float32]
    best_: tuple[NDArray[np.int32], NDArray[np.float32]] | None = None  # the longest list so far
    descending_: NDArray[np.int32] | None = None  # all items, best first, once a request has a filter

    def _scores(self, query: Query) -> NDArray[np.float32]:
        return np.repeat(self.item_scores_[None, :], len(query), axis=0)

    def _top_k(self, query: Query, k: int, item_filter: ItemFilter) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        longest = 0 if item_filter.excluded is None else int(np.diff(item_filter.excluded.indptr).max(initial=0))
        if longest > self.n_items_ // 2:
            return super()._top_k(query, k, item_filter)
        # one list for all rows, long enough that k items remain in each row after its exclusions
        ids, scores = self._best_items(min(k + longest, self.n_items_), item_filter.allowed)
        n = len(query)
        ids, scores = np.repeat(ids, n, axis=0), np.repeat(scores, n, axis=0)
        if not longest:
            return ids, scores
        excluded = item_filter.excludes(ids)
        # a stable sort moves the excluded items to the end and keeps the order of the others
        place = np.argsort(excluded, axis=1, kind="stable")[:, :k]
        out = np.take_along_axis(excluded, place, axis=1)
        best = np.where(out, np.float32(-np.inf), np.take_along_axis(scores, place, axis=1))
        return np.take_along_axis(ids, place, axis=1), best

    def _best_items(self, k: int, allowed: NDArray[np.bool_] | None) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Return the k best allowed items and their scores, (1, k); kept for the next request if all are allowed."""
        if allowed is not None:
            ids = self._first_allowed(k, allowed)
            return ids[None, :], self.item_scores_[None, ids] + np.float32(0.0)
        best = self.best_
        if best is None or best[0].shape[1] < k:
            best = self.best_ = top_k(self.item_scores_[None, :], k)
        return best[0][:, :k], best[1][:, :k]

    def _first_allowed(self, k: int, allowed: NDArray[np.bool_]) -> NDArray[np.int32]:
        """Return the k best allowed items, (≤ k,); a request looks at as many of the best as it has to."""
        if self.descending_ is None:
            known = np.flatnonzero(self.item_scores_ > -np.inf).astype(np.int32)
            self.descending_ = known[np.argsort(-self.item_scores_[known], kind="stable")]
        end = 4 * k
        while True:
            found = self.descending_[:end]
            found = found[allowed[found]]
            if len(found) >= k or end >= len(self.descending_):
                return found[:k]
            end *= 4

    def _score_items(self, query: Query, ids: Indices) -> NDArray[np.float32]:
        return np.where(ids >= 0, self.item_scores_[ids], np.float32(-np.inf)).astype(np.float32)

    def _state(self) -> Arrays:
        return {"order": self.item_scores_}

    def _restore(self, state: Arrays) -> None:
        self.item_scores_ = state["order"]


class PopularRecommender(_NonPersonalizedRecommender):
    """Ranks items by the number of customers who bought them in the last `window_days`.

    Parameters
    ----------
    window_days : float or None
        Length of the window in days. All interactions count if it is None or if the window has no interactions.
    type_weights : mapping of str to float, optional
        Weight of a customer who met the item in each way, beside one of the target, who counts 1; None: the target
        alone.
    """

    name: ClassVar[str] = "popular"

    def __init__(self, window_days: float | None = None, type_weights: TypeWeights | None = None) -> None:
        self.window_days, self.type_weights = window_days, type_weights

    @property
    def auxiliary_types(self) -> tuple[str, ...]:
        return tuple(name for name, weight in (self.type_weights or {}).items() if weight > 0)

    def _fit(self, train: TrainingSet) -> None:
        if self.type_weights is None:
            self.item_scores_ = recent_customers(train, self.window_days)
            return
        weights, of_target = checked_type_weights(self.type_weights), train.interactions
        parts = [(1.0, of_target)]
        if of_target.types is not None:
            parts = [(weights.get(name, 1.0), of_target.of_types([name])) for name in of_target.type_counts()]
        if train.auxiliary is not None:
            parts += [
                (weights.get(name, 0.0), train.auxiliary.of_types([name])) for name in train.auxiliary.type_counts()
            ]
        self.item_scores_ = np.zeros(train.n_items, dtype=np.float32)
        for weight, part in parts:
            if weight > 0:
                customers = recent_customers(replace(train, interactions=part), self.window_days)
                self.item_scores_ += np.float32(weight) * customers


class TrendingRecommender(_NonPersonalizedRecommender):
    """Ranks items by how far their customers in the window exceed the number expected from the baseline period before.

    The score is ``(x − e) / sqrt(e + 1)`` for x customers in the window and e expected customers: a standardised
    Poisson residual, so that a few sales of a rare item do not outrank a real rise. Data without times have no trend;
    the model then ranks by popularity.

    Parameters
    ----------
    window_days : float
        Length of the window before `as_of` in days.
    baseline_days : float
        Length of the baseline period before the window in days.
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
        # customers are counted per period of the window's length, because one customer may return in each of them
        pieces = np.ceil(np.maximum(ages - self.window_days, 1e-6) / self.window_days).astype(np.int64)
        expected = np.zeros(train.n_items, dtype=np.float32)
        for piece in range(1, int(np.ceil(span / self.window_days)) + 1):
            expected += _customers(train, earlier & (pieces == piece))
        expected *= np.float32(self.window_days / max(span, self.window_days))
        self.item_scores_ = ((recent - expected) / np.sqrt(expected + 1.0)).astype(np.float32)


def recent_customers(train: TrainingSet, window_days: float | None) -> NDArray[np.float32]:
    """Count the distinct customers of each item in the last `window_days` before `as_of`, (n_items,).

    All interactions count if `window_days` is None or if there are none in the window.
    """
    return np.asarray(interaction_matrix(train, window_days).sum(axis=0), dtype=np.float32).ravel()


def interaction_matrix(train: TrainingSet, window_days: float | None) -> sparse.csr_matrix:
    """Return the 0/1 matrix of the interactions in the last `window_days`, (n_users, n_items).

    All interactions count if `window_days` is None or if there are none in the window.
    """
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
