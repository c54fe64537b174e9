"""Weights of a blend, chosen on the lists that its components made for the validation examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from models.ranked import Ranked
from models.recommend.base import entry_positions
from models.recommend.ranking.candidates import list_ranks

MAX_COMPONENTS = 4  # each is fitted, stored and asked at every request
ROUNDS = 6  # of the forward selection; the weights are multiples of 1 / ROUNDS
RANK_OFFSETS = (5.0, 20.0, 60.0)
FOLDS = 2
SELECTION_DEPTH = 2  # weights are chosen on lists of so many times k items: the others hardly reach the first k
Ids = NDArray[np.int64]
Values = NDArray[np.float64]
Lists = Mapping[str, Ranked]


@dataclass(frozen=True)
class BlendWeights:
    """Components of a blend with their weights, and the rank offset (`models.recommend.blend`)."""

    weights: Mapping[str, float]
    rank_offset: float


@dataclass(frozen=True)
class Fusion:
    """Lists of several models for n examples, aligned by item, with the relevance of each item.

    Attributes
    ----------
    names : tuple of str
        The models.
    ids : ndarray of int64, (n, m)
        Union of the lists of each example; −1 past the end.
    ranks : ndarray of float32, (n, m, models)
        Rank of the item in the list of each model, from 1; infinite where the model does not list it.
    relevant : ndarray of bool, (n, m)
        Whether the item is relevant.
    ideal : ndarray of float64, (n,)
        DCG of the best list of k items.
    k : int
        Length of the evaluated lists.
    metric : {"ndcg", "mrr"}
        What the weights maximise; defined as in `training.evaluation.metrics`.
    """

    names: tuple[str, ...]
    ids: Ids
    ranks: NDArray[np.float32]
    relevant: NDArray[np.bool_]
    ideal: Values
    k: int
    metric: str

    @classmethod
    def of(cls, lists: Lists, truth: sparse.csr_matrix, k: int, metric: str = "ndcg") -> Fusion:
        """Align the lists of each model; items of equal score have the rank of the first of them, as in a blend."""
        names, n = tuple(lists), truth.shape[0]
        rows = np.concatenate([np.repeat(np.arange(n), found.ids.shape[1]) for found in lists.values()])
        items = np.concatenate([found.ids.astype(np.int64).ravel() for found in lists.values()])
        rank = np.concatenate([list_ranks(found.scores).ravel() for found in lists.values()])
        model = np.concatenate([np.full(found.ids.size, place) for place, found in enumerate(lists.values())])
        kept = items >= 0
        rows, items, rank, model = rows[kept], items[kept], rank[kept], model[kept]
        keys, of = np.unique(rows * np.int64(truth.shape[1]) + items, return_inverse=True)
        row, item = keys // truth.shape[1], keys % truth.shape[1]
        column = np.arange(len(keys)) - np.searchsorted(row, row)
        shape = n, int(column.max(initial=-1)) + 1
        ids = np.full(shape, -1, dtype=np.int64)
        ids[row, column] = item
        ranks = np.full((*shape, len(names)), np.inf, dtype=np.float32)
        ranks[row[of], column[of], model] = rank
        discounts = np.cumsum(1.0 / np.log2(np.arange(2, k + 2)))
        number = np.minimum(np.diff(truth.indptr), k)
        ideal = np.where(number > 0, discounts[np.maximum(number, 1) - 1], np.nan)
        ordered = truth.tocsr()
        ordered.sort_indices()
        return cls(names, ids, ranks, entry_positions(ordered, ids) >= 0, ideal, k, metric)

    def take(self, rows: NDArray[np.int64]) -> Fusion:
        """A subset of the examples."""
        columns = {name: getattr(self, name)[rows] for name in ("ids", "ranks", "relevant", "ideal")}
        return replace(self, **columns)

    def values(self, found: BlendWeights) -> Values:
        """The metric of the fused list of each example, (n,)."""
        places = [self.names.index(name) for name in found.weights]
        gains = np.array(list(found.weights.values()), dtype=np.float32) / (
            np.float32(found.rank_offset) + self.ranks[:, :, places]
        )
        return self._values(gains.sum(axis=2))

    def _values(self, scores: NDArray[np.float32]) -> Values:
        if not scores.shape[1]:
            return np.zeros(len(self.ids))
        k = min(self.k, scores.shape[1])
        ordered = self._penalties - scores
        top = np.argpartition(ordered, k - 1, axis=1)[:, :k]
        top = np.take_along_axis(top, np.argsort(np.take_along_axis(ordered, top, axis=1), axis=1), axis=1)
        hit = np.take_along_axis(self.relevant, top, axis=1)
        if self.metric == "mrr":
            return np.where(hit.any(axis=1), 1.0 / (hit.argmax(axis=1) + 1.0), 0.0)
        return (hit @ (1.0 / np.log2(np.arange(2, k + 2)))) / self.ideal

    @cached_property
    def _penalties(self) -> NDArray[np.float32]:
        """A small term that gives ties to the item with the lower index, which is the more popular one."""
        return np.where(self.ids >= 0, self.ids * np.float32(1e-12), np.inf).astype(np.float32)

    def shallow(self, depth: int) -> Fusion:
        """The first `depth` items of each list."""
        kept = (self.ranks <= depth).any(axis=2)
        width = int(kept.sum(axis=1).max(initial=0))
        place = np.argsort(~kept, axis=1, kind="stable")[:, :width]
        inside = np.take_along_axis(kept, place, axis=1)
        ranks = np.take_along_axis(self.ranks, place[:, :, None], axis=1)
        return replace(
            self,
            ids=np.where(inside, np.take_along_axis(self.ids, place, axis=1), -1),
            ranks=np.where(ranks <= depth, ranks, np.float32(np.inf)),
            relevant=inside & np.take_along_axis(self.relevant, place, axis=1),
        )

    def select(self) -> BlendWeights:
        """Weights by forward selection with replacement (Caruana et al. 2004).

        Each round adds the model that helps most; a model that is added again has more weight.
        """
        best, best_value = BlendWeights({self.names[0]: 1.0}, RANK_OFFSETS[0]), -1.0
        by_model = np.ascontiguousarray(np.moveaxis(self.ranks, 2, 0))
        for offset in RANK_OFFSETS:
            gains = np.float32(1.0) / (np.float32(offset) + by_model)
            counts, total = np.zeros(len(self.names), dtype=np.int64), np.zeros(self.ids.shape, dtype=np.float32)
            for _ in range(ROUNDS):
                allowed = list(range(len(self.names)))
                if np.count_nonzero(counts) >= MAX_COMPONENTS:
                    allowed = np.flatnonzero(counts).tolist()
                tried = {place: float(np.nanmean(self._values(total + gains[place]))) for place in allowed}
                place = max(tried, key=lambda one: tried[one])
                counts[place] += 1
                total += gains[place]
                if tried[place] > best_value:
                    shares = counts / counts.sum()
                    weights = {self.names[at]: float(shares[at]) for at in np.flatnonzero(counts)}
                    best, best_value = BlendWeights(weights, offset), tried[place]
        return best


def cross_fitted_weights(
    fused: Fusion, groups: Sequence[int] | Ids, seed: int
) -> tuple[BlendWeights, list[tuple[Ids, BlendWeights]]]:
    """The weights of a blend, and for each fold of the examples weights that were chosen on the other folds.

    Parameters
    ----------
    fused : Fusion
        Lists of each model for n examples.
    groups : sequence of int, (n,)
        Customer of each example; all examples of a customer are in the same fold.
    seed : int
        Seed of the folds.

    Returns
    -------
    BlendWeights
        Chosen on all examples.
    list of (ndarray of int64, BlendWeights)
        Rows of each fold, and the weights for them.
    """
    fused = fused.shallow(SELECTION_DEPTH * fused.k)
    customers, of = np.unique(np.asarray(groups), return_inverse=True)
    fold = (np.random.default_rng(seed).permutation(len(customers)) % FOLDS)[of]
    inside = [np.flatnonzero(fold == number) for number in range(FOLDS)]
    outside = [np.flatnonzero(fold != number) for number in range(FOLDS)]
    chosen = [(rows, fused.take(others).select()) for rows, others in zip(inside, outside, strict=True)]
    return fused.select(), chosen
