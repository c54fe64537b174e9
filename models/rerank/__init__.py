"""Re-ranking of lists: limits per group, diversity, promotions by share, exploration with known propensities.

`rerank` applies them; each is a pure function in its own module. All functions process n lists at a time, and a single
request has n = 1, so batch and online results are equal.
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
