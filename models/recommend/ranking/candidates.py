"""Candidates of the ranker: the union of the lists of several models, and the scores of each model as features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.ranked import NOT_A_CANDIDATE
from models.recommend.base import Indices, ItemFilter, Query, Recommender
from qianmian.interruption import checkpoint

# ids and scores of each stage, (n, ≤ width); scores are −inf past the end
StageLists = list[tuple[NDArray[np.int32], NDArray[np.float32]]]


@dataclass(frozen=True)
class Candidates:
    """Candidate items of n users.

    Attributes
    ----------
    ids : ndarray of int64, (n, m)
        Items, ascending and distinct; −1 past the end.
    source : ndarray of int8, (n, m)
        Stage of each item: a stage that ranks the user's own items if there is one, else the stage that ranks the item
        highest. −1 past the end.
    """

    ids: NDArray[np.int64]
    source: NDArray[np.int8]


def stage_lists(
    stages: Sequence[Recommender], widths: Sequence[int], query: Query, item_filter: ItemFilter
) -> StageLists:
    """Return the best `widths[s]` items of each stage s that pass the filter."""
    lists = []
    for model, width in zip(stages, widths, strict=True):
        checkpoint()
        lists.append(model._top_k(query, width, item_filter))
    return lists


def list_ranks(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the ranks from 1 of descending scores, (n, depth); items of equal score have the rank of the first.

    Examples
    --------
    >>> list_ranks(np.array([[3.0, 2.0, 2.0, 1.0]])).tolist()
    [[1.0, 2.0, 2.0, 4.0]]
    """
    place = np.tile(np.arange(scores.shape[1]), (len(scores), 1))
    known = np.where(np.isfinite(scores), scores, -1e30)
    falls = known[:, 1:] + 1e-5 * np.abs(known[:, 1:]) < known[:, :-1]  # scores that differ by rounding are equal
    place[:, 1:][~falls] = 0
    return np.maximum.accumulate(place, axis=1).astype(np.float32) + 1.0


def positions_in(listed: Indices, ids: Indices) -> NDArray[np.int64]:
    """Return the position of each id, (n, m), in the list of its row, (n, depth ≥ 1); −1 where the list lacks it.

    Examples
    --------
    >>> positions_in(np.array([[4, 7, -1]]), np.array([[7, 9, -1]])).tolist()
    [[1, -1, -1]]
    """
    width = int(max(listed.max(initial=-1), ids.max(initial=-1))) + 2
    offsets = np.arange(len(ids), dtype=np.int64)[:, None] * width + 1
    keys, wanted = (offsets + listed).ravel(), offsets + ids
    order = np.argsort(keys, kind="stable")
    at = order[np.minimum(np.searchsorted(keys, wanted, sorter=order), order.size - 1)]
    return np.where((keys[at] == wanted) & (ids >= 0), at % listed.shape[1], -1)


def merge_candidates(lists: StageLists, from_history: Sequence[bool]) -> Candidates:
    """Merge the lists of all stages into one set of candidates per user.

    Parameters
    ----------
    lists : list of (ids, scores)
        Lists of each stage.
    from_history : sequence of bool
        Whether each stage ranks only items that the user has bought.

    Examples
    --------
    >>> scores = np.zeros((1, 2), np.float32)
    >>> first, second = np.array([[4, 2]], np.int32), np.array([[2, 7]], np.int32)
    >>> both = merge_candidates([(first, scores), (second, scores)], [False, False])
    >>> both.ids.tolist(), both.source.tolist()
    ([[2, 4, 7]], [[1, 0, 1]])
    """
    ids = [np.where(np.isfinite(scores), found, -1).astype(np.int64) for found, scores in lists]
    n, stages = len(ids[0]), len(ids)
    # one key of row, item, place in the list and stage: the first key of an item is that of its source
    places = np.concatenate(
        [
            (0 if own else np.arange(1, found.shape[1] + 1)) * stages + np.full(found.shape[1], stage)
            for stage, (found, own) in enumerate(zip(ids, from_history, strict=True))
        ]
    )
    item = np.concatenate(ids, axis=1)
    items, span = int(item.max(initial=0)) + 1, int(places.max(initial=0)) + 1
    keys = ((np.arange(n)[:, None] * items + item) * span + places)[item >= 0]
    keys.sort()
    pairs = keys // span
    first = np.ones(len(keys), dtype=bool)
    np.not_equal(pairs[1:], pairs[:-1], out=first[1:])
    pairs, level = pairs[first], (keys[first] % span) % stages
    row = pairs // items
    item = pairs - row * items
    column = np.arange(len(row)) - np.searchsorted(row, row)
    width = int(column.max(initial=-1)) + 1
    answer, source = np.full((n, width), -1, dtype=np.int64), np.full((n, width), -1, dtype=np.int8)
    answer[row, column], source[row, column] = item, level
    return Candidates(answer, source)


def stage_features(
    stages: Sequence[Recommender], widths: Sequence[int], query: Query, ids: Indices, lists: StageLists
) -> NDArray[np.float32]:
    """Return the score and the rank of items by each stage, as features of the ranker.

    Parameters
    ----------
    ids : int array, (n, m)
        Items of each user.
    lists : list of (ids, scores)
        Lists of each stage without the filters of the call, so that filters do not change the features. The rank of an
        item is the number of list entries with a higher score.

    Returns
    -------
    ndarray of float32, (n, m, 2 × stages)
        The score is NaN for an item that is not a candidate of the stage.
    """
    columns = []
    for model, width, (_, best) in zip(stages, widths, lists, strict=True):
        scores = model._score_items(query, ids).astype(np.float32)
        is_candidate = scores > NOT_A_CANDIDATE
        known = np.where(is_candidate, scores, np.float32(0.0))
        above = known + np.float32(1e-5) * np.abs(known)  # scores of a search and a look-up may differ by rounding
        rank = np.zeros(ids.shape, dtype=np.float32)
        if len(ids) < best.shape[1]:  # few users, as in online requests: one step per user
            for row in range(len(ids)):
                rank[row] = np.searchsorted(-best[row], -above[row])
        else:  # one step per list position for all users at once avoids an (n, m, width) array
            for place in range(best.shape[1]):
                rank += best[:, place, None] > above
        columns += [np.where(is_candidate, scores, np.float32(np.nan)), np.where(is_candidate, rank, np.float32(width))]
    return np.stack(columns, axis=2)
