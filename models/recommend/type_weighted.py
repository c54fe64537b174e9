"""`TypeWeightedRecommender`: the base of models that count interactions of several types, each with its weight."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from features.interactions import TrainingSet
from models.persist import Arrays, UserArrays, pack_csr, unpack_csr
from models.recommend.base import Query, Recommender, fold_in, has_entries
from models.recommend.sampling import learning_sample
from models.user_arrays import UserMatrix

TypeWeights = Mapping[str, float]


class TypeWeightedRecommender(Recommender):
    """Keeps the decayed counts of each user and item, and adds the interactions after the fit to them.

    Subclasses have the parameters `half_life_days` and `type_weights` and call `_count`, `_counts_state` and
    `_restore_counts`. What `exclude_purchased` leaves out are the interactions of the target alone.

    Attributes
    ----------
    counts_ : csr_matrix of float32, (n_users, n_items)
        `TrainingSet.matrix(half_life_days, type_weights)`.
    """

    half_life_days: float | None
    user_arrays: ClassVar[tuple[UserArrays, ...]] = (UserMatrix("history", ("weights",)), UserMatrix("counts"))
    type_weights: TypeWeights | None
    counts_: sparse.csr_matrix

    @property
    def auxiliary_types(self) -> tuple[str, ...]:
        return tuple(name for name, weight in (self.type_weights or {}).items() if weight > 0)

    def _count(self, train: TrainingSet) -> None:
        """Set `counts_`."""
        counts = train.matrix(self.half_life_days, self.type_weights)
        self.counts_ = self._sharing_history(counts.data) if self.type_weights is None else counts

    def _learnt_counts(self, train: TrainingSet) -> sparse.csr_matrix:
        """Return the counts of the `learning_sample`, after `_count`."""
        sample = learning_sample(train)
        return self.counts_ if sample is train else sample.matrix(self.half_life_days, self.type_weights)

    def _counts_now(self, query: Query) -> sparse.csr_matrix:
        """Return the counts of each user until now, (n, n_items)."""
        return fold_in(self.counts_, query, self.half_life_days, self.type_weights)

    def _has_history(self, query: Query) -> NDArray[np.bool_]:
        interacted = super()._has_history(query)
        if self.type_weights is not None:
            interacted |= has_entries(self.counts_, query.users)
        return interacted

    def _counts_state(self) -> Arrays:
        return {"weights": self.counts_.data} if self.type_weights is None else pack_csr("counts", self.counts_)

    def _restore_counts(self, state: Arrays) -> None:
        self.counts_ = (
            self._sharing_history(state["weights"]) if self.type_weights is None else unpack_csr("counts", state)
        )

    def _sharing_history(self, weights: NDArray[np.float32]) -> sparse.csr_matrix:
        """Return a matrix of the weights of the target, which shares its sparsity pattern with `history_`."""
        return sparse.csr_matrix((weights, self.history_.indices, self.history_.indptr), shape=self.history_.shape)
