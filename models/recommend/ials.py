"""iALS: matrix factorisation of implicit feedback (Hu, Koren, Volinsky 2008), fitted by `implicit`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from features.interactions import TrainingSet
from models.inner_product_search import FactorIndex
from models.parallel import one_blas_thread, thread_budget
from models.persist import Arrays
from models.recommend.base import Choice, Query, Range
from models.recommend.cost import n_learnt_lines, n_lines
from models.recommend.matrix_factorization import FactorRecommender, check_finite
from models.recommend.sampling import learning_sample
from models.recommend.type_weighted import TypeWeightedRecommender, TypeWeights
from models.user_arrays import UserRows
from qianmian.errors import DataError

GATHERED = 1 << 22  # item factors copied per batch when users are solved: 16 MB


class ImplicitALSRecommender(TypeWeightedRecommender, FactorRecommender):
    """Scores items by the product of user and item factors; the weight of an interaction decays with its age.

    As in `implicit`, the confidence is ``alpha × weight`` for an interaction and 1 elsewhere. A user without history
    has no factors and gets no list. Interactions after the fit are folded in by one exact half-step: the factors of the
    user are solved for, those of the items stay. The item factors of a large shop are those of the `learning_sample`,
    and all customers are folded in.

    Parameters
    ----------
    factors : int
        Number of dimensions.
    iterations : int
        Number of alternations.
    regularization : float
        λ, equal for all users and items, in units of `noise_level`, so that one value suits large and small shops.
    alpha : float
        Confidence in an interaction of weight 1; the confidence in its absence is 1.
    half_life_days : float or None
        Half-life of a weight in days; None for no decay.
    seed : int
        Seed of the initial factors.
    type_weights : mapping of str to float, optional
        Weights of the types of interaction, as in `TrainingSet.matrix`; None: the target alone.

    Notes
    -----
    The defaults were chosen on validation data (Complete Journey, October and November 2017; a tenth of Gowalla's
    training pairs) with 64 factors. NDCG@10 of all purchases / of first purchases in October: .268 / .052 (λ = .05 and
    alpha = 1: .260 / .048); Gowalla recall@20: .121 (.108). A larger alpha suits sparse data (Gowalla, alpha = 10:
    .148) and is worse where customers buy items again (Complete Journey, alpha = 10: .172 / .043).
    """

    name: ClassVar[str] = "ials"
    user_arrays = (*TypeWeightedRecommender.user_arrays, UserRows("user_factors"))
    supports_similar: ClassVar[bool] = True
    supports_fold_in: ClassVar[bool] = True
    search_space: ClassVar[Mapping[str, Range | Choice]] = {
        "factors": Choice((32, 64, 128, 256)),
        "iterations": Range(5, 25),
        "regularization": Range(0.01, 4.0, log=True),
        "alpha": Range(0.1, 50.0, log=True),
        "half_life_days": Choice((60.0, 120.0, 240.0, None)),
    }

    def __init__(
        self,
        factors: int = 64,
        iterations: int = 15,
        regularization: float = 1.0,
        alpha: float = 2.0,
        half_life_days: float | None = 120.0,
        seed: int = 0,
        type_weights: TypeWeights | None = None,
    ) -> None:
        self.factors, self.iterations, self.regularization, self.alpha = factors, iterations, regularization, alpha
        self.half_life_days, self.seed, self.type_weights = half_life_days, seed, type_weights

    def estimated_cpu_seconds(self, train: TrainingSet) -> float:
        alternations = 2.2e-9 * n_learnt_lines(train) * self.factors * self.iterations
        sampled = n_learnt_lines(train) < n_lines(train)
        solved = 4e-10 * n_lines(train) * self.factors**2 if sampled else 0.0
        return alternations + solved

    def estimated_peak_bytes(self, train: TrainingSet) -> int:
        return 60 * n_lines(train) + 8 * self.factors * (train.n_users + train.n_items)

    def _fit(self, train: TrainingSet) -> None:
        from implicit.cpu.als import AlternatingLeastSquares
        from implicit.recommender_base import ModelFitError

        self._count(train)
        weights, sample = self.counts_, learning_sample(train)
        learnt = self._learnt_counts(train)
        self.ridge_ = self.regularization * noise_level(learnt)
        try:
            with one_blas_thread():
                model = AlternatingLeastSquares(
                    factors=self.factors,
                    iterations=self.iterations,
                    regularization=self.ridge_,
                    random_state=self.seed,
                    num_threads=thread_budget(),
                )  # every row is solved on its own, so the factors do not depend on the number of threads
                model.fit(self._confidence(learnt), show_progress=False)
        except ModelFitError as error:
            raise DataError(
                "the factors are not finite", where="ials", hint="fit with more regularization or fewer factors"
            ) from error
        self.user_factors_ = np.array(model.user_factors)
        self._set_items(np.array(model.item_factors))
        if sample is not train:  # the item factors are those of the sample; every customer is solved for
            self.user_factors_ = self.solve(weights)

    def _set_items(self, item_factors: NDArray[np.float32]) -> None:
        self.index_ = FactorIndex(item_factors)
        identity = np.eye(item_factors.shape[1], dtype=np.float32)
        self.gram_ = item_factors.T @ item_factors + np.float32(self.ridge_) * identity

    def _confidence(self, weights: sparse.csr_matrix) -> sparse.csr_matrix:
        return sparse.csr_matrix(
            (np.float32(self.alpha) * weights.data, weights.indices, weights.indptr), shape=weights.shape
        )

    def _user_vectors(self, query: Query) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        answerable = self._has_history(query)
        vectors = np.zeros((len(query), self.index_.factors), dtype=np.float32)
        known = answerable & (query.users >= 0)
        vectors[known] = self.user_factors_[query.users[known]]
        changed = query.changed_rows(auxiliary=self.type_weights is not None)
        if len(changed):
            vectors[changed] = self.solve(self._counts_now(query.take(changed)))
        return vectors, answerable

    def solve(self, weights: sparse.csr_matrix) -> NDArray[np.float32]:
        """Solve for the factors of users with the item factors fixed.

        ``x = (YᵀY + Yᵀ(C − I)Y + λI)⁻¹ Yᵀ C p`` (Hu, Koren, Volinsky 2008, equation 4). Users with histories of similar
        length are solved in one batch.

        Parameters
        ----------
        weights : csr_matrix, (n, n_items)
            Decayed weights of the interactions.

        Returns
        -------
        ndarray of float32, (n, factors)
            Zeros for a user without weights.
        """
        counts = np.diff(weights.indptr)
        solved = np.zeros((weights.shape[0], self.index_.factors), dtype=np.float32)
        order = np.argsort(counts, kind="stable")
        order = order[counts[order] > 0]
        start = 0
        while start < len(order):
            # histories are padded to the longest one of the batch, which is the last
            fits = np.arange(1, len(order) - start + 1) * counts[order[start:]] * self.index_.factors <= GATHERED
            rows = order[start : start + max(1, int(fits.sum()))]
            positions = weights.indptr[rows][:, None] + np.arange(counts[rows[-1]])
            stored = positions < weights.indptr[rows + 1][:, None]
            positions = np.where(stored, positions, 0)
            confidence = np.float32(self.alpha) * weights.data[positions]
            extra = np.where(stored, confidence - np.float32(1.0), np.float32(0.0))
            items = self.index_.item_vectors[weights.indices[positions]]
            transposed = items.transpose(0, 2, 1)
            left = self.gram_ + transposed @ (extra[:, :, None] * items)
            right = transposed @ np.where(stored, 1.0 + extra, np.float32(0.0))[:, :, None]
            solved[rows] = np.linalg.solve(left, right)[:, :, 0]
            start += len(rows)
        return solved

    def _state(self) -> Arrays:
        return {
            "user_factors": self.user_factors_,
            "item_factors": self.index_.item_vectors,
            **self._counts_state(),
            "ridge": np.asarray(self.ridge_),
        }

    def _restore(self, state: Arrays) -> None:
        self.user_factors_ = check_finite("ials: user_factors", state["user_factors"])
        self._restore_counts(state)
        self.ridge_ = float(state["ridge"])
        self._set_items(check_finite("ials: item_factors", state["item_factors"]))


def noise_level(matrix: sparse.csr_matrix) -> float:
    """Estimate the largest singular value of a random 0/1 matrix of the same size and number of ones.

    The estimate is ``√ones × (1/√rows + 1/√columns)`` (Geman 1980). Rows and columns without entries do not count.

    Examples
    --------
    >>> noise_level(sparse.csr_matrix([[1, 2, 0], [3, 4, 0]]))
    2.8284271247461903
    """
    rows, columns = int((np.diff(matrix.indptr) > 0).sum()), len(np.unique(matrix.indices))
    return float(np.sqrt(matrix.nnz) * (rows**-0.5 + columns**-0.5)) if matrix.nnz else 0.0
