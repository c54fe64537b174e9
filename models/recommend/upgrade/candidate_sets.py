"""Candidate sets of upgrades, and look-ups of their features in sparse matrices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from models.recommend.upgrade.item_attributes import Floats, Ints, ItemAttributes, MarketStatistics


@dataclass(frozen=True)
class CandidateSets:
    """Upgrade candidates: one set of more expensive items for each customer and category.

    Attributes
    ----------
    rows, usual : ndarray of int64, (s,)
        Row of the query, and usual item of the customer, of each set.
    of, items : ndarray of int64, (c,)
        Set (ascending) and item of each candidate.
    limits : ndarray of float64, (n,)
        `price_limits` of each row of the query.
    """

    rows: Ints
    usual: Ints
    of: Ints
    items: Ints
    limits: Floats

    def of_sets(self, kept: NDArray[np.bool_]) -> CandidateSets:
        """Select sets by a mask, (s,)."""
        number = np.cumsum(kept) - 1
        mine = kept[self.of]
        return CandidateSets(self.rows[kept], self.usual[kept], number[self.of[mine]], self.items[mine], self.limits)


def entries_at(matrix: sparse.csr_matrix, rows: Ints, columns: Ints) -> Floats:
    """Return the entries of a matrix at (row, column) pairs, (m,); 0 where none is stored."""
    matrix.sort_indices()
    if not matrix.nnz or not len(rows):
        return np.zeros(len(rows))
    width = np.int64(matrix.shape[1])
    held = np.repeat(np.arange(matrix.shape[0], dtype=np.int64), np.diff(matrix.indptr)) * width + matrix.indices
    wanted = rows * width + columns
    place = np.minimum(np.searchsorted(held, wanted), len(held) - 1)
    return np.where(held[place] == wanted, matrix.data[place], 0.0).astype(np.float64)


def has_entry(matrix: sparse.csr_matrix, rows: Ints, columns: Ints) -> NDArray[np.bool_]:
    """Return whether a matrix stores an entry at (row, column) pairs, (m,)."""
    ones = sparse.csr_matrix((np.ones(matrix.nnz), matrix.indices, matrix.indptr), shape=matrix.shape)
    return entries_at(ones, rows, columns) > 0


def brand_lift(
    own: sparse.csr_matrix, rows: Ints, brands: Ints, item_attributes: ItemAttributes, market: MarketStatistics
) -> Floats:
    """Return the log-lift of a brand in a customer's purchases, smoothed by five lines of all customers, (c,)."""
    bought = entries_at(sparse.csr_matrix(own @ item_attributes.brands), rows, brands)
    lines = np.asarray(own.sum(axis=1), dtype=np.float64).ravel()[rows]
    found: Floats = np.log((bought + 5.0 * market.brands[brands]) / (lines + 5.0) / market.brands[brands])
    return found
