"""`home`: all items a customer interacts with in the test period, known or new to the customer."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from features.interactions import Interactions, TrainingSet
from models.recommend.base import Recommender
from qianmian.settings import RecommendSettings
from training.evaluation.split import EvaluationSplit, interaction_matrix
from training.tasks.base import Task, make_recommender


def candidates(settings: RecommendSettings, seed: int) -> Mapping[str, Recommender]:
    """Candidates: the two-stage ranker; repeat models; collaborative filtering; own purchase counts; popularity."""
    return {
        "ranker": make_recommender("two_stage", settings, seed, target="any"),
        "next_basket": make_recommender("next_basket", settings, seed),
        "repeat": make_recommender("repeat", settings, seed),
        "spectral": make_recommender("spectral", settings, seed),
        "ials": make_recommender("ials", settings, seed),
        "own purchase counts": make_recommender("repeat", settings, seed, half_life_days=None),
        "popular": make_recommender("popular", settings, seed, window_days=None),
    }


def examples(train: TrainingSet, holdout: Interactions, seed: int) -> EvaluationSplit:
    """Customers with a history and held-out interactions; relevant are all items of the test period."""
    truth = interaction_matrix(holdout.users, holdout.items, holdout.shape)
    users = np.flatnonzero(train.has_interactions & (np.diff(truth.indptr) > 0))
    return EvaluationSplit(train, users, truth[users])


TASK = Task(
    "home",
    "which items a customer will choose; relevant are all items of the test period",
    candidates,
    examples,
    fallbacks=("cold customers", "popular"),
    tuned_models=("repeat", "two_stage"),
)
