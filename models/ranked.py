"""`Ranked`: the result of every recommender."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.topk import NOT_A_CANDIDATE, top_k

__all__ = ["NOT_A_CANDIDATE", "Ranked", "top_k"]


@dataclass(frozen=True)
class Ranked:
    """Ranked items for n users.

    Attributes
    ----------
    ids : ndarray of int32, (n, k)
        Item indices, best first, −1 past the end of a list.
    scores : ndarray of float32, (n, k)
        Descending along a row; comparable within a row only. −inf past the end.
    valid : ndarray of int32, (n,)
        Number of items in each row.
    source : ndarray of int8, (n, k)
        Index into `sources` of the model that ranked the item. −1 past the end.
    sources : tuple of str
        Names of the models.
    """

    ids: NDArray[np.int32]
    scores: NDArray[np.float32]
    valid: NDArray[np.int32]
    source: NDArray[np.int8]
    sources: tuple[str, ...]

    @classmethod
    def of(
        cls,
        ids: NDArray[np.int32],
        scores: NDArray[np.float32],
        source: NDArray[np.int8],
        k: int,
        sources: tuple[str, ...],
    ) -> Ranked:
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

    def first(self, k: int) -> Ranked:
        """Return the first k items of every list, as views."""
        valid = np.minimum(self.valid, np.int32(k))
        return Ranked(self.ids[:, :k], self.scores[:, :k], valid, self.source[:, :k], self.sources)

    @classmethod
    def concatenate(cls, blocks: Sequence[Ranked]) -> Ranked:
        """Concatenate the lists of several blocks of users; k and `sources` must be the same in all blocks."""
        if len(blocks) == 1:
            return blocks[0]
        return cls(
            np.concatenate([block.ids for block in blocks]),
            np.concatenate([block.scores for block in blocks]),
            np.concatenate([block.valid for block in blocks]),
            np.concatenate([block.source for block in blocks]),
            blocks[0].sources,
        )
