"""Items that the model does not know, ranked for a customer by what they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from serving.recommending.plan import RecommendationPlan
from serving.requests import AttributeValues
from serving.responses import ResponseBody, rounded


def new_items(
    plan: RecommendationPlan, unknown: Sequence[str], attributes: Mapping[str, AttributeValues], explain: bool
) -> list[ResponseBody] | None:
    """The items the model does not know, best first, by what they are; None where none is described or no model can tell."""
    new_item_attributes = {item: attributes[item] for item in unknown if item in attributes}
    if not new_item_attributes:
        return None
    query, values = plan.query, list(new_item_attributes.values())
    found = plan.catalogue.score_new_items(int(query.users[0]), values, query.recent_interactions, query.elapsed_days)
    if found is None:
        return None
    source, scores, anonymous_scores = found
    item_ids, answers = list(new_item_attributes), []
    for position, at in enumerate(np.argsort(-scores, kind="stable").tolist()):
        item = item_ids[at]
        entry: ResponseBody = {
            "item_id": item,
            "score": rounded(float(scores[at])),
            "rank": position + 1,
            "source": source,
        }
        if explain:
            entry["reasons"] = [
                new_item_reason(
                    str(new_item_attributes[item].get("category") or ""),
                    bool(plan.is_personalized and scores[at] > anonymous_scores[at]),
                )
            ]
        answers.append(entry)
    return answers


def new_item_reason(category: str, liked: bool) -> str:
    """The reason for an item that the model does not know.

    Examples
    --------
    >>> new_item_reason("GROCERY/SOUP", True), new_item_reason("GROCERY/SOUP", False), new_item_reason("", False)
    ('new in SOUP, more to your taste than to most', 'new in SOUP', 'new')
    """
    kind = category.split("/")[-1]
    new = f"new in {kind}" if kind else "new"
    return f"{new}, more to your taste than to most" if liked else new
