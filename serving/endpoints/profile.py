"""`/v1/profile`: the tags of one customer."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from qianmian.schema import TAG_CATEGORIES
from qianmian.times import is_stale
from serving import costs
from serving.champions import Champions
from serving.endpoints.base import Endpoint
from serving.events.fresh_features import FreshValues
from serving.fresh_profiles import fresh_features, has_events
from serving.requests import UserRequest
from serving.responses import Response, ResponseBody, snapshot_metadata, utc_text
from serving.users import ResolvedUser, resolve_user

CONSENTS = "basic"  # category of their tags
Tags = dict[str, dict[str, dict[str, Any]]]  # category → tag → entry


class ProfileRequest(UserRequest):
    """Look up the tags of one customer."""


class TagEntry(BaseModel):
    """One tag."""

    value: str | float | bool | None = Field(description="null if unknown for this customer")
    as_of: str = Field(
        description="UTC; no data from this moment or later was used. With accepted events of the customer, for tags "
        "that follow from features, it is the moment of the request, or just after the last event if the profiles are "
        "older than serving.stale_after_days; for a consent that an event gives or withdraws, that of the request"
    )
    stale: bool = Field(
        description="whether as_of is longer ago than the validity of this tag; of a consent that an event gives or "
        "withdraws, whether accepted events cannot be read"
    )
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
    fresh = fresh_features(champions, user, now) if row >= 0 else None
    if fresh is not None:
        facts = fresh_entries(champions, facts, fresh, now)
    tags: dict[str, dict[str, ResponseBody]] = {
        category: {
            name: {**entry, "as_of": utc_text(entry["as_of"])} for name, entry in facts.get(category, {}).items()
        }
        for category in TAG_CATEGORIES
    }
    if row >= 0:
        for name, granted in consents(champions, user).items():
            entry = {"value": granted, "as_of": utc_text(now), "source": "profiles", "checked": None}
            entry["stale"] = champions.misses_events  # a withdrawal may be unknown
            tags[CONSENTS][name] = {**tags[CONSENTS].get(name, {}), **entry}
    return {**user.identity, "known": row >= 0, "tags": tags, **snapshot_metadata(champions, now)}


def consents(champions: Champions, user: ResolvedUser) -> Mapping[str, bool]:
    """Return the consents that accepted events of a customer give or withdraw, as far as they are known."""
    live = champions.live
    return live.consents(user.one_id) if live is not None and user.one_id is not None else {}


def fresh_entries(champions: Champions, facts: Tags, fresh: FreshValues, now: datetime) -> Tags:
    """Return the tags of a customer with the values that follow from fresh features."""
    assert champions.live is not None
    values = champions.live.fresh_tags(champions.settings).of(fresh)

    def entry(name: str, built: dict[str, Any]) -> dict[str, Any]:
        if name not in values:
            return built
        stale = is_stale(fresh.as_of, now, champions.customers.tag_facts[name].ttl_days)
        return {**built, "value": values[name], "as_of": fresh.as_of, "stale": stale}

    return {
        category: {name: entry(name, built) for name, built in entries.items()} for category, entries in facts.items()
    }


ENDPOINT = Endpoint(
    "/profile",
    "Tags of one customer",
    ProfileRequest,
    ProfileResponse,
    handle,
    snapshot_metadata,
    lambda _: costs.PROFILE_MS,
    check=resolve_user,
    is_heavy=lambda champions, request: has_events(champions, [resolve_user(champions, request)]),
)
