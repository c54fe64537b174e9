"""`/v1/churn`: the probabilities that a customer buys nothing within the horizon, and that a customer has left."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from functools import partial

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from serving import costs
from serving.champions import Champions
from serving.counting import counted_scores
from serving.endpoints.base import Endpoint
from serving.predictions import left
from serving.predictions.base import predict_rows
from serving.requests import UsersRequest
from serving.responses import Response, ResponseBody, UserScore, profile_metadata
from serving.scoring.churn import JOB, score_rows
from serving.scoring.fresh import any_fresh, score_users
from serving.users import resolve_users


class ChurnRequest(UsersRequest):
    """Compute the probabilities of churn and of having left of each customer."""

    explain: bool = Field(False, description="add the three features with the largest contribution to each score")


class Reason(BaseModel):
    """A feature that contributes to a score."""

    feature: str
    description: str
    value: float | str | None
    effect: str = Field(description="raises or lowers (the probability)")


class ChurnScore(UserScore, left.LeftFields):
    """Churn score of one customer; null are the fields of `left` without a model of it."""

    churn_probability: float | None = Field(description="calibrated, 0..1; null with a no_score_reason")
    risk_band: str | None = Field(description="low, medium or high")
    reasons: list[Reason] | None = Field(None, description="only with explain")
    no_score_reason: str | None = Field(description="why there is no churn_probability, else null")
    left_no_score_reason: str | None = Field(description="why there is no left_probability, else null")


class ChurnResponse(Response):
    """One row per id, in the order of the request."""

    scores: list[ChurnScore]
    horizon_days: float | None = Field(
        description="a customer churns if they buy nothing for this many days after the as_of of their row"
    )
    active_days: float | None = Field(
        description="only customers who bought within this many days before the as_of of their row get a "
        "churn_probability"
    )


def handle(champions: Champions, request: ChurnRequest, now: datetime) -> ResponseBody:
    """Return a score, or the reason why there is none, for each id."""
    users = list(resolve_users(champions, request.user_ids, request.user_source))

    def score(
        champions: Champions, rows: NDArray[np.int64], moments: NDArray[np.datetime64] | None
    ) -> list[ResponseBody]:
        churn = score_rows(champions, champions.encoded(JOB), rows, moments, explain=request.explain)
        return [{**one, **other} for one, other in zip(churn, _left(champions, rows, moments), strict=True)]

    scores = score_users(champions, users, now, score)
    if left.JOB in champions.models:
        for user, row in zip(users, scores, strict=True):
            row["left_no_score_reason"] = user.problem or row["left_no_score_reason"]  # such as an ambiguous id
    facts = champions.require(JOB).bundle.facts
    return {
        "scores": scores,
        "horizon_days": facts.get("horizon_days"),
        "active_days": facts.get("active_days"),
        **profile_metadata(JOB)(champions, now),
    }


def _left(
    champions: Champions, rows: NDArray[np.int64], moments: NDArray[np.datetime64] | None
) -> Iterator[ResponseBody]:
    """The fields of `left` of each row, null if it has no model."""
    if left.JOB not in champions.models:
        reason = "there is no model of who has left: run `qianmian train left`"
        nothing = {**dict.fromkeys(left.LeftFields.model_fields), "left_no_score_reason": reason}
        yield from (nothing for _ in rows)
        return
    for row in predict_rows(champions, rows, moments, [left.PREDICTION]):
        fields = {name: row[name] for name in left.LeftFields.model_fields}
        yield {**fields, "left_no_score_reason": row["no_score_reason"]}


def estimated_ms(request: ChurnRequest) -> float:
    """Cost of a request: it grows with the customers, fifteen times as much with reasons."""
    each = costs.CHURN_USER_MS + left.PREDICTION.user_ms + (costs.CHURN_REASONS_MS if request.explain else 0.0)
    return costs.CHURN_MS + each * len(request.user_ids)


ENDPOINT = Endpoint(
    "/churn",
    "Probabilities of churn, with reasons, and of having left",
    ChurnRequest,
    ChurnResponse,
    handle,
    profile_metadata(JOB),
    estimated_ms,
    is_heavy=any_fresh,
    counted=partial(counted_scores, "/churn"),
)
