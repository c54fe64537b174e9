"""Popularity by segment: what customers with the same attributes have more than others do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from features.dataset import TrainingSet
from models.persist import Arrays, pack_csr, unpack_csr
from models.recommend.base import Choice, Indices, Query, Recommender, Span
from models.recommend.hybrid import user_attributes
from models.recommend.popular import customers_and_items

MOST_SEGMENTS = 256  # each is a row of n_items numbers


class SegmentPopularRecommender(Recommender):
    """What customers with the same attributes have more than others do, starting from what everybody has.

    ``log p(item) + weight × Σ_a log(p(item | a) / p(item))`` over the customer's attribute values a (naive Bayes), where
    ``p(item | a) = (n(item, a) + shrinkage × p(item)) / (n(a) + shrinkage)`` and n counts the customers of the last `window_days`:
    a value few customers have says little. Without attributes it is popularity.

    Parameters
    ----------
    shrinkage : float
        Customers that the overall share counts for in each segment.
    weight : float
        0 is popularity; attributes tell of each other, so less than 1.

    Attributes
    ----------
    attribute_names_ : ndarray of str, (a,)
        ``attribute=value`` of the `MOST_SEGMENTS` largest segments; row i of `lift_` (a, n_items) is its log-lift.
    """

    name: ClassVar[str] = "popular_by_segment"
    supports_cold: ClassVar[bool] = True
    search_space: ClassVar[Mapping[str, Span | Choice]] = {
        "window_days": Span(7.0, 365.0, log=True),
        "shrinkage": Span(5.0, 2000.0, log=True),
        "weight": Span(0.0, 1.5),
    }

    def __init__(self, window_days: float | None = 28.0, shrinkage: float = 50.0, weight: float = 0.5) -> None:
        self.window_days, self.shrinkage, self.weight = window_days, shrinkage, weight

    def _fit(self, train: TrainingSet) -> None:
        had = customers_and_items(train, self.window_days)
        overall = np.asarray(had.sum(axis=0)).ravel() + 1e-3
        share = overall / max(1, int((np.diff(had.indptr) > 0).sum()))
        names, attributes = user_attributes(train)
        members = (np.diff(had.indptr) > 0).astype(np.float32) @ attributes
        largest = np.sort(np.argsort(-members, kind="stable")[:MOST_SEGMENTS])
        self.attribute_names_, attributes, members = names[largest], attributes[:, largest], members[largest]
        self.user_attributes_ = attributes.astype(np.float32)
        counts = np.asarray((attributes.T @ had).todense()) if attributes.shape[1] else np.empty((0, train.n_items))
        within = (counts + self.shrinkage * share) / (members[:, None] + self.shrinkage)
        self.lift_ = np.log(within / share).astype(np.float32)
        self.prior_ = np.log(share).astype(np.float32)

    def _scores(self, query: Query) -> NDArray[np.float32]:
        return np.asarray(self.prior_ + np.float32(self.weight) * (self._traits(query) @ self.lift_), dtype=np.float32)

    def _scores_at(self, query: Query, ids: Indices) -> NDArray[np.float32]:
        inside = np.maximum(ids, 0)
        traits = self._traits(query)
        scores = self.prior_[inside].copy()
        for attribute in np.unique(traits.indices):
            rows = np.flatnonzero(np.asarray(traits[:, attribute].todense()).ravel())
            scores[rows] += np.float32(self.weight) * self.lift_[attribute][inside[rows]]
        return np.where(ids >= 0, scores, np.float32(-np.inf)).astype(np.float32)

    def _traits(self, query: Query) -> sparse.csr_matrix:
        """Attributes of the users, (n, a): those of the profile, or the ones given for somebody without a profile."""
        n, width = len(query), len(self.attribute_names_)
        traits = self.user_attributes_[np.maximum(query.users, 0)] if self.n_users_ else sparse.csr_matrix((n, width), dtype=np.float32)
        traits = (sparse.diags((query.users >= 0).astype(np.float32)) @ traits).tocsr()
        traits.eliminate_zeros()
        for row, given in enumerate(query.attributes or ()):  # attributes come with a request, a handful at a time
            if given and traits.indptr[row] == traits.indptr[row + 1]:
                codes = np.flatnonzero(np.isin(self.attribute_names_, [f"{name}={value}" for name, value in given.items()]))
                added = sparse.csr_matrix((np.ones(len(codes), np.float32), (np.full(len(codes), row), codes)), shape=(n, width))
                traits = (traits + added).tocsr()
        return traits

    def _state(self) -> Arrays:
        return {
            "lift": self.lift_, "prior": self.prior_, "attribute_names": self.attribute_names_, **pack_csr("traits", self.user_attributes_),
        }  # fmt: skip

    def _restore(self, state: Arrays) -> None:
        self.lift_, self.prior_, self.attribute_names_ = state["lift"], state["prior"], state["attribute_names"]
        self.user_attributes_ = unpack_csr("traits", state)
