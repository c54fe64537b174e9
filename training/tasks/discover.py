"""`discover`: what the customer takes for the first time."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from features.interactions import Interactions, TrainingSet
from models.recommend.base import Recommender
from qianmian.settings import RecommendSettings
from training.evaluation.split import EvaluationSplit, first_interactions, interaction_matrix
from training.tasks.base import Task, make


def candidates(settings: RecommendSettings, seed: int) -> Mapping[str, Recommender]:
    """A ranker that has learnt from first purchases only; collaborative filtering; popularity."""
    return {
        "ranker": make("two_stage", settings, seed, target="new"),
        "spectral": make("spectral", settings, seed),
        "ials": make("ials", settings, seed),
        "popular": make("popular", settings, seed),
    }


def examples(train: TrainingSet, after: Interactions, seed: int) -> EvaluationSplit:
    """Customers with a history who take something they never had; right is what they take for the first time."""
    had = interaction_matrix(train.interactions.users, train.interactions.items, after.shape)
    truth = interaction_matrix(after.users, after.items, after.shape)
    new = first_interactions(truth, had)
    users = np.flatnonzero((np.diff(had.indptr) > 0) & (np.diff(new.indptr) > 0))
    return EvaluationSplit(train, users, new[users], exclude_purchased=True)


TASK = Task(
    "discover",
    "what will this customer take for the first time; right is what they never had before",
    candidates,
    examples,
    filled_by=("cold customers", "popular"),
    tunes=("spectral", "ials"),
)
