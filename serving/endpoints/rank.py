"""`/v1/rank`: a given set of items, ranked for one customer."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Annotated

from pydantic import FailFast, Field

from models.recommend.scene import DEFAULT_SCENE, SCENES
from qianmian.errors import InvalidRequest
from serving import costs
from serving.champions import Champions
from serving.counting import counted_list
from serving.endpoints.base import Endpoint
from serving.recommending.new_items import new_items
from serving.recommending.pipeline import make_slate
from serving.recommending.plan import JOB, ResolvedRequest, resolve_request
from serving.recommending.request_options import RequestContext
from serving.recommending.responses import (
    RankedResponse,
    RecommendedItem,
    event_fields,
    list_metadata,
    list_response,
    unknown_attributes,
)
from serving.recommending.rows import make_rows
from serving.requests import AttributeValues, Identifier, Identifiers, UserRequest
from serving.responses import ResponseBody, model_metadata, new_recommendation_id

MAX_ITEMS = 1_000
SCENE = SCENES[DEFAULT_SCENE]
SCENE_MS = costs.SCENE_MS[DEFAULT_SCENE]


class RankRequest(UserRequest):
    """Rank a given set of items for one customer."""

    item_ids: Identifiers = Field(
        min_length=1, max_length=MAX_ITEMS, description="item ids to rank; duplicates count once"
    )
    attributes: Annotated[dict[Identifier, AttributeValues], FailFast()] = Field(
        default_factory=dict,
        max_length=MAX_ITEMS,
        description="attributes of items that the model may not know, by item id: "
        '{"new-soup": {"category": "GROCERY/SOUP", "brand": "A"}}',
    )
    context: RequestContext = Field(default_factory=RequestContext)
    explain: bool = Field(False, description="add reasons to each item")


class RankResponse(RankedResponse):
    """Known items, best first. Unknown items are in `new_items` if `attributes` describes them, else in `unknown`."""

    new_items: list[RecommendedItem] | None = Field(
        None,
        description="only with attributes: unknown items, ranked by the customer's preferences for their attributes; "
        "their scores are comparable only with each other",
    )


def resolve(champions: Champions, request: RankRequest, now: datetime | None = None) -> ResolvedRequest:
    """Resolve the ids of the request and plan the list; accepted events are read if `now` is given.

    Raises
    ------
    InvalidRequest
        If the user id is ambiguous, the context is invalid, or `attributes` names items that are not in `item_ids`.
    """
    listed = set(request.item_ids)
    if stray := [item for item in request.attributes if item not in listed]:
        raise InvalidRequest(
            "attributes describes items that are not in item_ids",
            got=", ".join(stray[:5]),
            field="attributes",
            hint="add them to item_ids",
        )
    return resolve_request(champions, request, SCENE, request.context, candidates=request.item_ids, now=now)


def handle(champions: Champions, request: RankRequest, now: datetime) -> ResponseBody:
    """Return the items of the request, ranked."""
    resolved = resolve(champions, request, now)
    plan, ranked_list = resolved.plan, ResponseBody(items=[], fallback=None)
    assert plan.allowed is not None
    if k := int(plan.allowed.sum()):
        ranked_list = list_response(plan, make_rows(plan, make_slate(plan, k)), request.explain)
    new = new_items(plan, resolved.unknown, request.attributes, request.explain)
    new_ids = {item["item_id"] for item in new or ()}
    return {
        "recommendation_id": new_recommendation_id(),
        **resolved.user.identity,
        **ranked_list,
        **({} if new is None else {"new_items": new}),
        "unknown": [item_id for item_id in resolved.unknown if item_id not in new_ids],
        "unknown_attributes": unknown_attributes(plan.champion, request.context.attributes),
        **list_metadata(champions, resolved, now),
        **event_fields(resolved.recent, request.context.events),
    }


def estimated_ms(request: RankRequest) -> float:
    """Cost of a request; the reasons of an item take longer than its rank."""
    ms = SCENE_MS + (costs.LONG_LIST_MS if len(request.item_ids) > costs.LONG_LIST else 0.0)
    each = costs.RANKED_ITEM_MS + (costs.REASON_MS if request.explain else 0.0)
    described = costs.DESCRIBED_ITEM_MS * len(request.attributes)
    return ms + each * len(request.item_ids) + described + costs.events_ms(request.context.events)


ENDPOINT = Endpoint(
    "/rank",
    "A given set of items, ranked for one customer",
    RankRequest,
    RankResponse,
    handle,
    model_metadata(JOB),
    estimated_ms,
    check=resolve,
    counted=partial(counted_list, "/rank"),
)
