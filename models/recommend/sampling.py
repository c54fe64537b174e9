"""Samples and blocks of whole customers, so that fits need the same memory for a shop of any size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from features.interactions import Interactions, TrainingSet

LEARNING_LINES = 2_000_000  # Complete Journey, 2,500 customers of a year, has 1.3 million


def learning_sample(train: TrainingSet, lines: int | None = None) -> TrainingSet:
    """Return the training set, or one with the interactions of sampled customers if it has more than `lines`.

    Customers and items keep their indices; a customer who is not sampled has no interactions. What is learnt about
    items (links, factors, weights of features) hardly changes with the number of customers once there are thousands;
    what is looked up for a customer needs all interactions. The sample is computed once (`TrainingSet.memoize`), so
    that the models that learn from it share its earlier cutoffs as well.

    Parameters
    ----------
    lines : int, optional
        Largest number of interactions of the sample, auxiliary ones included; `LEARNING_LINES` by default.

    Examples
    --------
    >>> users, items = np.repeat(np.arange(100), 3), np.tile(np.arange(3), 100)
    >>> train = TrainingSet.from_arrays(users, items, n_users=100, n_items=3)
    >>> sample = learning_sample(train, 30)
    >>> sample.n_users, len(sample.interactions.users), len(np.unique(sample.interactions.users))
    (100, 30, 10)
    >>> learning_sample(train, 300) is train
    True
    """
    most = LEARNING_LINES if lines is None else lines
    if len(train.interactions) + (0 if train.auxiliary is None else len(train.auxiliary)) <= most:
        return train
    return train.memoize(("learning sample", most), lambda: _sampled(train, most))


def customer_blocks(users: NDArray[np.int32], most: int) -> Iterator[NDArray[np.int64]]:
    """Divide interactions, sorted by user, into runs of whole users of about `most` interactions; gives their indices.

    Examples
    --------
    >>> [block.tolist() for block in customer_blocks(np.array([0, 0, 1, 2, 2, 2], np.int32), 3)]
    [[0, 1, 2], [3, 4, 5]]
    """
    start = 0
    while start < len(users):
        stop = min(start + most, len(users))
        # back to where the last user begins, or on to where a user with many interactions ends
        stop = stop if stop == len(users) else int(np.searchsorted(users, users[stop]))
        if stop <= start:
            stop = int(np.searchsorted(users, users[start], side="right"))
        yield np.arange(start, stop)
        start = stop


def _sampled(train: TrainingSet, lines: int) -> TrainingSet:
    data = train.interactions
    counts = np.bincount(data.users, minlength=train.n_users)
    if train.auxiliary is not None:
        counts += np.bincount(train.auxiliary.users, minlength=train.n_users)
    order = np.random.default_rng(0).permutation(train.n_users)
    kept = np.zeros(train.n_users, dtype=bool)
    kept[order[np.cumsum(counts[order]) <= lines]] = True
    if not counts[kept].any():  # one customer has more than `lines`
        kept[order[np.argmax(counts[order] > 0)]] = True

    def of_sampled(interactions: Interactions) -> Interactions:
        mask: NDArray[np.bool_] = kept[interactions.users]
        return interactions.where(mask)

    returned = None if train.returned is None else of_sampled(train.returned)
    auxiliary = None if train.auxiliary is None else of_sampled(train.auxiliary)
    return replace(train, interactions=of_sampled(data), returned=returned, auxiliary=auxiliary)
