"""`/v1/rank`: the caller's own items, in the order this customer would want them."""

from __future__ import annotations

import uuid
from datetime import datetime

from pydantic import Field

from serving.answers.base import Answer, Endpoint, Identifier, UserRequest, about_model, resolve_user
from serving.answers.recommendations import JOB, Context, RankedResponse, list_answer, unknown_attributes
from serving.champions import Champions

MAX_ITEMS = 1_000
INLINE = 100


class RankRequest(UserRequest):
    """The caller's own items, in the order this customer would want them."""

    item_ids: list[Identifier] = Field(min_length=1, max_length=MAX_ITEMS, description="items to put in order; doubles count once")
    context: Context = Field(default_factory=Context)
    explain: bool = Field(False, description="give a reason in words with each item")


class RankResponse(RankedResponse):
    """Every item the model knows, best first; the others in `unknown`."""


def handle(champions: Champions, request: RankRequest, now: datetime) -> Answer:
    """The same items, ranked."""
    champion = champions.need(JOB)
    asked = resolve_user(champions, request)
    row = champion.catalogue.user_row(asked.one_id)
    columns, unknown = champion.catalogue.columns_of(request.item_ids)
    listed: Answer = {"items": [], "fallback": None}
    if len(columns):
        ranked = champion.bundle.model.rank(row, columns, attributes=request.context.attributes or None)
        listed = list_answer(champion, ranked, row, request.explain)
    return {
        "recommendation_id": uuid.uuid4().hex, **asked.identity, **listed, "unknown": unknown,
        "unknown_attributes": unknown_attributes(champion, request.context.attributes), **about_model(JOB)(champions, now),
    }  # fmt: skip


ENDPOINT = Endpoint(
    "/rank", "The caller's own items, ranked for one customer", RankRequest, RankResponse, handle, about_model(JOB),
    check=resolve_user, heavy=lambda request: len(request.item_ids) > INLINE,
)  # fmt: skip
