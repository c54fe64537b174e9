"""`/v1/predictions`: what the models predict of each customer, in one row."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, create_model

from qianmian.errors import InvalidRequest
from serving import costs
from serving.champions import Champions
from serving.counting import counted_scores
from serving.endpoints.base import Endpoint
from serving.predictions import PREDICTIONS
from serving.predictions.base import Prediction, ToldConsents, available, predict_rows, unavailable
from serving.requests import Identifier, UsersRequest
from serving.responses import ModelVersion, Response, ResponseBody, UserScore, profile_metadata
from serving.scoring.fresh import any_fresh, score_users
from serving.users import resolve_users

NOT_WANTED = {name: None for one in PREDICTIONS.values() for name in one.response.model_fields}


class PredictionsRequest(UsersRequest):
    """Predict each customer: lifecycle, churn, and whatever else has a model."""

    predictions: Annotated[list[Identifier], Field(min_length=1, max_length=50)] | None = Field(
        None, description=f"which predictions, of {', '.join(PREDICTIONS)}; default: all that have a model"
    )


class _Reasons(UserScore):
    """The fields of a row that do not belong to one prediction."""

    no_score_reason: str | None = Field(
        description="why there is no prediction of this customer; null if there is at least one"
    )
    no_score_reasons: dict[str, str] | None = Field(
        description="prediction → why this customer has none of it; null if none is missing"
    )


class _Response(Response):
    """One row per id, in the order of the request."""

    models: dict[str, ModelVersion] = Field(description="prediction → the model that made it")
    unavailable: dict[str, str] = Field(description="prediction → why it has no model")


def _response() -> type[Response]:
    """The response with the fields of all predictions."""
    row: Any = create_model("PredictionRow", __base__=(_Reasons, *(one.response for one in PREDICTIONS.values())))
    row.__doc__ = "Predictions of one customer; null are those without a model, or that were not wanted."
    facts: Any = {
        name: (float | None, Field(description=description))
        for one in PREDICTIONS.values()
        for name, (_, description) in one.facts.items()
    }
    made: type[Response] = create_model("PredictionsResponse", __base__=_Response, scores=(list[row], ...), **facts)
    made.__doc__ = _Response.__doc__
    return made


def wanted(request: PredictionsRequest) -> list[Prediction]:
    """The predictions of a request.

    Raises
    ------
    InvalidRequest
        One of them is unknown.
    """
    names = list(PREDICTIONS) if request.predictions is None else list(dict.fromkeys(request.predictions))
    if strange := [name for name in names if name not in PREDICTIONS]:
        raise InvalidRequest("unknown prediction", field="predictions", got=strange[0], allowed=", ".join(PREDICTIONS))
    return [PREDICTIONS[name] for name in names]


def handle(champions: Champions, request: PredictionsRequest, now: datetime) -> ResponseBody:
    """Return the predictions, or the reasons why there are none, for each id."""
    predictions = wanted(request)
    found = available(champions, predictions)
    users = list(resolve_users(champions, request.user_ids, request.user_source))
    tags = {tag for one in found for tag in one.tags}
    told = champions.live.consents if champions.live is not None else None
    scores = score_users(champions, users, now, partial(_score, predictions, told), tags)
    models = {one.name: champions.require(one.job) for one in found}
    facts = {
        name: models[one.name].bundle.facts.get(fact) if one.name in models else None
        for one in PREDICTIONS.values()
        for name, (fact, _) in one.facts.items()
    }
    return {
        "scores": scores,
        **facts,
        "models": {name: {"name": model.name, "version": model.version} for name, model in models.items()},
        "unavailable": unavailable(champions, predictions),
        **_metadata(champions, now, predictions),
    }


def _score(
    predictions: Sequence[Prediction],
    told: ToldConsents | None,
    champions: Champions,
    rows: NDArray[np.int64],
    moments: NDArray[np.datetime64] | None,
) -> list[ResponseBody]:
    return [{**NOT_WANTED, **row} for row in predict_rows(champions, rows, moments, predictions, told)]


def _metadata(champions: Champions, now: datetime, predictions: Sequence[Prediction] | None = None) -> ResponseBody:
    """The model in the response is that of the first prediction that has one."""
    first = available(champions, predictions or list(PREDICTIONS.values()))[0]
    return profile_metadata(first.job)(champions, now)


def estimated_ms(request: PredictionsRequest) -> float:
    """Cost of a request: it grows with the customers and the predictions."""
    names = request.predictions or PREDICTIONS
    each = sum(PREDICTIONS[name].user_ms for name in names if name in PREDICTIONS)
    return costs.PREDICTIONS_MS + costs.PREDICTION_MS * len(names) + each * len(request.user_ids)


ENDPOINT = Endpoint(
    "/predictions",
    "Predictions of each customer: lifecycle, churn and all others that have a model",
    PredictionsRequest,
    _response(),
    handle,
    _metadata,
    estimated_ms,
    check=lambda _champions, request: wanted(request),
    is_heavy=any_fresh,
    counted=partial(counted_scores, "/predictions"),
)
