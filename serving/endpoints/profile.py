"""`/v1/profile`: the tags of one customer."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, Field

from qianmian.schema import TAG_CATEGORIES
from serving import costs
from serving.champions import Champions
from serving.endpoints.base import Endpoint
from serving.requests import UserRequest
from serving.responses import Response, ResponseBody, snapshot_metadata, utc_text
from serving.users import resolve_user


class ProfileRequest(UserRequest):
    """Look up the tags of one customer."""


class TagEntry(BaseModel):
    """One tag."""

    value: str | float | bool | None = Field(description="null if unknown for this customer")
    as_of: str = Field(description="UTC; no data from this moment or later was used")
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
    tags = {
        category: {
            name: {**entry, "as_of": utc_text(entry["as_of"])} for name, entry in facts.get(category, {}).items()
        }
        for category in TAG_CATEGORIES
    }
    return {**user.identity, "known": row >= 0, "tags": tags, **snapshot_metadata(champions, now)}


ENDPOINT = Endpoint(
    "/profile",
    "Tags of one customer",
    ProfileRequest,
    ProfileResponse,
    handle,
    snapshot_metadata,
    lambda _: costs.PROFILE_MS,
    check=resolve_user,
)
