"""`/v1/churn`: who is about to leave, and why."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from features.compute.spec import UserFeatures
from models.classify.churn import risk_bands
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
from serving.recommending.explain import days_text, score_reasons

JOB = "churn"
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
    row_of = champions.customers.row_of
    rows = np.array([row_of.get(one.one_id or "", -1) for one in users], dtype=np.int64)
    scored = score_rows(champions, encoded, rows, request.explain)
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


def score_rows(
    champions: Champions, encoded: UserFeatures, rows: NDArray[np.int64], explain: bool
) -> list[dict[str, Any]]:
    """The score of some rows of the profiles (−1 for nobody); `reasons` only with `explain`."""
    champion = champions.require(JOB)
    why_not = no_score_reasons(champions, rows)
    scorable = np.array([position for position, reason in enumerate(why_not) if reason is None], dtype=np.int64)
    values = encoded.values[rows[scorable]]
    found: list[dict[str, Any]] = [
        {
            "churn_probability": None,
            "risk_band": None,
            **({"reasons": []} if explain else {}),
            "no_score_reason": reason,
        }
        for reason in why_not
    ]
    if not len(scorable):
        return found
    probabilities = champion.bundle.model.predict_proba(values)[:, 1]
    bands = risk_bands(probabilities, champions.settings.churn.risk_bands)
    reasons = score_reasons(encoded.spec, values, champion.bundle.model.explain(values)) if explain else None
    for place, position in enumerate(scorable.tolist()):
        found[position]["churn_probability"] = rounded(probabilities[place])
        found[position]["risk_band"] = bands[place]
        if reasons is not None:
            found[position]["reasons"] = reasons[place]
    return found


def no_score_reasons(champions: Champions, rows: NDArray[np.int64]) -> list[str | None]:
    """Why each row is not asked about, None where it is."""
    profiles = champions.customers.features
    active_days = champions.require(JOB).bundle.facts.get("active_days")
    silent = profiles.column("days_since_last_order")[rows]
    orders = profiles.column("orders_total")[rows] if "orders_total" in profiles.spec.names else np.ones(len(rows))
    late = f"no purchase in the last {days_text(active_days)}" if active_days is not None else ""
    return [
        "unknown customer"
        if row < 0
        else "never bought"
        if bought <= 0
        else late
        if active_days is not None and days > active_days
        else None
        for row, bought, days in zip(rows.tolist(), orders.tolist(), silent.tolist(), strict=True)
    ]


ENDPOINT = Endpoint(
    "/churn",
    "Who is about to leave, and why",
    ChurnRequest,
    ChurnResponse,
    handle,
    profile_metadata(JOB),
    runs_in_thread=lambda request: len(request.user_ids) > MAX_INLINE_USERS,
)
