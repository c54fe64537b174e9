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
from models.rerank import Arranged, Controls, arrange, quotas
from qianmian.errors import InvalidRequest
from serving.champions import Champion, Champions
from serving.endpoints.base import (
    MAX_IDS,
    MAX_RESULTS,
    Answer,
    Asked,
    Attributes,
    Endpoint,
    Identifier,
    NumResults,
    Response,
    UserRequest,
    about_model,
    resolve_user,
    rounded,
    stamp,
)
from serving.recommending.catalogue import SIMILAR, Catalogue, Mask, both, expected_days
from serving.recommending.explain import Explainer
from serving.recommending.recent import Event, Since, since_of
from serving.recommending.request_options import ListOptions, Part, allowed_by, controls_of, purchased_of, short_reason

JOB = "recommend"
REPLENISH = "replenish"  # its items say when they are due
PROMOTION = "promotion"  # the source of promoted items
MAX_EVENTS = 1_000
PROBABILITY_DIGITS = 12  # beyond them is the noise of adding two products


class Context(Part):
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
    context: Context = Field(default_factory=Context)
    explain: bool = Field(False, description="give a reason in words with each item")

    @field_validator("scene")
    @classmethod
    def _known_scene(cls, scene: str) -> str:
        if scene not in SCENES:
            raise ValueError(f"unknown scene; allowed: {', '.join(SCENES)}")
        return scene


class Item(BaseModel):
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


class Placed(BaseModel):
    """What became of a promotion."""

    name: str
    places: int = Field(description="its share of the places asked for")
    filled: int = Field(description="places it could fill")


class Ignored(BaseModel):
    """An event that does not count."""

    index: int
    reason: str


class RankedResponse(Response):
    """What every list of items for a customer says."""

    recommendation_id: str
    user_id: str
    user_source: str | None
    one_id: str | None = Field(description="the customer behind the id, null for an unknown one")
    items: list[Item]
    fallback: str | None = Field(
        description="null when all is from the customer's own history, else the source that stood in"
    )
    unknown: list[str] = Field(description="item ids of the request that the model does not know")
    unknown_attributes: list[str] = Field(description="context attributes the model has never seen, as name=value")
    ignored_events: list[Ignored] | None = Field(None, description="only with events: those that do not count, and why")


class RecommendationsResponse(RankedResponse):
    """The list."""

    short_reason: str | None = Field(description="why there are fewer items than asked for, else null")
    promotions: list[Placed] | None = Field(None, description="only with promotions")


@dataclass(frozen=True)
class Plan:
    """A request understood: whom it is about, what may be shown, and what is done with the list.

    Attributes
    ----------
    allowed : ndarray of bool, (n_items,), or None
        What filters, availability and ``purchased: only`` let through.
    excluded : ndarray of int
        Columns left out.
    given : ndarray of int
        Columns of the items the list goes with.
    steps : list of (str, mask or columns)
        What each filter step does, for `short_reason`.
    """

    asked: Asked
    champion: Champion
    model: Recommender
    scene: Scene
    row: int
    allowed: Mask | None
    excluded: NDArray[np.int64]
    hides_purchased: bool
    given: NDArray[np.int64]
    unknown: list[str]
    since: Since | None
    controls: Controls
    steps: list[tuple[str, Mask | NDArray[np.integer[Any]] | None]]

    @property
    def catalogue(self) -> Catalogue:
        return self.champion.catalogue

    @property
    def by_likeness(self) -> bool:
        """No model was trained for similar items: they are those the first model that can compare items finds."""
        return self.scene.name == SIMILAR and not self.catalogue.trained(SIMILAR)

    @property
    def personal(self) -> bool:
        """Something is known that is this customer's own."""
        return bool(
            self.catalogue.has_history(self.row)
            or len(self.given)
            or (self.since is not None and self.since.interactions is not None)
        )

    def ranked(self, many: int, attributes: Attributes, items: Mask | None = None) -> Ranked:
        """The best items that may be shown, (1, many)."""
        allowed, since = both(self.allowed, items), self.since
        if self.by_likeness:
            return self.catalogue.like(self.given, many, allowed)
        return self.model.recommend(
            [self.row],
            many,
            allowed=allowed,
            exclude=[self.excluded],
            exclude_purchased=self.hides_purchased,
            attributes=[attributes or None],
            since=since.interactions if since is not None else None,
            later_days=since.later_days if since is not None else 0.0,
            items=[self.given] if len(self.given) else None,
        )


def plan(champions: Champions, request: RecommendationsRequest) -> Plan:
    """Understand a request.

    Raises
    ------
    InvalidRequest
        Of several customers with that id none is meant; or the scene, a filter, a promotion or an event cannot be.
    """
    asked, scene = resolve_user(champions, request), SCENES[request.scene]
    champion = champion_of(champions, scene)
    catalogue = champion.catalogue
    model, row = catalogue.model(scene.name), catalogue.user_row(asked.one_id)
    excluded, unknown = catalogue.columns_of(request.exclude)
    since = since_asked(champion, request.context)
    given = np.empty(0, dtype=np.int64)
    if request.context.items or (scene.name == SIMILAR and not catalogue.trained(SIMILAR)):
        given, unknown_items = items_asked(catalogue, scene, request.context.items)
        unknown = list(dict.fromkeys([*unknown, *unknown_items]))
        excluded = np.union1d(excluded, given)
    if since is not None and since.unknown:
        unknown = list(dict.fromkeys([*unknown, *since.unknown]))
    passing, allowed = allowed_by(catalogue, request.filters)
    steps: list[tuple[str, Mask | NDArray[np.integer[Any]] | None]] = [("filters leave", passing)]
    if allowed is not passing:
        steps.append(("those that can be had are", allowed))
    steps.append(("exclude leaves", excluded))
    purchased = purchased_of(scene, request.purchased)
    if purchased != "any":
        had = catalogue.had(row)
        if since is not None and since.interactions is not None:
            had = np.union1d(had, since.interactions.items)
        if purchased == "never":
            steps.append(("leaving out what the customer had leaves", had))
        else:
            only = np.zeros(len(catalogue.item_ids), dtype=bool)
            only[had] = True
            allowed = both(allowed, only)
            steps.append(("what the customer had is", only))
    understood = Plan(
        asked,
        champion,
        model,
        scene,
        row,
        allowed,
        excluded,
        purchased == "never",
        given,
        unknown,
        since,
        controls_of(catalogue, request),
        steps,
    )
    if not understood.by_likeness:
        return understood
    left = np.ones(len(catalogue.item_ids), dtype=bool) if allowed is None else allowed.copy()
    for _, columns in steps:
        if columns is not None and columns.dtype != bool:
            left[columns] = False
    return replace(understood, allowed=left)


def champion_of(champions: Champions, scene: Scene) -> Champion:
    """The champion that answers a scene; that of `recommend`, which says that none does, where there is no other.

    Raises
    ------
    NotReady
        There is not even that one.
    """
    return champions.models.get(scene.job) or champions.need(JOB)


def since_asked(champion: Champion, context: Context) -> Since | None:
    """What the context tells of the time after the fit; None where it tells nothing."""
    if not context.events and context.now is None:
        return None
    learns_from = str(champion.bundle.facts.get("interactions", "transactions"))
    return since_of(champion.catalogue, champion.bundle.as_of, learns_from, context.events, context.now)


def items_asked(catalogue: Catalogue, scene: Scene, item_ids: Sequence[str]) -> tuple[NDArray[np.int64], list[str]]:
    """Columns of the items a list goes with, and the ids the model does not know.

    Raises
    ------
    InvalidRequest
        The scene takes none, or nothing else says what the list should be like.
    """
    if item_ids and not scene.takes_items:
        goes = ", ".join(one.name for one in SCENES.values() if one.takes_items)
        raise InvalidRequest(
            f"a list for {scene.name} goes with no items", field="context.items", allowed=f"with the scenes {goes}"
        )
    given, unknown = catalogue.columns_of(item_ids)
    if scene.name == SIMILAR and not len(given) and not catalogue.trained(SIMILAR):
        raise InvalidRequest(
            "similar needs an item the model knows",
            got=", ".join(item_ids[:5]) or "none",
            field="context.items",
            hint="name it in context.items",
        )
    return given, unknown


def handle(champions: Champions, request: RecommendationsRequest, now: datetime) -> Answer:
    """The best items of one customer."""
    asked, recommendation_id = plan(champions, request), uuid.uuid4().hex
    attributes, k, arranged = request.context.attributes, request.num_results, None
    if asked.controls:
        arranged = arrange(
            lambda rows, many, items: asked.ranked(many, attributes, items),
            1,
            k,
            asked.controls,
            draws(request, recommendation_id, asked.controls),
        )
    ranked = arranged.ranked if arranged is not None else asked.ranked(k, attributes)
    answer = {
        "recommendation_id": recommendation_id,
        **asked.asked.identity,
        **list_answer(asked, ranked, request.explain, arranged),
        "unknown": asked.unknown,
        "unknown_attributes": unknown_attributes(asked.champion, attributes),
        "short_reason": why_short(asked, ranked, arranged) if int(ranked.valid[0]) < k else None,
        **stamp(champions, asked.champion, asked.champion.bundle.as_of, now),
    }
    if arranged is not None and request.promotions:
        wanted, got = quotas(asked.controls.promotions, k), arranged.promotion[0].tolist()
        answer["promotions"] = [
            {"name": one.name, "places": wanted[number], "filled": got.count(number)}
            for number, one in enumerate(asked.controls.promotions)
        ]
    if request.context.events and asked.since is not None:
        answer["ignored_events"] = asked.since.ignored
    return answer


def draws(request: RecommendationsRequest, recommendation_id: str, asked: Controls) -> NDArray[np.float64] | None:
    """All the chance there is in a list: from the seed of the request, else from the id of the answer, so that it can be repeated."""
    if request.exploration is None:
        return None
    seed = int(recommendation_id, 16) if request.exploration.seed is None else request.exploration.seed
    return np.random.default_rng(seed).random((1, asked.draws))


def list_answer(asked: Plan, ranked: Ranked, explain: bool, arranged: Arranged | None = None) -> Answer:
    """The first row of a ranking as `items` and `fallback`."""
    count = int(ranked.valid[0])
    item_ids, sources, personal = asked.catalogue.item_ids, ranked.sources, asked.personal
    stands_in = asked.catalogue.stand_ins(asked.model) if not asked.by_likeness else (False,)
    items: list[Answer] = []
    fallback = None
    explainer = explainer_of(asked) if explain else None
    more = extras(asked, arranged) if arranged is not None else None
    expected = expected_on(asked, ranked.ids[0, :count]) if asked.scene.name == REPLENISH else None
    entries = zip(
        ranked.ids[0, :count].tolist(),
        ranked.scores[0, :count].tolist(),
        ranked.source[0, :count].tolist(),
        strict=True,
    )
    for place, (column, score, number) in enumerate(entries):
        item: Answer = {
            "item_id": item_ids[column],
            "score": rounded(score),
            "rank": place + 1,
            "source": sources[number],
        }
        if expected is not None:
            item["expected_on"] = expected[place]
        if more is not None:
            item.update(more(place))
        if explainer is not None:
            promoted, drawn = PROMOTION in item, bool(item.get("explored"))
            item["reasons"] = explainer.reasons(column, sources[number], promoted=promoted, drawn=drawn)
        if fallback is None and PROMOTION not in item and (not personal or stands_in[number]):
            fallback = sources[number]
        items.append(item)
    return {"items": items, "fallback": fallback}


def extras(asked: Plan, arranged: Arranged) -> Callable[[int], Answer]:
    """What the controls say of the item at a place."""
    promotion, explored = arranged.promotion[0].tolist(), arranged.explored

    def of(place: int) -> Answer:
        found: Answer = {}
        if promotion[place] >= 0:
            found = {"source": PROMOTION, PROMOTION: asked.controls.promotions[promotion[place]].name}
        if explored is not None:
            found["explored"] = bool(explored.drawn[0, place])
            found["propensity"] = rounded(explored.propensity[0, place], PROBABILITY_DIGITS)
            found["propensity_in_list"] = rounded(explored.in_list[0, place], PROBABILITY_DIGITS)
        return found

    return of


def expected_on(asked: Plan, columns: NDArray[np.int32]) -> list[str | None]:
    """The day each item is expected to be wanted again; None where nobody knows, or what was bought since has changed it."""
    days = expected_days(asked.model, np.full(len(columns), asked.row), columns) if asked.row >= 0 else None
    if days is None:
        return [None] * len(columns)
    since = (
        asked.since.interactions.items
        if asked.since is not None and asked.since.interactions is not None
        else np.empty(0, np.int32)
    )
    days = np.where(np.isin(columns, since), np.nan, days)
    return [
        None if np.isnan(one) else f"{asked.champion.bundle.as_of + timedelta(days=one):%Y-%m-%d}"
        for one in days.tolist()
    ]


def explainer_of(asked: Plan) -> Explainer:
    """Who says why."""
    since = asked.since
    if since is None:
        return Explainer(asked.champion, asked.row, given=asked.given)
    return Explainer(asked.champion, asked.row, since.interactions, since.later_days, asked.given)


def unknown_attributes(champion: Champion, attributes: Attributes) -> list[str]:
    """The attributes given that the model has never seen, as ``name=value``."""
    known = champion.catalogue.known_attributes if attributes else frozenset()
    return [pair for pair in (f"{name}={value}" for name, value in attributes.items()) if pair not in known]


def why_short(asked: Plan, ranked: Ranked, arranged: Arranged | None) -> str:
    """What each step left, in the order they are applied."""
    had, kept = int(ranked.valid[0]), int(ranked.valid[0])
    if arranged is not None:
        had, kept = int(arranged.candidates[0]), int(arranged.ranked.valid[0])
    capped = [f"{cap.most} a {cap.name}" for cap in asked.controls.caps]
    return short_reason(asked.catalogue, asked.steps, had, capped, kept)


ENDPOINT = Endpoint(
    "/recommendations",
    "What to show one customer",
    RecommendationsRequest,
    RecommendationsResponse,
    handle,
    about_model(JOB),
    check=plan,
    heavy=lambda request: (
        request.num_results > MAX_RESULTS // 2 or bool(request.promotions or request.diversity or request.exploration)
    ),
)
