"""Which place of a list belongs to which kind of item, spread evenly."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

NO_CLASS = -1


def interleave(counts: NDArray[np.integer[Any]], width: int) -> NDArray[np.int64]:
    """Give each place of each list to a class, so that each class gets its count and every beginning of the list its share.

    Smooth weighted round robin: each place adds every class's count to its credit, the class with the most credit takes the place (the
    first of equals) and pays the length of the list.

    Parameters
    ----------
    counts : int array, (n, classes)
        Places of each class; a list is as long as their sum.
    width : int
        ≥ the longest list.

    Returns
    -------
    ndarray of int64, (n, width)
        The class of each place, −1 past the end of a list.

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
    """How many places of that class come before each place, (n, width): the place's number within its class where it is of it.

    Examples
    --------
    >>> rank_within_class(np.array([[0, 1, 0, 0]]), 0).tolist()
    [[0, 1, 1, 2]]
    """
    mine = classes == one
    return np.asarray(np.cumsum(mine, axis=1) - mine, dtype=np.int64)
