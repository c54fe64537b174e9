"""The declared features: one file per theme, and one line here for each. The import checks every declaration."""

from __future__ import annotations

from features.compute.algebra import Feature, check
from features.definitions import (
    basket,
    behaviour,
    content,
    discount,
    first_looks,
    frequency,
    funnel,
    interest,
    membership,
    messages,
    monetary,
    recency,
    repeat,
    timing,
    visits,
)

FEATURES: tuple[Feature, ...] = check(
    (
        *recency.FEATURES,
        *frequency.FEATURES,
        *monetary.FEATURES,
        *discount.FEATURES,
        *basket.FEATURES,
        *interest.FEATURES,
        *timing.FEATURES,
        *behaviour.FEATURES,
        *repeat.FEATURES,
        *visits.FEATURES,
        *funnel.FEATURES,
        *content.FEATURES,
        *first_looks.FEATURES,
        *messages.FEATURES,
        *membership.FEATURES,
    )
)
