"""`/v1/similar-items`: the items similar to one item."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Any

from pydantic import Field

from serving import costs
from serving.champions import Champions
from serving.counting import counted_list
from serving.endpoints.base import Endpoint
from serving.recommending.pipeline import explain_short_list, make_slate
from serving.recommending.plan import JOB, RecommendationPlan
from serving.recommending.request_options import FILTERS
from serving.recommending.responses import RecommendedItem, recommended_items
from serving.recommending.rows import make_rows
from serving.recommending.similar_items import plan_similar_items, similar_item_reasons
from serving.requests import MAX_IDS, AttributeValues, Identifier, Identifiers, NumResults, Request
from serving.responses import Response, ResponseBody, model_metadata, new_recommendation_id


class SimilarItemsRequest(Request):
    """Find items similar to one item."""

    item_id: Identifier
    attributes: AttributeValues = Field(
        default_factory=dict,
        description="attributes of the item, used if the model does not know it: "
        '{"category": "GROCERY/SOUP", "price": 2}',
    )
    num_results: NumResults = 10
    filters: dict[str, Any] = Field(default_factory=dict, description=FILTERS)
    exclude: Identifiers = Field(default_factory=list, max_length=MAX_IDS, description="item ids to leave out")
    explain: bool = Field(False, description="add reasons to each item")


class SimilarItemsResponse(Response):
    """Items similar to the item of the request, most similar first, without the item itself."""

    recommendation_id: str
    item_id: str
    items: list[RecommendedItem]
    unknown: list[str] = Field(description="item ids of exclude that the model does not know")
    short_reason: str | None = Field(description="why there are fewer items than requested, else null")


def make_plan(champions: Champions, request: SimilarItemsRequest) -> tuple[RecommendationPlan, list[str]]:
    """Plan the list and return the unknown ids of `exclude`; see `plan_similar_items`."""
    return plan_similar_items(champions, request.item_id, request.attributes, request.filters, request.exclude)


def handle(champions: Champions, request: SimilarItemsRequest, now: datetime) -> ResponseBody:
    """Return the items most similar to one item.

    Raises
    ------
    NotFound
        If the model does not know the item and the request has no attributes.
    """
    (plan, unknown), k = make_plan(champions, request), request.num_results
    slate = make_slate(plan, k)
    rows = make_rows(plan, slate)
    reasons = similar_item_reasons(plan, rows) if request.explain else None
    return {
        "recommendation_id": new_recommendation_id(),
        "item_id": request.item_id,
        "items": recommended_items(plan, rows, reasons),
        "unknown": unknown,
        "short_reason": explain_short_list(plan, slate) if len(rows) < k else None,
        **model_metadata(JOB)(champions, now),
    }


def estimated_ms(request: SimilarItemsRequest) -> float:
    """Cost of a request; reasons take longer than the list."""
    filtered = costs.filter_ms(request.filters, request.exclude)
    explained = costs.SIMILAR_REASON_MS * request.num_results if request.explain else 0.0
    return costs.SIMILAR_ITEMS_MS + filtered + explained


ENDPOINT = Endpoint(
    "/similar-items",
    "Items similar to one item",
    SimilarItemsRequest,
    SimilarItemsResponse,
    handle,
    model_metadata(JOB),
    estimated_ms,
    check=make_plan,
    counted=partial(counted_list, "/similar-items"),
    errors={404: "the model does not know the item, and no attributes describe it"},
)
