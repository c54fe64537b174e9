"""`/v1/recommendations`: what to show one customer."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, field_validator

from models.ranked import Ranked
from models.recommend.base import Recommender
from models.recommend.scene import SCENES, Scene
from models.rerank import RerankOptions, Slate, quotas, rerank
from qianmian.errors import InvalidRequest
from serving.champions import Champion, Champions
from serving.endpoints.base import (
    MAX_IDS,
    MAX_RESULTS,
    Endpoint,
    Identifier,
    NumResults,
    ResolvedUser,
    Response,
    ResponseBody,
    UserAttributes,
    UserRequest,
    make_metadata,
    model_metadata,
    resolve_user,
    rounded,
)
from serving.recommending.catalogue import SIMILAR, Catalogue, Mask, combine_masks, expected_days
from serving.recommending.explain import Explainer
from serving.recommending.recent import Event, RecentActivity, recent_activity
from serving.recommending.request_options import (
    ListOptions,
    RequestModel,
    allowed_items,
    rerank_options_for,
    resolve_purchased,
    short_reason,
)

JOB = "recommend"
REPLENISH = "replenish"  # its items say when they are due
PROMOTION = "promotion"  # the source of promoted items
MAX_EVENTS = 1_000
PROBABILITY_DIGITS = 12  # beyond them is the noise of adding two products


class RequestContext(RequestModel):
    """What the caller knows of the moment and of a customer the model does not know."""

    attributes: dict[Identifier, str] = Field(
        default_factory=dict,
        max_length=50,
        description='profile attributes of a customer without history: {"age_band": "25-34"}',
    )
    items: list[Identifier] = Field(
        default_factory=list,
        max_length=MAX_EVENTS,
        description="what the list should go with (complement, upgrade, similar): the basket, or an item",
    )
    events: list[Event] = Field(
        default_factory=list, max_length=MAX_EVENTS, description="what the customer did since the model's as_of"
    )
    now: str | None = Field(
        None,
        max_length=40,
        description="the moment to answer for, ISO 8601; default the last event's, without events as_of",
    )


class RecommendationsRequest(ListOptions, UserRequest):
    """What to show one customer."""

    num_results: NumResults = 10
    scene: str = Field(
        "home",
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


class RecommendedItem(BaseModel):
    """One item of a list."""

    item_id: str
    score: float = Field(
        description="the model's; falls along the list unless diversity, promotions or exploration moved items"
    )
    rank: int = Field(description="1 is best")
    source: str = Field(description="the model that put it there, or promotion")
    reasons: list[str] | None = Field(None, description="only with explain")
    expected_on: str | None = Field(
        None, description="only in replenish: the day on which the customer is expected to want it again, if known"
    )
    promotion: str | None = Field(None, description="only for a promoted item: which promotion")
    explored: bool | None = Field(None, description="only with exploration: it was drawn, not ranked there")
    propensity: float | None = Field(None, description="only with exploration: probability of this item at this place")
    propensity_in_list: float | None = Field(
        None, description="only with exploration: probability of this item anywhere in the list"
    )


class PromotionResult(BaseModel):
    """What became of a promotion."""

    name: str
    places: int = Field(description="its share of the places asked for")
    filled: int = Field(description="places it could fill")


class IgnoredEvent(BaseModel):
    """An event that does not count."""

    index: int
    reason: str


class RankedResponse(Response):
    """What every list of items for a customer says."""

    recommendation_id: str
    user_id: str
    user_source: str | None
    one_id: str | None = Field(description="the customer behind the id, null for an unknown one")
    items: list[RecommendedItem]
    fallback: str | None = Field(
        description="null when all is from the customer's own history, else the source that stood in"
    )
    unknown: list[str] = Field(description="item ids of the request that the model does not know")
    unknown_attributes: list[str] = Field(description="context attributes the model has never seen, as name=value")
    ignored_events: list[IgnoredEvent] | None = Field(
        None, description="only with events: those that do not count, and why"
    )


class RecommendationsResponse(RankedResponse):
    """The list."""

    short_reason: str | None = Field(description="why there are fewer items than asked for, else null")
    promotions: list[PromotionResult] | None = Field(None, description="only with promotions")


@dataclass(frozen=True)
class RecommendationPlan:
    """A request understood: whom it is about, what may be shown, and what is done with the list.

    Attributes
    ----------
    allowed : ndarray of bool, (n_items,), or None
        What filters, availability and ``purchased: only`` let through.
    excluded : ndarray of int
        Columns left out.
    context_items : ndarray of int
        Columns of the items the list goes with.
    steps : list of (str, mask or columns)
        What each filter step does, for `short_reason`.
    """

    user: ResolvedUser
    champion: Champion
    model: Recommender
    scene: Scene
    row: int
    allowed: Mask | None
    excluded: NDArray[np.int64]
    exclude_purchased: bool
    context_items: NDArray[np.int64]
    unknown: list[str]
    recent_interactions: RecentActivity | None
    rerank_options: RerankOptions
    steps: list[tuple[str, Mask | NDArray[np.integer[Any]] | None]]

    @property
    def catalogue(self) -> Catalogue:
        return self.champion.catalogue

    @property
    def uses_similar_items(self) -> bool:
        """No model was trained for similar items: they are those the first model that can compare items finds."""
        return self.scene.name == SIMILAR and not self.catalogue.trained(SIMILAR)

    @property
    def is_personalized(self) -> bool:
        """Something is known that is this customer's own."""
        return bool(
            self.catalogue.has_history(self.row)
            or len(self.context_items)
            or (self.recent_interactions is not None and self.recent_interactions.interactions is not None)
        )

    def ranked(self, n_candidates: int, attributes: UserAttributes, items: Mask | None = None) -> Ranked:
        """The best items that may be shown, (1, many)."""
        allowed, recent_interactions = combine_masks(self.allowed, items), self.recent_interactions
        if self.uses_similar_items:
            return self.catalogue.similar_items(self.context_items, n_candidates, allowed)
        return self.model.recommend(
            [self.row],
            n_candidates,
            allowed=allowed,
            exclude=[self.excluded],
            exclude_purchased=self.exclude_purchased,
            attributes=[attributes or None],
            recent_interactions=recent_interactions.interactions if recent_interactions is not None else None,
            elapsed_days=recent_interactions.elapsed_days if recent_interactions is not None else 0.0,
            items=[self.context_items] if len(self.context_items) else None,
        )


def make_plan(champions: Champions, request: RecommendationsRequest) -> RecommendationPlan:
    """Understand a request.

    Raises
    ------
    InvalidRequest
        Of several customers with that id none is meant; or the scene, a filter, a promotion or an event cannot be.
    """
    user, scene = resolve_user(champions, request), SCENES[request.scene]
    champion = champion_for_scene(champions, scene)
    catalogue = champion.catalogue
    model, row = catalogue.model(scene.name), catalogue.user_row(user.one_id)
    excluded, unknown = catalogue.columns_of(request.exclude)
    recent_interactions = recent_activity_of(champion, request.context)
    context_items = np.empty(0, dtype=np.int64)
    if request.context.items or (scene.name == SIMILAR and not catalogue.trained(SIMILAR)):
        context_items, unknown_items = resolve_context_items(catalogue, scene, request.context.items)
        unknown = list(dict.fromkeys([*unknown, *unknown_items]))
        excluded = np.union1d(excluded, context_items)
    if recent_interactions is not None and recent_interactions.unknown:
        unknown = list(dict.fromkeys([*unknown, *recent_interactions.unknown]))
    filter_mask, allowed = allowed_items(catalogue, request.filters)
    steps: list[tuple[str, Mask | NDArray[np.integer[Any]] | None]] = [("filters leave", filter_mask)]
    if allowed is not filter_mask:
        steps.append(("those that can be had are", allowed))
    steps.append(("exclude leaves", excluded))
    purchased = resolve_purchased(scene, request.purchased)
    if purchased != "any":
        interacted = catalogue.interacted(row)
        if recent_interactions is not None and recent_interactions.interactions is not None:
            interacted = np.union1d(interacted, recent_interactions.interactions.items)
        if purchased == "never":
            steps.append(("leaving out what the customer had leaves", interacted))
        else:
            only = np.zeros(len(catalogue.item_ids), dtype=bool)
            only[interacted] = True
            allowed = combine_masks(allowed, only)
            steps.append(("what the customer had is", only))
    plan = RecommendationPlan(
        user,
        champion,
        model,
        scene,
        row,
        allowed,
        excluded,
        purchased == "never",
        context_items,
        unknown,
        recent_interactions,
        rerank_options_for(catalogue, request),
        steps,
    )
    if not plan.uses_similar_items:
        return plan
    left = np.ones(len(catalogue.item_ids), dtype=bool) if allowed is None else allowed.copy()
    for _, columns in steps:
        if columns is not None and columns.dtype != bool:
            left[columns] = False
    return replace(plan, allowed=left)


def champion_for_scene(champions: Champions, scene: Scene) -> Champion:
    """The champion that answers a scene; that of `recommend`, which says that none does, where there is no other.

    Raises
    ------
    NotReady
        There is not even that one.
    """
    return champions.models.get(scene.job) or champions.require(JOB)


def recent_activity_of(champion: Champion, context: RequestContext) -> RecentActivity | None:
    """What the context tells of the time after the fit; None where it tells nothing."""
    if not context.events and context.now is None:
        return None
    interaction_source = str(champion.bundle.facts.get("interactions", "transactions"))
    return recent_activity(champion.catalogue, champion.bundle.as_of, interaction_source, context.events, context.now)


def resolve_context_items(
    catalogue: Catalogue, scene: Scene, item_ids: Sequence[str]
) -> tuple[NDArray[np.int64], list[str]]:
    """Columns of the items a list goes with, and the ids the model does not know.

    Raises
    ------
    InvalidRequest
        The scene takes none, or nothing else says what the list should be like.
    """
    if item_ids and not scene.accepts_items:
        goes = ", ".join(one.name for one in SCENES.values() if one.accepts_items)
        raise InvalidRequest(
            f"a list for {scene.name} goes with no items", field="context.items", allowed=f"with the scenes {goes}"
        )
    context_items, unknown = catalogue.columns_of(item_ids)
    if scene.name == SIMILAR and not len(context_items) and not catalogue.trained(SIMILAR):
        raise InvalidRequest(
            "similar needs an item the model knows",
            got=", ".join(item_ids[:5]) or "none",
            field="context.items",
            hint="name it in context.items",
        )
    return context_items, unknown


def handle(champions: Champions, request: RecommendationsRequest, now: datetime) -> ResponseBody:
    """The best items of one customer."""
    plan, recommendation_id = make_plan(champions, request), uuid.uuid4().hex
    attributes, k, slate = request.context.attributes, request.num_results, None
    if plan.rerank_options:
        slate = rerank(
            lambda rows, n_candidates, items: plan.ranked(n_candidates, attributes, items),
            1,
            k,
            plan.rerank_options,
            draws(request, recommendation_id, plan.rerank_options),
        )
    ranked = slate.ranked if slate is not None else plan.ranked(k, attributes)
    response_body = {
        "recommendation_id": recommendation_id,
        **plan.user.identity,
        **list_response(plan, ranked, request.explain, slate),
        "unknown": plan.unknown,
        "unknown_attributes": unknown_attributes(plan.champion, attributes),
        "short_reason": explain_short_list(plan, ranked, slate) if int(ranked.valid[0]) < k else None,
        **make_metadata(champions, plan.champion, plan.champion.bundle.as_of, now),
    }
    if slate is not None and request.promotions:
        wanted, got = quotas(plan.rerank_options.promotions, k), slate.promotion[0].tolist()
        response_body["promotions"] = [
            {"name": one.name, "places": wanted[number], "filled": got.count(number)}
            for number, one in enumerate(plan.rerank_options.promotions)
        ]
    if request.context.events and plan.recent_interactions is not None:
        response_body["ignored_events"] = plan.recent_interactions.ignored
    return response_body


def draws(
    request: RecommendationsRequest, recommendation_id: str, rerank_options: RerankOptions
) -> NDArray[np.float64] | None:
    """All the chance there is in a list: from the seed of the request, else from the id of the answer, so that it can be repeated."""
    if request.exploration is None:
        return None
    seed = int(recommendation_id, 16) if request.exploration.seed is None else request.exploration.seed
    return np.random.default_rng(seed).random((1, rerank_options.draws))


def list_response(plan: RecommendationPlan, ranked: Ranked, explain: bool, slate: Slate | None = None) -> ResponseBody:
    """The first row of a ranking as `items` and `fallback`."""
    count = int(ranked.valid[0])
    item_ids, sources, is_personalized = plan.catalogue.item_ids, ranked.sources, plan.is_personalized
    is_fallback = plan.catalogue.fallback_sources(plan.model) if not plan.uses_similar_items else (False,)
    items: list[ResponseBody] = []
    fallback = None
    explainer = make_explainer(plan) if explain else None
    more = rerank_fields(plan, slate) if slate is not None else None
    expected = expected_on(plan, ranked.ids[0, :count]) if plan.scene.name == REPLENISH else None
    entries = zip(
        ranked.ids[0, :count].tolist(),
        ranked.scores[0, :count].tolist(),
        ranked.source[0, :count].tolist(),
        strict=True,
    )
    for position, (column, score, number) in enumerate(entries):
        item: ResponseBody = {
            "item_id": item_ids[column],
            "score": rounded(score),
            "rank": position + 1,
            "source": sources[number],
        }
        if expected is not None:
            item["expected_on"] = expected[position]
        if more is not None:
            item.update(more(position))
        if explainer is not None:
            promoted, explored = PROMOTION in item, bool(item.get("explored"))
            item["reasons"] = explainer.reasons(column, sources[number], promoted=promoted, explored=explored)
        if fallback is None and PROMOTION not in item and (not is_personalized or is_fallback[number]):
            fallback = sources[number]
        items.append(item)
    return {"items": items, "fallback": fallback}


def rerank_fields(plan: RecommendationPlan, slate: Slate) -> Callable[[int], ResponseBody]:
    """What the controls say of the item at a place."""
    promotion, exploration = slate.promotion[0].tolist(), slate.exploration_result

    def of(position: int) -> ResponseBody:
        found: ResponseBody = {}
        if promotion[position] >= 0:
            found = {"source": PROMOTION, PROMOTION: plan.rerank_options.promotions[promotion[position]].name}
        if exploration is not None:
            found["explored"] = bool(exploration.explored[0, position])
            found["propensity"] = rounded(exploration.propensity[0, position], PROBABILITY_DIGITS)
            found["propensity_in_list"] = rounded(exploration.slate_propensity[0, position], PROBABILITY_DIGITS)
        return found

    return of


def expected_on(plan: RecommendationPlan, columns: NDArray[np.int32]) -> list[str | None]:
    """The day each item is expected to be wanted again; None where nobody knows, or what was bought since has changed it."""
    days = expected_days(plan.model, np.full(len(columns), plan.row), columns) if plan.row >= 0 else None
    if days is None:
        return [None] * len(columns)
    recent_interactions = (
        plan.recent_interactions.interactions.items
        if plan.recent_interactions is not None and plan.recent_interactions.interactions is not None
        else np.empty(0, np.int32)
    )
    days = np.where(np.isin(columns, recent_interactions), np.nan, days)
    return [
        None if np.isnan(one) else f"{plan.champion.bundle.as_of + timedelta(days=one):%Y-%m-%d}"
        for one in days.tolist()
    ]


def make_explainer(plan: RecommendationPlan) -> Explainer:
    """Who says why."""
    recent_interactions = plan.recent_interactions
    if recent_interactions is None:
        return Explainer(plan.champion, plan.row, context_items=plan.context_items)
    return Explainer(
        plan.champion, plan.row, recent_interactions.interactions, recent_interactions.elapsed_days, plan.context_items
    )


def unknown_attributes(champion: Champion, attributes: UserAttributes) -> list[str]:
    """The attributes given that the model has never seen, as ``name=value``."""
    known = champion.catalogue.known_attributes if attributes else frozenset()
    return [pair for pair in (f"{name}={value}" for name, value in attributes.items()) if pair not in known]


def explain_short_list(plan: RecommendationPlan, ranked: Ranked, slate: Slate | None) -> str:
    """What each step left, in the order they are applied."""
    scored, kept = int(ranked.valid[0]), int(ranked.valid[0])
    if slate is not None:
        scored, kept = int(slate.candidates[0]), int(slate.ranked.valid[0])
    capped = [f"{cap.limit} a {cap.name}" for cap in plan.rerank_options.caps]
    return short_reason(plan.catalogue, plan.steps, scored, capped, kept)


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
