"""Decayed repeat purchase: what a customer bought often and lately comes first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from features.dataset import TrainingSet
from models.persist import Arrays, pack_csr, unpack_csr
from models.ranked import NOT_A_CANDIDATE
from models.recommend.base import Attributes, Recommender


class RepeatPurchaseRecommender(Recommender):
    """Scores an item by the customer's own purchases of it, each counting ``2 ** (-age_days / half_life_days)``.

    Only what the customer had before is a candidate. Ties go to the more popular item (the order of `TrainingSet.item_ids`).

    Parameters
    ----------
    half_life_days : float or None
        None counts every purchase as 1: the customer's own purchase counts.
    """

    name: ClassVar[str] = "repeat"

    def __init__(self, half_life_days: float | None = 120.0) -> None:
        self.half_life_days = half_life_days

    def _fit(self, train: TrainingSet) -> None:
        self.counts_ = train.interactions.matrix(self.half_life_days)

    def _scores(self, users: NDArray[np.int64], attributes: Sequence[Attributes | None] | None) -> NDArray[np.float32]:
        scores = np.full((len(users), self.n_items_), NOT_A_CANDIDATE, dtype=np.float32)
        known = np.flatnonzero(users >= 0)
        own = self.counts_[users[known]].tocoo()
        scores[known[own.row], own.col] = own.data
        return scores

    def _state(self) -> Arrays:
        return pack_csr("counts", self.counts_)

    def _restore(self, state: Arrays) -> None:
        self.counts_ = unpack_csr("counts", state)
