"""Exact top-k search by inner product, without a dense users × items matrix."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from models.parallel import one_blas_thread, thread_budget
from models.topk import (
    LOW_HALF,
    MIN_FINITE,
    NO_KEY,
    NOT_A_CANDIDATE,
    Ids,
    Scores,
    TopKBuffer,
    decode_ids,
    decode_scores,
    encode_keys,
    kth_score_bound,
)
from qianmian.errors import DataError

LARGEST = 1e18  # largest norm; the scores of longer vectors may overflow float32
REFIT = "fit the model again: the training diverged, or the file is damaged"
CHUNK = 512  # items that share a bound
FIRST = 2048  # items with the best bounds that every user is scored on; they give the first threshold
WIDEST = 16_384  # largest number of items per step
TILE_CELLS = 1 << 19  # scores held in memory at a time per worker
USERS = 512  # users per block; a block shares a pass over the items
MASKED_SHARE = 8  # from this part of the items on, scoring all is faster than copying the vectors of those allowed
MARGIN = 4  # positions beyond k whose scores are recomputed before the final cut
COMPACT = 0.15  # new candidates per list position after which the lists are cut and the thresholds updated
# the BLAS thread count is global to the process, so two callers must not set and restore it concurrently
_parallel_search_lock = threading.Lock()


class FactorIndex:
    """Item vectors prepared for exact search by inner product: ``score(u, i) = x_u · y_i + b_i``.

    Items are sorted by an upper bound of their score. As ``x · y ≤ |x| |y|`` (Cauchy–Schwarz), the search for a user
    ends once k candidates score above the bound of all remaining items. With learnt factors, whose norms differ, this
    skips most of the catalogue (bucket pruning as in LEMP; Teflioudi, Gemulla and Mykytiuk 2015). The other items are
    scored by block matrix products of bounded size. The result is exact.

    Parameters
    ----------
    item_vectors : ndarray of float32, (n_items, d)
        Vectors y.
    item_bias : ndarray of float32, (n_items,), optional
        Biases b.
    typical_norm : float
        Norm of a typical user vector, which balances item norms and biases in the sort order. It affects only the
        speed.

    Raises
    ------
    DataError
        A vector or a bias is not finite, or larger than `LARGEST`.
    """

    def __init__(
        self, item_vectors: NDArray[np.float32], item_bias: NDArray[np.float32] | None = None, typical_norm: float = 1.0
    ) -> None:
        vectors = np.asarray(item_vectors, dtype=np.float32)
        norms = _norms(vectors, "item vectors")
        self.n_items, self.factors = vectors.shape
        self._vectors = vectors
        self._bias = None if item_bias is None else np.asarray(item_bias, dtype=np.float32)
        if self._bias is not None and (bad := int((~(np.abs(self._bias) <= LARGEST)).sum())):
            raise DataError("item biases are not finite", got=f"{bad} of {self.n_items}", hint=REFIT)
        bound = norms if self._bias is None else norms * np.float32(typical_norm) + self._bias
        order = np.argsort(-bound, kind="stable")
        self._catalogue = _Catalogue(
            np.ascontiguousarray(vectors[order].T),
            order,
            norms[order],
            None if self._bias is None else self._bias[order],
            self.n_items,
        )

    @property
    def item_vectors(self) -> NDArray[np.float32]:
        """The item vectors in their original order, (n_items, d)."""
        return self._vectors

    def scores(self, user_vectors: NDArray[np.float32]) -> Scores:
        """Return all scores of n users as a new array, (n, n_items); meant for few users at a time."""
        scores = np.asarray(user_vectors @ self._vectors.T, dtype=np.float32)
        return scores if self._bias is None else scores + self._bias

    def score_items(self, user_vectors: NDArray[np.float32], ids: NDArray[np.integer[Any]]) -> Scores:
        """Return the scores of item ids, (n, m), for n users; −inf for the id −1. Identical to those of `search`."""
        inside = np.maximum(ids, 0)
        scores = np.empty(ids.shape, dtype=np.float32)
        block = max(1, TILE_CELLS // max(1, ids.shape[1] * self.factors))
        for start in range(0, len(ids), block):
            some = slice(start, start + block)
            # the rounding of a matrix product depends on the batch; the order of this sum does not
            scores[some] = np.einsum("nd,nmd->nm", user_vectors[some], self._vectors[inside[some]])
        if self._bias is not None:
            scores += self._bias[inside]
        scores[ids < 0] = NOT_A_CANDIDATE
        return scores

    def search(
        self,
        user_vectors: NDArray[np.float32],
        k: int,
        *,
        allowed: NDArray[np.bool_] | None = None,
        excluded: sparse.csr_matrix | None = None,
        threads: int | None = None,
    ) -> tuple[Ids, Scores]:
        """Find the k best items of each user; ties go to the lower index.

        Parameters
        ----------
        user_vectors : ndarray of float32, (n, d)
            Vectors x.
        k : int
            Length of the lists, ≥ 1.
        allowed : ndarray of bool, (n_items,), optional
            Items that may be found; all by default.
        excluded : csr_matrix, (n, n_items), optional
            Items that each user must not get.
        threads : int, optional
            Number of threads; by default the thread budget of the caller.

        Returns
        -------
        ids : ndarray of int32, (n, min(k, n_items))
            −1 past the end.
        scores : ndarray of float32, (n, min(k, n_items))
            −inf past the end.

        Raises
        ------
        DataError
            A user vector is not finite, or longer than `LARGEST`.
        """
        users = np.ascontiguousarray(user_vectors, dtype=np.float32)
        n, k = len(users), min(k, self.n_items)
        ids, scores = np.empty((n, k), dtype=np.int32), np.empty((n, k), dtype=np.float32)
        if not n or not k:
            return ids, scores
        lengths = _norms(users, "user vectors")
        catalogue, mask = self._catalogue, allowed
        # for a request, the allowed items are looked up among those that are scored, unless they are few
        if allowed is not None and (n > 1 or MASKED_SHARE * int(np.count_nonzero(allowed)) <= self.n_items):
            catalogue, mask = catalogue.restricted(allowed, n), None
        wanted = min(k + MARGIN, catalogue.size)

        def store(rows: slice, found: NDArray[np.int64]) -> None:
            keys = encode_keys(self.score_items(users[rows], found), found)
            keys[found < 0] = NO_KEY
            keys.sort(axis=1)
            width = min(k, keys.shape[1])
            ids[rows, :width], scores[rows, :width] = decode_ids(keys[:, :width]), decode_scores(keys[:, :width])
            ids[rows, width:], scores[rows, width:] = -1, NOT_A_CANDIDATE

        if n == 1 and wanted:
            out_items = None if excluded is None else excluded.indices
            store(slice(0, 1), catalogue.search_one(users[0], float(lengths[0]), wanted, out_items, mask))
            return ids, scores
        workers = max(1, threads if threads is not None else thread_budget())
        # blocks of equal size, equally many per worker; long lists need blocks of fewer users
        most = max(16, min(USERS, (1 << 21) // (4 * k)))
        block = -(-n // (workers * -(-n // (workers * most)))) if n > most // 4 else n
        starts = itertools.count(0, block)

        def work(_: int) -> None:
            tile = np.empty(0, dtype=np.float32)
            while (start := next(starts)) < n:
                rows = slice(start, min(start + block, n))
                out = None if excluded is None else _entries(excluded, rows)
                found, tile = catalogue.best(users[rows], lengths[rows], wanted, out, tile)
                store(rows, found)

        # while another caller uses the cores, this one uses a single thread
        if block >= n or workers == 1 or not _parallel_search_lock.acquire(blocking=False):
            work(0)
        else:
            try:
                with one_blas_thread(), ThreadPoolExecutor(workers) as pool:
                    list(pool.map(work, range(workers)))
            finally:
                _parallel_search_lock.release()
        return ids, scores


class _Catalogue:
    """The items of one search, sorted by their bounds."""

    def __init__(
        self,
        columns: NDArray[np.float32],
        order: NDArray[np.int64],
        norms: NDArray[np.float32],
        bias: Scores | None,
        n_items: int,
    ):
        self.columns, self.order, self.norms, self.bias, self.n_items = columns, order, norms, bias, n_items
        self.size = len(order)
        chunks = np.arange(0, self.size, CHUNK)
        slack = 1.0 + 4.0 * (len(columns) + 2) * float(np.finfo(np.float32).eps)  # rounding error of a score
        self.longest = np.maximum.reduceat(norms, chunks).astype(np.float64) * slack if self.size else np.empty(0)
        self.highest = np.zeros(len(chunks))
        if bias is not None and self.size:
            self.highest = np.maximum.reduceat(bias, chunks).astype(np.float64)
            self.highest += np.abs(np.where(np.isfinite(self.highest), self.highest, 0.0)) * (slack - 1.0)
        # bounds of all items from a chunk on
        self.longest_left = np.maximum.accumulate(self.longest[::-1])[::-1]
        self.highest_left = np.maximum.accumulate(self.highest[::-1])[::-1]

    def restricted(self, allowed: NDArray[np.bool_], n: int) -> _Catalogue:
        """Return the catalogue of the allowed items, (n_items,), for a search of n users."""
        inside = allowed[self.order]
        # for few users, copying the vectors of the allowed items costs more than scoring the others
        if n < 64 and MASKED_SHARE * int(inside.sum()) > self.n_items:
            masked = np.where(inside, np.float32(0.0) if self.bias is None else self.bias, NOT_A_CANDIDATE)
            return _Catalogue(self.columns, self.order, self.norms, masked, self.n_items)
        kept = np.flatnonzero(inside)
        bias = None if self.bias is None else self.bias[kept]
        return _Catalogue(self.columns[:, kept], self.order[kept], self.norms[kept], bias, self.n_items)

    @cached_property
    def place(self) -> NDArray[np.int64]:
        """The position of each item in the sort order, (n_items,); −1 for an item that is not in the catalogue."""
        place = np.full(self.n_items, -1, dtype=np.int64)
        place[self.order] = np.arange(self.size)
        return place

    def search_one(
        self,
        user: NDArray[np.float32],
        length: float,
        k: int,
        excluded: NDArray[np.integer[Any]] | None,
        allowed: NDArray[np.bool_] | None,
    ) -> NDArray[np.int64]:
        """Do the work of `best` for one user, (1, k), with few NumPy calls, for the latency of online requests.

        Only `allowed` items, (n_items,), are found.
        """
        scores = np.empty(self.size, dtype=np.float32)
        positions = None if excluded is None else self.place[excluded]
        start, end, least = 0, min(max(FIRST, 4 * k), self.size), MIN_FINITE
        while True:
            np.matmul(user, self.columns[:, start:end], out=scores[start:end])
            if self.bias is not None:
                scores[start:end] += self.bias[start:end]
            if positions is not None:
                scores[positions[(positions >= start) & (positions < end)]] = NOT_A_CANDIDATE
            if allowed is not None:
                scores[start:end][~allowed[self.order[start:end]]] = NOT_A_CANDIDATE
            if start or end == self.size:
                break
            least = max(MIN_FINITE, np.partition(scores[:end], end - k)[end - k])
            possible = np.flatnonzero(length * self.longest + self.highest >= least)
            start, end = end, min((int(possible.max(initial=-1)) + 1) * CHUNK, self.size)
            if end <= start:
                end = start
                break
        hits = np.flatnonzero(scores[:end] >= least)
        keys = encode_keys(scores[hits], self.order[hits])
        keys.sort()
        best = np.full((1, k), -1, dtype=np.int64)
        best[0, : len(keys)] = keys[:k] & LOW_HALF
        return best

    def best(
        self,
        users: NDArray[np.float32],
        lengths: NDArray[np.float32],
        k: int,
        excluded: tuple[NDArray[Any], NDArray[Any]] | None,
        tile: NDArray[np.float32],
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the k best items of a block of users, (n, k), −1 past the end, and the buffer for the next block."""
        n = len(users)
        if not k:
            return np.empty((n, 0), dtype=np.int64), tile
        lists, least = TopKBuffer(n, k), np.full(n, MIN_FINITE)
        out_rows, out_positions = np.empty(0, np.int64), np.empty(0, np.int64)
        if excluded is not None:
            out_rows, out_positions = self._by_place(*excluded)
        start, width = 0, -(-max(FIRST, 4 * k) // CHUNK) * CHUNK
        while start < self.size:
            chunk = start // CHUNK
            possible = lengths * self.longest_left[chunk] + self.highest_left[chunk]
            if not (possible >= least).any():
                break
            end = min(start + width, self.size)
            chunks = slice(chunk, -(-end // CHUNK))
            possible = lengths * self.longest[chunks].max() + self.highest[chunks].max()
            live = np.flatnonzero(possible >= least)
            if len(live):
                cells = len(live) * (end - start)
                if len(tile) < cells:
                    tile = np.empty(cells, dtype=np.float32)
                scores = tile[:cells].reshape(len(live), end - start)
                np.matmul(users if len(live) == n else users[live], self.columns[:, start:end], out=scores)
                if self.bias is not None:
                    scores += self.bias[start:end]
                first, last = np.searchsorted(out_positions, (start, end))
                if first < last:
                    row_of = np.full(n, -1, dtype=np.int64)
                    row_of[live] = np.arange(len(live))
                    rows, positions = row_of[out_rows[first:last]], out_positions[first:last] - start
                    scores[rows[rows >= 0], positions[rows >= 0]] = NOT_A_CANDIDATE
                reached = kth_score_bound(scores, k) if start == 0 else least[live]
                hits = np.flatnonzero(scores >= reached[:, None])
                rows = hits // (end - start)
                if len(hits):
                    columns = self.order[hits - rows * (end - start) + start]
                    lists.add(live[rows], encode_keys(scores.ravel()[hits], columns))
                if start == 0 or lists.new > COMPACT * k * n:
                    lists.cut()
                    least = lists.thresholds()
            start, width = end, max(CHUNK, min(WIDEST, 2 * width, TILE_CELLS // max(1, len(live)) // CHUNK * CHUNK))
        lists.cut()
        best = lists.keys[:, :k]
        return np.where(best == NO_KEY, -1, best & LOW_HALF), tile

    def _by_place(self, rows: NDArray[Any], items: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Convert (row, item) pairs to (row, position), sorted by position; items outside the catalogue are dropped."""
        positions = self.place[items]
        inside = positions >= 0
        # sorting numbers is ten times as fast as sorting their indices
        pairs = positions[inside] << 32 | rows[inside]
        pairs.sort()
        return pairs & LOW_HALF, pairs >> 32


def _norms(vectors: NDArray[np.float32], what: str) -> NDArray[np.float32]:
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    bad = int((~(norms <= LARGEST)).sum())
    if bad:
        raise DataError(f"{what} are not finite or too long", got=f"{bad} of {len(vectors)}", hint=REFIT)
    return np.asarray(norms, dtype=np.float32)


def _entries(matrix: sparse.csr_matrix, rows: slice) -> tuple[NDArray[Any], NDArray[Any]]:
    edges = matrix.indptr[rows.start : rows.stop + 1]
    return np.repeat(np.arange(len(edges) - 1), np.diff(edges)), matrix.indices[edges[0] : edges[-1]]
