"""Most popular items: the answer for somebody nobody knows, and the baseline of everything else."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from features.dataset import TrainingSet
from models.persist import Arrays
from models.recommend.base import Query, Recommender


class PopularRecommender(Recommender):
    """Ranks items by how many customers had them in the last `window_days` (of all time where the window is None or empty)."""

    name: ClassVar[str] = "popular"
    supports_cold: ClassVar[bool] = True

    def __init__(self, window_days: float | None = None) -> None:
        self.window_days = window_days

    def _fit(self, train: TrainingSet) -> None:
        self.customers_ = recent_customers(train, self.window_days)

    def _scores(self, query: Query) -> NDArray[np.float32]:
        return np.repeat(self.customers_[None, :], len(query), axis=0)

    def _state(self) -> Arrays:
        return {"customers": self.customers_}

    def _restore(self, state: Arrays) -> None:
        self.customers_ = state["customers"]


def recent_customers(train: TrainingSet, window_days: float | None) -> NDArray[np.float32]:
    """Distinct customers of each item in the last `window_days` before `as_of` (of all time where nobody had anything then), (n_items,)."""
    data = train.interactions
    recent = np.ones(len(data.users), dtype=bool) if window_days is None else data.age_days <= window_days
    if not recent.any():
        recent[:] = True
    pairs = np.unique(data.users[recent].astype(np.int64) * train.n_items + data.items[recent])
    return np.bincount(pairs % train.n_items, minlength=train.n_items).astype(np.float32)
