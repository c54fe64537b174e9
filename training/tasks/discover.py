"""`discover`: items a customer interacts with for the first time."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from features.interactions import Interactions, TrainingSet
from models.recommend.base import Recommender
from qianmian.model_settings import RecommendSettings
from training.evaluation.split import EvaluationSplit, first_interactions, interaction_matrix
from training.tasks.base import Task, base_models, make_ranker, make_recommender


def candidates(settings: RecommendSettings, seed: int) -> Mapping[str, Recommender]:
    """Candidates: a two-stage ranker trained on first interactions; all base models; own events; popularity."""
    return {
        "ranker": make_ranker(settings, seed, "new"),
        **base_models(settings, seed),
        "own events": make_recommender("own_events", settings, seed),
        "popular": make_recommender("popular", settings, seed),
    }


def examples(train: TrainingSet, holdout: Interactions, seed: int) -> EvaluationSplit:
    """Customers with a history and a held-out first interaction; relevant are the items that are new to them."""
    interacted = interaction_matrix(train.interactions.users, train.interactions.items, holdout.shape)
    truth = interaction_matrix(holdout.users, holdout.items, holdout.shape)
    new = first_interactions(truth, interacted)
    users = np.flatnonzero((np.diff(interacted.indptr) > 0) & (np.diff(new.indptr) > 0))
    return EvaluationSplit(train, users, new[users], exclude_purchased=True)


TASK = Task(
    "discover",
    "which new items a customer will choose; relevant are the items without an earlier interaction of the customer",
    candidates,
    examples,
    fallbacks=("cold customers", "popular"),
    tuned_models=("spectral", "ials"),
)
