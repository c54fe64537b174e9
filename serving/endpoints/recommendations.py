"""`/v1/recommendations`: the items to show one customer."""

from __future__ import annotations

from datetime import datetime
from functools import partial

import orjson
from pydantic import BaseModel, Field, field_validator

from models.recommend.scene import DEFAULT_SCENE, SCENES
from models.rerank import Slate, quotas
from serving import costs
from serving.champions import Champion, Champions
from serving.counting import counted_list, list_counts
from serving.endpoints.base import Endpoint
from serving.metrics import Count, ignore
from serving.recommending.kept_lists import HIT, Key, ShownList
from serving.recommending.kept_lists import LENGTH as KEPT_LENGTH
from serving.recommending.pipeline import explain_short_list, make_slate, random_source
from serving.recommending.plan import JOB, ResolvedRequest, champion_for_scene, resolve_request
from serving.recommending.request_options import ListOptions, RequestContext, resolve_purchased
from serving.recommending.responses import (
    RankedResponse,
    event_fields,
    list_metadata,
    list_response,
    unknown_attributes,
)
from serving.recommending.rows import RecommendedRows, make_rows
from serving.requests import MAX_IDS, Identifiers, NumResults, UserRequest
from serving.responses import ResponseBody, is_stale, metadata_json, model_metadata, new_recommendation_id

ROUTE = "/recommendations"
KEPT_FIELDS = frozenset({"validate_only", "user_id", "user_source", "num_results", "scene", "purchased"})
PLAIN_FIELDS = KEPT_FIELDS - {"purchased"}


class RecommendationsRequest(ListOptions, UserRequest):
    """Recommend items to one customer."""

    num_results: NumResults = 10
    scene: str = Field(
        DEFAULT_SCENE,
        description="; ".join(f"{scene.name}: {scene.description}" for scene in SCENES.values()),
        json_schema_extra={"enum": list(SCENES)},
    )
    exclude: Identifiers = Field(default_factory=list, max_length=MAX_IDS, description="item ids to leave out")
    context: RequestContext = Field(default_factory=RequestContext)
    explain: bool = Field(False, description="add reasons to each item")

    @field_validator("scene")
    @classmethod
    def _known_scene(cls, scene: str) -> str:
        if scene not in SCENES:
            raise ValueError(f"unknown scene; allowed: {', '.join(SCENES)}")
        return scene


class PromotionResult(BaseModel):
    """How many slots a promotion filled."""

    name: str
    places: int = Field(description="slots that the promotion was entitled to")
    filled: int = Field(description="slots that it filled")


class RecommendationsResponse(RankedResponse):
    """A list of recommended items, best first."""

    short_reason: str | None = Field(description="why there are fewer items than requested, else null")
    promotions: list[PromotionResult] | None = Field(None, description="only with promotions")


def resolve(champions: Champions, request: RecommendationsRequest, now: datetime | None = None) -> ResolvedRequest:
    """Resolve the ids of the request and plan the list; accepted events are read if `now` is given.

    Raises
    ------
    InvalidRequest
        If the user id is ambiguous, or the scene, an option or the context is invalid.
    """
    return resolve_request(
        champions, request, SCENES[request.scene], request.context, exclude=request.exclude, options=request, now=now
    )


def handle(champions: Champions, request: RecommendationsRequest, now: datetime) -> ResponseBody:
    """Return the list of one customer."""
    resolved, recommendation_id = resolve(champions, request, now), new_recommendation_id()
    plan, k = resolved.plan, request.num_results
    slate = make_slate(plan, k, random_source(request.exploration, recommendation_id))
    rows = make_rows(plan, slate)
    response_body = {
        "recommendation_id": recommendation_id,
        **resolved.user.identity,
        **list_fields(request, resolved, slate, rows),
        **list_metadata(champions, resolved, now),
    }
    if request.promotions:
        places, placed_by = quotas(plan.rerank_options.promotions, k), rows.promotions.tolist()
        response_body["promotions"] = [
            {"name": promotion.name, "places": places[number], "filled": placed_by.count(number)}
            for number, promotion in enumerate(plan.rerank_options.promotions)
        ]
    return {**response_body, **event_fields(resolved.recent, request.context.events)}


def list_fields(
    request: RecommendationsRequest, resolved: ResolvedRequest, slate: Slate, rows: RecommendedRows
) -> ResponseBody:
    """Return the fields of the response that follow from the plan of the list."""
    plan = resolved.plan
    return {
        **list_response(plan, rows, request.explain),
        "unknown": resolved.unknown,
        "unknown_attributes": unknown_attributes(plan.champion, request.context.attributes),
        "short_reason": explain_short_list(plan, slate) if len(rows) < request.num_results else None,
    }


def estimated_ms(request: RecommendationsRequest) -> float:
    """Cost of a request whose list is computed."""
    k, given = request.num_results, request.model_fields_set
    ms = costs.SCENE_MS.get(request.scene, costs.OTHER_SCENE_MS)
    if k > costs.LONG_LIST:
        ms += costs.LONG_LIST_MS
    if given <= PLAIN_FIELDS:
        return ms
    if request.purchased is not None and request.purchased != SCENES[request.scene].purchased[0]:
        ms += costs.PURCHASED_MS
    ms += costs.filter_ms(request.filters, request.exclude)
    if request.explain:
        ms += costs.REASONS_MS + costs.REASON_MS * k
    if request.exploration is not None:
        ms += costs.EXPLORATION_MS + costs.POOL_ITEM_MS * request.exploration.pool
    if request.diversity is not None:
        ms += costs.CAPS_MS if request.diversity.max_per else 0.0
        ms += costs.SIMILARITY_MS + costs.SIMILAR_ITEM_MS * k if request.diversity.mmr is not None else 0.0
    return ms + costs.PROMOTION_MS * len(request.promotions) + costs.events_ms(request.context.events)


def is_kept(champions: Champions, request: RecommendationsRequest) -> bool:
    """Whether the list of a request is kept."""
    if request.num_results > KEPT_LENGTH or not request.model_fields_set <= KEPT_FIELDS:
        return False
    champion = champion_for_scene(champions, SCENES[request.scene])
    one_id = champions.resolve(request.user_id, request.user_source)
    if champions.live is not None and champions.live.has_any(one_id, request.user_id):
        return False
    return _key(champion, one_id, request) in champions.kept_lists


def _key(champion: Champion, one_id: str | None, request: RecommendationsRequest) -> Key:
    """What a list that may be kept depends on."""
    scene = SCENES[request.scene]
    return scene.name, champion.catalogue.user_row(one_id), resolve_purchased(scene, request.purchased)


def ready_json(
    champions: Champions, request: RecommendationsRequest, now: datetime, count: Count = ignore
) -> bytes | None:
    """Return the response to a request whose list may be kept, put together from JSON that is kept; else None."""
    if not request.model_fields_set <= KEPT_FIELDS or request.validate_only:
        return None
    scene = SCENES[request.scene]
    champion = champion_for_scene(champions, scene)
    if not champion.catalogue.trained(scene.name):
        return None
    one_id = champions.resolve(request.user_id, request.user_source)
    if champions.live is not None and champions.live.has_any(one_id, request.user_id):
        return None
    key = _key(champion, one_id, request)
    shown = champions.kept_lists.shown(key, request.num_results)
    if shown is None:
        resolved = resolve(champions, request)
        if resolved.plan.kept is None or resolved.user.one_id != one_id:  # somebody has logged in from the id meanwhile
            return None
        slate = make_slate(resolved.plan, request.num_results)
        rows = make_rows(resolved.plan, slate)
        # without braces: a slice is as long as its text, while orjson's buffers of 4 KB stay as long as they were
        fields = list_fields(request, resolved, slate, rows)
        counts = list_counts(ROUTE, scene.name, fields, champion.name, champion.version)
        shown = ShownList(orjson.dumps(fields, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1], *counts)
        champions.kept_lists.keep_shown(key, request.num_results, shown, resolved.plan.catalogue.version)
    else:
        count(HIT)
    stale = is_stale(champions, champion.bundle.as_of, now)
    count(shown.stale_counts if stale else shown.counts)
    identity = orjson.dumps(
        {
            "recommendation_id": new_recommendation_id(),
            "user_id": request.user_id,
            "user_source": request.user_source,
            "one_id": one_id,
        }
    )
    return b",".join((identity[:-1], shown.json, metadata_json(champion, stale)[1:]))


ENDPOINT = Endpoint(
    ROUTE,
    "Items to show one customer",
    RecommendationsRequest,
    RecommendationsResponse,
    handle,
    model_metadata(JOB),
    estimated_ms,
    check=resolve,
    is_kept=is_kept,
    ready_json=ready_json,
    counted=partial(counted_list, ROUTE),
)
