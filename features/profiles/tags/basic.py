"""Basic tags: profile attributes, consents, acquisition and membership."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.definitions.recency import NEVER
from features.profiles.tags.declare import Columns, Tag, TagContext

STATIC_ATTRIBUTES = ("gender", "age_band", "income_band", "region", "city")
CONTACTS = {"email": "e-mail", "sms": "text message", "push": "push message"}
MONTH, YEAR = 30.0, 365.0


def attribute(name: str) -> Callable[[Columns, TagContext], NDArray[Any]]:
    """The value of a profile attribute."""
    return lambda columns, _: columns[f"profile_{name}"]


def first_visit_source(columns: Columns, _: TagContext) -> NDArray[Any]:
    """The referrer of the first event, else its channel; unknown if neither is recorded."""
    referrer, channel = columns.get("first_referrer"), columns.get("first_visit_channel")
    if referrer is None or channel is None:
        return columns["first_referrer" if channel is None else "first_visit_channel"]
    return np.where(referrer == "", channel, referrer)


def membership(columns: Columns, _: TagContext) -> NDArray[Any]:
    """Time since registration, in three groups."""
    days = columns["days_since_registered"]
    return np.select([days >= NEVER, days <= MONTH, days <= YEAR], ["", "new", "under_a_year"], default="over_a_year")


# fmt: off
TAGS = (
    *(Tag(name, "basic", f"{name.replace('_', ' ')} as the source gives it", (f"profile_{name}",), attribute(name), kind="static") for name in STATIC_ATTRIBUTES),
    Tag("member_tier", "basic", "member tier as the source gives it", ("profile_member_tier",), attribute("member_tier")),
    Tag("first_visit_source", "basic", "where the first visit came from: its referrer, else its channel", (), first_visit_source, optional_features=("first_referrer", "first_visit_channel"), kind="static"),
    Tag("acquisition_channel", "basic", "channel of the first order", ("first_channel",), lambda c, _: c["first_channel"], kind="static"),
    Tag("membership", "basic", "registered for up to 30 days, up to a year, or longer", ("days_since_registered",), membership, values=("new", "under_a_year", "over_a_year")),
    *(Tag(f"consent_{channel}", "basic", f"may be contacted by {contact}, as it was told last", (f"profile_consent_{channel}",), attribute(f"consent_{channel}")) for channel, contact in CONTACTS.items()),
)
# fmt: on
