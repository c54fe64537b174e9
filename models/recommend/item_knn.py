"""Item k-NN, and the base class of the recommenders that score by links between items."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from features.interactions import TrainingSet
from models.persist import Arrays, pack_csr, unpack_csr
from models.ranked import NOT_A_CANDIDATE
from models.recommend.base import (
    Choice,
    Query,
    Range,
)
from models.recommend.cost import n_learnt_lines, n_lines
from models.recommend.sparse_scores import SparseScoresRecommender
from models.recommend.type_weighted import TypeWeightedRecommender, TypeWeights
from qianmian.errors import UsageError

BLOCK_ENTRIES = 5_000_000  # pairs of items held in memory at a time while counting
Floats = NDArray[np.float32]


class ItemLinksRecommender(TypeWeightedRecommender, SparseScoresRecommender):
    """Scores item j by ``Σ_i x_i B_ij`` over the user's items i.

    x are the decayed counts to the power `count_power`, B is the sparse matrix `links_`. B has a zero diagonal, so
    frequent purchases of an item do not raise its own score, and an item that no link reaches is not a candidate. The
    scores need only the row of the user, so interactions after the fit change the list, also of a user without history.

    Subclasses set the parameters `half_life_days`, `count_power` and `type_weights` and implement `_compute_links`. A
    subclass whose cost grows with the square of the items or faster has a parameter `max_items`: only links between so
    many items, the most popular ones, are computed, and the model ranks no other items.

    Attributes
    ----------
    links_ : csr_matrix of float32, (n_items, n_items)
        Entry (i, j) is the contribution of item i in the history to the score of item j.
    popularity_factor_ : ndarray of float32, (n_items,)
        Factor > 0 of column j that comes from the popularity of item j; `similar_items` divides by it.
    """

    supports_fold_in: ClassVar[bool] = True
    supports_similar: ClassVar[bool] = True
    returns_partial_lists: ClassVar[bool] = True

    count_power: float
    max_items: int | None = None
    links_: sparse.csr_matrix
    popularity_factor_: Floats

    @abstractmethod
    def _compute_links(self, interacted: sparse.csr_matrix) -> tuple[sparse.csr_matrix, Floats]:
        """Compute `links_` and `popularity_factor_` from weights > 0 of the `learning_sample`, (n_users, n_items)."""

    def _fit(self, train: TrainingSet) -> None:
        self._count(train)
        interacted = self._apply_count_power(self._learnt_counts(train))
        if self.max_items is None or self.max_items >= train.n_items:
            links, self.popularity_factor_ = self._compute_links(interacted)
        else:
            links, self.popularity_factor_ = self._links_of_popular(interacted, self.max_items)
        links.sort_indices()
        self.links_ = links

    def _linked_items(self, train: TrainingSet) -> int:
        return train.n_items if self.max_items is None else min(self.max_items, train.n_items)

    def _links_of_popular(self, interacted: sparse.csr_matrix, most: int) -> tuple[sparse.csr_matrix, Floats]:
        """Compute the links between the `most` items with the most customers."""
        n_items = interacted.shape[1]
        customers = np.bincount(interacted.indices, minlength=n_items)
        popular = np.sort(np.argsort(-customers, kind="stable")[:most])
        links, shown = self._compute_links(interacted[:, popular].tocsr())
        ends = np.zeros(n_items + 1, dtype=np.int64)
        ends[popular + 1] = np.diff(links.indptr)
        factor = np.ones(n_items, dtype=np.float32)
        factor[popular] = shown
        columns = popular[links.indices].astype(np.int32)
        return sparse.csr_matrix((links.data, columns, np.cumsum(ends)), shape=2 * (n_items,)), factor

    def _apply_count_power(self, counts: sparse.csr_matrix) -> sparse.csr_matrix:
        weights = np.maximum(counts.data, np.float32(0.0))
        # 0 to the power 0 would be 1, but a weight of 0 is no interaction
        powered = np.where(weights > 0, weights ** np.float32(self.count_power), np.float32(0.0))
        interacted = sparse.csr_matrix(
            (powered.astype(np.float32), counts.indices.copy(), counts.indptr.copy()), shape=counts.shape
        )
        interacted.eliminate_zeros()
        return interacted

    def _score_candidates(self, query: Query) -> sparse.csr_matrix:
        return (self._apply_count_power(self._counts_now(query)) @ self.links_).tocsr()

    def _similarity(self, item: int) -> Floats:
        """Return the links of the item without the popularity factor, scaled to a maximum of 1; −inf without a link."""
        scores = np.full(self.n_items_, NOT_A_CANDIDATE, dtype=np.float32)
        row = slice(*self.links_.indptr[item : item + 2].tolist())
        others = self.links_.indices[row]
        strength = self.links_.data[row] / self.popularity_factor_[others]
        if len(others) and strength.max() > 0:
            scores[others] = np.where(strength > 0, strength / strength.max(), NOT_A_CANDIDATE)
        return scores

    def _state(self) -> Arrays:
        return {**pack_csr("links", self.links_), "shown": self.popularity_factor_, **self._counts_state()}

    def _restore(self, state: Arrays) -> None:
        self.links_ = unpack_csr("links", state)
        self.popularity_factor_ = state["shown"]
        self._restore_counts(state)


class ItemKNNRecommender(ItemLinksRecommender):
    """Item k-nearest neighbours: ranks items that are bought by the buyers of the user's items (Sarwar et al. 2001).

    With columns c of weighted counts and the summed counts n_j of item j, the similarity of items i and j is
    ``c_i · c_j / (|c_i| |c_j| + shrinkage) × n_j^popularity_power``. Each item j keeps its `neighbours` most similar
    items; with `normalise` their similarities are divided by their sum. The computation is exact.

    Parameters
    ----------
    neighbours : int
        Number of neighbours kept per item, ≥ 1.
    weighting : str
        Weighting of the counts before the cosine. ``cosine``: none. ``tf-idf``:
        ``sqrt(x) × ln(n_items / (1 + items of the user))``, so that a user with many items has little weight. ``bm25``:
        the same with saturating counts (Robertson & Zaragoza 2009, k1 = 1.2, b = 0.75).
    shrinkage : float
        ≥ 0, in units of ``|c_i| |c_j|``; reduces the similarity of pairs with few common customers.
    normalise : bool
        Divide by the sum over the neighbours, so that an item with few similar items can rank high (BARS, Zhu et al.
        2022).
    popularity_power : float
        0 is the plain cosine; a larger power prefers the popular item among equally similar ones.
    half_life_days : float or None
        Half-life of a count in days; None for no decay.
    count_power : float
        Power of a decayed count: 0 uses only whether the item was bought (age then has no effect), 1 uses the count.
        0 was best on first purchases of Complete Journey in October.
    type_weights : mapping of str to float, optional
        Weights of the types of interaction, as in `TrainingSet.matrix`; None: the target alone.

    Examples
    --------
    >>> train = TrainingSet.from_arrays(np.array([0, 0, 1, 1, 2]), np.array([0, 1, 0, 1, 0]), n_users=3, n_items=3)
    >>> ItemKNNRecommender().fit(train).recommend([2], 2, exclude_purchased=True).ids.tolist()
    [[1, -1]]
    """

    name: ClassVar[str] = "item_knn"
    search_space: ClassVar[Mapping[str, Range | Choice]] = {
        "neighbours": Choice((50, 100, 200, 400)),
        "weighting": Choice(("cosine", "tf-idf", "bm25")),
        "shrinkage": Range(0.0, 50.0),
        "normalise": Choice((False, True)),
        "popularity_power": Range(0.0, 0.5),
        "half_life_days": Choice((60.0, 120.0, 240.0, None)),
        "count_power": Range(0.0, 1.0),
    }

    def __init__(
        self,
        neighbours: int = 200,
        weighting: str = "tf-idf",
        shrinkage: float = 0.0,
        normalise: bool = False,
        popularity_power: float = 0.3,
        half_life_days: float | None = None,
        count_power: float = 0.0,
        type_weights: TypeWeights | None = None,
    ) -> None:
        self.neighbours, self.weighting, self.shrinkage = neighbours, weighting, shrinkage
        self.normalise, self.popularity_power = normalise, popularity_power
        self.half_life_days, self.count_power = half_life_days, count_power
        self.type_weights = type_weights

    def estimated_cpu_seconds(self, train: TrainingSet) -> float:
        lines, counts = n_lines(train), np.bincount(train.interactions.users).astype(np.float64)
        pairs = float((counts**2).sum()) * n_learnt_lines(train) / max(lines, 1)  # two items of one user
        return 3.4e-9 * pairs + 2e-7 * lines

    def _compute_links(self, interacted: sparse.csr_matrix) -> tuple[sparse.csr_matrix, Floats]:
        popularity = np.asarray(interacted.sum(axis=0), dtype=np.float32).ravel()
        shown = positive_power(popularity, self.popularity_power)
        weighted = weighted_counts(interacted, self.weighting)
        by_item = weighted.T.tocsr()
        by_item.sort_indices()
        lengths = np.sqrt(np.asarray(by_item.multiply(by_item).sum(axis=1)).ravel()).astype(np.float32)
        parts = []
        for block, products in cooccurrence_blocks(by_item, weighted):
            row = np.repeat(np.arange(block.start, block.stop, dtype=np.int32), np.diff(products.indptr))
            scale = lengths[products.indices]
            scale *= np.repeat(lengths[block.start : block.stop], np.diff(products.indptr))
            scale += np.float32(self.shrinkage)
            products.data /= np.maximum(scale, np.float32(1e-30), out=scale)
            products.data[row == products.indices] = 0.0
            parts.append(strongest_links(products, self.neighbours))
        nearest = (
            sparse.vstack(parts, format="csr")
            if parts
            else sparse.csr_matrix(2 * (interacted.shape[1],), dtype=np.float32)
        )
        if self.normalise:
            sums = np.asarray(nearest.sum(axis=1)).ravel()
            nearest = sparse.diags((1.0 / np.maximum(sums, 1e-30)).astype(np.float32)) @ nearest
        return (sparse.diags(shown) @ nearest).T.tocsr().astype(np.float32), shown


def weighted_counts(interacted: sparse.csr_matrix, weighting: str) -> sparse.csr_matrix:
    """Weight counts, (n_users, n_items), as described in `ItemKNNRecommender`.

    Raises
    ------
    UsageError
        The weighting is unknown.
    """
    if weighting not in ("cosine", "tf-idf", "bm25"):
        raise UsageError("unknown weighting", got=weighting, allowed=["cosine", "tf-idf", "bm25"])
    if weighting == "cosine":
        return interacted
    items_per_user = np.diff(interacted.indptr)
    # the idf of a user with every item is not positive; the floor keeps the norms above 0 in a shop of one item
    idf = np.maximum(np.log(max(1, interacted.shape[1]) / (1.0 + items_per_user)), 0.01).astype(np.float32)
    counts = interacted.data
    if weighting == "bm25":
        totals = np.asarray(interacted.sum(axis=0)).ravel()
        ratio = 0.25 + 0.75 * totals / max(float(totals.mean()), 1e-30)
        saturated = counts * 2.2 / (1.2 * ratio[interacted.indices] + counts)
    else:
        saturated = np.sqrt(counts)
    weighted = (saturated * np.repeat(idf, items_per_user)).astype(np.float32)
    return sparse.csr_matrix((weighted, interacted.indices, interacted.indptr), shape=interacted.shape)


def cooccurrence_blocks(
    by_item: sparse.csr_matrix, by_user: sparse.csr_matrix
) -> Iterator[tuple[range, sparse.csr_matrix]]:
    """Compute ``by_item @ by_user`` in blocks of rows, so that the pairs of a block fit into memory.

    Yields
    ------
    rows : range
        The rows of the block.
    products : csr_matrix, (len(rows), n_items)
        Indices are not sorted.
    """
    # an upper bound of the pairs of each item: the items of its customers
    bound = np.cumsum((by_item != 0).astype(np.float64) @ np.diff(by_user.indptr).astype(np.float64))
    start, n = 0, by_item.shape[0]
    while start < n:
        stop = max(start + 1, int(np.searchsorted(bound, (bound[start - 1] if start else 0.0) + BLOCK_ENTRIES)))
        yield range(start, min(stop, n)), (by_item[start:stop] @ by_user).tocsr()
        start = stop


def strongest_links(links: sparse.csr_matrix, most: int) -> sparse.csr_matrix:
    """Keep the `most` largest positive entries of each row, with sorted indices; ties go to the lower column.

    Examples
    --------
    >>> strongest_links(sparse.csr_matrix([[1.0, 3.0, 3.0, 3.0, -1.0]]), 2).toarray().tolist()
    [[0.0, 3.0, 3.0, 0.0, 0.0]]
    """
    kept, bounds = links.data > 0, links.indptr
    # one partition per row is several times as fast as sorting all entries
    for row in np.flatnonzero(np.diff(bounds) > most).tolist():
        own = slice(bounds[row], bounds[row + 1])
        values = links.data[own]
        least = np.partition(values, len(values) - most)[len(values) - most]
        above, equal = values > least, np.flatnonzero(values == least)
        left = most - int(above.sum())
        if left < len(equal):
            equal = equal[np.argsort(links.indices[own][equal])[:left]]
        above[equal] = True
        kept[own] &= above
    ends = np.concatenate([[0], np.cumsum(kept)])[bounds]
    best = sparse.csr_matrix((links.data[kept], links.indices[kept], ends), shape=links.shape)
    best.sort_indices()  # sorting before the selection would take most of the time of the fit
    return best


def positive_power(values: Floats, power: float) -> Floats:
    """Return ``values ** power`` for positive values and 1 for the others, so that the result is never 0."""
    powered = np.maximum(values, np.float32(1e-30)) ** np.float32(power)
    return np.where(values > 0, powered, np.float32(1.0)).astype(np.float32)
