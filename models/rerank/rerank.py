"""`arrange`: all controls together, in the order in which they are applied.

1. What may be shown at all (filters, availability, exclusion, purchased or not) is the caller's `ask`, before anything is ranked.
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
from models.rerank.diversity import NONE, Cap, Similarity, select
from models.rerank.exploration import Exploration, Explored, explore
from models.rerank.slots import order_within, spread
from qianmian.errors import UsageError

Ask = Callable[[NDArray[np.int64], int, NDArray[np.bool_] | None], Ranked]
"""(rows of the query, how many, only these items) → their best items."""

MMR_POOL = 5  # candidates a place that marginal relevance chooses from
MMR_LEAST = 50
CELLS = 2_000_000  # candidates looked at together
MMR_CELL = 16  # of them, where likeness is compared too
GROWTH = 4  # how many times more candidates are asked for when the limits a group leave too few


@dataclass(frozen=True)
class Promotion:
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
class Controls:
    """What is asked of a list beyond being the best; nothing by default.

    Attributes
    ----------
    mmr : float or None
        λ of maximal marginal relevance, 0 (only different) to 1 (only relevant); needs `similarity`.
    """

    caps: tuple[Cap, ...] = ()
    mmr: float | None = None
    similarity: Similarity | None = None
    promotions: tuple[Promotion, ...] = ()
    exploration: Exploration | None = None

    def __bool__(self) -> bool:
        return bool(self.caps or self.mmr is not None or self.promotions or self.exploration)

    @property
    def draws(self) -> int:
        """How many uniform numbers a list needs."""
        return 1 + self.exploration.pool if self.exploration is not None else 0


@dataclass(frozen=True)
class Arranged:
    """Lists after the controls.

    Attributes
    ----------
    ranked : Ranked
        Items in the order shown; scores are the model's and need not fall.
    promotion : ndarray of int64, (n, k)
        Which promotion put the item there, −1 for none.
    explored : Explored or None
        In places of the whole list; promoted ones have propensity 1.
    candidates : ndarray of int64, (n,)
        How many the model had, as far as it was asked.
    kept : ndarray of int64, (n,)
        How many of those the limits a group left, as far as were needed.
    """

    ranked: Ranked
    promotion: NDArray[np.int64]
    explored: Explored | None
    candidates: NDArray[np.int64]
    kept: NDArray[np.int64]


def quotas(promotions: Sequence[Promotion], k: int) -> list[int]:
    """Places of each promotion in a list of k, halves rounded up, together at most k.

    Examples
    --------
    >>> quotas([Promotion("a", np.ones(1, bool), 50.0), Promotion("b", np.ones(1, bool), 50.0)], 5)
    [3, 2]
    """
    given: list[int] = []
    for promotion in promotions:
        given.append(min(int(np.floor(promotion.percent * k / 100 + 0.5)), k - sum(given)))
    return given


def arrange(ask: Ask, n: int, k: int, controls: Controls, draws: NDArray[np.float64] | None = None) -> Arranged:
    """n lists of k under `controls`.

    Parameters
    ----------
    ask : callable
        Ranks; asked for more until every list is full or nothing is left.
    draws : ndarray of float64, (n, controls.draws), optional
        Uniform on [0, 1); needed for exploration.
    """
    promoted = np.full((n, 0), NONE, dtype=np.int64)
    lists, counts = [], []
    for promotion, quota in zip(controls.promotions, quotas(controls.promotions, k), strict=True):
        found = _choose(ask, n, quota, replace(controls, mmr=None), promoted, promotion.items)
        lists.append(found)
        counts.append(found.count)
        promoted = np.concatenate([promoted, found.ids], axis=1)
    places = k - sum(counts, start=np.zeros(n, dtype=np.int64))

    pool = controls.exploration.pool if controls.exploration is not None else 0
    best = _choose(ask, n, k + pool, controls, promoted, None)
    length = np.minimum(best.count, places)
    order = np.where(np.arange(k) < length[:, None], np.arange(k), NONE)
    explored = None
    if controls.exploration is not None:
        if draws is None:
            raise UsageError("exploration needs uniform numbers", hint=f"give `draws` of shape ({n}, {controls.draws})")
        explored = explore(best.count, places, k, controls.exploration, draws)
        order = explored.order
    classes = spread(np.column_stack([length, *counts]), k)
    ranked = _placed([best.at(order), *lists], classes)
    whole = None if explored is None else _in_whole_list(explored, classes)
    return Arranged(ranked, np.maximum(classes, 0) - 1, whole, best.candidates, best.count)


# ---- helpers ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Chosen:
    """Items in the order chosen, (n, steps), −1 and −inf past the end; how many candidates they were chosen from, (n,)."""

    ids: NDArray[np.int64]
    scores: NDArray[np.float32]
    source: NDArray[np.int8]
    candidates: NDArray[np.int64]
    sources: tuple[str, ...]

    @property
    def count(self) -> NDArray[np.int64]:
        return np.asarray((self.ids >= 0).sum(axis=1), dtype=np.int64)

    def at(self, places: NDArray[np.int64]) -> _Chosen:
        """The items at these places (n, w), none for the place −1."""
        ids, scores, source = (
            _taken(values, places, past)
            for values, past in ((self.ids, NONE), (self.scores, float(NOT_A_CANDIDATE)), (self.source, NONE))
        )
        return replace(self, ids=ids, scores=scores, source=source)


def _taken(values: NDArray[Any], places: NDArray[np.int64], past: float) -> NDArray[Any]:
    if not values.shape[1]:
        return np.full(places.shape, past, dtype=values.dtype)
    found = np.take_along_axis(values, np.clip(places, 0, values.shape[1] - 1), axis=1)
    return np.where(places >= 0, found, np.asarray(past, dtype=values.dtype))


def _choose(
    ask: Ask, n: int, steps: int, controls: Controls, taken: NDArray[np.int64], items: NDArray[np.bool_] | None
) -> _Chosen:
    """The first `steps` items that keep the limits, asking for more candidates until there are so many or no more."""
    ids = np.full((n, steps), NONE, dtype=np.int64)
    scores = np.full((n, steps), NOT_A_CANDIDATE, dtype=np.float32)
    source = np.full((n, steps), NONE, dtype=np.int8)
    candidates = np.zeros(n, dtype=np.int64)
    sources: tuple[str, ...] = ()
    scale = max(MMR_POOL * steps, MMR_LEAST)
    many = steps + taken.shape[1]
    if controls.mmr is not None:
        many = max(many, scale)
    elif controls.caps:
        many *= GROWTH
    rows = np.arange(n if steps else 0)
    while len(rows):
        short = []
        block = max(1, CELLS // many if controls.mmr is None else CELLS // many // MMR_CELL)
        for start in range(0, len(rows), block):
            these = rows[start : start + block]
            ranked = ask(these, many, items)
            chosen = select(
                ranked.ids,
                steps,
                caps=controls.caps,
                taken=taken[these],
                mmr=controls.mmr,
                similarity=controls.similarity,
                scale=scale,
            )
            ids[these] = _taken(ranked.ids, chosen, NONE)
            scores[these] = _taken(ranked.scores, chosen, float(NOT_A_CANDIDATE))
            source[these] = _taken(ranked.source, chosen, NONE)
            candidates[these], sources = ranked.valid, ranked.sources
            short.append(these[(ids[these] < 0).any(axis=1) & (ranked.valid == many)])
        rows, many = np.concatenate(short), many * GROWTH
    return _Chosen(ids, scores, source, candidates, sources)


def _placed(lists: Sequence[_Chosen], classes: NDArray[np.int64]) -> Ranked:
    """One list of several: each place takes the next of its class."""
    parts = [
        one.at(np.where(classes == number, order_within(classes, number), NONE)) for number, one in enumerate(lists)
    ]
    ids = np.maximum.reduce([part.ids for part in parts]).astype(np.int32)
    scores = np.maximum.reduce([part.scores for part in parts])
    source = np.maximum.reduce([part.source for part in parts])
    return Ranked(ids, scores, (ids >= 0).sum(axis=1).astype(np.int32), source, lists[0].sources)


def _in_whole_list(explored: Explored, classes: NDArray[np.int64]) -> Explored:
    """The same by place of the whole list, promoted items certain."""
    turn = np.minimum(order_within(classes, 0), explored.order.shape[1] - 1)

    def at(values: NDArray[Any], promoted: float, past: float) -> NDArray[Any]:
        ours = np.take_along_axis(values, turn, axis=1)
        return np.where(classes == 0, ours, np.where(classes < 0, past, promoted)).astype(values.dtype)

    return Explored(
        at(explored.order, NONE, NONE),
        at(explored.drawn, 0, 0),
        at(explored.propensity, 1, 0),
        at(explored.in_list, 1, 0),
    )
