"""`similar`: which new item of a category a customer chooses, given the item of the category they bought last."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from features.interactions import Interactions, TrainingSet
from models.recommend.base import Recommender
from models.recommend.similar.model import SimilarRecommender, first_purchases
from qianmian.model_settings import RecommendSettings
from training.evaluation.metrics import ranking_metrics
from training.evaluation.split import EvaluationSplit
from training.tasks.base import Task, make_recommender, of_sampled_customers

MAX_EXAMPLES = 5_000
COLD = "given by its features only"  # query items without interactions; part of a metric name in MLflow
COLD_EXAMPLES = 1_000


def candidates(settings: RecommendSettings, seed: int) -> Mapping[str, Recommender]:
    """Candidates: the `similar` model; popularity in the category; iALS cosine in the category; popularity."""
    return {
        "similar": make_recommender("similar", settings, seed),
        "popular in the category": make_recommender("similar", settings, seed, uses=("popularity",), learn_days=None),
        "ials cosine in the category": make_recommender(
            "similar", settings, seed, uses=("behaviour",), behaviour="ials", learn_days=None
        ),
        "popular": make_recommender("popular", settings, seed),
    }


def examples(train: TrainingSet, holdout: Interactions, seed: int) -> EvaluationSplit:
    """One random category of every customer with a first purchase of an item in a category they had bought from.

    The category is compared to its last level. The query item is the one bought last of the category; relevant are the
    items of the category bought for the first time. Items without a category are left out.
    """
    rng = np.random.default_rng(seed)
    _, category = np.unique(train.item_attributes["category"], return_inverse=True)
    leaf = np.where(train.item_attributes["category"] != "", category, -1).astype(np.int32)
    before, later = of_sampled_customers(train.interactions, holdout, seed)
    users, items, last = first_purchases(train.with_interactions(before), later, leaf)
    known = leaf[items] >= 0
    users, items, last = users[known], items[known], last[known]
    questions, of = np.unique(users * (int(leaf.max(initial=0)) + 1) + leaf[items], return_inverse=True)
    owners = np.zeros(len(questions), dtype=np.int64)
    given = np.zeros(len(questions), dtype=np.int64)
    owners[of], given[of] = users, last
    shuffled = rng.permutation(len(questions))
    _, first = np.unique(owners[shuffled], return_index=True)
    selected = np.sort(rng.permutation(shuffled[first])[:MAX_EXAMPLES])
    row = np.full(len(questions), -1, dtype=np.int64)
    row[selected] = np.arange(len(selected))
    kept = row[of] >= 0
    truth = sparse.csr_matrix(
        (np.ones(int(kept.sum()), np.float32), (row[of][kept], items[kept])), shape=(len(selected), train.n_items)
    )
    truth.sort_indices()
    return EvaluationSplit(
        train,
        owners[selected],
        truth,
        context_items=[np.array([item]) for item in given[selected].tolist()],
        exclude_purchased=True,
    )


def extra_metrics(
    model: Recommender, examples: EvaluationSplit, holdout: Interactions
) -> Mapping[str, NDArray[np.float64]]:
    """Metrics of lists for a query item given by its attributes only; {} for models that cannot make them.

    Only the first `COLD_EXAMPLES` examples are evaluated; the others are NaN.
    """
    if not isinstance(model, SimilarRecommender) or not {"attributes", "popularity"} & set(model.uses):
        return {}
    n = len(examples)
    found = {f"{name}@{TASK.k}, {COLD}": np.full(n, np.nan) for name in ("recall", "ndcg", "mrr")}
    columns, interacted = examples.train.item_attributes, examples.train.interactions.matrix()
    compared = ["category", *model.item_features_.numbers, *model.item_features_.codes, *model.item_features_.tags]
    rows, ids = np.arange(min(n, COLD_EXAMPLES)), []
    for row in rows.tolist():
        item = int(examples.context_items[row][0]) if examples.context_items is not None else -1
        left = np.ones(examples.train.n_items, dtype=bool)
        user = examples.users[row]
        left[interacted.indices[interacted.indptr[user] : interacted.indptr[user + 1]]] = False
        query_item: dict[str, Any] = {name: columns[name][item].item() for name in compared}
        ids.append(model.similar_to(query_item, TASK.k, allowed=left).ids[0])
    if len(rows):
        for name, values in ranking_metrics(
            np.array(ids), examples.truth[rows], TASK.k, ("recall", "ndcg", "mrr")
        ).items():
            found[f"{name}@{TASK.k}, {COLD}"][rows] = values
    return found


TASK = Task(
    "similar",
    "which new item of a category a customer will choose, given the one bought last; relevant are the new items bought",
    candidates,
    examples,
    tuned_models=("similar",),
    extra_metrics=extra_metrics,
)
