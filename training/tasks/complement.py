"""`complement`: one half of an order is given, what is in the other half? And of that, what the customer never had before?"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from features.interactions import Interactions, TrainingSet
from models.recommend.base import Recommender
from models.recommend.complement import Baskets
from qianmian.settings import RecommendSettings
from training.evaluation.metrics import ranking_metrics
from training.evaluation.split import EvaluationSplit, first_interactions
from training.tasks.base import Task, make

MIN_ITEMS = 3  # of an order: two of one and one of the other half
MOST_EXAMPLES = 5_000
NEW = "never had before"


def candidates(settings: RecommendSettings, seed: int) -> Mapping[str, Recommender]:
    """Links between items of one order and the customer's own orders; collaborative filtering; own counts; popularity."""
    return {
        "complement": make("complement", settings, seed),
        "item k-NN": make("item_knn", settings, seed),
        "ials": make("ials", settings, seed),
        "repeat": make("repeat", settings, seed),
        "own purchase counts": make("repeat", settings, seed, half_life_days=None),
        "popular": make("popular", settings, seed),
    }


def examples(train: TrainingSet, after: Interactions, seed: int) -> EvaluationSplit:
    """Of every customer with a history one order of `MIN_ITEMS` items or more, drawn; a drawn half of it is hidden (the smaller one).

    One order a customer, so that what is asked is independent; the order of items within a basket is not known, so the half is drawn.
    """
    rng = np.random.default_rng(seed)
    orders = Baskets.of(after)
    sizes = np.diff(orders.items.indptr)
    known = np.bincount(train.interactions.users, minlength=train.n_users) > 0
    asked = rng.permutation(np.flatnonzero((sizes >= MIN_ITEMS) & known[orders.users]))
    _, first = np.unique(orders.users[asked], return_index=True)
    asked = np.sort(rng.permutation(asked[first])[:MOST_EXAMPLES])
    drawn, n = orders.items[asked], len(asked)
    rows = np.repeat(np.arange(n), np.diff(drawn.indptr))
    order = np.lexsort((rng.random(drawn.nnz), rows))
    place = np.empty(drawn.nnz, dtype=np.int64)
    place[order] = np.arange(drawn.nnz) - drawn.indptr[rows]
    hidden = place < sizes[asked][rows] // 2
    truth = sparse.csr_matrix(
        (np.ones(int(hidden.sum()), np.float32), (rows[hidden], drawn.indices[hidden])), shape=(n, train.n_items)
    )
    truth.sort_indices()
    bounds = np.cumsum(np.bincount(rows[~hidden], minlength=n))[:-1] if n else np.empty(0, np.int64)
    given = np.split(drawn.indices[~hidden], bounds) if n else []
    return EvaluationSplit(train, orders.users[asked], truth, context_items=given, exclude=given)


def extra(model: Recommender, examples: EvaluationSplit, after: Interactions) -> Mapping[str, NDArray[np.float64]]:
    """The same asked of items the customer never had: habits do not help there. NaN for an order whose hidden half has none."""
    new = first_interactions(examples.truth, examples.history())
    ranked = model.recommend(
        examples.users, TASK.k, items=examples.context_items, exclude=examples.exclude, exclude_purchased=True
    )
    found = ranking_metrics(ranked.ids, new, TASK.k, ("recall", "ndcg", "mrr"))
    return {f"{name}@{TASK.k}, {NEW}": values for name, values in found.items()}


TASK = Task(
    "complement",
    "one half of an order is given: what is in the other half; right is the hidden half",
    candidates,
    examples,
    filled_by=("popular",),
    tunes=("complement",),
    extra=extra,
)
