"""Messages sent to the customer, and the responses to them."""

from __future__ import annotations

from features.compute.algebra import Condition, Feature
from features.definitions.recency import NEVER

OPENED, CLICKED = (Condition("opened", "==", True),), (Condition("clicked", "==", True),)

# fmt: off
FEATURES = (
    Feature("touches_7d", "touches", "count", window_days=7, unit="contacts", description="campaign contacts in the last 7 days"),
    Feature("touches_91d", "touches", "count", window_days=91, unit="contacts", description="campaign contacts in the last 91 days"),
    Feature("touch_campaigns_91d", "touches", "distinct", "campaign_id", window_days=91, unit="campaigns", description="campaigns that reached out in the last 91 days"),
    Feature("touches_delivered_91d", "touches", "count", where=(Condition("delivered", "==", True),), window_days=91, unit="contacts", description="contacts of the last 91 days that arrived"),
    Feature("touches_opened_91d", "touches", "count", where=OPENED, window_days=91, unit="contacts", description="contacts of the last 91 days that were opened"),
    Feature("touches_unopened_28d", "touches", "count", where=(Condition("delivered", "==", True), Condition("opened", "==", False)), window_days=28, unit="contacts", description="contacts of the last 28 days that arrived and stayed unopened"),
    Feature("touches_clicked_91d", "touches", "count", where=CLICKED, window_days=91, unit="contacts", description="contacts of the last 91 days that were clicked"),
    Feature("touch_open_rate", "", "quotient", "touches_opened_91d", over="touches_delivered_91d", unit="0..1", description="opened of those that arrived, last 91 days"),
    Feature("touch_click_rate", "", "quotient", "touches_clicked_91d", over="touches_delivered_91d", unit="0..1", description="clicked of those that arrived, last 91 days"),
    Feature("touch_click_per_open", "", "quotient", "touches_clicked_91d", over="touches_opened_91d", unit="0..1", description="clicked of those that were opened, last 91 days"),
    Feature("days_since_last_open", "touches", "recency", where=OPENED, default=NEVER, unit="days", description="time since a contact that was opened"),
    Feature("days_since_last_click", "touches", "recency", where=CLICKED, default=NEVER, unit="days", description="time since a contact that was clicked"),
    Feature("touch_gap_days_mean_182d", "touches", "gap_mean", window_days=182, default=182.0, unit="days", description="mean time between successive contacts of the last 182 days"),
    Feature("message_clicks_per_open", "", "quotient", "message_click_events_91d", over="message_open_events_91d", unit="ratio", description="message clicks an open, last 91 days"),
)
# fmt: on
