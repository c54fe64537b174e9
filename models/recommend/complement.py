"""Complementary items: items bought together with the query items, by all customers and by the user."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from features.interactions import TrainingSet
from models.persist import Arrays, pack_csr, unpack_csr
from models.recommend.base import (
    Choice,
    Evidence,
    Indices,
    ItemFilter,
    Query,
    Range,
    Recommender,
    dense_scores,
    row_indices,
    top_k_sparse,
    values_at,
)
from models.recommend.baskets import Baskets, resolve_query_items
from models.recommend.item_knn import cooccurrence_blocks, strongest_links
from models.recommend.sampling import learning_sample
from models.user_arrays import UserLines

MIN_WEIGHT = np.float32(1e-30)  # the smallest weight of an old order, so that it still counts
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class ItemAssociation:
    """Association of two items in the orders of the fit.

    Attributes
    ----------
    with_item : int
        Index of the other item.
    orders : int
        Number of orders that contain both items.
    lift : float
        Share of the one item in orders with the other, over its share in all orders.
    """

    with_item: int
    orders: int
    lift: float


class ComplementRecommender(Recommender):
    """Ranks items that are bought together with the query items; without query items, with those of the last order.

    The link from item i to item j is ``(c(i, j) / (n(i)^given_power × n(j)^popularity_power))^sharpness``, where c
    counts the orders that contain both and n those that contain one. An order of s items counts
    ``(s − 1)^−size_power``, because a large order is weaker evidence for each pair. Powers of 1/2 and 1/2 give the
    cosine, 1 and 0 the conditional probability, 1 and 1 the lift (Deshpande & Karypis 2004, whose α is the popularity
    power here). Powers in between avoid both links of popular items to everything and strong links from pairs seen
    twice. The links of an item are summed over the query items and divided by the largest sum, which gives ``link`` in
    [0, 1]. ``own`` is the decayed share of the user's orders that contain the item, where an order b counts
    ``2^(−age / own_half_life_days) × (1 + own_overlap × |b ∩ query| / sqrt(|b| |query|))`` and `own_prior_orders` empty
    orders are added.

        score = (link + link_floor) × (own + own_floor) − link_floor × own_floor

    Query items are not candidates. The defaults were chosen on Complete Journey (October and November 2017) and checked
    on Ta-Feng.

    Parameters
    ----------
    given_power, popularity_power : float
        Powers of the popularity of the query item and of the linked item.
    size_power : float
        Power of the order size.
    sharpness : float
        Power of the link; a larger value prefers the strongest links.
    neighbours : int
        Number of links kept per item.
    own_half_life_days : float
        Half-life of the user's orders in days.
    own_overlap : float
        Additional weight of orders that are similar to the query items.
    own_prior_orders : float
        Number of empty orders added to those of the user.
    own_floor : float or None
        A smaller value gives the user's own orders more weight; None ignores them.
    link_floor : float
        A smaller value gives the links more weight.
    same_category : bool
        False excludes items of the same category (its full path) as a query item, which are substitutes rather than
        complements.

    Attributes
    ----------
    links_ : csr_matrix, (n_items, n_items)
        Row i holds the links from item i.
    baskets_ : Baskets
        The orders of the fit.
    """

    name: ClassVar[str] = "complement"
    user_arrays = (
        *Recommender.user_arrays,
        UserLines("order_users", ("order_age_days",), matrix="held"),
    )
    cpu_seconds_per_line: ClassVar[float] = 5e-7
    bytes_per_line: ClassVar[float] = 60.0
    cpu_seconds_per_learnt_line: ClassVar[float] = 6e-7
    bytes_per_learnt_line: ClassVar[float] = 170.0
    supports_fold_in: ClassVar[bool] = True
    returns_partial_lists: ClassVar[bool] = True
    supports_evidence: ClassVar[bool] = True
    search_space: ClassVar[Mapping[str, Range | Choice]] = {
        "given_power": Range(0.3, 1.0),
        "popularity_power": Range(0.0, 0.7),
        "size_power": Range(0.0, 1.0),
        "sharpness": Range(0.7, 2.5),
        "own_half_life_days": Range(20.0, 365.0, log=True),
        "own_overlap": Range(0.0, 40.0),
        "own_floor": Range(0.01, 1.0, log=True),
        "link_floor": Range(0.01, 1.0, log=True),
    }

    def __init__(
        self,
        given_power: float = 0.6,
        popularity_power: float = 0.3,
        size_power: float = 0.25,
        sharpness: float = 1.5,
        neighbours: int = 200,
        own_half_life_days: float = 90.0,
        own_overlap: float = 10.0,
        own_prior_orders: float = 10.0,
        own_floor: float | None = 0.05,
        link_floor: float = 0.1,
        same_category: bool = True,
    ) -> None:
        self.given_power, self.popularity_power, self.size_power = given_power, popularity_power, size_power
        self.sharpness, self.neighbours = sharpness, neighbours
        self.own_half_life_days, self.own_overlap = own_half_life_days, own_overlap
        self.own_prior_orders = own_prior_orders
        self.own_floor, self.link_floor, self.same_category = own_floor, link_floor, same_category

    def _fit(self, train: TrainingSet) -> None:
        self.baskets_ = Baskets.of(train.interactions)
        _, category = np.unique(train.item_attributes["category"], return_inverse=True)
        known = train.item_attributes["category"] != ""
        self.category_ = np.where(known, category, -1).astype(np.int32)
        sample = learning_sample(train)
        baskets = self.baskets_ if sample is train else Baskets.of(sample.interactions)
        self.links_ = self._compute_links(baskets.items)
        self._prepare()

    def _compute_links(self, held: sparse.csr_matrix) -> sparse.csr_matrix:
        """Compute the links of all items from the order matrix, in blocks of rows that fit into memory."""
        sizes = np.diff(held.indptr)
        weighted = sparse.diags(np.maximum(sizes - 1.0, 1.0).astype(np.float32) ** np.float32(-self.size_power)) @ held
        by_item = held.T.tocsr()
        counts = np.maximum(np.asarray(weighted.sum(axis=0), dtype=np.float64).ravel(), 1e-9)
        shrink_from, shrink_to = counts**-self.given_power, counts**-self.popularity_power
        parts = []
        for block, links in cooccurrence_blocks(by_item, weighted):
            row = np.repeat(np.arange(block.start, block.stop), np.diff(links.indptr))
            strength = (links.data * shrink_from[row] * shrink_to[links.indices]) ** self.sharpness
            links.data = np.where(row != links.indices, strength, 0.0).astype(np.float32)
            parts.append(strongest_links(links, self.neighbours))
        return sparse.vstack(parts, format="csr") if parts else sparse.csr_matrix((0, 0), dtype=np.float32)

    def query_items(self, query: Query) -> sparse.csr_matrix:
        """Return the query items of each user, 0/1, (n, n_items); see `resolve_query_items`."""
        return resolve_query_items(query, self.last_)

    def _evidence(self, query: Query, item: int) -> Evidence | None:
        """Return ``with_item``, ``with_days`` and ``lift`` of the strongest link to an item, or None without a link.

        The other item is one of the query items or, without them, of the user's last order.
        """
        with_days: float | None = None
        if query.items is not None:
            items = query.items[0]
        elif query.recent_interactions is not None and len(query.recent_interactions.users):
            with_days = float(query.recent_interactions.age_days.min())
            items = query.recent_interactions.items[query.recent_interactions.age_days == with_days]
        else:
            order = int(np.searchsorted(self.baskets_.users, query.users[0], side="right")) - 1
            if order < 0 or self.baskets_.users[order] != query.users[0]:
                return None
            with_days = float(self.baskets_.age_days[order]) + query.elapsed_days
            items = row_indices(self.baskets_.items, order)
        found = self.strongest_association(item, items)
        if found is None:
            return None
        evidence: Evidence = {"with_item": found.with_item, "lift": found.lift}
        return evidence if with_days is None else {**evidence, "with_days": with_days}

    def strongest_association(self, item: int, query_items: Indices) -> ItemAssociation | None:
        """Return the association with the query item that has the strongest link to `item`, or None without a link."""
        others = np.asarray([other for other in np.unique(query_items).tolist() if other != item], dtype=np.int64)
        if not len(others):
            return None
        strength = values_at(self.links_[others], np.full((len(others), 1), item))[:, 0]
        best = int(np.argmax(strength))
        if not np.isfinite(strength[best]):
            return None
        held = self.orders_of_items_
        first, second = row_indices(held, int(others[best])), row_indices(held, item)
        both = len(np.intersect1d(first, second, assume_unique=True))
        return ItemAssociation(int(others[best]), both, both * held.shape[1] / (len(first) * len(second)))

    def _scores(self, query: Query) -> Floats:
        return dense_scores(self._candidates(query))

    def _top_k(self, query: Query, k: int, item_filter: ItemFilter) -> tuple[NDArray[np.int32], Floats]:
        return top_k_sparse(self._candidates(query), k, item_filter)

    def _score_items(self, query: Query, ids: Indices) -> Floats:
        return values_at(self._candidates(query), ids)

    def _candidates(self, query: Query) -> sparse.csr_matrix:
        """Score items linked to the query items or bought before, (n, n_items); a row without query items is empty."""
        query_items = self.query_items(query)
        link = self._without_query_items((query_items @ self.links_).tocsr(), query_items)
        greatest = np.asarray(link.max(axis=1).todense()).ravel() if link.nnz else np.zeros(len(query))
        link = sparse.diags((1.0 / np.maximum(greatest, 1e-30)).astype(np.float32)) @ link
        if self.own_floor is None:
            scores = link
        else:
            own = self._without_query_items(self._own_shares(query, query_items), query_items)
            scores = link.multiply(own) + np.float32(self.own_floor) * link + np.float32(self.link_floor) * own
        scores = sparse.csr_matrix(scores, dtype=np.float32)
        scores.sort_indices()
        return scores

    def _without_query_items(self, scores: sparse.csr_matrix, query_items: sparse.csr_matrix) -> sparse.csr_matrix:
        """Drop the entries of query items and, unless `same_category`, of items in the category of a query item."""
        found = scores.tocoo()
        rows = np.repeat(np.arange(query_items.shape[0], dtype=np.int64), np.diff(query_items.indptr))
        kept = ~np.isin(
            found.row.astype(np.int64) * self.n_items_ + found.col, rows * self.n_items_ + query_items.indices
        )
        if not self.same_category:
            codes = np.int64(self.category_.max(initial=0)) + 2  # −1 is an unknown category and matches no other
            substitutes = np.isin(
                found.row * codes + self.category_[found.col], rows * codes + self.category_[query_items.indices]
            )
            kept &= ~substitutes | (self.category_[found.col] < 0)
        kept &= found.data > 0
        return sparse.csr_matrix((found.data[kept], (found.row[kept], found.col[kept])), shape=scores.shape)

    def _own_shares(self, query: Query, query_items: sparse.csr_matrix) -> sparse.csr_matrix:
        """Return the weighted share of each user's orders that contain each item, (n, n_items).

        The row of a user without query items is empty.
        """
        some = np.diff(query_items.indptr) > 0
        total = sparse.csr_matrix(query_items.shape, dtype=np.float32)
        weight = np.full(len(query), self.own_prior_orders, dtype=np.float32)
        for baskets, orders, decay in self._orders(query):
            row, column = np.repeat(np.arange(len(query)), np.diff(orders.indptr)), orders.indices
            decayed = orders.data * decay[row]
            kept = some[row] & (decayed > 0)
            row, column, decayed = row[kept], column[kept], decayed[kept]
            if not len(row):
                continue
            mine, requested = baskets.items[column], query_items[row]
            shared = np.asarray(mine.multiply(requested).sum(axis=1)).ravel()
            overlap_cosine = shared / np.sqrt(np.diff(mine.indptr) * np.diff(requested.indptr))
            weights = (decayed * (1.0 + self.own_overlap * overlap_cosine)).astype(np.float32)
            weight += np.bincount(row, weights, minlength=len(query)).astype(np.float32)
            by_row = sparse.csr_matrix((weights, (row, np.arange(len(row)))), shape=(len(query), len(row)))
            total = total + by_row @ mine
        return (sparse.diags(1.0 / np.maximum(weight, np.float32(1e-9))) @ total).tocsr()

    def _orders(self, query: Query) -> list[tuple[Baskets, sparse.csr_matrix, Floats]]:
        """Return the orders of the fit and the recent ones.

        Each entry holds the orders, their decayed weights by user, (n, n_orders), and a further decay per user, (n,).
        """
        half_life, recent_interactions = np.float32(self.own_half_life_days), query.recent_interactions
        if self.n_users_:
            before = self.weights_[np.maximum(query.users, 0)]
        else:
            before = sparse.csr_matrix((len(query), 0), dtype=np.float32)
        elapsed = np.float32(query.elapsed_days if recent_interactions is not None else 0.0)
        found = [(self.baskets_, before, (query.users >= 0) * np.maximum(np.exp2(-elapsed / half_life), MIN_WEIGHT))]
        if recent_interactions is not None and len(recent_interactions.users):
            baskets = Baskets.of(recent_interactions)
            recent = baskets.by_user(len(query), _decayed(baskets, half_life))
            found.append((baskets, recent, np.ones(len(query), np.float32)))
        return found

    def _prepare(self) -> None:
        """Derive lookups from the fitted orders."""
        decayed = _decayed(self.baskets_, np.float32(self.own_half_life_days))
        self.weights_ = self.baskets_.by_user(self.n_users_, decayed)
        self.orders_of_items_ = self.baskets_.items.T.tocsr()
        self.last_ = self.baskets_.last(self.n_users_)

    def _state(self) -> Arrays:
        held = self.baskets_.items
        return {
            **pack_csr("links", self.links_),
            "category": self.category_,
            "held_indices": held.indices,
            "held_indptr": held.indptr,
            "order_users": self.baskets_.users,
            "order_age_days": self.baskets_.age_days,
        }

    def _restore(self, state: Arrays) -> None:
        self.links_, self.category_ = unpack_csr("links", state), state["category"]
        indices, indptr = state["held_indices"], state["held_indptr"]
        held = sparse.csr_matrix(
            (np.ones(len(indices), np.float32), indices, indptr), shape=(len(indptr) - 1, self.n_items_)
        )
        self.baskets_ = Baskets(held, state["order_users"], state["order_age_days"])
        self._prepare()


def _decayed(baskets: Baskets, half_life_days: np.float32) -> Floats:
    weights: Floats = np.maximum(np.exp2(-baskets.age_days / half_life_days), MIN_WEIGHT).astype(np.float32)
    return weights
