"""`/v1/profile`: what is known of one customer, as tags."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, Field

from features.algebra import Feature
from features.snapshot import Snapshot
from features.tags import TAGS, Tag
from qianmian.schema import TAG_CATEGORIES
from serving.answers.base import Answer, Endpoint, Response, UserRequest, is_stale, resolve_user, utc_text
from serving.champions import Champions

NAME = "profiles"


class ProfileRequest(UserRequest):
    """What is known of one customer."""


class TagEntry(BaseModel):
    """One tag."""

    value: str | float | bool
    as_of: str
    stale: bool = Field(description="as_of is longer ago than this tag keeps")
    source: str = Field(description="the tables it was made of, joined by +")


class ProfileResponse(Response):
    """Tags by category; a tag that does not apply is absent. The `model` is the profile snapshot that answered."""

    user_id: str
    user_source: str | None
    one_id: str | None
    known: bool = Field(description="false for an unknown customer, whose categories are empty")
    tags: dict[str, dict[str, TagEntry]]


def handle(champions: Champions, request: ProfileRequest, now: datetime) -> Answer:
    """The tags of one customer."""
    customers = champions.customers
    asked = resolve_user(champions, request)
    row = customers.row_of.get(asked.one_id or "", -1)
    tags: dict[str, Answer] = {category: {} for category in TAG_CATEGORIES}
    for name, values in customers.tags.items() if row >= 0 else ():
        value, tag = values[row], TAGS.get(name)
        if value is not None and tag is not None:
            tags[tag.category][name] = {
                "value": value, "as_of": utc_text(customers.as_of), "stale": is_stale(customers.as_of, now, tag.ttl_days),
                "source": source_of(tag, customers),
            }  # fmt: skip
    return {**asked.identity, "known": row >= 0, "tags": tags, **about_snapshot(champions, now)}


def source_of(tag: Tag, customers: Snapshot) -> str:
    """The tables behind a tag: those of its features, and of the features those are quotients of."""
    features = dict(zip(customers.spec.names, customers.spec.features, strict=True))

    def views(name: str) -> set[str]:
        feature: Feature = features[name]
        return views(feature.column) | views(feature.over) if feature.aggregate == "quotient" else {feature.view}

    return "+".join(sorted(set().union(*(views(name) for name in tag.needs))))


def about_snapshot(champions: Champions, now: datetime) -> Answer:
    """The stamp of answers that come from the profiles alone; the version says which data and which features."""
    customers = champions.customers
    return {
        "model": {"name": NAME, "version": f"{customers.data_digest}-{customers.spec.hash}"}, "as_of": utc_text(customers.as_of),
        "stale": is_stale(customers.as_of, now, champions.settings.serving.stale_after_days),
    }  # fmt: skip


ENDPOINT = Endpoint(
    "/profile", "What is known of one customer", ProfileRequest, ProfileResponse, handle, about_snapshot, check=resolve_user
)
