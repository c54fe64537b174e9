"""`Ranked`, the answer of every recommender, and the exact top-k behind it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NOT_A_CANDIDATE = np.float32(-np.inf)


@dataclass(frozen=True)
class Ranked:
    """Ranked items for n users.

    Attributes
    ----------
    ids : ndarray of int32, (n, k)
        Item indices, best first, −1 past the end of a list.
    scores : ndarray of float32, (n, k)
        Falling along a row; comparable within a row only. −inf past the end.
    valid : ndarray of int32, (n,)
        How many entries of each row are items.
    source : ndarray of int8, (n, k)
        Index into `sources`: which model put the item there. −1 past the end.
    sources : tuple of str
    """

    ids: NDArray[np.int32]
    scores: NDArray[np.float32]
    valid: NDArray[np.int32]
    source: NDArray[np.int8]
    sources: tuple[str, ...]

    @classmethod
    def of(
        cls, ids: NDArray[np.int32], scores: NDArray[np.float32], source: NDArray[np.int8], k: int, sources: tuple[str, ...]
    ) -> Ranked:  # fmt: skip
        """Pad (n, ≤ k) arrays, whose entries past the end of a list score −inf, to width k."""
        n, width = ids.shape
        padded_ids = np.full((n, k), -1, dtype=np.int32)
        padded_scores = np.full((n, k), NOT_A_CANDIDATE, dtype=np.float32)
        padded_source = np.full((n, k), -1, dtype=np.int8)
        real = np.isfinite(scores)
        padded_ids[:, :width] = np.where(real, ids, -1)
        padded_scores[:, :width] = scores
        padded_source[:, :width] = np.where(real, source, -1)
        return cls(padded_ids, padded_scores, real.sum(axis=1).astype(np.int32), padded_source, sources)


def top_k(scores: NDArray[np.float32], k: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The k best columns of each row, best first; equal scores go to the lower index.

    Parameters
    ----------
    scores : ndarray of float32, (n, m)
        −inf marks what must not be chosen; NaN is read as −inf.

    Returns
    -------
    ids : ndarray of int32, (n, min(k, m))
    scores : ndarray of float32, (n, min(k, m))

    Examples
    --------
    >>> top_k(np.array([[0.5, 2.0, 0.5, 2.0]], dtype=np.float32), 3)[0]
    array([[1, 3, 0]], dtype=int32)
    """
    n, m = scores.shape
    k = min(k, m)
    if k == 0 or n == 0:
        return np.empty((n, k), dtype=np.int32), np.empty((n, k), dtype=np.float32)
    if n == 1:
        candidates = np.flatnonzero(scores[0] > NOT_A_CANDIDATE)
        if len(candidates) < m // 2:  # one customer's own purchases are a few hundred of tens of thousands of items
            return _one_row(scores[0, candidates], candidates, k, m)
    clean = np.ascontiguousarray(np.where(np.isnan(scores), NOT_A_CANDIDATE, scores) + np.float32(0.0), dtype=np.float32)
    # one int64 key orders by (score falling, index rising): the bits of a float sort like an integer once negatives are flipped
    bits = clean.view(np.int32)
    ordered = np.where(bits < 0, bits ^ np.int32(0x7FFFFFFF), bits).astype(np.int64)
    keys = (ordered << 32) | np.arange(m - 1, -1, -1, dtype=np.int64)
    if k < m:
        best = np.argpartition(keys, m - k, axis=1)[:, m - k :]
        order = np.argsort(-np.take_along_axis(keys, best, axis=1), axis=1)
        ids = np.take_along_axis(best, order, axis=1)
    else:
        ids = np.argsort(-keys, axis=1)
    return ids.astype(np.int32), np.take_along_axis(clean, ids, axis=1)


def _one_row(values: NDArray[np.float32], columns: NDArray[np.int64], k: int, m: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The k best of one row of which only `columns` are candidates, padded with the first columns that are none."""
    order = np.lexsort((columns, -values))[:k]
    ids, scores = columns[order], values[order]
    if len(ids) < k:
        fill = np.setdiff1d(np.arange(min(m, k + len(columns))), columns)[: k - len(ids)]
        ids = np.concatenate([ids, fill])
        scores = np.concatenate([scores, np.full(len(fill), NOT_A_CANDIDATE)])
    return ids.astype(np.int32)[None, :], (scores + np.float32(0.0)).astype(np.float32)[None, :]
