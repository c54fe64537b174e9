"""`/v1/churn`: who is about to leave, and why."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, Field

from serving.champions import Champions
from serving.endpoints.base import Endpoint
from serving.requests import UsersRequest
from serving.responses import Response, ResponseBody, profile_metadata
from serving.scoring.churn import JOB, score_rows
from serving.users import profile_rows, resolve_users

MAX_INLINE_USERS = 4  # a list longer than this is scored on a worker thread


class ChurnRequest(UsersRequest):
    """Who is about to leave."""

    explain: bool = Field(False, description="give the three features that moved each score most")


class Reason(BaseModel):
    """One feature that moved a score."""

    feature: str
    description: str
    value: float | str | None
    effect: str = Field(description="raises or lowers the probability")


class ChurnScore(BaseModel):
    """One customer."""

    user_id: str
    user_source: str | None
    one_id: str | None
    churn_probability: float | None = Field(description="calibrated, 0..1; null with a no_score_reason")
    risk_band: str | None = Field(description="low, medium or high")
    reasons: list[Reason] | None = Field(None, description="only with explain")
    no_score_reason: str | None = Field(description="why there is no score, else null")


class ChurnResponse(Response):
    """A row for each id, in the order asked."""

    scores: list[ChurnScore]
    horizon_days: float | None = Field(description="churn is: buys nothing for so long after as_of")
    active_days: float | None = Field(description="asked of customers who bought in so many days before as_of")


def handle(champions: Champions, request: ChurnRequest, now: datetime) -> ResponseBody:
    """A score, or the reason there is none, for each id."""
    users = resolve_users(champions, request.user_ids, request.user_source)
    encoded = champions.encoded(JOB)
    scored = score_rows(champions, encoded, profile_rows(champions, users), request.explain)
    scores = []
    for one, score in zip(users, scored, strict=True):
        if one.problem is not None:
            score["no_score_reason"] = one.problem
        scores.append({**one.identity, **score})
    facts = champions.require(JOB).bundle.facts
    return {
        "scores": scores,
        "horizon_days": facts.get("horizon_days"),
        "active_days": facts.get("active_days"),
        **profile_metadata(JOB)(champions, now),
    }


ENDPOINT = Endpoint(
    "/churn",
    "Who is about to leave, and why",
    ChurnRequest,
    ChurnResponse,
    handle,
    profile_metadata(JOB),
    runs_in_thread=lambda request: len(request.user_ids) > MAX_INLINE_USERS,
)
