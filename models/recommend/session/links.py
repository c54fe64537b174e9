"""Links between items that users met in one visit, and one after the other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from models.recommend.item_knn import cooccurrence_blocks, strongest_links
from models.recommend.session.trails import VISIT_GAP_DAYS, Trails

LINKS = 100  # links kept for each item
STEPS = 5  # transitions lead to the next items of the same user, up to this many entries later
MOST_DAYS = 1.0  # and at most this long after
LONGEST_VISIT = 200  # distinct items of a visit; a longer one is a robot or a wholesaler and tells of no session


def visit_links(trails: Trails, links: int = LINKS, gap_days: float = VISIT_GAP_DAYS) -> sparse.csr_matrix:
    """Cosine of the visits of two items, the strongest of each item, (n_items, n_items); the diagonal is empty.

    `Trails.visits` says what a visit is.

    Examples
    --------
    >>> rows, zeros = np.zeros(4, np.int64), np.zeros(4, np.int8)
    >>> two_visits = Trails(rows, np.array([0, 1, 0, 2]), np.array([5.0, 5.0, 1.0, 1.0]), zeros, (1, 3))
    >>> visit_links(two_visits).toarray().astype(float).round(2).tolist()
    [[0.0, 0.71, 0.71], [0.71, 0.0, 0.0], [0.71, 0.0, 0.0]]
    """
    n_items, visits = trails.shape[1], trails.visits(gap_days)
    count = int(visits.max(initial=-1)) + 1
    met = sparse.csr_matrix((np.ones(len(trails), np.float32), (visits, trails.items)), shape=(count, n_items))
    met.sum_duplicates()
    met.data[:] = 1.0
    met = met[np.diff(met.indptr) <= LONGEST_VISIT]
    by_item = met.T.tocsr()
    lengths = np.sqrt(np.maximum(np.diff(by_item.indptr), 1)).astype(np.float32)
    parts = []
    for block, products in cooccurrence_blocks(by_item, met):
        row = np.repeat(np.arange(block.start, block.stop), np.diff(products.indptr))
        products.data = np.where(row == products.indices, 0.0, products.data / lengths[row] / lengths[products.indices])
        parts.append(strongest_links(products, links))
    return sparse.vstack(parts, format="csr").astype(np.float32) if parts else sparse.csr_matrix((n_items, n_items))


def transitions(
    trails: Trails, links: int = LINKS, steps: int = STEPS, most_days: float = MOST_DAYS
) -> sparse.csr_matrix:
    """Probability that a user comes from one item to another, (n_items, n_items); the diagonal is empty.

    Each entry counts for the items of the next `steps` entries of the user within `most_days`, the s-th with the weight
    1 / s. Rows add up to 1 before the weak links are dropped.

    Examples
    --------
    >>> rows, zeros = np.zeros(3, np.int64), np.zeros(3, np.int8)
    >>> one_visit = Trails(rows, np.array([0, 1, 2]), np.array([0.3, 0.2, 0.1]), zeros, (1, 3))
    >>> transitions(one_visit).toarray().astype(float).round(2).tolist()
    [[0.0, 0.67, 0.33], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]
    """
    froms, tos, weights = [np.empty(0, np.int64)], [np.empty(0, np.int64)], [np.empty(0)]
    for step in range(1, steps + 1):
        begin = np.flatnonzero(
            (trails.rows[step:] == trails.rows[:-step])
            & (trails.ages[:-step] - trails.ages[step:] <= most_days)
            & (trails.items[step:] != trails.items[:-step])
        )
        froms.append(trails.items[begin])
        tos.append(trails.items[begin + step])
        weights.append(np.full(len(begin), 1.0 / step))
    n = trails.shape[1]
    counts = sparse.csr_matrix((np.concatenate(weights), (np.concatenate(froms), np.concatenate(tos))), shape=(n, n))
    sums = np.asarray(counts.sum(axis=1)).ravel()
    shares = (sparse.diags(1.0 / np.maximum(sums, 1e-30)) @ counts).tocsr().astype(np.float32)
    return strongest_links(shares, links)


def decayed_rows(trails: Trails, weights: NDArray[np.float64]) -> sparse.csr_matrix:
    """Weights of the entries by row and item, (n_rows, n_items); of several entries of an item, the largest counts."""
    order = np.lexsort((-weights, trails.items, trails.rows))
    rows, items, values = trails.rows[order], trails.items[order], weights[order]
    first = np.ones(len(order), dtype=bool)
    first[1:] = (rows[1:] != rows[:-1]) | (items[1:] != items[:-1])
    kept = first & (values > 0)
    return sparse.csr_matrix((values[kept].astype(np.float32), (rows[kept], items[kept])), shape=trails.shape)
