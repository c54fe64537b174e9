"""The plan of `/v1/similar-items`: one list of items similar to an item, for no customer in particular."""

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
STEPS = ("filters leave", "those that can be had and are not excluded are", "beside the item itself")


def plan_similar_items(
    champions: Champions, item_id: str, attributes: Mapping[str, Any], filters: Any, exclude: Sequence[str]
) -> tuple[RecommendationPlan, list[str]]:
    """The plan, and which of the ids to leave out the model does not know.

    Raises
    ------
    NotFound
        The model does not know the item, and no attributes describe it.
    InvalidRequest
        The items cannot answer a filter or the attributes.
    """
    champion = champions.require(JOB)
    catalogue = champion.catalogue
    column = catalogue.item_column(item_id)
    if column < 0 and not attributes:
        raise NotFound(
            "the model does not know the item",
            field="item_id",
            hint="an item that too few customers had (recommend.min_item_customers) is not in the model; say what it is in attributes",
        )
    if column < 0:
        catalogue.similar_to_attributes(attributes, 1, None)
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
    """What each item has in common with the one it is similar to."""
    if isinstance(plan.similar_to, Mapping):
        return [["of the same kind"] for _ in range(len(rows))]
    item = int(plan.excluded[0])
    return [[similarity_reason(plan.catalogue.shared_attributes(item, other))] for other in rows.columns.tolist()]
