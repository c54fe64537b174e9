"""The endpoints, one module each, registered by route.

Handlers are pure functions of (champions, request, now); `serving.http` adds HTTP.
"""

from __future__ import annotations

from typing import Any

from qianmian.registry import Registry
from serving.endpoints import (
    churn,
    erase,
    events,
    lookalike,
    predictions,
    profile,
    rank,
    recommendations,
    similar_items,
    uplift,
)
from serving.endpoints.base import Endpoint

ENDPOINTS: Registry[Endpoint[Any]] = Registry(
    "endpoint",
    {
        endpoint.route: endpoint
        for endpoint in (
            recommendations.ENDPOINT,
            rank.ENDPOINT,
            similar_items.ENDPOINT,
            churn.ENDPOINT,
            predictions.ENDPOINT,
            profile.ENDPOINT,
            lookalike.ENDPOINT,
            uplift.ENDPOINT,
            events.ENDPOINT,
            erase.ENDPOINT,
        )
    },
)
