"""EASE: a linear model of each item on all others, solved in closed form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from scipy import sparse
from scipy.linalg import lapack

from features.interactions import TrainingSet
from models.recommend.base import Choice, Range
from models.recommend.cost import n_lines
from models.recommend.item_knn import Floats, ItemLinksRecommender, cooccurrence_blocks
from models.recommend.type_weighted import TypeWeights
from models.topk import top_k
from qianmian.errors import DataError

BLOCK_CELLS = 8_000_000  # cells of the inverse processed at a time: 32 MB
LEAF_ROWS = 8_192  # largest block that LAPACK inverts directly


class EASERecommender(ItemLinksRecommender):
    """Embarrassingly shallow autoencoder (Steck 2019): ``min_B |X − X B|² + regularization |B|²`` with a zero diagonal.

    The solution is ``B_ij = −P_ij / P_jj`` with ``P = (XᵀX + regularization I)⁻¹``. P is computed in place in float32:
    one matrix of ``4 × n_items²`` bytes, 2.4 GB for 24,400 items and 6.7 GB for 41,000; the time grows with
    ``n_items³``. The `neighbours` links of each row with the largest absolute value are kept, negative ones included.

    Parameters
    ----------
    regularization : float
        Strength of the L2 penalty, > 0.
    neighbours : int
        Number of links kept per item.
    max_items : int or None
        Number of items that are linked, the most popular ones; other items are not ranked. 15,000 items need 0.9 GB.
    half_life_days : float or None
        Half-life of a count in days; None for no decay.
    count_power : float
        Power of a decayed count: 0 uses only whether the item was bought (age then has no effect), 1 uses the count.
        0 was best on first purchases of Complete Journey in October.
    type_weights : mapping of str to float, optional
        Weights of the types of interaction, as in `TrainingSet.matrix`; None: the target alone.

    Raises
    ------
    DataError
        `fit` raises it if the regularization is too small to invert.
    """

    name: ClassVar[str] = "ease"
    search_space: ClassVar[Mapping[str, Range | Choice]] = {
        "regularization": Range(1.0, 5000.0, log=True),
        "half_life_days": Choice((60.0, 120.0, 240.0, None)),
        "count_power": Range(0.0, 1.0),
    }

    def __init__(
        self,
        regularization: float = 80.0,
        neighbours: int = 1000,
        max_items: int | None = 15_000,
        half_life_days: float | None = None,
        count_power: float = 0.0,
        type_weights: TypeWeights | None = None,
    ) -> None:
        self.regularization, self.neighbours, self.max_items = regularization, neighbours, max_items
        self.half_life_days, self.count_power = half_life_days, count_power
        self.type_weights = type_weights

    def estimated_cpu_seconds(self, train: TrainingSet) -> float:
        return 2.2e-11 * self._linked_items(train) ** 3 + 5e-7 * n_lines(train)

    def estimated_peak_bytes(self, train: TrainingSet) -> int:
        return 5 * self._linked_items(train) ** 2 + 60 * n_lines(train)

    def _compute_links(self, interacted: sparse.csr_matrix) -> tuple[sparse.csr_matrix, Floats]:
        n_items = interacted.shape[1]
        inverse = self._inverse(interacted)
        diagonal = inverse.diagonal().copy()
        ids, strengths = [], []
        block = max(1, BLOCK_CELLS // max(1, n_items))
        for start in range(0, n_items, block):
            links = inverse[start : start + block] / -diagonal
            positions = np.arange(len(links))
            links[positions, start + positions] = 0.0
            best, _ = top_k(np.abs(links), self.neighbours)
            ids.append(best)
            strengths.append(np.take_along_axis(links, best, axis=1))
        if not ids:
            return sparse.csr_matrix((0, 0), dtype=np.float32), np.ones(0, dtype=np.float32)
        columns, data = np.concatenate(ids), np.concatenate(strengths)
        kept = data != 0
        ends = np.concatenate([[0], np.cumsum(kept.sum(axis=1))])
        links = sparse.csr_matrix((data[kept], columns[kept], ends), shape=(n_items, n_items))
        return links, np.ones(n_items, dtype=np.float32)

    def _inverse(self, interacted: sparse.csr_matrix) -> Floats:
        """Return the inverse P, (n_items, n_items)."""
        n_items = interacted.shape[1]
        gram = np.zeros((n_items, n_items), dtype=np.float32)
        for rows, products in cooccurrence_blocks(interacted.T.tocsr(), interacted):
            gram[rows.start : rows.stop] = products.toarray()
        gram[np.diag_indices(n_items)] += np.float32(self.regularization)
        if not _inverted(gram):
            raise DataError(
                "the item co-occurrence matrix cannot be inverted",
                where="ease",
                got=self.regularization,
                hint="fit with more regularization",
            )
        return gram


def _inverted(matrix: Floats) -> bool:
    """Invert a symmetric positive definite matrix in place; return False if the matrix is not positive definite.

    The matrix is split into ``[[A, Bᵀ], [B, C]]``. With the Schur complement ``S = C − B A⁻¹ Bᵀ`` and ``W = B A⁻¹``,
    its inverse is ``[[A⁻¹ + Wᵀ S⁻¹ W, ·], [−S⁻¹ W, S⁻¹]]`` (Banachiewicz 1937). Nearly all the work is matrix products,
    and LAPACK only gets small matrices: OpenBLAS 0.3.30 crashes in the Cholesky factorisation of 41,000 rows.
    """
    n = len(matrix)
    if n <= LEAF_ROWS:
        factor, failed = lapack.spotrf(matrix, lower=1)
        if not failed:
            inverse, failed = lapack.spotri(factor, lower=1, overwrite_c=1)
        if failed:
            return False
        lower = np.tril(inverse)
        matrix[:] = lower
        matrix += np.tril(lower, -1).T
        return True
    half = n // 2
    first, across, below, second = (
        matrix[:half, :half],
        matrix[:half, half:],
        matrix[half:, :half],
        matrix[half:, half:],
    )
    if not _inverted(first):
        return False
    np.matmul(first, below.T, out=across)  # Wᵀ
    _subtract(second, below, across)
    if not _inverted(second):
        return False
    np.matmul(second, across.T, out=below)
    np.negative(below, out=below)
    _subtract(first, across, below)
    across[:] = below.T
    return True


def _subtract(matrix: Floats, left: Floats, right: Floats) -> None:
    """Compute ``matrix −= left @ right`` in blocks of rows."""
    block = max(1, BLOCK_CELLS // right.shape[1])
    for start in range(0, len(matrix), block):
        matrix[start : start + block] -= left[start : start + block] @ right
