"""Categories and brands that the customer buys."""

from __future__ import annotations

from features.compute.algebra import Feature

EXPECTED_WINDOW_DAYS = 182  # of the purchases that say which categories are expected again: half a year

# fmt: off
FEATURES = (
    Feature("top_category", "lines", "top", "category_top", default="", description="broadest category bought most, ever"),
    Feature("top_category_91d", "lines", "top", "category_top", window_days=91, default="", description="broadest category bought most, last 91 days"),
    Feature("top_category_share", "lines", "top_share", "category_top", unit="0..1", description="share of lines in that category", grows_with_calendar=True),
    Feature("category_entropy", "lines", "entropy", "category_top", unit="nats", description="spread over the broadest categories", grows_with_calendar=True),
    Feature("categories_distinct_91d", "lines", "distinct", "category_top", window_days=91, unit="categories", description="broadest categories bought in the last 91 days"),
    Feature("subcategories_distinct_91d", "lines", "distinct", "category", window_days=91, unit="categories", description="finest categories bought in the last 91 days"),
    Feature("top_brand", "lines", "top", "brand", default="", description="brand bought most"),
    Feature("top_brand_share", "lines", "top_share", "brand", unit="0..1", description="share of lines of that brand", grows_with_calendar=True),
    Feature("top_viewed_category_28d", "events", "top", "category_top", window_days=28, default="", description="broadest category of the last 28 days' events"),
    Feature("viewed_categories_28d", "events", "distinct", "category_top", window_days=28, unit="categories", description="broadest categories in the last 28 days' events"),
    Feature("top_category_share_91d", "lines", "top_share", "category_top", window_days=91, unit="0..1", description="share of lines in the category bought most, last 91 days"),
    Feature("top_spend_category_182d", "lines", "top", "category_top", window_days=182, over="amount", default="", description="broadest category of most money in the last 182 days"),
    Feature("top_spend_category_share_182d", "lines", "top_share", "category_top", window_days=182, over="amount", unit="0..1", description="its share of the money of the last 182 days"),
    Feature("top_brand_91d", "lines", "top", "brand", window_days=91, default="", description="brand bought most, last 91 days"),
    Feature("brands_distinct_91d", "lines", "distinct", "brand", window_days=91, unit="brands", description="different brands bought in the last 91 days"),
    Feature("viewed_category_share_28d", "events", "top_share", "category_top", window_days=28, unit="0..1", description="share of the last 28 days' events in the category met most"),
    Feature("categories_expected_182d", "lines", "expected", "category", window_days=EXPECTED_WINDOW_DAYS, over="day", unit="purchases", description="purchases of the finest categories expected in the next 28 days, by how often and how lately each was bought in the last 182"),
)
# fmt: on
