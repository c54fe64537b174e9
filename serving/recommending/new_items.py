"""Items that the model does not know, ranked for a customer by their attributes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from serving.recommending.plan import RecommendationPlan
from serving.requests import AttributeValues
from serving.responses import ResponseBody, rounded


def new_items(
    plan: RecommendationPlan, unknown: Sequence[str], attributes: Mapping[str, AttributeValues], explain: bool
) -> list[ResponseBody] | None:
    """Rank the items that the model does not know by their attributes.

    Parameters
    ----------
    plan : RecommendationPlan
        Plan of one customer's list.
    unknown : sequence of str
        Item ids that the model does not know.
    attributes : mapping of str to mapping
        Attributes of items by item id.
    explain : bool
        Add `reasons` to each item.

    Returns
    -------
    list of dict or None
        Items as in `RecommendedItem`, best first; None if no unknown item has attributes, or if no model can score
        items by their attributes.
    """
    new_item_attributes = {item: attributes[item] for item in unknown if item in attributes}
    if not new_item_attributes:
        return None
    query, values = plan.query, list(new_item_attributes.values())
    scored = plan.catalogue.score_new_items(int(query.users[0]), values, query.recent_interactions, query.elapsed_days)
    if scored is None:
        return None
    source, scores, anonymous_scores = scored
    item_ids, entries = list(new_item_attributes), []
    for position, index in enumerate(np.argsort(-scores, kind="stable").tolist()):
        item = item_ids[index]
        entry: ResponseBody = {
            "item_id": item,
            "score": rounded(float(scores[index])),
            "rank": position + 1,
            "source": source,
        }
        if explain:
            entry["reasons"] = [
                new_item_reason(
                    str(new_item_attributes[item].get("category") or ""),
                    bool(plan.is_personalized and scores[index] > anonymous_scores[index]),
                )
            ]
        entries.append(entry)
    return entries


def new_item_reason(category: str, preferred: bool) -> str:
    """Return the reason for an item that the model does not know.

    Parameters
    ----------
    category : str
        Category path of the item, empty if unknown.
    preferred : bool
        Whether the item scores higher for this customer than for an unknown one.

    Examples
    --------
    >>> new_item_reason("GROCERY/SOUP", True), new_item_reason("GROCERY/SOUP", False), new_item_reason("", False)
    ('new in SOUP, matches your preferences', 'new in SOUP', 'new')
    """
    group = category.split("/")[-1]
    reason = f"new in {group}" if group else "new"
    return f"{reason}, matches your preferences" if preferred else reason
