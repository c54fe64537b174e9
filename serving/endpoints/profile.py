"""`/v1/profile`: the tags of one customer."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from pydantic import BaseModel, Field

from features.profiles.tags.declare import TagValue
from qianmian.schema import TAG_CATEGORIES
from serving import costs
from serving.champions import Champions
from serving.endpoints.base import Endpoint
from serving.events.consents import CATEGORY, live_consents
from serving.requests import UserRequest
from serving.responses import Response, ResponseBody, snapshot_metadata, utc_text
from serving.users import ResolvedUser, resolve_user


class ProfileRequest(UserRequest):
    """Look up the tags of one customer."""


class TagEntry(BaseModel):
    """One tag."""

    value: str | float | bool | None = Field(description="null if unknown for this customer")
    as_of: str = Field(
        description="UTC; no data from this moment or later was used. With accepted events of the customer it is the "
        "moment of the request, for tags that follow from features and for consents that an event gives or withdraws"
    )
    stale: bool = Field(description="whether as_of is longer ago than the validity of this tag")
    source: str = Field(description="the tables that the value is computed from, joined by +, or model:NAME")
    checked: str | None = Field(
        description="verdict of `qianmian tags validate` on what the tag says about the future: borne_out, "
        "not_borne_out, contradicted or too_few; null without a check"
    )


class ProfileResponse(Response):
    """Tags by category. A tag that the data does not support is absent. `model` is the profile snapshot."""

    user_id: str
    user_source: str | None
    one_id: str | None
    known: bool = Field(description="false for an unknown user, whose categories are empty")
    tags: dict[str, dict[str, TagEntry]]


def handle(champions: Champions, request: ProfileRequest, now: datetime) -> ResponseBody:
    """Return the tags of one customer."""
    customers = champions.customers
    user = resolve_user(champions, request)
    row = customers.user_map.row(user.one_id)
    facts = customers.facts_of(row, now) if row >= 0 else {}
    fresh = fresh_tags(champions, user, now) if row >= 0 else {}
    tags: dict[str, dict[str, ResponseBody]] = {
        category: {
            name: {**entry, "as_of": utc_text(entry["as_of"])}
            if name not in fresh
            else {**entry, "value": fresh[name], "as_of": utc_text(now), "stale": False}
            for name, entry in facts.get(category, {}).items()
        }
        for category in TAG_CATEGORIES
    }
    if row >= 0:
        for name, granted in consents(champions, user).items():
            entry = {"value": granted, "as_of": utc_text(now), "stale": False, "source": "profiles", "checked": None}
            tags[CATEGORY][name] = {**tags[CATEGORY].get(name, {}), **entry}
    return {**user.identity, "known": row >= 0, "tags": tags, **snapshot_metadata(champions, now)}


def fresh_tags(champions: Champions, user: ResolvedUser, now: datetime) -> Mapping[str, TagValue]:
    """Return the tags that are computed with the accepted events of a customer; none without events."""
    if not has_events(champions, user) or champions.misses_events:
        return {}
    live = champions.live
    assert live is not None
    assert user.one_id is not None
    rows = live.rows(user.one_id, user.user_id, user.user_source)
    return live.fresh_tags(champions.settings).of(user.one_id, rows, now) if rows else {}


def consents(champions: Champions, user: ResolvedUser) -> Mapping[str, bool]:
    """Return the consents that accepted events of a customer give or withdraw, as far as they are known."""
    live, events = champions.live, champions.events
    if live is None or events is None or not live.has_any(user.one_id, user.user_id):
        return {}
    read = live.read(user.one_id, user.user_id, user.user_source)
    return live_consents(read, champions.customers, events.log_id)


def has_events(champions: Champions, user: ResolvedUser) -> bool:
    """Whether there may be accepted events of a customer, and tags are computed with them, which takes 4 ms."""
    live = champions.live
    is_live = live is not None and user.one_id is not None and live.has_any(user.one_id, user.user_id)
    return is_live and champions.settings.serving.fresh_profiles


ENDPOINT = Endpoint(
    "/profile",
    "Tags of one customer",
    ProfileRequest,
    ProfileResponse,
    handle,
    snapshot_metadata,
    lambda _: costs.PROFILE_MS,
    check=resolve_user,
    is_heavy=lambda champions, request: has_events(champions, resolve_user(champions, request)),
)
