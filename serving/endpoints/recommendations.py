"""`/v1/recommendations`: what to show one customer."""

from __future__ import annotations

import uuid
from datetime import datetime

from pydantic import BaseModel, Field, field_validator

from models.recommend.scene import DEFAULT_SCENE, SCENES
from models.rerank import quotas
from serving.champions import Champions
from serving.endpoints.base import Endpoint
from serving.recommending.pipeline import explain_short_list, make_slate, random_source
from serving.recommending.plan import JOB, UserPlan, plan_for_user
from serving.recommending.request_options import ListOptions, RequestContext
from serving.recommending.responses import RankedResponse, ignored_events, list_response, unknown_attributes
from serving.recommending.rows import make_rows
from serving.requests import MAX_IDS, MAX_RESULTS, Identifier, NumResults, UserRequest
from serving.responses import ResponseBody, make_metadata, model_metadata


class RecommendationsRequest(ListOptions, UserRequest):
    """What to show one customer."""

    num_results: NumResults = 10
    scene: str = Field(
        DEFAULT_SCENE,
        description="; ".join(f"{one.name}: {one.description}" for one in SCENES.values()),
        json_schema_extra={"enum": list(SCENES)},
    )
    exclude: list[Identifier] = Field(default_factory=list, max_length=MAX_IDS, description="items to leave out")
    context: RequestContext = Field(default_factory=RequestContext)
    explain: bool = Field(False, description="give a reason in words with each item")

    @field_validator("scene")
    @classmethod
    def _known_scene(cls, scene: str) -> str:
        if scene not in SCENES:
            raise ValueError(f"unknown scene; allowed: {', '.join(SCENES)}")
        return scene


class PromotionResult(BaseModel):
    """What became of a promotion."""

    name: str
    places: int = Field(description="its share of the places asked for")
    filled: int = Field(description="places it could fill")


class RecommendationsResponse(RankedResponse):
    """The list."""

    short_reason: str | None = Field(description="why there are fewer items than asked for, else null")
    promotions: list[PromotionResult] | None = Field(None, description="only with promotions")


def make_plan(champions: Champions, request: RecommendationsRequest) -> UserPlan:
    """What the request means.

    Raises
    ------
    InvalidRequest
        The user id is ambiguous, or the scene, a filter, a promotion or an event is not possible.
    """
    return plan_for_user(
        champions, request, SCENES[request.scene], request.context, exclude=request.exclude, options=request
    )


def handle(champions: Champions, request: RecommendationsRequest, now: datetime) -> ResponseBody:
    """The best items of one customer."""
    planned, recommendation_id = make_plan(champions, request), uuid.uuid4().hex
    plan, k = planned.plan, request.num_results
    slate = make_slate(plan, k, random_source(request.exploration, recommendation_id))
    rows = make_rows(plan, slate)
    response_body = {
        "recommendation_id": recommendation_id,
        **planned.user.identity,
        **list_response(plan, rows, request.explain),
        "unknown": planned.unknown,
        "unknown_attributes": unknown_attributes(plan.champion, request.context.attributes),
        "short_reason": explain_short_list(plan, slate) if len(rows) < k else None,
        **make_metadata(champions, plan.champion, plan.champion.bundle.as_of, now),
    }
    if request.promotions:
        wanted, got = quotas(plan.rerank_options.promotions, k), rows.promotions.tolist()
        response_body["promotions"] = [
            {"name": one.name, "places": wanted[number], "filled": got.count(number)}
            for number, one in enumerate(plan.rerank_options.promotions)
        ]
    return {**response_body, **ignored_events(planned, request.context.events)}


ENDPOINT = Endpoint(
    "/recommendations",
    "What to show one customer",
    RecommendationsRequest,
    RecommendationsResponse,
    handle,
    model_metadata(JOB),
    check=make_plan,
    runs_in_thread=lambda request: (
        request.num_results > MAX_RESULTS // 2 or bool(request.promotions or request.diversity or request.exploration)
    ),
)
