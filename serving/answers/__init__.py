"""The endpoints: one file and one line each. Pure functions of (champions, request, now); HTTP is `serving.http`'s matter."""

from __future__ import annotations

from typing import Any

from qianmian.registry import Registry
from serving.answers import churn, recommendations
from serving.answers.base import Endpoint

ENDPOINTS: Registry[Endpoint[Any]] = Registry("endpoint", {endpoint.route: endpoint for endpoint in (
    recommendations.ENDPOINT,
    churn.ENDPOINT,
)})  # fmt: skip
