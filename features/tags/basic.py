"""Who the customer is."""

from __future__ import annotations

from operator import itemgetter

from features.tags.declare import Tag

ATTRIBUTES = ("gender", "age_band", "income_band", "region", "city", "member_tier")

TAGS = tuple(
    Tag(name, "basic", f"{name.replace('_', ' ')} as the source gives it", (f"profile_{name}",), itemgetter(f"profile_{name}"))
    for name in ATTRIBUTES
)
