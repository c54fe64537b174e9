"""`/v1/recommendations`: what to show one customer."""

from __future__ import annotations

import uuid
from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator

from models.ranked import Ranked
from serving.answers.base import (
    MAX_IDS,
    MAX_RESULTS,
    Answer,
    Attributes,
    Endpoint,
    Identifier,
    NumResults,
    Response,
    UserRequest,
    about_model,
    resolve_user,
    rounded,
)  # fmt: skip
from serving.answers.reasons import item_reasons
from serving.catalogue import MATCHERS
from serving.champions import Champion, Champions
from serving.scenes import SCENES

JOB = "recommend"
Values = Identifier | list[Identifier]


class Filters(BaseModel):
    """Only items with one of these values; a category also lets through everything below it."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    category: Values | None = Field(None, description="a whole category path or the beginning of one: GROCERY or GROCERY/SOUP")
    brand: Values | None = None

    def as_lists(self) -> dict[str, list[str]]:
        """The filters that are set, each as a list of values."""
        given = {name: getattr(self, name) for name in MATCHERS}
        return {name: [value] if isinstance(value, str) else list(value) for name, value in given.items() if value is not None}


class Context(BaseModel):
    """What the caller knows of the moment and of a customer the model does not know."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    attributes: dict[Identifier, str] = Field(
        default_factory=dict, max_length=50, description='profile attributes of a customer without history: {"age_band": "25-34"}'
    )


class RecommendationsRequest(UserRequest):
    """What to show one customer."""

    num_results: NumResults = 10
    scene: str = Field("home", description="home or discover", json_schema_extra={"enum": list(SCENES)})
    filters: Filters = Field(default_factory=Filters)
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
    score: float = Field(description="falls along the list; comparable within one list only")
    rank: int = Field(description="1 is best")
    source: str = Field(description="the model of the fallback chain that put it there")
    reasons: list[str] | None = Field(None, description="only with explain")


class RankedResponse(Response):
    """What every list of items for a customer says."""

    recommendation_id: str
    user_id: str
    user_source: str | None
    one_id: str | None = Field(description="the customer behind the id, null for an unknown one")
    items: list[Item]
    fallback: str | None = Field(description="null when all is from the customer's own history, else the source that stood in")
    unknown: list[str] = Field(description="item ids of the request that the model does not know")
    unknown_attributes: list[str] = Field(description="context attributes the model has never seen, as name=value")


class RecommendationsResponse(RankedResponse):
    """The list."""

    short_reason: str | None = Field(description="why there are fewer items than asked for, else null")


def handle(champions: Champions, request: RecommendationsRequest, now: datetime) -> Answer:
    """The best items of one customer."""
    champion = champions.need(JOB)
    catalogue = champion.catalogue
    asked = resolve_user(champions, request)
    row = catalogue.user_row(asked.one_id)
    filters = request.filters.as_lists()
    allowed = catalogue.allowed(filters) if filters else None
    excluded, unknown = catalogue.columns_of(request.exclude)
    scene = SCENES[request.scene]
    ranked = champion.bundle.model.recommend(
        [row], request.num_results, allowed=allowed, exclude=[excluded], exclude_purchased=scene.exclude_purchased,
        attributes=[request.context.attributes or None],
    )  # fmt: skip
    answer = list_answer(champion, ranked, row, request.explain)
    short = int(ranked.valid[0]) < request.num_results
    return {
        "recommendation_id": uuid.uuid4().hex, **asked.identity, **answer, "unknown": unknown,
        "unknown_attributes": unknown_attributes(champion, request.context.attributes),
        "short_reason": short_reason(champion, row, allowed, excluded, scene.exclude_purchased) if short else None,
        **about_model(JOB)(champions, now),
    }  # fmt: skip


def list_answer(champion: Champion, ranked: Ranked, row: int, explain: bool) -> Answer:
    """The first row of a ranking as `items` and `fallback`."""
    count = int(ranked.valid[0])
    item_ids, sources = champion.catalogue.item_ids, ranked.sources
    items: list[Answer] = []
    entries = zip(ranked.ids[0, :count].tolist(), ranked.scores[0, :count].tolist(), ranked.source[0, :count].tolist(), strict=True)
    for place, (column, score, source) in enumerate(entries):
        item: Answer = {"item_id": item_ids[column], "score": rounded(score), "rank": place + 1, "source": sources[source]}
        if explain:
            item["reasons"] = item_reasons(champion, row, column, sources[source])
        items.append(item)
    stood_in = (item["source"] for item in items if not champion.catalogue.from_history(row, item["source"]))
    return {"items": items, "fallback": next(stood_in, None)}


def unknown_attributes(champion: Champion, attributes: Attributes) -> list[str]:
    """The attributes given that the model has never seen, as ``name=value``."""
    known = champion.catalogue.known_attributes if attributes else frozenset()
    return [pair for pair in (f"{name}={value}" for name, value in attributes.items()) if pair not in known]


def short_reason(
    champion: Champion, row: int, allowed: NDArray[np.bool_] | None, excluded: NDArray[np.int64], exclude_purchased: bool
) -> str:
    """Why a list is shorter than asked: what each filter leaves, in the order they are applied."""
    total = len(champion.catalogue.item_ids)
    left = np.ones(total, dtype=bool) if allowed is None else allowed.copy()
    told = [f"the model knows {total} items"]
    if allowed is not None:
        told.append(f"filters leave {int(left.sum())}")
    if len(excluded):
        left[excluded] = False
        told.append(f"exclude leaves {int(left.sum())}")
    if exclude_purchased and row >= 0:
        left[champion.bundle.model.history_[row].indices] = False
        told.append(f"leaving out what the customer had leaves {int(left.sum())}")
    return ", ".join(told)


ENDPOINT = Endpoint(
    "/recommendations", "What to show one customer", RecommendationsRequest, RecommendationsResponse, handle, about_model(JOB),
    check=resolve_user, heavy=lambda request: request.num_results > MAX_RESULTS // 2,
)  # fmt: skip
