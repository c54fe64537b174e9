"""`upgrade`: which dearer item of a category a customer chooses for the first time."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from features.interactions import Interactions, TrainingSet
from models.recommend.base import Recommender
from models.recommend.upgrade.item_attributes import usual_items
from qianmian.model_settings import RecommendSettings
from training.evaluation.metrics import ranking_metrics
from training.evaluation.split import EvaluationSplit, first_interactions, interaction_matrix
from training.tasks.base import Task, make_recommender, of_sampled_customers

MIN_PRICE_RATIO = 1.1  # minimum price relative to the usual item
MIN_LINES = 2  # minimum purchases of a customer in the category
MIN_CANDIDATES = 2  # a single candidate needs no ranking


def candidates(settings: RecommendSettings, seed: int) -> Mapping[str, Recommender]:
    """Candidates: the `upgrade` choice model; collaborative filtering; popularity among dearer items."""
    return {
        "upgrade": make_recommender("upgrade", settings, seed),
        "ials": make_recommender("ials", settings, seed),
        "most popular dearer": make_recommender("popular", settings, seed),
        "most popular dearer, ever": make_recommender("popular", settings, seed, window_days=None),
    }


def examples(train: TrainingSet, holdout: Interactions, seed: int) -> EvaluationSplit:
    """One random category of every customer who buys there an item dearer than the usual one for the first time.

    The query item is the usual item. Candidates are all items of its category that cost at least `MIN_PRICE_RATIO`
    times as much and that the customer has never bought.
    """
    names, leaf = np.unique(train.item_attributes["category"], return_inverse=True)
    leaf = np.where(names[leaf] != "", leaf, -1).astype(np.int64)
    price = train.item_attributes["price"].astype(np.float64)
    before, later = of_sampled_customers(train.interactions, holdout, seed)
    users, usual = usual_items(before.matrix(), leaf)
    known = (price[usual] > 0) & (_lines(before, leaf, users, leaf[usual]) >= MIN_LINES)
    users, usual = users[known], usual[known]
    items = np.flatnonzero((leaf >= 0) & (price > 0))
    items = items[np.argsort(leaf[items], kind="stable")]
    bounds = np.searchsorted(leaf[items], np.arange(len(names) + 1))
    # candidate sets are built only for (customer, category) pairs with a new item in the test period
    width = np.int64(len(names) + 1)
    interacted = interaction_matrix(before.users, before.items, holdout.shape)
    bought = interaction_matrix(later.users, later.items, holdout.shape)
    new = first_interactions(bought, interacted)
    buyers = np.repeat(np.arange(holdout.shape[0], dtype=np.int64), np.diff(new.indptr))
    some = np.isin(users * width + leaf[usual], buyers * width + leaf[new.indices])
    users, usual = users[some], usual[some]
    lengths = bounds[leaf[usual] + 1] - bounds[leaf[usual]]
    of = np.repeat(np.arange(len(users)), lengths)
    other = items[
        np.repeat(bounds[leaf[usual]] - np.cumsum(lengths) + lengths, lengths) + np.arange(int(lengths.sum()))
    ]
    n_items = np.int64(train.n_items)
    owned = (
        np.repeat(np.arange(holdout.shape[0], dtype=np.int64), np.diff(interacted.indptr)) * n_items
        + interacted.indices
    )
    kept = (price[other] >= MIN_PRICE_RATIO * price[usual[of]] * (1.0 - 1e-9)) & ~np.isin(
        users[of] * n_items + other, owned
    )
    of, other = of[kept], other[kept]
    right = np.isin(users[of] * n_items + other, buyers * n_items + new.indices)
    selected = np.flatnonzero(
        (np.bincount(of, right, len(users)) > 0) & (np.bincount(of, minlength=len(users)) >= MIN_CANDIDATES)
    )
    shuffled = np.random.default_rng(seed).permutation(selected)
    _, first = np.unique(users[shuffled], return_index=True)
    selected = shuffled[first]
    row = np.full(len(users), -1, dtype=np.int64)
    row[selected] = np.arange(len(selected))
    mine = row[of] >= 0
    shape = (len(selected), train.n_items)
    candidate_matrix = interaction_matrix(row[of[mine]], other[mine], shape)
    truth = interaction_matrix(row[of[mine & right]], other[mine & right], shape)
    return EvaluationSplit(
        train, users[selected], truth, context_items=list(usual[selected][:, None]), candidates=candidate_matrix
    )


def extra_metrics(
    model: Recommender, examples: EvaluationSplit, holdout: Interactions
) -> Mapping[str, NDArray[np.float64]]:
    """Number of candidates, and the metrics of a random order of them."""
    assert examples.candidates is not None
    candidate_matrix = examples.candidates
    n, number = len(examples), np.diff(candidate_matrix.indptr)
    rows = np.repeat(np.arange(n), number)
    order = np.lexsort((np.random.default_rng(0).random(candidate_matrix.nnz), rows))
    shuffled = np.full((n, int(number.max(initial=1))), -1, dtype=np.int64)
    shuffled[rows, np.arange(candidate_matrix.nnz) - candidate_matrix.indptr[rows]] = candidate_matrix.indices[order]
    chance = ranking_metrics(shuffled, examples.truth, TASK.k, ("ndcg", "mrr", "hit_rate"))
    return {
        "candidates": number.astype(np.float64),
        **{f"{name} of a drawn order": values for name, values in chance.items()},
    }


def _lines(
    data: Interactions, leaf: NDArray[np.int64], users: NDArray[np.int64], leaves: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Number of interactions of each (user, category) pair, shape (m,)."""
    width = np.int64(leaf.max(initial=0)) + 2
    keys, number = np.unique(data.users * width + leaf[data.items], return_counts=True)
    place = np.minimum(np.searchsorted(keys, users * width + leaves), max(len(keys) - 1, 0))
    return (
        np.where(keys[place] == users * width + leaves, number[place], 0)
        if len(keys)
        else np.zeros(len(users), np.int64)
    )


TASK = Task(
    "upgrade",
    f"which item that costs at least {MIN_PRICE_RATIO} times as much as the usual one of its category a customer will "
    "choose; relevant are the new items bought",
    candidates,
    examples,
    metric="mrr",
    tuned_models=("upgrade",),
    extra_metrics=extra_metrics,
)
