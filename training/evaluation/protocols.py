"""Split protocols: training data, customers to evaluate, and relevant items.

Training data never contains held-out interactions. Profile features are left out of every split, because they may have
been computed after the cutoff. Item attributes have no date and are kept; a source must not put values into them that
depend on later interactions, such as a median price.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.interactions import Interactions, TrainingSet
from qianmian.errors import DataError, UsageError
from training.evaluation.split import EvaluationSplit, interaction_matrix, interactions_of_users

RowIndices = NDArray[np.int64]
# what a split without a global cutoff leaves out, because it may tell of held-out interactions
UNKNOWN: dict[str, Any] = {"user_features": None, "returned": None, "auxiliary": None}
Pairs = tuple[NDArray[Any], NDArray[Any]]


def time_split(
    data: TrainingSet, horizon_days: float, *, end_offset_days: float = 0.0, min_item_customers: int = 1
) -> EvaluationSplit:
    """Split at a global cutoff: training data before it, relevant items in the horizon after it (Ji et al. 2023).

    The cutoff is `end_offset_days` + `horizon_days` before the `as_of` of the data; an interaction at the cutoff
    belongs to the test period. Evaluated are the customers with a history who interact with a known item in the test
    period. Items are ordered by their popularity before the cutoff, so that ties are not broken by later interactions.

    Parameters
    ----------
    data : TrainingSet
    horizon_days : float
        Length of the test period.
    end_offset_days : float
        Days from the end of the test period to `as_of`; `horizon_days` gives the period before the last one, for
        validation.
    min_item_customers : int
        Items with fewer customers before the cutoff are left out.

    Raises
    ------
    DataError
        If the data has no timestamps, or no customer can be evaluated.
    UsageError
        If `horizon_days` is not positive or `end_offset_days` is negative.

    Examples
    --------
    >>> data = TrainingSet.from_arrays([0, 0, 0], [5, 3, 5], n_users=1, n_items=9, age_days=[40.0, 35.0, 2.0])
    >>> split = time_split(data, 28)
    >>> split.source_items.tolist(), split.train.interactions.age_days.tolist(), split.truth.toarray().tolist()
    ([3, 5], [7.0, 12.0], [[0.0, 1.0]])
    """
    train, holdout = _split_at_cutoff(data, horizon_days, end_offset_days)
    train, items = sort_items_by_popularity(train, min_item_customers)
    place = np.full(data.n_items, -1, dtype=np.int64)
    place[items] = np.arange(len(items))
    known = place[holdout.items] >= 0
    return _make_split(train, holdout.users[known], place[holdout.items[known]], items)


def last_basket_split(data: TrainingSet, *, skip_last: int = 0) -> EvaluationSplit:
    """Leave-last-basket-out split: the last basket of each customer is test data (Li et al. 2023; Hu et al. 2020).

    There is no global cutoff: training data of one customer may be later than the last basket of another, which Ji et
    al. (2023) call a leak. It is the published protocol. Ages still count back from the `as_of` of the data.

    Parameters
    ----------
    data : TrainingSet
    skip_last : int
        Number of last baskets that are removed first; 1 makes the second-to-last basket the test data, for validation.

    Raises
    ------
    DataError
        If the data has no order ids, or no customer has two baskets.

    Examples
    --------
    >>> data = TrainingSet.from_arrays([0, 0, 0], [2, 1, 2], n_users=1, n_items=3, orders=[1, 1, 2])
    >>> split = last_basket_split(data)
    >>> split.train.interactions.items.tolist(), split.truth.indices.tolist()
    ([1, 2], [2])
    """
    rows = data.interactions
    if rows.orders is None:
        raise DataError("the data has no order ids, so baskets are unknown", where=data.source, hint="map `order_id`")
    from_end = _baskets_from_end(rows.users, rows.orders)
    train = replace(data, interactions=rows.where(from_end > skip_last), **UNKNOWN)
    last = rows.where(from_end == skip_last)
    return _make_split(train, last.users, last.items, np.arange(data.n_items))


def lightgcn_split(
    train: Pairs, test: Pairs, *, n_users: int | None = None, n_items: int | None = None
) -> EvaluationSplit:
    """Split given as training and test pairs; training items of a user are excluded from the user's ranking.

    Source: Wang et al. 2019; He et al. 2020 (LightGCN). Their metrics are `recall_of_taken` and `ndcg` of
    `training.evaluation.metrics`.

    Parameters
    ----------
    train, test : tuple of two int arrays
        Users and items of the pairs.
    n_users, n_items : int, optional
        Default: the largest index + 1.

    Examples
    --------
    >>> split = lightgcn_split((np.array([0, 1]), np.array([0, 1])), (np.array([0]), np.array([1])))
    >>> split.users.tolist(), split.exclude_purchased, split.train.n_users
    ([0], True, 2)
    """
    users, items = (int(max(a.max(initial=-1), b.max(initial=-1))) + 1 for a, b in zip(train, test, strict=True))
    data = TrainingSet.from_arrays(*train, n_users=n_users or users, n_items=n_items or items)
    return replace(_make_split(data, *test, np.arange(data.n_items), known=False), exclude_purchased=True)


def hold_out(data: TrainingSet, *, share: float = 0.1, seed: int = 0) -> tuple[TrainingSet, Interactions]:
    """Hold out a random share of each customer's items: at least one of a customer with two or more, and never all.

    Returns
    -------
    TrainingSet
        The remaining data, without profile features.
    Interactions
        The held-out interactions.

    Examples
    --------
    >>> data = TrainingSet.from_arrays(np.repeat(0, 10), np.arange(10), n_users=1, n_items=10)
    >>> train, held = hold_out(data, share=0.2)
    >>> len(train.interactions.items), len(held.items)
    (8, 2)
    """
    rows = data.interactions
    held = _held_out(rows, share, seed)
    return replace(data, interactions=rows.where(~held), **UNKNOWN), rows.where(held)


def user_folds(
    data: TrainingSet, *, folds: int = 5, holdout_share: float = 0.2, seed: int = 0
) -> Iterator[EvaluationSplit]:
    """Strong generalisation with k-fold cross-validation over users (Marlin 2004; Liang et al. 2018, Mult-VAE).

    Customers are split at random into `folds` folds. The customers of one fold are left out of the training data; a
    random share of their items, at least one, is relevant, and the other items are their `recent_interactions`, passed
    to the fitted model. A customer with one item is never evaluated and is training data of the other folds.

    Parameters
    ----------
    data : TrainingSet
    folds : int
        From 2 to the number of customers.
    holdout_share : float
        Share of each evaluated customer's items that is relevant.
    seed : int

    Yields
    ------
    EvaluationSplit
        One split per fold.

    Raises
    ------
    UsageError
        If `folds` is out of range.

    Examples
    --------
    >>> data = TrainingSet.from_arrays(np.repeat([0, 1], 5), np.tile(np.arange(5), 2), n_users=2, n_items=5)
    >>> splits = list(user_folds(data, folds=2))
    >>> [(split.users.tolist(), len(split.recent_interactions.items), split.truth.nnz) for split in splits]
    [([0], 4, 1), ([1], 4, 1)]
    """
    rows = data.interactions
    customers = np.flatnonzero(np.bincount(rows.users, minlength=data.n_users))
    if not 2 <= folds <= len(customers):
        raise UsageError(
            "the number of folds is out of range", got=folds, allowed=f"2 to {len(customers)}, the number of customers"
        )
    fold_of = np.full(data.n_users, -1, dtype=np.int64)
    fold_of[np.random.default_rng(seed).permutation(customers)] = np.arange(len(customers)) % folds
    held = _held_out(rows, holdout_share, seed + 1)
    for fold in range(folds):
        inside = fold_of[rows.users] == fold
        train = replace(data, interactions=rows.where(~inside), **UNKNOWN)
        evaluated = _make_split(
            train, rows.users[inside & held], rows.items[inside & held], np.arange(data.n_items), known=False
        )
        recent = interactions_of_users(rows.where(inside & ~held), evaluated.users)
        yield replace(evaluated, recent_interactions=recent, exclude_purchased=True)


def sort_items_by_popularity(train: TrainingSet, min_item_customers: int = 1) -> tuple[TrainingSet, RowIndices]:
    """Reorder items by popularity (customers, then interactions, then index) and drop those of too few customers.

    Parameters
    ----------
    train : TrainingSet
    min_item_customers : int
        Items with fewer customers are dropped.

    Returns
    -------
    TrainingSet
    ndarray of int64, shape (n_items,)
        Former index of each item.

    Raises
    ------
    DataError
        If no item has that many customers.
    """
    lines = np.bincount(train.interactions.items, minlength=train.n_items)
    order = np.lexsort((np.arange(train.n_items), -lines, -train.item_customers))
    items = order[train.item_customers[order] >= min_item_customers]
    if not len(items):
        raise DataError(
            "no item has enough customers before the cutoff",
            allowed=f"at least {min_item_customers} customers",
            where=train.source,
        )
    place = np.full(train.n_items, -1, dtype=np.int32)
    place[items] = np.arange(len(items), dtype=np.int32)
    rows = train.interactions.where(place[train.interactions.items] >= 0)
    rows = replace(rows, items=place[rows.items], shape=(train.n_users, len(items)))
    rows = rows.where(np.lexsort((rows.weights, rows.age_days, rows.items, rows.users)))
    attributes = {name: values[items] for name, values in train.item_attributes.items()}

    def renumbered(given: Interactions | None) -> Interactions | None:
        if given is None:
            return None
        kept = given.where(place[given.items] >= 0)
        return replace(kept, items=place[kept.items], shape=rows.shape)

    return (
        replace(
            train,
            item_ids=train.item_ids[items],
            interactions=rows,
            item_attributes=attributes,
            returned=renumbered(train.returned),
            auxiliary=renumbered(train.auxiliary),
            promotions=None if train.promotions is None else train.promotions.renumbered(place, len(items)),
        ),
        items,
    )


def _split_at_cutoff(
    data: TrainingSet, horizon_days: float, end_offset_days: float
) -> tuple[TrainingSet, Interactions]:
    """Training data before the test period, and the interactions in it."""
    ages = data.interactions.age_days
    if not ages.any():
        raise DataError(
            "the data has no timestamps, so no period can be held out",
            where=data.source,
            hint="map `ts` in sources.yaml",
        )
    if horizon_days <= 0 or end_offset_days < 0:
        raise UsageError(
            "the test period must have a positive length and end at or before `as_of`",
            got=f"horizon_days {horizon_days}, end_offset_days {end_offset_days}",
            allowed="horizon_days > 0, end_offset_days ≥ 0",
        )
    days = end_offset_days + horizon_days
    return data.with_earlier_cutoff(days), data.interactions.where((ages <= days) & (ages > end_offset_days))


def _make_split(
    train: TrainingSet, users: NDArray[Any], items: NDArray[Any], source_items: RowIndices, *, known: bool = True
) -> EvaluationSplit:
    """The split of test pairs; with `known`, only customers with a history in `train` are evaluated."""
    truth = interaction_matrix(users, items, (train.n_users, train.n_items))
    able = np.diff(truth.indptr) > 0
    if known:
        able &= np.bincount(train.interactions.users, minlength=train.n_users) > 0
    evaluated = np.flatnonzero(able)
    if not len(evaluated):
        raise DataError(
            "no customer has both a history and held-out interactions",
            where=train.source,
            hint="ingest a longer history",
        )
    return EvaluationSplit(train, evaluated, truth[evaluated], source_items=source_items)


def _held_out(rows: Interactions, share: float, seed: int) -> NDArray[np.bool_]:
    """Boolean mask of the rows whose item is held out by `hold_out`, shape (m,)."""
    n_items = rows.shape[1]
    pairs, of = np.unique(rows.users.astype(np.int64) * n_items + rows.items, return_inverse=True)
    owners = pairs // n_items
    order = np.lexsort((np.random.default_rng(seed).random(len(pairs)), owners))
    counts = np.bincount(owners, minlength=rows.shape[0])
    place = np.empty(len(pairs), dtype=np.int64)
    place[order] = np.arange(len(pairs)) - (np.cumsum(counts) - counts)[owners[order]]
    wanted = np.clip(np.rint(share * counts).astype(np.int64), 1, np.maximum(counts - 1, 0))
    held: NDArray[np.bool_] = (place < wanted[owners])[of]
    return held


def _baskets_from_end(users: NDArray[np.int32], orders: NDArray[np.int32]) -> RowIndices:
    """Number of later baskets of the same customer for each row, shape (m,)."""
    keys = users.astype(np.int64) * (int(orders.max(initial=0)) + 1) + orders
    baskets, of = np.unique(keys, return_inverse=True)
    owners = baskets // (int(orders.max(initial=0)) + 1)
    ends = np.searchsorted(owners, owners, side="right") - 1
    later: RowIndices = (ends - np.arange(len(baskets)))[of]
    return later
