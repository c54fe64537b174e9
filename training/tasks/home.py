"""`home`: all items a customer interacts with in the test period, known or new to the customer."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from features.interactions import Interactions, TrainingSet
from models.recommend.base import Recommender
from qianmian.model_settings import RecommendSettings
from training.evaluation.split import EvaluationSplit, interaction_matrix
from training.tasks.base import Task, base_models, make_ranker, make_recommender


def candidates(settings: RecommendSettings, seed: int) -> Mapping[str, Recommender]:
    """Candidates: the ranker; the session model for the next days; all base models; own purchases and events."""
    horizon_days = settings.models.get("two_stage", {}).get("horizon_days", 28.0)
    return {
        "ranker": make_ranker(settings, seed, "any"),
        "session": make_recommender("session", settings, seed, horizon_days=horizon_days, predicts="target"),
        **base_models(settings, seed),
        "repeat": make_recommender("repeat", settings, seed),
        "own events": make_recommender("own_events", settings, seed),
        "own purchase counts": make_recommender("repeat", settings, seed, half_life_days=None),
        "popular": make_recommender("popular", settings, seed, window_days=None),
    }


def examples(train: TrainingSet, holdout: Interactions, seed: int) -> EvaluationSplit:
    """Customers with a history and held-out interactions; relevant are all items of the test period.

    Undated interactions are held out at random, so that an item that is left in the history is never relevant; lists
    then leave out what the customer has.
    """
    truth = interaction_matrix(holdout.users, holdout.items, holdout.shape)
    users = np.flatnonzero(train.has_interactions & (np.diff(truth.indptr) > 0))
    is_dated = bool(train.interactions.age_days.any())
    return EvaluationSplit(train, users, truth[users], exclude_purchased=not is_dated)


TASK = Task(
    "home",
    "which items a customer will choose; relevant are all items of the test period",
    candidates,
    examples,
    baselines=("repeat", "own purchase counts"),
    fallbacks=("cold customers", "popular"),
    tuned_models=("repeat", "two_stage"),
)
