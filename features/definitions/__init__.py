"""The declared features, one file a theme and one line here each. Importing it checks every declaration."""

from __future__ import annotations

from features.compute.algebra import Feature, check
from features.definitions import (
    basket,
    behaviour,
    content,
    discount,
    frequency,
    funnel,
    interest,
    membership,
    messages,
    money,
    recency,
    repeat,
    rhythm,
    visits,
)

FEATURES: tuple[Feature, ...] = check(
    (
        *recency.FEATURES,
        *frequency.FEATURES,
        *money.FEATURES,
        *discount.FEATURES,
        *basket.FEATURES,
        *interest.FEATURES,
        *rhythm.FEATURES,
        *behaviour.FEATURES,
        *repeat.FEATURES,
        *visits.FEATURES,
        *funnel.FEATURES,
        *content.FEATURES,
        *messages.FEATURES,
        *membership.FEATURES,
    )
)
