"""`discover`: what the customer takes for the first time."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from features.interactions import Interactions, TrainingSet
from models.recommend.base import Recommender
from qianmian.settings import RecommendSettings
from training.tasks.base import Examples, Task, make, taken


def candidates(settings: RecommendSettings, seed: int) -> Mapping[str, Recommender]:
    """A ranker that has learnt from first purchases only; collaborative filtering; popularity."""
    return {
        "ranker": make("two_stage", settings, seed, target="new"),
        "spectral": make("spectral", settings, seed),
        "ials": make("ials", settings, seed),
        "popular": make("popular", settings, seed),
    }


def examples(train: TrainingSet, after: Interactions, seed: int) -> Examples:
    """Customers with a history who take something they never had; right is what they take for the first time."""
    had = taken(train.interactions.users, train.interactions.items, after.shape)
    truth = taken(after.users, after.items, after.shape)
    new = (truth - truth.multiply(had)).tocsr()
    new.eliminate_zeros()
    new.sort_indices()
    users = np.flatnonzero((np.diff(had.indptr) > 0) & (np.diff(new.indptr) > 0))
    return Examples(train, users, new[users], exclude_purchased=True)


TASK = Task(
    "discover",
    "what will this customer take for the first time; right is what they never had before",
    candidates,
    examples,
    filled_by=("cold customers", "popular"),
    tunes=("spectral", "ials"),
)
