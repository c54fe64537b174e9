"""`/v1/predictions`: where each customer stands and where they are going."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from features.compute.spec import UserFeatures
from features.profiles.lifecycle import stages_from_features
from qianmian.schema import LIFECYCLE_STAGES
from serving.champions import Champions
from serving.endpoints.base import (
    Endpoint,
    Response,
    ResponseBody,
    UsersRequest,
    profile_metadata,
    resolve_users,
    rounded,
)

JOB = "lifecycle"
MAX_INLINE_USERS = 4
PROSPECT = LIFECYCLE_STAGES[0]


class PredictionsRequest(UsersRequest):
    """Where each customer stands and where they are going."""


class Prediction(BaseModel):
    """One customer."""

    user_id: str
    user_source: str | None
    one_id: str | None
    lifecycle_stage: str | None = Field(description="today's stage, by rule; null for an unknown customer")
    next_stage: dict[str, float] | None = Field(
        description="stage → probability of being in it horizon_days after as_of"
    )
    average_days_between_orders: float | None = Field(description="days; null below two orders")
    average_order_value: float | None = Field(description="currency; null below one order")
    no_score_reason: str | None = Field(description="why there is no next_stage, else null")


class PredictionsResponse(Response):
    """A row for each id, in the order asked."""

    scores: list[Prediction]
    horizon_days: float | None = Field(description="next_stage is the stage so long after as_of")


def handle(champions: Champions, request: PredictionsRequest, now: datetime) -> ResponseBody:
    """A row for each id."""
    users = resolve_users(champions, request.user_ids, request.user_source)
    row_of = champions.customers.row_of
    rows = np.array([row_of.get(one.one_id or "", -1) for one in users], dtype=np.int64)
    scores = []
    for one, score in zip(users, predict_rows(champions, champions.encoded(JOB), rows), strict=True):
        if one.problem is not None:
            score["no_score_reason"] = one.problem
        scores.append({**one.identity, **score})
    horizon_days = champions.require(JOB).bundle.facts.get("horizon_days")
    return {"scores": scores, "horizon_days": horizon_days, **profile_metadata(JOB)(champions, now)}


def predict_rows(champions: Champions, encoded: UserFeatures, rows: NDArray[np.int64]) -> list[dict[str, Any]]:
    """The prediction for some rows of the profiles (−1 for nobody)."""
    known = np.flatnonzero(rows >= 0)
    profiles = champions.customers.features.take(rows[known])
    stages = stages_from_features(profiles, champions.settings.lifecycle)
    found: list[dict[str, Any]] = [_unknown_customer() for _ in rows]
    orders = profiles.column("orders_total")
    gaps, values = profiles.column("gap_days_mean"), _column(profiles, "order_value_mean")
    for place, position in enumerate(known.tolist()):
        bought = orders[place]
        found[position] = {
            "lifecycle_stage": str(stages[place]),
            "next_stage": None,
            "average_days_between_orders": rounded(gaps[place], 4) if bought > 1 else None,
            "average_order_value": rounded(values[place], 4) if bought > 0 and values is not None else None,
            "no_score_reason": "never bought" if stages[place] == PROSPECT else None,
        }
    buyers = np.flatnonzero(stages != PROSPECT)  # the model learnt from buyers only
    if len(buyers):
        model = champions.require(JOB).bundle.model
        p = model.predict_proba(encoded.values[rows[known[buyers]]], stages[buyers])
        names = model.classes_.tolist()
        for position, row in zip(known[buyers].tolist(), p.tolist(), strict=True):
            found[position]["next_stage"] = {name: rounded(value) for name, value in zip(names, row, strict=True)}
    return found


def _column(profiles: UserFeatures, name: str) -> NDArray[np.float32] | None:
    return profiles.column(name) if name in profiles.spec.names else None


def _unknown_customer() -> dict[str, Any]:
    return {
        "lifecycle_stage": None,
        "next_stage": None,
        "average_days_between_orders": None,
        "average_order_value": None,
        "no_score_reason": "unknown customer",
    }


ENDPOINT = Endpoint(
    "/predictions",
    "Where each customer stands and where they are going",
    PredictionsRequest,
    PredictionsResponse,
    handle,
    profile_metadata(JOB),
    runs_in_thread=lambda request: len(request.user_ids) > MAX_INLINE_USERS,
)
