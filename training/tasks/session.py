"""`session`: the first part of a visit is given, and what the customer meets in the rest of it is predicted."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy import sparse

from features.interaction_types import ANY, EVENT_WEIGHTS, INTERACTION_TYPES, type_names
from features.interactions import Interactions, TrainingSet
from models.recommend.base import Recommender
from models.recommend.session.examples import visit_examples
from models.recommend.session.trails import Trails, has_visits
from qianmian.model_settings import RecommendSettings
from training.evaluation.split import EvaluationSplit
from training.tasks.base import Task, make_recommender


def candidates(settings: RecommendSettings, seed: int) -> Mapping[str, Recommender]:
    """Candidates: the session model; transitions; own events; popularity; item k-NN over visits.

    The last one refuses data without visits, so that the scene is left out there.
    """
    return {
        "session": make_recommender("session", settings, seed),
        "transitions": make_recommender("session_transitions", settings, seed),
        "own events": make_recommender("own_events", settings, seed),
        "popular": make_recommender("popular", settings, seed),
        "session item k-NN": make_recommender("session_knn", settings, seed, orders_are_visits=False),
    }


def examples(train: TrainingSet, holdout: Interactions, seed: int) -> EvaluationSplit:
    """The last visit of each customer in the days before the period, divided at a random moment.

    Relevant are the items of the rest of the visit, of any type of interaction. The item that the customer looks at is
    in no list. The days before the period are used, because `holdout` has interactions of the target only. Models are
    fitted on what was before these days. What the customer did in them until the moment is recent; for simplicity every
    moment is in the middle of these days.
    """
    nothing = sparse.csr_matrix((0, train.n_items), dtype=np.float32)
    if not has_visits(train):
        return EvaluationSplit(train, np.empty(0, np.int64), nothing)
    found = next(visit_examples(Trails.of_training(train), np.random.default_rng(seed)), None)
    if found is None:
        return EvaluationSplit(train, np.empty(0, np.int64), nothing)
    kept = np.flatnonzero(np.diff(found.truth.indptr) > 0)
    recent, of_any = found.since_cutoff(), train.target == ANY
    of_target = np.isin(recent.kinds, [INTERACTION_TYPES.index(name) for name in type_names(train.target)])
    split = EvaluationSplit(
        train.with_earlier_cutoff(found.days),
        found.users,
        found.truth,
        exclude=None if found.current is None else list(found.current[:, None]),
        recent_interactions=_interactions(recent.where(of_target), typed=of_any, weighted=of_any),
        recent_auxiliary=None if of_any else _interactions(recent.where(~of_target), typed=True),
        elapsed_days=found.days / 2,
    )
    return split.take(kept)


def _interactions(trails: Trails, *, typed: bool, weighted: bool = False) -> Interactions:
    """Entries of trails as interactions; those of the target `any` have the weights of their types."""
    weights = np.array([EVENT_WEIGHTS[name] for name in INTERACTION_TYPES])[trails.kinds]
    if not weighted:
        weights = np.ones(len(trails))
    made = Interactions(
        trails.rows.astype(np.int32),
        trails.items.astype(np.int32),
        trails.ages.astype(np.float32),
        weights.astype(np.float32),
        trails.shape,
        trails.visits().astype(np.int32),
        types=trails.kinds if typed else None,
    )
    return made.where(np.lexsort((made.age_days, made.items, made.users)))


TASK = Task(
    "session",
    "what a customer meets next in a visit of which the first part is given; relevant are the items of the rest",
    candidates,
    examples,
    baselines=("own events", "popular"),
    fallbacks=("popular",),
)
