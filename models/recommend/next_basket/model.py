"""Next basket: what a customer buys again, at the rate learnt for each item and customer, and what others bought next who were where they are now."""

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
    Indices,
    ItemFilter,
    Query,
    Range,
    Recommender,
    dense_scores,
    rows_of,
    top_k_rows,
    values_at,
)
from models.recommend.evidence import times_and_last
from models.recommend.next_basket.orders import MIN_HALVINGS, Ints, Orders, scaled
from models.recommend.next_basket.rates import fit_rates, shares_before
from models.topk import top_k
from qianmian.errors import UsageError

Floats = NDArray[np.float32]

ORDERS_PER_STATE = 30  # what lies further back has next to no weight in it
MIN_STATE_ENTRY = 0.05  # of its greatest entry: smaller ones make it long and change nothing
WEIGHT_GRID = (0.0, 0.1, 0.2, 0.35, 0.5, 0.7, 1.0, 1.4)  # of the neighbours, to choose from
DEFAULT_WEIGHT = 0.5  # where there are too few to choose by
MIN_VALIDATION_CUSTOMERS = 30
MAX_VALIDATION_CUSTOMERS = 2000  # customers whose last order the weight is chosen on
LIST_LENGTH = 10  # of the lists it is chosen by


class NextBasketRecommender(Recommender):
    """Scores item i for customer u by ``ρ_i ρ_u s_ui + w n_ui``: bought again, and bought next by those who were where u is now.

    Bought again: s_ui is the share of the customer's orders that had the item, ``Σ_b 2^(−age_b / half_life) [i ∈ b] / (1 + Σ_b 2^(−age_b /
    half_life))``. ρ_i is how often an item was in the next order for a share of 1, over all customers' earlier orders, drawn to that of all items;
    ρ_u is how much more often than that the customer bought again. So milk comes back and a tent does not, without being told.

    Bought next: every earlier order of every customer is a state, the tf-idf vector of what had been bought before it with a shorter half-life;
    n_ui is the share of the `neighbours` states most like the customer's own now, weighted by cosine and freshness, whose next order had the
    item. Unlike the user k-NN of TIFU-KNN (Hu, He, Gao & Zhang 2020), whose personal frequencies and decay this keeps, it is not what the
    neighbours have but what they bought after, so that the season, and what leads to what, are in it.

    An item neither had nor reached by a neighbour is no candidate, so a list may be short; a customer without history has none. What was bought
    since the fit changes both parts; ρ and the states stay.

    Parameters
    ----------
    half_life_days : float
        Of a purchase, for buying again.
    taste_half_life_days : float
        Of a purchase, for being alike.
    neighbours : int
        States.
    neighbour_weight : float or None
        w ≥ 0; None chooses it by the recall of 10 places on the last orders of some customers, predicted from what was before them.
    fresh_half_life_days : float
        Of what a neighbour bought next: assortments change.
    orders_per_customer : int
        Only so many of the latest orders of a customer are learnt from.
    max_states : int
        Neighbours are looked for among so many of the latest orders.
    days_per_order : float
        How far apart orders are taken to be where the data have no time.

    Attributes
    ----------
    weight_ : float
        w.
    item_rate_, customer_rate_ : ndarray of float32, (n_items,), (n_users,)
        ρ_i and ρ_u.

    Examples
    --------
    >>> users, items, orders = np.array([0, 0, 0, 1, 1]), np.array([0, 0, 1, 0, 2]), np.array([0, 1, 1, 0, 1])
    >>> train = TrainingSet.from_arrays(users, items, orders=orders, n_users=2, n_items=3)
    >>> NextBasketRecommender(neighbour_weight=1.0).fit(train).recommend([0], 3).ids.tolist()
    [[0, 1, 2]]
    """

    name: ClassVar[str] = "next_basket"
    supports_fold_in: ClassVar[bool] = True
    returns_partial_lists: ClassVar[bool] = True
    supports_evidence: ClassVar[bool] = True
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
        self.half_life_days, self.taste_half_life_days, self.neighbours = (
            half_life_days,
            taste_half_life_days,
            neighbours,
        )
        self.neighbour_weight, self.fresh_half_life_days = neighbour_weight, fresh_half_life_days
        self.orders_per_customer, self.max_states, self.days_per_order = orders_per_customer, max_states, days_per_order

    # ---- learning ------------------------------------------------------------------------------------------------

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
        held = behind[target_orders] == 0  # the last order of each customer is kept from what the weight is chosen with
        earlier, whole = fit_rates(orders, target_orders, held, self.half_life_days, self.fresh_half_life_days)
        self._set_states(target_orders)
        if self.neighbour_weight is None:
            self.item_rate_, self.customer_rate_ = earlier
            self.weight_ = self._chosen_weight(target_orders[held])
        else:
            self.weight_ = float(self.neighbour_weight)
        self.item_rate_, self.customer_rate_ = whole
        self.state_at_fit_ = self._current_state(Query(np.arange(len(orders.starts) - 1)))

    def _check_parameters(self) -> None:
        for name in ("half_life_days", "taste_half_life_days", "fresh_half_life_days", "days_per_order"):
            if not getattr(self, name) > 0:
                raise UsageError(
                    "this takes time", where=f"{self.name}.{name}", got=getattr(self, name), allowed="> 0 days"
                )
        for name in ("neighbours", "orders_per_customer", "max_states"):
            if getattr(self, name) < 1:
                raise UsageError(
                    "at least one is needed", where=f"{self.name}.{name}", got=getattr(self, name), allowed=">= 1"
                )
        if self.neighbour_weight is not None and not self.neighbour_weight >= 0:
            raise UsageError(
                "a weight is not negative",
                where=f"{self.name}.neighbour_weight",
                got=self.neighbour_weight,
                allowed=">= 0, or None",
            )

    def _set_states(self, target_orders: Ints) -> None:
        """The states whose next order is known, the freshest `max_states`."""
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
        """Decayed counts as unit vectors in which the rare item tells more."""
        values = counts.data * self.idf_[counts.indices]
        lengths = np.diff(counts.indptr)
        greatest = np.zeros(len(lengths), dtype=np.float32)
        greatest[lengths > 0] = np.maximum.reduceat(values, counts.indptr[:-1][lengths > 0]) if len(values) else 0.0
        values = np.where(values >= np.float32(MIN_STATE_ENTRY) * np.repeat(greatest, lengths), values, np.float32(0.0))
        told = sparse.csr_matrix((values, counts.indices, counts.indptr), shape=counts.shape)
        told.eliminate_zeros()
        norms = np.sqrt(np.asarray(told.multiply(told).sum(axis=1), dtype=np.float64).ravel())
        return scaled(told, 1.0 / np.maximum(norms, 1e-12))

    def _chosen_weight(self, last: Ints) -> float:
        """Of `WEIGHT_GRID`, the one that would have named most of these orders, known by what came before them alone."""
        orders = self.orders_
        if len(last) < MIN_VALIDATION_CUSTOMERS:
            return DEFAULT_WEIGHT
        last = last[np.unique(np.linspace(0, len(last) - 1, MAX_VALIDATION_CUSTOMERS).astype(np.int64))]
        shut = orders.starts[orders.owners[self.next_orders_] + 1] - 1 == self.next_orders_
        found = np.zeros(len(WEIGHT_GRID))
        block = max(1, base.BLOCK_CELLS // max(1, orders.baskets.shape[1]))
        for start in range(0, len(last), block):
            target_orders = last[start : start + block]
            own = self._bought_again(
                shares_before(orders, target_orders, self.half_life_days)[0],
                self.customer_rate_[orders.owners[target_orders]],
            )
            near = self._bought_next(self._states_before(target_orders), shut)
            wanted = orders.baskets[target_orders]
            attainable = np.minimum(np.diff(wanted.indptr), LIST_LENGTH)
            for place, weight in enumerate(WEIGHT_GRID):
                ids, _ = top_k_rows(_sum(own, near, weight), LIST_LENGTH, ItemFilter())
                found[place] += ((values_at(wanted, ids) > 0).sum(axis=1) / attainable).sum()
        return WEIGHT_GRID[int(found.argmax())]

    def _evidence(self, query: Query, item: int) -> Evidence | None:
        """In how many orders before the fit the user had the item (``times``), and ``last_days``; None for never."""
        user = int(query.users[0])
        if user < 0:
            return None
        orders = self.orders_
        own = slice(*orders.starts[user : user + 2].tolist())
        interacted = np.flatnonzero(orders.baskets[own].getcol(item).toarray().ravel())
        if not len(interacted):
            return None
        return times_and_last(
            len(interacted), float(orders.ages[own][interacted[-1]]) if self.has_times_ else 0.0, query.elapsed_days
        )

    # ---- answering -----------------------------------------------------------------------------------------------

    def _bought_again(self, shares: sparse.csr_matrix, customers: Floats) -> sparse.csr_matrix:
        scored = scaled(shares, customers)
        scored.data *= self.item_rate_[scored.indices]
        return scored

    def _bought_next(self, states: sparse.csr_matrix, shut: NDArray[np.bool_] | None = None) -> sparse.csr_matrix:
        """n of customers in these states, (r, n_items); neighbours that are `shut` do not count."""
        n_states = self.states_.shape[1]
        most = min(self.neighbours, n_states)
        parts = [sparse.csr_matrix((0, self.next_baskets_.shape[1]), dtype=np.float32)]
        block = max(1, base.BLOCK_CELLS // max(1, n_states))
        for start in range(0, states.shape[0], block):
            alike = (states[start : start + block] @ self.states_).toarray()
            if shut is not None:
                alike[:, shut] = 0.0
            nearest, weights = top_k(alike, most)
            weights /= np.maximum(weights.sum(axis=1, keepdims=True), np.float32(1e-12))
            votes = sparse.csr_matrix(
                (weights.ravel(), nearest.ravel(), np.arange(len(alike) + 1) * most), shape=alike.shape
            )
            votes.eliminate_zeros()
            parts.append((votes @ self.next_baskets_).tocsr())
        return sparse.vstack(parts, format="csr")

    def _candidates(self, query: Query) -> sparse.csr_matrix:
        """Scores of all candidates, (n, n_items)."""
        return query.memoize(self, lambda: self._score_candidates(query))

    def _score_candidates(self, query: Query) -> sparse.csr_matrix:
        changed = query.recent_interactions is not None and (len(query.recent_interactions.users) or query.elapsed_days)
        shares, states = (
            self._current_state(query) if changed else (rows_of(held, query.users) for held in self.state_at_fit_)
        )
        known = query.users >= 0
        customers = (
            np.where(known, self.customer_rate_[np.maximum(query.users, 0)], np.float32(1.0))
            if len(self.customer_rate_)
            else np.ones(len(query), np.float32)
        )
        return _sum(self._bought_again(shares, customers), self._bought_next(states), self.weight_)

    def _current_state(self, query: Query) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
        """s and the state of each row as they are now, what was bought since included."""
        orders, known = self.orders_, query.users >= 0
        users = np.where(known, query.users, 0)
        first = np.where(known, orders.starts[users], 0) if len(orders.starts) > 1 else np.zeros_like(users)
        end = np.where(known, orders.starts[users + 1], 0) if len(orders.starts) > 1 else np.zeros_like(users)
        recent = np.maximum(first, end - ORDERS_PER_STATE)
        now, then = (
            np.zeros(len(query)),
            np.where(end > first, orders.ages[np.maximum(end - 1, 0)] if len(orders.ages) else 0.0, 0.0),
        )
        if query.recent_interactions is None or not (len(query.recent_interactions.users) or query.elapsed_days):
            counts, n_orders = orders.sums(first, end, now, self.half_life_days)
            taste = orders.sums(recent, end, then, self.taste_half_life_days)[0]
            return scaled(counts, 1.0 / (1.0 + n_orders)), self._tfidf_vectors(taste)
        recent_interactions = Orders.of(query.recent_interactions, None if self.has_times_ else self.days_per_order)
        new = np.diff(recent_interactions.starts)
        now -= query.elapsed_days if self.has_times_ else new * self.days_per_order
        counts, n_orders = orders.sums(first, end, now, self.half_life_days)
        taste = orders.sums(recent, end, np.where(new > 0, now, then), self.taste_half_life_days)[0]
        fresh, n_fresh = recent_interactions.sums(
            recent_interactions.starts[:-1], recent_interactions.starts[1:], np.zeros(len(query)), self.half_life_days
        )
        newest = recent_interactions.sums(
            recent_interactions.starts[:-1],
            recent_interactions.starts[1:],
            np.zeros(len(query)),
            self.taste_half_life_days,
        )[0]
        return scaled((counts + fresh).tocsr(), 1.0 / (1.0 + n_orders + n_fresh)), self._tfidf_vectors(
            (taste + newest).tocsr()
        )

    def _scores(self, query: Query) -> Floats:
        return dense_scores(self._candidates(query))

    def _top_k(self, query: Query, k: int, item_filter: ItemFilter) -> tuple[NDArray[np.int32], Floats]:
        return top_k_rows(self._candidates(query), k, item_filter)

    def _score_items(self, query: Query, ids: Indices) -> Floats:
        return values_at(self._candidates(query), ids)

    # ---- keeping -------------------------------------------------------------------------------------------------

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
        self.state_at_fit_ = self._current_state(Query(np.arange(len(self.orders_.starts) - 1)))


def _sum(own: sparse.csr_matrix, near: sparse.csr_matrix, weight: float) -> sparse.csr_matrix:
    total = (own + near * np.float32(weight)).tocsr().astype(np.float32) if weight else own.copy()
    total.sort_indices()
    return total
