"""From a plan to its lists: rank, re-rank, explain why a list is short; the same code for one customer and for many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.rerank import Slate, rerank
from serving.recommending.catalogue import Catalogue, Mask
from serving.recommending.plan import RecommendationPlan
from serving.recommending.request_options import ExplorationOptions

FIRST_LIST = np.zeros(1, dtype=np.int64)
Step = tuple[str, Mask | NDArray[np.integer[Any]] | None]


def make_slate(
    plan: RecommendationPlan, k: int, rng: np.random.Generator | None = None, lists: NDArray[np.int64] = FIRST_LIST
) -> Slate:
    """Rank and re-rank lists of a plan.

    Parameters
    ----------
    plan : RecommendationPlan
        Plan of the lists.
    k : int
        Number of slots of each list.
    rng : numpy.random.Generator, optional
        Source of randomness, required for exploration.
    lists : ndarray of int64, shape (n,)
        Numbers of the lists within the plan, increasing; default: the first list.

    Returns
    -------
    Slate
        Shape (n, at most `k`).
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
    """Return the generator for exploration, None if the request has none.

    The seed is that of the request, or else the recommendation id, so that every list can be reproduced.
    """
    if exploration is None:
        return None
    return np.random.default_rng(int(recommendation_id, 16) if exploration.seed is None else exploration.seed)


def explain_short_list(plan: RecommendationPlan, slate: Slate) -> str:
    """Explain why the first list has fewer items than requested; see `short_reason`."""
    filters, available, exclude = plan.steps
    steps: list[Step] = [(filters, plan.filter_mask)]
    if plan.allowed is not plan.filter_mask:
        steps.append((available, plan.allowed))
    steps.append((exclude, plan.excluded))
    if plan.purchased != "any":
        _, interacted = plan.interacted(plan.query)
        if plan.purchased == "never":
            steps.append(("removing previously purchased items leaves", interacted))
        else:
            steps.append(("keeping only previously purchased items leaves", plan.catalogue.mask_of(interacted)))
    capped = [f"{cap.limit} per {cap.name}" for cap in plan.rerank_options.caps]
    return short_reason(plan.catalogue, steps, int(slate.candidates[0]), capped, int(slate.ranked.valid[0]))


def short_reason(catalogue: Catalogue, steps: Sequence[Step], ranked: int, capped: Sequence[str], kept: int) -> str:
    """Describe how many items are left after each step that removed any, in the order the steps are applied.

    Parameters
    ----------
    steps : sequence of (str, mask or columns)
        Text of the step, such as ``filters leave``, and the items it keeps (bool mask) or removes (columns); None if
        the step has no effect.
    ranked : int
        Number of the remaining items that the model ranks.
    capped : sequence of str
        Limits per attribute value, such as ``2 per brand``.
    kept : int
        Number of items in the list.
    """
    n_items = len(catalogue.item_ids)
    left = np.ones(n_items, dtype=bool)
    parts = [f"the model knows {n_items} items"]
    for text, items in steps:
        before = int(left.sum())
        if items is not None and items.dtype == bool:
            left &= items
        elif items is not None:
            left[items] = False
        if (after := int(left.sum())) < before:
            parts.append(f"{text} {after}")
    if ranked < left.sum():
        parts.append(f"the model ranks {ranked} of them")
    if capped and kept < ranked:
        parts.append(f"at most {' and '.join(capped)} leaves {kept}")
    return ", ".join(parts)
