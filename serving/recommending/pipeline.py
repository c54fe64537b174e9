"""From a plan to lists: rank, re-rank, and say why a list is short. One customer or many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.rerank import Slate, rerank
from serving.recommending.catalogue import Catalogue, Mask
from serving.recommending.plan import RecommendationPlan
from serving.recommending.request_options import ExplorationOptions

ONE_LIST = np.zeros(1, dtype=np.int64)
Step = tuple[str, Mask | NDArray[np.integer[Any]] | None]


def make_slate(
    plan: RecommendationPlan, k: int, rng: np.random.Generator | None = None, lists: NDArray[np.int64] = ONE_LIST
) -> Slate:
    """The lists of a plan, ranked and re-ranked.

    Parameters
    ----------
    rng : Generator, optional
        Needed for exploration.
    lists : ndarray of int64, (n,)
        Which of the plan's lists, in rising order; the first by default.
    """
    if not plan.rerank_options:
        ranked = plan.ranked(lists, k)
        valid = ranked.valid.astype(np.int64)
        return Slate(ranked, np.full(ranked.ids.shape, -1, dtype=np.int64), None, valid, valid)
    draws = rng.random((len(lists), plan.rerank_options.draws)) if rng is not None else None
    return rerank(
        lambda rows, n_candidates, items: plan.ranked(lists[rows], n_candidates, items),
        len(lists),
        k,
        plan.rerank_options,
        draws,
    )


def random_source(exploration: ExplorationOptions | None, recommendation_id: str) -> np.random.Generator | None:
    """All the randomness of an answer: from the seed of the request, else from the id of the answer, so that it can be repeated."""
    if exploration is None:
        return None
    return np.random.default_rng(int(recommendation_id, 16) if exploration.seed is None else exploration.seed)


def explain_short_list(plan: RecommendationPlan, slate: Slate) -> str:
    """Why the first list holds fewer items than requested: what each step left, in the order they are applied."""
    filters, available, exclude = plan.steps
    steps: list[Step] = [(filters, plan.filter_mask)]
    if plan.allowed is not plan.filter_mask:
        steps.append((available, plan.allowed))
    steps.append((exclude, plan.excluded))
    if plan.purchased != "any":
        _, interacted = plan.interacted(plan.query)
        if plan.purchased == "never":
            steps.append(("leaving out what the customer had leaves", interacted))
        else:
            steps.append(("what the customer had is", plan.catalogue.mask_of(interacted)))
    capped = [f"{cap.limit} a {cap.name}" for cap in plan.rerank_options.caps]
    return short_reason(plan.catalogue, steps, int(slate.candidates[0]), capped, int(slate.ranked.valid[0]))


def short_reason(catalogue: Catalogue, steps: Sequence[Step], ranked: int, capped: Sequence[str], kept: int) -> str:
    """Why a list is shorter than asked: what each step that took anything away leaves, in the order they are applied.

    Parameters
    ----------
    steps : sequence of (str, mask or columns)
        ``filters leave`` and such, and what it lets through (a mask) or takes away (columns); None did nothing.
    ranked : int
        How many of those left the scene's model ranks.
    capped : sequence of str
        The limits a group, and `kept` how many items they left.
    """
    total = len(catalogue.item_ids)
    left = np.ones(total, dtype=bool)
    told = [f"the model knows {total} items"]
    for name, what in steps:
        before = int(left.sum())
        if what is not None and what.dtype == bool:
            left &= what
        elif what is not None:
            left[what] = False
        if (after := int(left.sum())) < before:
            told.append(f"{name} {after}")
    if ranked < left.sum():
        told.append(f"it has evidence for {ranked} of them")
    if capped and kept < ranked:
        told.append(f"at most {' and '.join(capped)} leaves {kept}")
    return ", ".join(told)
