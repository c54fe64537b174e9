"""`/v1/similar-items`: what goes with an item."""

from __future__ import annotations

import uuid
from datetime import datetime

from pydantic import Field

from qianmian.errors import NotFound, NotReady
from serving.answers.base import Answer, Endpoint, Identifier, NumResults, Request, Response, about_model, rounded
from serving.answers.recommendations import JOB, Item
from serving.champions import Champion, Champions


class SimilarItemsRequest(Request):
    """What goes with an item."""

    item_id: Identifier
    num_results: NumResults = 10
    explain: bool = Field(False, description="give a reason in words with each item")


class SimilarItemsResponse(Response):
    """Items with the same kind of customers, most alike first, the item itself left out."""

    recommendation_id: str
    item_id: str
    items: list[Item]
    short_reason: str | None = Field(description="why there are fewer items than asked for, else null")


def handle(champions: Champions, request: SimilarItemsRequest, now: datetime) -> Answer:
    """The items most like one.

    Raises
    ------
    NotFound
        The model does not know the item.
    """
    champion = champions.need(JOB)
    column = column_of(champions, request)
    source = _source(champion)
    ranked = champion.bundle.model.similar_items(column, request.num_results)
    count = int(ranked.valid[0])
    item_ids = champion.catalogue.item_ids
    items: list[Answer] = [
        {"item_id": item_ids[found], "score": rounded(score), "rank": place + 1, "source": source}
        for place, (found, score) in enumerate(zip(ranked.ids[0, :count].tolist(), ranked.scores[0, :count].tolist(), strict=True))
    ]
    if request.explain:
        for item in items:
            item["reasons"] = ["had by the same kind of customers"]
    short = count < request.num_results
    return {
        "recommendation_id": uuid.uuid4().hex, "item_id": request.item_id, "items": items,
        "short_reason": f"the model can compare {count} other items" if short else None, **about_model(JOB)(champions, now),
    }  # fmt: skip


def column_of(champions: Champions, request: SimilarItemsRequest) -> int:
    """Where the item stands in the model.

    Raises
    ------
    NotFound
        Nowhere.
    """
    column = champions.need(JOB).catalogue.item_index.get(request.item_id)
    if column is None:
        raise NotFound(
            "the model does not know the item", field="item_id",
            hint="an item that too few customers had (recommend.min_item_customers) is not in the model",
        )  # fmt: skip
    return column


def _source(champion: Champion) -> str:
    stage = next((model.name for model in champion.bundle.model.models if model.supports_similar), None)
    if stage is None:
        raise NotReady("the recommender in production knows no similar items", hint="train one with an `ials` or `hybrid` stage")
    return str(stage)


ENDPOINT = Endpoint(
    "/similar-items", "What goes with an item", SimilarItemsRequest, SimilarItemsResponse, handle, about_model(JOB), check=column_of
)
