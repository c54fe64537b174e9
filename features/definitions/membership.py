"""Dates and points of the membership."""

from __future__ import annotations

from features.compute.algebra import Feature
from features.definitions.recency import NEVER

# fmt: off
FEATURES = (
    Feature("days_since_registered", "profiles", "days_since", "registered_at", default=NEVER, unit="days", description="time since the registration", grows_with_calendar=True),
    Feature("days_since_points_expired", "profiles", "days_since", "points_expire_at", default=NEVER, unit="days", description="time since the points lapsed; negative: they lapse in so many days", grows_with_calendar=False),  # points that lapse later are earned again
)
# fmt: on
