"""`EvaluationSplit`: customers to evaluate, the training data of the models, and the relevant items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from features.interactions import Interactions, TrainingSet
from models.ranked import Ranked
from models.recommend.base import Indices, Recommender, UserAttributes

BATCH_SIZE = 200  # examples with own candidates that are ranked together
BATCH_CELLS = 8_000_000  # of these, examples × items: each may exclude all items, which is 64 MB of indices


@dataclass(frozen=True)
class EvaluationSplit:
    """Examples with known relevant items. An example is one customer, or one customer in one context.

    Attributes
    ----------
    train : TrainingSet
        Training data of the models.
    users : ndarray of int64, shape (n,)
        Customer of each example, as an index of `train`.
    truth : csr_matrix of float32, shape (n, n_items)
        1 for relevant items; every row has at least one.
    context_items, attributes, exclude, recent_interactions, recent_auxiliary, exclude_purchased, allowed, elapsed_days
        Arguments of `Recommender.recommend` (`context_items` is its `items`), per example in the order of `users`.
    candidates : csr_matrix, shape (n, n_items), optional
        1 for candidate items; each example is ranked over its own candidates only.
    source_items : ndarray of int64, shape (n_items,), optional
        Index in the original data of each item of `train`, for protocols that reorder items.
    """

    train: TrainingSet
    users: NDArray[np.int64]
    truth: sparse.csr_matrix
    context_items: Sequence[Indices] | None = None
    attributes: Sequence[UserAttributes | None] | None = None
    exclude: Sequence[Indices] | None = None
    recent_interactions: Interactions | None = None
    recent_auxiliary: Interactions | None = None
    exclude_purchased: bool = False
    allowed: NDArray[np.bool_] | None = None
    candidates: sparse.csr_matrix | None = None
    source_items: NDArray[np.int64] | None = None
    elapsed_days: float = 0.0

    def __len__(self) -> int:
        return len(self.users)

    def recommend_with(self, model: Recommender, k: int) -> Ranked:
        """Lists of up to k items by a model that was fitted on `train`."""
        if self.candidates is None or not len(self):
            return self._recommend(model, k)
        size = max(1, min(BATCH_SIZE, BATCH_CELLS // self.candidates.shape[1]))
        batches = [self.take(np.arange(start, min(start + size, len(self)))) for start in range(0, len(self), size)]
        lists = [batch._of_candidates()._recommend(model, k) for batch in batches]
        ids, scores, valid, source = (
            np.concatenate([getattr(part, name) for part in lists]) for name in ("ids", "scores", "valid", "source")
        )
        return Ranked(ids, scores, valid, source, lists[0].sources)

    def take(self, rows: NDArray[np.int64]) -> EvaluationSplit:
        """A subset of the examples, each at most once.

        Examples
        --------
        >>> data = TrainingSet.from_arrays([0, 1], [0, 1], n_users=2, n_items=2)
        >>> truth = sparse.csr_matrix(np.eye(2))
        >>> both = EvaluationSplit(data, np.arange(2), truth, recent_interactions=data.interactions)
        >>> second = both.take(np.array([1]))
        >>> second.users.tolist(), second.truth.indices.tolist(), second.recent_interactions.matrix().toarray().tolist()
        ([1], [1], [[0.0, 1.0]])
        """
        context_items, attributes, exclude = (
            None if values is None else [values[row] for row in rows.tolist()]
            for values in (self.context_items, self.attributes, self.exclude)
        )
        recent, auxiliary = (
            None if part is None else interactions_of_users(part, rows)
            for part in (self.recent_interactions, self.recent_auxiliary)
        )
        return replace(
            self,
            users=self.users[rows],
            truth=self.truth[rows],
            context_items=context_items,
            attributes=attributes,
            exclude=exclude,
            recent_interactions=recent,
            recent_auxiliary=auxiliary,
            candidates=None if self.candidates is None else self.candidates[rows],
        )

    def history(self) -> sparse.csr_matrix:
        """Items the customer of each example interacted with before, 0/1, shape (n, n_items)."""
        before = self.train.interactions.matrix()[self.users]
        if self.recent_interactions is not None:
            before = (before + self.recent_interactions.matrix()).tocsr()
        users, items = before.nonzero()
        return interaction_matrix(users, items, before.shape)

    def _recommend(self, model: Recommender, k: int) -> Ranked:
        return model.recommend(
            self.users,
            k,
            allowed=self.allowed,
            exclude=self.exclude,
            exclude_purchased=self.exclude_purchased,
            attributes=self.attributes,
            items=self.context_items,
            recent_interactions=self.recent_interactions,
            recent_auxiliary=self.recent_auxiliary,
            elapsed_days=self.elapsed_days,
        )

    def _of_candidates(self) -> EvaluationSplit:
        """The same examples, where `allowed` and `exclude` leave each of them its candidates."""
        assert self.candidates is not None
        examples, items = self.candidates.nonzero()
        allowed = np.zeros(self.candidates.shape[1], dtype=bool)
        allowed[items] = True
        if self.allowed is not None:
            allowed &= self.allowed
        others = np.tile(allowed, (len(self), 1))
        others[examples, items] = False
        for row, excluded in enumerate(self.exclude or ()):
            others[row, excluded] = True
        return replace(self, allowed=allowed, exclude=[np.flatnonzero(row) for row in others])


def interaction_matrix(users: NDArray[Any], items: NDArray[Any], shape: tuple[int, int]) -> sparse.csr_matrix:
    """Sparse 0/1 matrix of (user, item) pairs with sorted indices; repeated pairs are one entry.

    Examples
    --------
    >>> interaction_matrix(np.array([0, 0, 0]), np.array([2, 1, 2]), (1, 3)).toarray().tolist()
    [[0.0, 1.0, 1.0]]
    """
    matrix = sparse.csr_matrix((np.ones(len(users), np.float32), (users, items)), shape=shape)
    matrix.data[:] = 1.0
    matrix.sort_indices()
    return matrix


def first_interactions(interactions: sparse.csr_matrix, history: sparse.csr_matrix) -> sparse.csr_matrix:
    """Entries of a 0/1 matrix of interactions that the 0/1 matrix of the history does not have.

    Examples
    --------
    >>> later, history = (sparse.csr_matrix(np.array([row], np.float32)) for row in ([1, 1, 0], [0, 1, 1]))
    >>> first_interactions(later, history).toarray().tolist()
    [[1.0, 0.0, 0.0]]
    """
    new = (interactions - interactions.multiply(history)).tocsr()
    new.eliminate_zeros()
    new.sort_indices()
    return new


def interactions_of_users(interactions: Interactions, users: NDArray[np.int64]) -> Interactions:
    """Interactions of the given distinct users, renumbered in the given order.

    Examples
    --------
    >>> data = TrainingSet.from_arrays([0, 1, 2], [0, 1, 2], n_users=3, n_items=3).interactions
    >>> interactions_of_users(data, np.array([2, 0])).matrix().toarray().tolist()
    [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """
    row = np.full(interactions.shape[0], -1, dtype=np.int32)
    row[users] = np.arange(len(users), dtype=np.int32)
    kept = interactions.where(row[interactions.users] >= 0)
    return replace(kept, users=row[kept.users], shape=(len(users), interactions.shape[1]))
