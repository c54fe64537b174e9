"""Behaviour besides purchases: views, carts, messages, campaign contacts."""

from __future__ import annotations

from features.compute.algebra import Condition, Feature

COUNTED_EVENT_TYPES = (
    "view",
    "cart",
    "favourite",
    "search",
    "message_open",
    "message_click",
    "coupon_redeem",
    "purchase",
)

# fmt: off
FEATURES = (
    Feature("events_7d", "events", "count", window_days=7, unit="events", description="events in the last 7 days"),
    Feature("events_28d", "events", "count", window_days=28, unit="events", description="events in the last 28 days"),
    Feature("event_days_28d", "events", "distinct", "day", window_days=28, unit="days", description="days with an event in the last 28"),
    Feature("sessions_28d", "events", "distinct", "session_id", window_days=28, unit="sessions", description="sessions in the last 28 days"),
    Feature("viewed_items_28d", "events", "distinct", "item_id", where=(Condition("event_type", "==", "view"),), window_days=28, unit="items", description="items viewed in the last 28 days"),
    *(
        Feature(f"{kind}_events_91d", "events", "count", where=(Condition("event_type", "==", kind),), window_days=91, unit="events",
                description=f"'{kind}' events in the last 91 days")
        for kind in COUNTED_EVENT_TYPES
    ),
    Feature("events_trend_7d", "events", "trend", window_days=7, unit="-1..1", description="events of the last 7 days against the 7 before"),
    Feature("touches_28d", "touches", "count", window_days=28, unit="contacts", description="campaign contacts in the last 28 days"),
    Feature("touches_total", "touches", "count", unit="contacts", description="campaign contacts ever", grows_with_calendar=True),
)
# fmt: on
