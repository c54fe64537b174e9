"""Popularity by segment: items that are more popular with customers of the same attributes than with others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from features.interactions import TrainingSet
from models.persist import Arrays, pack_csr, unpack_csr
from models.recommend.base import Choice, Indices, Query, Range, Recommender
from models.recommend.hybrid import user_attributes
from models.recommend.popular import interaction_matrix, recent_customers
from models.user_arrays import UserMatrix

MAX_SEGMENTS = 256  # each segment stores a row of n_items numbers


class SegmentPopularRecommender(Recommender):
    """Ranks items by recent popularity and by their lift in the segments of the user.

    The score is ``log p(item) + weight × Σ_a log lift(item, a)`` over the attribute values a of the user (naive Bayes),
    where ``lift = (n(item, a) + prior_events) / (e(item, a) + prior_events)``. n is the number of customers of the
    segment who bought the item, and e is the number expected if the segment were like all customers. The lift is the
    posterior mean of a gamma-Poisson rate (DuMouchel 1999), so few events give a lift near 1. A user without attributes
    gets the most popular items.

    Parameters
    ----------
    window_days : float or None
        Window of the popularity in days. The lifts use all interactions, because they need as many as possible.
    prior_events : float
        Weight of the prior, in events.
    weight : float
        Weight of the lifts. 0 ranks by popularity; correlated attributes need a weight below 1. Chosen with
        `prior_events` on Complete Journey (October and November 2017, histories hidden, three draws): NDCG@10 is .262
        and .268 against .259 and .263 for popularity, and .25 or .20 with a larger weight or a smaller prior.

    Attributes
    ----------
    attribute_names_ : ndarray of str, (a,)
        ``attribute=value`` of the `MAX_SEGMENTS` largest segments; row i of `lift_` (a, n_items) is its log-lift.
    """

    name: ClassVar[str] = "popular_by_segment"
    user_arrays = (*Recommender.user_arrays, UserMatrix("traits"))
    supports_cold: ClassVar[bool] = True
    search_space: ClassVar[Mapping[str, Range | Choice]] = {
        "window_days": Range(7.0, 365.0, log=True),
        "prior_events": Range(2.0, 500.0, log=True),
        "weight": Range(0.0, 1.5),
    }

    def __init__(self, window_days: float | None = 28.0, prior_events: float = 100.0, weight: float = 0.25) -> None:
        self.window_days, self.prior_events, self.weight = window_days, prior_events, weight

    def _fit(self, train: TrainingSet) -> None:
        interacted = interaction_matrix(train, None)
        active = (np.diff(interacted.indptr) > 0).astype(np.float32)
        share = np.asarray(interacted.sum(axis=0)).ravel() / max(1.0, float(active.sum()))
        names, attributes = user_attributes(train)
        members = active @ attributes
        largest = np.sort(np.argsort(-members, kind="stable")[:MAX_SEGMENTS])
        self.attribute_names_, attributes, members = names[largest], attributes[:, largest], members[largest]
        self.user_attributes_ = attributes.astype(np.float32)
        counts = (
            np.asarray((attributes.T @ interacted).todense()) if attributes.shape[1] else np.empty((0, train.n_items))
        )
        expected = members[:, None] * share
        lift = np.log((counts + self.prior_events) / (expected + self.prior_events)).astype(np.float32)
        self.lift_ = np.ascontiguousarray(lift)  # SciPy copies another order for every product
        self.prior_ = np.log(recent_customers(train, self.window_days) + np.float32(0.5)).astype(np.float32)

    @property
    def attribute_names(self) -> tuple[str, ...]:
        return tuple(self.attribute_names_.tolist())

    def _scores(self, query: Query) -> NDArray[np.float32]:
        return np.asarray(
            self.prior_ + np.float32(self.weight) * (self._user_attributes(query) @ self.lift_), dtype=np.float32
        )

    def _score_items(self, query: Query, ids: Indices) -> NDArray[np.float32]:
        inside = np.maximum(ids, 0)
        attributes = self._user_attributes(query)
        scores = self.prior_[inside].copy()
        for attribute in np.unique(attributes.indices):
            rows = np.flatnonzero(np.asarray(attributes[:, attribute].todense()).ravel())
            scores[rows] += np.float32(self.weight) * self.lift_[attribute][inside[rows]]
        return np.where(ids >= 0, scores, np.float32(-np.inf)).astype(np.float32)

    def _user_attributes(self, query: Query) -> sparse.csr_matrix:
        """One-hot attributes, (n, a): those of the profile, or for a user without a profile those of the query."""
        n, width = len(query), len(self.attribute_names_)
        if self.n_users_:
            attributes = self.user_attributes_[np.maximum(query.users, 0)]
        else:
            attributes = sparse.csr_matrix((n, width), dtype=np.float32)
        attributes = (sparse.diags((query.users >= 0).astype(np.float32)) @ attributes).tocsr()
        attributes.eliminate_zeros()
        for row, given in enumerate(query.attributes or ()):  # only requests send attributes, so the rows are few
            if given and attributes.indptr[row] == attributes.indptr[row + 1]:
                names = [f"{name}={value}" for name, value in given.items()]
                codes = np.flatnonzero(np.isin(self.attribute_names_, names))
                cells = np.full(len(codes), row), codes
                added = sparse.csr_matrix((np.ones(len(codes), np.float32), cells), shape=(n, width))
                attributes = (attributes + added).tocsr()
        return attributes

    def _state(self) -> Arrays:
        return {
            "lift": self.lift_,
            "prior": self.prior_,
            "attribute_names": self.attribute_names_,
            **pack_csr("traits", self.user_attributes_),
        }

    def _restore(self, state: Arrays) -> None:
        self.lift_ = np.ascontiguousarray(state["lift"])  # earlier versions saved another order
        self.prior_, self.attribute_names_ = state["prior"], state["attribute_names"]
        self.user_attributes_ = unpack_csr("traits", state)
