"""Visits: referrers, channels, devices, sessions, and hours in the time zone of the workspace."""

from __future__ import annotations

from features.compute.algebra import Condition, Feature
from features.definitions.recency import NEVER
from features.definitions.timing import PARTS_OF_DAY

# fmt: off
FEATURES = (
    Feature("first_referrer", "events", "first", "referrer", default="", description="where the first visit came from"),
    Feature("first_visit_channel", "events", "first", "channel", default="", description="channel of the first visit"),
    Feature("last_visit_channel", "events", "last", "channel", default="", description="channel of the last visit"),
    Feature("top_visit_channel_28d", "events", "top", "channel", window_days=28, default="", description="channel of most events of the last 28 days"),
    Feature("top_device_28d", "events", "top", "device", window_days=28, default="", description="device of most events of the last 28 days"),
    Feature("visit_channels_distinct_91d", "events", "distinct", "channel", window_days=91, unit="channels", description="channels visited in the last 91 days"),
    Feature("days_since_first_event", "events", "age", unit="days", description="time since the first behaviour event", grows_with_calendar=True),
    Feature("sessions_91d", "events", "distinct", "session_id", window_days=91, unit="sessions", description="sessions in the last 91 days"),
    Feature("event_days_91d", "events", "distinct", "day", window_days=91, unit="days", description="days with an event in the last 91"),
    Feature("events_91d", "events", "count", window_days=91, unit="events", description="events in the last 91 days"),
    Feature("events_per_session", "", "quotient", "events_91d", over="sessions_91d", unit="events", description="events a session, last 91 days"),
    Feature("event_gap_days_mean_91d", "events", "gap_mean", window_days=91, default=91.0, unit="days", description="mean time between successive events of the last 91 days"),
    Feature("event_gap_days_std_91d", "events", "gap_std", window_days=91, unit="days", description="spread of the time between successive events of the last 91 days"),
    Feature("events_slope_28d", "events", "slope", window_days=28, unit="events/day", description="change of the events from the 28 days before to the last 28, a day"),
    Feature("view_seconds_mean_28d", "events", "mean", "duration_seconds", where=(Condition("event_type", "==", "view"),), window_days=28, unit="s", description="mean dwell time of a view in the last 28 days"),
    *(
        Feature(f"{part}_event_share_91d", "events", "share", where=(Condition("hour", ">=", low), Condition("hour", "<", high)), window_days=91, unit="0..1",
                description=f"share of the events of the last 91 days between {low} and {high} o'clock")
        for part, (low, high) in PARTS_OF_DAY.items()
    ),
    Feature("event_hour_entropy_91d", "events", "entropy", "hour", window_days=91, unit="nats", description="spread of the events of the last 91 days over the hours"),
    Feature("days_since_last_login", "events", "recency", where=(Condition("event_type", "in", ("login", "register")),), default=NEVER, unit="days", description="time since the last login or registration"),
)
# fmt: on
