"""`/v1/similar-items`: what is like an item."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from pydantic import Field

from serving.champions import Champions
from serving.endpoints.base import Endpoint
from serving.recommending.pipeline import explain_short_list, make_slate
from serving.recommending.plan import JOB, RecommendationPlan
from serving.recommending.request_options import FILTERS
from serving.recommending.responses import RecommendedItem, items_json
from serving.recommending.rows import make_rows
from serving.recommending.similar_items import plan_similar_items, similar_item_reasons
from serving.requests import MAX_IDS, AttributeValues, Identifier, NumResults, Request
from serving.responses import Response, ResponseBody, model_metadata


class SimilarItemsRequest(Request):
    """What is like an item."""

    item_id: Identifier
    attributes: AttributeValues = Field(
        default_factory=dict,
        max_length=50,
        description='what an item is that the model does not know: {"category": "GROCERY/SOUP", "price": 2}',
    )
    num_results: NumResults = 10
    filters: dict[str, Any] = Field(default_factory=dict, description=FILTERS)
    exclude: list[Identifier] = Field(default_factory=list, max_length=MAX_IDS, description="items to leave out")
    explain: bool = Field(False, description="give a reason in words with each item")


class SimilarItemsResponse(Response):
    """Items with the same kind of customers, most alike first, the item itself left out."""

    recommendation_id: str
    item_id: str
    items: list[RecommendedItem]
    unknown: list[str] = Field(description="item ids of exclude that the model does not know")
    short_reason: str | None = Field(description="why there are fewer items than asked for, else null")


def plan(champions: Champions, request: SimilarItemsRequest) -> tuple[RecommendationPlan, list[str]]:
    """What the request means; see `plan_similar_items`."""
    return plan_similar_items(champions, request.item_id, request.attributes, request.filters, request.exclude)


def handle(champions: Champions, request: SimilarItemsRequest, now: datetime) -> ResponseBody:
    """The items most like one.

    Raises
    ------
    NotFound
        The model does not know the item.
    """
    (similar, unknown), k = plan(champions, request), request.num_results
    slate = make_slate(similar, k)
    rows = make_rows(similar, slate)
    reasons = similar_item_reasons(similar, rows) if request.explain else None
    return {
        "recommendation_id": uuid.uuid4().hex,
        "item_id": request.item_id,
        "items": items_json(similar, rows, reasons),
        "unknown": unknown,
        "short_reason": explain_short_list(similar, slate) if len(rows) < k else None,
        **model_metadata(JOB)(champions, now),
    }


ENDPOINT = Endpoint(
    "/similar-items",
    "What is like an item",
    SimilarItemsRequest,
    SimilarItemsResponse,
    handle,
    model_metadata(JOB),
    check=plan,
)
