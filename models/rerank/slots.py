"""Assign the slots of a list to classes of items, spread evenly."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

NO_CLASS = -1


def interleave(counts: NDArray[np.integer[Any]], width: int) -> NDArray[np.int64]:
    """Assign each slot to a class such that every class gets its count and a proportional share of every list prefix.

    The method is smooth weighted round robin: at each slot, the credit of every class grows by its count; the class
    with the largest credit (the first of equals) gets the slot and pays the length of the list.

    Parameters
    ----------
    counts : int array, (n, classes)
        Number of slots of each class; the length of a list is their sum.
    width : int
        Width of the result, at least the length of the longest list.

    Returns
    -------
    ndarray of int64, (n, width)
        Class of each slot; −1 past the end of a list.

    Examples
    --------
    >>> interleave(np.array([[4, 2], [3, 0]]), 6).tolist()
    [[0, 1, 0, 0, 1, 0], [0, 0, 0, -1, -1, -1]]
    """
    counts = np.asarray(counts, dtype=np.int64)
    n = len(counts)
    length = counts.sum(axis=1)
    classes = np.full((n, width), NO_CLASS, dtype=np.int64)
    credit = np.zeros_like(counts)
    rows = np.arange(n)
    for place in range(int(length.max(initial=0))):
        credit += counts
        chosen = credit.argmax(axis=1)
        credit[rows, chosen] -= length
        classes[:, place] = np.where(place < length, chosen, NO_CLASS)
    return classes


def rank_within_class(classes: NDArray[np.int64], one: int) -> NDArray[np.int64]:
    """Count the slots of class `one` before each slot, (n, width): for a slot of the class, its rank within the class.

    Examples
    --------
    >>> rank_within_class(np.array([[0, 1, 0, 0]]), 0).tolist()
    [[0, 1, 1, 2]]
    """
    mine = classes == one
    return np.asarray(np.cumsum(mine, axis=1) - mine, dtype=np.int64)
