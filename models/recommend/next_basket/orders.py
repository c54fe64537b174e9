"""Orders of customers as rows of a matrix, and decayed sums over them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from features.interactions import Interactions

Ints = NDArray[np.int64]
MIN_HALVINGS, MAX_HALVINGS = -60.0, 60.0  # limits that keep the decayed weights within float32
BLOCK_ENTRIES = 4_000_000  # decayed counts held in memory at a time while fitting


@dataclass(frozen=True)
class Orders:
    """Orders sorted by owner, and of one owner from oldest to newest.

    Attributes
    ----------
    owners : ndarray of int64, (o,)
        Customer of each order.
    ages : ndarray of float64, (o,)
        Age of each order in days.
    baskets : csr_matrix of float32, (o, n_items)
        1 where the order contains the item.
    starts : ndarray of int64, (n_owners + 1,)
        The orders of owner u are ``starts[u]:starts[u + 1]``.
    """

    owners: Ints
    ages: NDArray[np.float64]
    baskets: sparse.csr_matrix
    starts: Ints

    @classmethod
    def of(cls, lines: Interactions, days_per_order: float | None) -> Orders:
        """Group lines into orders; without order numbers, the lines of a customer on one day are an order.

        Parameters
        ----------
        lines : Interactions
            The order lines.
        days_per_order : float or None
            Assumed days between two orders if the data have no times; the last order is that many days old. None uses
            the ages of the lines.
        """
        if lines.orders is None:
            names = np.floor(-lines.age_days.astype(np.float64)).astype(np.int64)
        else:
            names = lines.orders.astype(np.int64)
        users = lines.users.astype(np.int64)
        by = np.lexsort((names, users))
        new = np.ones(len(by), dtype=bool)
        new[1:] = (np.diff(users[by]) != 0) | (np.diff(names[by]) != 0)
        first = np.flatnonzero(new)
        of_line = np.cumsum(new) - 1
        owners = users[by][first]
        ages = np.maximum.reduceat(lines.age_days[by].astype(np.float64), first) if len(first) else np.empty(0)
        baskets = sparse.csr_matrix(
            (np.ones(len(by), np.float32), (of_line, lines.items[by])), shape=(len(first), lines.shape[1])
        )
        baskets.sum_duplicates()
        baskets.data[:] = 1.0
        starts = np.searchsorted(owners, np.arange(lines.shape[0] + 1))
        if days_per_order is not None:
            ages = (starts[owners + 1] - np.arange(len(owners))) * float(days_per_order)
        return cls(owners, ages, baskets, starts)

    def sums(
        self, first: Ints, end: Ints, now: NDArray[np.float64], half_life_days: float
    ) -> tuple[sparse.csr_matrix, NDArray[np.float64]]:
        """Sum the orders ``first[r]:end[r]``, decayed until the time when the age was ``now[r]``.

        Returns
        -------
        items : csr_matrix of float32, (r, n_items)
            Decayed counts of the items.
        orders : ndarray of float64, (r,)
            Decayed number of orders.
        """
        counts = end - first
        bounds = np.concatenate([[0], np.cumsum(counts)])
        order = np.arange(bounds[-1]) + np.repeat(first - bounds[:-1], counts)
        halvings = (np.repeat(now, counts) - self.ages[order]) / half_life_days
        weights = np.exp2(np.clip(halvings, MIN_HALVINGS, MAX_HALVINGS)).astype(np.float32)
        decayed = sparse.csr_matrix((weights, order, bounds), shape=(len(first), len(self.owners)))
        return (decayed @ self.baskets).tocsr(), np.asarray(decayed.sum(axis=1), dtype=np.float64).ravel()

    def blocks(self, target_orders: Ints) -> Iterator[Ints]:
        """Iterate over blocks of rows of `target_orders` whose decayed counts fit into memory."""
        lines = self.baskets.indptr.astype(np.int64)
        sizes = np.cumsum(lines[target_orders] - lines[self.starts[self.owners[target_orders]]])
        start = 0
        while start < len(target_orders):
            limit = (sizes[start - 1] if start else 0) + BLOCK_ENTRIES
            end = max(start + 1, int(np.searchsorted(sizes, limit, side="right")))
            yield np.arange(start, min(end, len(target_orders)))
            start = end


def scaled(matrix: sparse.csr_matrix, factors: NDArray[Any]) -> sparse.csr_matrix:
    """Multiply each row by its factor."""
    data = matrix.data * np.repeat(factors, np.diff(matrix.indptr)).astype(np.float32)
    return sparse.csr_matrix((data.astype(np.float32), matrix.indices, matrix.indptr), shape=matrix.shape)
