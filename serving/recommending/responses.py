"""The rows of one list as JSON, and the parts of an answer that several endpoints give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import BaseModel, Field

from serving.champions import Champion
from serving.recommending.explain import Explainer
from serving.recommending.plan import RecommendationPlan, UserPlan
from serving.recommending.rows import RecommendedRows
from serving.responses import Response, ResponseBody, rounded

PROBABILITY_DIGITS = 12  # beyond them is the noise of adding two products


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


def items_json(
    plan: RecommendationPlan, rows: RecommendedRows, reasons: Sequence[Sequence[str]] | None = None
) -> list[ResponseBody]:
    """The items of one list, with a list of reasons for each where they are given."""
    item_ids, names = plan.catalogue.item_ids, rows.source_names
    columns, scores, sources = rows.columns.tolist(), rows.scores.tolist(), rows.sources.tolist()
    items: list[ResponseBody] = [
        {"item_id": item_ids[column], "score": score, "rank": position + 1, "source": names[source]}
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
            rows.of_entries(values).tolist()
            for values in (rows.exploration.explored, rows.exploration.propensity, rows.exploration.slate_propensity)
        )
        for item, was_explored, here, anywhere in zip(items, explored, *probabilities, strict=True):
            item["explored"] = bool(was_explored)
            item["propensity"] = rounded(here, PROBABILITY_DIGITS)
            item["propensity_in_list"] = rounded(anywhere, PROBABILITY_DIGITS)
    if reasons is not None:
        for item, own in zip(items, reasons, strict=True):
            item["reasons"] = list(own)
    return items


def list_response(plan: RecommendationPlan, rows: RecommendedRows, explain: bool) -> ResponseBody:
    """The list of one customer as `items` and `fallback`."""
    reasons = explain_rows(plan, rows) if explain else None
    return {"items": items_json(plan, rows, reasons), "fallback": fallback_of(plan, rows)}


def fallback_of(plan: RecommendationPlan, rows: RecommendedRows) -> str | None:
    """The first source in the list that knows nothing of the customer; None where there is none. Promotions do not count."""
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
    """The reasons for each item of one customer's list."""
    query = plan.query
    explainer = Explainer(
        plan.champion, int(query.users[0]), query.recent_interactions, query.elapsed_days, plan.context_items
    )
    explored = (
        rows.of_entries(rows.exploration.explored).tolist() if rows.exploration is not None else [False] * len(rows)
    )
    return [
        explainer.reasons(column, rows.source_names[source], promoted=number >= 0, explored=bool(was_explored))
        for column, source, number, was_explored in zip(
            rows.columns.tolist(), rows.sources.tolist(), rows.promotions.tolist(), explored, strict=True
        )
    ]


def unknown_attributes(champion: Champion, attributes: Mapping[str, str]) -> list[str]:
    """The attributes given that the model has never seen, as ``name=value``."""
    known = champion.catalogue.known_attributes if attributes else frozenset()
    return [pair for pair in (f"{name}={value}" for name, value in attributes.items()) if pair not in known]


def ignored_events(planned: UserPlan, events: Sequence[object]) -> ResponseBody:
    """The events of a request that do not count, where it has any."""
    return {"ignored_events": planned.recent.ignored} if events and planned.recent is not None else {}
