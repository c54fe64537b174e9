"""`/v1/predictions`: the lifecycle stage of each customer and the probabilities of the next one."""

from __future__ import annotations

from datetime import datetime
from functools import partial

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from features.compute.spec import UserFeatures
from serving import costs
from serving.champions import Champions
from serving.counting import counted_scores
from serving.endpoints.base import Endpoint
from serving.requests import UsersRequest
from serving.responses import Response, ResponseBody, UserScore, profile_metadata
from serving.scoring.fresh import any_fresh, score_users
from serving.scoring.lifecycle import JOB, STAGE_TAG, predict_rows
from serving.users import resolve_users


class PredictionsRequest(UsersRequest):
    """Predict the lifecycle stage of each customer."""


class Prediction(UserScore):
    """Prediction for one customer."""

    lifecycle_stage: str | None = Field(description="stage at as_of: the tag of the profile; null for an unknown user")
    next_stage: dict[str, float] | None = Field(
        description="stage → probability of this stage horizon_days after as_of"
    )
    average_days_between_orders: float | None = Field(description="days; null with fewer than two orders")
    average_order_value: float | None = Field(description="in the currency of the data; null without orders")
    no_score_reason: str | None = Field(description="why there is no next_stage, else null")


class PredictionsResponse(Response):
    """One row per id, in the order of the request."""

    scores: list[Prediction]
    horizon_days: float | None = Field(description="next_stage is the stage this many days after the as_of of the row")


def handle(champions: Champions, request: PredictionsRequest, now: datetime) -> ResponseBody:
    """Return a prediction, or the reason why there is none, for each id."""
    users = list(resolve_users(champions, request.user_ids, request.user_source))
    scores = score_users(champions, JOB, users, now, _predict, [STAGE_TAG])
    horizon_days = champions.require(JOB).bundle.facts.get("horizon_days")
    return {"scores": scores, "horizon_days": horizon_days, **profile_metadata(JOB)(champions, now)}


def _predict(
    champions: Champions, encoded: UserFeatures, rows: NDArray[np.int64], _moments: NDArray[np.datetime64] | None
) -> list[ResponseBody]:
    """`predict_rows`; the model does not read the moment."""
    return predict_rows(champions, encoded, rows)


ENDPOINT = Endpoint(
    "/predictions",
    "Lifecycle stages and probabilities of the next stage",
    PredictionsRequest,
    PredictionsResponse,
    handle,
    profile_metadata(JOB),
    lambda request: costs.PREDICTIONS_MS + costs.PREDICTION_USER_MS * len(request.user_ids),
    is_heavy=any_fresh,
    counted=partial(counted_scores, "/predictions"),
)
