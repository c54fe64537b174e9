"""Next basket: repurchases at learnt rates per item and customer, and next purchases of similar customers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from features.interactions import TrainingSet
from models.persist import Arrays, pack_csr, unpack_csr
from models.recommend import base
from models.recommend.base import (
    Choice,
    Evidence,
    ItemFilter,
    Query,
    Range,
    top_k_rows,
    values_at,
)
from models.recommend.evidence import times_and_last
from models.recommend.next_basket.orders import MIN_HALVINGS, Ints, Orders, scaled
from models.recommend.next_basket.rates import fit_rates, shares_before
from models.recommend.sampling import learning_sample
from models.recommend.sparse_scores import SparseScoresRecommender
from models.topk import top_k
from models.user_arrays import UserLines, UserRows
from qianmian.errors import UsageError

Floats = NDArray[np.float32]

ORDERS_PER_STATE = 30  # latest orders that form a state; older orders have negligible weight
MIN_STATE_ENTRY = 0.05  # entries of a state below this share of its largest entry are dropped
WEIGHT_GRID = (0.0, 0.1, 0.2, 0.35, 0.5, 0.7, 1.0, 1.4)  # candidate weights of the neighbours
DEFAULT_WEIGHT = 0.5  # used with too few validation customers
MIN_VALIDATION_CUSTOMERS = 30  # smallest number of customers to choose the weight on
MAX_VALIDATION_CUSTOMERS = 2000  # largest number of customers whose last order the weight is chosen on
LIST_LENGTH = 10  # length of the lists that the weight is chosen by


class NextBasketRecommender(SparseScoresRecommender):
    """Scores item i for customer u by ``ρ_i ρ_u s_ui + w n_ui``: repurchases, and next purchases of similar states.

    Repurchases: s_ui is the decayed share of the customer's orders that contain the item,
    ``Σ_b 2^(−age_b / half_life) [i ∈ b] / (1 + Σ_b 2^(−age_b / half_life))``. ρ_i is the repurchase rate of the item:
    its frequency in the next order per unit of share, over the earlier orders of all customers, shrunk to the rate of
    all items. ρ_u is the repurchase rate of the customer relative to the expected one. The rates separate items that
    are bought regularly (milk) from those that are not (a tent).

    Next purchases: every earlier order of every customer gives a state, the tf-idf vector of the purchases before it
    with a shorter half-life. n_ui is the share of the `neighbours` states most similar to the customer's current state,
    weighted by cosine and freshness, whose next order contains the item. TIFU-KNN (Hu, He, Gao & Zhang 2020) uses the
    purchases of the neighbours; this model keeps its personal frequencies and decay, but uses what the neighbours
    bought next, which reflects seasons and sequences.

    An item that the customer has not bought and that no neighbour bought next is not a candidate, so a list may have
    fewer than k items; a customer without history gets none. Purchases after the fit change both terms; ρ and the
    states stay.

    Parameters
    ----------
    half_life_days : float
        Half-life of a purchase in s, in days.
    taste_half_life_days : float
        Half-life of a purchase in a state, in days.
    neighbours : int
        Number of neighbouring states.
    neighbour_weight : float or None
        w ≥ 0. None chooses the weight with the highest recall@10 on the last orders of a sample of customers, predicted
        from the orders before them.
    fresh_half_life_days : float
        Half-life of the weight of a state in days, because assortments change.
    orders_per_customer : int
        Number of latest orders per customer that are learnt from.
    max_states : int
        Largest number of states, the latest ones.
    days_per_order : float
        Assumed days between two orders if the data have no times.

    Attributes
    ----------
    weight_ : float
        The weight w.
    item_rate_, customer_rate_ : ndarray of float32, (n_items,), (n_users,)
        The rates ρ_i and ρ_u.

    Examples
    --------
    >>> users, items, orders = np.array([0, 0, 0, 1, 1]), np.array([0, 0, 1, 0, 2]), np.array([0, 1, 1, 0, 1])
    >>> train = TrainingSet.from_arrays(users, items, orders=orders, n_users=2, n_items=3)
    >>> NextBasketRecommender(neighbour_weight=1.0).fit(train).recommend([0], 3).ids.tolist()
    [[0, 1, 2]]
    """

    name: ClassVar[str] = "next_basket"
    user_arrays = (
        *SparseScoresRecommender.user_arrays,
        UserRows("customer"),
        UserLines("owners", ("ages",), starts="starts", matrix="baskets", places="next_orders", columns_of="states"),
    )
    cpu_seconds_per_learnt_line: ClassVar[float] = 2.1e-6
    bytes_per_learnt_line: ClassVar[float] = 170.0
    supports_fold_in: ClassVar[bool] = True
    returns_partial_lists: ClassVar[bool] = True
    supports_evidence: ClassVar[bool] = True
    supports_purchase_evidence: ClassVar[bool] = True
    search_space: ClassVar[Mapping[str, Range | Choice]] = {
        "half_life_days": Range(30.0, 365.0, log=True),
        "taste_half_life_days": Range(4.0, 60.0, log=True),
        "neighbours": Choice((200, 500, 1000)),
        "fresh_half_life_days": Range(15.0, 240.0, log=True),
    }

    def __init__(
        self,
        half_life_days: float = 120.0,
        taste_half_life_days: float = 14.0,
        neighbours: int = 1000,
        neighbour_weight: float | None = None,
        fresh_half_life_days: float = 60.0,
        orders_per_customer: int = 20,
        max_states: int = 60_000,
        days_per_order: float = 7.0,
    ) -> None:
        self.half_life_days, self.taste_half_life_days = half_life_days, taste_half_life_days
        self.neighbours = neighbours
        self.neighbour_weight, self.fresh_half_life_days = neighbour_weight, fresh_half_life_days
        self.orders_per_customer, self.max_states, self.days_per_order = orders_per_customer, max_states, days_per_order

    # ---- fitting -------------------------------------------------------------------------------------------------

    def _fit(self, train: TrainingSet) -> None:
        self._check_parameters()
        self.has_times_ = bool(train.interactions.age_days.any())
        self.orders_ = orders = Orders.of(train.interactions, None if self.has_times_ else self.days_per_order)
        n = len(orders.owners)
        with_item = np.asarray(orders.baskets.sum(axis=0), dtype=np.float64).ravel()
        self.idf_ = np.log(max(n, 1) / np.maximum(with_item, 1.0)).astype(np.float32)
        place = np.arange(n)
        behind = orders.starts[orders.owners + 1] - 1 - place
        target_orders = np.flatnonzero((place > orders.starts[orders.owners]) & (behind < self.orders_per_customer))
        if (sample := learning_sample(train)) is not train:
            sampled = np.bincount(sample.interactions.users, minlength=train.n_users) > 0
            target_orders = target_orders[sampled[orders.owners[target_orders]]]
        held = behind[target_orders] == 0  # the last order of each customer is validation data for the weight
        earlier, whole = fit_rates(orders, target_orders, held, self.half_life_days, self.fresh_half_life_days)
        self._set_states(target_orders)
        if self.neighbour_weight is None:
            self.item_rate_, self.customer_rate_ = earlier
            self.weight_ = self._chosen_weight(target_orders[held])
        else:
            self.weight_ = float(self.neighbour_weight)
        self.item_rate_, self.customer_rate_ = whole

    def _check_parameters(self) -> None:
        for name in ("half_life_days", "taste_half_life_days", "fresh_half_life_days", "days_per_order"):
            if not getattr(self, name) > 0:
                raise UsageError(
                    "the parameter must be positive",
                    where=f"{self.name}.{name}",
                    got=getattr(self, name),
                    allowed="> 0 days",
                )
        for name in ("neighbours", "orders_per_customer", "max_states"):
            if getattr(self, name) < 1:
                raise UsageError(
                    "the parameter must be at least 1",
                    where=f"{self.name}.{name}",
                    got=getattr(self, name),
                    allowed=">= 1",
                )
        if self.neighbour_weight is not None and not self.neighbour_weight >= 0:
            raise UsageError(
                "the weight must not be negative",
                where=f"{self.name}.neighbour_weight",
                got=self.neighbour_weight,
                allowed=">= 0, or None",
            )

    def _set_states(self, target_orders: Ints) -> None:
        """Set the states before the target orders, limited to the latest `max_states`."""
        orders = self.orders_
        kept = np.sort(np.argsort(orders.ages[target_orders], kind="stable")[: self.max_states])
        self.next_orders_ = target_orders = target_orders[kept]
        fresh = np.exp2(np.maximum(-orders.ages[target_orders] / self.fresh_half_life_days, MIN_HALVINGS))
        parts = [sparse.csr_matrix((0, orders.baskets.shape[1]), dtype=np.float32)]
        parts += [
            scaled(self._states_before(target_orders[rows]), fresh[rows]) for rows in orders.blocks(target_orders)
        ]
        self.states_ = sparse.vstack(parts, format="csr").T.tocsr()
        self.next_baskets_ = orders.baskets[target_orders]

    def _states_before(self, target_orders: Ints) -> sparse.csr_matrix:
        orders = self.orders_
        first = np.maximum(orders.starts[orders.owners[target_orders]], target_orders - ORDERS_PER_STATE)
        return self._tfidf_vectors(
            orders.sums(first, target_orders, orders.ages[target_orders - 1], self.taste_half_life_days)[0]
        )

    def _tfidf_vectors(self, counts: sparse.csr_matrix) -> sparse.csr_matrix:
        """Convert decayed counts to tf-idf vectors of norm 1 without small entries."""
        values = counts.data * self.idf_[counts.indices]
        lengths = np.diff(counts.indptr)
        greatest = np.zeros(len(lengths), dtype=np.float32)
        greatest[lengths > 0] = np.maximum.reduceat(values, counts.indptr[:-1][lengths > 0]) if len(values) else 0.0
        values = np.where(values >= np.float32(MIN_STATE_ENTRY) * np.repeat(greatest, lengths), values, np.float32(0.0))
        weighted = sparse.csr_matrix((values, counts.indices, counts.indptr), shape=counts.shape)
        weighted.eliminate_zeros()
        norms = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=1), dtype=np.float64).ravel())
        return scaled(weighted, 1.0 / np.maximum(norms, 1e-12))

    def _chosen_weight(self, last: Ints) -> float:
        """Return the weight in `WEIGHT_GRID` with the highest recall on these last orders, given the orders before."""
        orders = self.orders_
        if len(last) < MIN_VALIDATION_CUSTOMERS:
            return DEFAULT_WEIGHT
        last = last[np.unique(np.linspace(0, len(last) - 1, MAX_VALIDATION_CUSTOMERS).astype(np.int64))]
        is_last = orders.starts[orders.owners[self.next_orders_] + 1] - 1 == self.next_orders_
        found = np.zeros(len(WEIGHT_GRID))
        block = max(1, base.BLOCK_CELLS // max(1, orders.baskets.shape[1]))
        for start in range(0, len(last), block):
            target_orders = last[start : start + block]
            own = self._bought_again(
                shares_before(orders, target_orders, self.half_life_days)[0],
                self.customer_rate_[orders.owners[target_orders]],
            )
            near = self._bought_next(self._states_before(target_orders), is_last)
            own.sort_indices()
            near.sort_indices()  # the sum of sorted matrices is sorted
            wanted = orders.baskets[target_orders]
            attainable = np.minimum(np.diff(wanted.indptr), LIST_LENGTH)
            for place, weight in enumerate(WEIGHT_GRID):
                ids, _ = top_k_rows(_sum(own, near, weight), LIST_LENGTH, ItemFilter())
                found[place] += ((values_at(wanted, ids) > 0).sum(axis=1) / attainable).sum()
        return WEIGHT_GRID[int(found.argmax())]

    def _evidence(self, query: Query, item: int) -> Evidence | None:
        """Return the number of orders with the item before the fit (``times``) and ``last_days``; None without any."""
        user = int(query.users[0])
        if user < 0:
            return None
        orders = self.orders_
        own = slice(*orders.starts[user : user + 2].tolist())
        interacted = np.flatnonzero(orders.baskets[own].getcol(item).toarray().ravel())
        if not len(interacted):
            return None
        last_days = float(orders.ages[own][interacted[-1]]) if self.has_times_ else 0.0
        return times_and_last(len(interacted), last_days, query.elapsed_days)

    # ---- ranking -------------------------------------------------------------------------------------------------

    def _bought_again(self, shares: sparse.csr_matrix, customers: Floats) -> sparse.csr_matrix:
        scored = scaled(shares, customers)
        scored.data *= self.item_rate_[scored.indices]
        return scored

    def _bought_next(self, states: sparse.csr_matrix, ignored: NDArray[np.bool_] | None = None) -> sparse.csr_matrix:
        """Return n of customers in these states, (r, n_items); `ignored` neighbours have no weight."""
        n_states = self.states_.shape[1]
        most = min(self.neighbours, n_states)
        parts = [sparse.csr_matrix((0, self.next_baskets_.shape[1]), dtype=np.float32)]
        block = max(1, base.BLOCK_CELLS // max(1, n_states))
        for start in range(0, states.shape[0], block):
            alike = (states[start : start + block] @ self.states_).toarray()
            if ignored is not None:
                alike[:, ignored] = 0.0
            nearest, weights = top_k(alike, most)
            weights /= np.maximum(weights.sum(axis=1, keepdims=True), np.float32(1e-12))
            votes = sparse.csr_matrix(
                (weights.ravel(), nearest.ravel(), np.arange(len(alike) + 1) * most), shape=alike.shape
            )
            votes.eliminate_zeros()
            parts.append((votes @ self.next_baskets_).tocsr())
        return sparse.vstack(parts, format="csr")

    def _score_candidates(self, query: Query) -> sparse.csr_matrix:
        shares, states = self._current_state(query)
        customers = np.ones(len(query), np.float32)
        if len(self.customer_rate_):
            rates = self.customer_rate_[np.maximum(query.users, 0)]
            customers = np.where(query.users >= 0, rates, np.float32(1.0))
        return _sum(self._bought_again(shares, customers), self._bought_next(states), self.weight_)

    def _current_state(self, query: Query) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
        """Return the current shares s and states of the users, including the recent interactions."""
        orders, known = self.orders_, query.users >= 0
        users = np.where(known, query.users, 0)
        first = np.where(known, orders.starts[users], 0) if len(orders.starts) > 1 else np.zeros_like(users)
        end = np.where(known, orders.starts[users + 1], 0) if len(orders.starts) > 1 else np.zeros_like(users)
        recent = np.maximum(first, end - ORDERS_PER_STATE)
        last_ages = orders.ages[np.maximum(end - 1, 0)] if len(orders.ages) else 0.0
        now, then = np.zeros(len(query)), np.where(end > first, last_ages, 0.0)
        if query.recent_interactions is None or not (len(query.recent_interactions.users) or query.elapsed_days):
            counts, n_orders = orders.sums(first, end, now, self.half_life_days)
            taste = orders.sums(recent, end, then, self.taste_half_life_days)[0]
            return scaled(counts, 1.0 / (1.0 + n_orders)), self._tfidf_vectors(taste)
        recent_orders = Orders.of(query.recent_interactions, None if self.has_times_ else self.days_per_order)
        new = np.diff(recent_orders.starts)
        now -= query.elapsed_days if self.has_times_ else new * self.days_per_order
        counts, n_orders = orders.sums(first, end, now, self.half_life_days)
        taste = orders.sums(recent, end, np.where(new > 0, now, then), self.taste_half_life_days)[0]
        starts, ends, zero = recent_orders.starts[:-1], recent_orders.starts[1:], np.zeros(len(query))
        fresh, n_fresh = recent_orders.sums(starts, ends, zero, self.half_life_days)
        newest = recent_orders.sums(starts, ends, zero, self.taste_half_life_days)[0]
        shares = scaled((counts + fresh).tocsr(), 1.0 / (1.0 + n_orders + n_fresh))
        return shares, self._tfidf_vectors((taste + newest).tocsr())

    # ---- persistence ---------------------------------------------------------------------------------------------

    def _state(self) -> Arrays:
        return {
            "owners": self.orders_.owners,
            "ages": self.orders_.ages,
            "starts": self.orders_.starts,
            **pack_csr("baskets", self.orders_.baskets),
            **pack_csr("states", self.states_),
            "next_orders": self.next_orders_,
            "telling": self.idf_,
            "again": self.item_rate_,
            "customer": self.customer_rate_,
            "weight": np.array(self.weight_),
            "timed": np.array(self.has_times_),
        }

    def _restore(self, state: Arrays) -> None:
        self.orders_ = Orders(state["owners"], state["ages"], unpack_csr("baskets", state), state["starts"])
        self.states_, self.next_orders_ = unpack_csr("states", state), state["next_orders"]
        self.next_baskets_ = self.orders_.baskets[self.next_orders_]
        self.idf_, self.item_rate_, self.customer_rate_ = state["telling"], state["again"], state["customer"]
        self.weight_, self.has_times_ = float(state["weight"]), bool(state["timed"])


def _sum(own: sparse.csr_matrix, near: sparse.csr_matrix, weight: float) -> sparse.csr_matrix:
    return (own + near * np.float32(weight)).tocsr().astype(np.float32) if weight else own.copy()
