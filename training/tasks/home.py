"""`home`: everything the customer takes in the window, bought before or not."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from features.interactions import Interactions, TrainingSet
from models.recommend.base import Recommender
from qianmian.settings import RecommendSettings
from training.evaluation.split import EvaluationSplit, interaction_matrix
from training.tasks.base import Task, make


def candidates(settings: RecommendSettings, seed: int) -> Mapping[str, Recommender]:
    """The ranker over all candidates; what it is fed by; what fits people who take nothing twice; the customer's own counts; popularity."""
    return {
        "ranker": make("two_stage", settings, seed, target="any"),
        "next_basket": make("next_basket", settings, seed),
        "repeat": make("repeat", settings, seed),
        "spectral": make("spectral", settings, seed),
        "ials": make("ials", settings, seed),
        "own purchase counts": make("repeat", settings, seed, half_life_days=None),
        "popular": make("popular", settings, seed, window_days=None),
    }


def examples(train: TrainingSet, after: Interactions, seed: int) -> EvaluationSplit:
    """Customers with a history who take something; right is all they take."""
    truth = interaction_matrix(after.users, after.items, after.shape)
    known = np.bincount(train.interactions.users, minlength=train.n_users) > 0
    users = np.flatnonzero(known & (np.diff(truth.indptr) > 0))
    return EvaluationSplit(train, users, truth[users])


TASK = Task(
    "home",
    "what will this customer take in the window, of everything; right is all they take",
    candidates,
    examples,
    filled_by=("cold customers", "popular"),
    tunes=("repeat", "two_stage"),
)
