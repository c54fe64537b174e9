"""Exploration: some slots of a list are filled at random, and every item carries its propensity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.rerank.slots import interleave, rank_within_class

RANKED, EXPLORED = 0, 1


@dataclass(frozen=True)
class ExplorationPolicy:
    """Amount of exploration.

    Attributes
    ----------
    share : float
        Share of the slots that are explored, 0 to 1. A fraction of a slot is a slot with that probability.
    pool : int
        Number of next best items that explored items are drawn from uniformly.
    """

    share: float
    pool: int


@dataclass(frozen=True)
class ExplorationResult:
    """Candidates by slot, and their propensities.

    Attributes
    ----------
    order : ndarray of int64, (n, k)
        Candidate in each slot; −1 past the end.
    explored : ndarray of bool, (n, k)
        Whether the candidate was drawn at random.
    propensity : ndarray of float64, (n, k)
        Probability of this candidate in this slot.
    slate_propensity : ndarray of float64, (n, k)
        Probability of this candidate anywhere in the list.
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
    """Fill the slots of n lists: most with the best candidates in order, the explored ones at random.

    Of L slots, ``s = min(share · L, pool)`` are explored on average: ⌊s⌋, and one more with probability s − ⌊s⌋. With e
    explored slots, the best L − e candidates fill the other slots in order. The explored slots are filled by drawing
    without replacement from the next P = min(pool, remaining) candidates. Explored slots are spread evenly, at
    positions that depend only on e. Given e, the ranked candidate of a slot has probability 1, a candidate of the pool
    has probability 1 / P in an explored slot and e / P in the list. The propensities are the averages of these over the
    two values of e; they are exact, not estimates.

    Parameters
    ----------
    candidates : int array, (n,)
        Number of candidates of each list; candidate 0 is the best.
    slots : int array, (n,)
        Number of slots, ≤ k; a list with fewer candidates is shorter.
    k : int
        Width of the result.
    how : ExplorationPolicy
        Share of explored slots and size of the pool.
    draws : ndarray of float64, (n, 1 + pool)
        Independent uniform numbers on [0, 1), the only source of randomness.

    Examples
    --------
    >>> draws = np.array([[0.5, 0.9, 0.1, 0.3, 0.7]])
    >>> found = explore(np.array([6]), np.array([3]), 3, ExplorationPolicy(1 / 3, 4), draws)
    >>> found.order.tolist(), found.propensity.round(2).tolist(), found.slate_propensity.round(2).tolist()
    ([[0, 3, 1]], [[1.0, 0.25, 1.0]], [[1.0, 0.25, 1.0]])
    """
    length = np.minimum(candidates, slots).astype(np.int64)
    expected = np.minimum(how.share * length, how.pool)
    fewer = np.floor(expected + 1e-9).astype(np.int64)  # .7 · 10 is slightly less than 7 in floating point
    p_more = np.clip(expected - fewer, 0.0, 1.0)
    more = draws[:, 0] < p_more
    cases = []
    for explored_slots, weight in ((fewer, 1.0 - p_more), (np.minimum(fewer + 1, length), p_more)):
        classes = interleave(np.column_stack([length - explored_slots, explored_slots]), k)
        first = length - explored_slots  # the first candidate of the pool
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
