"""`/v1/predictions`: where each customer stands and where they are going."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, Field

from serving.champions import Champions
from serving.endpoints.base import Endpoint
from serving.requests import UsersRequest
from serving.responses import Response, ResponseBody, profile_metadata
from serving.scoring.lifecycle import JOB, predict_rows
from serving.users import profile_rows, resolve_users

MAX_INLINE_USERS = 4


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
    scored = predict_rows(champions, champions.encoded(JOB), profile_rows(champions, users))
    scores = []
    for one, score in zip(users, scored, strict=True):
        if one.problem is not None:
            score["no_score_reason"] = one.problem
        scores.append({**one.identity, **score})
    horizon_days = champions.require(JOB).bundle.facts.get("horizon_days")
    return {"scores": scores, "horizon_days": horizon_days, **profile_metadata(JOB)(champions, now)}


ENDPOINT = Endpoint(
    "/predictions",
    "Where each customer stands and where they are going",
    PredictionsRequest,
    PredictionsResponse,
    handle,
    profile_metadata(JOB),
    runs_in_thread=lambda request: len(request.user_ids) > MAX_INLINE_USERS,
)
