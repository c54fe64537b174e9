"""`/v1/profile`: the tags of one customer."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from pydantic import BaseModel, Field

from features.profiles.tags.declare import TagValue
from qianmian.errors import InvalidRequest
from qianmian.schema import TAG_CATEGORIES
from serving import costs
from serving.champions import Champions
from serving.endpoints.base import Endpoint
from serving.recommending.recent import parse_time
from serving.requests import UserRequest
from serving.responses import Response, ResponseBody, snapshot_metadata, utc_text
from serving.users import ResolvedUser, resolve_user


class ProfileRequest(UserRequest):
    """Look up the tags of one customer."""

    now: str | None = Field(
        None,
        max_length=40,
        description="moment of the tags that are computed with accepted events, ISO 8601; later events do not count. "
        "Default: the moment of the request",
    )


class TagEntry(BaseModel):
    """One tag."""

    value: str | float | bool | None = Field(description="null if unknown for this customer")
    as_of: str = Field(
        description="UTC; no data from this moment or later was used. With accepted events of the customer it is the "
        "moment of the request, for tags that follow from features"
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
    user, moment = resolve_user(champions, request), named_moment(champions, request) or now
    row = customers.user_map.row(user.one_id)
    facts = customers.facts_of(row, moment) if row >= 0 else {}
    fresh = fresh_tags(champions, user, moment) if row >= 0 else {}
    tags = {
        category: {
            name: {**entry, "as_of": utc_text(entry["as_of"])}
            if name not in fresh
            else {**entry, "value": fresh[name], "as_of": utc_text(moment), "stale": False}
            for name, entry in facts.get(category, {}).items()
        }
        for category in TAG_CATEGORIES
    }
    return {**user.identity, "known": row >= 0, "tags": tags, **snapshot_metadata(champions, now)}


def check(champions: Champions, request: ProfileRequest) -> ResolvedUser:
    """Resolve the user id of a request, and check its moment."""
    named_moment(champions, request)
    return resolve_user(champions, request)


def named_moment(champions: Champions, request: ProfileRequest) -> datetime | None:
    """The moment that a request names, naive UTC.

    Raises
    ------
    InvalidRequest
        It is no time, or before the profiles.
    """
    if request.now is None:
        return None
    moment, as_of = parse_time(request.now, "now"), champions.customers.as_of
    if moment < as_of:
        raise InvalidRequest(
            "now: earlier than the as_of of the profiles",
            got=request.now,
            allowed=f"{utc_text(as_of)} or later",
            field="now",
        )
    return moment


def fresh_tags(champions: Champions, user: ResolvedUser, now: datetime) -> Mapping[str, TagValue]:
    """Return the tags that are computed with the accepted events of a customer; none without events."""
    if not has_events(champions, user) or champions.misses_events:
        return {}
    live = champions.live
    assert live is not None
    assert user.one_id is not None
    rows = live.rows_after_build(user.one_id)
    return live.fresh_tags(champions.settings).of(user.one_id, rows, now) if rows else {}


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
    check=check,
    is_heavy=lambda champions, request: has_events(champions, resolve_user(champions, request)),
)
