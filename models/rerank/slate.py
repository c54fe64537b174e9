"""`rerank`: applies all re-ranking options, in this order.

1. The caller's `rank_candidates` applies filters, availability and exclusions before it ranks.
2. The model ranks the candidates.
3. Each promotion fills its share of the slots with its own best items, within the limits per group.
4. The other slots get the best remaining items, selected by maximal marginal relevance if requested, within the limits
   per group; promoted items count towards the limits.
5. Exploration fills some of those slots at random from the next best items. The limits hold for the list and the pool
   together, so no random choice violates them.
6. Promoted and explored slots are spread evenly over the list.
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
"""(rows of the query, number of items, mask of allowed items or None) → the best items of the rows."""

MMR_POOL = 5  # candidates per slot for maximal marginal relevance
MMR_LEAST = 50  # smallest number of candidates for maximal marginal relevance
CELLS = 2_000_000  # candidates processed at a time
MMR_CELL = 16  # memory of a candidate with similarities, relative to one without
GROWTH = 4  # factor by which the number of candidates grows while the limits per group leave too few


@dataclass(frozen=True)
class PromotedItems:
    """Items that get a share of the slots.

    Attributes
    ----------
    name : str
        Name of the promotion.
    items : ndarray of bool, (n_items,)
        Whether each item is promoted.
    percent : float
        Percentage of the slots, 0 to 100.
    """

    name: str
    items: NDArray[np.bool_]
    percent: float


@dataclass(frozen=True)
class RerankOptions:
    """Options of the re-ranking; none is set by default.

    Attributes
    ----------
    caps : tuple of Cap
        Limits on the number of items per group.
    mmr : float or None
        λ of maximal marginal relevance, 0 (only diversity) to 1 (only relevance); needs `similarity`.
    similarity : Similarity or None
        Similarity of items, for `mmr`.
    promotions : tuple of PromotedItems
        Promotions, in the order in which they get slots.
    exploration : ExplorationPolicy or None
        Amount of exploration.
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
        """Number of uniform random numbers per list."""
        return 1 + self.exploration.pool if self.exploration is not None else 0


@dataclass(frozen=True)
class Slate:
    """Re-ranked lists.

    Attributes
    ----------
    ranked : Ranked
        Items in the order shown; the scores are those of the model and need not descend.
    promotion : ndarray of int64, (n, k)
        Index of the promotion that placed the item; −1 for none.
    exploration_result : ExplorationResult or None
        Exploration by slot of the whole list; promoted items have propensity 1.
    candidates : ndarray of int64, (n,)
        Number of candidates that the model returned.
    kept : ndarray of int64, (n,)
        Number of candidates selected within the limits per group, for the slots and the exploration pool.
    """

    ranked: Ranked
    promotion: NDArray[np.int64]
    exploration_result: ExplorationResult | None
    candidates: NDArray[np.int64]
    kept: NDArray[np.int64]


def quotas(promotions: Sequence[PromotedItems], k: int) -> list[int]:
    """Return the number of slots of each promotion in a list of k; halves are rounded up, the sum is at most k.

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
    """Build n lists of k items under `options`.

    Parameters
    ----------
    rank_candidates : callable
        Ranks candidates. It is called for more candidates until every list is full or no candidate is left.
    n : int
        Number of lists.
    k : int
        Length of the lists.
    options : RerankOptions
        Limits, diversity, promotions and exploration.
    draws : ndarray of float64, (n, options.draws), optional
        Uniform numbers on [0, 1); required for exploration.

    Raises
    ------
    UsageError
        The options include exploration, and `draws` is missing.
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
            raise UsageError("exploration needs random numbers", hint=f"pass `draws` of shape ({n}, {options.draws})")
        exploration_result = explore(best.count, slots, k, options.exploration, draws)
        order = exploration_result.order
    classes = interleave(np.column_stack([length, *counts]), k)
    ranked = _merge_by_class([best.at(order), *lists], classes)
    whole = None if exploration_result is None else _widen_to_slate(exploration_result, classes)
    return Slate(ranked, np.maximum(classes, 0) - 1, whole, best.candidates, best.count)


# ---- helpers ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _SelectedCandidates:
    """Items in the order of selection, (n, steps), −1 and −inf past the end; number of candidates considered, (n,)."""

    ids: NDArray[np.int64]
    scores: NDArray[np.float32]
    source: NDArray[np.int8]
    candidates: NDArray[np.int64]
    sources: tuple[str, ...]

    @property
    def count(self) -> NDArray[np.int64]:
        return np.asarray((self.ids >= 0).sum(axis=1), dtype=np.int64)

    def at(self, slots: NDArray[np.int64]) -> _SelectedCandidates:
        """Return the items at these positions, (n, w); no item for the position −1."""
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
    """Select `steps` items within the limits, requesting more candidates until they suffice or none is left."""
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
    """Merge lists into one: each slot takes the next item of the list of its class."""
    parts = [
        candidates.at(np.where(classes == number, rank_within_class(classes, number), NO_ITEM))
        for number, candidates in enumerate(lists)
    ]
    ids = np.maximum.reduce([part.ids for part in parts]).astype(np.int32)
    scores = np.maximum.reduce([part.scores for part in parts])
    source = np.maximum.reduce([part.source for part in parts])
    return Ranked(ids, scores, (ids >= 0).sum(axis=1).astype(np.int32), source, lists[0].sources)


def _widen_to_slate(exploration_result: ExplorationResult, classes: NDArray[np.int64]) -> ExplorationResult:
    """Return the exploration result by slot of the whole list, in which promoted items have probability 1."""
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
