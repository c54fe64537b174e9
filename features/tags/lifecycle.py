"""Where the customer stands."""

from __future__ import annotations

import numpy as np

from features.lifecycle import NEEDS, lifecycle_stage
from features.tags.declare import Tag

TAGS = (
    Tag("lifecycle_stage", "lifecycle", "prospect, new, active, loyal, at_risk, asleep or lost by the customer's own rhythm", NEEDS, lambda c, settings: lifecycle_stage(c, settings.lifecycle)),
    Tag("days_since_last_order", "lifecycle", "time since the last order", ("days_since_last_order", "orders_total"), lambda c, _: np.where(c["orders_total"] > 0, c["days_since_last_order"], np.nan)),
    Tag("spending_trend", "lifecycle", "amount of the last 28 days against the 28 before", ("amount_trend_28d",), lambda c, _: np.select([c["amount_trend_28d"] > 0.2, c["amount_trend_28d"] < -0.2], ["rising", "falling"], default="steady")),
)  # fmt: skip
