"""`cold items`: items without interactions, of which only attributes are known. The history of some items is hidden."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from features.interactions import Interactions, TrainingSet
from models.recommend.base import Recommender
from qianmian.model_settings import RecommendSettings
from training.evaluation.split import EvaluationSplit, first_interactions, interaction_matrix
from training.tasks.base import Task, make_recommender

HIDDEN_SHARE = 0.2  # of the items


def candidates(settings: RecommendSettings, seed: int) -> Mapping[str, Recommender]:
    """Candidates: the LightFM hybrid; category and brand affinity; category popularity; a random order."""
    return {
        "hybrid": make_recommender("hybrid", settings, seed),
        "affinity": make_recommender("affinity", settings, seed),
        "popular categories": make_recommender("affinity", settings, seed, prior_lines=1e9),
        "random": make_recommender("popular", settings, seed),
    }


def examples(train: TrainingSet, holdout: Interactions, seed: int) -> EvaluationSplit:
    """Customers who interact with a hidden item for the first time; only hidden items are candidates.

    Items are shuffled first, because their order is that of popularity, which must be unknown for hidden items.
    """
    rng = np.random.default_rng((seed, int(train.as_of.toordinal())))  # other items at another cutoff
    order = rng.permutation(train.n_items)
    place = np.empty(train.n_items, dtype=np.int32)
    place[order] = np.arange(train.n_items, dtype=np.int32)
    data = train.interactions
    interacted = interaction_matrix(data.users, place[data.items], data.shape)
    truth = interaction_matrix(holdout.users, place[holdout.items], holdout.shape)
    hidden = np.zeros(train.n_items, dtype=bool)
    hidden[rng.permutation(train.n_items)[: int(HIDDEN_SHARE * train.n_items)]] = True
    new = first_interactions(truth, interacted)
    new.data[~hidden[new.indices]] = 0.0
    new.eliminate_zeros()
    left = data.where(~hidden[place[data.items]])
    attributes = {name: values[order] for name, values in train.item_attributes.items()}
    shown = replace(
        train,
        item_ids=train.item_ids[order],
        item_attributes=attributes,
        interactions=replace(left, items=place[left.items]),
        returned=None,
        promotions=None if train.promotions is None else train.promotions.renumbered(place, train.n_items),
    )
    known = np.bincount(left.users, minlength=train.n_users) > 0
    users = np.flatnonzero(known & (np.diff(new.indptr) > 0))
    return EvaluationSplit(shown, users, new[users], allowed=hidden)


TASK = Task(
    "cold items",
    "which item without interactions a customer will choose; relevant are hidden items that are new to the customer",
    candidates,
    examples,
    # which items are hidden matters: LightFM had an NDCG@10 of .0126 and .0038 in two months of Complete Journey
    draws=3,
    tuned_models=("affinity",),
)
