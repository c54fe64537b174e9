"""`rerank`: all controls together, in the order in which they are applied.

1. What may be shown at all (filters, availability, exclusion, purchased or not) is the caller's `rank_candidates`, before anything is ranked.
2. The model ranks.
3. Promotions take their share of the places, each with its own best items, within the limits a group.
4. The other places: the best items left, chosen by maximal marginal relevance where asked, within the limits a group, which promoted
   items count for as well.
5. Exploration draws some of those places from the next best. The limits hold for the list and the pool together, so no lot can break them.
6. Promoted and drawn places are spread evenly over the list.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.ranked import NOT_A_CANDIDATE, Ranked
from models.rerank.diversity import NO_ITEM, Cap, Similarity, select
from models.rerank.exploration import ExplorationPolicy, ExplorationResult, explore
from models.rerank.slots import interleave, rank_within_class
from qianmian.errors import UsageError

RankFunction = Callable[[NDArray[np.int64], int, NDArray[np.bool_] | None], Ranked]
"""(rows of the query, how many, only these items) → their best items."""

MMR_POOL = 5  # candidates a place that marginal relevance chooses from
MMR_LEAST = 50
CELLS = 2_000_000  # candidates looked at together
MMR_CELL = 16  # of them, where likeness is compared too
GROWTH = 4  # how many times more candidates are asked for when the limits a group leave too few


@dataclass(frozen=True)
class PromotedItems:
    """Items that get a share of the places.

    Attributes
    ----------
    items : ndarray of bool, (n_items,)
    percent : float
        Of the places, 0 to 100.
    """

    name: str
    items: NDArray[np.bool_]
    percent: float


@dataclass(frozen=True)
class RerankOptions:
    """What is asked of a list beyond being the best; nothing by default.

    Attributes
    ----------
    mmr : float or None
        λ of maximal marginal relevance, 0 (only different) to 1 (only relevant); needs `similarity`.
    """

    caps: tuple[Cap, ...] = ()
    mmr: float | None = None
    similarity: Similarity | None = None
    promotions: tuple[PromotedItems, ...] = ()
    exploration: ExplorationPolicy | None = None

    def __bool__(self) -> bool:
        return bool(self.caps or self.mmr is not None or self.promotions or self.exploration)

    @property
    def draws(self) -> int:
        """How many uniform numbers a list needs."""
        return 1 + self.exploration.pool if self.exploration is not None else 0


@dataclass(frozen=True)
class Slate:
    """Lists after the controls.

    Attributes
    ----------
    ranked : Ranked
        Items in the order shown; scores are the model's and need not fall.
    promotion : ndarray of int64, (n, k)
        Which promotion put the item there, −1 for none.
    exploration_result : Explored or None
        In places of the whole list; promoted ones have propensity 1.
    candidates : ndarray of int64, (n,)
        How many the model had, as far as it was asked.
    kept : ndarray of int64, (n,)
        How many of those the limits a group left, as far as were needed.
    """

    ranked: Ranked
    promotion: NDArray[np.int64]
    exploration_result: ExplorationResult | None
    candidates: NDArray[np.int64]
    kept: NDArray[np.int64]


def quotas(promotions: Sequence[PromotedItems], k: int) -> list[int]:
    """Places of each promotion in a list of k, halves rounded up, together at most k.

    Examples
    --------
    >>> quotas([PromotedItems("a", np.ones(1, bool), 50.0), PromotedItems("b", np.ones(1, bool), 50.0)], 5)
    [3, 2]
    """
    given: list[int] = []
    for promotion in promotions:
        given.append(min(int(np.floor(promotion.percent * k / 100 + 0.5)), k - sum(given)))
    return given


def rerank(
    rank_candidates: RankFunction, n: int, k: int, options: RerankOptions, draws: NDArray[np.float64] | None = None
) -> Slate:
    """n lists of k under `options`.

    Parameters
    ----------
    rank_candidates : callable
        Ranks; asked for more until every list is full or nothing is left.
    draws : ndarray of float64, (n, controls.draws), optional
        Uniform on [0, 1); needed for exploration.
    """
    promoted = np.full((n, 0), NO_ITEM, dtype=np.int64)
    lists, counts = [], []
    for promotion, quota in zip(options.promotions, quotas(options.promotions, k), strict=True):
        found = _select_candidates(rank_candidates, n, quota, replace(options, mmr=None), promoted, promotion.items)
        lists.append(found)
        counts.append(found.count)
        promoted = np.concatenate([promoted, found.ids], axis=1)
    slots = k - sum(counts, start=np.zeros(n, dtype=np.int64))

    pool = options.exploration.pool if options.exploration is not None else 0
    best = _select_candidates(rank_candidates, n, k + pool, options, promoted, None)
    length = np.minimum(best.count, slots)
    order = np.where(np.arange(k) < length[:, None], np.arange(k), NO_ITEM)
    exploration_result = None
    if options.exploration is not None:
        if draws is None:
            raise UsageError("exploration needs uniform numbers", hint=f"give `draws` of shape ({n}, {options.draws})")
        exploration_result = explore(best.count, slots, k, options.exploration, draws)
        order = exploration_result.order
    classes = interleave(np.column_stack([length, *counts]), k)
    ranked = _merge_by_class([best.at(order), *lists], classes)
    whole = None if exploration_result is None else _widen_to_slate(exploration_result, classes)
    return Slate(ranked, np.maximum(classes, 0) - 1, whole, best.candidates, best.count)


# ---- helpers ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _SelectedCandidates:
    """Items in the order chosen, (n, steps), −1 and −inf past the end; how many candidates they were chosen from, (n,)."""

    ids: NDArray[np.int64]
    scores: NDArray[np.float32]
    source: NDArray[np.int8]
    candidates: NDArray[np.int64]
    sources: tuple[str, ...]

    @property
    def count(self) -> NDArray[np.int64]:
        return np.asarray((self.ids >= 0).sum(axis=1), dtype=np.int64)

    def at(self, slots: NDArray[np.int64]) -> _SelectedCandidates:
        """The items at these places (n, w), none for the place −1."""
        ids, scores, source = (
            _gather(values, slots, past)
            for values, past in ((self.ids, NO_ITEM), (self.scores, float(NOT_A_CANDIDATE)), (self.source, NO_ITEM))
        )
        return replace(self, ids=ids, scores=scores, source=source)


def _gather(values: NDArray[Any], slots: NDArray[np.int64], past: float) -> NDArray[Any]:
    if not values.shape[1]:
        return np.full(slots.shape, past, dtype=values.dtype)
    found = np.take_along_axis(values, np.clip(slots, 0, values.shape[1] - 1), axis=1)
    return np.where(slots >= 0, found, np.asarray(past, dtype=values.dtype))


def _select_candidates(
    rank_candidates: RankFunction,
    n: int,
    steps: int,
    options: RerankOptions,
    selected: NDArray[np.int64],
    items: NDArray[np.bool_] | None,
) -> _SelectedCandidates:
    """The first `steps` items that keep the limits, asking for more candidates until there are so many or no more."""
    ids = np.full((n, steps), NO_ITEM, dtype=np.int64)
    scores = np.full((n, steps), NOT_A_CANDIDATE, dtype=np.float32)
    source = np.full((n, steps), NO_ITEM, dtype=np.int8)
    candidates = np.zeros(n, dtype=np.int64)
    sources: tuple[str, ...] = ()
    scale = max(MMR_POOL * steps, MMR_LEAST)
    many = steps + selected.shape[1]
    if options.mmr is not None:
        many = max(many, scale)
    elif options.caps:
        many *= GROWTH
    rows = np.arange(n if steps else 0)
    while len(rows):
        short = []
        block = max(1, CELLS // many if options.mmr is None else CELLS // many // MMR_CELL)
        for start in range(0, len(rows), block):
            these = rows[start : start + block]
            ranked = rank_candidates(these, many, items)
            chosen = select(
                ranked.ids,
                steps,
                caps=options.caps,
                selected=selected[these],
                mmr=options.mmr,
                similarity=options.similarity,
                scale=scale,
            )
            ids[these] = _gather(ranked.ids, chosen, NO_ITEM)
            scores[these] = _gather(ranked.scores, chosen, float(NOT_A_CANDIDATE))
            source[these] = _gather(ranked.source, chosen, NO_ITEM)
            candidates[these], sources = ranked.valid, ranked.sources
            short.append(these[(ids[these] < 0).any(axis=1) & (ranked.valid == many)])
        rows, many = np.concatenate(short), many * GROWTH
    return _SelectedCandidates(ids, scores, source, candidates, sources)


def _merge_by_class(lists: Sequence[_SelectedCandidates], classes: NDArray[np.int64]) -> Ranked:
    """One list of several: each place takes the next of its class."""
    parts = [
        one.at(np.where(classes == number, rank_within_class(classes, number), NO_ITEM))
        for number, one in enumerate(lists)
    ]
    ids = np.maximum.reduce([part.ids for part in parts]).astype(np.int32)
    scores = np.maximum.reduce([part.scores for part in parts])
    source = np.maximum.reduce([part.source for part in parts])
    return Ranked(ids, scores, (ids >= 0).sum(axis=1).astype(np.int32), source, lists[0].sources)


def _widen_to_slate(exploration_result: ExplorationResult, classes: NDArray[np.int64]) -> ExplorationResult:
    """The same by place of the whole list, promoted items certain."""
    turn = np.minimum(rank_within_class(classes, 0), exploration_result.order.shape[1] - 1)

    def at(values: NDArray[Any], promoted: float, past: float) -> NDArray[Any]:
        ours = np.take_along_axis(values, turn, axis=1)
        return np.where(classes == 0, ours, np.where(classes < 0, past, promoted)).astype(values.dtype)

    return ExplorationResult(
        at(exploration_result.order, NO_ITEM, NO_ITEM),
        at(exploration_result.explored, 0, 0),
        at(exploration_result.propensity, 1, 0),
        at(exploration_result.slate_propensity, 1, 0),
    )
