"""iALS: matrix factorisation of implicit feedback (Hu, Koren, Volinsky 2008), fitted by `implicit`."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from features.dataset import TrainingSet
from models.persist import Arrays
from models.ranked import NOT_A_CANDIDATE
from models.recommend.base import Query, Recommender


class ImplicitALSRecommender(Recommender):
    """Scores by the product of learnt user and item factors; an interaction's confidence decays with `half_life_days`.

    A user without history has no factors and is left to other models.
    """

    name: ClassVar[str] = "ials"
    supports_similar: ClassVar[bool] = True

    def __init__(
        self, factors: int = 64, iterations: int = 15, regularization: float = 0.05, half_life_days: float | None = 120.0, seed: int = 0
    ) -> None:
        self.factors, self.iterations, self.regularization = factors, iterations, regularization
        self.half_life_days, self.seed = half_life_days, seed

    def _fit(self, train: TrainingSet) -> None:
        from implicit.cpu.als import AlternatingLeastSquares
        from threadpoolctl import threadpool_limits

        with threadpool_limits(1, "blas"):
            model = AlternatingLeastSquares(
                factors=self.factors, iterations=self.iterations, regularization=self.regularization, random_state=self.seed, num_threads=1
            )  # one thread: the same seed gives the same factors
            model.fit(train.interactions.matrix(self.half_life_days), show_progress=False)
        self.user_factors_, self.item_factors_ = np.array(model.user_factors), np.array(model.item_factors)

    def _scores(self, query: Query) -> NDArray[np.float32]:
        scores = np.full((len(query), self.n_items_), NOT_A_CANDIDATE, dtype=np.float32)
        warm = self._has_history(query)
        scores[warm] = self.user_factors_[query.users[warm]] @ self.item_factors_.T
        return scores

    def _item_vectors(self) -> NDArray[np.float32]:
        return self.item_factors_

    def _state(self) -> Arrays:
        return {"user_factors": self.user_factors_, "item_factors": self.item_factors_}

    def _restore(self, state: Arrays) -> None:
        self.user_factors_, self.item_factors_ = state["user_factors"], state["item_factors"]
