"""Most popular items: the answer for somebody nobody knows, and the baseline of everything else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from features.dataset import TrainingSet
from models.persist import Arrays
from models.recommend.base import Attributes, Recommender


class PopularRecommender(Recommender):
    """Ranks items by how many customers had them in the last `window_days` (all time where the window is None or empty)."""

    name: ClassVar[str] = "popular"
    supports_cold: ClassVar[bool] = True

    def __init__(self, window_days: float | None = None) -> None:
        self.window_days = window_days

    def _fit(self, train: TrainingSet) -> None:
        data = train.interactions
        recent = np.ones(len(data.users), dtype=bool) if self.window_days is None else data.age_days <= self.window_days
        if not recent.any():
            recent[:] = True
        pairs = np.unique(data.users[recent].astype(np.int64) * train.n_items + data.items[recent])
        self.customers_ = np.bincount(pairs % train.n_items, minlength=train.n_items).astype(np.float32)

    def _scores(self, users: NDArray[np.int64], attributes: Sequence[Attributes | None] | None) -> NDArray[np.float32]:
        return np.repeat(self.customers_[None, :], len(users), axis=0)

    def _state(self) -> Arrays:
        return {"customers": self.customers_}

    def _restore(self, state: Arrays) -> None:
        self.customers_ = state["customers"]
