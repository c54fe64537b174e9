"""JSON of one list, and the response fields that several endpoints share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from pydantic import BaseModel, Field

from serving.champions import Champion, Champions
from serving.recommending.explain import Explainer
from serving.recommending.plan import RecommendationPlan, ResolvedRequest
from serving.recommending.recent import RecentActivity
from serving.recommending.rows import RecommendedRows
from serving.responses import Response, ResponseBody, make_metadata, rounded

PROBABILITY_DIGITS = 12  # decimal places; further ones are rounding errors


class RecommendedItem(BaseModel):
    """One item of a list."""

    item_id: str
    score: float = Field(description="score of the model; decreases along the list unless re-ranking moves items")
    rank: int = Field(description="position in the list, from 1")
    source: str = Field(description="model that ranked the item, or promotion")
    reasons: list[str] | None = Field(None, description="only with explain")
    expected_on: str | None = Field(
        None, description="only in the scene replenish: day of the expected next purchase, null if unknown"
    )
    promotion: str | None = Field(None, description="name of the promotion; only for a promoted item")
    explored: bool | None = Field(None, description="only with exploration: whether the item was placed at random")
    propensity: float | None = Field(None, description="only with exploration: probability of this item at this slot")
    propensity_in_list: float | None = Field(
        None, description="only with exploration: probability of this item anywhere in the list"
    )


class IgnoredEvent(BaseModel):
    """An event that was not used."""

    index: int = Field(description="position in context.events, from 0")
    reason: str = Field(description="why it was not used")


class RankedResponse(Response):
    """Fields of every list of items for a customer."""

    recommendation_id: str
    user_id: str
    user_source: str | None
    one_id: str | None = Field(description="customer that the id resolves to, null for an unknown user")
    items: list[RecommendedItem]
    fallback: str | None = Field(
        description="null if every item was chosen for the customer (or for the context items), else the source that "
        "is the same for everybody"
    )
    unknown: list[str] = Field(description="item ids of the request that the model does not know")
    unknown_attributes: list[str] = Field(
        description="context attributes that were not in the training data, as name=value"
    )
    ignored_events: list[IgnoredEvent] | None = Field(None, description="only with events: events that were not used")
    recent_events: int | None = Field(
        None,
        description="number of accepted events since as_of that the list takes into account; only if there are any",
    )


def recommended_items(
    plan: RecommendationPlan, rows: RecommendedRows, reasons: Sequence[Sequence[str]] | None = None
) -> list[ResponseBody]:
    """Return the items of one list as in `RecommendedItem`; `reasons` holds one list per item."""
    item_ids, source_names = plan.catalogue.item_ids, rows.source_names
    columns, scores, sources = rows.columns.tolist(), rows.scores.tolist(), rows.sources.tolist()
    items: list[ResponseBody] = [
        {"item_id": item_ids[column], "score": score, "rank": position + 1, "source": source_names[source]}
        for position, (column, score, source) in enumerate(zip(columns, scores, sources, strict=True))
    ]
    if rows.expected_on is not None:
        for item, day in zip(items, rows.expected_on.tolist(), strict=True):
            item["expected_on"] = None if day is None else day.isoformat()
    if plan.rerank_options.promotions:
        for item, number in zip(items, rows.promotions.tolist(), strict=True):
            if number >= 0:
                item["promotion"] = plan.rerank_options.promotions[number].name
    if rows.exploration is not None:
        explored, *probabilities = (
            rows.gather(values).tolist()
            for values in (rows.exploration.explored, rows.exploration.propensity, rows.exploration.slate_propensity)
        )
        for item, was_explored, propensity, slate_propensity in zip(items, explored, *probabilities, strict=True):
            item["explored"] = bool(was_explored)
            item["propensity"] = rounded(propensity, PROBABILITY_DIGITS)
            item["propensity_in_list"] = rounded(slate_propensity, PROBABILITY_DIGITS)
    if reasons is not None:
        for item, item_reasons in zip(items, reasons, strict=True):
            item["reasons"] = list(item_reasons)
    return items


def list_response(plan: RecommendationPlan, rows: RecommendedRows, explain: bool) -> ResponseBody:
    """Return the response fields `items` and `fallback` of one customer's list."""
    reasons = explain_rows(plan, rows) if explain else None
    return {"items": recommended_items(plan, rows, reasons), "fallback": fallback_source(plan, rows)}


def fallback_source(plan: RecommendationPlan, rows: RecommendedRows) -> str | None:
    """Return the first non-personalized source in one customer's list, None if there is none; ignore promotions."""
    is_fallback = (False,) if plan.similar_to is not None else plan.catalogue.fallback_sources(plan.model)
    is_personalized = plan.is_personalized
    return next(
        (
            rows.source_names[source]
            for source, number in zip(rows.sources.tolist(), rows.promotions.tolist(), strict=True)
            if number < 0 and (not is_personalized or is_fallback[source])
        ),
        None,
    )


def explain_rows(plan: RecommendationPlan, rows: RecommendedRows) -> list[list[str]]:
    """Return the reasons for each item of one customer's list."""
    query = plan.query
    explainer = Explainer(
        plan.champion, int(query.users[0]), query.recent_interactions, query.elapsed_days, plan.context_items
    )
    exploration = rows.exploration
    explored = rows.gather(exploration.explored).tolist() if exploration is not None else [False] * len(rows)
    return [
        explainer.reasons(column, rows.source_names[source], promoted=number >= 0, explored=bool(was_explored))
        for column, source, number, was_explored in zip(
            rows.columns.tolist(), rows.sources.tolist(), rows.promotions.tolist(), explored, strict=True
        )
    ]


def unknown_attributes(champion: Champion, attributes: Mapping[str, str]) -> list[str]:
    """Return the attributes that were not in the training data, as ``name=value``."""
    known = champion.catalogue.known_attributes if attributes else frozenset()
    return [pair for pair in (f"{name}={value}" for name, value in attributes.items()) if pair not in known]


def event_fields(recent: RecentActivity | None, events: Sequence[object]) -> ResponseBody:
    """Return the response fields `ignored_events`, if the request has events, and `recent_events`, if any were used."""
    fields: ResponseBody = {}
    if recent is not None and events:
        fields["ignored_events"] = recent.ignored
    if recent is not None and recent.n_accepted:
        fields["recent_events"] = recent.n_accepted
    return fields


def list_metadata(champions: Champions, resolved: ResolvedRequest, now: datetime) -> ResponseBody:
    """Return the response fields `model`, `as_of` and `stale` of a list: with accepted events it is as new as these."""
    champion, recent = resolved.plan.champion, resolved.recent
    is_fresh = recent is not None and recent.n_accepted > 0
    return make_metadata(champions, champion, champion.bundle.as_of, now, is_fresh=is_fresh)
