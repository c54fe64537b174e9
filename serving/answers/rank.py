"""`/v1/rank`: the caller's own items, in the order this customer would want them."""

from __future__ import annotations

import uuid
from datetime import datetime

import numpy as np
from pydantic import Field

from models.controls import Controls
from serving.answers.base import Answer, Endpoint, Identifier, UserRequest, about_model, resolve_user
from serving.answers.recommendations import JOB, Context, Plan, RankedResponse, items_asked, list_answer, since_asked, unknown_attributes
from serving.champions import Champions
from serving.scenes import SCENES

MAX_ITEMS = 1_000
INLINE = 100
SCENE = SCENES["home"]


class RankRequest(UserRequest):
    """The caller's own items, in the order this customer would want them."""

    item_ids: list[Identifier] = Field(min_length=1, max_length=MAX_ITEMS, description="items to put in order; doubles count once")
    context: Context = Field(default_factory=Context)
    explain: bool = Field(False, description="give a reason in words with each item")


class RankResponse(RankedResponse):
    """Every item the model knows, best first; the others in `unknown`."""


def plan(champions: Champions, request: RankRequest) -> Plan:
    """Understand a request.

    Raises
    ------
    InvalidRequest
        Of several customers with that id none is meant, or an event cannot be.
    """
    champion = champions.need(JOB)
    catalogue = champion.catalogue
    asked, since = resolve_user(champions, request), since_asked(champion, request.context)
    items_asked(catalogue, SCENE, request.context.items)
    columns, unknown = catalogue.columns_of(request.item_ids)
    allowed = np.zeros(len(catalogue.item_ids), dtype=bool)
    allowed[columns] = True
    nothing = np.empty(0, dtype=np.int64)
    if since is not None:
        unknown = list(dict.fromkeys([*unknown, *since.unknown]))
    return Plan(
        asked, champion, catalogue.model(SCENE.name), SCENE, catalogue.user_row(asked.one_id), allowed, nothing, False, nothing, unknown, since,
        Controls(), [],
    )  # fmt: skip


def handle(champions: Champions, request: RankRequest, now: datetime) -> Answer:
    """The same items, ranked."""
    asked = plan(champions, request)
    assert asked.allowed is not None
    many, attributes = int(asked.allowed.sum()), request.context.attributes
    listed: Answer = {"items": [], "fallback": None}
    if many:
        listed = list_answer(asked, asked.ranked(many, attributes), request.explain)
    answer = {
        "recommendation_id": uuid.uuid4().hex, **asked.asked.identity, **listed, "unknown": asked.unknown,
        "unknown_attributes": unknown_attributes(asked.champion, attributes), **about_model(JOB)(champions, now),
    }  # fmt: skip
    if request.context.events and asked.since is not None:
        answer["ignored_events"] = asked.since.ignored
    return answer


ENDPOINT = Endpoint(
    "/rank", "The caller's own items, ranked for one customer", RankRequest, RankResponse, handle, about_model(JOB),
    check=plan, heavy=lambda request: len(request.item_ids) > INLINE,
)  # fmt: skip
