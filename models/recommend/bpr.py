"""BPR: factors that rank purchased items above others (Rendle et al. 2009), fitted by `implicit`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from features.interactions import TrainingSet
from models.inner_product_search import FactorIndex
from models.persist import Arrays
from models.recommend.base import Choice, Query, Range
from models.recommend.cost import n_lines
from models.recommend.matrix_factorization import FactorRecommender, check_finite
from models.user_arrays import UserRows
from qianmian.errors import DataError


class BPRRecommender(FactorRecommender):
    """Bayesian personalised ranking: scores ``x_u · y_i + b_i``, learnt from pairs of a positive and a negative item.

    `implicit` samples the negative item by popularity, so the model learns at best ``ln p(i | u) − ln p(i)``, how much
    more a user prefers an item than all users do. ``popularity_power × ln n_i``, for the n_i customers of item i, adds
    popularity back to b_i: the recall@20 on a held-out tenth of Gowalla's training pairs is .104 with power 0 and .156
    with power 1. A user without history has no factors and gets no list.

    Parameters
    ----------
    factors : int
        Number of dimensions.
    iterations : int
        Number of passes over the interactions.
    learning_rate, regularization : float
        Parameters of the stochastic gradient descent.
    popularity_power : float
        0 ranks by preference relative to all users, 1 by likelihood.
    seed : int
        Seed of the initial factors and of the sampling.
    """

    name: ClassVar[str] = "bpr"
    user_arrays = (*FactorRecommender.user_arrays, UserRows("user_factors"))
    supports_similar: ClassVar[bool] = True
    search_space: ClassVar[Mapping[str, Range | Choice]] = {
        "factors": Choice((32, 64, 128, 256)),
        "iterations": Range(20, 300, log=True),
        "learning_rate": Range(0.005, 0.2, log=True),
        "regularization": Range(0.0001, 0.1, log=True),
        "popularity_power": Range(0.0, 1.5),
    }

    def __init__(
        self,
        factors: int = 64,
        iterations: int = 100,
        learning_rate: float = 0.05,
        regularization: float = 0.003,
        popularity_power: float = 1.0,
        seed: int = 0,
    ) -> None:
        self.factors, self.iterations = factors, iterations
        self.learning_rate, self.regularization = learning_rate, regularization
        self.popularity_power, self.seed = popularity_power, seed

    def estimated_cpu_seconds(self, train: TrainingSet) -> float:
        return 3.6e-9 * n_lines(train) * self.factors * self.iterations

    def _fit(self, train: TrainingSet) -> None:
        from implicit.cpu.bpr import BayesianPersonalizedRanking

        model = BayesianPersonalizedRanking(
            factors=self.factors,
            iterations=self.iterations,
            learning_rate=self.learning_rate,
            regularization=self.regularization,
            random_state=self.seed,
            num_threads=1,
        )  # with one thread, the same seed gives the same factors
        model.fit(self.history_, show_progress=False)
        # implicit stores the bias of an item as its last factor, whose counterpart is 1 in every user vector
        users, items = np.array(model.user_factors), np.array(model.item_factors)
        if not (np.isfinite(users).all() and np.isfinite(items).all()):
            raise DataError(
                "the factors are not finite",
                where="bpr",
                hint="fit with a smaller learning_rate or more regularization",
            )
        self.user_factors_ = users[:, :-1].copy()
        customers = np.bincount(self.history_.indices, minlength=self.n_items_)
        log_customers = np.log(np.maximum(customers, 0.5)).astype(np.float32)
        self.item_bias_ = items[:, -1] + np.float32(self.popularity_power) * log_customers
        self.index_ = FactorIndex(items[:, :-1].copy(), self.item_bias_)

    def _user_vectors(self, query: Query) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        answerable = self._has_history(query)
        vectors = np.zeros((len(query), self.index_.factors), dtype=np.float32)
        vectors[answerable] = self.user_factors_[query.users[answerable]]
        return vectors, answerable

    def _state(self) -> Arrays:
        return {
            "user_factors": self.user_factors_,
            "item_factors": self.index_.item_vectors,
            "item_bias": self.item_bias_,
        }

    def _restore(self, state: Arrays) -> None:
        self.user_factors_ = check_finite("bpr user factors", state["user_factors"])
        self.item_bias_ = check_finite("bpr item biases", state["item_bias"])
        self.index_ = FactorIndex(check_finite("bpr item factors", state["item_factors"]), self.item_bias_)
