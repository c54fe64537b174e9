"""`/v1/similar-items`: what is like an item."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from qianmian.errors import NotFound
from serving.champions import Champions
from serving.endpoints.base import (
    MAX_IDS,
    AttributeValues,
    Endpoint,
    Identifier,
    NumResults,
    Request,
    Response,
    ResponseBody,
    model_metadata,
    rounded,
)
from serving.endpoints.recommendations import JOB, RecommendedItem
from serving.recommending.catalogue import Catalogue, Mask
from serving.recommending.explain import similarity_reason
from serving.recommending.request_options import FILTERS, allowed_items, short_reason


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


def handle(champions: Champions, request: SimilarItemsRequest, now: datetime) -> ResponseBody:
    """The items most like one.

    Raises
    ------
    NotFound
        The model does not know the item.
    """
    catalogue, k = champions.require(JOB).catalogue, request.num_results
    column, filter_mask, allowed = check(champions, request)
    excluded, unknown = catalogue.columns_of(request.exclude)
    if len(excluded):
        allowed = np.ones(len(catalogue.item_ids), dtype=bool) if allowed is None else allowed.copy()
        allowed[excluded] = False
    ranked = (
        catalogue.similar_items(np.array([column]), k, allowed)
        if column >= 0
        else catalogue.similar_to_attributes(request.attributes, k, allowed)
    )
    count = int(ranked.valid[0])
    items: list[ResponseBody] = [
        {
            "item_id": catalogue.item_ids[found],
            "score": rounded(score),
            "rank": position + 1,
            "source": ranked.sources[source],
        }
        for position, (found, score, source) in enumerate(
            zip(
                ranked.ids[0, :count].tolist(),
                ranked.scores[0, :count].tolist(),
                ranked.source[0, :count].tolist(),
                strict=True,
            )
        )
    ]
    if request.explain:
        for item in items:
            other = catalogue.item_index[item["item_id"]]
            item["reasons"] = [
                similarity_reason(catalogue.shared_attributes(column, other)) if column >= 0 else "of the same kind"
            ]
    return {
        "recommendation_id": uuid.uuid4().hex,
        "item_id": request.item_id,
        "items": items,
        "unknown": unknown,
        "short_reason": explain_short_list(catalogue, column, filter_mask, allowed, count) if count < k else None,
        **model_metadata(JOB)(champions, now),
    }


def check(champions: Champions, request: SimilarItemsRequest) -> tuple[int, Mask | None, Mask | None]:
    """Where the item stands in the model (−1 for one that is told by its attributes), what passes the filters, and what of that can be had.

    Raises
    ------
    NotFound
        The item stands nowhere.
    InvalidRequest
        A filter or the attributes cannot be answered.
    """
    catalogue = champions.require(JOB).catalogue
    column = catalogue.item_index.get(request.item_id, -1)
    if column < 0 and not request.attributes:
        raise NotFound(
            "the model does not know the item",
            field="item_id",
            hint="an item that too few customers had (recommend.min_item_customers) is not in the model; say what it is in attributes",
        )
    if column < 0:
        catalogue.similar_to_attributes(request.attributes, 1, None)
    catalogue.similar  # noqa: B018 - whether any model can say
    return column, *allowed_items(catalogue, request.filters)


def explain_short_list(
    catalogue: Catalogue, column: int, filter_mask: Mask | None, allowed: Mask | None, count: int
) -> str:
    """What each step left."""
    itself: NDArray[np.int64] = np.array([column] if column >= 0 else [], dtype=np.int64)
    further = None if allowed is filter_mask else allowed
    steps = [
        ("filters leave", filter_mask),
        ("those that can be had and are not excluded are", further),
        ("beside the item itself", itself),
    ]
    return short_reason(catalogue, steps, count, (), count)


ENDPOINT = Endpoint(
    "/similar-items",
    "What is like an item",
    SimilarItemsRequest,
    SimilarItemsResponse,
    handle,
    model_metadata(JOB),
    check=check,
)
