"""Controls over ranked lists: limits a group, diversity, promotions by share, exploration with known propensities.

`arrange` applies them; each is a pure function of its own file. All take n lists at a time: one customer is n = 1, so a batch and a
single answer are the same.
"""

from __future__ import annotations

from models.rerank.diversity import Cap, PathSimilarity, Similarity, VectorSimilarity, item_vectors, select
from models.rerank.exploration import Exploration, Explored, explore
from models.rerank.rerank import Arranged, Ask, Controls, Promotion, arrange, quotas
from models.rerank.slots import order_within, spread

__all__ = [
    "Arranged",
    "Ask",
    "Cap",
    "Controls",
    "Exploration",
    "Explored",
    "PathSimilarity",
    "Promotion",
    "Similarity",
    "VectorSimilarity",
    "arrange",
    "explore",
    "item_vectors",
    "order_within",
    "quotas",
    "select",
    "spread",
]
