"""`complement`: one half of an order is given, and the items of the other half are predicted."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from features.interactions import Interactions, TrainingSet
from models.recommend.base import Recommender
from models.recommend.baskets import Baskets
from qianmian.model_settings import RecommendSettings
from training.evaluation.metrics import ranking_metrics
from training.evaluation.split import EvaluationSplit, first_interactions
from training.tasks.base import Task, make_recommender

MIN_ITEMS = 3  # of an order: at least two given items and one hidden item
MAX_EXAMPLES = 5_000
NEW = "never had before"  # items new to the customer; part of a metric name in MLflow


def candidates(settings: RecommendSettings, seed: int) -> Mapping[str, Recommender]:
    """Candidates: item associations within orders; collaborative filtering; own purchase counts; popularity."""
    return {
        "complement": make_recommender("complement", settings, seed),
        "item k-NN": make_recommender("item_knn", settings, seed),
        "ials": make_recommender("ials", settings, seed),
        "repeat": make_recommender("repeat", settings, seed),
        "own purchase counts": make_recommender("repeat", settings, seed, half_life_days=None),
        "popular": make_recommender("popular", settings, seed),
    }


def examples(train: TrainingSet, holdout: Interactions, seed: int) -> EvaluationSplit:
    """One random order with at least `MIN_ITEMS` items of every customer with a history; half of it is hidden.

    One order per customer keeps the examples independent. The hidden items are chosen at random, because the sequence
    in which items were put into the basket is unknown; they are the smaller half.
    """
    rng = np.random.default_rng(seed)
    orders = Baskets.of(holdout)
    sizes = np.diff(orders.items.indptr)
    known = np.bincount(train.interactions.users, minlength=train.n_users) > 0
    selected = rng.permutation(np.flatnonzero((sizes >= MIN_ITEMS) & known[orders.users]))
    _, first = np.unique(orders.users[selected], return_index=True)
    selected = np.sort(rng.permutation(selected[first])[:MAX_EXAMPLES])
    selected_orders, n = orders.items[selected], len(selected)
    rows = np.repeat(np.arange(n), np.diff(selected_orders.indptr))
    order = np.lexsort((rng.random(selected_orders.nnz), rows))
    place = np.empty(selected_orders.nnz, dtype=np.int64)
    place[order] = np.arange(selected_orders.nnz) - selected_orders.indptr[rows]
    hidden = place < sizes[selected][rows] // 2
    truth = sparse.csr_matrix(
        (np.ones(int(hidden.sum()), np.float32), (rows[hidden], selected_orders.indices[hidden])),
        shape=(n, train.n_items),
    )
    truth.sort_indices()
    bounds = np.cumsum(np.bincount(rows[~hidden], minlength=n))[:-1] if n else np.empty(0, np.int64)
    given = np.split(selected_orders.indices[~hidden], bounds) if n else []
    return EvaluationSplit(train, orders.users[selected], truth, context_items=given, exclude=given)


def extra_metrics(
    model: Recommender, examples: EvaluationSplit, holdout: Interactions
) -> Mapping[str, NDArray[np.float64]]:
    """Metrics over items that are new to the customer, where habits do not help; NaN without such hidden items."""
    new = first_interactions(examples.truth, examples.history())
    ranked = model.recommend(
        examples.users, TASK.k, items=examples.context_items, exclude=examples.exclude, exclude_purchased=True
    )
    found = ranking_metrics(ranked.ids, new, TASK.k, ("recall", "ndcg", "mrr"))
    return {f"{name}@{TASK.k}, {NEW}": values for name, values in found.items()}


TASK = Task(
    "complement",
    "which items complete an order of which one half is given; relevant is the hidden half",
    candidates,
    examples,
    fallbacks=("popular",),
    tuned_models=("complement",),
    extra_metrics=extra_metrics,
)
