"""`/v1/profile`: what is known of one customer, as tags."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, Field

from qianmian.schema import TAG_CATEGORIES
from serving.champions import Champions
from serving.endpoints.base import Endpoint
from serving.requests import UserRequest
from serving.responses import Response, ResponseBody, snapshot_metadata, utc_text
from serving.users import resolve_user


class ProfileRequest(UserRequest):
    """What is known of one customer."""


class TagEntry(BaseModel):
    """One tag."""

    value: str | float | bool | None = Field(description="null where nobody knows")
    as_of: str = Field(description="UTC; nothing that happened at or after it is in the value")
    stale: bool = Field(description="as_of is longer ago than this tag keeps")
    source: str = Field(description="the tables it was made of, joined by +, or model:NAME")


class ProfileResponse(Response):
    """Tags by category; a tag whose features the data cannot give is absent. The `model` is the profile snapshot that answered."""

    user_id: str
    user_source: str | None
    one_id: str | None
    known: bool = Field(description="false for an unknown customer, whose categories are empty")
    tags: dict[str, dict[str, TagEntry]]


def handle(champions: Champions, request: ProfileRequest, now: datetime) -> ResponseBody:
    """The tags of one customer."""
    customers = champions.customers
    user = resolve_user(champions, request)
    row = customers.user_map.row(user.one_id)
    found = customers.facts_of(row, now) if row >= 0 else {}
    tags = {
        category: {
            name: {**entry, "as_of": utc_text(entry["as_of"])} for name, entry in found.get(category, {}).items()
        }
        for category in TAG_CATEGORIES
    }
    return {**user.identity, "known": row >= 0, "tags": tags, **snapshot_metadata(champions, now)}


ENDPOINT = Endpoint(
    "/profile",
    "What is known of one customer",
    ProfileRequest,
    ProfileResponse,
    handle,
    snapshot_metadata,
    check=resolve_user,
)
