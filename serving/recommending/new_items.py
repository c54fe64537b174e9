"""Items that the model does not know, ranked for a customer by what they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from serving.recommending.plan import RecommendationPlan
from serving.requests import Described
from serving.responses import Answer, rounded


def new_items(
    plan: RecommendationPlan, unknown: Sequence[str], attributes: Mapping[str, Described], explain: bool
) -> list[Answer] | None:
    """The items the model does not know, best first, by what they are; None where none is described or no model can tell."""
    described = {item: attributes[item] for item in unknown if item in attributes}
    if not described:
        return None
    query, values = plan.query, list(described.values())
    found = plan.catalogue.scored_new(int(query.users[0]), values, query.since, query.later_days)
    if found is None:
        return None
    source, scores, usual = found
    item_ids, answers = list(described), []
    for place, at in enumerate(np.argsort(-scores, kind="stable").tolist()):
        item = item_ids[at]
        told: Answer = {"item_id": item, "score": rounded(float(scores[at])), "rank": place + 1, "source": source}
        if explain:
            told["reasons"] = [
                taste_words(
                    str(described[item].get("category") or ""), bool(plan.is_personalized and scores[at] > usual[at])
                )
            ]
        answers.append(told)
    return answers


def taste_words(category: str, liked: bool) -> str:
    """The reason for an item that the model does not know.

    Examples
    --------
    >>> taste_words("GROCERY/SOUP", True), taste_words("GROCERY/SOUP", False), taste_words("", False)
    ('new in SOUP, more to your taste than to most', 'new in SOUP', 'new')
    """
    kind = category.split("/")[-1]
    new = f"new in {kind}" if kind else "new"
    return f"{new}, more to your taste than to most" if liked else new
