"""`cold customers`: customers without history, of whom only attributes are known. The history of some is hidden."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from features.interactions import Interactions, TrainingSet
from models.recommend.base import Recommender
from models.recommend.hybrid import user_attributes
from qianmian.model_settings import RecommendSettings
from training.evaluation.split import EvaluationSplit, interaction_matrix
from training.tasks.base import MIN_EXAMPLES, Task, make_recommender

HIDDEN_SHARE = 0.3  # of the customers with attributes


def candidates(settings: RecommendSettings, seed: int) -> Mapping[str, Recommender]:
    """Candidates: the LightFM hybrid; popularity among customers with the same attributes; popularity."""
    return {
        "hybrid": make_recommender("hybrid", settings, seed),
        "popular by segment": make_recommender("popular_by_segment", settings, seed),
        "popular": make_recommender("popular", settings, seed),
    }


def examples(train: TrainingSet, holdout: Interactions, seed: int) -> EvaluationSplit:
    """A sample of the customers with attributes and held-out interactions; models are fitted without their history."""
    truth = interaction_matrix(holdout.users, holdout.items, holdout.shape)
    _, attributes = user_attributes(train)
    data = train.interactions
    known = np.bincount(data.users, minlength=train.n_users) > 0
    testable = np.flatnonzero(known & (np.diff(truth.indptr) > 0) & (np.diff(attributes.indptr) > 0))
    shuffled = np.random.default_rng(seed).permutation(testable)
    users = np.sort(shuffled[: max(MIN_EXAMPLES, int(HIDDEN_SHARE * len(testable)))])
    return EvaluationSplit(train.with_interactions(data.where(~np.isin(data.users, users))), users, truth[users])


TASK = Task(
    "cold customers",
    "which items a customer without history will choose; relevant are all items of the test period",
    candidates,
    examples,
    reads_profiles=True,
    tuned_models=("popular_by_segment", "hybrid"),
)
