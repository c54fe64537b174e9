"""Similar items by attributes and customers, with weights learnt from switches within a category."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from features.interactions import TrainingSet
from models.parallel import one_blas_thread
from models.persist import Arrays, pack_csr, unpack_csr
from models.ranked import NOT_A_CANDIDATE, Ranked, top_k
from models.recommend.base import Choice, Evidence, ItemFilter, Query, Range, Recommender
from models.recommend.baskets import last_orders, resolve_query_items
from models.recommend.choice_models import fit_multinomial_logit
from models.recommend.fit_cache import fit_cached
from models.recommend.popular import recent_customers
from models.recommend.sampling import learning_sample
from models.recommend.similar.item_features import (
    ATTRIBUTES,
    BEHAVIOUR,
    POPULARITY,
    ItemFeatures,
    feature_kinds,
    shared_levels,
    similarity_features,
)
from models.user_arrays import UserMatrix
from qianmian.errors import InvalidRequest, UsageError
from qianmian.times import days_between

ROWS = 64  # items compared with all others at a time
MIN_SWITCHES = 200  # with fewer switches, the default weights are used
MAX_SWITCHES = 3_000  # switches that are sampled
MAX_ALTERNATIVES = 200  # alternatives sampled per switch
# close to the weights learnt on Complete Journey
DEFAULT_WEIGHTS = {
    BEHAVIOUR: 2.5,
    "recent customers": 0.4,
    "customers": 0.1,
    "number": 1.0,
    "text": 0.2,
}
Floats = NDArray[np.float32]


class SimilarRecommender(Recommender):
    """Ranks items by the probability that a customer switches to them from the query items or the last order.

    Items that share more levels of the category rank first:
    ``similarity(i, j) = (levels of i's category shared by j + σ(z)) / (levels + 1)`` with
    ``σ(z) = (1 + z / (1 + |z|)) / 2``. z is a weighted sum of the cosine of the item vectors, the popularity of j, the
    closeness of prices and other numbers, and the equality of brand and other text attributes. The weights are learnt
    from switches: first purchases of an item j, in the last `learn_days`, from a category that the customer has bought
    from before, where i is the last item bought from it. A multinomial logit (McFadden 1974) explains the choice of j
    among a sample (McFadden 1978) of the items of that category that the customer has not bought. The features for
    learning are computed from the data before those days. An item without customers is compared by its attributes
    alone, with weights learnt without behaviour.

    Parameters
    ----------
    factors : int
        Dimensions of the item vectors: a truncated SVD of the interaction matrix with customers weighted by
        ``(items bought + 5)^-1/2`` and items scaled to norm 1, so that products approximate the cosine of the
        customers.
    recent_days : float
        Window of the recent customers in days.
    learn_days : float or None
        Length of the period of switches in days; None uses the default weights.
    uses : sequence of str
        Kinds of features to use: ``behaviour``, ``popularity``, ``attributes``.
    behaviour : str
        Item vectors: ``customers`` as above, or ``ials`` for the vectors of iALS.
    by_category : bool
        False ranks by z alone.
    seed : int
        Seed of the SVD and of the sampling.

    Attributes
    ----------
    weights_, cold_weights_ : ndarray of float32, (f,)
        Weights of `item_features_.names` for items with and without customers.
    """

    name: ClassVar[str] = "similar"
    user_arrays = (*Recommender.user_arrays, UserMatrix("last"))
    cpu_seconds_per_learnt_line: ClassVar[float] = 1.6e-6
    bytes_per_learnt_line: ClassVar[float] = 200.0
    supports_similar: ClassVar[bool] = True
    supports_fold_in: ClassVar[bool] = True
    returns_partial_lists: ClassVar[bool] = True
    supports_item_vectors: ClassVar[bool] = True
    supports_evidence: ClassVar[bool] = True
    supports_similar_to: ClassVar[bool] = True
    search_space: ClassVar[Mapping[str, Range | Choice]] = {
        "factors": Choice((32, 64, 128, 256)),
        "recent_days": Range(7.0, 91.0),
        "learn_days": Range(14.0, 91.0),
    }

    def __init__(
        self,
        factors: int = 128,
        recent_days: float = 28.0,
        learn_days: float | None = 28.0,
        uses: Sequence[str] = (BEHAVIOUR, POPULARITY, ATTRIBUTES),
        behaviour: str = "customers",
        by_category: bool = True,
        seed: int = 0,
    ) -> None:
        self.factors, self.recent_days, self.learn_days = factors, recent_days, learn_days
        self.uses, self.behaviour, self.by_category, self.seed = uses, behaviour, by_category, seed

    def get_params(self) -> dict[str, Any]:
        return {**super().get_params(), "uses": list(self.uses)}

    def _fit(self, train: TrainingSet) -> None:
        if unknown := [use for use in self.uses if use not in (BEHAVIOUR, POPULARITY, ATTRIBUTES)]:
            raise UsageError(
                "unknown kind of features", got=unknown, allowed=f"{BEHAVIOUR}, {POPULARITY}, {ATTRIBUTES}"
            )
        if self.behaviour not in ("customers", "ials"):
            raise UsageError("unknown item vectors", got=self.behaviour, allowed="customers, ials")
        self.last_ = last_orders(train.interactions)
        sample = learning_sample(train)
        self.item_features_ = self._item_features(sample, ItemFeatures.of(train.item_attributes))
        names = self.item_features_.names
        used = np.array([kind in self.uses for kind in feature_kinds(names)])
        defaults = [DEFAULT_WEIGHTS.get(name, DEFAULT_WEIGHTS[self.item_features_.type_of(name)]) for name in names]
        self.weights_ = np.where(used, defaults, 0.0).astype(np.float32)
        self.cold_weights_ = np.where(np.array(names) == BEHAVIOUR, 0.0, self.weights_).astype(np.float32)
        self.feature_means_ = np.zeros(len(names), dtype=np.float32)
        if self.learn_days is not None and (train.interactions.age_days > self.learn_days).any():
            self._learn(sample, used)

    def _item_features(self, train: TrainingSet, item_features: ItemFeatures) -> ItemFeatures:
        """Add item vectors and popularity from `train` to item features."""
        recent, customers = recent_customers(train, self.recent_days), train.item_customers
        popularity = np.log(np.column_stack([recent + 0.5, customers + 1.0]))
        return item_features.with_behaviour(self._vectors(train), popularity.astype(np.float32))

    def _vectors(self, train: TrainingSet) -> Floats:
        """Return item vectors of norm 1, (n_items, d); 0 for an item without customers."""
        if BEHAVIOUR not in self.uses:
            return np.zeros((train.n_items, 1), dtype=np.float32)
        if self.behaviour == "ials":
            from models.recommend.ials import ImplicitALSRecommender

            vectors = fit_cached(ImplicitALSRecommender(seed=self.seed), train).item_vectors()
        else:
            vectors = customer_vectors(train.interactions.matrix(), self.factors, self.seed)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.where(norms > 1e-6, vectors / np.maximum(norms, np.float32(1e-6)), 0.0).astype(np.float32)

    def _learn(self, train: TrainingSet, used: NDArray[np.bool_]) -> None:
        assert self.learn_days is not None
        before = train.with_earlier_cutoff(self.learn_days)
        groups = switch_choice_sets(train, before, self.item_features_.leaf, np.random.default_rng(self.seed))
        if groups is None:
            return
        left, right, chosen, group = groups
        seen = self._item_features(before, self.item_features_)
        values = similarity_features(seen.take(left), seen.take(right), paired=True)
        self.feature_means_ = values.mean(axis=0).astype(np.float32)
        self.weights_ = fit_multinomial_logit(values, chosen, group, used)
        without_behaviour = used & (np.array(self.item_features_.names) != BEHAVIOUR)
        self.cold_weights_ = fit_multinomial_logit(values, chosen, group, without_behaviour)

    def similar_to(self, attributes: Mapping[str, Any], k: int, *, allowed: NDArray[np.bool_] | None = None) -> Ranked:
        """Rank the k items most similar to a new item, (1, k).

        Parameters
        ----------
        attributes : mapping
            Attributes of the new item, such as ``{"category": "food/milk", "brand": "A", "price": 1.2}``.

        Raises
        ------
        InvalidRequest
            k < 1, an attribute is unknown, or a numeric attribute is not a number.
        """
        if k < 1:
            raise InvalidRequest("k must be at least 1", got=k, field="num_results")
        scores = self._similarity_matrix(self.item_features_.from_attributes(attributes))
        ids, values = top_k(ItemFilter(allowed).apply(scores), k)
        return Ranked.of(ids, values, np.zeros(ids.shape, dtype=np.int8), k, (self.name,))

    def _evidence(self, query: Query, item: int) -> Evidence | None:
        """Return the attributes shared with the query item (``alike``); None unless there is exactly one query item."""
        if query.items is None or len(query.items[0]) != 1:
            return None
        return {"alike": self.shared_attributes(int(query.items[0][0]), item)}

    def shared_attributes(self, item: int, other: int) -> dict[str, str]:
        """Return the text attributes in which two items agree, and the shared levels of the category."""
        return self.item_features_.shared_attributes(item, other)

    def _similarity_matrix(self, left: ItemFeatures) -> Floats:
        """Return the similarity, 0 … 1, of all items to each of a few items, (a, n_items)."""
        result = np.empty((len(left), self.n_items_), dtype=np.float32)
        for start in range(0, len(left), ROWS):
            some = left.take(np.arange(start, min(start + ROWS, len(left))))
            cold = ~some.vectors.any(axis=1)
            values = similarity_features(some, self.item_features_, paired=False)
            z = np.zeros(values[0].shape, dtype=np.float32)
            for place, value in enumerate(values):
                weights = np.where(cold, self.cold_weights_[place], self.weights_[place]).astype(np.float32)
                z += weights[:, None] * (value - self.feature_means_[place])
            alike = (1.0 + z / (1.0 + np.abs(z))) / 2.0
            if self.by_category:
                depth = (some.levels >= 0).sum(axis=1).astype(np.float32)
                alike = (shared_levels(some, self.item_features_) + alike) / (depth[:, None] + 1.0)
            result[start : start + len(some)] = alike
        return result

    def _similarity(self, item: int) -> Floats:
        alike: Floats = self._similarity_matrix(self.item_features_.take(np.array([item])))[0]
        return alike

    def item_vectors(self) -> Floats:
        return self.item_features_.vectors

    def _scores(self, query: Query) -> Floats:
        """Return the mean similarity to the query items."""
        query_items = resolve_query_items(query, self.last_)
        unique_items, place = np.unique(query_items.indices, return_inverse=True)
        shares = sparse.csr_matrix((query_items.data, place, query_items.indptr), shape=(len(query), len(unique_items)))
        counts = np.diff(query_items.indptr)
        scores = np.zeros((len(query), self.n_items_), dtype=np.float32)
        for start in range(0, len(unique_items), ROWS):
            some = slice(start, start + ROWS)
            scores += shares[:, some] @ self._similarity_matrix(self.item_features_.take(unique_items[some]))
        scores /= np.maximum(counts, 1)[:, None].astype(np.float32)
        scores[counts == 0] = NOT_A_CANDIDATE
        scores[np.repeat(np.arange(len(query)), counts), query_items.indices] = NOT_A_CANDIDATE
        return scores

    def _state(self) -> Arrays:
        learnt = {"weights": self.weights_, "cold_weights": self.cold_weights_, "usual": self.feature_means_}
        return {**learnt, **self.item_features_.state(), **pack_csr("last", self.last_)}

    def _restore(self, state: Arrays) -> None:
        self.weights_, self.cold_weights_, self.feature_means_ = state["weights"], state["cold_weights"], state["usual"]
        self.item_features_, self.last_ = ItemFeatures.restored(state), unpack_csr("last", state)


def customer_vectors(interacted: sparse.csr_matrix, factors: int, seed: int) -> Floats:
    """Return item vectors, (n_items, ≤ factors), whose products approximate the cosine of the customers of two items.

    See the parameter `factors` of `SimilarRecommender`.
    """
    from sklearn.utils.extmath import randomized_svd

    n_users, n_items = interacted.shape
    pairs = interacted.copy()
    pairs.data = np.repeat((np.diff(interacted.indptr) + 5.0) ** -0.5, np.diff(interacted.indptr)).astype(np.float32)
    by_item = pairs.T.tocsr()
    lengths = np.sqrt(np.asarray(by_item.multiply(by_item).sum(axis=1)).ravel())
    by_item = sparse.diags((1.0 / np.maximum(lengths, 1e-12)).astype(np.float32)) @ by_item
    rank = min(factors, n_users - 1, n_items - 1)
    if rank < 1 or not interacted.nnz:
        return np.asarray(lengths[:, None] > 0, dtype=np.float32)
    with one_blas_thread():  # it fixes the order of the sums, so the same seed gives the same vectors
        left, values, _ = randomized_svd(by_item, rank, n_iter=2, random_state=seed)
    return np.asarray(left * values, dtype=np.float32)


def switch_choice_sets(
    train: TrainingSet, before: TrainingSet, leaf: NDArray[np.int32], rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]] | None:
    """Build the choice sets of switches: first purchases after `before` from a category that was bought from before it.

    Parameters
    ----------
    train, before : TrainingSet
        The training set, and the same with an earlier cutoff.
    leaf : ndarray of int32, (n_items,)
        Category of each item; the items of −1 form one category.
    rng : Generator
        Samples switches and alternatives.

    Returns
    -------
    None if there are fewer than `MIN_SWITCHES` switches, else

    left, right : ndarray of int64, (m,)
        The last item bought from the category, and a candidate of the switch: the chosen item, or a sampled item of the
        category that the customer has not bought.
    chosen : ndarray of int64, (g,)
        Position in `right` of the choice of each group.
    group : ndarray of int64, (m,)
        0 … g − 1, ascending.
    """
    later = train.interactions.where(train.interactions.age_days < cutoff_days_between(train, before))
    users, items, last = first_purchases(before, later, leaf)
    if len(users) < MIN_SWITCHES:
        return None
    sampled = np.sort(rng.permutation(len(users))[:MAX_SWITCHES])
    users, items, last = users[sampled], items[sampled], last[sampled]
    members = np.argsort(leaf, kind="stable")
    bounds = np.searchsorted(leaf[members], np.arange(-1, leaf.max() + 2))
    interacted = before.interactions.matrix()
    left, right, chosen, group = [], [], [], []
    owned, total = np.zeros(train.n_items, dtype=bool), 0
    for place in range(len(users)):  # at most `MAX_SWITCHES`
        others = members[bounds[leaf[items[place]] + 1] : bounds[leaf[items[place]] + 2]]
        if len(others) > 4 * MAX_ALTERNATIVES:
            others = rng.choice(others, 2 * MAX_ALTERNATIVES, replace=False)
        own = interacted.indices[interacted.indptr[users[place]] : interacted.indptr[users[place] + 1]]
        owned[own], owned[items[place]] = True, True
        others = others[~owned[others]]
        owned[own], owned[items[place]] = False, False
        others = rng.permutation(others)[:MAX_ALTERNATIVES]
        if not len(others):
            continue
        chosen.append(total)
        right.append(np.concatenate([[items[place]], others]))
        left.append(np.full(len(others) + 1, last[place]))
        group.append(np.full(len(others) + 1, len(chosen) - 1))
        total += len(others) + 1
    if len(chosen) < MIN_SWITCHES:
        return None
    return np.concatenate(left), np.concatenate(right), np.array(chosen), np.concatenate(group)


def cutoff_days_between(train: TrainingSet, before: TrainingSet) -> float:
    """Return the days between the cutoffs of two training sets."""
    return days_between(before.as_of, train.as_of)


def first_purchases(
    train: TrainingSet, after: Any, leaf: NDArray[np.int32]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Find the first purchases of items in `after`, from categories that the user has bought from in `train`.

    Parameters
    ----------
    train : TrainingSet
        Purchases before a cutoff.
    after : Interactions
        Purchases of the same users and items after it.
    leaf : ndarray of int32, (n_items,)
        Category of each item.

    Returns
    -------
    users, items, last : ndarray of int64, (m,)
        User and item of each purchase, and the last item bought from its category before; sorted by user and category.
    """
    data, width = train.interactions, int(leaf.max(initial=0)) + 2
    of = leaf.astype(np.int64) + 1
    youngest = np.lexsort((data.items, data.age_days, of[data.items], data.users))
    keys, first = np.unique(data.users[youngest].astype(np.int64) * width + of[data.items[youngest]], return_index=True)
    last = data.items[youngest][first].astype(np.int64)
    n_items = np.int64(train.n_items)
    pairs = np.setdiff1d(after.users * n_items + after.items, data.users * n_items + data.items)
    users, items = pairs // n_items, pairs % n_items
    wanted = users * width + of[items]
    place = np.minimum(np.searchsorted(keys, wanted), max(len(keys) - 1, 0))
    known = keys[place] == wanted if len(keys) else np.zeros(len(wanted), dtype=bool)
    users, items, last, wanted = users[known], items[known], last[place[known]], wanted[known]
    order = np.lexsort((items, wanted))
    return users[order], items[order], last[order]
