"""Controls over ranked lists: limits a group, diversity, promotions by share, exploration with known propensities.

`rerank` applies them; each is a pure function of its own file. All take n lists at a time: one customer is n = 1, so a batch and a
single answer are the same.
"""

from __future__ import annotations

from models.rerank.diversity import Cap, PathSimilarity, Similarity, VectorSimilarity, item_vectors, select
from models.rerank.exploration import ExplorationPolicy, ExplorationResult, explore
from models.rerank.slate import PromotedItems, RankFunction, RerankOptions, Slate, quotas, rerank
from models.rerank.slots import interleave, rank_within_class

__all__ = [
    "Cap",
    "ExplorationPolicy",
    "ExplorationResult",
    "PathSimilarity",
    "PromotedItems",
    "RankFunction",
    "RerankOptions",
    "Similarity",
    "Slate",
    "VectorSimilarity",
    "explore",
    "interleave",
    "item_vectors",
    "quotas",
    "rank_within_class",
    "rerank",
    "select",
]
