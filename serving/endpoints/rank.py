"""`/v1/rank`: the caller's own items, in the order this customer would want them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime

import numpy as np
from pydantic import Field

from models.recommend.scene import SCENES
from models.rerank import Controls
from qianmian.errors import InvalidRequest
from serving.champions import Champions
from serving.endpoints.base import (
    Answer,
    Described,
    Endpoint,
    Identifier,
    UserRequest,
    about_model,
    resolve_user,
    rounded,
)
from serving.endpoints.recommendations import (
    JOB,
    Context,
    Item,
    Plan,
    RankedResponse,
    items_asked,
    list_answer,
    since_asked,
    unknown_attributes,
)

MAX_ITEMS = 1_000
INLINE = 100
SCENE = SCENES["home"]


class RankRequest(UserRequest):
    """The caller's own items, in the order this customer would want them."""

    item_ids: list[Identifier] = Field(
        min_length=1, max_length=MAX_ITEMS, description="items to put in order; doubles count once"
    )
    attributes: dict[Identifier, Described] = Field(
        default_factory=dict,
        max_length=MAX_ITEMS,
        description='what items are that the model may not know, by id: {"new-soup": {"category": "GROCERY/SOUP", "brand": "A"}}',
    )
    context: Context = Field(default_factory=Context)
    explain: bool = Field(False, description="give a reason in words with each item")


class RankResponse(RankedResponse):
    """Every item the model knows, best first; those it does not know but by `attributes` in `new_items`; the others in `unknown`."""

    new_items: list[Item] | None = Field(
        None,
        description="only with attributes: items nobody had, by the customer's taste for what they are; scores compare with one another only",
    )


def plan(champions: Champions, request: RankRequest) -> Plan:
    """Understand a request.

    Raises
    ------
    InvalidRequest
        Of several customers with that id none is meant, an event cannot be, or items are described that are not asked about.
    """
    asked_about = set(request.item_ids)
    if stray := [item for item in request.attributes if item not in asked_about]:
        raise InvalidRequest(
            "attributes are of items that are not to be ranked",
            got=", ".join(stray[:5]),
            field="attributes",
            hint="name them in item_ids too",
        )
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
        asked,
        champion,
        catalogue.model(SCENE.name),
        SCENE,
        catalogue.user_row(asked.one_id),
        allowed,
        nothing,
        False,
        nothing,
        unknown,
        since,
        Controls(),
        [],
    )


def handle(champions: Champions, request: RankRequest, now: datetime) -> Answer:
    """The same items, ranked."""
    asked = plan(champions, request)
    assert asked.allowed is not None
    many, attributes = int(asked.allowed.sum()), request.context.attributes
    listed: Answer = {"items": [], "fallback": None}
    if many:
        listed = list_answer(asked, asked.ranked(many, attributes), request.explain)
    new = new_items(asked, request.attributes, request.explain)
    named = {item["item_id"] for item in new or ()}
    answer = {
        "recommendation_id": uuid.uuid4().hex,
        **asked.asked.identity,
        **listed,
        **({} if new is None else {"new_items": new}),
        "unknown": [item for item in asked.unknown if item not in named],
        "unknown_attributes": unknown_attributes(asked.champion, attributes),
        **about_model(JOB)(champions, now),
    }
    if request.context.events and asked.since is not None:
        answer["ignored_events"] = asked.since.ignored
    return answer


def new_items(asked: Plan, attributes: Mapping[str, Described], explain: bool) -> list[Answer] | None:
    """The items the model does not know, best first, by what they are; None where none is described or no model can tell."""
    described = {item: attributes[item] for item in asked.unknown if item in attributes}
    since, later_days = (None, 0.0) if asked.since is None else (asked.since.interactions, asked.since.later_days)
    found = asked.catalogue.scored_new(asked.row, list(described.values()), since, later_days) if described else None
    if found is None:
        return None
    source, scores, usual = found
    item_ids, answers = list(described), []
    for place, at in enumerate(np.argsort(-scores, kind="stable").tolist()):
        item = item_ids[at]
        told: Answer = {"item_id": item, "score": rounded(float(scores[at])), "rank": place + 1, "source": source}
        if explain:
            told["reasons"] = [
                taste_words(str(described[item].get("category") or ""), bool(asked.personal and scores[at] > usual[at]))
            ]
        answers.append(told)
    return answers


def taste_words(category: str, liked: bool) -> str:
    """Why an item nobody had.

    Examples
    --------
    >>> taste_words("GROCERY/SOUP", True), taste_words("GROCERY/SOUP", False), taste_words("", False)
    ('new in SOUP, more to your taste than to most', 'new in SOUP', 'new')
    """
    kind = category.split("/")[-1]
    new = f"new in {kind}" if kind else "new"
    return f"{new}, more to your taste than to most" if liked else new


ENDPOINT = Endpoint(
    "/rank",
    "The caller's own items, ranked for one customer",
    RankRequest,
    RankResponse,
    handle,
    about_model(JOB),
    check=plan,
    heavy=lambda request: len(request.item_ids) > INLINE,
)
