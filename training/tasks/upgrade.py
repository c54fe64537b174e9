"""`upgrade`: who takes, of a category they buy from, a dearer item for the first time: which one?"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from features.interactions import Interactions, TrainingSet
from models.recommend.base import Recommender
from models.recommend.upgrade.item_features import usual_items
from qianmian.settings import RecommendSettings
from training.evaluation.metrics import ranking_metrics
from training.evaluation.split import EvaluationSplit, first_interactions, interaction_matrix
from training.tasks.base import Task, make

DEARER = 1.1  # at least so many times the price of the usual item
LEAST_LINES = 2  # a category somebody buys from
LEAST_CANDIDATES = 2  # one alone needs no ranking


def candidates(settings: RecommendSettings, seed: int) -> Mapping[str, Recommender]:
    """Trade-ups, popularity, price, brand and size, weighed by what was taken; collaborative filtering; the most popular dearer ones."""
    return {
        "upgrade": make("upgrade", settings, seed),
        "ials": make("ials", settings, seed),
        "most popular dearer": make("popular", settings, seed),
        "most popular dearer, ever": make("popular", settings, seed, window_days=None),
    }


def examples(train: TrainingSet, after: Interactions, seed: int) -> EvaluationSplit:
    """One category, drawn, of every customer who takes there for the first time something dearer than what they usually buy there.

    Given is the usual item; candidates are all items of its category at least `DEARER` times its price that the customer never had.
    """
    names, leaf = np.unique(train.item_attributes["category"], return_inverse=True)
    leaf = np.where(names[leaf] != "", leaf, -1).astype(np.int64)
    price = train.item_attributes["price"].astype(np.float64)
    own = train.interactions.matrix()
    users, usual = usual_items(own, leaf)
    known = (price[usual] > 0) & (_lines(train.interactions, leaf, users, leaf[usual]) >= LEAST_LINES)
    users, usual = users[known], usual[known]
    items = np.flatnonzero((leaf >= 0) & (price > 0))
    items = items[np.argsort(leaf[items], kind="stable")]
    bounds = np.searchsorted(leaf[items], np.arange(len(names) + 1))
    # only sets in which something new was taken are made
    width = np.int64(len(names) + 1)
    had = interaction_matrix(train.interactions.users, train.interactions.items, after.shape)
    bought = interaction_matrix(after.users, after.items, after.shape)
    new = first_interactions(bought, had)
    buyers = np.repeat(np.arange(after.shape[0], dtype=np.int64), np.diff(new.indptr))
    some = np.isin(users * width + leaf[usual], buyers * width + leaf[new.indices])
    users, usual = users[some], usual[some]
    lengths = bounds[leaf[usual] + 1] - bounds[leaf[usual]]
    of = np.repeat(np.arange(len(users)), lengths)
    other = items[
        np.repeat(bounds[leaf[usual]] - np.cumsum(lengths) + lengths, lengths) + np.arange(int(lengths.sum()))
    ]
    n_items = np.int64(train.n_items)
    owned = np.repeat(np.arange(after.shape[0], dtype=np.int64), np.diff(had.indptr)) * n_items + had.indices
    kept = (price[other] >= DEARER * price[usual[of]] * (1.0 - 1e-9)) & ~np.isin(users[of] * n_items + other, owned)
    of, other = of[kept], other[kept]
    right = np.isin(users[of] * n_items + other, buyers * n_items + new.indices)
    asked = np.flatnonzero(
        (np.bincount(of, right, len(users)) > 0) & (np.bincount(of, minlength=len(users)) >= LEAST_CANDIDATES)
    )
    drawn = np.random.default_rng(seed).permutation(asked)
    _, first = np.unique(users[drawn], return_index=True)
    asked = drawn[first]
    row = np.full(len(users), -1, dtype=np.int64)
    row[asked] = np.arange(len(asked))
    mine = row[of] >= 0
    shape = (len(asked), train.n_items)
    offered = interaction_matrix(row[of[mine]], other[mine], shape)
    truth = interaction_matrix(row[of[mine & right]], other[mine & right], shape)
    return EvaluationSplit(train, users[asked], truth, context_items=list(usual[asked][:, None]), candidates=offered)


def extra(model: Recommender, examples: EvaluationSplit, after: Interactions) -> Mapping[str, NDArray[np.float64]]:
    """How many candidates there were, and what a drawn order of them gets."""
    assert examples.candidates is not None
    offered = examples.candidates
    n, number = len(examples), np.diff(offered.indptr)
    rows = np.repeat(np.arange(n), number)
    order = np.lexsort((np.random.default_rng(0).random(offered.nnz), rows))
    drawn = np.full((n, int(number.max(initial=1))), -1, dtype=np.int64)
    drawn[rows, np.arange(offered.nnz) - offered.indptr[rows]] = offered.indices[order]
    chance = ranking_metrics(drawn, examples.truth, TASK.k, ("ndcg", "mrr", "hit_rate"))
    return {
        "candidates": number.astype(np.float64),
        **{f"{name} of a drawn order": values for name, values in chance.items()},
    }


def _lines(
    data: Interactions, leaf: NDArray[np.int64], users: NDArray[np.int64], leaves: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Lines of each (user, category), (m,)."""
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
    f"given what a customer usually buys of a category: which item at least {DEARER} times as dear will they take first; right is what they took",
    candidates,
    examples,
    metric="mrr",
    tunes=("upgrade",),
    extra=extra,
)
