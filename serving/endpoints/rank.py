"""`/v1/rank`: the caller's own items, in the order this customer would want them."""

from __future__ import annotations

import uuid
from datetime import datetime

from pydantic import Field

from models.recommend.scene import DEFAULT_SCENE, SCENES
from qianmian.errors import InvalidRequest
from serving.champions import Champions
from serving.endpoints.base import Endpoint
from serving.recommending.new_items import new_items
from serving.recommending.pipeline import make_slate
from serving.recommending.plan import JOB, UserPlan, plan_for_user
from serving.recommending.request_options import RequestContext
from serving.recommending.responses import (
    RankedResponse,
    RecommendedItem,
    ignored_events,
    list_response,
    unknown_attributes,
)
from serving.recommending.rows import make_rows
from serving.requests import AttributeValues, Identifier, UserRequest
from serving.responses import ResponseBody, model_metadata

MAX_ITEMS = 1_000
MAX_INLINE_ITEMS = 100
SCENE = SCENES[DEFAULT_SCENE]


class RankRequest(UserRequest):
    """The caller's own items, in the order this customer would want them."""

    item_ids: list[Identifier] = Field(
        min_length=1, max_length=MAX_ITEMS, description="items to put in order; doubles count once"
    )
    attributes: dict[Identifier, AttributeValues] = Field(
        default_factory=dict,
        max_length=MAX_ITEMS,
        description='what items are that the model may not know, by id: {"new-soup": {"category": "GROCERY/SOUP", "brand": "A"}}',
    )
    context: RequestContext = Field(default_factory=RequestContext)
    explain: bool = Field(False, description="give a reason in words with each item")


class RankResponse(RankedResponse):
    """Every item the model knows, best first; those it does not know but by `attributes` in `new_items`; the others in `unknown`."""

    new_items: list[RecommendedItem] | None = Field(
        None,
        description="only with attributes: items nobody had, by the customer's taste for what they are; scores compare with one another only",
    )


def make_plan(champions: Champions, request: RankRequest) -> UserPlan:
    """What the request means.

    Raises
    ------
    InvalidRequest
        The user id is ambiguous, an event is not possible, or attributes are of items that are not to be ranked.
    """
    listed = set(request.item_ids)
    if stray := [item for item in request.attributes if item not in listed]:
        raise InvalidRequest(
            "attributes are of items that are not to be ranked",
            got=", ".join(stray[:5]),
            field="attributes",
            hint="name them in item_ids too",
        )
    return plan_for_user(champions, request, SCENE, request.context, candidates=request.item_ids)


def handle(champions: Champions, request: RankRequest, now: datetime) -> ResponseBody:
    """The same items, ranked."""
    planned = make_plan(champions, request)
    plan, listed = planned.plan, ResponseBody(items=[], fallback=None)
    assert plan.allowed is not None
    if k := int(plan.allowed.sum()):
        listed = list_response(plan, make_rows(plan, make_slate(plan, k)), request.explain)
    new = new_items(plan, planned.unknown, request.attributes, request.explain)
    named = {item["item_id"] for item in new or ()}
    return {
        "recommendation_id": uuid.uuid4().hex,
        **planned.user.identity,
        **listed,
        **({} if new is None else {"new_items": new}),
        "unknown": [item for item in planned.unknown if item not in named],
        "unknown_attributes": unknown_attributes(plan.champion, request.context.attributes),
        **model_metadata(JOB)(champions, now),
        **ignored_events(planned, request.context.events),
    }


ENDPOINT = Endpoint(
    "/rank",
    "The caller's own items, ranked for one customer",
    RankRequest,
    RankResponse,
    handle,
    model_metadata(JOB),
    check=make_plan,
    runs_in_thread=lambda request: len(request.item_ids) > MAX_INLINE_ITEMS,
)
