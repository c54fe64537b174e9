"""The plan of `/v1/similar-items`: one list of items similar to an item, without a customer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from models.recommend.base import Query
from models.recommend.scene import SCENES
from qianmian.errors import NotFound
from serving.champions import Champions
from serving.recommending.explain import similarity_reason
from serving.recommending.plan import JOB, RecommendationPlan
from serving.recommending.request_options import allowed_items
from serving.recommending.rows import RecommendedRows

SCENE = SCENES["similar"]
STEPS = ("filters leave", "removing unavailable and excluded items leaves", "removing the item itself leaves")


def plan_similar_items(
    champions: Champions, item_id: str, attributes: Mapping[str, Any], filters: Any, exclude: Sequence[str]
) -> tuple[RecommendationPlan, list[str]]:
    """Plan the list of similar items.

    Parameters
    ----------
    item_id : str
        Item to compare with.
    attributes : mapping of str to value
        Attributes of the item, used if the model does not know it.
    filters : mapping
        Filter expression as in a request.
    exclude : sequence of str
        Item ids to leave out.

    Returns
    -------
    plan : RecommendationPlan
        Plan of one list.
    unknown : list of str
        Ids of `exclude` that the model does not know.

    Raises
    ------
    NotFound
        If the item is no merchandise, or the model does not know it and `attributes` is empty.
    InvalidRequest
        If the item attributes do not support the filter or `attributes`.
    """
    champion = champions.with_live_items(champions.require(JOB))
    catalogue = champion.catalogue
    column = catalogue.item_column(item_id)
    if item_id in champion.bundle.facts.get("not_merchandise", ()):
        raise NotFound(
            "the item is no merchandise (a bag, a deposit, shipping), so no items are similar to it",
            field="item_id",
            got=item_id,
            hint="if customers do choose it, correct `merchandise` of items in sources.yaml and train again",
        )
    if column < 0 and not attributes:
        raise NotFound(
            "the model does not know the item",
            field="item_id",
            hint="items with fewer customers than recommend.min_item_customers are not in the model; "
            "describe the item in attributes",
        )
    if column < 0:
        catalogue.similar_to_attributes(attributes, 1, None)  # checks the attributes, also for validate_only
    itself = np.array([column] if column >= 0 else [], dtype=np.int64)
    model = catalogue.similar
    filter_mask, allowed = allowed_items(catalogue, filters)
    left_out, unknown = catalogue.columns_of(exclude)
    if len(left_out):
        allowed = np.ones(len(catalogue.item_ids), dtype=bool) if allowed is None else allowed.copy()
        allowed[left_out] = False
    plan = RecommendationPlan(
        champion,
        SCENE,
        model,
        Query(np.array([-1], dtype=np.int64)),
        filter_mask,
        allowed,
        excluded=itself,
        similar_to=itself if column >= 0 else attributes,
        steps=STEPS,
    )
    return plan, unknown


def similar_item_reasons(plan: RecommendationPlan, rows: RecommendedRows) -> list[list[str]]:
    """Return the reasons of each item: what it has in common with the item of the request."""
    if isinstance(plan.similar_to, Mapping):
        return [["similar attributes"] for _ in range(len(rows))]
    item = int(plan.excluded[0])
    return [[similarity_reason(plan.catalogue.shared_attributes(item, other))] for other in rows.columns.tolist()]
