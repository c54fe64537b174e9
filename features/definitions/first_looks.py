"""What a customer looks at: how dear within their categories, and how much of it is content. Newcomers show no more."""

from __future__ import annotations

from features.compute.algebra import PRICE_LEVEL, Condition, Feature
from features.definitions.content import CONTENT

LOOKED = Condition("event_type", "in", ("view", "cart", "favourite"))
PRICED = (LOOKED, Condition(PRICE_LEVEL, "known", True))

# fmt: off
FEATURES = (
    Feature("viewed_price_level_mean", "events", "mean", PRICE_LEVEL, where=(LOOKED,), unit="log ratio", description="mean price level of the items viewed, put into the cart or marked: 0.1 is 10 % dearer than usual in the categories"),
    Feature("viewed_price_level_events", "events", "count", where=PRICED, unit="events", description="views, carts and favourites of items that have a price level", grows_with_calendar=True),
    Feature("content_event_share", "events", "share", where=CONTENT, unit="0..1", description="share of all events that are with content"),
)
# fmt: on
