"""Exploration: some places of a list are drawn at random, and every item says how probable it was there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.rerank.slots import interleave, rank_within_class

RANKED, EXPLORED = 0, 1


@dataclass(frozen=True)
class ExplorationPolicy:
    """How much is explored.

    Attributes
    ----------
    share : float
        Share of the places that are drawn, 0 to 1. A part of a place is one with that probability.
    pool : int
        How many of the next best items they are drawn from, each as probable as the other.
    """

    share: float
    pool: int


@dataclass(frozen=True)
class ExplorationResult:
    """What stands where, and how probable that was.

    Attributes
    ----------
    order : ndarray of int64, (n, k)
        Which candidate stands at each place, −1 past the end.
    explored : ndarray of bool, (n, k)
        It was drawn, not ranked there.
    propensity : ndarray of float64, (n, k)
        Probability of that candidate at that place.
    slate_propensity : ndarray of float64, (n, k)
        Probability of that candidate anywhere in the list.
    """

    order: NDArray[np.int64]
    explored: NDArray[np.bool_]
    propensity: NDArray[np.float64]
    slate_propensity: NDArray[np.float64]


def explore(
    candidates: NDArray[np.integer[Any]],
    slots: NDArray[np.integer[Any]],
    k: int,
    how: ExplorationPolicy,
    draws: NDArray[np.float64],
) -> ExplorationResult:
    """Fill the places of n lists: most with the best candidates in order, the others by lot.

    With L places, ``s = min(share · L, pool)`` of them are drawn: ⌊s⌋, and one more with probability s − ⌊s⌋. With e drawn places the best
    L − e candidates stand, in order, at the other places; the e are filled by drawing without replacement from the P = min(pool, what is
    left) candidates after those. Drawn places are spread evenly; where they are depends on e alone. So, given e, the candidate ranked for a
    place stands there with probability 1, one of the pool at a drawn place with 1 / P, and one of the pool is in the list with e / P; the
    propensities are these, averaged over the two values of e. They are exact, not estimates.

    Parameters
    ----------
    candidates : int array, (n,)
        How many candidates each list has; candidate 0 is the best.
    slots : int array, (n,)
        How many places, ≤ k; a list with fewer candidates is shorter.
    draws : ndarray of float64, (n, 1 + pool)
        Independent and uniform on [0, 1): all the chance there is.

    Examples
    --------
    >>> found = explore(np.array([6]), np.array([3]), 3, ExplorationPolicy(1 / 3, 4), np.array([[0.5, 0.9, 0.1, 0.3, 0.7]]))
    >>> found.order.tolist(), found.propensity.round(2).tolist(), found.slate_propensity.round(2).tolist()
    ([[0, 3, 1]], [[1.0, 0.25, 1.0]], [[1.0, 0.25, 1.0]])
    """
    length = np.minimum(candidates, slots).astype(np.int64)
    expected = np.minimum(how.share * length, how.pool)
    fewer = np.floor(expected + 1e-9).astype(np.int64)  # .7 · 10 is a little less than 7
    chance = np.clip(expected - fewer, 0.0, 1.0)
    more = draws[:, 0] < chance
    cases = []
    for explored_slots, weight in ((fewer, 1.0 - chance), (np.minimum(fewer + 1, length), chance)):
        classes = interleave(np.column_stack([length - explored_slots, explored_slots]), k)
        first = length - explored_slots  # of the pool
        pool = np.minimum(how.pool, candidates - first)
        cases.append((classes, first, pool, explored_slots, weight))

    classes = np.where(more[:, None], cases[1][0], cases[0][0])
    first, pool = (np.where(more, cases[1][i], cases[0][i]) for i in (1, 2))
    keys = np.where(np.arange(how.pool) < pool[:, None], draws[:, 1 : 1 + how.pool], np.inf)
    lots = np.argsort(keys, axis=1, kind="stable")
    explored = classes == EXPLORED
    turn = np.minimum(rank_within_class(classes, EXPLORED), how.pool - 1)
    order = np.where(
        explored, first[:, None] + np.take_along_axis(lots, turn, axis=1), rank_within_class(classes, RANKED)
    )
    order = np.where(classes < 0, -1, order)

    propensity, slate_propensity = np.zeros(order.shape), np.zeros(order.shape)
    for of_places, begins, size, explored_slots, weight in cases:
        one_of = np.maximum(size, 1)[:, None]
        in_pool = (order >= begins[:, None]) & (order < (begins + size)[:, None])
        ranked_here = (of_places == RANKED) & (rank_within_class(of_places, RANKED) == order)
        propensity += weight[:, None] * (ranked_here + ((of_places == EXPLORED) & in_pool) / one_of)
        slate_propensity += weight[:, None] * np.where(
            order < begins[:, None], 1.0, in_pool * explored_slots[:, None] / one_of
        )
    past = order < 0
    return ExplorationResult(order, explored, np.where(past, 0.0, propensity), np.where(past, 0.0, slate_propensity))
