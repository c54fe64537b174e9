"""The union of what several stage-one models would show, and what each of them says of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.ranked import NOT_A_CANDIDATE
from models.recommend.base import Indices, ItemFilter, Query, Recommender

StageLists = list[
    tuple[NDArray[np.int32], NDArray[np.float32]]
]  # of each stage: ids and scores, (n, ≤ width), −inf past the end


@dataclass(frozen=True)
class Candidates:
    """What is ranked for each of n customers.

    Attributes
    ----------
    ids : ndarray of int64, (n, m)
        Items, rising, no item twice, −1 past the end.
    source : ndarray of int8, (n, m)
        Which stage put the item there: one of the customer's own history, else the one that ranks it highest. −1 past the end.
    """

    ids: NDArray[np.int64]
    source: NDArray[np.int8]


def stage_lists(
    stages: Sequence[Recommender], widths: Sequence[int], query: Query, item_filter: ItemFilter
) -> StageLists:
    """The best `widths[s]` items of each stage s that are not barred."""
    return [model._top_k(query, width, item_filter) for model, width in zip(stages, widths, strict=True)]


def merge_candidates(lists: StageLists, from_history: Sequence[bool]) -> Candidates:
    """Every item of any list, once; `from_history` says which stages rank the customer's own items only.

    Examples
    --------
    >>> scores = np.zeros((1, 2), np.float32)
    >>> both = merge_candidates([(np.array([[4, 2]], np.int32), scores), (np.array([[2, 7]], np.int32), scores)], [False, False])
    >>> both.ids.tolist(), both.source.tolist()
    ([[2, 4, 7]], [[1, 0, 1]])
    """
    ids = [np.where(np.isfinite(scores), found, -1).astype(np.int64) for found, scores in lists]
    n = len(ids[0])
    item = np.concatenate(ids, axis=1)
    level = np.concatenate([np.full(found.shape, stage) for stage, found in enumerate(ids)], axis=1).ravel()
    positions = [
        np.zeros(found.shape[1], np.int64) if own else np.arange(1, found.shape[1] + 1)
        for found, own in zip(ids, from_history, strict=True)
    ]
    rank = np.concatenate(
        [np.broadcast_to(place, found.shape) for place, found in zip(positions, ids, strict=True)], axis=1
    ).ravel()
    row, item = np.repeat(np.arange(n), item.shape[1]), item.ravel()
    kept = np.flatnonzero(item >= 0)
    order = kept[np.lexsort((level[kept], rank[kept], item[kept], row[kept]))]
    row, item, level = row[order], item[order], level[order]
    first = np.ones(len(order), dtype=bool)
    first[1:] = (np.diff(row) != 0) | (np.diff(item) != 0)
    row, item, level = row[first], item[first], level[first]
    column = np.arange(len(row)) - np.searchsorted(row, row)
    width = int(column.max(initial=-1)) + 1
    answer, source = np.full((n, width), -1, dtype=np.int64), np.full((n, width), -1, dtype=np.int8)
    answer[row, column], source[row, column] = item, level
    return Candidates(answer, source)


def stage_features(
    stages: Sequence[Recommender], widths: Sequence[int], query: Query, ids: Indices, lists: StageLists
) -> NDArray[np.float32]:
    """Score and rank by each stage of given items (n, m), (n, m, 2 × stages); NaN for the score of no candidate.

    Parameters
    ----------
    lists : sequence of (ids, scores)
        The stages' lists before any filter of the call, so that a filter moves nobody: the rank is how many of them score higher.
    """
    columns = []
    for model, width, (_, best) in zip(stages, widths, lists, strict=True):
        scores = model._score_items(query, ids).astype(np.float32)
        there = scores > NOT_A_CANDIDATE
        known = np.where(there, scores, np.float32(0.0))
        above = known + np.float32(1e-5) * np.abs(known)  # the last bits differ between a search and a look-up
        rank = np.zeros(ids.shape, dtype=np.float32)
        if len(ids) < best.shape[1]:  # few customers: one step each, as an online answer wants it
            for row in range(len(ids)):
                rank[row] = np.searchsorted(-best[row], -above[row])
        else:  # over the positions of a list, for all customers at once: no (n, m, width) in memory
            for place in range(best.shape[1]):
                rank += best[:, place, None] > above
        columns += [np.where(there, scores, np.float32(np.nan)), np.where(there, rank, np.float32(width))]
    return np.stack(columns, axis=2)
