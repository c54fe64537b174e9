"""Orders of users as rows of a matrix, and the query items of a list that goes with the last order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from features.interactions import Interactions
from models.recommend.query import Query

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Baskets:
    """Orders, sorted by user and within a user from oldest to newest.

    Attributes
    ----------
    items : csr_matrix, (n_orders, n_items)
        1 where the order contains the item.
    users : ndarray of int64, (n_orders,)
        User of each order, ascending.
    age_days : ndarray of float32, (n_orders,)
        Age of each order in days.
    """

    items: sparse.csr_matrix
    users: NDArray[np.int64]
    age_days: Floats

    @classmethod
    def of(cls, data: Interactions) -> Baskets:
        """Group interactions into orders.

        Without order ids, the interactions of a user on one day are one order; without times, all of them are.
        """
        visit = _visits(data)
        lines = np.lexsort((visit, data.users))
        users, visits = data.users[lines].astype(np.int64), visit[lines]
        begins = np.ones(len(lines), dtype=bool)
        begins[1:] = (users[1:] != users[:-1]) | (visits[1:] != visits[:-1])
        row = np.cumsum(begins) - 1
        first = np.flatnonzero(begins)
        held = sparse.csr_matrix(
            (np.ones(len(lines), np.float32), (row, data.items[lines])), shape=(len(first), data.shape[1])
        )
        held.data[:] = 1.0
        held.sort_indices()
        ages = np.minimum.reduceat(data.age_days[lines], first) if len(first) else np.empty(0)
        return cls(held, users[first], ages.astype(np.float32))

    def by_user(self, n: int, weights: Floats) -> sparse.csr_matrix:
        """Return the weights of the orders of each user, (n, n_orders)."""
        bounds = np.searchsorted(self.users, np.arange(n + 1))
        return sparse.csr_matrix((weights, np.arange(len(self.users)), bounds), shape=(n, len(self.users)))

    def last(self, n: int) -> sparse.csr_matrix:
        """Return the items of the last order of each user, 0/1, (n, n_items)."""
        ends = np.searchsorted(self.users, np.arange(n), side="right")
        some = np.flatnonzero(ends > np.searchsorted(self.users, np.arange(n)))
        newest = self.items[ends[some] - 1]
        bounds = np.zeros(n + 1, dtype=np.int64)
        bounds[some + 1] = np.diff(newest.indptr)
        return sparse.csr_matrix((newest.data, newest.indices, np.cumsum(bounds)), shape=(n, self.items.shape[1]))


def last_orders(data: Interactions) -> sparse.csr_matrix:
    """Return the items of the last order of each user, 0/1, (n_users, n_items)."""
    visit = _visits(data)
    newest = np.full(data.shape[0], np.iinfo(np.int64).min)
    np.maximum.at(newest, data.users, visit)
    # only these are sorted, which takes a fraction of the memory that all orders take
    return Baskets.of(data.where(visit == newest[data.users])).last(data.shape[0])


def _visits(data: Interactions) -> NDArray[np.int64]:
    """Return the number of the order of each interaction, or of its day; newer ones are higher."""
    return -np.floor(data.age_days).astype(np.int64) if data.orders is None else data.orders.astype(np.int64)


def resolve_query_items(query: Query, last: sparse.csr_matrix) -> sparse.csr_matrix:
    """Return the query items of each user: those of the query or, without them, those of the user's last order.

    Parameters
    ----------
    query : Query
        The n users; orders among the recent interactions take precedence over `last`.
    last : csr_matrix, (n_users, n_items)
        Items of the last order of each user before the fit.

    Returns
    -------
    csr_matrix of float32, (n, n_items)
        0/1, with sorted indices.
    """
    n, n_items = len(query), last.shape[1]
    requested = list(query.items) if query.items is not None else [np.empty(0, np.int64)] * n
    lengths = np.array([len(items) for items in requested], dtype=np.int64)
    columns = np.concatenate(requested) if lengths.sum() else np.empty(0, np.int64)
    basket = sparse.csr_matrix(
        (np.ones(len(columns), np.float32), (np.repeat(np.arange(n), lengths), columns)), shape=(n, n_items)
    )
    if query.recent_interactions is not None and len(query.recent_interactions.users):
        basket = basket + _only(np.diff(basket.indptr) == 0) @ last_orders(query.recent_interactions)
    if last.shape[0]:
        basket = basket + _only((np.diff(basket.indptr) == 0) & (query.users >= 0)) @ last[np.maximum(query.users, 0)]
    basket = sparse.csr_matrix(basket, dtype=np.float32)
    basket.eliminate_zeros()
    basket.data[:] = 1.0
    basket.sort_indices()
    return basket


def _only(rows: NDArray[np.bool_]) -> sparse.csr_matrix:
    """Return a diagonal 0/1 matrix that selects rows."""
    kept = np.flatnonzero(rows)
    return sparse.csr_matrix((np.ones(len(kept), np.float32), (kept, kept)), shape=(len(rows), len(rows)))
