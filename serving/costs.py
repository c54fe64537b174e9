"""What requests cost, so that slow ones leave the event loop before they run.

The endpoints add these constants up (`Endpoint.estimated_ms`). They are CPU milliseconds, fitted to Complete Journey's
champions with `benchmarks/request_costs.py`, which says how far they are off; a factor of two does no harm.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

LIMIT_MS = 2.0  # a request that costs more leaves the event loop, which answers nobody meanwhile

# ---- a computed list, by scene
SCENE_MS = {"home": 1.2, "replenish": 1.0, "discover": 3.0, "similar": 11.0}
OTHER_SCENE_MS = 5.0
LONG_LIST = 50  # items; of a longer list, a second model has to rank too
LONG_LIST_MS = 2.0
PURCHASED_MS = 1.0  # of an option other than the scene's own
FILTER_MS = 0.3
COMPARISON_MS, VALUE_MS, EXCLUDED_MS = 0.04, 0.001, 0.0007  # of each in a filter, of each item left out
EVENTS_MS, EVENT_MS = 0.7, 0.01  # of the first, of each
REASONS_MS, REASON_MS = 0.2, 0.035  # of the first item, of each
CAPS_MS = 30.0  # max_per asks for candidates until the list is full
SIMILARITY_MS, SIMILAR_ITEM_MS = 1.0, 0.07  # mmr: of the first item, of each
PROMOTION_MS = 3.0
EXPLORATION_MS, POOL_ITEM_MS = 0.5, 0.01
RANKED_ITEM_MS = 0.005
DESCRIBED_ITEM_MS = 0.02  # an item that the model does not know, with attributes

# ---- other routes
PROFILE_MS = 1.2
SIMILAR_ITEMS_MS, SIMILAR_REASON_MS = 1.2, 0.01
CHURN_MS, CHURN_USER_MS, CHURN_REASONS_MS = 0.4, 0.004, 0.06
UPLIFT_MS, UPLIFT_USER_MS = 3.0, 0.023
PREDICTIONS_MS, PREDICTION_MS = 0.3, 0.5  # of each prediction; and `Prediction.user_ms` of each and customer
ACCEPTED_EVENT_MS = 0.015
AUDIENCE_MS, SEED_MS, EVIDENCE = 3.0, 0.004, 5  # with evidence and traits, five times as much


def events_ms(events: list[Any]) -> float:
    """Cost of the events in the context of a request."""
    return EVENTS_MS + EVENT_MS * len(events) if events else 0.0


def filter_ms(filters: Any, exclude: Sequence[Any]) -> float:
    """Cost of the filters of a request, as they were sent, and of the items to leave out."""
    if not filters and not exclude:
        return 0.0
    comparisons, values, left = 0, 0, [filters]
    while left:  # nested lists and objects: the values of a comparison are one list, or stand alone
        part = left.pop()
        if isinstance(part, dict):
            comparisons += 1
            left += part.values()
        elif isinstance(part, list) and part and isinstance(part[0], dict):
            left += part
        else:
            values += len(part) if isinstance(part, list) else 1
    return FILTER_MS + COMPARISON_MS * comparisons + VALUE_MS * values + EXCLUDED_MS * len(exclude)
