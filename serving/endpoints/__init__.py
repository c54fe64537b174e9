"""The endpoints: one file and one line each. Pure functions of (champions, request, now); HTTP is `serving.http`'s matter."""

from __future__ import annotations

from typing import Any

from qianmian.registry import Registry
from serving.endpoints import churn, lookalike, predictions, profile, rank, recommendations, similar_items
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
        )
    },
)
