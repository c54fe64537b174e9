"""Affinity to categories and brands: ranks items by their attributes, so that new items can be ranked as well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from features.id_map import IdMap
from features.interactions import Interactions, TrainingSet
from models.persist import Arrays, pack_csr, unpack_csr
from models.ranked import NOT_A_CANDIDATE
from models.recommend.base import Choice, Indices, Query, Range, Recommender, fold_in
from models.user_arrays import UserMatrix


class AffinityRecommender(Recommender):
    """Scores an item by the probability of its category path for the user, and of the item within its category.

    ``log p(item | u) = Σ_levels log p(node | parent, u) + log p(item | leaf) + brand_weight × log lift(brand, u)``,
    where the sum runs along the category path of the item. Each share is Dirichlet-smoothed towards that of all
    customers, ``(n(u, node) + prior_lines × p(node | parent)) / (n(u, parent) + prior_lines)`` (Zhai & Lafferty 2004);
    the counts decay with `half_life_days`. Within a leaf, an item has its share of customers, where a new item counts
    as having `new_item_customers` customers.

    Parameters
    ----------
    half_life_days : float or None
        Half-life of a count in days; None for no decay.
    prior_lines : float
        Weight of the prior, in order lines.
    brand_weight : float
        Weight of the brand; 0 ignores brands.
    new_item_customers : float
        Number of customers added to each item.
    """

    name: ClassVar[str] = "affinity"
    user_arrays = (*Recommender.user_arrays, UserMatrix("counts"))
    supports_fold_in: ClassVar[bool] = True
    supports_score_unseen: ClassVar[bool] = True
    search_space: ClassVar[Mapping[str, Range | Choice]] = {
        "half_life_days": Range(14.0, 730.0, log=True),
        "prior_lines": Range(0.5, 200.0, log=True),
        "brand_weight": Range(0.0, 2.0),
    }

    def __init__(
        self,
        half_life_days: float | None = 180.0,
        prior_lines: float = 5.0,
        brand_weight: float = 0.5,
        new_item_customers: float = 1.0,
    ) -> None:
        self.half_life_days, self.prior_lines = half_life_days, prior_lines
        self.brand_weight, self.new_item_customers = brand_weight, new_item_customers

    def _fit(self, train: TrainingSet) -> None:
        self.counts_ = train.interactions.matrix(self.half_life_days)
        self.leaf_, self.parent_, self.depth_, self.nodes_ = category_tree(train.item_attributes["category"])
        brands, self.brand_ = np.unique(train.item_attributes["brand"].astype(np.str_), return_inverse=True)
        self.brands_ = brands
        self.node_of_ = {name: node for node, name in enumerate(self.nodes_.tolist())}
        self.brand_ = self.brand_.astype(np.int64)
        by_item = np.asarray(self.counts_.sum(axis=0), dtype=np.float64).ravel() + 1e-6
        self._set_matrices()
        at_nodes = np.asarray(by_item @ self.ancestors_, dtype=np.float64).ravel()
        share = at_nodes / np.maximum(at_nodes[np.maximum(self.parent_, 0)], 1e-12)
        share[0] = 1.0
        self.share_ = share.astype(np.float32)
        by_brand = np.bincount(self.brand_, by_item, minlength=len(brands))
        self.brand_share_ = (by_brand / by_brand.sum()).astype(np.float32)
        customers = train.item_customers + self.new_item_customers
        leaf_customers = np.bincount(self.leaf_, customers, minlength=len(share))
        self.within_leaf_ = np.log(customers / leaf_customers[self.leaf_]).astype(np.float32)
        below = np.asarray(customers @ self.ancestors_).ravel()
        self.new_within_ = np.log(self.new_item_customers / (below + self.new_item_customers)).astype(np.float32)

    def score_unseen(
        self,
        user: int,
        described: Sequence[Mapping[str, Any]],
        *,
        recent_interactions: Interactions | None = None,
        elapsed_days: float = 0.0,
    ) -> NDArray[np.float32]:
        """Score new items from their `category` and `brand`.

        An unknown category counts as its nearest known ancestor, and an unknown brand as no brand. A user without
        history gets the scores of all customers together.

        Parameters
        ----------
        user : int
            User index; −1 is an unknown user.
        described : sequence of mapping, (m,)
            Attributes of the new items.
        recent_interactions, elapsed_days
            As in `recommend`, for one user.

        Returns
        -------
        ndarray of float32, (m,)
            Scores that are comparable with one another.

        Examples
        --------
        >>> train = TrainingSet.from_arrays(np.array([0, 0, 1]), np.array([0, 0, 1]), n_users=2, n_items=2)
        >>> train.item_attributes["category"] = np.array(["food/tea", "home"])
        >>> new_items = [{"category": "food/tea"}, {"category": "home"}]
        >>> tea, lamp = AffinityRecommender().fit(train).score_unseen(0, new_items)
        >>> bool(tea > lamp)
        True
        """
        self._check_users([user])
        nodes, brands, _ = self._preferences(
            Query(np.array([user], dtype=np.int64), recent_interactions=recent_interactions, elapsed_days=elapsed_days)
        )
        at = np.array([self._node(str(item.get("category") or "")) for item in described], dtype=np.int64)
        brand = IdMap(self.brands_).rows([*(str(item.get("brand") or "") for item in described), ""])
        brand = np.where(brand >= 0, brand, brand[-1])[:-1]
        lift = np.where(brand >= 0, brands[0, np.maximum(brand, 0)], np.float32(0.0))
        scores: NDArray[np.float32] = nodes[0, at] + self.new_within_[at] + np.float32(self.brand_weight) * lift
        return scores.astype(np.float32)

    def _node(self, path: str) -> int:
        """Return the node of a category path, or of its nearest known ancestor."""
        levels = path.split("/") if path else []
        above = ["/".join(levels[:depth]) for depth in range(len(levels), 0, -1)]
        return next((node for name in above if (node := self.node_of_.get(name)) is not None), 0)

    def _scores(self, query: Query) -> NDArray[np.float32]:
        nodes, brands, known = self._preferences(query)
        scores = nodes[:, self.leaf_] + self.within_leaf_ + np.float32(self.brand_weight) * brands[:, self.brand_]
        scores[~known] = NOT_A_CANDIDATE
        return scores.astype(np.float32)

    def _score_items(self, query: Query, ids: Indices) -> NDArray[np.float32]:
        nodes, brands, known = self._preferences(query)
        inside, rows = np.maximum(ids, 0), np.arange(len(query))[:, None]
        scores = (
            nodes[rows, self.leaf_[inside]]
            + self.within_leaf_[inside]
            + np.float32(self.brand_weight) * brands[rows, self.brand_[inside]]
        )
        return np.where((ids >= 0) & known[:, None], scores, NOT_A_CANDIDATE).astype(np.float32)

    def _preferences(self, query: Query) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
        """Compute the preferences of the users.

        Returns
        -------
        nodes : ndarray of float32, (n, nodes)
            Log-probability of each category node.
        brands : ndarray of float32, (n, brands)
            Log-lift of each brand.
        known : ndarray of bool, (n,)
            Whether the user has any history.
        """
        own = fold_in(self.counts_, query, self.half_life_days)
        lines = np.asarray(own.sum(axis=1), dtype=np.float32).ravel()
        counts = np.asarray((own @ self.ancestors_).todense(), dtype=np.float32)
        prior = np.float32(self.prior_lines)
        step = np.log((counts + prior * self.share_) / (counts[:, np.maximum(self.parent_, 0)] + prior))
        step[:, 0] = 0.0
        for depth in range(2, int(self.depth_.max(initial=0)) + 1):
            at = np.flatnonzero(self.depth_ == depth)
            step[:, at] += step[:, self.parent_[at]]
        by_brand = np.asarray((own @ self.brand_of_).todense(), dtype=np.float32)
        lift = np.log((by_brand + prior * self.brand_share_) / ((lines[:, None] + prior) * self.brand_share_))
        return step, lift.astype(np.float32), np.diff(own.indptr) > 0

    def _set_matrices(self) -> None:
        """Set the 0/1 matrices that add up counts of items.

        `ancestors_`, (n_items, nodes), has 1 for the leaf of an item and all ancestors of the leaf, and `brand_of_`,
        (n_items, brands), for its brand.
        """
        at, rows, columns = self.leaf_.copy(), [], []
        items = np.arange(self.n_items_)
        while True:
            rows.append(items)
            columns.append(at)
            on = at > 0
            if not on.any():
                break
            items, at = items[on], self.parent_[at[on]]
        row, column = np.concatenate(rows), np.concatenate(columns)
        self.ancestors_ = sparse.csr_matrix(
            (np.ones(len(row), np.float32), (row, column)), shape=(self.n_items_, len(self.parent_))
        )
        self.brand_of_ = sparse.csr_matrix(
            (np.ones(self.n_items_, np.float32), self.brand_, np.arange(self.n_items_ + 1)),
            shape=(self.n_items_, len(self.brands_)),
        )

    def _state(self) -> Arrays:
        names = (
            "leaf",
            "parent",
            "depth",
            "nodes",
            "brand",
            "brands",
            "share",
            "brand_share",
            "within_leaf",
            "new_within",
        )
        return {**pack_csr("counts", self.counts_), **{name: getattr(self, f"{name}_") for name in names}}

    def _restore(self, state: Arrays) -> None:
        self.counts_ = unpack_csr("counts", state)
        self.leaf_, self.parent_, self.depth_ = state["leaf"], state["parent"], state["depth"]
        self.brand_, self.share_, self.brand_share_ = state["brand"], state["share"], state["brand_share"]
        self.nodes_, self.brands_ = state["nodes"], state["brands"]
        self.node_of_ = {name: node for node, name in enumerate(self.nodes_.tolist())}
        self.within_leaf_, self.new_within_ = state["within_leaf"], state["new_within"]
        self._set_matrices()


def category_tree(
    categories: NDArray[np.str_],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.str_]]:
    """Build the tree of category paths; node 0 is the root and its own parent.

    Returns
    -------
    leaf : ndarray of int64, (n_items,)
        Node of each item.
    parent, depth : ndarray of int64, (nodes,)
    path : ndarray of str, (nodes,)

    Examples
    --------
    >>> leaf, parent, depth, paths = category_tree(np.array(["food/milk", "food", "", "home"]))
    >>> leaf.tolist(), parent.tolist(), depth.tolist(), paths.tolist()
    ([2, 1, 0, 3], [0, 0, 1, 0], [0, 1, 2, 1], ['', 'food', 'food/milk', 'home'])
    """
    nodes: dict[str, int] = {"": 0}
    parent, depth = [0], [0]
    distinct, codes = np.unique(categories, return_inverse=True)
    leaf = np.zeros(len(distinct), dtype=np.int64)
    for code, path in enumerate(distinct.tolist()):
        at, levels = 0, str(path).split("/") if path else []
        for level in range(len(levels)):
            name = "/".join(levels[: level + 1])
            if name not in nodes:
                nodes[name] = len(nodes)
                parent.append(at)
                depth.append(level + 1)
            at = nodes[name]
        leaf[code] = at
    return (
        leaf[codes],
        np.asarray(parent, dtype=np.int64),
        np.asarray(depth, dtype=np.int64),
        np.array(list(nodes), dtype=np.str_),
    )
