"""`/v1/rank`: the caller's own items, in the order this customer would want them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime

import numpy as np
from pydantic import Field

from models.recommend.scene import SCENES
from models.rerank import RerankOptions
from qianmian.errors import InvalidRequest
from serving.champions import Champions
from serving.endpoints.base import (
    AttributeValues,
    Endpoint,
    Identifier,
    ResponseBody,
    UserRequest,
    model_metadata,
    resolve_user,
    rounded,
)
from serving.endpoints.recommendations import (
    JOB,
    RankedResponse,
    RecommendationPlan,
    RecommendedItem,
    RequestContext,
    list_response,
    recent_activity_of,
    resolve_context_items,
    unknown_attributes,
)

MAX_ITEMS = 1_000
MAX_INLINE_ITEMS = 100
SCENE = SCENES["home"]


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


def make_plan(champions: Champions, request: RankRequest) -> RecommendationPlan:
    """Understand a request.

    Raises
    ------
    InvalidRequest
        Of several customers with that id none is meant, an event cannot be, or items are described that are not asked about.
    """
    requested_ids = set(request.item_ids)
    if stray := [item for item in request.attributes if item not in requested_ids]:
        raise InvalidRequest(
            "attributes are of items that are not to be ranked",
            got=", ".join(stray[:5]),
            field="attributes",
            hint="name them in item_ids too",
        )
    champion = champions.require(JOB)
    catalogue = champion.catalogue
    user, recent_interactions = resolve_user(champions, request), recent_activity_of(champion, request.context)
    resolve_context_items(catalogue, SCENE, request.context.items)
    columns, unknown = catalogue.columns_of(request.item_ids)
    allowed = np.zeros(len(catalogue.item_ids), dtype=bool)
    allowed[columns] = True
    nothing = np.empty(0, dtype=np.int64)
    if recent_interactions is not None:
        unknown = list(dict.fromkeys([*unknown, *recent_interactions.unknown]))
    return RecommendationPlan(
        user,
        champion,
        catalogue.model(SCENE.name),
        SCENE,
        catalogue.user_row(user.one_id),
        allowed,
        nothing,
        False,
        nothing,
        unknown,
        recent_interactions,
        RerankOptions(),
        [],
    )


def handle(champions: Champions, request: RankRequest, now: datetime) -> ResponseBody:
    """The same items, ranked."""
    plan = make_plan(champions, request)
    assert plan.allowed is not None
    k, attributes = int(plan.allowed.sum()), request.context.attributes
    listed: ResponseBody = {"items": [], "fallback": None}
    if k:
        listed = list_response(plan, plan.ranked(k, attributes), request.explain)
    new = new_items(plan, request.attributes, request.explain)
    named = {item["item_id"] for item in new or ()}
    response_body = {
        "recommendation_id": uuid.uuid4().hex,
        **plan.user.identity,
        **listed,
        **({} if new is None else {"new_items": new}),
        "unknown": [item for item in plan.unknown if item not in named],
        "unknown_attributes": unknown_attributes(plan.champion, attributes),
        **model_metadata(JOB)(champions, now),
    }
    if request.context.events and plan.recent_interactions is not None:
        response_body["ignored_events"] = plan.recent_interactions.ignored
    return response_body


def new_items(
    plan: RecommendationPlan, attributes: Mapping[str, AttributeValues], explain: bool
) -> list[ResponseBody] | None:
    """The items the model does not know, best first, by what they are; None where none is described or no model can tell."""
    new_item_attributes = {item: attributes[item] for item in plan.unknown if item in attributes}
    recent_interactions, elapsed_days = (
        (None, 0.0)
        if plan.recent_interactions is None
        else (plan.recent_interactions.interactions, plan.recent_interactions.elapsed_days)
    )
    found = (
        plan.catalogue.score_new_items(plan.row, list(new_item_attributes.values()), recent_interactions, elapsed_days)
        if new_item_attributes
        else None
    )
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
    """Why an item nobody had.

    Examples
    --------
    >>> new_item_reason("GROCERY/SOUP", True), new_item_reason("GROCERY/SOUP", False), new_item_reason("", False)
    ('new in SOUP, more to your taste than to most', 'new in SOUP', 'new')
    """
    kind = category.split("/")[-1]
    new = f"new in {kind}" if kind else "new"
    return f"{new}, more to your taste than to most" if liked else new


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
