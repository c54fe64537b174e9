"""Protocols: what may be learnt, who is asked, and what was right. Nothing of an answer is ever in what is learnt from.

Profile features are left out of every split: they are of the day they were computed, which may lie after the cut. What is known of items
(`item_attributes`) has no date and stays, which is the source's business: an item's category is not a leak, a median price may be.
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
Pairs = tuple[NDArray[Any], NDArray[Any]]


def time_split(
    data: TrainingSet, horizon_days: float, *, end_offset_days: float = 0.0, min_item_customers: int = 1
) -> EvaluationSplit:
    """A global cut in time: everything before it is learnt from, what is taken in the horizon after it is right (Ji et al. 2023).

    The cut lies `end_offset_days` + `horizon_days` before the data's `as_of`. An interaction at the very cut belongs to the test window. Asked is
    who has a history and takes a known item. Items are put in the order of their popularity before the cut, so that no tie is broken by what
    came after it.

    Parameters
    ----------
    end_offset_days : float
        How long before `as_of` the test window ends; with `horizon_days` here, the window before the last one (for validation).
    min_item_customers : int
        Items that fewer customers had before the cut are left out.

    Raises
    ------
    DataError
        When the data has no time, or nobody can be asked.

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
    """Each customer's last basket is right, what they bought before is learnt from (Li et al. 2023; Hu et al. 2020).

    There is no common cut: what one customer did may be later than another's last basket (Ji et al. 2023 call it a leak; it is the
    published protocol). Ages still count back from the `as_of` of the data.

    Parameters
    ----------
    skip_last : int
        How many of the last baskets to leave out of everything first: 1 asks for the last but one, to choose on.

    Raises
    ------
    DataError
        When baskets are not known, or nobody has two.

    Examples
    --------
    >>> data = TrainingSet.from_arrays([0, 0, 0], [2, 1, 2], n_users=1, n_items=3, orders=[1, 1, 2])
    >>> split = last_basket_split(data)
    >>> split.train.interactions.items.tolist(), split.truth.indices.tolist()
    ([1, 2], [2])
    """
    rows = data.interactions
    if rows.orders is None:
        raise DataError(
            "which lines make a basket is not known, so none is the last", where=data.source, hint="map `order_id`"
        )
    from_end = _baskets_from_end(rows.users, rows.orders)
    train = replace(data, interactions=rows.where(from_end > skip_last), user_features=None)
    last = rows.where(from_end == skip_last)
    return _make_split(train, last.users, last.items, np.arange(data.n_items))


def lightgcn_split(
    train: Pairs, test: Pairs, *, n_users: int | None = None, n_items: int | None = None
) -> EvaluationSplit:
    """Given train and test pairs; all items are ranked but those the customer has in train (He et al. 2020, LightGCN; Wang et al. 2019).

    Report `recall_of_taken` and `ndcg` of `training.evaluation.metrics`, which are theirs.

    Parameters
    ----------
    train, test : two int arrays each
        Users and items.
    n_users, n_items : int, optional
        Default: one more than the largest index.

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
    """Without, and only, a random share of each customer's items: one at least of whoever has two, and never all.

    Examples
    --------
    >>> data = TrainingSet.from_arrays(np.repeat(0, 10), np.arange(10), n_users=1, n_items=10)
    >>> train, held = hold_out(data, share=0.2)
    >>> len(train.interactions.items), len(held.items)
    (8, 2)
    """
    rows = data.interactions
    held = _held_out(rows, share, seed)
    return replace(data, interactions=rows.where(~held), user_features=None), rows.where(held)


def user_folds(
    data: TrainingSet, *, folds: int = 5, holdout_share: float = 0.2, seed: int = 0
) -> Iterator[EvaluationSplit]:
    """Strong generalisation, k times: models never saw the customers they are asked about (Liang et al. 2018, Mult-VAE; Marlin 2004).

    Customers are dealt into `folds` parts. Of each part in turn everything is taken out of training; of each of its customers the share
    `holdout_share` of their items (at random, at least one) is right, and the rest is given after the fit, as `recent_interactions`. Who has one item only is in
    no question, and in training when it is another part's turn.

    Raises
    ------
    UsageError
        For fewer than two folds, or more than customers.

    Examples
    --------
    >>> data = TrainingSet.from_arrays(np.repeat([0, 1], 5), np.tile(np.arange(5), 2), n_users=2, n_items=5)
    >>> [(split.users.tolist(), len(split.recent_interactions.items), split.truth.nnz) for split in user_folds(data, folds=2)]
    [([0], 4, 1), ([1], 4, 1)]
    """
    rows = data.interactions
    people = np.flatnonzero(np.bincount(rows.users, minlength=data.n_users))
    if not 2 <= folds <= len(people):
        raise UsageError(
            "so many folds cannot be made", got=folds, allowed=f"2 to {len(people)}, the number of customers"
        )
    part = np.full(data.n_users, -1, dtype=np.int64)
    part[np.random.default_rng(seed).permutation(people)] = np.arange(len(people)) % folds
    held = _held_out(rows, holdout_share, seed + 1)
    for fold in range(folds):
        inside = part[rows.users] == fold
        train = replace(data, interactions=rows.where(~inside), user_features=None)
        evaluated = _make_split(
            train, rows.users[inside & held], rows.items[inside & held], np.arange(data.n_items), known=False
        )
        recent = interactions_of_users(rows.where(inside & ~held), evaluated.users)
        yield replace(evaluated, recent_interactions=recent, exclude_purchased=True)


def sort_items_by_popularity(train: TrainingSet, min_item_customers: int = 1) -> tuple[TrainingSet, RowIndices]:
    """The same with items in the order of their popularity (customers, then lines, then as given), those of too few customers left out.

    Returns
    -------
    TrainingSet
    ndarray of int64, (n_items,)
        Which item each was.

    Raises
    ------
    DataError
        When no item has that many customers.
    """
    lines = np.bincount(train.interactions.items, minlength=train.n_items)
    order = np.lexsort((np.arange(train.n_items), -lines, -train.item_customers))
    items = order[train.item_customers[order] >= min_item_customers]
    if not len(items):
        raise DataError(
            "no item was had by enough customers before the cut",
            allowed=f"at least {min_item_customers}",
            where=train.source,
        )
    place = np.full(train.n_items, -1, dtype=np.int32)
    place[items] = np.arange(len(items), dtype=np.int32)
    rows = train.interactions.where(place[train.interactions.items] >= 0)
    rows = replace(rows, items=place[rows.items], shape=(train.n_users, len(items)))
    rows = rows.where(np.lexsort((rows.weights, rows.age_days, rows.items, rows.users)))
    attributes = {name: values[items] for name, values in train.item_attributes.items()}
    return replace(train, item_ids=train.item_ids[items], interactions=rows, item_attributes=attributes), items


def _split_at_cutoff(
    data: TrainingSet, horizon_days: float, end_offset_days: float
) -> tuple[TrainingSet, Interactions]:
    """What was before the window, and what was in it."""
    ages = data.interactions.age_days
    if not ages.any():
        raise DataError(
            "the data has no time, so no period can be cut out of it",
            where=data.source,
            hint="map `ts` in sources.yaml",
        )
    if horizon_days <= 0 or end_offset_days < 0:
        raise UsageError(
            "a test window has a length and ends at or before `as_of`",
            got=(horizon_days, end_offset_days),
            allowed="> 0, ≥ 0",
        )
    days = end_offset_days + horizon_days
    return data.with_earlier_cutoff(days), data.interactions.where((ages <= days) & (ages > end_offset_days))


def _make_split(
    train: TrainingSet, users: NDArray[Any], items: NDArray[Any], source_items: RowIndices, *, known: bool = True
) -> EvaluationSplit:
    """Who of these pairs can be asked (with `known`: has a history in train), and what is right."""
    truth = interaction_matrix(users, items, (train.n_users, train.n_items))
    able = np.diff(truth.indptr) > 0
    if known:
        able &= np.bincount(train.interactions.users, minlength=train.n_users) > 0
    evaluated = np.flatnonzero(able)
    if not len(evaluated):
        raise DataError(
            "nobody has both something to be learnt from and something held out",
            where=train.source,
            hint="bring a longer history",
        )
    return EvaluationSplit(train, evaluated, truth[evaluated], source_items=source_items)


def _held_out(rows: Interactions, share: float, seed: int) -> NDArray[np.bool_]:
    """Which lines are of a held-out item of their customer: a random share of each customer's items, one of two at least, never all."""
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
    """For each line how many of its customer's baskets are later, (m,)."""
    keys = users.astype(np.int64) * (int(orders.max(initial=0)) + 1) + orders
    baskets, of = np.unique(keys, return_inverse=True)
    owners = baskets // (int(orders.max(initial=0)) + 1)
    ends = np.searchsorted(owners, owners, side="right") - 1
    later: RowIndices = (ends - np.arange(len(baskets)))[of]
    return later
