"""Exact top-k of scores: integer keys that encode the order with ties, a cheap score bound, a buffer of candidates."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

NOT_A_CANDIDATE = np.float32(-np.inf)
Keys = NDArray[np.int64]
Ids = NDArray[np.int32]
Scores = NDArray[np.float32]

MIN_FINITE = np.finfo(np.float32).min  # a bound that every finite score reaches and −inf does not
NO_KEY = np.iinfo(np.int64).max
FLIP = np.int32(0x7FFFFFFF)
LOW_HALF = np.int64(0xFFFFFFFF)
DENSE_CELLS = 1 << 19  # dense scores processed at a time; they fit into the cache of a core


# ---- keys ------------------------------------------------------------------------------------------------------------


def encode_keys(values: Scores, columns: NDArray[np.integer[Any]]) -> Keys:
    """Encode scores and columns as int64 keys that sort by descending score, then by ascending column.

    The bits of a float32 sort like an integer after the bits of negative numbers are flipped.
    """
    bits = (values + np.float32(0.0)).view(np.int32)  # −0.0 becomes 0.0, because the two scores are equal
    rising = np.where(bits < 0, bits ^ FLIP, bits)
    return (np.invert(rising).astype(np.int64) << 32) | columns


def decode_scores(keys: Keys) -> Scores:
    """Return the scores of keys; −inf for `NO_KEY`."""
    rising = np.invert((keys >> 32).astype(np.int32))
    values: Scores = np.where(rising < 0, rising ^ FLIP, rising).view(np.float32)
    values[keys == NO_KEY] = NOT_A_CANDIDATE
    return values


def decode_ids(keys: Keys) -> Ids:
    """Return the columns of keys; −1 for `NO_KEY`."""
    return np.where(keys == NO_KEY, -1, keys & LOW_HALF).astype(np.int32)


def kth_score_bound(scores: Scores, k: int) -> Scores:
    """Return a lower bound of the k-th largest score of each row, (n,); `MIN_FINITE` where no better bound is cheap.

    The k-th largest of the maxima of disjoint groups is at most the k-th largest score. With a few groups per list
    position the bound is tight, and the maxima of strided groups use vector instructions, whereas a selection needs
    several steps per score.
    """
    n, m = scores.shape
    if m < 2 * k:
        return np.full(n, MIN_FINITE)
    groups = min(max(256, 4 * k), m)
    members = m // groups
    row, cell = scores.strides
    grid = np.ndarray((n, members, groups), np.float32, scores, strides=(row, groups * cell, cell))
    best: Scores = np.fmax.reduce(grid, axis=1)
    rest = m - members * groups
    if rest:
        np.fmax(best[:, :rest], scores[:, members * groups :], out=best[:, :rest])
    np.copyto(best, NOT_A_CANDIDATE, where=np.isnan(best))
    best.partition(groups - k, axis=1)
    return np.maximum(best[:, groups - k], MIN_FINITE)


def _thinned(
    rows: NDArray[np.int64], keys: Keys, counts: NDArray[np.int64], k: int, most: int
) -> tuple[NDArray[np.int64], Keys]:
    """Cut rows with more than `most` keys to their k best; `rows` is ascending."""
    heavy = np.flatnonzero(counts > most)
    if not len(heavy):
        return rows, keys
    kept = np.ones(len(keys), dtype=bool)
    starts = np.cumsum(counts) - counts
    for row in heavy:  # rows with many equal scores or a loose bound; these are few, if any
        own = slice(starts[row], starts[row] + counts[row])
        kept[own] = keys[own] <= np.partition(keys[own], k - 1)[k - 1]
    counts[heavy] = k
    return rows[kept], keys[kept]


class TopKBuffer:
    """Collects the k best keys of each row."""

    def __init__(self, n: int, k: int) -> None:
        self.k, self.most = k, max(4 * k, 64)
        self.keys: Keys = np.full((n, k + self.most), NO_KEY)
        self.fill = np.zeros(n, dtype=np.int64)
        self.new = 0

    def add(self, rows: NDArray[np.int64], keys: Keys) -> None:
        """Add keys of rows; `rows` is ascending."""
        counts = np.bincount(rows, minlength=len(self.fill))
        rows, keys = _thinned(rows, keys, counts, self.k, self.most)
        if int((self.fill + counts).max()) > self.keys.shape[1]:
            self.cut()
        starts = np.cumsum(counts) - counts
        self.keys[rows, (self.fill - starts)[rows] + np.arange(len(rows))] = keys
        self.fill += counts
        self.new += len(rows)

    def cut(self) -> None:
        """Sort the keys of each row and drop all but the k best."""
        width = int(self.fill.max(initial=0))
        self.keys[:, :width].sort(axis=1)
        self.keys[:, self.k : width] = NO_KEY
        np.minimum(self.fill, self.k, out=self.fill)
        self.new = 0

    def thresholds(self) -> Scores:
        """Return the k-th best score of each row; `MIN_FINITE` for a row with fewer keys."""
        return np.maximum(decode_scores(self.keys[:, self.k - 1]), MIN_FINITE)


# ---- dense -----------------------------------------------------------------------------------------------------------


def top_k(scores: NDArray[np.float32], k: int) -> tuple[Ids, Scores]:
    """Select the k best columns of each row, best first; ties go to the lower column.

    Parameters
    ----------
    scores : ndarray of float32, (n, m)
        −inf marks columns that are not candidates; NaN is treated as −inf.
    k : int
        Number of columns to select.

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
    ids, values = np.empty((n, k), dtype=np.int32), np.empty((n, k), dtype=np.float32)
    if not k or not n:
        return ids, values
    if n == 1:
        return _one_row(np.ascontiguousarray(scores[0], dtype=np.float32), k)
    block = max(1, DENSE_CELLS // m)
    for start in range(0, n, block):
        some = np.ascontiguousarray(scores[start : start + block], dtype=np.float32)
        ids[start : start + block], values[start : start + block] = _dense_block(some, k)
    return ids, values


def _one_row(scores: Scores, k: int) -> tuple[Ids, Scores]:
    """Do the work of `_dense_block` for one row with few NumPy calls, for the latency of online requests."""
    hits = np.flatnonzero(scores > NOT_A_CANDIDATE)
    if len(hits) > max(1024, 4 * k):
        hits = np.flatnonzero(scores >= kth_score_bound(scores[None, :], k)[0])
    keys = encode_keys(scores[hits], hits)
    keys.sort()
    ids, values = decode_ids(keys[:k]), decode_scores(keys[:k])
    if len(ids) < k:
        others = np.flatnonzero(~(scores[:k] > NOT_A_CANDIDATE))[: k - len(ids)].astype(np.int32)
        ids, values = np.concatenate([ids, others]), np.concatenate([values, np.full(len(others), NOT_A_CANDIDATE)])
    return ids[None, :], values[None, :]


def _dense_block(scores: Scores, k: int) -> tuple[Ids, Scores]:
    n, m = scores.shape
    hits = np.flatnonzero(scores >= kth_score_bound(scores, k)[:, None])
    rows = hits // m
    lists = TopKBuffer(n, k)
    lists.add(rows, encode_keys(scores.ravel()[hits], hits - rows * m))
    lists.cut()
    best = lists.keys[:, :k]
    ids, values = decode_ids(best), decode_scores(best)
    short = np.flatnonzero(lists.fill < k)
    if len(short):  # fill up with the first columns that are not candidates; the first k columns hold enough of them
        rows, columns = np.nonzero(~(scores[short, :k] > NOT_A_CANDIDATE))
        counts = np.bincount(rows, minlength=len(short))
        place = lists.fill[short][rows] + np.arange(len(rows)) - (np.cumsum(counts) - counts)[rows]
        kept = place < k
        ids[short[rows[kept]], place[kept]] = columns[kept]
    return ids, values
